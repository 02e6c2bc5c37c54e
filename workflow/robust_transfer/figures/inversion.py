"""Images rebuilt from their representation alone, over eps: how near they come to the original, one panel per number.

After Engstrom et al. (2019). A dotted line is what a number was where the search began, if that is the same for all
networks.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from robust_transfer.configuration.eps import eps_value
from robust_transfer.configuration.training import NORM_LABELS
from robust_transfer.figures import legends, style
from robust_transfer.figures.axes import EpsAxis, ends_of
from robust_transfer.figures.cells import NOT_MEASURED
from robust_transfer.figures.drawing import Drawing
from robust_transfer.figures.estimates import Estimate
from robust_transfer.figures.kinds import kind_of, named, of_kind
from robust_transfer.figures.labels import network_label
from robust_transfer.figures.numbers import WHAT, Number
from robust_transfer.tables.experiment_info import ExperimentInfo

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLUMNS = ("quantity", "metric", "norm", "arch", "recipe", "eps", "at_start", *WHAT)
METRICS = {
    "inversion_distance": "Distance left in the representation (%)",
    "inversion_moved": "Pixels moved from the start (%)",
    "inversion_pixels": "Pixel distance to the original (%)",
    "inversion_ssim": "SSIM to the original, ×100",
}
"""What is drawn, and what panels call it."""
START = "at the start of the search"

Network = tuple[str, str]
"""Architecture and recipe: a line."""
Values = dict[tuple[str, Network, str, str], tuple[Estimate, float | None]]
"""By metric, network, norm (`none` for eps 0) and eps: the number, and what it was at the start."""


def inversion(results: pd.DataFrame) -> Drawing:
    """Draw every network that there is a gallery of."""
    values = _values(results)
    if not values:
        return Drawing(style.nothing(f"Images rebuilt from representations: {NOT_MEASURED}"), [])
    about = ExperimentInfo.of(results)
    order = {arch: place for place, arch in enumerate(about.ordered)}
    networks = sorted({key[1] for key in values}, key=lambda one: (order.get(one[0], len(order)), one[1]))
    norms = [norm for norm in NORM_LABELS if any(key[2] == norm for key in values)] or ["l2"]
    several = len(norms) > 1
    cells = [(norm, metric) for norm in norms for metric in METRICS if any(key[0] == metric for key in values)]
    titles = [METRICS[metric] + (f", {NORM_LABELS[norm]}" if several else "") for norm, metric in cells]
    figure, axes = style.panels(titles, row_height=1.5, extra_height=0.25, columns=len(cells) // len(norms))
    inches = figure.get_figwidth() / (len(cells) // len(norms)) - 0.5
    numbers: list[Number] = []
    drawn: list[list[Estimate]] = []
    for (norm, metric), ax in zip(cells, axes, strict=True):
        here = {key: one for key, one in values.items() if key[0] == metric and key[2] in ("none", norm)}
        axis = EpsAxis(tuple(sorted({key[3] for key in here}, key=eps_value)), norm)
        kind = kind_of(row for row, _ in here.values())
        rows = {key: of_kind(kind, row) for key, (row, _) in here.items()}
        for network in networks:
            _line(ax, axis, {key[3]: row for key, row in rows.items() if key[1] == network}, networks, network)
        _start(ax, [start for _, start in here.values()])
        if min(ends_of(list(rows.values()))) >= 0:
            ax.set_ylim(bottom=0)
        axis.apply(ax, labels=True, inches=inches)
        style.label_x(figure, [ax], axis.label(), shared=False)
        drawn.append(list(rows.values()))
        numbers += [_number(key, row, here[key][1]) for key, row in rows.items()]
    legends.draw(figure, _handles(networks, axes, about.texture_robust), legends.remarks(figure, named(drawn)))
    return Drawing(figure, numbers)


def _values(results: pd.DataFrame) -> Values:
    """The numbers of galleries, means over more seeds first."""
    rows = results[(results["mode"].astype("string") == "gallery") & results["metric"].isin(list(METRICS))]
    found: Values = {}
    for row in rows.iloc[rows["backbone_seed"].notna().argsort(kind="stable")].itertuples(index=False):
        made: Any = row
        key = (str(made.metric), (str(made.arch), str(made.recipe)), str(made.norm), str(made.eps))
        found.setdefault(key, (_estimate(made), json.loads(made.hyperparameters).get("at_start")))
    return found


def _estimate(row: Any) -> Estimate:
    found = {name: getattr(row, name) for name in Estimate.__dataclass_fields__}
    return Estimate(**{name: None if value is pd.NA else value for name, value in found.items()})  # type: ignore[arg-type]


def _line(ax: Axes, axis: EpsAxis, rows: dict[str, Estimate], networks: Sequence[Network], network: Network) -> None:
    eps = [one for one in axis.eps if one in rows]
    if not eps:
        return
    archs = list(dict.fromkeys(arch for arch, _ in networks))
    colour = style.ARCHITECTURES[networks.index(network) % len(style.ARCHITECTURES)]
    marker = style.marker(archs, network[0])
    for part in ([one for one in eps if one == "0"], [one for one in eps if one != "0"]):
        places = [axis.positions[one] for one in part]
        style.curve(ax, places, [rows[one] for one in part], colour, dashed=False, marker=marker)
    if eps[0] == "0":  # set apart on the axis, and tied to the least robust one
        tie = eps[:2]
        ax.plot([axis.positions[one] for one in tie], [rows[one].value for one in tie], ls=":", lw=0.8, color=colour)


def _start(ax: Axes, values: Sequence[float | None]) -> None:
    """A dotted line at what the number was when the search began, where that is one number and above 0."""
    different = {round(value, 1) for value in values if value is not None}
    if len(different) == 1 and None not in values and (start := different.pop()) != 0:
        ax.axhline(start, color=style.LINK, ls=":", lw=0.9, zorder=1.5, label=START)


def _handles(networks: Sequence[Network], axes: Sequence[Axes], texture_robust: Mapping[str, str]) -> list[Any]:
    from matplotlib.lines import Line2D

    several = len({recipe for _, recipe in networks} - texture_robust.keys()) > 1
    archs = list(dict.fromkeys(arch for arch, _ in networks))
    handles = [
        Line2D(
            [], [], color=style.ARCHITECTURES[i % len(style.ARCHITECTURES)], marker=style.marker(archs, arch), ms=2.8,
            label=network_label(arch, recipe, texture_robust, with_recipe=several),
        )
        for i, (arch, recipe) in enumerate(networks)
    ]  # fmt: skip
    if any(line.get_label() == START for ax in axes for line in ax.lines):
        handles.append(Line2D([], [], color=style.LINK, ls=":", lw=0.9, label=START))
    return handles


def _number(key: tuple[str, Network, str, str], row: Estimate, start: float | None) -> Number:
    metric, (arch, recipe), norm, eps = key
    which: Number = {"quantity": METRICS[metric], "metric": metric, "norm": norm, "arch": arch, "recipe": recipe}
    which |= {"eps": eps, "at_start": start}
    return which | {name: getattr(row, name) for name in WHAT} | {"flags": row.flags or None}

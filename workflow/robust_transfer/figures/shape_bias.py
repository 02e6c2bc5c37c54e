"""Shape bias over eps: of decisions for the shape or the texture class of conflicting images, the share for the shape.

One panel per norm, and one by the class of the shape. Published numbers in the table (experiment `published`) are a
layer of their own, in dashes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

from robust_transfer.configuration.eps import eps_value
from robust_transfer.configuration.training import NORM_LABELS
from robust_transfer.figures import legends, style
from robust_transfer.figures.axes import EpsAxis
from robust_transfer.figures.cells import NOT_MEASURED
from robust_transfer.figures.drawing import Drawing
from robust_transfer.figures.estimates import Estimate
from robust_transfer.figures.kinds import kind_of, named, of_kind
from robust_transfer.figures.labels import architecture_label, network_label
from robust_transfer.figures.numbers import WHAT, Number
from robust_transfer.tables.experiment_info import ExperimentInfo
from robust_transfer.tables.published import PUBLISHED

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLUMNS = ("series", "norm", "arch", "recipe", "eps", "shape", *WHAT)
METRIC, ALL = "shape_bias", ""
OTHERS = ("#009e73", "#cc79a7", "#d55e00", "#56b4e9", "#b39b00", "#7b4ea3", "#8c6d31")
"""Colours of networks that have no robust ones beside them: none is that of people."""
RECIPES = {
    "released": "released",
    "torchvision": "torchvision",
    "sin": "SIN",
    "sin-and-in": "SIN+IN",
    "sin-and-in-then-in": "SIN+IN→IN",
}
"""What published recipes are called."""
PEOPLE = "people"
CLASS_HEIGHT = 0.125
"""Inches of a class in the panel by class."""


@dataclass(frozen=True)
class Network:
    """Networks that differ in eps alone: a line."""

    published: bool
    arch: str
    recipe: str


Values = dict[tuple[Network, str, str, str], Estimate]
"""By network, norm (`none` for eps 0), eps, and the class of the shape (`ALL`: over all)."""


def shape_bias(results: pd.DataFrame) -> Drawing:
    """Draw every network whose shape bias is in the table."""
    values = _values(results)
    about = ExperimentInfo.of(results)
    networks = _networks(values, about)
    if not networks:
        return Drawing(style.nothing(f"Shape bias: {NOT_MEASURED}"), [])
    norms = _norms(values) or ["l2"]
    labels = _labels(networks, about)
    shown = _by_class(values, networks, norms)
    classes = list(dict.fromkeys(shape for *_, shape in shown))
    titles = [f"By ε ({NORM_LABELS[norm]})" for norm in norms] + _class_titles(shown, labels)
    height = max(1.75, 0.35 + CLASS_HEIGHT * len(classes))
    figure, axes = style.panels(titles, row_height=height, extra_height=0.25)
    looks = _looks(values, networks)
    drawn: list[list[Estimate]] = []
    numbers: list[Number] = []
    for norm, ax in zip(norms, axes, strict=False):
        of_panel = _panel(ax, values, networks, norm, looks, inches=figure.get_figwidth() / len(titles) - 0.6)
        drawn.append([row for _, _, row in of_panel])
        numbers += [_number(network, norm, eps, ALL, row) for network, eps, row in of_panel]
    axes[0].set_ylabel("Shape bias (%)")
    if classes:
        of_kind_ = {key: of_kind(kind_of(shown.values()), row) for key, row in shown.items()}
        _classes(axes[-1], of_kind_, classes)
        drawn.append(list(of_kind_.values()))
        numbers += [_number(network, norm, eps, shape, row) for (network, norm, eps, shape), row in of_kind_.items()]
    colours = _eps_handles([eps for _, _, eps, _ in shown])
    remarks = [*named(drawn), *_resized(results)]
    legends.draw(figure, _handles(labels, looks), colours, legends.remarks(figure, remarks))
    return Drawing(figure, numbers)


def _rows(results: pd.DataFrame) -> pd.DataFrame:
    """The shape biases, means over more seeds first."""
    found = results[(results["mode"].astype("string") == "cue-conflict") & (results["metric"] == METRIC)]
    return found.iloc[found["backbone_seed"].notna().argsort(kind="stable")]


def _values(results: pd.DataFrame) -> Values:
    found: Values = {}
    for row in _rows(results).itertuples(index=False):
        made: Any = row
        network = Network(made.experiment == PUBLISHED, str(made.arch), str(made.recipe))
        key = (network, str(made.norm), str(made.eps), str(json.loads(made.variant).get("shape", ALL)))
        found.setdefault(key, _estimate(made))
    return found


def _estimate(row: Any) -> Estimate:
    found = {name: getattr(row, name) for name in Estimate.__dataclass_fields__}
    fields: dict[str, Any] = {name: None if value is pd.NA else value for name, value in found.items()}
    return Estimate(**fields)


def _networks(values: Values, about: ExperimentInfo) -> list[Network]:
    """Ours in the experiment's order, then published ones; those with robust networks first."""
    every = dict.fromkeys(network for network, *_, shape in values if shape == ALL)
    order = {arch: place for place, arch in enumerate(about.ordered)}
    return sorted(
        every,
        key=lambda one: (one.published, not _is_line(values, one), one.arch == PEOPLE, order.get(one.arch, len(order))),
    )


def _labels(networks: Sequence[Network], about: ExperimentInfo) -> dict[Network, str]:
    """What legend and titles call networks: of ours, the recipe is named where it is texture-robust, or where there are
    several others."""
    own = {network.recipe for network in networks if not network.published} - about.texture_robust.keys()
    return {network: _label(network, about.texture_robust, with_recipe=len(own) > 1) for network in networks}


def _label(network: Network, texture_robust: Mapping[str, str], *, with_recipe: bool) -> str:
    if network.arch == PEOPLE:
        return PEOPLE
    if network.published:
        return f"{architecture_label(network.arch)}, {RECIPES.get(network.recipe, network.recipe)} (published)"
    return network_label(network.arch, network.recipe, texture_robust, with_recipe=with_recipe)


def _norms(values: Values) -> list[str]:
    """The norms of robust networks, in order."""
    return [norm for norm in NORM_LABELS if any(key[1] == norm for key in values)]


def _is_line(values: Values, network: Network) -> bool:
    """There are robust networks of this kind."""
    return any(key[0] == network and key[2] != "0" for key in values)


def _looks(values: Values, networks: Sequence[Network]) -> dict[Network, style.Look]:
    """Colour and marker of a line; beside lines, those without robust networks are levels of a colour of their own."""
    archs = list(dict.fromkeys(network.arch for network in networks))
    lines = [network for network in networks if _is_line(values, network)]
    levels = [network for network in networks if lines and network not in lines]
    looks: dict[Network, style.Look] = {}
    for network in networks:
        if network in levels:
            colour = style.INK if network.arch == PEOPLE else OTHERS[levels.index(network) % len(OTHERS)]
            looks[network] = {"color": colour, "ls": ":" if network.published else "-.", "lw": 0.9}
        else:
            colour = style.FIXED if network.published else style.ROBUST
            look: style.Look = {"color": colour, "marker": style.marker(archs, network.arch), "ms": 3.0}
            looks[network] = look | ({"ls": style.DASHES, "mfc": "white"} if network.published else {})
    return looks


def _panel(
    ax: Axes,
    values: Values,
    networks: Sequence[Network],
    norm: str,
    looks: dict[Network, style.Look],
    *,
    inches: float,
) -> list[tuple[Network, str, Estimate]]:
    """Draw one norm: lines over eps, with eps 0 tied to them by dots, and levels; gives what was drawn."""
    here = {key: row for key, row in values.items() if key[3] == ALL and key[1] in ("none", norm)}
    eps = sorted({key[2] for key in here}, key=eps_value)
    axis = EpsAxis(tuple(eps), norm)
    kind = kind_of(here.values())
    drawn = []
    for network in networks:
        keys = {one: (network, "none" if one == "0" else norm, one, ALL) for one in eps}
        rows = [(one, of_kind(kind, here[key])) for one, key in keys.items() if key in here]
        if not rows or (rows[-1][0] == "0" and _is_line(values, network)):  # its robust networks are of another norm
            continue
        drawn += [(network, one, row) for one, row in rows]
        if "marker" in looks[network]:
            _line(ax, axis.positions, rows, looks[network])
        else:
            ax.axhline(rows[0][1].value, zorder=1.5, **looks[network])
    ax.set_ylim(-3, 103)
    ax.set_yticks(range(0, 101, 20))
    axis.apply(ax, labels=True, inches=inches)
    ax.set_xlabel(axis.label())
    return drawn


def _line(ax: Axes, positions: dict[str, float], points: Sequence[tuple[str, Estimate]], look: style.Look) -> None:
    robust = [(positions[eps], row) for eps, row in points if eps != "0"]
    standard = [(positions[eps], row) for eps, row in points if eps == "0"]
    for part in (robust, standard):
        x, rows = [place for place, _ in part], [row for _, row in part]
        ax.plot(x, [row.value for row in rows], **look)
        if any(not math.isnan(row.ci_low) for row in rows):
            y = [row.value for row in rows]
            ax.errorbar(x, y, style.whiskers(rows), fmt="none", ecolor=look["color"], elinewidth=0.6, alpha=0.8)
        style.daggers(ax, x, rows)
    tie = [*standard, *robust[:1]]
    ax.plot([place for place, _ in tie], [row.value for _, row in tie], ls=":", lw=0.8, color=look["color"])


def _by_class(values: Values, networks: Sequence[Network], norms: Sequence[str]) -> Values:
    """What the panel by class shows: the first network that has numbers by class, under the first norm.

    Those behind which something failed are left out: by class there is no room for daggers.
    """
    for network in networks:
        found = {
            key: row
            for key, row in sorted(values.items(), key=lambda item: eps_value(item[0][2]))
            if key[0] == network and key[1] in ("none", norms[0]) and key[3] != ALL and not row.failed
        }
        if found:
            return found
    return {}


def _class_titles(shown: Values, labels: Mapping[Network, str]) -> list[str]:
    """The title of the panel by class, if there is one: it names the network where others are drawn too."""
    ours = [network for network in labels if not network.published]
    names = dict.fromkeys(labels[network] for network, *_ in shown)
    return [f"By class of the shape{f', {name}' if len(ours) > 1 else ''}" for name in names]


def _classes(ax: Axes, shown: Values, classes: Sequence[str]) -> None:
    """One line per class, one mark per eps; intervals where there are few eps."""
    eps = list(dict.fromkeys(key[2] for key in shown))
    colours = style.eps_colours(eps)
    for (_, _, one, shape), row in shown.items():
        y = classes.index(shape) + 0.6 * (eps.index(one) - (len(eps) - 1) / 2) / max(len(eps), 2)
        if len(eps) <= 4 and not math.isnan(row.ci_low):
            ax.errorbar(row.value, y, xerr=style.whiskers([row]), fmt="none", ecolor=colours[one], elinewidth=0.5)
        ax.plot(row.value, y, "o", color=colours[one], ms=2.6, mew=0)
    ax.set_yticks(range(len(classes)), list(classes))
    ax.tick_params(axis="y", length=0)
    ax.set_ylim(len(classes) - 0.4, -0.6)
    ax.set_xlim(-2, 102)
    ax.set_xlabel("Shape bias (%)")


def _handles(labels: Mapping[Network, str], looks: dict[Network, style.Look]) -> list[Any]:
    from matplotlib.lines import Line2D

    return [Line2D([], [], label=label, **looks[network]) for network, label in labels.items()]


def _eps_handles(eps: Iterable[str]) -> list[Any]:
    from matplotlib.lines import Line2D

    ordered = sorted(set(eps), key=eps_value)
    colours = style.eps_colours(ordered)
    return [Line2D([], [], ls="", marker="o", color=colours[one], ms=2.6, label=f"ε {one}") for one in ordered]


def _resized(results: pd.DataFrame) -> list[str]:
    """A remark where images were not seen as they are."""
    of_ours = _rows(results[results["experiment"] != PUBLISHED])["variant"]
    sides = sorted({json.loads(text).get("resized_from") for text in of_ours} - {None})
    if not sides:
        return []
    said = " and ".join(map(str, sides))
    return [f"images of {said} pixels were resized to the networks' input: values compare among these networks alone"]


def _number(network: Network, norm: str, eps: str, shape: str, row: Estimate) -> Number:
    which: Number = {"series": PUBLISHED if network.published else "ours", "norm": norm, "arch": network.arch}
    which |= {"recipe": network.recipe, "eps": eps, "shape": shape or None}
    return which | {name: getattr(row, name) for name in WHAT} | {"flags": row.flags or None}

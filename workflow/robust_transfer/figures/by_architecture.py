"""Figures 2 and 3: accuracy by architecture, standard against best robust, one panel per target."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from robust_transfer.figures import style
from robust_transfer.figures.axes import accuracy_limits, architecture_ticks
from robust_transfer.figures.cells import (
    FIXED_FEATURE,
    FULL_NETWORK,
    MODE_LABELS,
    NORM_LABELS,
    NOT_MEASURED,
    Cells,
    Comparison,
    Estimate,
    Panel,
)
from robust_transfer.figures.drawing import Drawing
from robust_transfer.figures.kinds import comparison_of_kind, kind_of, named
from robust_transfer.figures.labels import architecture_label
from robust_transfer.figures.numbers import Number, columns, number
from robust_transfer.tables.key import BEST_ROBUST

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

COLUMNS = columns("chosen_eps")

WIDTH = 0.3
PLACES = {"standard": -0.31, "robust": 0.0, "fixed": 0.3}
"""Where in an architecture's slot, which is 1 wide, each of the three lies."""


def fixed_feature(results: pd.DataFrame) -> Drawing:
    """Figure 2."""
    return _draw(Cells(results), FIXED_FEATURE)


def full_network(results: pd.DataFrame) -> Drawing:
    """Figure 3."""
    return _draw(Cells(results), FULL_NETWORK)


def _draw(cells: Cells, mode: str) -> Drawing:
    panels = cells.panels(mode)
    if not panels:
        return Drawing(style.nothing(f"{MODE_LABELS[mode]} transfer: {NOT_MEASURED}"), [])
    figure, axes = style.panels([panel.label for panel in panels], row_height=1.35, extra_height=0.3)
    numbers: list[Number] = []
    every = {panel: _comparisons(cells, panel) for panel in panels}
    archs = [arch for arch in cells.about.ordered if any(_rows(comparison[arch]) for comparison in every.values())]
    for panel, ax in zip(panels, axes, strict=True):
        _panel(ax, cells, panel, [(arch, every[panel][arch]) for arch in archs])
        numbers += [
            one for arch, comparison in every[panel].items() for one in _numbers(cells, panel, arch, comparison)
        ]
        architecture_ticks(ax, archs, labelled=style.in_last_row(axes, ax))
    left_out = [architecture_label(arch) for arch in cells.about.ordered if arch not in archs]
    kinds = named([row for one in of.values() for row in _rows(one)] for of in every.values())
    remarks = cells.remarks(cells.shown(mode)) + kinds + [f"{NOT_MEASURED}: {', '.join(left_out)}"] * bool(left_out)
    style.legends(figure, _handles(cells, panels), style.remarks(figure, remarks))
    figure.supylabel(f"{MODE_LABELS[mode]} accuracy (%)", fontsize=7)
    return Drawing(figure, numbers)


def _comparisons(cells: Cells, panel: Panel) -> dict[str, Comparison]:
    """The comparison of every architecture, with intervals of one kind."""
    found = {arch: cells.comparison(panel, arch) for arch in cells.about.ordered}
    kind = kind_of(row for comparison in found.values() for row in _rows(comparison))
    return {arch: comparison_of_kind(kind, comparison) for arch, comparison in found.items()}


def _rows(comparison: Comparison) -> list[Estimate]:
    return [row for row in (comparison.standard, comparison.robust, comparison.fixed) if row]


def _panel(ax: Axes, cells: Cells, panel: Panel, slots: Sequence[tuple[str, Comparison]]) -> None:
    drawn = [row for _, comparison in slots for row in _rows(comparison)]
    if not drawn:
        style.say(ax, NOT_MEASURED)
        return
    accuracy_limits(ax, drawn, bars=True)
    for slot, (arch, comparison) in enumerate(slots):
        standard, robust, fixed = (slot + PLACES[name] for name in ("standard", "robust", "fixed"))
        _bar(ax, standard, comparison.standard, style.STANDARD)
        _bar(ax, robust, comparison.robust, style.ROBUST, _chosen_eps(comparison))
        _marker(ax, fixed, comparison.fixed)
        _seeds(ax, standard, cells.seeds(panel, arch, "0"))
        _seeds(ax, robust, cells.seeds(panel, arch, _chosen_eps(comparison)))
        _seeds(ax, fixed, cells.seeds(panel, arch, cells.about.fixed_eps.get(panel.norm, "")))


def _numbers(cells: Cells, panel: Panel, arch: str, comparison: Comparison) -> list[Number]:
    fixed_eps = cells.about.fixed_eps.get(panel.norm, "")
    return [
        number(panel, "standard", arch, "0", comparison.standard, chosen_eps=None),
        number(panel, "best robust", arch, BEST_ROBUST, comparison.robust, chosen_eps=_chosen_eps(comparison)),
        number(panel, "fixed eps", arch, fixed_eps, comparison.fixed, chosen_eps=None),
    ]


def _chosen_eps(comparison: Comparison) -> str:
    return str(comparison.robust.chosen["eps"]) if comparison.robust else ""


def _bar(ax: Axes, x: float, row: Estimate | None, colour: str, note: str = "") -> None:
    """A bar with its interval and a note at its foot; where nothing was measured, words in the bar's place."""
    foot = ax.get_ylim()[0]
    words: style.Look = {"transform": ax.get_xaxis_transform(), "rotation": 90, "ha": "center", "va": "bottom"}
    if row is None:
        ax.text(x, 0.03, NOT_MEASURED, fontsize=5, color=style.STANDARD, **words)
        return
    ax.bar(x, row.value - foot, WIDTH, bottom=foot, color=colour, lw=0)
    ax.errorbar(x, row.value, style.whiskers([row]), fmt="none", ecolor=style.INK, elinewidth=0.7, zorder=3)
    style.daggers(ax, [x], [row])
    ax.text(x, 0.04, note, fontsize=5, color="white", clip_on=True, **words)


def _marker(ax: Axes, x: float, row: Estimate | None) -> None:
    if row is not None:
        look: style.Look = {
            "color": style.FIXED,
            "markeredgecolor": style.INK,
            "markeredgewidth": 0.4,
            "elinewidth": 0.7,
        }
        ax.errorbar(x, row.value, style.whiskers([row]), fmt="D", ms=3.2, ecolor=style.INK, **look)
        style.daggers(ax, [x], [row])


def _seeds(ax: Axes, x: float, seeds: Sequence[Estimate]) -> None:
    """Small dots for single seeds, where there are several."""
    if len(seeds) > 1:
        ax.plot([x + 0.07] * len(seeds), [row.value for row in seeds], ".", color=style.INK, ms=1.8, mew=0, zorder=4)


def _handles(cells: Cells, panels: Sequence[Panel]) -> list[Any]:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    norms = dict.fromkeys(panel.norm for panel in panels)
    fixed = ", ".join(
        cells.about.fixed_eps[norm] + (f" ({NORM_LABELS.get(norm, norm)})" if len(norms) > 1 else "")
        for norm in norms
        if norm in cells.about.fixed_eps
    )
    handles = [
        Patch(color=style.STANDARD, label="standard (ε 0)"),
        Patch(color=style.ROBUST, label=f"best robust (ε at the foot, chosen on {cells.selection})"),
    ]
    look: style.Look = {"ls": "", "marker": "D", "mfc": style.FIXED, "mec": style.INK, "mew": 0.4}
    return [*handles, Line2D([], [], label=f"robust, ε {fixed}", **look)] if fixed else handles

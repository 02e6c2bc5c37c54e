"""Figure 7: accuracy over eps, native images against downscaled ones, one panel per target."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from robust_transfer.figures import legends, style
from robust_transfer.figures.axes import EpsAxis, accuracy_limits
from robust_transfer.figures.beside import TITLE, draw_differences
from robust_transfer.figures.cells import NOT_MEASURED, Cells, Panel, shown_mode
from robust_transfer.figures.drawing import Drawing
from robust_transfer.figures.estimates import Estimate
from robust_transfer.figures.kinds import kind_of, named, of_kind
from robust_transfer.figures.numbers import Number, columns, number
from robust_transfer.figures.pairs import differences, paired
from robust_transfer.figures.protocols import FULL_NETWORK, MODE_LABELS, shown_protocol
from robust_transfer.tables.key import BEST_ROBUST

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

COLUMNS = columns("downscaled")

Curve = list[tuple[str, Estimate]]
"""(eps, accuracy) by growing eps."""
Key = tuple[str, int | None]
"""Architecture, and the size downscaled to or None."""


def granularity(results: pd.DataFrame) -> Drawing:
    """Draw the architectures that have downscaled numbers, in the fixed-feature mode where there is one."""
    cells = Cells(results)
    return _draw(cells, shown_mode(cells))


def granularity_full_network(results: pd.DataFrame) -> Drawing:
    """The same of full-network transfer."""
    return _draw(Cells(results), FULL_NETWORK)


def _draw(cells: Cells, mode: str) -> Drawing:
    protocol = shown_protocol([one for one in cells.protocols(mode) if len(cells.views(one)) > 1], cells.about)
    every = cells.panels(mode, protocol) if protocol else []
    views = list(dict.fromkeys(view for panel in every for view in cells.views(panel.protocol)))
    archs = [arch for arch in cells.about.ordered if _downscaled(cells, every, arch, views)]
    if not archs:
        return Drawing(style.nothing(f"Transfer from downscaled images: {NOT_MEASURED}"), [])
    keys = [(arch, view) for view in views for arch in archs]
    drawn = {panel: curves for panel in every if (curves := _curves(cells, panel, keys))}
    panels = list(drawn)
    behind = {panel: _behind(cells, panel, keys) for panel in panels}
    numbers = [one for panel in panels for one in _numbers(panel, drawn[panel])]
    numbers += [one for panel in panels if (twin := cells.behind(panel)) for one in _numbers(twin, behind[panel])]
    numbers = paired(numbers)
    compared = bool(differences(numbers))
    titles = [*(panel.label for panel in panels), *[TITLE] * compared]
    figure, axes = style.panels(titles, row_height=1.4, extra_height=0.45, wide_last=compared)
    for panel, ax in zip(panels, axes, strict=False):
        _panel(ax, cells, panel, drawn[panel], behind[panel], views, archs)
        axis = EpsAxis(tuple(cells.eps(panel.norm)), panel.norm)
        inches = (figure.get_figwidth() - 0.5) / min(4, len(titles)) - 0.3
        axis.apply(ax, labels=style.in_last_row(axes[: len(panels)], ax), inches=inches)
    if compared:
        labels = {panel.target.name: panel.target.label for panel in panels}
        draw_differences(axes[-1], numbers, labels, lambda one: {"color": _colour(views, one["downscaled"])})
    norms = dict.fromkeys(panel.norm for panel in panels)
    axis_names = [EpsAxis(tuple(cells.eps(norm)), norm).label() for norm in norms]
    style.label_x(figure, axes[: len(panels)], " / ".join(axis_names), shared=not compared)
    figure.supylabel(f"{MODE_LABELS[mode]} accuracy (%)", fontsize=7)
    markers = legends.architectures(archs) if len(archs) > 1 else []
    remarks = cells.remarks(protocol)
    remarks += named([row for curve in curves.values() for _, row in curve] for curves in drawn.values())
    left_out = [panel.label for panel in every if panel not in panels]
    remarks += [f"{NOT_MEASURED}: {', '.join(left_out)}"] * bool(left_out)
    handles = [*_handles(views, cells), *[legends.hollow()] * any(behind.values())]
    legends.draw(figure, handles, markers, legends.remarks(figure, remarks))
    return Drawing(figure, numbers)


def _colour(views: Sequence[int | None], view: object) -> str:
    return style.view_colour(views, view if isinstance(view, int) else None)


def _numbers(panel: Panel, curves: dict[Key, Curve]) -> list[Number]:
    return [
        number(panel, "transfer", arch, eps, row, downscaled=view)
        for (arch, view), curve in curves.items()
        for eps, row in curve
    ]


def _behind(cells: Cells, panel: Panel, keys: Sequence[Key]) -> dict[Key, Curve]:
    """The published curves of the same networks and views, at the eps that we have."""
    twin = cells.behind(panel)
    if twin is None or cells.published is None:
        return {}
    every_eps = cells.eps(panel.norm)
    found = {key: [one for one in _curve(cells.published, twin, *key) if one[0] in every_eps] for key in keys}
    return {key: curve for key, curve in found.items() if curve}


def _downscaled(cells: Cells, panels: Sequence[Panel], arch: str, views: Sequence[int | None]) -> bool:
    return any(_curve(cells, panel, arch, view) for panel in panels for view in views if view is not None)


def _curves(cells: Cells, panel: Panel, keys: Sequence[Key]) -> dict[Key, Curve]:
    """The curves that were measured, with intervals of one kind."""
    found = {key: _curve(cells, panel, *key) for key in keys}
    kind = kind_of(row for curve in found.values() for _, row in curve)
    return {key: [(eps, of_kind(kind, row)) for eps, row in curve] for key, curve in found.items() if curve}


def _curve(cells: Cells, panel: Panel, arch: str, view: int | None) -> Curve:
    found = [(eps, cells.cell(panel, arch, eps, downscaled=view)) for eps in cells.eps(panel.norm)]
    return [(eps, row) for eps, row in found if row]


def _panel(
    ax: Axes,
    cells: Cells,
    panel: Panel,
    curves: dict[Key, Curve],
    behind: dict[Key, Curve],
    views: Sequence[int | None],
    archs: Sequence[str],
) -> None:
    rows = [row for curve in curves.values() for _, row in curve]
    accuracy_limits(ax, [*rows, *(row for curve in behind.values() for _, row in curve)])
    _say_missing(ax, [view for view in views if not any(key[1] == view for key in curves)], rows)
    positions = EpsAxis(tuple(cells.eps(panel.norm)), panel.norm).positions
    for (arch, view), curve in behind.items():
        for part in ([one for one in curve if one[0] != "0"], [one for one in curve if one[0] == "0"]):
            x, of = [positions[eps] for eps, _ in part], [row for _, row in part]
            style.curve_behind(ax, x, of, _colour(views, view), marker=style.marker(archs, arch))
    for (arch, view), curve in curves.items():
        colour = style.view_colour(views, view)
        best = cells.cell(panel, arch, BEST_ROBUST, downscaled=view)
        _draw_curve(ax, positions, curve, colour, style.marker(archs, arch), best)
        for eps, _ in curve:
            seeds = cells.seeds(panel, arch, eps, downscaled=view)
            style.seed_dots(
                ax, positions[eps] + 0.02 * (max(positions.values()) - min(positions.values())), seeds, colour
            )


def _say_missing(ax: Axes, views: Sequence[int | None], rows: Sequence[Estimate]) -> None:
    """Name the views that this panel lacks, on the right where the last point leaves room."""
    if views:
        names = ", ".join(f"{view} px" if view else "native" for view in views)
        y, va = (0.05, "bottom") if rows[-1].value > sum(ax.get_ylim()) / 2 else (0.95, "top")
        look: style.Look = {"color": style.STANDARD, "style": "italic", "fontsize": style.SMALL, "va": va}
        ax.text(0.98, y, f"{names}: {NOT_MEASURED}", transform=ax.transAxes, ha="right", **look)


def _draw_curve(
    ax: Axes, positions: dict[str, float], curve: Curve, colour: str, marker: str, best: Estimate | None
) -> None:
    """A line through robust eps, eps 0 tied to it by dots, and a ring around the eps chosen among robust ones."""
    robust = [(positions[eps], row) for eps, row in curve if eps != "0"]
    standard = [(positions[eps], row) for eps, row in curve if eps == "0"]
    for line in (robust, standard):
        style.curve(ax, [x for x, _ in line], [row for _, row in line], colour, dashed=False, marker=marker)
    # To the smallest robust eps alone: a tie across eps that were not measured crosses other curves.
    first = min(place for eps, place in positions.items() if eps != "0") if robust else math.nan
    tie = [*standard, *robust[:1]] if robust and robust[0][0] == first else []
    ax.plot([x for x, _ in tie], [row.value for _, row in tie], ls=":", lw=0.8, color=colour)
    for eps, row in curve:
        if best and best.chosen["eps"] == eps:
            ax.plot(positions[eps], row.value, "o", ms=6.5, mfc="none", mec=colour, mew=0.8, zorder=4)


def _handles(views: Sequence[int | None], cells: Cells) -> list[Any]:
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], color=style.view_colour(views, view), marker="o", label=f"{view} px" if view else "native")
        for view in views
    ]
    ring: style.Look = {"ls": "", "marker": "o", "ms": 6.5, "mfc": "none", "mec": style.INK}
    return [*handles, Line2D([], [], label=f"robust ε chosen on {cells.selection}", **ring)]

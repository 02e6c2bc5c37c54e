"""Figure 7: accuracy over eps, native images against downscaled ones, one panel per target."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from robust_transfer.figures import style
from robust_transfer.figures.axes import EpsAxis, accuracy_limits
from robust_transfer.figures.cells import MODE_LABELS, NOT_MEASURED, Cells, Estimate, Panel, shown_mode, shown_protocol
from robust_transfer.figures.drawing import Drawing
from robust_transfer.figures.kinds import kind_of, named, of_kind
from robust_transfer.figures.numbers import Number, columns, number
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
    mode = shown_mode(cells)
    protocol = shown_protocol([one for one in cells.protocols(mode) if len(cells.views(one)) > 1], cells.about)
    panels = cells.panels(mode, protocol)
    views = list(dict.fromkeys(view for panel in panels for view in cells.views(panel.protocol)))
    archs = [arch for arch in cells.about.ordered if _downscaled(cells, panels, arch, views)]
    if not archs:
        return Drawing(style.nothing(f"Transfer from downscaled images: {NOT_MEASURED}"), [])
    figure, axes = style.panels([panel.label for panel in panels], row_height=1.4, extra_height=0.45)
    numbers: list[Number] = []
    drawn = {panel: _curves(cells, panel, [(arch, view) for view in views for arch in archs]) for panel in panels}
    for panel, ax in zip(panels, axes, strict=True):
        curves = drawn[panel]
        _panel(ax, cells, panel, curves, views, archs)
        axis = EpsAxis(tuple(cells.eps(panel.norm)), panel.norm)
        inches = (figure.get_figwidth() - 0.5) / min(4, len(panels)) - 0.3
        axis.apply(ax, labels=style.in_last_row(axes, ax), inches=inches)
        numbers += [
            number(panel, "transfer", arch, eps, row, downscaled=view)
            for (arch, view), curve in curves.items()
            for eps, row in curve
        ]
    norms = dict.fromkeys(panel.norm for panel in panels)
    axis_names = [EpsAxis(tuple(cells.eps(norm)), norm).label() for norm in norms]
    figure.supxlabel(" / ".join(axis_names), fontsize=7)
    figure.supylabel(f"{MODE_LABELS[mode]} accuracy (%)", fontsize=7)
    markers = style.architecture_handles(archs) if len(archs) > 1 else []
    kinds = named([row for curve in curves.values() for _, row in curve] for curves in drawn.values())
    style.legends(figure, _handles(views, cells), markers, style.remarks(figure, cells.remarks(protocol) + kinds))
    return Drawing(figure, numbers)


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
    ax: Axes, cells: Cells, panel: Panel, curves: dict[Key, Curve], views: Sequence[int | None], archs: Sequence[str]
) -> None:
    if not curves:
        style.say(ax, NOT_MEASURED)
        return
    rows = [row for curve in curves.values() for _, row in curve]
    accuracy_limits(ax, rows)
    _say_missing(ax, [view for view in views if not any(key[1] == view for key in curves)], rows)
    positions = EpsAxis(tuple(cells.eps(panel.norm)), panel.norm).positions
    for (arch, view), curve in curves.items():
        colour = style.view_colour(views, view)
        best = cells.cell(panel, arch, BEST_ROBUST, downscaled=view)
        _draw_curve(ax, positions, curve, colour, style.marker(archs, arch), best)


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
    tie = [*standard, *robust[:1]]
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

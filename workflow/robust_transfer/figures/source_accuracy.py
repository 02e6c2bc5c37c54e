"""Figure 5: transfer accuracy against source accuracy as eps grows, one panel per target, one line per architecture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from robust_transfer.figures import style
from robust_transfer.figures.axes import accuracy_limits
from robust_transfer.figures.cells import MODE_LABELS, NOT_MEASURED, Cells, Estimate, Panel, shown_mode
from robust_transfer.figures.drawing import Drawing
from robust_transfer.figures.kinds import kind_of, named, of_kind
from robust_transfer.figures.numbers import Number, columns, number
from robust_transfer.tables.key import BEST_ARCH

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

COLUMNS = columns("source_value")


def source_accuracy(results: pd.DataFrame) -> Drawing:
    """Draw the fixed-feature mode as in the paper, or full-network where that is all there is."""
    cells = Cells(results)
    mode = shown_mode(cells)
    panels = cells.panels(mode)
    points = {panel: _lines(cells, panel) for panel in panels}
    levels = {panel: cells.cell(panel, BEST_ARCH, "0") for panel in panels}
    if not any(line for lines in points.values() for line in lines.values()):
        return Drawing(style.nothing(f"Transfer against source accuracy: {NOT_MEASURED}"), [])
    figure, axes = style.panels([panel.label for panel in panels], row_height=1.4, extra_height=0.45)
    shown = [arch for arch in cells.about.ordered if any(lines[arch] for lines in points.values())]
    colours = style.eps_colours(cells.eps())
    for panel, ax in zip(panels, axes, strict=True):
        for arch in shown:
            _line(ax, points[panel][arch], colours, style.marker(shown, arch))
        _level(ax, levels[panel])
        rows = [row for line in points[panel].values() for _, _, row in line]
        if rows:
            accuracy_limits(ax, rows)
            _widened(ax)
        else:
            style.say(ax, NOT_MEASURED)
    figure.supxlabel(f"Accuracy on {cells.about.source_label}, the source (%)", fontsize=7)
    figure.supylabel(f"{MODE_LABELS[mode]} accuracy (%)", fontsize=7)
    handles = _handles(cells.eps(), shown, level=any(levels.values()))
    kinds = named([row for line in lines.values() for _, _, row in line] for lines in points.values())
    style.legends(figure, *handles, style.remarks(figure, cells.remarks(cells.shown(mode)) + kinds))
    return Drawing(figure, _numbers(points, levels))


def _widened(ax: Axes) -> None:
    """At least two points of source accuracy, so that networks which are alike do not stand at thousandths."""
    low, high = ax.get_xlim()
    if high - low < 2:
        ax.set_xlim((low + high) / 2 - 1, (low + high) / 2 + 1)


def _lines(cells: Cells, panel: Panel) -> dict[str, list[tuple[str, Estimate, Estimate]]]:
    """The points of every architecture, with intervals of one kind."""
    found = {arch: _points(cells, panel, arch) for arch in cells.about.ordered}
    kind = kind_of(row for line in found.values() for _, _, row in line)
    return {arch: [(eps, source, of_kind(kind, row)) for eps, source, row in line] for arch, line in found.items()}


def _points(cells: Cells, panel: Panel, arch: str) -> list[tuple[str, Estimate, Estimate]]:
    """Every eps at which both accuracies were measured, growing: (eps, source row, transfer row)."""
    found = []
    for eps in cells.eps(panel.norm):
        source, transfer = cells.source(arch, panel.norm, eps), cells.cell(panel, arch, eps)
        if source and transfer:
            found.append((eps, source, transfer))
    return found


def _line(ax: Axes, points: Sequence[tuple[str, Estimate, Estimate]], colours: dict[str, Any], marker: str) -> None:
    x, y = [source.value for _, source, _ in points], [row.value for _, _, row in points]
    ax.plot(x, y, "-", color=style.LINK, lw=0.7, zorder=2)
    shades = [colours[eps] for eps, _, _ in points]
    rows = [row for _, _, row in points]
    ax.errorbar(x, y, style.whiskers(rows), fmt="none", ecolor=shades, elinewidth=0.5, zorder=3)  # type: ignore[arg-type]
    ax.scatter(x, y, s=13, c=shades, marker=marker, edgecolors=style.INK, linewidths=0.3, zorder=4)
    style.daggers(ax, x, rows)


def _level(ax: Axes, standard: Estimate | None) -> None:
    """The line that a robust network must pass to be ahead of the standard ones."""
    if standard:
        ax.axhline(standard.value, color=style.STANDARD, lw=0.8, ls=style.DASHES, zorder=1)


def _numbers(
    points: dict[Panel, dict[str, list[tuple[str, Estimate, Estimate]]]], levels: dict[Panel, Estimate | None]
) -> list[Number]:
    numbers = [
        number(panel, "transfer", arch, eps, row, source_value=source.value)
        for panel, lines in points.items()
        for arch, line in lines.items()
        for eps, source, row in line
    ]
    return numbers + [
        number(panel, "standard level", str(row.chosen["arch"]), "0", row, source_value=None)
        for panel, row in levels.items()
        if row
    ]


def _handles(eps: Sequence[str], archs: Sequence[str], *, level: bool) -> tuple[list[Any], list[Any]]:
    """Legend handles: one colour per eps; one marker per architecture, and the level of the standard networks."""
    from matplotlib.lines import Line2D

    look: style.Look = {"ls": "", "marker": "o", "mec": style.INK, "mew": 0.3}
    colours = style.eps_colours(eps)
    others = style.architecture_handles(archs) if len(archs) > 1 else []
    if level:
        name = "best standard network" if len(archs) > 1 else "standard network"
        others.append(Line2D([], [], color=style.STANDARD, lw=0.8, ls=style.DASHES, label=name))
    return [Line2D([], [], color=colours[one], label=f"ε {one}", **look) for one in eps], others

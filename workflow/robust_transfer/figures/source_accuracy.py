"""Figure 5: transfer accuracy against source accuracy as eps grows, one panel per target, one line per architecture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from robust_transfer.figures import legends, style
from robust_transfer.figures.axes import accuracy_limits
from robust_transfer.figures.beside import TITLE, draw_differences
from robust_transfer.figures.cells import NOT_MEASURED, Cells, Panel, shown_mode
from robust_transfer.figures.drawing import Drawing
from robust_transfer.figures.estimates import Estimate
from robust_transfer.figures.kinds import kind_of, named, of_kind
from robust_transfer.figures.labels import architecture_label
from robust_transfer.figures.numbers import Number, columns, number
from robust_transfer.figures.pairs import differences, paired
from robust_transfer.figures.protocols import FULL_NETWORK, MODE_LABELS
from robust_transfer.tables.key import BEST_ARCH

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

COLUMNS = columns("source_value")
MANY = 6
"""Architectures above which those of a single robust eps, which make no line, are named instead."""


def source_accuracy(results: pd.DataFrame) -> Drawing:
    """Draw the fixed-feature mode as in the paper, or full-network where that is all there is."""
    cells = Cells(results)
    return _draw(cells, shown_mode(cells))


def source_accuracy_full_network(results: pd.DataFrame) -> Drawing:
    """The same of full-network transfer."""
    return _draw(Cells(results), FULL_NETWORK)


def _draw(cells: Cells, mode: str) -> Drawing:
    every = cells.panels(mode)
    points = {panel: _lines(cells, panel) for panel in every}
    panels = [panel for panel in every if any(points[panel].values())]
    levels = {panel: cells.cell(panel, BEST_ARCH, "0") for panel in panels}
    if not panels:
        return Drawing(style.nothing(f"Transfer against source accuracy: {_missing(cells, mode)}"), [])
    measured = [arch for arch in cells.about.ordered if any(points[panel][arch] for panel in panels)]
    shown = [arch for arch in measured if len(measured) <= MANY or arch in cells.at_most_eps(mode)]
    for panel in panels:
        points[panel] = {arch: line for arch, line in points[panel].items() if arch in shown}
    behind = {panel: _behind(cells, panel, shown) for panel in panels}
    numbers = _numbers({panel: points[panel] for panel in panels}, levels)
    for panel in panels:
        twin = cells.behind(panel)
        numbers += _numbers({twin: behind[panel]}, {}) if twin else []
    numbers = paired(numbers)
    compared = bool(differences(numbers))
    titles = [*(panel.label for panel in panels), *[TITLE] * compared]
    figure, axes = style.panels(titles, row_height=1.4, extra_height=0.45, wide_last=compared)
    colours = style.eps_colours(cells.eps())
    for panel, ax in zip(panels, axes, strict=False):
        for arch in shown:
            _line_behind(ax, behind[panel].get(arch, []), colours, style.marker(shown, arch))
            _line(ax, points[panel][arch], colours, style.marker(shown, arch))
            _seeds(ax, cells, panel, arch, [eps for eps, _, _ in points[panel][arch]], colours)
        _level(ax, levels[panel])
        accuracy_limits(ax, [row for of in (points, behind) for line in of[panel].values() for _, _, row in line])
        _widened(ax)
    if compared:
        labels = {panel.target.name: panel.target.label for panel in panels}
        draw_differences(axes[-1], numbers, labels, lambda one: {"color": colours[str(one["eps"])]})
    x_name = f"Accuracy on {cells.about.source_label}, the source (%)"
    style.label_x(figure, axes[: len(panels)], x_name, shared=not compared)
    figure.supylabel(f"{MODE_LABELS[mode]} accuracy (%)", fontsize=7)
    eps_handles, others = _handles(cells.eps(), shown, level=any(levels.values()))
    others += [legends.hollow()] * any(any(lines.values()) for lines in behind.values())
    remarks = cells.remarks(cells.shown(mode))
    remarks += named([row for line in points[panel].values() for _, _, row in line] for panel in panels)
    fewer = [architecture_label(arch) for arch in measured if arch not in shown]
    remarks += [f"at fewer ε, not drawn: {', '.join(fewer)}"] * bool(fewer)
    left_out = [panel.label for panel in every if panel not in panels]
    remarks += [f"{NOT_MEASURED}: {', '.join(left_out)}"] * bool(left_out)
    legends.draw(figure, eps_handles, others, legends.remarks(figure, remarks))
    return Drawing(figure, numbers)


def _missing(cells: Cells, mode: str) -> str:
    """What it is that was not measured."""
    return f"source accuracies {NOT_MEASURED}" if cells.panels(mode) else f"{MODE_LABELS[mode]} transfer {NOT_MEASURED}"


def _behind(cells: Cells, panel: Panel, archs: Sequence[str]) -> dict[str, list[tuple[str, Estimate, Estimate]]]:
    """The published points of the same networks."""
    twin = cells.behind(panel)
    if twin is None or cells.published is None:
        return {}
    return {arch: _points(cells.published, twin, arch) for arch in archs}


def _line_behind(
    ax: Axes, points: Sequence[tuple[str, Estimate, Estimate]], colours: dict[str, Any], marker: str
) -> None:
    """A pale line through published points, which are hollow."""
    x, y = [source.value for _, source, _ in points], [row.value for _, _, row in points]
    ax.plot(x, y, "-", color=style.LINK, lw=0.5, alpha=0.5, zorder=1.2)
    shades = [colours.get(eps, style.LINK) for eps, _, _ in points]
    ax.scatter(x, y, s=22, facecolors="none", marker=marker, edgecolors=shades, linewidths=0.7, zorder=1.5)


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


def _seeds(ax: Axes, cells: Cells, panel: Panel, arch: str, every_eps: Sequence[str], colours: dict[str, Any]) -> None:
    """Small dots for single seeds, each at its own source accuracy."""
    for eps in every_eps:
        seeds = cells.seeds(panel, arch, eps)
        for row in seeds if len(seeds) > 1 else ():
            if source := cells.source(arch, panel.norm, eps, row.backbone_seed):
                ax.plot([source.value], [row.value], ".", color=colours[eps], ms=2.4, mew=0, zorder=3.5)


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
    others = legends.architectures(archs) if len(archs) > 1 else []
    if level:
        name = "best standard network" if len(archs) > 1 else "standard network"
        others.append(Line2D([], [], color=style.STANDARD, lw=0.8, ls=style.DASHES, label=name))
    return [Line2D([], [], color=colours[one], label=f"ε {one}", **look) for one in eps], others

"""L2 against L∞: transfer accuracy over source accuracy, one panel per target and mode that both were measured on.

An eps of one norm is no eps of the other; at equal accuracy on the source both have paid the same for robustness.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from robust_transfer.configuration.training import NORM_LABELS
from robust_transfer.figures import legends, style
from robust_transfer.figures.axes import accuracy_limits
from robust_transfer.figures.beside import TITLE, draw_differences
from robust_transfer.figures.cells import NOT_MEASURED, Cells, Panel
from robust_transfer.figures.drawing import Drawing
from robust_transfer.figures.estimates import Estimate
from robust_transfer.figures.kinds import kind_of, named, of_kind
from robust_transfer.figures.numbers import Number, columns, number
from robust_transfer.figures.pairs import differences, paired
from robust_transfer.figures.protocols import FIXED_FEATURE, FULL_NETWORK, MODE_LABELS

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

COLUMNS = columns("source_value")
COLOURS = {"l2": style.ROBUST, "linf": "#d55e00"}

Points = list[tuple[str, Estimate, Estimate]]
"""(eps, source accuracy, transfer accuracy) by growing eps."""
Lines = dict[str, Points]
"""By architecture."""


def norms(results: pd.DataFrame) -> Drawing:
    """Draw the targets, modes and architectures that networks of two norms or more were transferred to."""
    cells = Cells(results)
    every = {mode: _by_target(cells, mode) for mode in (FIXED_FEATURE, FULL_NETWORK)}
    names = [target.name for target in cells.about.targets if any(target.name in panels for panels in every.values())]
    rows = [[panels.get(name) for name in names] for panels in every.values() if panels]
    if not names:
        return Drawing(style.nothing(f"L2 against L∞: {_missing(cells)}"), [])
    placed = style.stacked(rows, column_count := style.in_a_row(len(names)))
    groups = [group for group in placed if group]
    lines = {panel: of for group in groups for panel, of in group.items()}
    behind = {panel: _behind(cells, panel, list(of)) for panel, of in lines.items()}
    numbers = [one for panel, of in lines.items() for one in _numbers(panel, of)]
    numbers += [one for panel in lines if (twin := cells.behind(panel)) for one in _numbers(twin, behind[panel])]
    numbers = paired(numbers)
    compared = bool(differences(numbers))
    titles = [next(iter(group)).target.label if group else None for group in placed]
    figure, axes = style.panels(
        [*titles, *[TITLE] * compared], row_height=1.6, extra_height=0.45, columns=column_count, wide_last=compared
    )
    archs = [arch for arch in cells.about.ordered if any(arch in of for of in lines.values())]
    for group, ax in zip(groups, axes, strict=False):
        _panel(ax, group, behind, archs)
        if style.in_first_column(ax):
            ax.set_ylabel(f"{MODE_LABELS[next(iter(group)).protocol.mode]} (%)")
    if compared:
        labels = {panel.target.name: panel.target.label for panel in lines}
        draw_differences(axes[-1], numbers, labels, lambda one: {"color": COLOURS[str(one["norm"])]})
    x_name = f"Accuracy on {cells.about.source_label}, the source (%)"
    style.label_x(figure, axes[: len(groups)], x_name, shared=not compared)
    said = [remark for mode in (FIXED_FEATURE, FULL_NETWORK) for remark in cells.remarks(cells.shown(mode))]
    said += named([row for of in group.values() for points in of.values() for _, _, row in points] for group in groups)
    handles = _handles(lines, published=any(any(of.values()) for of in behind.values()))
    markers = legends.architectures(archs) if len(archs) > 1 else []
    legends.draw(figure, handles, markers, legends.remarks(figure, list(dict.fromkeys(said))))
    return Drawing(figure, numbers)


def _missing(cells: Cells) -> str:
    """What there is too little of."""
    if len(cells.every_norm()) < 2:
        return f"a second norm was {NOT_MEASURED}"
    return f"two norms with source accuracies {NOT_MEASURED} on one target"


def _by_target(cells: Cells, mode: str) -> dict[str, dict[Panel, Lines]]:
    """Of each target that several norms were transferred to its panels, one for each norm, with what is drawn there."""
    found: dict[str, dict[Panel, Lines]] = {}
    for panel in cells.panels(mode, norms=cells.every_norm()):
        lines = {arch: points for arch in cells.about.ordered if (points := _points(cells, panel, arch))}
        if any(eps != "0" for points in lines.values() for eps, _, _ in points):
            found.setdefault(panel.target.name, {})[panel] = lines
    several = {name: panels for name, panels in found.items() if len(panels) > 1}
    return {name: _alike(panels) for name, panels in several.items()}


def _alike(panels: dict[Panel, Lines]) -> dict[Panel, Lines]:
    """The architectures that every norm has, with intervals of one kind."""
    robust = [{arch for arch, of in lines.items() if any(eps != "0" for eps, *_ in of)} for lines in panels.values()]
    shared = set.intersection(*robust)
    kind = kind_of(row for lines in panels.values() for points in lines.values() for _, _, row in points)
    return {
        panel: {
            arch: [(eps, source, of_kind(kind, row)) for eps, source, row in points]
            for arch, points in lines.items()
            if arch in shared
        }
        for panel, lines in panels.items()
    }


def _points(cells: Cells, panel: Panel, arch: str) -> Points:
    found = [(eps, cells.source(arch, panel.norm, eps), cells.cell(panel, arch, eps)) for eps in cells.eps(panel.norm)]
    return [(eps, source, row) for eps, source, row in found if source and row]


def _behind(cells: Cells, panel: Panel, archs: Sequence[str]) -> Lines:
    twin = cells.behind(panel)
    if twin is None or cells.published is None:
        return {}
    return {arch: points for arch in archs if (points := _points(cells.published, twin, arch))}


def _panel(ax: Axes, group: dict[Panel, Lines], behind: dict[Panel, Lines], archs: Sequence[str]) -> None:
    drawn = [of for panel, lines in group.items() for of in (*lines.values(), *behind[panel].values())]
    accuracy_limits(ax, [row for points in drawn for _, _, row in points])
    for panel, lines in group.items():
        colour = COLOURS.get(panel.norm, style.INK)
        for arch, points in behind[panel].items():
            x, rows = [source.value for _, source, _ in points], [row for _, _, row in points]
            style.curve_behind(ax, x, rows, colour, marker=style.marker(archs, arch))
        for arch, points in lines.items():
            x, rows = [source.value for _, source, _ in points], [row for _, _, row in points]
            style.curve(ax, x, rows, colour, dashed=False, marker=style.marker(archs, arch))
            for eps, source, row in points:
                if eps == "0":
                    look: style.Look = {"color": style.STANDARD, "ms": 3.4, "mew": 0, "zorder": 5}
                    ax.plot([source.value], [row.value], style.marker(archs, arch), **look)


def _numbers(panel: Panel, lines: Lines) -> list[Number]:
    return [
        number(panel, "transfer", arch, eps, row, source_value=source.value)
        for arch, points in lines.items()
        for eps, source, row in points
    ]


def _handles(lines: dict[Panel, Lines], *, published: bool) -> list[Any]:
    from matplotlib.lines import Line2D

    used = dict.fromkeys(panel.norm for panel in lines)
    handles = [
        Line2D(
            [], [], color=COLOURS.get(norm, style.INK), marker="o", label=f"{NORM_LABELS.get(norm, norm)}, ε growing"
        )
        for norm in used
    ]
    standard: style.Look = {"ls": "", "marker": "o", "color": style.STANDARD}
    return [*handles, Line2D([], [], label="standard (ε 0)", **standard), *[legends.hollow()] * published]

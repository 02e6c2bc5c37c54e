"""Figure 6: accuracy over the width of the network, one line per eps, one panel per target."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from robust_transfer.figures import style
from robust_transfer.figures.axes import accuracy_limits, architecture_ticks
from robust_transfer.figures.cells import MODE_LABELS, NOT_MEASURED, Cells, Estimate, Panel, shown_mode
from robust_transfer.figures.drawing import Drawing
from robust_transfer.figures.kinds import kind_of, named, of_kind
from robust_transfer.figures.numbers import Number, number

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes


def width(results: pd.DataFrame) -> Drawing:
    """Draw every eps that was measured at two widths or more, in the fixed-feature mode where there is one."""
    cells = Cells(results)
    mode = shown_mode(cells)
    panels = cells.panels(mode)
    shown = {panel: _lines(cells, panel) for panel in panels}
    if not any(shown.values()):
        return Drawing(style.nothing("Accuracy over width: no ε was measured at two widths"), [])
    figure, axes = style.panels([panel.label for panel in panels], row_height=1.35, extra_height=0.3)
    colours = style.eps_colours(cells.eps())
    for panel, ax in zip(panels, axes, strict=True):
        _panel(ax, shown[panel], colours)
        architecture_ticks(ax, cells.about.widths, labelled=style.in_last_row(axes, ax))
    figure.supylabel(f"{MODE_LABELS[mode]} accuracy (%)", fontsize=7)
    drawn = [eps for eps in cells.eps() if any(eps in line for line in shown.values())]
    kinds = named([row for line in lines.values() for _, _, row in line] for lines in shown.values())
    remarks = style.remarks(figure, cells.remarks(cells.shown(mode)) + kinds)
    style.legends(figure, _handles(drawn, colours), remarks)
    return Drawing(figure, _numbers(shown))


def _lines(cells: Cells, panel: Panel) -> dict[str, list[tuple[int, str, Estimate]]]:
    """The line of every eps that was measured at two widths or more, with intervals of one kind."""
    found = {eps: _line(cells, panel, eps) for eps in cells.eps(panel.norm)}
    kind = kind_of(row for line in found.values() for _, _, row in line)
    return {
        eps: [(place, arch, of_kind(kind, row)) for place, arch, row in line]
        for eps, line in found.items()
        if len(line) > 1
    }


def _line(cells: Cells, panel: Panel, eps: str) -> list[tuple[int, str, Estimate]]:
    """The widths at which this eps was measured: (place on the axis, architecture, accuracy)."""
    found = [(place, arch, cells.cell(panel, arch, eps)) for place, arch in enumerate(cells.about.widths)]
    return [(place, arch, row) for place, arch, row in found if row]


def _panel(ax: Axes, lines: dict[str, list[tuple[int, str, Estimate]]], colours: dict[str, Any]) -> None:
    if not lines:
        style.say(ax, NOT_MEASURED)
        return
    rows = [row for line in lines.values() for _, _, row in line]
    accuracy_limits(ax, rows)
    for i, (eps, line) in enumerate(lines.items()):
        # Side by side, so that intervals of neighbouring lines do not hide each other.
        aside = 0.03 * (i - (len(lines) - 1) / 2)
        x, rows = [place + aside for place, _, _ in line], [row for _, _, row in line]
        style.curve(ax, x, rows, colours[eps], dashed=eps == "0")


def _numbers(shown: dict[Panel, dict[str, list[tuple[int, str, Estimate]]]]) -> list[Number]:
    return [
        number(panel, "transfer", arch, eps, row)
        for panel, lines in shown.items()
        for eps, line in lines.items()
        for _, arch, row in line
    ]


def _handles(eps: list[str], colours: dict[str, Any]) -> list[Any]:
    from matplotlib.lines import Line2D

    return [
        Line2D([], [], color=colours[one], marker="o", ls=style.DASHES if one == "0" else "-", label=f"ε {one}")
        for one in eps
    ]

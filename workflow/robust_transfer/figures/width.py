"""Figure 6: accuracy over the width of the network, one line per eps, one panel per target."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from robust_transfer.figures import legends, style
from robust_transfer.figures.axes import accuracy_limits, architecture_ticks
from robust_transfer.figures.beside import TITLE, draw_differences
from robust_transfer.figures.cells import NOT_MEASURED, Cells, Panel, shown_mode
from robust_transfer.figures.drawing import Drawing
from robust_transfer.figures.estimates import Estimate
from robust_transfer.figures.kinds import kind_of, named, of_kind
from robust_transfer.figures.numbers import Number, columns, number
from robust_transfer.figures.pairs import differences, paired
from robust_transfer.figures.protocols import FULL_NETWORK, MODE_LABELS, shown_protocol

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

COLUMNS = columns("downscaled")

Lines = dict[str, list[tuple[int, str, Estimate]]]
"""By eps: (place on the axis, architecture, accuracy)."""


def width(results: pd.DataFrame) -> Drawing:
    """Draw the fixed-feature mode where there is one."""
    cells = Cells(results)
    return _draw(cells, shown_mode(cells), None)


def width_full_network(results: pd.DataFrame) -> Drawing:
    """The same of full-network transfer."""
    return _draw(Cells(results), FULL_NETWORK, None)


def width_downscaled(results: pd.DataFrame) -> Drawing:
    """The same on images downscaled to the smallest size that there is."""
    cells = Cells(results)
    mode = shown_mode(cells)
    sizes = [view for protocol in cells.protocols(mode) for view in cells.views(protocol) if view]
    if not sizes:
        return Drawing(style.nothing(f"Transfer from downscaled images: {NOT_MEASURED}"), [])
    return _draw(cells, mode, min(sizes))


def _draw(cells: Cells, mode: str, view: int | None) -> Drawing:
    """Draw every eps that was measured at as many widths as any, which are two at least."""
    protocol = shown_protocol([one for one in cells.protocols(mode) if view in cells.views(one)], cells.about)
    every = {panel: _measured(cells, panel, view) for panel in cells.panels(mode, protocol)}
    shown = {panel: _longest(lines) for panel, lines in every.items()}
    panels = [panel for panel, lines in shown.items() if lines]
    if not panels:
        return Drawing(style.nothing("Accuracy over width: no ε was measured at two widths"), [])
    behind = {panel: _behind(cells, panel, view, list(shown[panel])) for panel in panels}
    numbers = [one for panel in panels for one in _numbers(panel, shown[panel], view)]
    numbers += [one for panel in panels if (twin := cells.behind(panel)) for one in _numbers(twin, behind[panel], view)]
    numbers = paired(numbers)
    compared = bool(differences(numbers))
    titles = [*(panel.label for panel in panels), *[TITLE] * compared]
    figure, axes = style.panels(titles, row_height=1.35, extra_height=0.3, wide_last=compared)
    drawn = [eps for eps in cells.eps() if any(eps in lines for lines in shown.values())]
    colours = style.eps_colours(drawn)
    for panel, ax in zip(panels, axes, strict=False):
        _panel(ax, cells, panel, shown[panel], behind[panel], colours, view)
        architecture_ticks(ax, cells.about.widths, labelled=style.in_last_row(axes[: len(panels)], ax))
    if compared:
        labels = {panel.target.name: panel.target.label for panel in panels}
        draw_differences(axes[-1], numbers, labels, lambda one: {"color": colours[str(one["eps"])]})
    on = f", images downscaled to {view} px" if view else ""
    figure.supylabel(f"{MODE_LABELS[mode]} accuracy (%){on}", fontsize=7)
    remarks = cells.remarks(protocol)
    remarks += named([row for line in shown[panel].values() for _, _, row in line] for panel in panels)
    fewer = [eps for eps in cells.eps() if eps not in drawn and any(eps in lines for lines in every.values())]
    remarks += [f"at fewer widths, not drawn: ε {', '.join(fewer)}"] * bool(fewer)
    left_out = [panel.label for panel in every if panel not in panels]
    remarks += [f"{NOT_MEASURED} at two widths: {', '.join(left_out)}"] * bool(left_out)
    handles = [*_handles(drawn, colours), *[legends.hollow()] * any(behind.values())]
    legends.draw(figure, handles, legends.remarks(figure, remarks))
    return Drawing(figure, numbers)


def _measured(cells: Cells, panel: Panel, view: int | None) -> Lines:
    """The line of every eps that was measured at two widths or more."""
    found = {eps: _line(cells, panel, eps, cells.about.widths, view) for eps in cells.eps(panel.norm)}
    return {eps: line for eps, line in found.items() if len(line) > 1}


def _longest(lines: Lines) -> Lines:
    """The lines of as many widths as any robust one, with intervals of one kind: short ones among long ones mislead."""
    robust = {eps: line for eps, line in lines.items() if eps != "0"}
    longest = max(map(len, (robust or lines).values()), default=0)
    found = {eps: line for eps, line in lines.items() if len(line) >= longest}
    kind = kind_of(row for line in found.values() for _, _, row in line)
    return {eps: [(place, arch, of_kind(kind, row)) for place, arch, row in line] for eps, line in found.items()}


def _line(
    cells: Cells, panel: Panel, eps: str, widths: Sequence[str], view: int | None
) -> list[tuple[int, str, Estimate]]:
    """The widths at which this eps was measured: (place on the axis, architecture, accuracy)."""
    found = [(place, arch, cells.cell(panel, arch, eps, downscaled=view)) for place, arch in enumerate(widths)]
    return [(place, arch, row) for place, arch, row in found if row]


def _behind(cells: Cells, panel: Panel, view: int | None, every_eps: Sequence[str]) -> Lines:
    """The published lines of the same eps and widths."""
    twin = cells.behind(panel)
    if twin is None or cells.published is None:
        return {}
    found = {eps: _line(cells.published, twin, eps, cells.about.widths, view) for eps in every_eps}
    return {eps: line for eps, line in found.items() if line}


def _panel(
    ax: Axes, cells: Cells, panel: Panel, lines: Lines, behind: Lines, colours: dict[str, Any], view: int | None
) -> None:
    accuracy_limits(ax, [row for of in (lines, behind) for line in of.values() for _, _, row in line])
    for eps, line in behind.items():
        style.curve_behind(ax, [place for place, _, _ in line], [row for _, _, row in line], colours[eps])
    for i, (eps, line) in enumerate(lines.items()):
        # Side by side, so that intervals of neighbouring lines do not hide each other.
        aside = 0.03 * (i - (len(lines) - 1) / 2)
        x, rows = [place + aside for place, _, _ in line], [row for _, _, row in line]
        style.curve(ax, x, rows, colours[eps], dashed=eps == "0")
        for place, arch, _ in line:
            style.seed_dots(ax, place + aside + 0.08, cells.seeds(panel, arch, eps, downscaled=view), colours[eps])


def _numbers(panel: Panel, lines: Lines, view: int | None) -> list[Number]:
    return [
        number(panel, "transfer", arch, eps, row, downscaled=view)
        for eps, line in lines.items()
        for _, arch, row in line
    ]


def _handles(eps: list[str], colours: dict[str, Any]) -> list[Any]:
    from matplotlib.lines import Line2D

    return [
        Line2D([], [], color=colours[one], marker="o", ls=style.DASHES if one == "0" else "-", label=f"ε {one}")
        for one in eps
    ]

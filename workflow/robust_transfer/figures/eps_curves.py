"""Accuracy over eps, fixed-feature above full-network, one panel per target and mode, one line per architecture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from robust_transfer.figures import legends, style
from robust_transfer.figures.axes import EpsAxis, accuracy_limits
from robust_transfer.figures.beside import TITLE, draw_differences
from robust_transfer.figures.cells import NOT_MEASURED, Cells, Panel
from robust_transfer.figures.drawing import Drawing
from robust_transfer.figures.estimates import Estimate
from robust_transfer.figures.kinds import kind_of, named, of_kind
from robust_transfer.figures.labels import architecture_label
from robust_transfer.figures.numbers import Number, number
from robust_transfer.figures.pairs import differences, paired
from robust_transfer.figures.protocols import FIXED_FEATURE, FULL_NETWORK, MODE_LABELS
from robust_transfer.tables.key import BEST_ROBUST

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

Curves = dict[str, list[tuple[str, Estimate]]]
"""By architecture: (eps, accuracy) by growing eps."""
ASIDE = 0.012
"""Of the axis: how far architectures stand beside each other, so that intervals do not hide each other."""


def eps_curves(results: pd.DataFrame) -> Drawing:
    """Draw the modes that were measured; of one architecture the level of its standard network too."""
    cells = Cells(results)
    archs = cells.at_most_eps(FIXED_FEATURE, FULL_NETWORK)
    rows, left_out = _rows(cells, archs)
    panels = [panel for row in rows for panel in row if panel]
    if not panels:
        return Drawing(style.nothing(f"Transfer over ε: {NOT_MEASURED}"), [])
    ours = {panel: _curves(cells, panel, archs) for panel in panels}
    behind = {panel: _behind(cells, panel, list(ours[panel])) for panel in panels}
    numbers = [one for panel in panels for one in _numbers(panel, ours[panel])]
    numbers += [one for panel in panels if (twin := cells.behind(panel)) for one in _numbers(twin, behind[panel])]
    numbers = paired(numbers)
    compared = bool(differences(numbers))
    columns = style.in_a_row(max(map(len, rows)))
    placed = style.stacked(rows, columns)
    titles = [one.label if one else None for one in placed]
    figure, axes = style.panels(
        [*titles, *[TITLE] * compared], row_height=1.3, extra_height=0.45, columns=columns, wide_last=compared
    )
    for panel, ax in zip(filter(None, placed), axes, strict=False):
        _panel(ax, cells, panel, ours[panel], behind[panel], archs)
        if style.in_first_column(ax):
            ax.set_ylabel(f"{MODE_LABELS[panel.protocol.mode]} (%)")
        axis = EpsAxis(tuple(cells.eps(panel.norm)), panel.norm)
        axis.apply(
            ax,
            labels=style.in_last_row(axes[: len(panels)], ax),
            inches=(figure.get_figwidth() - 0.5) / columns - 0.3,
        )
    if compared:
        labels = {panel.target.name: panel.target.label for panel in panels}
        draw_differences(axes[-1], numbers, labels, lambda one: _look(archs, str(one["arch"])))
    norms = dict.fromkeys(panel.norm for panel in panels)
    axis_names = [EpsAxis(tuple(cells.eps(norm)), norm).label() for norm in norms]
    style.label_x(figure, axes[: len(panels)], " / ".join(axis_names), shared=not compared)
    said = [remark for mode in (FIXED_FEATURE, FULL_NETWORK) for remark in cells.remarks(cells.shown(mode))]
    said += named([row for curve in curves.values() for _, row in curve] for curves in ours.values())
    said += [f"{NOT_MEASURED}: {', '.join(left_out)}"] * bool(left_out)
    others = [architecture_label(arch) for arch in cells.about.ordered if arch not in archs]
    said += [f"at fewer ε, not drawn: {', '.join(others)}"] * bool(others)
    handles = _handles(cells, archs, published=any(behind.values()))
    legends.draw(figure, handles, legends.remarks(figure, list(dict.fromkeys(said))))
    return Drawing(figure, numbers)


def _rows(cells: Cells, archs: Sequence[str]) -> tuple[list[list[Panel | None]], list[str]]:
    """Panels by mode, one column per target and norm, and what was not measured."""
    by_mode = {
        mode: {(panel.target.name, panel.norm): panel for panel in cells.panels(mode) if _curves(cells, panel, archs)}
        for mode in (FIXED_FEATURE, FULL_NETWORK)
    }
    columns = dict.fromkeys(column for panels in by_mode.values() for column in panels)
    order = [target.name for target in cells.about.targets]
    ordered = sorted(columns, key=lambda column: order.index(column[0]))
    labels = {column: panels[column].label for panels in by_mode.values() for column in panels}
    left_out = []
    for mode, panels in by_mode.items():
        missing = [labels[column] for column in ordered if column not in panels]
        left_out += [f"{MODE_LABELS[mode]}{': ' + ', '.join(missing) if panels else ''}"] * bool(missing)
    return [[panels.get(column) for column in ordered] for panels in by_mode.values() if panels], left_out


def _curves(cells: Cells, panel: Panel, archs: Sequence[str]) -> Curves:
    """The curve of every one of these architectures that was measured, with intervals of one kind."""
    every_eps = cells.eps(panel.norm)
    found = {arch: [(eps, row) for eps in every_eps if (row := cells.cell(panel, arch, eps))] for arch in archs}
    kind = kind_of(row for curve in found.values() for _, row in curve)
    return {arch: [(eps, of_kind(kind, row)) for eps, row in curve] for arch, curve in found.items() if curve}


def _behind(cells: Cells, panel: Panel, archs: Sequence[str]) -> Curves:
    """The published curves of the same networks, at the eps that we have."""
    twin = cells.behind(panel)
    if twin is None or cells.published is None:
        return {}
    every = {arch: [(eps, cells.published.cell(twin, arch, eps)) for eps in cells.eps(panel.norm)] for arch in archs}
    found = {arch: [(eps, row) for eps, row in curve if row] for arch, curve in every.items()}
    return {arch: curve for arch, curve in found.items() if curve}


def _look(archs: Sequence[str], arch: str) -> style.Look:
    place = list(archs).index(arch)
    return {"color": style.ARCHITECTURES[place % len(style.ARCHITECTURES)], "marker": style.marker(archs, arch)}


def _panel(ax: Axes, cells: Cells, panel: Panel, ours: Curves, behind: Curves, archs: Sequence[str]) -> None:
    accuracy_limits(ax, [row for curves in (ours, behind) for curve in curves.values() for _, row in curve])
    positions = EpsAxis(tuple(cells.eps(panel.norm)), panel.norm).positions
    length = max(positions.values()) - min(positions.values())
    for arch, curve in behind.items():
        look = _look(archs, arch)
        for part in _parts(curve):
            x, rows = [positions[eps] for eps, _ in part], [row for _, row in part]
            style.curve_behind(ax, x, rows, look["color"], marker=look["marker"])
    for i, (arch, curve) in enumerate(ours.items()):
        look, aside = _look(archs, arch), ASIDE * length * (i - (len(ours) - 1) / 2)
        best = cells.cell(panel, arch, BEST_ROBUST)
        for part in _parts(curve):
            x, rows = [positions[eps] + aside for eps, _ in part], [row for _, row in part]
            style.curve(ax, x, rows, look["color"], dashed=False, marker=look["marker"])
        for eps, row in curve:
            style.seed_dots(ax, positions[eps] + aside + 0.02 * length, cells.seeds(panel, arch, eps), look["color"])
            if best and best.chosen["eps"] == eps:
                ring: style.Look = {"ms": 6.5, "mfc": "none", "mec": look["color"], "mew": 0.8, "zorder": 4}
                ax.plot(positions[eps] + aside, row.value, "o", **ring)
        if len(archs) == 1 and curve[0][0] == "0":
            ax.axhline(curve[0][1].value, color=style.STANDARD, lw=0.8, ls=style.DASHES, zorder=1)


def _parts(curve: Sequence[tuple[str, Estimate]]) -> list[list[tuple[str, Estimate]]]:
    """The robust networks, which a line joins, and the standard one, which stands apart."""
    parts = [one for one in curve if one[0] != "0"], [one for one in curve if one[0] == "0"]
    return [part for part in parts if part]


def _numbers(panel: Panel, curves: Curves) -> list[Number]:
    return [number(panel, "transfer", arch, eps, row) for arch, curve in curves.items() for eps, row in curve]


def _handles(cells: Cells, archs: Sequence[str], *, published: bool) -> list[Any]:
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], label=architecture_label(arch), **_look(archs, arch)) for arch in archs]
    if len(archs) == 1:
        level: style.Look = {"color": style.STANDARD, "lw": 0.8, "ls": style.DASHES}
        handles.append(Line2D([], [], label="its standard network (ε 0)", **level))
    ring: style.Look = {"ls": "", "marker": "o", "ms": 6.5, "mfc": "none", "mec": style.INK}
    handles.append(Line2D([], [], label=f"robust ε chosen on {cells.selection}", **ring))
    return [*handles, *[legends.hollow()] * published]

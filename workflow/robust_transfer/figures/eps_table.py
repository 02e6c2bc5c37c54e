"""Every accuracy by eps: one table per mode, norm and view, one row per target and architecture."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import pandas as pd

from robust_transfer.configuration.training import NORM_LABELS
from robust_transfer.figures.cells import NOT_MEASURED, Cells, Panel
from robust_transfer.figures.estimates import Estimate
from robust_transfer.figures.labels import architecture_label, signed
from robust_transfer.figures.numbers import Number, columns, number
from robust_transfer.figures.pairs import paired
from robust_transfer.figures.protocols import FIXED_FEATURE, FULL_NETWORK, Protocol, protocol_label
from robust_transfer.figures.tables import FAILED, Cell, Table, TableRow, Tables

COLUMNS = columns("downscaled")
FEW = 5
"""Eps up to which the intervals stand in the table too; the CSV always has them."""


def eps_table(results: pd.DataFrame) -> Tables:
    """Tabulate every mode by the protocol that figures show, with every norm and every view."""
    cells = Cells(results)
    tables, numbers = list[Table](), list[Number]()
    for mode in (FIXED_FEATURE, FULL_NETWORK):
        for protocol, norm, view in _parts(cells, mode):
            panels = cells.panels(mode, protocol, norms=[norm])
            every_eps = _eps(cells, panels, view)
            rows = [row for panel in panels for row in _rows(cells, panel, view, every_eps)]
            numbers += [one for panel in panels for one in _numbers(cells, panel, view)]
            if rows:
                on = f", images downscaled to {view} px" if view else ""
                caption = f"{protocol_label(protocol)}, {NORM_LABELS.get(norm, norm)} networks{on}"
                tables.append(Table.of(rows, ["target", "network"], [f"ε {eps}" for eps in every_eps], caption))
    if not tables:
        return Tables([], [f"Transfer: {NOT_MEASURED}."], [])
    failed = [FAILED] * any(cell.failed for table in tables for cell in table.frame.to_numpy().flat)
    return Tables(tables, [_note(cells, tables), *failed], paired(numbers))


def _parts(cells: Cells, mode: str) -> Iterator[tuple[Protocol, str, int | None]]:
    """What has a table of its own: native images by the protocol that figures show, downscaled ones by theirs."""
    shown = cells.shown(mode)
    for norm in cells.every_norm() or ["l2"]:
        for protocol in cells.protocols(mode):
            for view in cells.views(protocol):
                if view or protocol == shown:
                    yield protocol, norm, view


def _eps(cells: Cells, panels: Sequence[Panel], view: int | None) -> list[str]:
    """The columns: every eps that a row has."""
    norm = panels[0].norm
    return [
        eps
        for eps in cells.eps(norm)
        if any(cells.cell(panel, arch, eps, downscaled=view) for panel in panels for arch in cells.about.ordered)
    ]


def _rows(cells: Cells, panel: Panel, view: int | None, every_eps: Sequence[str]) -> Iterator[TableRow]:
    """The rows of a target: one per architecture, and below it what was published and what it differs by."""
    behind = cells.behind(panel, view)
    for arch in cells.about.ordered:
        found = [cells.cell(panel, arch, eps, downscaled=view) for eps in every_eps]
        if not any(one for one, eps in zip(found, every_eps, strict=True) if eps != "0"):
            continue
        label = panel.target.label
        yield TableRow((label, architecture_label(arch)), _cells(found))
        if behind and cells.published:
            theirs = [cells.published.cell(behind, arch, eps, downscaled=view) for eps in every_eps]
            if any(theirs):
                yield TableRow((label, f"{architecture_label(arch)}, published"), _cells(theirs))
                yield TableRow(
                    (label, f"{architecture_label(arch)}, difference"), list(map(_difference, found, theirs))
                )


def _cells(rows: Sequence[Estimate | None]) -> list[Cell]:
    """The accuracies of a row, the highest bold."""
    highest = max(round(row.value, 2) for row in rows if row)
    return [_cell(row, highest, intervals=len(rows) <= FEW) if row else Cell("–", faint=True) for row in rows]


def _cell(row: Estimate, highest: float, *, intervals: bool) -> Cell:
    known = intervals and not math.isnan(row.ci_low)
    interval = f"[{row.ci_low:.1f}, {row.ci_high:.1f}]" if known else ""
    decimals = 2 if math.isnan(row.ci_low) else 1  # as published
    return Cell(f"{row.value:.{decimals}f}", interval, bold=round(row.value, 2) == highest, failed=bool(row.failed))


def _difference(ours: Estimate | None, theirs: Estimate | None) -> Cell:
    return Cell(signed(ours.value - theirs.value)) if ours and theirs else Cell("–", faint=True)


def _numbers(cells: Cells, panel: Panel, view: int | None) -> list[Number]:
    found = [(cells, panel)]
    if cells.published and (twin := cells.behind(panel, view)):
        found.append((cells.published, twin))
    return [
        number(of, "transfer", arch, eps, row, downscaled=view)
        for own, of in found
        for arch in cells.about.ordered
        for eps in cells.eps(panel.norm)
        if (row := own.cell(of, arch, eps, downscaled=view))
    ]


def _note(cells: Cells, tables: Sequence[Table]) -> str:
    beside = " Difference: ours less published, in points." if cells.published else ""
    few = any(len(table.columns) <= FEW for table in tables) and cells.published is not None
    intervals = " In brackets, and in the CSV, 95 % intervals." if few else ""
    chosen = " Hyperparameters were chosen on test images." if cells.selection == "test" else ""
    return f"Test accuracy in %; the highest of each row is bold; –: {NOT_MEASURED}.{intervals}{beside}{chosen}"

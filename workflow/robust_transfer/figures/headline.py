"""Table 1: standard against best robust, over architectures, for every target and mode."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd

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
    protocol_label,
)
from robust_transfer.figures.labels import architecture_label, signed, signed_interval
from robust_transfer.figures.numbers import Number, columns, number
from robust_transfer.figures.tables import FAILED, Cell, Table, TableRow, Tables
from robust_transfer.statistics.metrics import METRICS
from robust_transfer.tables.key import BEST_ARCH, BEST_ROBUST

CAPTION = "Standard against the best robust networks"
UNSEEN = (
    "Unseen: a choice on the test images that it is reported on flatters it. This is the difference where the choice "
    "is made on the images that a resample draws, and measured on those that it leaves out."
)
COLUMNS = (*columns(), "chosen_eps", "chosen_arch")


def headline(results: pd.DataFrame) -> Tables:
    """Tabulate one block per mode and one row per target, measured by the protocol that figures show."""
    cells = Cells(results)
    compared, numbers, missing = list[tuple[Panel, Comparison]](), list[Number](), list[str]()
    fewer = dict[tuple[str, str], None]()
    for mode in (FIXED_FEATURE, FULL_NETWORK):
        protocol = cells.shown(mode)
        for panel in cells.panels(mode):
            comparison = cells.comparison(panel, BEST_ARCH)
            compared.append((panel, comparison))
            numbers += _numbers(cells, panel, comparison)
            if comparison.robust:
                fewer |= dict.fromkeys(cells.fewer_seeds(panel, comparison.robust))
        if not protocol:
            missing.append(f"{MODE_LABELS[mode]}: {NOT_MEASURED}.")
    if not compared:
        return Tables([], missing, numbers)
    unseen = any(comparison.unseen for _, comparison in compared)
    rows = [
        TableRow((protocol_label(panel.protocol), _label(panel)), _cells(comparison, unseen=unseen))
        for panel, comparison in compared
    ]
    table = Table.of(rows, ["mode", ""], _columns(cells, unseen=unseen), CAPTION, headed=True)
    failed = [FAILED] * any(cell.failed for row in rows for cell in row.cells)
    return Tables([table], [*_notes(cells), *[UNSEEN] * unseen, *_left_out(list(fewer)), *failed, *missing], numbers)


def _columns(cells: Cells, *, unseen: bool) -> list[str]:
    fixed = cells.about.fixed_eps
    named = ", ".join(
        eps + (f" ({NORM_LABELS.get(norm, norm)})" if len(fixed) > 1 else "") for norm, eps in fixed.items()
    )
    return [
        "Standard",
        "Best robust",
        "ε, network",
        f"Robust, ε {named}" if named else "Fixed ε",
        "Difference",
        *["Unseen"] * unseen,
    ]


def _label(panel: Panel) -> str:
    metric = panel.target.metric
    return panel.label + (f" ({METRICS[metric]})" if metric != "top1" else "")


def _cells(comparison: Comparison, *, unseen: bool) -> list[Cell]:
    robust = comparison.robust
    ahead = comparison.ahead if comparison.decided else ""
    return [
        _accuracy(comparison.standard, bold=ahead == "standard"),
        _accuracy(robust, bold=ahead == "robust"),
        Cell(f"{robust.chosen['eps']}, {architecture_label(robust.chosen['arch'])}" if robust else ""),
        _accuracy(comparison.fixed),
        _difference(comparison),
        *[difference_cell(comparison.unseen, failed=bool(comparison.failed))] * unseen,
    ]


def _accuracy(row: Estimate | None, *, bold: bool = False) -> Cell:
    if row is None:
        return Cell(NOT_MEASURED, faint=True)
    has_interval = not math.isnan(row.ci_low)  # published numbers have none
    interval = f"[{row.ci_low:.1f}, {row.ci_high:.1f}]" if has_interval else ""
    return Cell(f"{row.value:.1f}", interval, bold=bold, failed=bool(row.failed))


def _difference(comparison: Comparison) -> Cell:
    return difference_cell(comparison.difference, starred=comparison.decided, failed=bool(comparison.failed))


def difference_cell(row: Estimate | None, *, starred: bool = False, failed: bool = False) -> Cell:
    """A difference in percentage points with its interval, if it has one."""
    if row is None:
        return Cell(NOT_MEASURED, faint=True)
    return Cell(signed(row.value), signed_interval(row), starred=starred, failed=failed)


def _numbers(cells: Cells, panel: Panel, comparison: Comparison) -> list[Number]:
    fixed_eps = cells.about.fixed_eps.get(panel.norm, "")
    shown = [
        ("standard", "0", comparison.standard),
        ("best robust", BEST_ROBUST, comparison.robust),
        ("fixed eps", fixed_eps, comparison.fixed),
        ("difference", BEST_ROBUST, comparison.difference),
        *[("difference, unseen", BEST_ROBUST, comparison.unseen)] * bool(comparison.unseen),
    ]
    numbers = []
    for series, eps, row in shown:
        chosen = row.chosen if row else {}
        one = number(panel, series, BEST_ARCH, eps, row)
        numbers.append({**one, "chosen_eps": chosen.get("eps"), "chosen_arch": chosen.get("arch")})
    return numbers


def _left_out(fewer: Sequence[tuple[str, str]]) -> list[str]:
    """A note that names networks which were not chosen among, since they have fewer seeds than those that were."""
    if not fewer:
        return []
    by_arch: dict[str, list[str]] = {}
    for arch, eps in fewer:
        by_arch.setdefault(arch, []).append(eps)
    named = "; ".join(f"{architecture_label(arch)} (ε {', '.join(eps)})" for arch, eps in by_arch.items())
    return [f"Not compared, since they have fewer seeds: {named}."]


def _notes(cells: Cells) -> list[str]:
    others = [cells.others(mode) for mode in (FIXED_FEATURE, FULL_NETWORK)]
    return [
        "Test accuracy in %, with 95 % intervals in brackets: over seeds where there are several, else over test "
        f"images, of these weights alone. Network and ε of the best are chosen on {cells.selection}. Difference: best "
        "robust less standard in percentage points; * its interval excludes 0, and then the better of the two is bold.",
        *(f"{one} The figure protocol_gap compares them." for one in others if one),
    ]

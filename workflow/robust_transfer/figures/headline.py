"""Table 1: standard against best robust, over architectures, for every target and mode."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from robust_transfer.configuration.training import NORM_LABELS
from robust_transfer.figures.cells import NOT_MEASURED, Cells, Panel
from robust_transfer.figures.estimates import Comparison, Estimate
from robust_transfer.figures.labels import architecture_label, signed, signed_interval
from robust_transfer.figures.numbers import Number, columns, number
from robust_transfer.figures.pairs import paired
from robust_transfer.figures.protocols import FIXED_FEATURE, FULL_NETWORK, MODE_LABELS, protocol_label
from robust_transfer.figures.tables import FAILED, Cell, Table, TableRow, Tables
from robust_transfer.statistics.metrics import METRICS
from robust_transfer.tables.key import BEST_ARCH, BEST_ROBUST
from robust_transfer.tables.published import PUBLISHED

CAPTION = "Standard against the best robust networks"
UNSEEN = (
    "Unseen: a choice on the test images that it is reported on flatters it. This is the difference where the choice "
    "is made on the images that a resample draws, and measured on those that it leaves out."
)
BESIDE = ("ours", "published", "Δ")
"""Columns of one quantity where published numbers stand beside ours."""
COLUMNS = (*columns(), "chosen_eps", "chosen_arch")


def headline(results: pd.DataFrame) -> Tables:
    """Tabulate one block per mode and one row per target, measured by the protocol that figures show."""
    cells = Cells(results)
    compared, numbers, missing = list[tuple[Panel, Comparison]](), list[Number](), list[str]()
    fewer = dict[tuple[str, str], None]()
    for mode in (FIXED_FEATURE, FULL_NETWORK):
        protocol, unmeasured = cells.shown(mode), list[str]()
        for panel in cells.panels(mode):
            comparison = cells.comparison(panel, BEST_ARCH)
            if comparison.standard is None and comparison.robust is None:
                unmeasured.append(panel.label)
                continue
            compared.append((panel, comparison))
            numbers += _numbers(cells, panel, comparison)
            if cells.published and (behind := cells.behind(panel)):
                numbers += _numbers(cells.published, behind, cells.published.comparison(behind, BEST_ARCH))
            if comparison.robust:
                fewer |= dict.fromkeys(cells.fewer_seeds(panel, comparison.robust))
        if not protocol:
            missing.append(f"{MODE_LABELS[mode]}: {NOT_MEASURED}.")
        elif unmeasured:
            missing.append(f"{MODE_LABELS[mode]}, {NOT_MEASURED}: {', '.join(unmeasured)}.")
    if not compared:
        return Tables([], missing, numbers)
    shown = _Shown.of(cells, compared)
    rows = [
        TableRow((protocol_label(panel.protocol), _label(panel)), _cells(cells, panel, comparison, shown))
        for panel, comparison in compared
    ]
    table = Table.of(rows, ["mode", ""], _columns(cells, shown), CAPTION, headed=True)
    failed = [FAILED] * any(cell.failed for row in rows for cell in row.cells)
    notes = [*_notes(cells), *[UNSEEN] * shown.unseen, *_left_out(list(fewer)), *failed, *missing]
    return Tables([table], notes, paired(numbers))


@dataclass(frozen=True)
class _Shown:
    """Which columns there are."""

    fixed: bool
    """Robust networks of an eps fixed beforehand."""
    unseen: bool
    """Differences on images that a choice on test images did not see."""
    published: bool
    """Published numbers beside ours, and what ours differ by."""

    @classmethod
    def of(cls, cells: Cells, compared: Sequence[tuple[Panel, Comparison]]) -> _Shown:
        """Those with something in them; beside published numbers no fixed eps, of which nothing was published."""
        published = any(cells.behind(panel) for panel, _ in compared)
        fixed = any(comparison.fixed for _, comparison in compared) or cells.about.experiment != PUBLISHED
        return cls(fixed and not published, any(comparison.unseen for _, comparison in compared), published)


def _columns(cells: Cells, shown: _Shown) -> list[str] | list[tuple[str, str]]:
    if shown.published:
        accuracies = [(name, of) for name in ("Standard", "Best robust", "Difference") for of in BESIDE]
        chosen = [("ε, network", of) for of in BESIDE[:2]]
        return [*accuracies, *chosen, *[("Unseen", BESIDE[0])] * shown.unseen]
    fixed = cells.about.fixed_eps
    named = ", ".join(
        eps + (f" ({NORM_LABELS.get(norm, norm)})" if len(fixed) > 1 else "") for norm, eps in fixed.items()
    )
    return [
        "Standard",
        "Best robust",
        "ε, network",
        *[f"Robust, ε {named}" if named else "Fixed ε"] * shown.fixed,
        "Difference",
        *["Unseen"] * shown.unseen,
    ]


def _label(panel: Panel) -> str:
    metric = panel.target.metric
    return panel.label + (f" ({METRICS[metric]})" if metric != "top1" else "")


def _cells(cells: Cells, panel: Panel, comparison: Comparison, shown: _Shown) -> list[Cell]:
    robust = comparison.robust
    ahead = comparison.ahead if comparison.decided else ""
    standard, best = (
        _accuracy(row, bold=ahead == name) for name, row in (("standard", comparison.standard), ("robust", robust))
    )
    unseen = [difference_cell(comparison.unseen, failed=bool(comparison.failed))] * shown.unseen
    if not shown.published:
        fixed = [_accuracy(comparison.fixed)] * shown.fixed
        return [standard, best, _network(robust), *fixed, _difference(comparison), *unseen]
    behind = cells.behind(panel)
    theirs = Comparison(None, None, None, None)
    if behind and cells.published:
        theirs = cells.published.comparison(behind, BEST_ARCH)
    beside: list[Cell] = []
    for cell, row, of in (
        (standard, comparison.standard, theirs.standard),
        (best, robust, theirs.robust),
    ):
        beside += [cell, _accuracy(of), _less(row, of)]
    beside += [_difference(comparison), _difference(theirs), _less(comparison.difference, theirs.difference)]
    return [*beside, _network(robust), _network(theirs.robust), *unseen]


def _less(ours: Estimate | None, theirs: Estimate | None) -> Cell:
    """What ours differs by from the published number, in points."""
    return Cell(signed(ours.value - theirs.value)) if ours and theirs else Cell("–", faint=True)


def _network(robust: Estimate | None) -> Cell:
    return Cell(f"{robust.chosen['eps']}, {architecture_label(robust.chosen['arch'])}" if robust else "")


def _accuracy(row: Estimate | None, *, bold: bool = False) -> Cell:
    if row is None:
        return Cell(NOT_MEASURED, faint=True)
    has_interval = not math.isnan(row.ci_low)  # published numbers have none
    interval = f"[{row.ci_low:.1f}, {row.ci_high:.1f}]" if has_interval else ""
    decimals = 1 if has_interval else 2  # as published
    return Cell(f"{row.value:.{decimals}f}", interval, bold=bold, failed=bool(row.failed))


def _difference(comparison: Comparison) -> Cell:
    return difference_cell(comparison.difference, starred=comparison.decided, failed=bool(comparison.failed))


def difference_cell(row: Estimate | None, *, starred: bool = False, failed: bool = False) -> Cell:
    """A difference in percentage points with its interval, if it has one."""
    if row is None:
        return Cell(NOT_MEASURED, faint=True)
    decimals = 2 if math.isnan(row.ci_low) else 1
    return Cell(signed(row.value, decimals), signed_interval(row), starred=starred, failed=failed)


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
    said = [f"{one} The figure protocol_gap compares them." for one in others if one]
    choice = f"Network and ε of the best are chosen on {cells.selection}. Difference: best robust less standard"
    if cells.about.experiment == PUBLISHED:
        return [f"Test accuracy in %, means without intervals. {choice} in percentage points.", *said]
    beside = " Δ: ours less published, in points; published numbers are means without intervals."
    return [
        "Test accuracy in %, with 95 % intervals in brackets: over seeds where there are several, else over test "
        f"images, of these weights alone. {choice} in percentage points; * its interval excludes 0, and then the "
        f"better of the two is bold.{beside if cells.published else ''}",
        *said,
    ]

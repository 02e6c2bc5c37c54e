"""Table 1: standard against best robust, over architectures, for every target and mode."""

from __future__ import annotations

import math

from robust_transfer.figures.cells import (
    FIXED_FEATURE,
    FULL_NETWORK,
    MODE_LABELS,
    NORM_LABELS,
    NOT_MEASURED,
    Cells,
    Comparison,
    Panel,
    way_label,
)
from robust_transfer.figures.drawing import Drawing, Number, number
from robust_transfer.figures.style import architecture_label
from robust_transfer.figures.typeset import Block, Table, Text
from robust_transfer.statistics.metrics import METRICS
from robust_transfer.tables.results import BEST_ARCH, BEST_ROBUST, Results, Row

DECIDED = "*"


def headline(results: Results) -> Drawing:
    """Draw one block per mode, with one line per target, measured in the way that figures show."""
    cells = Cells(results)
    blocks, numbers = [], list[Number]()
    for mode in (FIXED_FEATURE, FULL_NETWORK):
        way, lines = cells.shown(mode), []
        for panel in cells.panels(mode):
            against = cells.against(panel, BEST_ARCH)
            lines.append(_line(panel, against))
            numbers += _numbers(cells, panel, against)
        blocks.append(Block(way_label(way) if way else f"{MODE_LABELS[mode]}: {NOT_MEASURED}", lines))
    table = Table(_columns(cells), blocks, _notes(cells))
    return Drawing(table.figure(), numbers, table.markdown())


def _columns(cells: Cells) -> list[str]:
    fixed = cells.about.fixed_eps
    named = ", ".join(
        eps + (f" ({NORM_LABELS.get(norm, norm)})" if len(fixed) > 1 else "") for norm, eps in fixed.items()
    )
    return ["", "Standard", "Best robust", "ε, network", f"Robust, ε {named}" if named else "Fixed ε", "Difference"]


def _line(panel: Panel, against: Comparison) -> list[Text]:
    robust = against.robust
    label = panel.label + (f" ({METRICS[panel.target.metric]})" if panel.target.metric != "top1" else "")
    return [
        Text(label),
        _accuracy(against.standard, bold=against.ahead == "standard"),
        _accuracy(robust, bold=against.ahead == "robust"),
        Text(f"{robust.chosen['eps']}, {architecture_label(robust.chosen['arch'])}" if robust else ""),
        _accuracy(against.fixed),
        _difference(against),
    ]


def _accuracy(row: Row | None, *, bold: bool = False) -> Text:
    if row is None:
        return Text(NOT_MEASURED, faint=True)
    interval = (
        "" if math.isnan(row.ci_low) else f" [{row.ci_low:.1f}, {row.ci_high:.1f}]"
    )  # published numbers have none
    return Text(f"{row.value:.1f}{interval}", bold=bold)


def _difference(against: Comparison) -> Text:
    if against.difference is None:
        return Text(NOT_MEASURED, faint=True)
    return Text(difference_text(against.difference), mark=DECIDED if against.decided else "")


def difference_text(row: Row) -> str:
    """A paired difference in percentage points with its interval."""
    return f"{signed(row.value)} [{signed(row.ci_low)}, {signed(row.ci_high)}]"


def signed(points: float) -> str:
    """Points to one decimal with their sign; 0.0 bears none."""
    text = f"{points:+.1f}"
    return "0.0" if text[1:] == "0.0" else text.replace("-", "−")


def _numbers(cells: Cells, panel: Panel, against: Comparison) -> list[Number]:
    fixed_eps = cells.about.fixed_eps.get(panel.norm, "")
    drawn = [
        ("standard", "0", against.standard),
        ("best robust", BEST_ROBUST, against.robust),
        ("fixed eps", fixed_eps, against.fixed),
        ("difference", BEST_ROBUST, against.difference),
    ]
    numbers = []
    for series, eps, row in drawn:
        chosen = row.chosen if row else {}
        one = number(panel, series, BEST_ARCH, eps, row)
        numbers.append({**one, "chosen_eps": chosen.get("eps"), "chosen_arch": chosen.get("arch")})
    return numbers


def _notes(cells: Cells) -> list[str]:
    others = [cells.others(mode) for mode in (FIXED_FEATURE, FULL_NETWORK)]
    return [
        "Test accuracy in %, with 95 % intervals over test images in brackets. Network and ε of the best are chosen on "
        f"{cells.selection}, and the intervals repeat the choice. Difference: best robust less standard in percentage "
        f"points, paired over images; {DECIDED} its interval excludes 0. Bold: the better of the two.",
        *(f"{one} The figure protocol_gap compares them." for one in others if one),
    ]

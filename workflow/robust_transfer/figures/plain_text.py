"""Tables in plain text, as the summary at the end of a run has them."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from robust_transfer.configuration.eps import eps_value
from robust_transfer.configuration.training import NORM_LABELS
from robust_transfer.figures.cells import NOT_MEASURED, Cells, Panel
from robust_transfer.figures.estimates import Comparison, Estimate
from robust_transfer.figures.labels import architecture_label, difference_text
from robust_transfer.tables.flags import DAGGER

LABEL = 30
"""Longest label of a target; longer ones are cut."""
ATTACKS = 4
"""Radii of attacks on the source that the summary has room for; the results table has all."""


def source_tables(cells: Cells) -> list[str]:
    """A table of accuracies on the source, clean and attacked, for each norm; none where nothing was measured."""
    return [text for norm in cells.every_norm() or ["l2"] if (text := _source_of_norm(cells, norm))]


def _source_of_norm(cells: Cells, norm: str) -> str:
    """One line per architecture and way of measuring, one column per eps: clean, and under attack."""
    every_eps = cells.source_eps(norm)
    lines = [line for arch in cells.about.ordered for line in _source_lines(cells, arch, norm, every_eps)]
    if not lines:
        return ""
    several = f", {NORM_LABELS.get(norm, norm)} networks" if len(cells.every_norm()) > 1 else ""
    heading = f"Accuracy on {cells.about.source_label or cells.about.source}, the source{several}"
    first, second = (max(len(line[i]) for line in lines) for i in (0, 1))
    widths = [max(len(eps) + 4 * (i == 0), 5) for i, eps in enumerate(every_eps)]
    head = [eps.rjust(width) for eps, width in zip([f"eps {every_eps[0]}", *every_eps[1:]], widths, strict=True)]
    rows = [" " * (first + second + 4) + "  ".join(head)]
    for arch, what, numbers in lines:
        texts = [(f"{row.value:.1f}" if row else "").rjust(width) for row, width in zip(numbers, widths, strict=True)]
        rows.append(f"  {arch:<{first}}  {what:<{second}}{'  '.join(texts)}".rstrip())
    return "\n".join([heading, *rows])


def _source_lines(
    cells: Cells, arch: str, norm: str, every_eps: list[str]
) -> Iterator[tuple[str, str, list[Estimate | None]]]:
    """Clean accuracies of an architecture, those under attack at each network's own eps, and at others' too."""
    if norm in cells.every_norm() and not any(cells.source(arch, norm, eps) for eps in every_eps if eps != "0"):
        robust = any(cells.attacked(arch, norm, eps) for eps in every_eps if eps != "0")
        if not robust and len(cells.every_norm()) > 1:
            return  # its networks are of another norm
    clean = [cells.source(arch, norm, eps) for eps in every_eps]
    attacked = [cells.attacked(arch, norm, eps) for eps in every_eps]
    name = architecture_label(arch)
    if any(clean):
        yield name, "clean ", clean
        name = ""
    own = [found.get(eps) for eps, found in zip(every_eps, attacked, strict=True)]
    if any(own):
        yield name, "attacked at its eps ", own
        name = ""
    radii = {radius for eps, found in zip(every_eps, attacked, strict=True) for radius in found if radius != eps}
    for radius in sorted(radii, key=eps_value)[:ATTACKS]:
        yield name, f"attacked at eps {radius} ", [found.get(radius) for found in attacked]
        name = ""


def transfer_table(heading: str, lines: list[tuple[Panel, Comparison]]) -> str:
    """Targets as lines: standard, best robust with what was chosen, paired difference with its 95 % interval."""
    rows = [[heading, "standard", "best robust", "(eps, network)", "difference [95 %]"]]
    marked = any(comparison.failed for _, comparison in lines)
    for panel, comparison in lines:
        robust, difference = comparison.robust, comparison.difference
        rows.append(
            [
                "  " + shortened(panel.label),
                _percent(comparison.standard, marked),
                _percent(robust, marked),
                f"({robust.chosen['eps']}, {architecture_label(robust.chosen['arch'])})" if robust else "",
                difference_text(difference) + (DAGGER if comparison.failed else "*" if comparison.decided else " ")
                if difference
                else f"{NOT_MEASURED} ",
            ]
        )
    # The heading may run over the columns of numbers; only targets widen the first column.
    first = max(len(row[0]) for row in rows[1:])
    widths = [max(len(row[i]) for row in rows) for i in range(1, 5)]
    head = "  ".join(f"{name:>{width}}" for name, width in zip(rows[0][1:], widths, strict=True))
    body = ["  ".join([f"{row[0]:<{first}}", *_aligned(row[1:], widths)]).rstrip() for row in rows[1:]]
    return "\n".join([heading, " " * (first + 2) + head.rstrip(), *body])


def shortened(label: str) -> str:
    """A label in at most LABEL letters, cut at a word where one ends near."""
    label = " ".join(label.split())
    whole = textwrap.shorten(label, LABEL, placeholder="…")
    return whole if len(whole) > LABEL // 2 or len(label) <= LABEL else f"{label[: LABEL - 1]}…"


def _aligned(row: list[str], widths: list[int]) -> list[str]:
    """Numbers flush right, what was chosen flush left."""
    return [
        f"{text:<{width}}" if i == 2 else f"{text:>{width}}"
        for i, (text, width) in enumerate(zip(row, widths, strict=True))
    ]


def _percent(row: Estimate | None, marked: bool) -> str:
    """A value; in a table where some are marked, those that are not end in a space, so that digits stay aligned."""
    text = f"{row.value:.1f}" if row else "–"
    return text + (DAGGER if row and row.failed else " ") * marked

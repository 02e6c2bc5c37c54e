"""One kind of interval per panel, and its name.

An interval over seeds speaks of a way of training, one over test images of single weights. Side by side in one panel
they would be taken for the same, so where some numbers are means over seeds, those of a single seed have no interval.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace

from robust_transfer.figures.estimates import Comparison, Estimate

SEEDS, IMAGES = "seeds", "images"


def kind_of(rows: Iterable[Estimate | None]) -> str:
    """The kind of interval that a panel of these numbers has: over seeds where any is, else over images."""
    kinds = {row.ci_kind for row in rows if row}
    return SEEDS if SEEDS in kinds else IMAGES if IMAGES in kinds else ""


def of_kind(kind: str, row: Estimate) -> Estimate:
    """A number with its interval if that is of this kind, else without one."""
    return row if row.ci_kind == kind else replace(row, ci_low=math.nan, ci_high=math.nan, ci_kind="")


def comparison_of_kind(kind: str, comparison: Comparison) -> Comparison:
    """A comparison whose accuracies have intervals of this kind or none."""
    rows = {name: getattr(comparison, name) for name in ("standard", "robust", "fixed")}
    return replace(comparison, **{name: of_kind(kind, row) for name, row in rows.items() if row})


def named(panels: Iterable[Iterable[Estimate]]) -> list[str]:
    """A remark that says what the intervals of a figure's panels are over; empty where there are none."""
    drawn = [list(rows) for rows in panels]
    kinds = [kind_of(rows) for rows in drawn]
    said = []
    if SEEDS in kinds:
        alone = any(not row.ci_kind for rows, kind in zip(drawn, kinds, strict=True) if kind == SEEDS for row in rows)
        said.append("intervals over seeds" + (", none for networks of one seed" if alone else ""))
    if IMAGES in kinds:
        said.append("intervals over test images, of these weights alone")
    return ["; elsewhere ".join(said)] if said else []

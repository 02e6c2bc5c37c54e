"""Means over seeds: what a network measured under several seeds is worth.

From three seeds up the interval is a 95 % t interval over seeds. Two seeds bear none (t would be 12.7): theirs is the
mean of the two intervals over images, which errs on the wide side.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import numpy as np

from robust_transfer.tables.results import Row, canonical

# 97.5 % quantiles of Student's t for 2 to 30 degrees of freedom, so that no job imports scipy for them.
STUDENT = (
    *(4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131, 2.120),
    *(2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042),
)
SEEDLESS: dict[str, Callable[[Row], Row]] = {
    "transfer_seed": lambda row: replace(row, transfer_seed=None),
    "backbone_seed": lambda row: replace(row, backbone_seed=None),
}


def seed_means(rows: Sequence[Row]) -> list[Row]:
    """A row for every number measured under several seeds: over transfer seeds, then over backbone seeds."""
    over_transfer = _means(rows, "transfer_seed")
    covered = {row.key for row in over_transfer}
    single = [row for row in (replace(row, transfer_seed=None) for row in rows) if row.key not in covered]
    return over_transfer + _means(single + over_transfer, "backbone_seed")


def _means(rows: Iterable[Row], seed: str) -> list[Row]:
    """Means of rows that differ in this seed alone, where there are several."""
    without = SEEDLESS[seed]
    groups: dict[tuple[object, ...], list[Row]] = defaultdict(list)
    for row in rows:
        groups[without(row).key].append(row)
    return [_mean(without(group[0]), group, seed) for group in groups.values() if len(group) > 1]


def _mean(like: Row, group: Sequence[Row], seed: str) -> Row:
    values = np.array([row.value for row in group])
    mean = float(values.mean())
    low, high = float(np.mean([row.ci_low for row in group])), float(np.mean([row.ci_high for row in group]))
    kind, n = like.ci_kind, like.n
    if len(values) > 2:
        t = STUDENT[len(values) - 3] if len(values) - 3 < len(STUDENT) else 1.96
        half = t * float(values.std(ddof=1)) / len(values) ** 0.5
        low, high, kind, n = mean - half, mean + half, "seeds", len(values)
    says = canonical({"mean_over": seed, "seeds": sorted(getattr(row, seed) for row in group)})
    summary = replace(like, value=mean, ci_low=low, ci_high=high, ci_kind=kind, n=n, hyperparameters=says)
    return replace(summary, backbone=None, entry=None, code=None)

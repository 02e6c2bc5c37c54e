"""The correlation of two numbers over a few networks: its interval, and how much of it is one network's doing.

The interval is Fisher's (1921, "On the probable error of a coefficient of correlation"): atanh(r) is about normal with
variance 1 / (n - 3). Of 20,000 simulated pairs of normal accuracies it covers the true ρ²

    n      ρ² = 0    0.5     0.9
    5      0.953     0.969   0.959
    8      0.952     0.963   0.950
    12     0.949     0.950   0.951

where a percentile bootstrap over networks covers 0.82 to 0.92, and never 0. With a network far off the others (t of 3
degrees of freedom) Fisher's covers 0.80 to 0.95 only: the range of r with one network left out shows such a network.

That of Spearman's correlation of ranks is Bonett and Wright's (2000, "Sample size requirements for estimating Pearson,
Kendall and Spearman correlations"): atanh(ρ) is about normal with variance (1 + ρ²/2) / (n - 3). Where all ranks agree,
ρ = ±1, it has no width: it is taken half a step below, a step being what exchanging two neighbours takes away. Of 1,500
simulated samples of normal pairs it covers the true ρ, and a percentile bootstrap over networks does,

    n      ρ = 0           0.5             0.8             0.95
    5      0.987, 0.891    0.986, 0.949    0.989, 0.863    0.983, 0.648
    8      0.967, 0.955    0.969, 0.967    0.948, 0.974    0.959, 0.913
    13     0.970, 0.958    0.961, 0.961    0.959, 0.981    0.927, 0.988
    30     0.957, 0.952    0.961, 0.952    0.961, 0.960    0.951, 0.969

(ρ of the normal pairs; that of ranks is 6/π asin(ρ/2)).
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
    if not _has_interval(x, y):
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


@dataclass(frozen=True)
class Coefficient:
    """A coefficient of correlation, -1 to 1, with its 95 % interval over networks."""

    value: float
    low: float
    high: float


def pearson(x: Sequence[float], y: Sequence[float]) -> Coefficient | None:
    """Pearson's correlation over n networks, with Fisher's interval; None where `correlation` has none."""
    if not _has_interval(x, y):
        return None
    r = _pearson(np.array([x, y], np.float64))
    return _around(r, r, 1.0, len(x))


def spearman(x: Sequence[float], y: Sequence[float]) -> Coefficient | None:
    """Spearman's correlation over n networks, equal values at their mean rank, with Bonett and Wright's interval; None
    where `correlation` has none."""
    if not _has_interval(x, y):
        return None
    n = len(x)
    rho = _pearson(np.array([ranks(x), ranks(y)]))
    largest = 1 - 6 / (n * (n**2 - 1))
    centre = max(-largest, min(largest, rho))
    return _around(rho, centre, 1 + centre**2 / 2, n)


def ranks(values: Sequence[float]) -> np.ndarray:
    """Ranks from 1 [n]; equal values have the mean of theirs."""
    _, place, counts = np.unique(np.asarray(values, np.float64), return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    found: np.ndarray = (last - (counts - 1) / 2)[place]
    return found


def _has_interval(x: Sequence[float], y: Sequence[float]) -> bool:
    return len(x) >= FEWEST and len(set(x)) > 1 and len(set(y)) > 1


def _around(value: float, centre: float, variance: float, n: int) -> Coefficient:
    """The interval whose atanh is `centre`'s, plus or minus 1.96 √(variance / (n - 3)); `value` lies in it."""
    largest = 1 - 2.0**-52
    z, half = math.atanh(max(-largest, min(largest, centre))), _NORMAL * math.sqrt(variance / (n - 3))
    return Coefficient(value, min(value, math.tanh(z - half)), max(value, math.tanh(z + half)))


def _pearson(pairs: np.ndarray) -> float:
    """Of pairs [2, n]; 0 where either has no spread."""
    centred = pairs - pairs.mean(axis=1, keepdims=True)
    squares = (centred**2).sum(axis=1)
    if (np.ptp(pairs, axis=1) == 0).any():
        return 0.0
    return float(np.clip((centred[0] * centred[1]).sum() / math.sqrt(squares[0] * squares[1]), -1, 1))

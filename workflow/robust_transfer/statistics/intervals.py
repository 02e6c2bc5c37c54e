"""Intervals that cover what they say: of one accuracy, of a mean over seeds, and of differences between networks.

Every interval is meant to hold the true value in 95 of 100 experiments; `benchmarks/coverage.py` counts how often each
one does, in simulated experiments whose truth is known, and tests hold it to that. Accuracies are in percent.

- One accuracy: the exact interval of a binomial share (Clopper and Pearson 1934). It has a width at 0 and 100 % too.
- A mean over classes, or over several heads: the same, for the number of independent images that would vary as much
  (Korn and Graubard 1998). Classes of a single image, whose own spread cannot be seen, take that of all images.
- A mean over seeds: Student's t over seeds, widened by the sampling error of the test images, which all seeds share and
  their spread therefore does not show.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

COVERAGE = 95.0
"""Percent of experiments in which an interval holds the true value."""
TAIL = (1 - COVERAGE / 100) / 2
Z = 1.959964
"""Quantile of the normal distribution at 1 - TAIL."""


def exact_interval(value: float, images: float) -> tuple[float, float]:
    """Interval of an accuracy of `value` percent measured on so many images; `images` may be an effective number.

    Both ends are in percent and between 0 and 100, and they differ whatever `value` is.
    """
    from scipy.special import betaincinv  # 0.3 s of processor time, which jobs that only measure do without

    right = min(max(value / 100, 0.0), 1.0) * images
    wrong = images - right
    low = float(betaincinv(right, wrong + 1, TAIL)) if right > 0 else 0.0
    high = float(betaincinv(right + 1, wrong, 1 - TAIL)) if wrong > 0 else 1.0
    return 100 * low, 100 * high


def seeds_interval(values: Sequence[float] | Floats, image_error: float) -> tuple[float, float]:
    """Interval of the mean of one network's accuracies under two or more seeds, in percent, within 0 and 100.

    `image_error` is the standard error, in percentage points, of that mean over test images.
    """
    by_seed = np.asarray(values, dtype=np.float64)
    half = _half(float(by_seed.var(ddof=1)) / len(by_seed), len(by_seed) - 1, image_error)
    mean = float(by_seed.mean())
    return max(mean - half, 0.0), min(mean + half, 100.0)


def seeds_difference_interval(
    first: Sequence[float] | Floats, second: Sequence[float] | Floats, image_error: float
) -> tuple[float, float]:
    """Interval of the mean of `first` less that of `second`, accuracies of two networks under seeds of their own.

    Each has two seeds or more, and the seeds are independent, so that variances add (Welch 1947). `image_error` is
    the standard error of the difference over test images, paired. Percentage points, within -100 and 100.
    """
    one, other = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    variances = [float(values.var(ddof=1)) / len(values) for values in (one, other)]
    weights = variances[0] ** 2 / (len(one) - 1) + variances[1] ** 2 / (len(other) - 1)
    freedom = sum(variances) ** 2 / weights if weights else min(len(one), len(other)) - 1
    half = _half(sum(variances), freedom, image_error)
    difference = float(one.mean() - other.mean())
    return max(difference - half, -100.0), min(difference + half, 100.0)


def _half(variance: float, freedom: float, image_error: float) -> float:
    """Half the width of an interval, from the variance of a mean over seeds and its error over images."""
    from scipy.special import stdtrit

    return math.hypot(float(stdtrit(freedom, 1 - TAIL)) * math.sqrt(variance), Z * image_error)


def paired_difference_interval(
    first: tuple[float, float, float], second: tuple[float, float, float], correlation: float
) -> tuple[float, float]:
    """Interval of `first` less `second`, two accuracies measured on the same images, in percentage points.

    Each is (value, low, high) in percent; `correlation` is that of being right, over images. It combines the two
    intervals (Newcombe 1998, method 10), so it has a width where both networks are right on every image.
    """
    (one, one_low, one_high), (other, other_low, other_high) = first, second
    difference = one - other
    below = _combined(one - one_low, other_high - other, correlation)
    above = _combined(one_high - one, other - other_low, correlation)
    return max(difference - below, -100.0), min(difference + above, 100.0)


def _combined(one: float, other: float, correlation: float) -> float:
    return math.sqrt(max(one**2 - 2 * correlation * one * other + other**2, 0.0))

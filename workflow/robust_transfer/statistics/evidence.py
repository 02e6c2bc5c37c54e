"""What an interval says for and against a claim, of one comparison and of several, and how much data would decide.

A p-value is read off an interval: the interval of 95 % excludes a bound exactly where the two-sided p-value is below
0.05, so that a verdict on a single comparison says what a star in the headline says. Over images and networks the error
is taken as normal. Over n seeds it is Student's of n - 1 degrees of freedom, fewer than Welch's, which errs on the
wide side.

Several comparisons of one claim, which need not be independent, are combined by Bonferroni's partial conjunction
(Benjamini and Heller 2008, "Screening for partial conjunction hypotheses"): that at least u of m hold has the p-value
(m - u + 1) p(u), with p(u) the u-th smallest. Of all, u = m, it is the largest; of some, u = 1, m times the smallest.
Several claims are adjusted by Holm's method (statsmodels).
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence

from robust_transfer.statistics.intervals import TAIL, Z

LEVEL = 0.05
"""Two-sided level at which a claim is decided, and a family's chance of a wrong verdict."""
POWER = 0.8
"""Chance of a decision that `needed` plans for."""
MOST = 1_000_000
"""What would take more seeds or images than this is not worth a number."""


def one_sided(value: float, low: float, high: float, kind: str, n: int, bound: float = 0.0) -> tuple[float, float]:
    """P-values against "at most `bound`" and against "at least `bound`", from a value with its 95 % interval.

    `kind` is `images`, `seeds` or `networks`, and `n` how many. Both are 1 where there is no interval.
    """
    error = standard_error(value, low if value > bound else high, kind, n)
    if not error or value == bound:
        return 1.0, 1.0
    tail = _tail(abs(value - bound) / error, kind, n)
    return (tail, 1 - tail) if value > bound else (1 - tail, tail)


def standard_error(value: float, end: float, kind: str, n: int) -> float:
    """The standard error behind one end of a 95 % interval; 0 where there is none."""
    if math.isnan(end) or (kind == "seeds" and n < 2):
        return 0.0
    from scipy.special import stdtrit

    return abs(value - end) / (float(stdtrit(n - 1, 1 - TAIL)) if kind == "seeds" else Z)


def _tail(score: float, kind: str, n: int) -> float:
    from scipy.special import ndtr, stdtr

    return float(stdtr(n - 1, -score) if kind == "seeds" else ndtr(-score))


def of_at_least(count: int, p_values: Sequence[float]) -> float:
    """P-value of the claim that at least `count` of several comparisons hold, from that of each."""
    ordered = sorted(p_values)
    return min(1.0, (len(ordered) - count + 1) * ordered[count - 1])


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values adjusted for being several: the chance of a single one below 0.05 without cause is 0.05 at most."""
    if not p_values:
        return []
    from statsmodels.stats.multitest import multipletests

    return [float(p) for p in multipletests(p_values, method="holm")[1]]


def needed(effect: float, error: float, kind: str, n: int, tests: int) -> int | None:
    """How many seeds, images or networks would decide an effect as large as measured, with a chance of 80 %.

    `error` is its standard error from n of them; `tests` is how many comparisons share the level of 0.05. It takes the
    spread as it was measured, and what all seeds share (the error over test images) as if it shrank too, so it is a
    lower bound. Student's t moved by the effect stands for the noncentral one, which statsmodels' `TTestPower` has and
    which is NaN for large effects. None where there is no effect, and for more than a million.
    """
    if not effect or not error:
        return None
    from scipy.special import stdtr, stdtrit

    size, tail = abs(effect) / (error * math.sqrt(n)), LEVEL / tests / 2

    def decides(count: int) -> bool:
        critical = stdtrit(count - 1, 1 - tail)
        return bool(stdtr(count - 1, size * math.sqrt(count) - critical) >= POWER)

    enough = 2
    while not decides(enough):
        if enough >= MOST:
            return None
        enough *= 2
    return bisect.bisect_left(range(enough + 1), True, lo=max(2, enough // 2), key=decides)


def contrast(weights: Sequence[float], estimates: Sequence[tuple[float, float, float]]) -> tuple[float, float, float]:
    """A weighted sum of independent values, each (value, low, high), with its interval (Zou and Donner 2008).

    Values on the same images vary together, which makes a contrast (weights of sum 0) vary less than this says.
    """
    value = sum(w * one for w, (one, _, _) in zip(weights, estimates, strict=True))
    below = above = 0.0
    for w, (one, low, high) in zip(weights, estimates, strict=True):
        down, up = (one - low, high - one) if w > 0 else (high - one, one - low)
        below, above = below + (w * down) ** 2, above + (w * up) ** 2
    return value, value - math.sqrt(below), value + math.sqrt(above)

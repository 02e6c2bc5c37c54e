"""Comparisons: what a rule makes of the cells that a claim looks at.

A comparison is signed so that a positive effect speaks for the claim. Accuracies of the table that have no paired
difference there are on the same images, and are compared as if they were not: their intervals err on the wide side.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from robust_transfer.figures.cells import Panel
from robust_transfer.figures.estimates import Estimate
from robust_transfer.figures.labels import architecture_label
from robust_transfer.statistics.evidence import one_sided
from robust_transfer.statistics.intervals import paired_difference_interval
from robust_transfer.tables.key import BEST_ARCH

POINTS, STEPS, R2 = "points", "steps of eps", "R²"


@dataclass(frozen=True)
class Comparison:
    """One comparison of a claim; its effect is positive where it speaks for the claim."""

    target: str
    """Label of the target."""
    arch: str
    """Architecture; `best` where it was chosen, empty where several are compared."""
    eps: str
    """The eps that it is about; empty where several are compared."""
    effect: float
    low: float
    high: float
    """95 % interval of the effect; NaN where it has none."""
    kind: str
    """What the interval is over: `images`, `seeds`, `networks`, or empty."""
    n: int
    p_for: float = 1.0
    p_against: float = 1.0
    """One-sided p-values for and against the claim; 1 where there is no interval."""
    agrees: bool = False
    """Whether the values alone speak for the claim."""
    paired: bool = False
    """The interval is of a paired difference."""
    these_weights: bool = True
    """A single backbone is behind one of its numbers, so that it says nothing of the method that trained it."""
    unit: str = POINTS
    remark: str = ""


@dataclass(frozen=True)
class Failed:
    """A comparison that counts for neither side, since a training or transfer behind it failed."""

    what: str
    flags: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.what} ({', '.join(self.flags)})"


@dataclass(frozen=True)
class Lacking:
    """A comparison that could not be made."""

    what: str
    why: str


Outcome = Comparison | Failed | Lacking


@dataclass(frozen=True)
class Found:
    """What a rule found."""

    comparisons: Sequence[Comparison]
    failed: Sequence[Failed] = ()
    lacking: Sequence[Lacking] = ()

    @classmethod
    def of(cls, outcomes: Iterable[Outcome]) -> Found:
        """Outcomes by what they are."""
        every = list(outcomes)
        return cls(
            [one for one in every if isinstance(one, Comparison)],
            [one for one in every if isinstance(one, Failed)],
            [one for one in every if isinstance(one, Lacking)],
        )


def cell_name(panel: Panel, arch: str, eps: str = "") -> str:
    """A cell in words: `Pets, ResNet-50, ε 3`."""
    network = "" if arch in ("", BEST_ARCH) else architecture_label(arch)
    return ", ".join(filter(None, (panel.target.label, network, f"ε {eps}" if eps else "")))


def of_these_weights(rows: Iterable[Estimate]) -> bool:
    """Whether a single backbone is behind any of these numbers."""
    return any(
        row.ci_kind != "seeds" or row.backbone_seed is not None or len(row.chosen.get("backbone_seeds", "..")) < 2
        for row in rows
    )


def difference_of(one: Estimate, other: Estimate) -> tuple[float, float, float, str, int]:
    """One number less another: value, interval, what that is over, and n. NaN ends where the intervals are of two
    kinds, or one has none."""
    value = one.value - other.value
    if one.ci_kind != other.ci_kind or math.isnan(one.ci_low + other.ci_low):
        return value, math.nan, math.nan, "", min(one.n, other.n)
    sides = (one.value, one.ci_low, one.ci_high), (other.value, other.ci_low, other.ci_high)
    return value, *paired_difference_interval(*sides, 0.0), one.ci_kind, min(one.n, other.n)


def p_above(one: Estimate, other: Estimate) -> float:
    """P-value of the claim that one number is above the other."""
    return one_sided(*difference_of(one, other))[0]

"""The rules by which claims are tested: each turns the cells that a claim looks at into comparisons."""

from __future__ import annotations

from collections.abc import Iterable

from robust_transfer.claims.best_eps import best_eps, optimum
from robust_transfer.claims.comparison import Found, Outcome
from robust_transfer.claims.differences import differences
from robust_transfer.claims.lookup import Looked, Measured
from robust_transfer.claims.trends import predicts, trend
from robust_transfer.configuration.claims import BestEps, Claim, Difference, Optimum, Trend


def compared(measured: Measured, claim: Claim) -> tuple[Looked, Found]:
    """What a claim looks at, and its comparisons."""
    looked = measured.look(claim.where)
    return looked, Found.of(_outcomes(measured, looked, claim))


def _outcomes(measured: Measured, looked: Looked, claim: Claim) -> Iterable[Outcome]:
    rule, where = claim.rule, claim.where
    if isinstance(rule, Difference):
        return differences(measured, looked, where, rule)
    if isinstance(rule, BestEps):
        return best_eps(looked, rule, measured.input_size)
    if isinstance(rule, Optimum):
        native, coarse = (measured.look(where.model_copy(update={"view": view})) for view in ("native", "downscaled"))
        return optimum(native, coarse, rule)
    if isinstance(rule, Trend):
        return trend(looked, rule)
    return predicts(looked, rule)

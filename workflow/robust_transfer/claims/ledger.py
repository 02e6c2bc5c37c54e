"""The ledger: a verdict on every claim, with what it rests on, and the answer in one sentence made of the verdicts.

A verdict is

- `holds` or `fails`, where the evidence for or against the claim is beyond 5 %, adjusted by Holm's method for all the
  claims of its file that could be tested, and within a claim for its comparisons (`statistics/evidence.py`);
- `undecided`, where it is not, with how many seeds or images would decide;
- `agrees` or `disagrees`, of published means, which have no interval;
- `not measured`, with what is missing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from robust_transfer.claims.comparison import Comparison, Found
from robust_transfer.claims.lookup import Looked, Measured
from robust_transfer.claims.rules import compared
from robust_transfer.configuration.claims import Claim, Difference, Family
from robust_transfer.statistics.evidence import LEVEL, holm, needed, of_at_least, standard_error
from robust_transfer.tables.published import PUBLISHED

Outcome = Literal["holds", "fails", "undecided", "agrees", "disagrees", "not measured"]
PAIRED, IMAGES, SEEDS, NETWORKS, MEANS = "paired images", "images", "seeds", "networks", "published means"
THESE_WEIGHTS = "One backbone for each eps: it concerns these weights and not the training method."
ON_TEST = "Hyperparameters or networks were chosen on test images, which flatters both sides, so there is no verdict."
NAMED = 4
"""Of what is missing or left out, how many are named."""


@dataclass(frozen=True)
class Verdict:
    """One line of the ledger."""

    family: str
    """File of the claim, without suffix."""
    name: str
    claim: Claim
    outcome: Outcome
    protocol: str
    """How its numbers were measured, and where hyperparameters and networks were chosen; empty where not measured."""
    basis: str
    """What it rests on: `paired images`, `images`, `seeds`, `networks`, `published means`; empty where not measured."""
    deciding: Comparison | None
    """The comparison that decides: of a claim about u of several, the u-th most in favour of it."""
    comparisons: Sequence[Comparison]
    required: int
    """On how many comparisons the claim is to hold."""
    p: float
    """Two-sided p-value of the claim; NaN where it was not tested."""
    p_adjusted: float
    """The same, adjusted for the claims of the file."""
    needed: int | None
    """How many seeds, images or networks would decide, where it is undecided."""
    remarks: Sequence[str]
    missing: Sequence[str]

    @property
    def level(self) -> str:
        """`headline`: the best architecture of each side; `per architecture`: each by itself."""
        return "headline" if self.claim.where.architectures == ("best",) else "per architecture"

    @property
    def agreeing(self) -> int:
        """On how many comparisons the values alone speak for the claim."""
        return sum(one.agrees for one in self.comparisons)


@dataclass(frozen=True)
class _Tested:
    """A claim with its comparisons, before the other claims of its file are looked at."""

    name: str
    claim: Claim
    looked: Looked
    found: Found
    required: int
    p_for: float
    p_against: float

    @property
    def p(self) -> float:
        return min(1.0, 2 * min(self.p_for, self.p_against))


def ledger(measured: Measured, families: Sequence[Family]) -> list[Verdict]:
    """A verdict on every claim, in the order of the files."""
    return [verdict for family in families for verdict in _verdicts(measured, family)]


def _verdicts(measured: Measured, family: Family) -> Iterator[Verdict]:
    tested = [_tested(measured, name, claim) for name, claim in family.claims.items()]
    published = measured.about.experiment == PUBLISHED
    counted = [one for one in tested if one.found.comparisons and not published and _has_interval(one)]
    adjusted = dict(zip((one.name for one in counted), holm([one.p for one in counted]), strict=True))
    for one in tested:
        if not one.found.comparisons:
            yield _not_measured(family.file, one)
        elif published:
            yield _of_means(family.file, one)
        else:
            yield _decided(family.file, one, adjusted.get(one.name, math.nan), max(1, len(counted)))


def _tested(measured: Measured, name: str, claim: Claim) -> _Tested:
    looked, found = compared(measured, claim)
    several = len(found.comparisons)
    required = _required(claim, several)
    if not several or looked.chosen_on_test or required > several:
        return _Tested(name, claim, looked, found, required, 1.0, 1.0)
    p_for = of_at_least(required, [one.p_for for one in found.comparisons])
    p_against = of_at_least(several - required + 1, [one.p_against for one in found.comparisons])
    return _Tested(name, claim, looked, found, required, p_for, p_against)


def _required(claim: Claim, several: int) -> int:
    counts = {"each": max(1, several), "most": several // 2 + 1, "some": 1}
    return counts[claim.holds_on] if isinstance(claim.holds_on, str) else claim.holds_on


def _has_interval(one: _Tested) -> bool:
    return not one.looked.chosen_on_test and any(found.kind for found in one.found.comparisons)


def _not_measured(family: str, one: _Tested) -> Verdict:
    missing = _missing(one) or ["any number that tests it"]
    return _verdict(family, one, "not measured", basis="", remarks=_left_out(one.found), missing=missing)


def _of_means(family: str, one: _Tested) -> Verdict:
    outcome: Outcome = "agrees" if sum(each.agrees for each in one.found.comparisons) >= one.required else "disagrees"
    remarks = [*_left_out(one.found)]
    if one.looked.chosen_on_test:
        remarks.append("Learning rates, eps and architecture were chosen on test images.")
    return _verdict(family, one, outcome, basis=MEANS, remarks=[*remarks, THESE_WEIGHTS], missing=_missing(one))


def _decided(family: str, one: _Tested, adjusted: float, tests: int) -> Verdict:
    is_decided = adjusted <= LEVEL
    outcome: Outcome = ("holds" if one.p_for < one.p_against else "fails") if is_decided else "undecided"
    remarks, enough = [*_left_out(one.found)], None
    if one.looked.chosen_on_test:
        remarks.append(ON_TEST)
    elif outcome == "undecided":
        if one.p <= LEVEL:
            remarks.append(f"It would be decided by itself (p {one.p:.2g}), and is not as one of {tests} claims.")
        enough = _enough(one, tests)
    if any(each.these_weights for each in one.found.comparisons):
        remarks.append(THESE_WEIGHTS)
    made = _verdict(
        family, one, outcome, basis=_basis(one.found.comparisons), remarks=remarks, missing=_missing(one)
    )  # fmt: skip
    return replace(made, p=one.p if _has_interval(one) else math.nan, p_adjusted=adjusted, needed=enough)


def _verdict(
    family: str, one: _Tested, outcome: Outcome, *, basis: str, remarks: Sequence[str], missing: Sequence[str]
) -> Verdict:
    return Verdict(
        family, one.name, one.claim, outcome, one.looked.protocol if one.found.comparisons else "", basis,
        _deciding(one), one.found.comparisons, one.required, math.nan, math.nan, None, remarks, missing,
    )  # fmt: skip


def _deciding(one: _Tested) -> Comparison | None:
    """The comparison in the place that decides, from the most in favour of the claim."""
    ordered = sorted(one.found.comparisons, key=lambda each: (-each.agrees, each.p_for, -each.effect))
    return ordered[min(one.required, len(ordered)) - 1] if ordered else None


def _enough(one: _Tested, tests: int) -> int | None:
    """How many seeds or images would decide, if the deciding comparison's effect is as measured."""
    deciding, rule = _deciding(one), one.claim.rule
    if deciding is None:
        return None
    bound = rule.by_more_than if isinstance(rule, Difference) else 0.0
    effect = deciding.effect - bound
    error = standard_error(deciding.effect, deciding.low if effect > 0 else deciding.high, deciding.kind, deciding.n)
    several = len(one.found.comparisons)
    share = several - one.required + 1 if effect > 0 else one.required
    return needed(effect, error, deciding.kind, deciding.n, tests * max(1, share))


def _basis(found: Sequence[Comparison]) -> str:
    kinds = [PAIRED if one.kind == "images" and one.paired else one.kind for one in found if one.kind]
    return ", ".join(dict.fromkeys(kinds)) or "no interval"


def _left_out(found: Found) -> list[str]:
    said = _named([str(one) for one in found.failed])
    return [f"Left out, since a training or transfer behind it failed: {said}."] * bool(said)


def _missing(one: _Tested) -> list[str]:
    """What the claim asks for and was not measured: a phrase for each reason, with the cells that it is for."""
    cells: dict[str, list[str]] = {}
    for lacking in one.found.lacking:
        cells.setdefault(lacking.why, []).append(lacking.what)
    found, required = len(one.found.comparisons), one.required
    fewer = [f"it is claimed on {required} comparisons, and there are {found}"] * (0 < found < required)
    return [*fewer, *one.looked.missing, *(f"{why} ({_named(what)})" for why, what in cells.items())]


def _named(several: Sequence[str]) -> str:
    """A few of several, and how many more there are."""
    more = len(several) - NAMED
    return "; ".join(several[:NAMED]) + (f"; and {more} more" if more > 0 else "")


SAID = {
    "holds": "it holds that",
    "fails": "it does not hold that",
    "agrees": "the published means agree that",
    "disagrees": "the published means do not agree that",
    "undecided": "it is undecided whether",
    "not measured": "it was not measured whether",
}
"""How the answer says a verdict, before the clause of the claim."""


def answer(verdicts: Sequence[Verdict]) -> str:
    """One sentence made of the verdicts on claims that have a clause for it; empty if none has."""
    parts = []
    asked = [one for one in verdicts if one.claim.answer]
    for outcome, said in SAID.items():
        clauses = [one.claim.answer for one in asked if one.outcome == outcome]
        if clauses:
            again = f", and {said.rpartition(' ')[2]} "
            parts.append(f"{said} {again.join(clauses)}")
    if not parts:
        return ""
    if any(THESE_WEIGHTS in one.remarks for one in asked if one.outcome in ("holds", "fails")):
        parts.append("these are verdicts on single weights and not on the training method")
    text = "; ".join(parts)
    return f"{text[0].upper()}{text[1:]}."

"""The ledger in words: what a verdict rests on, for the terminal and for tables."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence

from robust_transfer.claims.comparison import POINTS, STEPS, Comparison
from robust_transfer.claims.ledger import Verdict, answer
from robust_transfer.figures.labels import architecture_label, p_text, rounded_up, signed
from robust_transfer.tables.key import BEST_ARCH, BEST_ROBUST

COLUMNS = 100
DECIMALS = {POINTS: 1, STEPS: 0}
UNITS = {"images": "test images", "seeds": "seeds", "networks": "networks"}


def ledger_text(title: str, notice: str, verdicts: Sequence[Verdict]) -> str:
    """The whole ledger for a terminal, at most 100 columns wide: the answer, then claim by claim."""
    parts = [title, *[textwrap.fill(notice, COLUMNS)] * bool(notice)]
    if said := answer(verdicts):
        parts.append(textwrap.fill(said, COLUMNS))
    measured = [one for one in verdicts if one.comparisons]
    common = [
        said for said in dict.fromkeys(said for one in measured for said in one.remarks) if _is_common(said, measured)
    ]
    parts += [textwrap.fill(f"All of these: {' '.join(common)}", COLUMNS)] * bool(common)
    parts += [_block(one, common) for one in measured]
    if absent := [one for one in verdicts if not one.comparisons]:
        parts.append("\n".join(["not measured", *(_line(f"{one.name}: {reasons(one)}", "  ") for one in absent)]))
    return "\n\n".join(parts) + "\n"


def _is_common(remark: str, verdicts: Sequence[Verdict]) -> bool:
    """Whether it is said of several verdicts, and of all."""
    return len(verdicts) > 1 and all(remark in one.remarks for one in verdicts)


def _block(verdict: Verdict, common: Sequence[str]) -> str:
    indent = " " * 12
    lines = [_line(f"{verdict.outcome:<11} {verdict.name}: {verdict.claim.statement}", "", indent)]
    lines.append(_line(rests_on(verdict), indent))
    if verdict.claim.published:
        lines.append(_line(f"published: {verdict.claim.published}", indent))
    remarks = [one for one in verdict.remarks if one not in common]
    if said := [*remarks, *[f"Missing: {reasons(verdict)}."] * bool(verdict.missing)]:
        lines.append(_line(" ".join(said), indent))
    return "\n".join(lines)


def _line(text: str, first: str, later: str | None = None) -> str:
    return textwrap.fill(
        text, COLUMNS, initial_indent=first, subsequent_indent=f"{first}  " if later is None else later,
        break_on_hyphens=False,
    )  # fmt: skip


def rests_on(verdict: Verdict) -> str:
    """What a verdict rests on: how many comparisons, the one that decides, p-values and what would decide."""
    one = verdict.deciding
    if one is None:
        return ""
    said = [f"{verdict.agreeing} of {len(verdict.comparisons)} (claimed: {verdict.required})"]
    if len(verdict.comparisons) > 1:
        said[0] += f", decided by {place(one)}"
    said[0] += f": {effect_text(verdict)}, {verdict.basis}"
    if one.kind:
        said[0] += f", n = {one.n}"
    if not math.isnan(verdict.p_adjusted):
        said.append(f"p {p_text(verdict.p)}, {p_text(verdict.p_adjusted)} among all claims")
    if verdict.needed:
        said.append(needed_text(verdict))
    return "; ".join(said)


def place(one: Comparison) -> str:
    """Which comparison it is."""
    arch = "" if one.arch in ("", BEST_ARCH) else architecture_label(one.arch)
    eps = "" if one.eps == BEST_ROBUST else f"ε {one.eps}" if one.eps else ""
    return ", ".join(filter(None, (one.target, arch, eps)))


def effect_text(verdict: Verdict) -> str:
    """The effect that decides, with its interval if it has one."""
    one = verdict.deciding
    if one is None:
        return ""
    decimals = DECIMALS.get(one.unit, 2) + (one.unit == POINTS and not one.kind)  # published means differ by hundredths
    ends = "" if math.isnan(one.low) else f" [{signed(one.low, decimals)}, {signed(one.high, decimals)}]"
    return f"{signed(one.effect, decimals)}{ends} {one.unit}"


def needed_text(verdict: Verdict) -> str:
    """How many seeds or images would decide; empty where nothing says it."""
    if not verdict.needed or not verdict.deciding:
        return ""
    return f"about {rounded_up(verdict.needed):,} {UNITS[verdict.deciding.kind]} would decide"


def reasons(verdict: Verdict) -> str:
    """What a claim asks for and was not measured."""
    return "; ".join(verdict.missing)

"""Which networks are compared with each other, where some were trained under more seeds than others.

A mean over three seeds and a network of one seed have intervals of different kinds, and among networks of one seed the
best is partly the one with the luckiest seed. So networks are compared that were trained under the same seeds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from robust_transfer.statistics.candidates import Candidate


def comparable(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Candidates of the same seeds of pretraining: those that have all seeds that any has; the others are left out.

    Where that would leave no network of a norm (`none` is that of standard networks), every candidate stays, with the
    runs of the seeds that all share. Where they share none, all stay as they are.
    """
    every = frozenset().union(*map(_seeds, candidates))
    whole = [one for one in candidates if _seeds(one) == every]
    if {one.norm for one in whole} == {one.norm for one in candidates}:
        return whole
    shared = every.intersection(*map(_seeds, candidates))
    if not shared:
        return list(candidates)
    return [replace(one, runs=tuple(run for run in one.runs if run.backbone_seed in shared)) for one in candidates]


def _seeds(candidate: Candidate) -> frozenset[int | None]:
    return frozenset(run.backbone_seed for run in candidate.runs)

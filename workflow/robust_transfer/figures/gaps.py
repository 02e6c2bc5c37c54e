"""Gaps: how much the protocol changes a transfer accuracy, on backbones that were measured by several.

Protocols are compared on the runs that all of them have: where seeds of pretraining or transfer differ between them, on
the first seed that they share. Images are native, and all training images are used.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

from robust_transfer.configuration.eps import eps_value
from robust_transfer.figures.cells import Cells, Panel
from robust_transfer.figures.estimates import Estimate
from robust_transfer.figures.protocols import FROZEN, KNN, PAPER, Protocol, preference
from robust_transfer.tables.experiment_info import Target
from robust_transfer.tables.key import canonical

NO_DRIFT, NO_TARGET = {"batchnorm": "frozen"}, {"normalisation": "source"}
"""Deviations from the released code, which lets BatchNorm drift and normalises by the target's statistics."""

Key = tuple[Protocol, str]
"""A protocol and a selection."""


@dataclass(frozen=True)
class Line:
    """One backbone on one target."""

    target: Target
    norm: str
    arch: str
    eps: str
    rows: dict[Key, Estimate]
    """At least two, of the same seeds."""
    alone: bool
    """The rows are of the first shared seed alone, since some protocols were measured under more seeds."""

    @property
    def protocols(self) -> set[Protocol]:
        """The protocols by which it was measured."""
        return {protocol for protocol, _ in self.rows}


@dataclass(frozen=True)
class Gap:
    """A difference between two protocols or selections: pairs of numbers that differ in nothing else."""

    name: str
    pairs: list[tuple[Key, Key]]

    def of(self, line: Line) -> float | None:
        """The gap of a backbone in percentage points, a mean over pairs; None where no pair was measured.

        Pairs where something behind one of both failed are left out.
        """
        counted = {key for key, row in line.rows.items() if not row.failed}
        gaps = [line.rows[a].value - line.rows[b].value for a, b in self.pairs if {a, b} <= counted]
        return sum(gaps) / len(gaps) if gaps else None


def compared(chosen: dict[str, Cells], mode: str) -> Iterator[Line]:
    """Every backbone on every target that has comparable numbers of two protocols or selections."""
    protocols = list(dict.fromkeys(protocol for cells in chosen.values() for protocol in cells.protocols(mode)))
    first = max(chosen.values(), key=lambda cells: len(cells.norms()), default=None)
    if first is None:
        return
    norms = first.norms() or ["l2"]
    for target, arch, norm in product(first.about.targets, first.about.ordered, norms):
        for eps in sorted({eps for cells in chosen.values() for eps in cells.eps(norm)}, key=eps_value):
            if eps == "0" and norm != norms[0]:
                continue
            measured = {
                (protocol, selection): (cells, Panel(target, protocol, norm, target.label))
                for protocol in protocols
                for selection, cells in chosen.items()
            }
            runs = {key: cells.runs(panel, arch, eps) for key, (cells, panel) in measured.items()}
            runs = {key: by_seed for key, by_seed in runs.items() if by_seed}
            shared = set.intersection(*(set(by_seed) for by_seed in runs.values())) if runs else set()
            if len(runs) < 2 or not shared:
                continue
            alone = any(set(by_seed) != shared for by_seed in runs.values())
            rows = {key: by_seed[min(shared)] for key, by_seed in runs.items()}
            if not alone:
                means = {key: measured[key][0].cell(measured[key][1], arch, eps) for key in runs}
                rows = {key: mean or rows[key] for key, mean in means.items()}
            yield Line(target, norm, arch, eps, rows, alone)


def keys_of(lines: Sequence[Line], chosen: Sequence[str]) -> list[Key]:
    """Protocols and selections of these lines: the frozen protocol first, then by how much deviates."""
    keys = {key for line in lines for key in line.rows}

    def order(key: Key) -> tuple[int, int, str, int]:
        protocol, selection = key
        deviations = protocol.deviations
        return preference(protocol), len(json.loads(deviations)), deviations, chosen.index(selection)

    return sorted(keys, key=order)


def protocols_of(keys: Sequence[Key]) -> list[Protocol]:
    """The protocols of these keys, each once."""
    return list(dict.fromkeys(protocol for protocol, _ in keys))


def selections_of(keys: Sequence[Key]) -> list[str]:
    """The selections of these keys, each once."""
    return list(dict.fromkeys(selection for _, selection in keys))


def gaps_between(mode: str, keys: Sequence[Key], shown: str) -> list[Gap]:
    """The gaps that can be computed from numbers of these keys; all but those between selections use `shown`."""
    protocols, gaps = protocols_of(keys), list[Gap]()
    names = list(dict.fromkeys(protocol.name for protocol in protocols))
    for name in names:
        of = f", {name} protocol" if len(names) > 1 else ""
        pairs = [((one, "test"), (one, "validation")) for one in protocols if one.name == name]
        gaps.append(Gap(f"chosen on test less on validation{of}", pairs))

    def between(ours: Protocol, other: Protocol) -> tuple[Key, Key]:
        return (ours, shown), (other, shown)

    frozen = [one for one in protocols if one.name == FROZEN and one.deviations == "{}"]
    for deviations, said in (({}, "as released"), (NO_DRIFT | NO_TARGET, "with both deviations")):
        papers = [one for one in protocols if one.name == PAPER and json.loads(one.deviations) == deviations]
        gaps.append(Gap(f"paper {said} less frozen protocol", [between(*one) for one in product(papers, frozen)]))
    neighbours = [one for one in protocols if one.name == KNN]
    gaps.append(Gap("knn less frozen protocol", [between(*one) for one in product(neighbours, frozen)]))
    for deviation, said in (
        (NO_DRIFT, "BatchNorm drifting less frozen"),
        (NO_TARGET, "target less source normalisation"),
    ):
        with_it = {one: Protocol(mode, one.name, _with(one.deviations, deviation)) for one in protocols}
        pairs = [between(one, other) for one, other in with_it.items() if other != one and other in protocols]
        gaps.append(Gap(said, pairs))
    return [gap for gap in gaps if any(a in keys and b in keys for a, b in gap.pairs)]


def _with(deviations: str, more: dict[str, str]) -> str:
    return canonical({**json.loads(deviations), **more})


def by_kind(gap: Gap, lines: Sequence[Line]) -> dict[str, list[float]]:
    """The gaps of standard backbones, those of robust ones, and their difference, over backbones and targets."""
    gaps = {(line.target, line.arch, line.norm, line.eps): one for line in lines if (one := gap.of(line)) is not None}
    standard = {key[:2]: one for key, one in gaps.items() if key[-1] == "0"}
    robust = {key: one for key, one in gaps.items() if key[-1] != "0"}
    return {
        "standard": list(standard.values()),
        "robust": list(robust.values()),
        "robust less standard": [one - standard[key[:2]] for key, one in robust.items() if key[:2] in standard],
    }

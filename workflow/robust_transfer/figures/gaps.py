"""Gaps: what a transfer accuracy owes to the way it was measured, from backbones that were measured in several.

Ways are compared on the runs that all of them have: where seeds of pretraining or transfer differ between them, on the
first seed that they share. All is native images, and transfer from all training images.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

from robust_transfer.configuration.eps import eps_value
from robust_transfer.figures.cells import FROZEN, KNN, PAPER, Cells, Panel, Way, preference
from robust_transfer.tables.results import Row, Target, canonical

NO_DRIFT, NO_TARGET = {"batchnorm": "frozen"}, {"normalisation": "source"}
"""What deviates from the released code, which lets BatchNorm drift and normalises by the target's statistics."""

Key = tuple[Way, str]
"""A way and a selection."""


@dataclass(frozen=True)
class Line:
    """One backbone on one target."""

    target: Target
    norm: str
    arch: str
    eps: str
    rows: dict[Key, Row]
    """At least two, of the same seeds."""
    alone: bool
    """Only the first of the seeds that the rows share is there, since some were measured under more."""

    @property
    def ways(self) -> set[Way]:
        """The ways in which it was measured."""
        return {way for way, _ in self.rows}


@dataclass(frozen=True)
class Gap:
    """What is taken from what: pairs of numbers that differ in this alone."""

    name: str
    pairs: list[tuple[Key, Key]]

    def of(self, line: Line) -> float | None:
        """The gap of a backbone in percentage points, a mean over pairs; None where no pair was measured."""
        found = [line.rows[a].value - line.rows[b].value for a, b in self.pairs if {a, b} <= line.rows.keys()]
        return sum(found) / len(found) if found else None


def compared(chosen: dict[str, Cells], mode: str) -> Iterator[Line]:
    """Every backbone on every target that has comparable numbers of two ways or selections."""
    ways = list(dict.fromkeys(way for cells in chosen.values() for way in cells.ways(mode)))
    first = max(chosen.values(), key=lambda cells: len(cells.norms()), default=None)
    if first is None:
        return
    norms = first.norms() or ["l2"]
    for target, arch, norm in product(first.about.targets, first.about.ordered, norms):
        for eps in sorted({eps for cells in chosen.values() for eps in cells.eps(norm)}, key=eps_value):
            if eps == "0" and norm != norms[0]:
                continue
            measured = {
                (way, selection): (cells, Panel(target, way, norm, target.label))
                for way in ways
                for selection, cells in chosen.items()
            }
            runs = {key: cells.runs(panel, arch, eps) for key, (cells, panel) in measured.items()}
            runs = {key: found for key, found in runs.items() if found}
            shared = set.intersection(*(set(found) for found in runs.values())) if runs else set()
            if len(runs) < 2 or not shared:
                continue
            alone = any(set(found) != shared for found in runs.values())
            rows = {key: found[min(shared)] for key, found in runs.items()}
            if not alone:
                means = {key: measured[key][0].cell(measured[key][1], arch, eps) for key in runs}
                rows = {key: mean or rows[key] for key, mean in means.items()}
            yield Line(target, norm, arch, eps, rows, alone)


def keys_of(lines: Sequence[Line], chosen: Sequence[str]) -> list[Key]:
    """Ways and selections of these lines: by protocol, the frozen one first, then by how much deviates."""
    found = {key for line in lines for key in line.rows}

    def order(key: Key) -> tuple[int, int, str, int]:
        way, selection = key
        return preference(way), len(json.loads(way.deviations)), way.deviations, chosen.index(selection)

    return sorted(found, key=order)


def ways_of(keys: Sequence[Key]) -> list[Way]:
    """The ways of these keys, each once."""
    return list(dict.fromkeys(way for way, _ in keys))


def selections_of(keys: Sequence[Key]) -> list[str]:
    """The selections of these keys, each once."""
    return list(dict.fromkeys(selection for _, selection in keys))


def gaps_between(mode: str, keys: Sequence[Key], shown: str) -> list[Gap]:
    """The gaps that these numbers can tell of; but for those of selections, of the selection `shown`."""
    ways, gaps = ways_of(keys), list[Gap]()
    protocols = list(dict.fromkeys(way.protocol for way in ways))
    for protocol in protocols:
        of = f", {protocol} protocol" if len(protocols) > 1 else ""
        pairs = [((way, "test"), (way, "validation")) for way in ways if way.protocol == protocol]
        gaps.append(Gap(f"chosen on test less on validation{of}", pairs))

    def between(ours: Way, other: Way) -> tuple[Key, Key]:
        return (ours, shown), (other, shown)

    frozen = [way for way in ways if way.protocol == FROZEN and way.deviations == "{}"]
    for deviations, name in (({}, "as released"), (NO_DRIFT | NO_TARGET, "with both deviations")):
        papers = [way for way in ways if way.protocol == PAPER and json.loads(way.deviations) == deviations]
        gaps.append(Gap(f"paper {name} less frozen protocol", [between(*one) for one in product(papers, frozen)]))
    neighbours = [way for way in ways if way.protocol == KNN]
    gaps.append(Gap("knn less frozen protocol", [between(*one) for one in product(neighbours, frozen)]))
    for deviation, name in (
        (NO_DRIFT, "BatchNorm drifting less frozen"),
        (NO_TARGET, "target less source normalisation"),
    ):
        with_it = {way: Way(mode, way.protocol, _with(way.deviations, deviation)) for way in ways}
        pairs = [between(way, other) for way, other in with_it.items() if other != way and other in ways]
        gaps.append(Gap(name, pairs))
    return [gap for gap in gaps if any(a in keys and b in keys for a, b in gap.pairs)]


def _with(deviations: str, more: dict[str, str]) -> str:
    return canonical({**json.loads(deviations), **more})


def by_kind(gap: Gap, lines: Sequence[Line]) -> dict[str, list[float]]:
    """The gap of every backbone on every target, standard and robust ones apart, and robust less standard."""
    found = {(line.target, line.arch, line.norm, line.eps): one for line in lines if (one := gap.of(line)) is not None}
    standard = {key[:2]: one for key, one in found.items() if key[-1] == "0"}
    robust = {key: one for key, one in found.items() if key[-1] != "0"}
    return {
        "standard": list(standard.values()),
        "robust": list(robust.values()),
        "robust less standard": [one - standard[key[:2]] for key, one in robust.items() if key[:2] in standard],
    }

"""The rules `best_eps` and `optimum`: where the best eps lies, and whether it moves as detail is taken away.

That the best eps is one of several is the claim that one of them is above all others: of the candidates the smallest
p-value, times their number, of being above each of the others (the largest p-value). So the choice of the best one, on
the same test images, is paid for.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence

from robust_transfer.claims.comparison import (
    STEPS,
    Comparison,
    Failed,
    Lacking,
    Outcome,
    cell_name,
    difference_of,
    of_these_weights,
    p_above,
)
from robust_transfer.claims.lookup import Looked
from robust_transfer.configuration.claims import BestEps, Optimum
from robust_transfer.configuration.eps import eps_value
from robust_transfer.figures.cells import Panel
from robust_transfer.figures.estimates import Estimate

PAPER_SIDE = 224
"""Side of the images, in pixels, that the ranges of claims are for."""
Curve = dict[str, Estimate]
"""The numbers of one architecture on one target, by growing eps."""


def best_eps(looked: Looked, rule: BestEps, side: int) -> Iterator[Outcome]:
    """A comparison for every target and architecture: the best eps inside the range against the best outside.

    `side` is that of the networks' input in pixels. The range is of L2 radii, which keep their budget per pixel if they
    are scaled by the side.
    """
    for panel in looked.panels:
        if panel.norm != "l2":
            yield Lacking(panel.target.label, "the range is of L2 radii, and networks are of another norm")
            continue
        for arch in looked.architectures:
            curve = _curve(looked, panel, arch, among=rule.among)
            if isinstance(curve, Failed):
                yield curve
                continue
            inside = {eps for eps in curve if _is_inside(eps, rule, side)}
            outside = curve.keys() - inside
            if inside and outside:
                yield _location(panel, arch, curve, inside, outside)
            else:
                lacks = "of any eps" if not curve else "outside the range" if inside else "inside the range"
                yield Lacking(cell_name(panel, arch), f"no network {lacks}")


def _is_inside(eps: str, rule: BestEps, side: int) -> bool:
    scale, value = side / PAPER_SIDE, eps_value(eps)
    most = math.inf if rule.at_most is None else eps_value(rule.at_most)
    return scale * eps_value(rule.at_least) * (1 - 1e-9) <= value <= scale * most * (1 + 1e-9)


def _location(panel: Panel, arch: str, curve: Curve, inside: Collection[str], outside: Collection[str]) -> Comparison:
    one, other = (curve[_best(curve, of)] for of in (inside, outside))
    best = _best(curve, curve)
    return Comparison(
        panel.target.label, arch, best, *difference_of(one, other), _p_best_in(curve, inside),
        _p_best_in(curve, outside), best in inside, these_weights=of_these_weights(curve.values()),
        remark="best inside the range less best outside",
    )  # fmt: skip


def optimum(native: Looked, coarse: Looked, rule: Optimum) -> Iterator[Outcome]:
    """A comparison for every target and architecture: where the best robust eps is on either view.

    The effect is how many of the measured eps it moves by. It moves if some bound lies between the two; that it moves
    the other way, or that it is the same eps in both, speaks against the claim.
    """
    panels = {panel.target.name: panel for panel in native.panels}
    for panel in coarse.panels:
        for arch in coarse.architectures:
            before = _curve(native, panels.get(panel.target.name, panel), arch)
            after = _curve(coarse, panel, arch)
            if isinstance(before, Failed):
                yield before
            elif isinstance(after, Failed):
                yield after
            else:
                shared = [eps for eps in before if eps in after]
                if len(shared) < 2:
                    yield Lacking(cell_name(panel, arch), f"{len(shared)} robust eps in both views, and it needs two")
                else:
                    yield _move(panel, arch, _of(before, shared), _of(after, shared), rule)


def _move(panel: Panel, arch: str, before: Curve, after: Curve, rule: Optimum) -> Comparison:
    radii, sign = list(before), 1 if rule.moves == "up" else -1
    up, down = _p_moves_up(before, after), _p_moves_up(after, before)
    same = min(max(_p_best_in(before, [eps]), _p_best_in(after, [eps])) for eps in radii)
    p_for, p_other = (up, down) if sign > 0 else (down, up)
    best = _best(before, radii), _best(after, radii)
    moved = sign * (radii.index(best[1]) - radii.index(best[0]))
    rows = [*before.values(), *after.values()]
    return Comparison(
        panel.target.label, arch, f"{best[0]} to {best[1]}", moved, math.nan, math.nan, rows[0].ci_kind,
        min(row.n for row in rows), p_for, min(1.0, 2 * min(p_other, len(radii) * same)), moved > 0,
        these_weights=of_these_weights(rows), unit=STEPS,
    )  # fmt: skip


def _p_moves_up(before: Curve, after: Curve) -> float:
    """P-value of the claim that the best eps is larger after than before: a bound lies between the two."""
    radii = list(before)
    bounds = range(1, len(radii))
    found = [max(_p_best_in(before, radii[:bound]), _p_best_in(after, radii[bound:])) for bound in bounds]
    return min(1.0, len(found) * min(found))


def _p_best_in(curve: Curve, inside: Collection[str]) -> float:
    """P-value of the claim that the best eps of a curve is one of these."""
    others = [row for eps, row in curve.items() if eps not in inside]
    above = [max(p_above(curve[eps], other) for other in others) for eps in inside]
    return min(1.0, len(above) * min(above))


def _curve(looked: Looked, panel: Panel, arch: str, among: str = "robust") -> Curve | Failed:
    """The numbers of an architecture without those that failed."""
    radii = [eps for eps in looked.cells.eps(panel.norm) if among == "all" or eps != "0"]
    counted, failed = looked.counted(panel, [(arch, eps) for eps in radii])
    return (
        Failed(cell_name(panel, arch), failed)
        if failed and not counted
        else {e: one for (_, e), one in counted.items()}
    )


def _of(curve: Curve, radii: Sequence[str]) -> Curve:
    return {eps: curve[eps] for eps in radii}


def _best(curve: Curve, among: Collection[str]) -> str:
    return max(among, key=lambda eps: curve[eps].value)

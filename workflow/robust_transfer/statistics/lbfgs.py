"""L-BFGS for a convex loss with a quadratic penalty, around a diagonal that follows the loss's curvature.

Nocedal and Wright, Numerical Optimization, algorithm 7.4, with two changes: the matrix that the two loops start from is
a diagonal given anew at every point, and pairs remember the loss alone, so that they serve any strength of the penalty.
Arrays are numpy's or torch's; nothing here depends on which.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

Array = Any
"""A numpy array, or a torch tensor on the GPU."""

TOLERANCE = 1e-6
"""Stop at this estimated distance from the optimum, relative to the objective.

The estimate can be too small: on 378 fits of 36 problems (2 to 100 classes, λ from 1e-8 to 100, separable, imbalanced
and shuffled labels, more features than images) the true distance was at most 5e-5, and above 3e-5 twice. Rounding in
float32 leaves no more to gain: 3e-7 here makes it no smaller.
"""
OF_PENALTY = 1e-3
"""And no farther from it than this share of the penalty. Where the penalty is strong, positions of zero are within
TOLERANCE too, and the classes that they predict mean nothing."""
LEAST = 1e-12
"""A distance from the optimum that is good enough by any measure, relative to the objective."""
MEMORY = 20
"""Pairs kept. On those problems 10 take 17 % more evaluations, 40 take 8 % less but more time."""
EVALUATIONS = 2000
"""Gives up after so many at one strength; the hardest of those fits took 714."""
SUFFICIENT = 1e-4
"""Share of the decrease promised by the slope that a step has to bring."""
ROUNDING = 1e-7
"""Relative increase of the objective that is taken for rounding in float32."""
HALVINGS = 20


class Pair(NamedTuple):
    """A step, and how much the loss's gradient changed over it, penalty not included: [K, P] each."""

    step: Array
    change: Array


class Point(NamedTuple):
    """The loss at a position, penalty not included."""

    value: float
    gradient: Array
    """[K, P]."""
    curvature: Array
    """Approximate diagonal of the Hessian, [K, P], positive."""


class Minimum(NamedTuple):
    """Where a minimisation ended."""

    position: Array
    """[K, P]."""
    value: float
    """The objective there."""
    gap: float
    """Estimated distance of the objective from its optimum, relative to it; at most TOLERANCE if all went well."""
    evaluations: int


def minimise(evaluate: Callable[[Array], Point], position: Array, penalty: Array, pairs: deque[Pair]) -> Minimum:
    """Minimise loss + ½·Σ penalty·position² from `position` [K, P]; `penalty` is [P], zero where there is none.

    `pairs` holds what earlier calls learnt about the same loss, and is added to: make it with `maxlen=MEMORY`.
    The gap is half of gᵀH⁻¹g, with L-BFGS's approximation of the inverse Hessian: what a Newton step would gain.
    """
    point, value = _at(evaluate, position, penalty)
    evaluations, gap = 1, math.inf
    while evaluations < EVALUATIONS:
        gradient = point.gradient + penalty * position
        direction = -_newton_step(gradient, 1 / (point.curvature + penalty), penalty, pairs)
        slope = _dot(gradient, direction)
        gap = -slope / 2
        meaningful = max(OF_PENALTY * (value - point.value), LEAST * value)
        if 0 <= gap <= min(TOLERANCE * value, meaningful):
            break
        size, reached = 1.0, None
        for _ in range(HALVINGS if slope < 0 else 0):
            step = size * direction
            reached, reached_value = _at(evaluate, position + step, penalty)
            evaluations += 1
            if reached_value <= value + SUFFICIENT * size * slope + ROUNDING * value:
                break
            size *= _shorter(value, slope, size, reached_value)
            reached = None
        if reached is None:
            if not pairs:
                break  # not even the scaled gradient leads down: float32 sees nothing below
            pairs.clear()
            continue
        change = reached.gradient - point.gradient
        if _dot(step, change + penalty * step) > 0:
            pairs.append(Pair(step, change))
        position, point, value = position + step, reached, reached_value
    return Minimum(position, value, gap / value, evaluations)


def _at(evaluate: Callable[[Array], Point], position: Array, penalty: Array) -> tuple[Point, float]:
    point = evaluate(position)
    return point, point.value + _dot(penalty * position, position) / 2


def _newton_step(gradient: Array, inverse_diagonal: Array, penalty: Array, pairs: deque[Pair]) -> Array:
    """The gradient times the approximate inverse of the Hessian, by the two loops of L-BFGS."""
    known = [(pair.step, pair.change + penalty * pair.step) for pair in pairs]
    curvatures = [_dot_array(step, change) for step, change in known]
    shares = []
    found = gradient + 0
    for (step, change), curvature in zip(reversed(known), reversed(curvatures), strict=True):
        shares.append(_dot_array(step, found) / curvature)
        found -= shares[-1] * change
    found *= inverse_diagonal
    for (step, change), curvature, share in zip(known, curvatures, reversed(shares), strict=True):
        found += (share - _dot_array(change, found) / curvature) * step
    return found


def _shorter(value: float, slope: float, size: float, reached: float) -> float:
    """Factor for a step that went too far: to the minimum of the parabola through what is known, within reason."""
    if not math.isfinite(reached):
        return 0.1
    return min(0.5, max(0.1, -slope * size / (2 * (reached - value - slope * size))))


def _dot(a: Array, b: Array) -> float:
    return float(_dot_array(a, b))


def _dot_array(a: Array, b: Array) -> Array:
    """Inner product, left on the device."""
    return a.reshape(-1) @ b.reshape(-1)

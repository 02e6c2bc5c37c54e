"""Multinomial logistic regression with an L2 penalty along a path of strengths, in numpy or, on a GPU, in torch.

The objective is mean cross-entropy + λ/2·‖W‖²; biases carry no penalty. scikit-learn's `LogisticRegression` on n images
has the same optimum at C = 1/(λ n), or at 2/(λ n) for two classes, for which it fits one row of weights instead of two
(`scikit_learn` asks it). It is minimised by L-BFGS in float32, made fast by three things:

- Features are rotated into the eigenvectors of their covariance (of their Gram matrix where there are more features
  than images), which leaves the penalty as it is. There the Hessian of class k is close to the diagonal
  γ_k·covariance + λ, with γ_k the mean of p(1 - p), and that is the matrix L-BFGS starts from in every iteration.
- From the largest strength down, each problem starts where a straight line in log λ through the last two solutions
  points: a tenth of the iterations that starting each at zero takes, all at once or one by one.
- Curvature pairs are handed on: only their penalty part depends on the strength, and it is known exactly.

Losses and residuals are computed from the probabilities of the wrong classes, so that they keep their relative
precision where the data are separable and the loss is 1e-6.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robust_transfer.statistics.lbfgs import MEMORY, Array, Pair, Point, minimise

ROWS = 8192
"""Images scored or summed at a time, outside of fitting."""
SCORES = {"cpu": 2**18, "cuda": 2**26}
"""Scores (images × classes) computed at a time while fitting: 1 MB fits a core's cache, 256 MB keeps a GPU busy."""
NEGLIGIBLE = 1e-12
"""Where features outnumber images, directions with less than this share of the largest variance count as none."""
LEAST_CURVATURE = 1e-10
FARTHEST = 1.0
"""Solutions are extrapolated over steps in λ up to a factor of 10."""


@dataclass(frozen=True)
class Scaling:
    """Centres features, and perhaps scales them, as fitted on some images."""

    mean: Array
    """float32 [D]."""
    deviation: Array
    """float32 [D]: standard deviations, 1 for features that are constant or where nothing is scaled."""
    device: str

    def __call__(self, features: NDArray[Any]) -> Array:
        """Features [N, D] centred and scaled: float32 [N, D] on the device."""
        scaled = _namespace(self.device).asarray(np.array(features, np.float32), device=self.device)
        scaled -= self.mean
        scaled /= self.deviation
        return scaled


@dataclass(frozen=True)
class Fit:
    """The solution at one strength."""

    strength: float
    """The λ of the objective."""
    objective: float
    """Mean cross-entropy + λ/2·‖W‖², in nats."""
    gap: float
    """Estimated distance of the objective from its optimum, relative to it."""
    evaluations: int
    """How often objective and gradient were computed; of scikit-learn's, iterations."""
    weights: Array = field(repr=False)
    """float32 [K, D], of scaled features, for the K classes that have images; of scikit-learn's, float64."""
    biases: Array = field(repr=False)
    """[K], as the weights."""
    classes: NDArray[np.int64] = field(repr=False)
    """[K]: the labels they stand for, ascending."""
    scaling: Scaling = field(repr=False)

    def predict(self, scaled: Array) -> NDArray[np.int64]:
        """The most probable class of each image, int64 [N], from its features as `scaling` gives them [N, D]."""
        found = [
            _host((scaled[start : start + ROWS] @ self.weights.T + self.biases).argmax(1))
            for start in range(0, len(scaled), ROWS)
        ]
        predicted: NDArray[np.int64] = self.classes[np.concatenate(found)]
        return predicted


class Regression:
    """Training images made ready to be fitted at any strength.

    `features` are float16 or float32 [N, D], `labels` integers [N] of two classes or more; labels may leave classes
    out, which are then never predicted. With `standardise`, features are scaled to variance 1 over these images.
    Raises ValueError for a single class, and for features that are not finite.
    """

    def __init__(
        self, features: NDArray[Any], labels: NDArray[np.integer[Any]], *, standardise: bool, device: str = "cpu"
    ) -> None:
        classes, indices = np.unique(labels, return_inverse=True)
        if len(classes) < 2:
            raise ValueError(f"all {len(labels)} images to fit on have label {classes[0]}: a probe separates classes")
        self.classes, self._n, self._device = classes.astype(np.int64), len(labels), device
        self._xp = xp = _namespace(device)
        self.scaling = fit_scaling(features, standardise, device)
        coordinates, self._basis, self._spread = _rotate(xp, self.scaling(features))
        self._penalised = xp.ones_like(self._spread)
        self._penalised[-1] = 0  # the bias
        targets = xp.asarray(indices, device=device)
        rows = max(64, SCORES[device] // len(classes))
        self._chunks = [
            (coordinates[start : start + rows], targets[start : start + rows], xp.arange(rows, device=device))
            for start in range(0, len(labels), rows)
        ]

    def path(self, strengths: Sequence[float]) -> Iterator[Fit]:
        """Solutions from the largest strength to the smallest, each computed when it is asked for."""
        xp, shape = self._xp, (len(self.classes), len(self._spread))
        position = xp.zeros(shape, dtype=xp.float32, device=self._device)
        pairs: deque[Pair] = deque(maxlen=MEMORY)
        solved: deque[tuple[float, Array]] = deque(maxlen=2)
        for strength in sorted(map(float, strengths), reverse=True):  # numpy's float64 would promote arrays
            if len(solved) == 2:
                position = _extrapolate(solved, math.log(strength))
            found = minimise(self._evaluate, position, strength * self._penalised, pairs)
            position = found.position
            solved.append((math.log(strength), position))
            yield Fit(
                strength=strength,
                objective=found.value,
                gap=found.gap,
                evaluations=found.evaluations,
                weights=position[:, :-1] @ self._basis.T,
                biases=position[:, -1],
                classes=self.classes,
                scaling=self.scaling,
            )

    def _evaluate(self, position: Array) -> Point:
        """Mean cross-entropy at weights and biases [K, P], its gradient and approximate diagonal Hessian."""
        xp, classes = self._xp, len(self.classes)
        gradient, curvature, total = xp.zeros_like(position), xp.zeros_like(position[:, 0]), 0.0
        for coordinates, targets, count in self._chunks:
            own = (targets, count[: len(targets)])
            scores = position @ coordinates.T
            scores -= xp.amax(scores, 0)
            lead = scores[own]
            xp.exp(scores, out=scores)
            right = scores[own]
            scores[own] = 0
            wrong = scores.sum(0)
            total += float((xp.log1p(wrong + (right - 1)) - lead).sum(dtype=xp.float64))
            scores /= wrong + right
            scores[own] = -wrong / (wrong + right)  # now probability less one at the label, probability elsewhere
            gradient += scores @ coordinates
            xp.abs(scores, out=scores)
            curvature += (scores * (1 - scores)).sum(1)
        curvature *= classes / (classes - 1) / self._n  # exact where all classes are equally probable
        gradient /= self._n
        return Point(total / self._n, gradient, (curvature + LEAST_CURVATURE)[:, None] * self._spread)


def fit_scaling(features: NDArray[Any], standardise: bool, device: str) -> Scaling:
    """What centres features [N, D] and, with `standardise`, scales each to variance 1.

    Raises ValueError for features that are not finite.
    """
    mean = features.mean(0, dtype=np.float64)
    if not np.isfinite(mean).all():
        raise ValueError(f"feature {int(np.argmin(np.isfinite(mean)))} is not finite in every image to fit on")
    deviation = np.ones_like(mean)
    if standardise:
        squares = np.zeros_like(mean)
        for start in range(0, len(features), ROWS):
            squares += ((features[start : start + ROWS] - mean) ** 2).sum(0)
        deviation = np.sqrt(squares / len(features))
        deviation[deviation == 0] = 1
    xp = _namespace(device)
    single = [xp.asarray(array.astype(np.float32), device=device) for array in (mean, deviation)]
    return Scaling(single[0], single[1], device)


def _rotate(xp: Any, scaled: Array) -> tuple[Array, Array, Array]:
    """Coordinates of centred features [N, D] in which their covariance is diagonal.

    Returns coordinates [N, P], the last of them 1 for the bias; the orthonormal basis [D, P - 1] that they belong to;
    and their second moments [P]. P - 1 is D, or the features' rank where there are at least as many as images.
    """
    n, dimension = scaled.shape
    if n > dimension:
        spread, basis = xp.linalg.eigh(_double(xp, scaled.T @ scaled) / n)
        basis = _single(xp, basis)
        rotated = scaled @ basis
    else:
        double = _double(xp, scaled)
        spread, vectors = xp.linalg.eigh(double @ double.T / n)
        kept = spread > NEGLIGIBLE * spread[-1]
        spread, vectors = spread[kept], vectors[:, kept]
        lengths = (spread * n) ** 0.5
        rotated = _single(xp, vectors * lengths)
        basis = _single(xp, (double.T @ vectors) / lengths)
    one = xp.ones_like(scaled[:, :1])
    spread = _single(xp, spread).clip(0)
    return xp.concatenate([rotated, one], 1), basis, xp.concatenate([spread, one[0]], 0)


def _extrapolate(solved: deque[tuple[float, Array]], at: float) -> Array:
    """The position at log λ = `at` on the line through two solutions; the last one if that is far."""
    (before, older), (last, newer) = solved
    if max(last - at, before - last) > FARTHEST * math.log(10):
        return newer
    return newer + (at - last) / (last - before) * (newer - older)


def _namespace(device: str) -> Any:
    """The module of the arrays on a device: numpy, or torch where there is a GPU, which takes 3 s to import."""
    if device == "cpu":
        return np
    import torch

    return torch


def _double(xp: Any, array: Array) -> Array:
    return xp.asarray(array, dtype=xp.float64)


def _single(xp: Any, array: Array) -> Array:
    return xp.asarray(array, dtype=xp.float32)


def _host(array: Array) -> NDArray[Any]:
    return np.asarray(array.cpu() if hasattr(array, "cpu") else array)

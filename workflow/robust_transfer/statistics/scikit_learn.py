"""The same regression by scikit-learn: a second opinion on `logistic_regression`, from the library that readers trust.

Features are centred and scaled as there. scikit-learn then minimises C·Σ cross-entropy + ½·‖W‖² over n images, biases
free of penalty, in float64. Divided by C·n that is mean cross-entropy + λ/2·‖W‖² at

    C = 1/(λ n)    for three classes or more, and
    C = 2/(λ n)    for two, where it fits one row of weights v in place of two: v/2 and -v/2 score alike, and their
                   penalty λ/2·(‖v/2‖² + ‖v/2‖²) is λ/4·‖v‖².

Its `tol` bounds the largest entry of the gradient, which says little where λ is small or the classes separate. So every
strength is fitted at ever smaller `tol`, from where the fit before ended, until the objective is as close to its
optimum as ours has to be. The distance is estimated as ½·gᵀH⁻¹g with the approximate Hessian of `logistic_regression`;
on features of 800 images it was between a fifteenth of the true distance and all of it.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from robust_transfer.statistics.lbfgs import OF_PENALTY, TOLERANCE
from robust_transfer.statistics.logistic_regression import LEAST_CURVATURE, Fit, fit_scaling

TOLERANCES = tuple(10.0**-k for k in range(4, 15))
"""scikit-learn's `tol`, one after the other: from its default to what float64 can resolve."""
ITERATIONS = 10_000
"""scikit-learn's `max_iter` at each of them."""

Floats = NDArray[np.float64]


class ScikitLearn:
    """Training images made ready to be fitted at any strength; arguments and errors as of `Regression`.

    It computes on the CPU, whatever the device, and takes minutes where `Regression` takes seconds.
    """

    iterations: ClassVar[int] = ITERATIONS

    def __init__(
        self, features: NDArray[Any], labels: NDArray[np.integer[Any]], *, standardise: bool, device: str = "cpu"
    ) -> None:
        classes, indices = np.unique(labels, return_inverse=True)
        if len(classes) < 2:
            raise ValueError(f"all {len(labels)} images to fit on have label {classes[0]}: a probe separates classes")
        self.classes = classes.astype(np.int64)
        self.scaling = fit_scaling(features, standardise, "cpu")
        self._images: Floats = self.scaling(features).astype(np.float64)
        self._indices, self._wanted = indices, np.eye(len(classes))[indices]
        self._spread, self._basis = np.linalg.eigh(self._images.T @ self._images / len(labels))

    def path(self, strengths: Sequence[float]) -> Iterator[Fit]:
        """Solutions from the largest strength to the smallest, each computed when it is asked for."""
        model = LogisticRegression(solver="newton-cg", max_iter=self.iterations, warm_start=True)
        for strength in sorted(map(float, strengths), reverse=True):
            yield self._fit(model, strength)

    def _fit(self, model: LogisticRegression, strength: float) -> Fit:
        taken = 0
        for tolerance in TOLERANCES:
            model.set_params(C=inverse_strength(strength, len(self._images), len(self.classes)), tol=tolerance)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)  # the gap says it, and by how much
                warnings.filterwarnings("ignore", "Line Search failed")
                warnings.filterwarnings("ignore", "The number of unique classes is greater than 50%")
                model.fit(self._images, self._indices)
            taken += int(model.n_iter_[0])
            weights, biases = _rows(model)
            objective, penalty, gap = self._objective(weights, biases, strength)
            meaningful = OF_PENALTY / 10 * penalty / objective  # closer than ours, which is checked by it
            if gap <= min(TOLERANCE, meaningful) or model.n_iter_[0] >= self.iterations:
                break
        return Fit(strength, objective, gap, taken, weights, biases, self.classes, self.scaling)

    def _objective(self, weights: Floats, biases: Floats, strength: float) -> tuple[float, float, float]:
        """At weights [K, D] and biases [K] the objective, the penalty in it, and its relative distance from the optimum
        as estimated."""
        scores = self._images @ weights.T + biases
        others = scores - scores[np.arange(len(scores)), self._indices][:, None]
        largest = others.max(1, keepdims=True)
        odds = np.exp(others - largest)
        total = odds.sum(1, keepdims=True)
        penalty = strength / 2 * float((weights**2).sum())
        objective = float((np.log(total) + largest).mean()) + penalty
        probabilities = odds / total
        residuals = probabilities - self._wanted
        gradient = (residuals.T @ self._images / len(scores) + strength * weights) @ self._basis
        curvature = (probabilities * (1 - probabilities)).mean(0) + LEAST_CURVATURE
        hessian = curvature[:, None] * self._spread.clip(0) + strength
        decrement = (gradient**2 / hessian).sum() + (residuals.mean(0) ** 2 / curvature).sum()
        return objective, penalty, float(decrement) / 2 / objective


def inverse_strength(strength: float, images: int, classes: int) -> float:
    """scikit-learn's `C` for the λ of our objective, on so many images of so many classes."""
    return (2 if classes == 2 else 1) / (strength * images)


def _rows(model: LogisticRegression) -> tuple[Floats, Floats]:
    """Weights [K, D] and biases [K] with a row for each class, also where scikit-learn has one for two classes."""
    weights, biases = model.coef_, model.intercept_
    if len(weights) > 1:
        return weights, biases
    return np.concatenate([-weights, weights]) / 2, np.concatenate([-biases, biases]) / 2

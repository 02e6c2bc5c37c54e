"""The frozen protocol's whole grid of strengths: ours beside scikit-learn's LogisticRegression, one fit per strength.

    python benchmarks/probing.py [--images 10000 --features 512 --classes 100] [--device cuda] [--json FILE]

Features like a network's (correlated, of unequal variance), standardised, the same for both. scikit-learn gets them in
float64 and minimises with L-BFGS; `--tolerance` is its `tol`, small enough that its objectives are within 1e-4 of the
optimum as ours are. That is checked for all strengths against the lower of both, and for `--exact` strengths spread
over the grid against scikit-learn's optimum at a hundredth of the tolerance. One run each, in processes of their own:
theirs takes minutes.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import checkout  # noqa: F401  # before robust_transfer
import numpy as np
from numpy.typing import NDArray
from robust_transfer.configuration.transfer import STRENGTHS

Floats = NDArray[np.float64]


class Solution(NamedTuple):
    """Time and objectives of one solver."""

    seconds: float
    objectives: dict[float, float]
    """By strength, in float64: mean cross-entropy + λ/2·‖W‖²."""


def main() -> None:
    """Measure and print."""
    arguments = _arguments()
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[variable] = str(arguments.threads)  # numpy reads them as it is imported, in the processes below
    from side_by_side import describe, hardware

    about = hardware(arguments.device, arguments.threads)
    print(describe(about))
    size = (arguments.images, arguments.features, arguments.classes)
    strengths = sorted(np.array(STRENGTHS)[np.linspace(0, len(STRENGTHS) - 1, arguments.strengths).round().astype(int)])
    print(f"{size[0]:,} images, {size[1]} features, {size[2]} classes, {len(strengths)} strengths")
    mine = _alone(_ours, size, strengths, arguments.device)
    print(f"  ours           {mine.seconds:9.2f} s")
    theirs = _alone(_scikit_learn, size, strengths, arguments.tolerance)
    print(f"  scikit-learn   {theirs.seconds:9.2f} s at tol {arguments.tolerance:g}")
    print(f"  ratio          {theirs.seconds / mine.seconds:9.1f}")
    checked = [strengths[i] for i in np.linspace(0, len(strengths) - 1, arguments.exact).round().astype(int)]
    exact = _alone(_scikit_learn, size, checked, arguments.tolerance / 100) if arguments.exact else Solution(0.0, {})
    excess = {}
    for name, solution in (("ours", mine), ("scikit-learn", theirs)):
        least = {s: min(f.objectives.get(s, np.inf) for f in (mine, theirs, exact)) for s in strengths}
        excess[name] = max(solution.objectives[s] / least[s] - 1 for s in strengths)
        print(f"  {name:14} at most {excess[name]:.1e} above the lowest objective found, relative")
    if arguments.json:
        content = {"about": about, "size": size, "seconds": {"ours": mine.seconds, "scikit-learn": theirs.seconds}}
        arguments.json.write_text(json.dumps(content | {"excess": excess, "exact": checked}, indent=1) + "\n")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--features", type=int, default=512)
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument("--strengths", type=int, default=len(STRENGTHS), help="of the default grid")
    parser.add_argument("--tolerance", type=float, default=1e-8, help="of scikit-learn")
    parser.add_argument("--exact", type=int, default=3, help="strengths at which the optimum itself is computed")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="of ours")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="of the CPU")
    parser.add_argument("--json", type=Path, help="write the outcome here")
    return parser.parse_args()


def features(images: int, dimension: int, classes: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Features of classes that overlap: float32 [N, D], standardised, and labels [N]."""
    random = np.random.default_rng(0)
    labels = np.arange(images) % classes
    mixing = random.normal(size=(dimension, dimension)) * np.exp(-np.arange(dimension) / (dimension / 5))[:, None]
    centres = random.normal(size=(classes, dimension)) * 0.5
    activations = np.maximum((centres[labels] + random.normal(size=(images, dimension))) @ mixing + 0.5, 0)
    return ((activations - activations.mean(0)) / activations.std(0)).astype(np.float32), labels


def _alone(solver: Any, *arguments: Any) -> Solution:
    """Run a solver in a process of its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        solution: Solution = pool.apply(solver, arguments)
        return solution


def _ours(size: tuple[int, int, int], strengths: Sequence[float], device: str) -> Solution:
    from robust_transfer.statistics.logistic_regression import Regression

    x, labels = features(*size)
    if device == "cuda":  # starting CUDA is not measured
        import torch

        torch.zeros(1, device=device)
    start = time.perf_counter()
    fits = [
        (fit, _host(fit.weights), _host(fit.biases))
        for fit in Regression(x, labels, standardise=False, device=device).path(strengths)
    ]
    seconds = time.perf_counter() - start
    centred = x - x.mean(0, dtype=np.float64)
    return Solution(seconds, {fit.strength: objective(centred, labels, fit.strength, w, b) for fit, w, b in fits})


def _scikit_learn(size: tuple[int, int, int], strengths: Sequence[float], tolerance: float) -> Solution:
    from sklearn.linear_model import LogisticRegression

    x, labels = features(*size)
    x = x.astype(np.float64)
    models, start = {}, time.perf_counter()
    for strength in strengths:
        model = LogisticRegression(C=1 / (strength * len(labels)), tol=tolerance, max_iter=100_000)
        models[float(strength)] = model.fit(x, labels)
    seconds = time.perf_counter() - start
    return Solution(seconds, {s: objective(x, labels, s, m.coef_, m.intercept_) for s, m in models.items()})


def objective(
    x: NDArray[np.floating[Any]], labels: NDArray[np.int64], strength: float, weights: Floats, biases: Floats
) -> float:
    """Mean cross-entropy + λ/2·‖W‖², in float64."""
    total, weights = 0.0, np.asarray(weights, np.float64)
    for start in range(0, len(x), 4096):
        scores = np.asarray(x[start : start + 4096], np.float64) @ weights.T + biases
        own = scores[np.arange(len(scores)), labels[start : start + 4096]]
        largest = scores.max(1)
        total += float((np.log(np.exp(scores - largest[:, None]).sum(1)) + largest - own).sum())
    return total / len(x) + strength / 2 * float((weights**2).sum())


def _host(array: Any) -> Floats:
    return np.asarray(array.cpu() if hasattr(array, "cpu") else array, np.float64)


if __name__ == "__main__":
    main()

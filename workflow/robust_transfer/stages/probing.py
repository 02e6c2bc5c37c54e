"""Probing: the frozen protocol. A linear classifier on stored features, its L2 strength chosen on validation images.

    python -m robust_transfer probing store/probing/<entry>

Reads its input `features`. Every strength is fitted, the most accurate on validation images (the larger of equals)
fitted again to training and validation images, and tested once; `training/fixed_features.py` says which images those
are, and what `selections: [test]` does. With `solver: scikit-learn` that library fits, to the same objective.

Writes `metrics.json` (validation and test accuracies), `predictions.parquet` (of every validation and test image) and
`strengths.csv` (the whole grid). On the CPU it imports numpy alone, not torch: 45 strengths on 1,500 images of 64
features and 10 classes take 0.05 s of one core of an AMD EPYC; 75,750 images of 2,048 features take 2.5 GB.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from robust_transfer.configuration.transfer import ProbingSettings, Selection
from robust_transfer.statistics.lbfgs import TOLERANCE
from robust_transfer.statistics.logistic_regression import Fit, Regression
from robust_transfer.statistics.metrics import METRICS
from robust_transfer.store.entry import Entry
from robust_transfer.store.features import Labels
from robust_transfer.training.fixed_features import (
    Candidate,
    Choice,
    Examples,
    Outcome,
    best_of,
    open_parts,
    outcomes,
    write_outcomes,
)

if TYPE_CHECKING:
    from robust_transfer.statistics.scikit_learn import ScikitLearn

LAUNCHES, LAUNCH_SECONDS = 370, 8e-6
"""Kernels that an evaluation of the objective starts on a GPU, of about 230 evaluations that an emulated one counted
83,768 in; and the time that starting one takes, which is estimated: no card was at hand to measure it."""
CORE_FLOPS = 1e10
"""FLOP/s of a core: 228 evaluations on 1,500 images of 64 features and 10 classes take 0.09 s of an Intel Xeon."""

log = logging.getLogger("robust_transfer")


def run(entry: Entry, *, threads: int, device: str) -> None:
    """Fit, choose, fit again and test the probe that `entry` describes."""
    settings = ProbingSettings.model_validate(entry.settings)
    stored = entry.input("features")
    n_classes = len(stored.facts()["classes"])
    parts = open_parts(stored, settings)
    device = solver_device(device, parts.train.features.shape, n_classes, threads)
    refits: list[Fit] = []

    def choose_on(train: Examples, held: Examples) -> Choice:
        return choose(train, held, n_classes, settings, device)

    def predict(train: Examples, strength: float, test: Examples) -> Labels:
        fit = next(regression(train, settings, device).path([strength]))
        refits.append(fit)
        return fit.predict(fit.scaling(test.features))

    with entry.writing() as draft:
        start = time.monotonic()
        found = outcomes(parts, settings.selections, choose=choose_on, predict=predict)
        seconds = time.monotonic() - start
        write_outcomes(
            draft, found, n_classes=n_classes, grid="strengths.csv",
            hyperparameters=lambda choice: {"lambda": choice.value, "at_edge": at_edge(choice, settings)},
        )  # fmt: skip
        draft.facts = {
            "lambda": {selection: outcome.choice.value for selection, outcome in found.items()},
            "counts": parts.counts,
        }
        rows = [row for outcome in found.values() for row in outcome.choice.grid]
        draft.timing.update(
            images=len(parts.train.labels), strengths=len(rows), seconds_fitting=round(seconds, 3),
            evaluations=sum(row["evaluations"] for row in rows), device=device, threads=threads,
        )  # fmt: skip
    for selection, outcome in found.items():
        _report(settings, selection, outcome, outcome.tested(n_classes, settings.metric), seconds)
    for fit in refits:
        if fit.gap > TOLERANCE:
            log.warning("the fit to all training images stopped before it had converged, at λ %g", fit.strength)


def solver_device(device: str, shape: tuple[int, ...], classes: int, threads: int) -> str:
    """Where to fit features of shape [N, D]: on a GPU only if starting its kernels takes less time than the CPU needs.

    An evaluation is four operations for each image, feature and class. That puts the border at 7 million of their
    product for each thread, such as 10,000 images of 74 features and 10 classes; not measured on a card.
    """
    if device == "cpu":
        return device
    images, dimension = shape
    on_cpu = 4 * images * dimension * classes / (CORE_FLOPS * threads)
    if on_cpu >= LAUNCHES * LAUNCH_SECONDS:
        return device
    log.info("fitted on the CPU: %d images of %d features are too few for a GPU to be faster", images, dimension)
    return "cpu"


def regression(train: Examples, settings: ProbingSettings, device: str) -> Regression | ScikitLearn:
    """The regression on these images, by the solver that the settings name."""
    if settings.solver == "scikit-learn":
        from robust_transfer.statistics.scikit_learn import ScikitLearn  # 3 s of CPU

        return ScikitLearn(train.features, train.labels, standardise=settings.standardise)
    return Regression(train.features, train.labels, standardise=settings.standardise, device=device)


def choose(train: Examples, held: Examples, n_classes: int, settings: ProbingSettings, device: str) -> Choice:
    """Fit every strength to the training images and take the most accurate on the others, the larger of equals."""
    fitted = regression(train, settings, device)

    def candidates() -> Iterator[Candidate]:
        scaled: Any = fitted.scaling(held.features)
        for fit in fitted.path(settings.strengths):
            yield Candidate(fit.strength, fit.predict(scaled), {"evaluations": fit.evaluations, "gap": fit.gap})

    return best_of(candidates(), held, name="lambda", n_classes=n_classes, metric=settings.metric)


def at_edge(choice: Choice, settings: ProbingSettings) -> bool:
    """Is the best strength the smallest or largest of several?"""
    return len(settings.strengths) > 1 and choice.value in (min(settings.strengths), max(settings.strengths))


def _report(
    settings: ProbingSettings, selection: Selection, outcome: Outcome, test_accuracy: float, seconds: float
) -> None:
    choice = outcome.choice
    if at_edge(choice, settings):
        end = "smallest" if choice.value == min(settings.strengths) else "largest"
        log.warning("the best λ, %g, is the %s of the grid: widen probing.strengths", choice.value, end)
    loose = [row["lambda"] for row in choice.grid if row["gap"] > TOLERANCE]
    if loose:
        log.warning("%d of the fits stopped before they had converged, at λ from %g up", len(loose), min(loose))
    log.info(
        "probe: λ %g of %d, chosen on %s at %.1f %%, test %.1f %% (%s), %.1f s",
        choice.value, len(settings.strengths), selection, choice.accuracy, test_accuracy, METRICS[settings.metric],
        seconds,
    )  # fmt: skip

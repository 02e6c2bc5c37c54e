"""How often intervals hold the truth, and how often a star is false, in simulated experiments whose truth is known.

    python benchmarks/coverage.py --experiments 400

Networks share the difficulty of images, so that accuracies are correlated as real ones are: a network is right on an
image if a normal score, 70 % of whose variance is the image's, lies below its threshold. Seeds of one network differ
by a spread in percentage points. All networks are equally good in truth, so every star is false; with one seed a star
speaks of these weights, and the spread is 0. One line per case: coverage of the chosen accuracy and of its difference
to the standard network's, and the share of false stars; for choices on test images, of the estimate on images that
the choice did not see.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import checkout  # noqa: F401  # before robust_transfer
import numpy as np
from robust_transfer.statistics.candidates import Candidate, TransferRun
from robust_transfer.statistics.predictions import Predictions
from robust_transfer.statistics.selection import Bootstrap, Interval
from scipy.stats import norm

IMAGES, VALIDATION, CLASSES = 1000, 250, 10
SHARED = 0.7
"""Share of the variance of scores that is the image's and not the network's."""


@dataclass(frozen=True)
class Case:
    """What is simulated."""

    robust: int
    standard: int
    seeds: int
    spread: float
    """Standard deviation between seeds, in percentage points."""
    accuracy: float
    """Share of images that every network is expected to classify right."""
    selection: str = "validation"


CASES = (
    *(Case(1, 1, 1, 0, accuracy) for accuracy in (0.5, 0.9, 0.999)),
    Case(5, 1, 1, 0, 0.8),
    Case(20, 4, 1, 0, 0.8),
    *(Case(robust, standard, 3, spread, 0.7) for spread in (3, 0.5) for robust, standard in ((1, 1), (5, 1), (20, 4))),
    *(Case(robust, standard, 1, 0, 0.8, "test") for robust, standard in ((5, 1), (20, 4))),
    Case(20, 4, 3, 3, 0.7, "test"),
)


@dataclass
class Counts:
    """What was seen in so many experiments."""

    accuracy: int = 0
    difference: int = 0
    stars: int = 0


def simulated(case: Case, random: np.random.Generator) -> list[Candidate]:
    """The robust networks, then the standard ones, each with its runs on the same images."""
    middle = float(norm.ppf(case.accuracy))
    networks = case.robust + case.standard
    thresholds = middle + random.normal(0, case.spread / 100 / norm.pdf(middle), (networks, case.seeds))

    def right(images: int) -> np.ndarray:
        difficulty = random.normal(size=images) * SHARED**0.5
        own = random.normal(size=(networks, case.seeds, images)) * (1 - SHARED) ** 0.5
        return np.asarray((difficulty + own) < thresholds[:, :, None], dtype=np.float64)

    by_split = {"test": right(IMAGES), "validation": right(VALIDATION)}

    def run(network: int, seed: int) -> TransferRun:
        splits = {
            split: Predictions(
                np.arange(correct.shape[-1]), np.arange(correct.shape[-1]) % CLASSES, correct[network, seed]
            )
            for split, correct in by_split.items()
        }
        return TransferRun(f"probing/{network}_{seed}", f"pretraining/{network}_{seed}", seed, 0, splits)

    return [
        Candidate(
            "network",
            "l2" if network < case.robust else "none",
            str(network + 1) if network < case.robust else "0",
            tuple(run(network, seed) for seed in range(case.seeds)),
        )
        for network in range(networks)
    ]


def counted(case: Case, experiments: int, resamples: int, seed: int = 0) -> Counts:
    """Run a case so often."""
    random, counts = np.random.default_rng([seed, *map(ord, repr(case))]), Counts()
    middle = float(norm.ppf(case.accuracy))
    spread = case.spread / 100 / float(norm.pdf(middle))
    truth = 100 * float(norm.cdf(middle / (1 + spread**2) ** 0.5))
    for _ in range(experiments):
        bootstrap = Bootstrap(simulated(case, random), "top1", resamples, case.selection)
        best = bootstrap.pick(range(case.robust))
        standard = bootstrap.pick(range(case.robust, case.robust + case.standard))
        accuracy: Interval | None = bootstrap.accuracy(best)
        difference: Interval | None = bootstrap.difference(best, standard)
        if case.selection == "test":
            accuracy, difference = bootstrap.out_of_bag(best), bootstrap.out_of_bag(best, standard)
        assert accuracy is not None
        assert difference is not None
        counts.accuracy += accuracy.low <= truth <= accuracy.high
        counts.difference += difference.low <= 0 <= difference.high
        counts.stars += difference.low > 0
    return counts


def main() -> None:
    """Print one line per case."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--experiments", type=int, default=400, help="simulated experiments per case (default: 400)")
    parser.add_argument("--resamples", type=int, default=200, help="bootstrap resamples of each (default: 200)")
    options = parser.parse_args()
    columns = ["networks", "seeds", "spread", "accuracy", "chosen on", "accuracy %", "difference %", "false stars %"]
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    for case in CASES:
        counts = counted(case, options.experiments, options.resamples)
        shares = [f"{100 * n / options.experiments:.1f}" for n in (counts.accuracy, counts.difference, counts.stars)]
        networks = f"{case.robust} robust, {case.standard} standard"
        described = [networks, f"{case.seeds}", f"{case.spread:g}", f"{case.accuracy:g}", case.selection]
        print(f"| {' | '.join(described + shares)} |", flush=True)


if __name__ == "__main__":
    main()

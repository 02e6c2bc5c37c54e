"""The frozen protocol by both of its solvers, and nearest neighbours, on features of real images.

    python benchmarks/solvers.py store [--strengths 13 --smallest 1e-5] [--threads 1] [--json FILE]
    python benchmarks/solvers.py store/features/<entry> store/features/<entry>

Of every features entry, as the stages do it: each strength is fitted to the training images less the validation ones,
by `probing.solver: lbfgs` (ours) and by `scikit-learn`; validation images choose one, which is fitted again to both and
tested. Beside the test accuracy that each solver ends with, the largest differences over all strengths: of accuracies
on test images, in points, and of objectives, relative to scikit-learn's. Seconds are the processor's, for the strengths
and the refit. The last column is the knn protocol's, with the number of neighbours chosen likewise. Accuracies are
top-1. `--smallest` cuts the default grid, which goes down to 1e-8: there scikit-learn takes minutes for a strength.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import checkout  # noqa: F401  # before robust_transfer

if TYPE_CHECKING:
    from robust_transfer.configuration.transfer import ProbingSettings


@dataclass(frozen=True)
class Probe:
    """What one solver comes to."""

    strength: float
    """Chosen on validation images."""
    accuracy: float
    """Of the refit, on test images, in percent."""
    seconds: float
    """Of the processor."""
    accuracies: list[float]
    """On test images by strength, the largest first, in percent."""
    objectives: list[float]
    gaps: list[float]


@dataclass(frozen=True)
class Compared:
    """One features entry."""

    name: str
    train: int
    """Training images, validation images among them."""
    test: int
    classes: int
    dimension: int
    ours: Probe
    theirs: Probe
    neighbours: int
    """Chosen on validation images."""
    neighbours_accuracy: float

    @property
    def accuracy_difference(self) -> float:
        """Largest over the strengths, in points."""
        return max(abs(a - b) for a, b in zip(self.ours.accuracies, self.theirs.accuracies, strict=True))

    @property
    def objective_difference(self) -> float:
        """Largest over the strengths, relative."""
        return max(abs(a / b - 1) for a, b in zip(self.ours.objectives, self.theirs.objectives, strict=True))


def main() -> None:
    """Measure and print a table."""
    arguments = _arguments()
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[variable] = str(arguments.threads)  # before numpy is imported
    from side_by_side import describe, hardware

    about = hardware("cpu", arguments.threads)
    print(describe(about))
    print(
        "| features of | train / test | classes | dimension | λ, ours / scikit-learn | test accuracy, likewise | "
        "largest difference of accuracies | of objectives | seconds, ours / scikit-learn | neighbours, test accuracy |"
    )
    print("|" + "---|" * 10)
    found = []
    for path in entries(arguments.features):
        found.append(compare(path, grid(arguments.strengths, arguments.smallest)))
        print(row(found[-1]), flush=True)
    if arguments.json:
        content = {"about": about, "entries": [asdict(one) for one in found]}
        arguments.json.write_text(json.dumps(content, indent=1) + "\n")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("features", type=Path, nargs="+", help="entries of the stage features, or stores")
    parser.add_argument("--strengths", type=int, default=13, help="how many of the default grid, spread over it")
    parser.add_argument("--smallest", type=float, default=1e-5, help="leave out strengths below this one")
    parser.add_argument("--threads", type=int, default=1, help="of the CPU")
    parser.add_argument("--json", type=Path, help="write the outcome here, with every strength's accuracies")
    return parser.parse_args()


def entries(paths: Sequence[Path]) -> list[Path]:
    """These features entries, and all of the stores among the paths."""
    from robust_transfer.store.entry import ENTRY, finished

    found = [path for one in paths for path in ([one] if (one / ENTRY).exists() else sorted(one.glob("features/*")))]
    return [path for path in found if finished(path)]


def grid(number: int, smallest: float) -> tuple[float, ...]:
    """So many of the default strengths, evenly spread over those from `smallest` up."""
    import numpy as np
    from robust_transfer.configuration.transfer import STRENGTHS

    above = [strength for strength in STRENGTHS if strength >= smallest]
    return tuple(above[i] for i in np.unique(np.linspace(0, len(above) - 1, number).round().astype(int)))


def compare(path: Path, strengths: tuple[float, ...]) -> Compared:
    """Both solvers, and nearest neighbours, on one features entry."""
    from robust_transfer.configuration.transfer import KnnSettings, ProbingSettings
    from robust_transfer.stages import knn
    from robust_transfer.statistics.metrics import top1
    from robust_transfer.store.entry import open_entry
    from robust_transfer.training.fixed_features import open_parts, together

    stored, settings = open_entry(path), KnnSettings()
    classes = len(stored.facts()["classes"])
    parts = open_parts(stored, settings)
    both = together(parts.train, parts.validation)
    k = int(knn.choose(parts.train, parts.validation, classes, settings).value)
    voted = next(knn.predictions(both, parts.test, [k], settings)).predictions
    ours = probe(path, ProbingSettings(strengths=strengths, solver="lbfgs"))
    theirs = probe(path, ProbingSettings(strengths=strengths, solver="scikit-learn"))
    return Compared(
        path.name.rpartition("-")[0], len(both.labels), len(parts.test.labels), classes, both.features.shape[1],
        ours, theirs, k, top1(parts.test.labels, voted),
    )  # fmt: skip


def probe(path: Path, settings: ProbingSettings) -> Probe:
    """The frozen protocol by the solver of the settings."""
    from robust_transfer.stages.probing import regression
    from robust_transfer.statistics.metrics import top1
    from robust_transfer.store.entry import open_entry
    from robust_transfer.training.fixed_features import open_parts, together

    train, validation, test = open_parts(open_entry(path), settings)
    if settings.solver == "scikit-learn":
        import robust_transfer.statistics.scikit_learn  # noqa: F401  # its import is not what is measured
    start = time.process_time()
    fits = list(regression(train, settings, "cpu").path(settings.strengths))
    seconds = time.process_time() - start
    chosen = max(fits, key=lambda fit: top1(validation.labels, fit.predict(fit.scaling(validation.features))))
    start = time.process_time()
    refit = next(regression(together(train, validation), settings, "cpu").path([chosen.strength]))
    seconds += time.process_time() - start
    return Probe(
        chosen.strength,
        top1(test.labels, refit.predict(refit.scaling(test.features))),
        seconds,
        [top1(test.labels, fit.predict(fit.scaling(test.features))) for fit in fits],
        [fit.objective for fit in fits],
        [fit.gap for fit in fits],
    )


def row(one: Compared) -> str:
    """A line of the table."""
    cells = (
        one.name,
        f"{one.train:,} / {one.test:,}",
        f"{one.classes}",
        f"{one.dimension}",
        f"{one.ours.strength:g} / {one.theirs.strength:g}",
        f"{one.ours.accuracy:.2f} / {one.theirs.accuracy:.2f} %",
        f"{one.accuracy_difference:.2f}",
        f"{one.objective_difference:.0e}",
        f"{one.ours.seconds:.2f} / {one.theirs.seconds:.1f}",
        f"{one.neighbours}: {one.neighbours_accuracy:.2f} %",
    )
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()

"""Compare two finished transfers on the images that both were tested on.

    robust-transfer compare 'probing resnet8_w16_eps0_seed0_on_coarse' 'probing resnet8_w16_l2_eps0.4_seed0_on_coarse'

Prints both accuracies and their paired difference with 95 % bootstrap intervals over images. Nothing is run again.
"""

from __future__ import annotations

from pathlib import Path

from robust_transfer.statistics.candidates import Candidate, SelectionError, TransferRun
from robust_transfer.statistics.metrics import METRICS
from robust_transfer.statistics.selection import Bootstrap, Interval
from robust_transfer.store.entry import open_entry
from robust_transfer.store.finished import entry_name
from robust_transfer.store.predictions import read_predictions


def compare(first: Path, second: Path, *, selection: str = "validation", resamples: int = 1000) -> str:
    """The comparison of two entries that have `predictions.parquet`, as text.

    `selection` is where the hyperparameters behind both were chosen. Raises StoreError for an entry that is not there
    or not finished, SelectionError if they have no such test predictions, or of other images.
    """
    runs = []
    for path in (first, second):
        splits = read_predictions(open_entry(path), selection)
        if "test" not in splits:
            raise SelectionError(f"{path}: no test predictions with hyperparameters chosen on {selection}")
        runs.append(TransferRun(str(path), path.name, 0, None, {"test": splits["test"]}))
    lines = [entry_name(path) for path in (first, second)]
    lines = [f"{name} {line}" for name, line in zip("AB", lines, strict=True)]
    images = len(runs[0].splits["test"].index)
    lines.append(
        f"test accuracy on {images} images in %, hyperparameters chosen on {selection}, 95 % intervals over images"
    )
    for metric, label in METRICS.items():
        candidates = [Candidate("A", "", "", (runs[0],)), Candidate("B", "", "", (runs[1],))]
        bootstrap = Bootstrap(candidates, metric, resamples, "test")
        a, b = bootstrap.pick([0]), bootstrap.pick([1])
        cells = [_cell(bootstrap.accuracy(one)) for one in (a, b)]
        lines.append(f"{label:16} A {cells[0]}   B {cells[1]}   A - B {_cell(bootstrap.difference(a, b), sign='+')}")
    return "\n".join(lines)


def _cell(measured: Interval, sign: str = "") -> str:
    value, low, high = (round(end, 1) + 0.0 for end in (measured.value, measured.low, measured.high))  # no -0.0
    return f"{value:{sign}.1f} [{low:{sign}.1f}, {high:{sign}.1f}]"

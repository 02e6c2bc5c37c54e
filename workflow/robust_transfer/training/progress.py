"""What a training logs while it runs, and records of each epoch: loss, accuracies, time and memory."""

from __future__ import annotations

import csv
import logging
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from robust_transfer.quantities import duration

log = logging.getLogger("robust_transfer")

LOG_EVERY = 10.0
"""Seconds between log lines within an epoch: often enough to see progress, and no long log."""


@dataclass(frozen=True)
class Epoch:
    """Results and cost of one epoch. Accuracies are in percent."""

    epoch: int
    """From 1."""
    side: int
    """Of the images, in pixels."""
    loss: float
    """Mean over the training batches, as perturbed in training."""
    train_accuracy: float
    """On the training batches, as perturbed in training, in train mode."""
    clean_accuracy: float | None
    """On the check's images; None where there was no check."""
    robust_accuracy: float | None
    """On the check's images under its attack; None where there was none."""
    learning_rate: float
    """At the epoch's last step."""
    images: int
    """Seen in the epoch."""
    seconds: float
    waited: float
    """Seconds, of these, spent waiting for images."""
    peak_memory_mb: float

    @property
    def images_per_second(self) -> float:
        """Throughput, waiting included."""
        return round(self.images / max(self.seconds, 1e-9), 1)


# Columns of `epochs.csv`, which is reproducible and so in the card; the cost varies and is in `timing.json`.
RESULT = ("epoch", "side", "loss", "train_accuracy", "clean_accuracy", "robust_accuracy", "learning_rate")
COST = ("epoch", "seconds", "images_per_second", "peak_memory_mb")


def write_epochs(path: Path, epochs: Sequence[Epoch]) -> None:
    """Write one row per epoch as CSV with the columns RESULT; accuracies that were not measured are empty."""
    with open(path, "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(RESULT)
        writer.writerows([getattr(epoch, name) for name in RESULT] for epoch in epochs)


def cost(epochs: Sequence[Epoch], loader_rate: float | None) -> dict[str, Any]:
    """Content of `timing.json`: throughput of the training, of its loader and of its network, and the cost by epoch.

    An image counts once per epoch; of a training that diverged, in finished epochs. `loader_rate` is in images per
    second, None where images are resident.
    """
    images, seconds = sum(epoch.images for epoch in epochs), sum(epoch.seconds for epoch in epochs)
    working = seconds - sum(epoch.waited for epoch in epochs)
    return {
        "images": images,
        "images_per_second": round(images / max(seconds, 1e-9), 1),
        "loader_images_per_second": loader_rate and round(loader_rate, 1),
        "network_images_per_second": round(images / max(working, 1e-9), 1),
        "epochs": [{name: getattr(epoch, name) for name in COST} for epoch in epochs],
    }


class Progress:
    """Counts images and seconds, writes log lines, and collects one row per epoch."""

    def __init__(self, epochs: int, images_per_epoch: int, *, logs: bool = True) -> None:
        self._epochs, self._images, self._logs = epochs, images_per_epoch, logs
        self.rows: list[Epoch] = []
        self._resumed = (0, 0.0, 0.0)  # images, seconds and waiting of an epoch begun by a process before this one
        self._seen, self._spent, self._waited = self._resumed
        self._done_before = 0  # images seen by processes before this one
        self._begun = self._last_logged = time.monotonic()

    def as_json(self, waited: float) -> dict[str, Any]:
        """Content for a state: finished rows, and the counts of the current epoch."""
        return {
            "rows": [asdict(row) for row in self.rows],
            "seen": self._seen,
            "seconds": self._spent + time.monotonic() - self._start,
            "waited": self._waited + waited - self._waited_at_start,
        }

    def restore(self, kept: dict[str, Any]) -> None:
        """Continue from the content of a state."""
        self.rows = [Epoch(**row) for row in kept["rows"]]
        self._resumed = (kept["seen"], kept["seconds"], kept["waited"])
        self._done_before = len(self.rows) * self._images + kept["seen"]

    def start_epoch(self, epoch: int, waited: float) -> None:
        """Begin an epoch, counted from 0, or continue it after an interruption; `waited` is the loader's."""
        self._epoch = epoch
        self._seen, self._spent, self._waited = self._resumed
        self._resumed = (0, 0.0, 0.0)
        self._waited_at_start = waited
        self._at_start = self._seen
        self._start = self._last_logged = time.monotonic()

    def due(self, images: int) -> bool:
        """Count a batch of that many images; whether a log line is due."""
        self._seen += images
        return time.monotonic() - self._last_logged >= LOG_EVERY and self._seen < self._images

    def log(self, loss: float, correct: float, extra: str = "") -> None:
        """Log one line; `loss` and `correct` are sums over the epoch so far."""
        now = time.monotonic()
        self._last_logged = now
        if not self._logs:
            return
        done = self._epoch * self._images + self._seen
        left = (now - self._begun) / max(1, done - self._done_before) * (self._epochs * self._images - done)
        of_epoch = f" ({100 * self._seen // self._images} %)" if self._seen < self._images else ""
        log.info(
            "epoch %d/%d%s  loss %.3f  accuracy %.1f %%%s  %.0f images/s  %s left",
            self._epoch + 1, self._epochs, of_epoch, loss / self._seen, 100 * correct / self._seen, extra,
            (self._seen - self._at_start) / max(now - self._start, 1e-9), duration(left),
        )  # fmt: skip

    def end_epoch(
        self,
        loss: float,
        correct: float,
        *,
        side: int,
        rate: float,
        waited: float,
        memory: float,
        clean: float | None,
        robust: float | None,
        loader_rate: float | None = None,
    ) -> None:
        """Log the epoch, and add its row.

        Args:
            loss: Sum over the epoch's images.
            correct: Number of images that were classified correctly.
            side: Side of the images, pixels.
            rate: Learning rate of the last step.
            waited: Seconds that the loader has been waited for, since it was opened.
            memory: Peak memory, MiB.
            clean: Accuracy of the check, percent; None without one.
            robust: Robust accuracy of the check, percent; None without one.
            loader_rate: As in `cost`.
        """
        checked = "".join(
            f"  {name} {value:.1f} %" for name, value in (("clean", clean), ("robust", robust)) if value is not None
        )
        self.log(loss, correct, checked)
        row = Epoch(
            epoch=self._epoch + 1,
            side=side,
            loss=round(loss / self._seen, 6),
            train_accuracy=round(100 * correct / self._seen, 4),
            clean_accuracy=clean,
            robust_accuracy=robust,
            learning_rate=rate,
            images=self._seen,
            seconds=round(self._spent + time.monotonic() - self._start, 3),
            waited=round(self._waited + waited - self._waited_at_start, 3),
            peak_memory_mb=memory,
        )
        self.rows.append(row)
        if self._logs and loader_rate:
            network_rate = row.images / max(row.seconds - row.waited, 1e-9)
            slower = "loader" if loader_rate < network_rate else "network"
            log.info(
                "the loader reads %.0f images/s, the network takes %.0f: the %s is the bottleneck",
                *(loader_rate, network_rate, slower),
            )

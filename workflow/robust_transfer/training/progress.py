"""What a training tells while it runs and afterwards: live lines, one row per epoch, what it cost."""

from __future__ import annotations

import csv
import logging
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

log = logging.getLogger("robust_transfer")

LOG_EVERY = 10.0
"""Seconds between the live lines within an epoch."""


@dataclass(frozen=True)
class Epoch:
    """What an epoch came to. Accuracies are in percent."""

    epoch: int
    """From 1."""
    side: int
    """Of the images, in pixels."""
    loss: float
    """Mean over the training batches, perturbed if they were."""
    train_accuracy: float
    """On the training batches, perturbed if they were, in train mode."""
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
    """Seconds of them spent waiting for images."""
    peak_memory_mb: float

    @property
    def images_per_second(self) -> float:
        """Images over seconds."""
        return round(self.images / max(self.seconds, 1e-9), 1)


# What `epochs.csv` has of it: the same settings give the same file, and so the same card. Its cost is in `timing.json`.
RESULT = ("epoch", "side", "loss", "train_accuracy", "clean_accuracy", "robust_accuracy", "learning_rate")
COST = ("epoch", "seconds", "images_per_second", "peak_memory_mb")


def write_epochs(path: Path, epochs: Sequence[Epoch]) -> None:
    """Write what the epochs came to as CSV with the header RESULT; what was not checked is empty."""
    with open(path, "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(RESULT)
        writer.writerows([getattr(epoch, name) for name in RESULT] for epoch in epochs)


def cost(epochs: Sequence[Epoch], loader_rate: float | None) -> dict[str, Any]:
    """What `timing.json` says of a training: images, each counted every time it was seen, and by epoch what it took.

    `loader_rate` is how many images per second the loader can deliver, None where images are resident.
    """
    images, seconds = sum(epoch.images for epoch in epochs), sum(epoch.seconds for epoch in epochs)
    working = seconds - sum(epoch.waited for epoch in epochs)
    return {
        "images": images,
        "images_per_second": round(images / seconds, 1),
        "loader_images_per_second": loader_rate and round(loader_rate, 1),
        "network_images_per_second": round(images / max(working, 1e-9), 1),
        "epochs": [{name: getattr(epoch, name) for name in COST} for epoch in epochs],
    }


class Progress:
    """Counts images and time, keeps the rows, and speaks."""

    def __init__(self, epochs: int, images_an_epoch: int, *, logs: bool = True) -> None:
        self._epochs, self._images, self._logs = epochs, images_an_epoch, logs
        self.rows: list[Epoch] = []
        self._resumed = (0, 0.0, 0.0)  # images, seconds and waiting of an epoch begun by a process before this one
        self._seen, self._spent, self._waited = self._resumed
        self._done_before = 0  # images seen by processes before this one
        self._begun = self._last_logged = time.monotonic()

    def as_json(self, waited: float) -> dict[str, Any]:
        """What a state keeps: the rows, and what the epoch under way has seen and cost."""
        return {
            "rows": [asdict(row) for row in self.rows],
            "seen": self._seen,
            "seconds": self._spent + time.monotonic() - self._start,
            "waited": self._waited + waited - self._waited_at_start,
        }

    def restore(self, kept: dict[str, Any]) -> None:
        """Go on from what a state kept."""
        self.rows = [Epoch(**row) for row in kept["rows"]]
        self._resumed = (kept["seen"], kept["seconds"], kept["waited"])
        self._done_before = len(self.rows) * self._images + kept["seen"]

    def start_epoch(self, epoch: int, waited: float) -> None:
        """An epoch, counted from 0, begins, or goes on after an interruption; `waited` is what the loader says."""
        self._epoch = epoch
        self._seen, self._spent, self._waited = self._resumed
        self._resumed = (0, 0.0, 0.0)
        self._waited_at_start = waited
        self._at_start = self._seen
        self._start = self._last_logged = time.monotonic()

    def due(self, images: int) -> bool:
        """Count a batch; is it time for a line?"""
        self._seen += images
        return time.monotonic() - self._last_logged >= LOG_EVERY and self._seen < self._images

    def speak(self, loss: float, right: float, extra: str = "") -> None:
        """A line: loss and right are sums over the epoch so far."""
        now = time.monotonic()
        self._last_logged = now
        if not self._logs:
            return
        done = self._epoch * self._images + self._seen
        left = (now - self._begun) / max(1, done - self._done_before) * (self._epochs * self._images - done)
        of_epoch = f" ({100 * self._seen // self._images} %)" if self._seen < self._images else ""
        log.info(
            "epoch %d/%d%s  loss %.3f  accuracy %.1f %%%s  %.0f images/s  %s left",
            self._epoch + 1, self._epochs, of_epoch, loss / self._seen, 100 * right / self._seen, extra,
            (self._seen - self._at_start) / max(now - self._start, 1e-9), _span(left),
        )  # fmt: skip

    def end_epoch(
        self,
        loss: float,
        right: float,
        *,
        side: int,
        rate: float,
        waited: float,
        memory: float,
        clean: float | None,
        robust: float | None,
        loader_rate: float | None = None,
    ) -> None:
        """Close the epoch: loss and right are sums over it, the rest as in Epoch; `loader_rate` as in `cost`."""
        checked = "".join(
            f"  {name} {value:.1f} %" for name, value in (("clean", clean), ("robust", robust)) if value is not None
        )
        self.speak(loss, right, checked)
        row = Epoch(
            epoch=self._epoch + 1,
            side=side,
            loss=round(loss / self._seen, 6),
            train_accuracy=round(100 * right / self._seen, 4),
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


def _span(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 100 else f"{minutes / 60:.1f} h"

"""Batches of training images, from memory where they fit, else read by worker processes.

A batch depends only on seed, epoch and the numbers of its images: not on workers, on where an epoch starts, or on
whether images are in memory. Workers decode to uint8; everything that is batched happens on the device.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor

from robust_transfer.configuration.running import Running
from robust_transfer.configuration.training import Recipe
from robust_transfer.loading.augmentation import Colours, resident_images
from robust_transfer.loading.shared_memory import LoadingError
from robust_transfer.loading.sources import Source, Subset, moved
from robust_transfer.loading.streaming import Streaming

__all__ = ["Loader", "LoadingError", "Resident", "Streaming", "Subset", "moved", "open_loader"]

log = logging.getLogger("robust_transfer")


class Loader(Protocol):
    """Yields the images of some subsets, numbered consecutively. Close it after use."""

    labels: Tensor
    """Label of each image, int64 [N], on the device."""

    def batches(self, epoch: int, groups: Sequence[Tensor], size: int) -> Iterator[Tensor]:
        """Yield the augmented images of each group: float32 [B, 3, size, size] in [0, 1], channels last, on the device.

        One iterator at a time: a new one ends those before it. Raises StoreError if an image cannot be read.

        Args:
            epoch: Epoch, counted from 0.
            groups: Numbers of each group's images, int64 [B], on the CPU.
            size: Side of the images, at most the input's.
        """

    def unaugmented(self, indices: Tensor, size: int) -> Tensor:
        """Images by number (int64 [B], on the CPU) as evaluation at this size sees them; returned as from `batches`.

        They are read from the dataset again, in this process.
        """

    @property
    def waited(self) -> float:
        """Seconds that the caller of `batches` has waited for images to be read."""

    def rate(self) -> float | None:
        """Images per second that workers can read; None if all are in memory or none was read yet."""

    def close(self) -> None:
        """Stop all workers."""


def open_loader(
    parts: Sequence[Subset],
    recipe: Recipe,
    *,
    input_size: int,
    resize_ratio: float,
    seed: int,
    device: torch.device,
    threads: int,
    running: Running,
) -> Loader:
    """A loader of augmented images.

    Images are held on the device if they take at most `running.resident_mb`, unless the augmentation crops them at
    their stored size; else `running.workers` processes read them, or this one if that is 0. Call it in the main thread:
    workers end with the thread that starts them. Raises LoadingError if there is too little shared memory for them.

    Args:
        parts: Subsets to load, numbered consecutively.
        recipe: Its augmentation, batch size and BatchNorm group count.
        input_size: Side of the network's input, pixels.
        resize_ratio: Side of the resized image over that of its centre crop, where augmentation starts from that.
        seed: Seed of the augmentation.
        device: Where batches are put.
        threads: Threads, and by default workers.
        running: Its `resident_mb` and `workers` count.
    """
    source = Source(tuple(parts), recipe, input_size, resize_ratio, seed)
    megabytes = len(source) * source.side**2 * 3 / 2**20
    if recipe.augmentation != "resized-crop-flip" and megabytes <= running.resident_mb:
        return Resident(source, device, threads)
    workers = threads if running.workers is None else running.workers
    by = f"{workers} processes" if workers else "this process"
    log.info("%d images are read as they are needed, by %s", len(source), by)
    return Streaming(source, device, threads, workers)


class Resident:
    """A Loader that holds all images on the device, as square uint8 images."""

    def __init__(self, source: Source, device: torch.device, threads: int) -> None:
        self._source, self._device, self._threads = source, device, threads
        self._colours = Colours(source.recipe, source.seed)
        pixels = [self._pixels(part) for part in source.parts]
        self._augmenter = source.augmenter((torch.cat(pixels) if len(pixels) > 1 else pixels[0]).to(device))
        self.labels = source.labels(device)

    @property
    def waited(self) -> float:
        """As in Loader."""
        return 0.0

    def batches(self, epoch: int, groups: Sequence[Tensor], size: int) -> Iterator[Tensor]:
        """As in Loader."""
        for numbers in moved(groups, self._device):
            yield self._colours.changed(self._augmenter.batch(numbers, epoch, size=size), numbers, epoch)

    def unaugmented(self, indices: Tensor, size: int) -> Tensor:
        """As in Loader."""
        return self._source.unaugmented(indices, size, self._device, self._threads)

    def rate(self) -> float | None:
        """None: augmentation on the device counts as the network's time."""
        return None

    def close(self) -> None:
        """There are no workers."""

    def _pixels(self, part: Subset) -> Tensor:
        source, whole = self._source, len(part) == len(part.split)
        return resident_images(
            part.split,
            source.recipe.augmentation,
            source.input_size,
            source.resize_ratio,
            indices=None if whole else part.indices,
            threads=self._threads,
        )

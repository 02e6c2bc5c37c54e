"""Loading: images for training, batch by batch, from memory where they fit there, else read by worker processes.

What a batch is depends on seed, epoch and the numbers of its images alone: not on workers, on where an epoch starts, or
on whether images are in memory. Workers decode to uint8; everything batched happens on the device.

An image costs a worker 2.9 ms of processor time as `resized-crop-flip` at 224 px from JPEGs of 500 × 375 px and 97 kB
(n = 1,792), .24 ms at 64 px from JPEGs of 64 px and 2 kB (n = 8,704): 340 and 4,100 images a second and core, if
nothing holds it up (AMD EPYC, Zen 4; the machine was busy otherwise). Anonymous memory grows by 16 bytes an image in a
worker, shared where it was forked, and by 24 in the process that starts them: labels, indices, labels on the device.
What is read from a record batch first takes 17 ms more (64 MB at 3.9 GB/s, in memory), once for all workers.
"""

from __future__ import annotations

import atexit
import ctypes
import functools
import logging
import math
import multiprocessing.connection
import os
import signal
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from robust_transfer import randomness
from robust_transfer.augmentation import (
    CROP_NUMBERS,
    Augmenter,
    Colours,
    as_images,
    random_crop,
    resident_images,
    squares_as,
)
from robust_transfer.configuration.running import Running
from robust_transfer.configuration.training import Recipe
from robust_transfer.datasets.arrow import Images, Split
from robust_transfer.datasets.resident import square_images
from robust_transfer.store import StoreError

log = logging.getLogger("robust_transfer")

Numbers = NDArray[np.int64]

CHUNK = 64
"""Images a worker reads at a time: workers share a batch, and a chunk at 224 px takes 10 MB of shared memory."""
_LEFT_TO_PARENT = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
_PR_SET_PDEATHSIG = 1


class LoadingError(RuntimeError):
    """A process that reads images died; the message says what to change."""


@dataclass(frozen=True)
class Part:
    """Some images of a stored split."""

    split: Split
    indices: Numbers
    """Rows of the split's file, ascending."""

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def labels(self) -> NDArray[np.int64]:
        """int64 [N]."""
        return self.split.labels[self.indices]

    def squares(self, positions: Numbers, side: int, resize_ratio: float, threads: int = 1) -> Images:
        """The images at these positions of the part, untouched: uint8 [n, side, side, 3]."""
        return square_images(self.split, side, resize_ratio, indices=self.indices[positions], threads=threads)


class Loader(Protocol):
    """Gives out the images of some parts, which it numbers consecutively. Close it after use."""

    labels: Tensor
    """int64 [N], on the device: the label of every image."""

    def batches(self, epoch: int, groups: Sequence[Tensor], size: int) -> Iterator[Tensor]:
        """For each tensor of image numbers (int64 [B], on the CPU): those images as that epoch shows them.

        float32 [B, 3, size, size] in [0, 1], channels last, on the device; size is at most the input's. One iterator
        at a time: a new one ends those before it. Raises StoreError if an image cannot be read.
        """

    def untouched(self, indices: Tensor, size: int) -> Tensor:
        """Images by number (int64 [B], on the CPU) as evaluation at this size sees them; as `batches` has them.

        Reads them anew from the dataset, in this process.
        """

    @property
    def waited(self) -> float:
        """Seconds that the caller of `batches` has waited for images to be read."""

    def rate(self) -> float | None:
        """Images per second that workers can read. None where all are in memory, and before any was read."""

    def close(self) -> None:
        """End all workers."""


def open_loader(
    parts: Sequence[Part],
    recipe: Recipe,
    *,
    input_size: int,
    resize_ratio: float,
    seed: int,
    device: torch.device,
    threads: int,
    running: Running,
) -> Loader:
    """A loader of these parts' images, augmented as `recipe` says.

    They are held on the device where their squares take at most `running.resident_mb`, unless every image is cropped as
    it is stored; else `running.workers` processes read them, or this one if that is 0. Call it in the main thread: the
    workers end with the thread that starts them.
    """
    source = _Source(tuple(parts), recipe, input_size, resize_ratio, seed)
    megabytes = len(source) * source.side**2 * 3 / 2**20
    if recipe.augmentation != "resized-crop-flip" and megabytes <= running.resident_mb:
        return Resident(source, device, threads)
    workers = threads if running.workers is None else running.workers
    by = f"{workers} processes" if workers else "this process"
    log.info("%d images are read as they are needed, by %s", len(source), by)
    return Streaming(source, device, threads, workers)


@dataclass(frozen=True)
class _Source:
    """The images of all parts under consecutive numbers, and what becomes of them."""

    parts: tuple[Part, ...]
    recipe: Recipe
    input_size: int
    resize_ratio: float
    seed: int

    def __len__(self) -> int:
        return sum(len(part) for part in self.parts)

    @property
    def side(self) -> int:
        """Side of the squares that augmentation starts from."""
        return squares_as(self.recipe.augmentation, self.input_size, self.resize_ratio)[0]

    def augmenter(self, pixels: Tensor) -> Augmenter:
        """Of all images, or of some."""
        return Augmenter(pixels, self.recipe.augmentation, self.input_size, self.seed)

    def labels(self, device: torch.device) -> Tensor:
        """int64 [N]."""
        return torch.from_numpy(np.concatenate([part.labels for part in self.parts])).to(device)

    def untouched(self, numbers: Tensor, size: int, device: torch.device, threads: int) -> Tensor:
        """As in Loader."""
        return as_images(torch.from_numpy(self._squares(numbers.numpy(), size, self.resize_ratio, threads)).to(device))

    def read(self, epoch: int, size: int, numbers: Numbers) -> Images:
        """What workers make of images: uint8 [n, side, side, 3], squares or, if every image is cropped anew, crops."""
        if self.recipe.augmentation == "resized-crop-flip":
            return self._crops(epoch, size, numbers)
        return self._squares(numbers, *squares_as(self.recipe.augmentation, self.input_size, self.resize_ratio))

    def _squares(self, numbers: Numbers, side: int, resize_ratio: float, threads: int = 1) -> Images:
        squares = np.empty((len(numbers), side, side, 3), np.uint8)
        for part, positions, here in self._located(numbers):
            squares[here] = part.squares(positions, side, resize_ratio, threads)
        return squares

    def _crops(self, epoch: int, size: int, numbers: Numbers) -> Images:
        crops = np.empty((len(numbers), size, size, 3), np.uint8)
        drawn = randomness.per_image(
            self.seed, randomness.AUGMENTATION, epoch, torch.from_numpy(numbers), CROP_NUMBERS
        ).tolist()
        for part, positions, here in self._located(numbers):
            for position, place in zip(positions, here, strict=True):
                crops[place] = random_crop(part.split.picture(int(part.indices[position])), drawn[place], size)
        return crops

    def _located(self, numbers: Numbers) -> Iterator[tuple[Part, Numbers, Numbers]]:
        """By part: positions in it, and where in `numbers` they stand."""
        ends = list(accumulate(len(part) for part in self.parts))
        for part, end in zip(self.parts, ends, strict=True):
            here = np.flatnonzero((numbers >= end - len(part)) & (numbers < end))
            if len(here):
                yield part, numbers[here] - (end - len(part)), here


class Resident:
    """A Loader that holds all images on the device, as squares."""

    def __init__(self, source: _Source, device: torch.device, threads: int) -> None:
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
        for group in groups:
            numbers = group.to(self._device)
            yield self._colours.changed(self._augmenter.batch(numbers, epoch, size=size), numbers, epoch)

    def untouched(self, indices: Tensor, size: int) -> Tensor:
        """As in Loader."""
        return self._source.untouched(indices, size, self._device, self._threads)

    def rate(self) -> float | None:
        """None: augmentation on the device is part of the network's time."""
        return None

    def close(self) -> None:
        """Nothing to end."""

    def _pixels(self, part: Part) -> Tensor:
        source, whole = self._source, len(part) == len(part.split)
        return resident_images(
            part.split,
            source.recipe.augmentation,
            source.input_size,
            source.resize_ratio,
            indices=None if whole else part.indices,
            threads=self._threads,
        )


class _Request(NamedTuple):
    """What a worker is to read."""

    epoch: int
    size: int
    numbers: Numbers


class _Chunk(NamedTuple):
    """What a worker has read: uint8 [n, side, side, 3], and the seconds that it took."""

    pixels: Tensor
    seconds: float


class _Failure(NamedTuple):
    """What a worker could not read, and why."""

    message: str


class _Requests(Sampler[_Request]):
    """What torch's DataLoader takes requests from; they are replaced for every epoch."""

    def __init__(self) -> None:
        self.of_epoch: Iterable[_Request] = ()

    def __iter__(self) -> Iterator[_Request]:
        return iter(self.of_epoch)


class _Reader(Dataset[_Chunk | _Failure]):
    """Reads chunks; lives in every worker."""

    def __init__(self, source: _Source) -> None:
        self._source = source
        # Whether a record batch (64 MB) is intact is found out once for all workers, not once in each.
        self._verified = [torch.tensor(part.split.verified) for part in source.parts]
        for verified in self._verified:
            verified.share_memory_()  # type: ignore[no-untyped-call]
        self._share()

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._share()  # in a spawned worker splits are opened anew and know nothing of it

    def _share(self) -> None:
        for part, verified in zip(self._source.parts, self._verified, strict=True):
            part.split.verified = verified.numpy()

    def __getitem__(self, request: _Request) -> _Chunk | _Failure:
        start = time.perf_counter()
        try:
            pixels = torch.from_numpy(self._source.read(*request))
        except StoreError as error:  # as a result, since DataLoader words what is raised as a traceback
            return _Failure(str(error))
        return _Chunk(pixels, time.perf_counter() - start)


class Streaming:
    """A Loader whose workers read every batch from the dataset."""

    def __init__(self, source: _Source, device: torch.device, threads: int, workers: int) -> None:
        self._source, self._device, self._threads = source, device, threads
        self._colours = Colours(source.recipe, source.seed)
        self._crops = source.recipe.augmentation == "resized-crop-flip"
        self._requests = _Requests()
        self._readers = max(1, workers)
        self._turn, self._waited, self._images, self._seconds = 0, 0.0, 0, 0.0
        self._workers: list[multiprocessing.process.BaseProcess] = []
        self._chunks: Iterator[_Chunk | _Failure]
        # Two batches are on their way; a processor that trains has to find the next one there.
        chunk = min(CHUNK, source.recipe.batchnorm_group or source.recipe.batch_size)
        ahead = max(2, math.ceil(2 * source.recipe.batch_size / chunk / workers)) if workers else None
        self._loader: DataLoader[_Chunk | _Failure] = DataLoader(
            _Reader(source),
            sampler=self._requests,
            batch_size=None,
            num_workers=workers,
            collate_fn=_as_it_is,
            pin_memory=device.type == "cuda",
            multiprocessing_context=_start_method() if workers else None,
            persistent_workers=workers > 0,
            prefetch_factor=ahead,
            worker_init_fn=functools.partial(_become_worker, os.getpid()),
            generator=torch.Generator(),  # else every epoch draws from the global random state
        )
        if workers:
            self._start_workers()
        self.labels = source.labels(device)

    @property
    def waited(self) -> float:
        """As in Loader."""
        return self._waited

    def batches(self, epoch: int, groups: Sequence[Tensor], size: int) -> Iterator[Tensor]:
        """As in Loader."""
        self._turn += 1
        turn = self._turn
        self._requests.of_epoch = (
            _Request(epoch, size, chunk.numpy()) for group in groups for chunk in torch.split(group, CHUNK)
        )
        start = time.perf_counter()
        self._chunks = iter(self._loader)
        self._waited += time.perf_counter() - start
        side = size if self._crops else self._source.side
        for group in groups:
            pixels = torch.empty(len(group), side, side, 3, dtype=torch.uint8, device=self._device)
            for place in torch.split(pixels, CHUNK):
                if turn != self._turn:
                    raise RuntimeError("batches() was called again: the iterator of the call before has ended")
                place.copy_(self._next(), non_blocking=True)
            yield self._finished(pixels, group.to(self._device), epoch, size)

    def untouched(self, indices: Tensor, size: int) -> Tensor:
        """As in Loader."""
        return self._source.untouched(indices, size, self._device, self._threads)

    def rate(self) -> float | None:
        """As in Loader."""
        return self._images / self._seconds * self._readers if self._seconds else None

    def close(self) -> None:
        """As in Loader."""
        atexit.unregister(self.close)
        if self._workers:
            self._chunks._shutdown_workers()  # type: ignore[attr-defined]  # else when all references are gone
        for worker in self._workers:
            if worker.is_alive():  # five seconds later, and deaf to SIGTERM
                worker.kill()
            worker.join()
        self._workers = []

    def _finished(self, pixels: Tensor, numbers: Tensor, epoch: int, size: int) -> Tensor:
        if self._crops:
            images = as_images(pixels)
        else:
            places = torch.arange(len(pixels), device=self._device)
            images = self._source.augmenter(pixels).batch(places, epoch, numbers=numbers, size=size)
        return self._colours.changed(images, numbers, epoch)

    def _next(self) -> Tensor:
        start = time.perf_counter()
        try:
            chunk: _Chunk | _Failure = next(self._chunks)
        except (RuntimeError, OSError, EOFError) as error:
            # What it says depends on what the worker was at. A second, for the kernel to have done with the process.
            if multiprocessing.connection.wait([worker.sentinel for worker in self._workers], timeout=1):
                raise LoadingError(
                    f"a process that reads images died ({error}); if memory ran out, set running.workers lower"
                ) from error
            raise
        self._waited += time.perf_counter() - start
        if isinstance(chunk, _Failure):
            raise StoreError(chunk.message)
        self._images, self._seconds = self._images + len(chunk.pixels), self._seconds + chunk.seconds
        return chunk.pixels

    def _start_workers(self) -> None:
        before, on_child = set(multiprocessing.active_children()), signal.getsignal(signal.SIGCHLD)
        # Until a worker has said that it leaves these signals to its parent, they wait.
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, _LEFT_TO_PARENT)
        try:
            self._chunks = iter(self._loader)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
            # DataLoader's handler raises wherever the program is when a worker dies; without it, the next batch does.
            signal.signal(signal.SIGCHLD, signal.SIG_DFL if on_child is None else on_child)
        self._workers = [child for child in multiprocessing.active_children() if child not in before]
        atexit.register(self.close)  # multiprocessing would wait for ever for workers that are deaf to SIGTERM


def _start_method() -> str:
    """Forked workers start at once and share the parent's memory; but not those of a process that holds a GPU."""
    return "fork" if sys.platform == "linux" and not torch.cuda.is_initialized() else "spawn"  # type: ignore[no-untyped-call]


def _become_worker(parent: int, worker: int) -> None:
    for number in _LEFT_TO_PARENT:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _LEFT_TO_PARENT)
    if sys.platform == "linux":  # elsewhere DataLoader's own watchdog takes some seconds
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before that
        os._exit(1)


def _as_it_is(chunk: Any) -> Any:
    return chunk

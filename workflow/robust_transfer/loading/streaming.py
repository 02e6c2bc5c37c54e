"""Streaming: batches that worker processes read from the dataset, through torch's DataLoader.

An image costs a worker 2.9 ms of CPU time as `resized-crop-flip` at 224 px from JPEGs of 500 × 375 px and 97 kB
(n = 1,792), and 0.24 ms at 64 px from JPEGs of 64 px and 2 kB (n = 8,704): at most 340 and 4,100 images per second
and core (AMD EPYC, Zen 4; the machine was busy otherwise). Anonymous memory grows by 16 bytes per image in a worker,
shared if it was forked, and by 24 in the process that starts them: labels, indices, labels on the device. The first
read from a record batch takes 17 ms more for its checksum (64 MB at 3.9 GB/s, in memory), once for all workers.
"""

from __future__ import annotations

import atexit
import functools
import math
import multiprocessing.connection
import os
import signal
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from robust_transfer.loading.augmentation import Colours, as_images
from robust_transfer.loading.shared_memory import check_shared_memory, death_of
from robust_transfer.loading.sources import Numbers, Source, moved
from robust_transfer.machine.launch import die_with_parent
from robust_transfer.store.entry import StoreError

CHUNK = 64
"""Images that a worker reads at a time. Workers share a batch; a chunk at 224 px takes 10 MB of shared memory."""
_IGNORED_BY_WORKERS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


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
    """The DataLoader's sampler: yields an epoch's requests, which are replaced for every epoch."""

    def __init__(self) -> None:
        self.of_epoch: Iterable[_Request] = ()

    def __iter__(self) -> Iterator[_Request]:
        return iter(self.of_epoch)


class _Reader(Dataset[_Chunk | _Failure]):
    """The DataLoader's dataset: reads the chunk that a request names, in a worker."""

    def __init__(self, source: Source) -> None:
        self._source = source
        # Shared, so that a record batch (64 MB) is verified once for all workers, not once in each.
        self._verified = [torch.tensor(part.split.verified) for part in source.parts]
        for verified in self._verified:
            verified.share_memory_()  # type: ignore[no-untyped-call]
        self._share()

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._share()  # a spawned worker opens splits again, with flags of their own

    def _share(self) -> None:
        for part, verified in zip(self._source.parts, self._verified, strict=True):
            part.split.verified = verified.numpy()

    def __getitem__(self, request: _Request) -> _Chunk | _Failure:
        start = time.perf_counter()
        try:
            pixels = torch.from_numpy(self._source.read(*request))
        except StoreError as error:  # returned, since DataLoader would turn an exception into a traceback
            return _Failure(str(error))
        return _Chunk(pixels, time.perf_counter() - start)


class Streaming:
    """A Loader whose workers read every batch from the dataset."""

    def __init__(self, source: Source, device: torch.device, threads: int, workers: int) -> None:
        self._source, self._device, self._threads = source, device, threads
        self._colours = Colours(source.recipe, source.seed)
        self._crops = source.recipe.augmentation == "resized-crop-flip"
        self._requests = _Requests()
        self._readers = max(1, workers)
        self._turn, self._waited, self._images, self._seconds = 0, 0.0, 0, 0.0
        self._workers: list[multiprocessing.process.BaseProcess] = []
        self._chunks: Iterator[_Chunk | _Failure]
        # Two batches are read ahead, so that the next one is ready when a step ends.
        chunk = min(CHUNK, source.recipe.batchnorm_group or source.recipe.batch_size)
        ahead = max(2, math.ceil(2 * source.recipe.batch_size / chunk / workers)) if workers else None
        if ahead:
            side = source.input_size if self._crops else source.side
            check_shared_memory((workers * ahead + 1) * chunk * side**2 * 3, workers)
        self._loader: DataLoader[_Chunk | _Failure] = DataLoader(
            _Reader(source),
            sampler=self._requests,
            batch_size=None,
            num_workers=workers,
            collate_fn=_unchanged,
            pin_memory=device.type == "cuda",
            multiprocessing_context=_start_method() if workers else None,
            persistent_workers=workers > 0,
            prefetch_factor=ahead,
            worker_init_fn=functools.partial(_become_worker, os.getpid()),
            generator=torch.Generator(),  # without it every epoch draws from the global random state
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
        for numbers in moved(groups, self._device):
            pixels = torch.empty(len(numbers), side, side, 3, dtype=torch.uint8, device=self._device)
            for place in torch.split(pixels, CHUNK):
                if turn != self._turn:
                    raise RuntimeError("batches() was called again, which ended the iterator of the earlier call")
                place.copy_(self._next(), non_blocking=True)
            yield self._finished(pixels, numbers, epoch, size)

    def unaugmented(self, indices: Tensor, size: int) -> Tensor:
        """As in Loader."""
        return self._source.unaugmented(indices, size, self._device, self._threads)

    def rate(self) -> float | None:
        """As in Loader."""
        return self._images / self._seconds * self._readers if self._seconds else None

    def close(self) -> None:
        """As in Loader."""
        atexit.unregister(self.close)
        if self._workers:
            self._chunks._shutdown_workers()  # type: ignore[attr-defined]  # otherwise only once all references are gone
        for worker in self._workers:
            if worker.is_alive():  # after DataLoader's five seconds, since workers ignore SIGTERM
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
            # The message depends on what the worker was doing. Wait up to a second for the kernel to end the process.
            if multiprocessing.connection.wait([worker.sentinel for worker in self._workers], timeout=1):
                raise death_of(self._workers, error) from error
            raise
        self._waited += time.perf_counter() - start
        if isinstance(chunk, _Failure):
            raise StoreError(chunk.message)
        self._images, self._seconds = self._images + len(chunk.pixels), self._seconds + chunk.seconds
        return chunk.pixels

    def _start_workers(self) -> None:
        before, on_child = set(multiprocessing.active_children()), signal.getsignal(signal.SIGCHLD)
        # Blocked until a worker ignores them, which it does before it unblocks them.
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, _IGNORED_BY_WORKERS)
        try:
            self._chunks = iter(self._loader)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
            # DataLoader's handler raises wherever the program is when a worker dies; without it the next batch raises.
            signal.signal(signal.SIGCHLD, signal.SIG_DFL if on_child is None else on_child)
        self._workers = [child for child in multiprocessing.active_children() if child not in before]
        atexit.register(self.close)  # multiprocessing would wait forever for workers that ignore SIGTERM


def _start_method() -> str:
    """`fork` on Linux, since forked workers start at once and share memory, also where CUDA has started.

    A forked process must not use CUDA, and these do not: they read images to numpy arrays, and the process that starts
    them pins and copies what they read. torch refuses CUDA in a fork, so that this cannot change unseen.
    """
    return "fork" if sys.platform == "linux" else "spawn"


def _become_worker(parent: int, worker: int) -> None:
    for number in _IGNORED_BY_WORKERS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _IGNORED_BY_WORKERS)
    die_with_parent()  # elsewhere than on Linux DataLoader's own watchdog takes some seconds
    if os.getppid() != parent:  # the parent died before the line above
        os._exit(1)


def _unchanged(chunk: Any) -> Any:
    return chunk

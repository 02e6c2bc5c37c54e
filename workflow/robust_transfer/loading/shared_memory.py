"""Shared memory, through which worker processes hand over what they read: whether there is enough, and what to do.

Linux keeps it in `/dev/shm`, whose size has nothing to do with the memory that is free: half of the machine's by
default, 64 MB in a container of Docker's. A worker that writes beyond its end is killed by SIGBUS.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable
from multiprocessing.process import BaseProcess
from pathlib import Path

SHARED = Path("/dev/shm")
"""Where the kernel keeps shared memory; on systems without that folder nothing is checked."""


class LoadingError(RuntimeError):
    """A worker process died or could not work; the message says what to change."""


def check_shared_memory(needed: int, workers: int) -> None:
    """Raise LoadingError if less than `needed` bytes of shared memory are free for this many workers."""
    try:
        room = os.statvfs(SHARED)
    except OSError:
        return
    free, size = (blocks * room.f_frsize for blocks in (room.f_bavail, room.f_blocks))
    if free < needed:
        raise LoadingError(
            f"{SHARED} has {_mb(size)} MB, of which {_mb(free)} are free, and {workers} processes that read images "
            f"need {_mb(needed, up=True)} MB of shared memory there: start the container with "
            f"--shm-size={_gigabytes(needed)}g (Docker) or --ipc=host, enlarge it by `mount -o remount,size=…`, or set "
            "running: {workers: 0}"
        )


def death_of(workers: Iterable[BaseProcess], error: Exception) -> LoadingError:
    """What to say of workers of which one has died, which showed in `error`."""
    if any(worker.exitcode == -signal.SIGBUS for worker in workers):
        return LoadingError(
            f"a process that reads images was killed by SIGBUS: {SHARED} is full ({error}); start the container with a "
            "larger --shm-size, end what else fills it, or set running: {workers: 0}"
        )
    return LoadingError(f"a process that reads images died ({error}); if memory ran out, set running.workers lower")


def _mb(size: int, *, up: bool = False) -> int:
    return -(-size // 2**20) if up else size // 2**20


def _gigabytes(needed: int) -> int:
    """Twice what is needed, for what else uses it."""
    return max(1, -(-2 * needed // 2**30))

"""The disk as downloads and archives use it: folders, locks, progress, and the errors where it refuses."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import socket
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from robust_transfer import quantities
from robust_transfer.datasets.errors import DatasetError
from robust_transfer.store.entry import StoreError, read_json, refused

CHUNK = 2**20
"""Bytes that are read, hashed and written at a time."""
PROGRESS_SECONDS = 10.0
"""Between two lines of progress: few enough for a log of hours, often enough to see that it is alive."""

log = logging.getLogger("robust_transfer")


def printable(name: str, longest: int = 200) -> str:
    """A name from the disk or an archive, fit for a message: in one line, of letters that can be printed, and short."""
    name = name if len(name) <= longest else f"{name[: longest // 2]}…{name[-longest // 2 :]}"
    return name if name.isprintable() else ascii(name)[1:-1]


def in_utf8(name: str) -> str:
    """A name from the disk as UTF-8, in which files are written: other bytes, as of Latin-1 names, are escaped."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def make_folder(folder: Path) -> None:
    """Create a folder and those above it; raises DatasetError where that is not allowed."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DatasetError(f"{folder}: this folder cannot be created ({error.strerror}); choose another") from error


def not_written(path: Path, size: int, error: OSError) -> DatasetError:
    """What to raise where the disk refused so many bytes, or the file system the name."""
    if error.errno in (errno.ENAMETOOLONG, errno.EILSEQ, errno.EINVAL):
        return DatasetError(
            f"{printable(str(path))}: the file system does not take this name ({error.strerror}); unpack it by hand "
            "under a shorter name in UTF-8, or choose another folder"
        )
    return DatasetError(f"{refused(path, size, error)}; make room there or choose another folder, and run it again")


class Progress:
    """Logs a line every few seconds: bytes done of a total (where it is known), speed, and the time left."""

    def __init__(self, name: str, size: int = 0, total: int | None = None):
        self._name, self._first, self._total = printable(name), size, total
        self._start = self._last_logged = time.monotonic()

    def report(self, size: int, what: str = "") -> None:
        """Log how far it is, if it is time: `size` bytes, after what else there is to say."""
        now = time.monotonic()
        if now - self._last_logged < PROGRESS_SECONDS:
            return
        self._last_logged, rate = now, (size - self._first) / max(now - self._start, 1e-9)
        of = f" of {quantities.size(self._total)}" if self._total else ""
        left = f", {quantities.duration((self._total - size) / max(rate, 1.0))} left" if self._total else ""
        log.info("%s: %s%s%s, %.1f MB/s%s", self._name, what, quantities.size(size), of, rate / 1e6, left)


_threads: defaultdict[Path, threading.Lock] = defaultdict(threading.Lock)  # the kernel's locks are of processes


@contextmanager
def exclusively(lock: Path, what: str) -> Iterator[None]:
    """Hold a lock file while the block runs; waits while another process or thread holds it, and logs which.

    The kernel frees the lock of a process that dies. Raises DatasetError where the file cannot be created or locked.
    """
    with _threads[lock.absolute()]:
        while True:
            with opened(lock) as file:
                _acquire(file, lock, what)
                if not _is_still(lock, file.fileno()):  # its holder has just removed it: lock the new one
                    continue
                file.truncate(0)
                file.write(f"process {os.getpid()} on {socket.gethostname()}".encode())
                file.flush()
                try:
                    yield
                finally:
                    lock.unlink(missing_ok=True)
                return


def opened(path: Path) -> IO[bytes]:
    """A file to read and to append to; raises DatasetError where it cannot be created."""
    try:
        return open(path, "a+b")
    except OSError as error:
        raise DatasetError(f"{path}: cannot be written ({error.strerror}); choose another folder") from error


def _acquire(file: IO[bytes], lock: Path, what: str) -> None:
    try:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                raise
            file.seek(0)
            log.info("%s: waiting for %s, which is doing it", what, file.read().decode() or "another process")
            fcntl.lockf(file, fcntl.LOCK_EX)
    except OSError as error:
        raise DatasetError(
            f"{lock}: this file system has no locks ({error.strerror}); choose another folder"
        ) from error


def _is_still(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def read_object(path: Path) -> dict[str, Any]:
    """A small JSON object; empty where it is missing or damaged."""
    try:
        content = read_json(path)
    except (StoreError, OSError, UnicodeDecodeError):
        return {}
    return content if isinstance(content, dict) else {}

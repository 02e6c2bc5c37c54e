"""Compare every file of many entries with its checksum, several at once, and say how far that is."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from robust_transfer import quantities
from robust_transfer.store.inventory import size_of
from robust_transfer.store.upkeep import faults

SECONDS = 30.0
"""Between two lines of progress; on a terminal, where a line replaces the one before, a thirtieth."""


def verify(entries: Sequence[Path], threads: int) -> list[str]:
    """What is wrong with these entries' files, one line each, in their order. Reads all of them.

    Threads are enough: hashing lets go of the interpreter's lock.
    """
    found: dict[Path, list[str]] = {}
    sizes = {path: size_of(path) for path in entries}
    progress, done = _Progress(len(entries), sum(sizes.values())), 0
    with ThreadPoolExecutor(threads) as pool:
        for path, lines in _finished(pool, entries):
            found[path] = lines
            done += sizes[path]
            progress.tell(len(found), done)
    progress.end()
    return [line for path in entries for line in found[path]]


def _finished(pool: ThreadPoolExecutor, entries: Sequence[Path]) -> Iterator[tuple[Path, list[str]]]:
    waiting = {pool.submit(faults, path): path for path in entries}
    for one in as_completed(waiting):
        yield waiting[one], one.result()


class _Progress:
    """Lines on standard error: how many entries and bytes are done, and how long the rest may take."""

    def __init__(self, entries: int, size: int) -> None:
        self._entries, self._size, self._start = entries, size, time.monotonic()
        self._is_terminal = sys.stderr.isatty()
        self._told = self._start

    def tell(self, entries: int, size: int) -> None:
        """Say how far it is, if that was not said just now."""
        now = time.monotonic()
        if now - self._told < (SECONDS / 30 if self._is_terminal else SECONDS):
            return
        self._told = now
        rest = (now - self._start) * (self._size - size) / max(size, 1)
        done, of = quantities.size(size), quantities.size(self._size)
        line = f"{entries} of {self._entries} entries, {done} of {of}, {quantities.duration(rest)} to go"
        print(f"\r{line:<70}" if self._is_terminal else line, end="" if self._is_terminal else "\n", file=sys.stderr)

    def end(self) -> None:
        """Clear a terminal's line."""
        if self._is_terminal:
            print(f"\r{'':<70}\r", end="", file=sys.stderr)

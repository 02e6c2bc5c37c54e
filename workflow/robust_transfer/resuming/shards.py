"""Shards: rows of features that are done, kept in the entry while its job runs, so that a killed job resumes there.

They are stored in the entry's folder `.state`, outside the outputs that Snakemake deletes before a job: one file of
raw numbers per split, to which rows are appended, and `journal.json`, which lists the valid ones. The rows between two
saves are a shard, with a checksum (CRC-32) in the journal. A shard that is truncated or altered is computed again, with
all after it. Features are cheap, so rows made by other code or from other inputs are dropped. The folder is removed
once the entry's outputs are in place.
"""

from __future__ import annotations

import logging
import os
import shutil
import time
import zlib
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np

from robust_transfer.resuming.interruption import Interrupted, Interruption
from robust_transfer.store.entry import STATE, Entry, StoreError, read_json, refused, write_json
from robust_transfer.store.features import Features, origin
from robust_transfer.store.fingerprint import fingerprint

JOURNAL = "journal.json"

log = logging.getLogger("robust_transfer")


class Shards:
    """The rows of one entry's features that are done, split by split; a context manager.

    The caller must hold the entry's lock (`Entry.writing`). `resumed` lists, for the card, how jobs that computed the
    rows before differed from this one.
    """

    def __init__(
        self,
        entry: Entry,
        *,
        dtype: str,
        dimension: int,
        every: float,
        interruption: Interruption,
        setting: Mapping[str, Any],
    ) -> None:
        """Rows are read, and removed where they do not belong here, on entering the `with` block.

        Args:
            entry: Entry whose features are computed.
            dtype: Name of their NumPy dtype.
            dimension: Numbers per row.
            every: Seconds between saves.
            interruption: Says when to save and exit.
            setting: What the job runs on (torch, device, threads), as JSON values.
        """
        self._folder, self._dtype, self._dimension = entry.path / STATE, np.dtype(dtype), dimension
        self._every, self._interruption, self._setting = every, interruption, dict(setting)
        self._own = {
            "entry": entry.name,
            "code": fingerprint(entry.stage),
            "inputs": origin(entry, entry.inputs),
            "rows": f"{dimension} × {dtype}",
        }
        self._journal: dict[str, list[list[int]]] = {}  # by split, rows and checksum of each shard
        self._next = time.monotonic() + every
        self._file: BinaryIO | None = None
        self._split, self._rows, self._checksum = "", 0, 0  # of the shard that is being added to
        self.resumed: list[dict[str, Any]] = []

    def __enter__(self) -> Shards:
        if not self._restore():
            shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(exist_ok=True)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if kind and not isinstance(error, Interrupted):
            self.save_rest()
        if self._file:
            self._file.close()
        if kind and not self._saved:
            shutil.rmtree(self._folder, ignore_errors=True)

    def done(self, split: str) -> int:
        """Number of rows of a split that are done."""
        return sum(rows for rows, _ in self._journal.get(split, [])) + (self._rows if split == self._split else 0)

    def add(self, split: str, features: Features) -> None:
        """Append the next rows of a split, [n, D], and save if a save is due.

        Raises Interrupted, after saving, if the job is to exit; StoreError if the rows cannot be written.
        """
        if split != self._split:
            self._open(split)
        self._append(np.ascontiguousarray(features))
        if reason := self._interruption.reason:
            saved = self.save()
            kept = "saved" if saved else "NOT saved, those saved before stay"
            raise Interrupted(
                f"{reason}: {self.done(split):,} rows of {split} {kept}; run the same command to go on",
                goes_on=saved and self._interruption.is_out_of_time,
            )
        if time.monotonic() >= self._next:
            self.save()

    def save(self) -> bool:
        """Flush all rows so far to disk and list them in the journal; False, with an error logged, if that fails."""
        self._end_shard()
        described = {"own": self._own, "setting": self._setting, "resumed": self.resumed, "splits": self._journal}
        try:
            if self._file:
                os.fsync(self._file.fileno())
            write_json(self._folder / JOURNAL, described)
        except (StoreError, OSError) as error:
            log.error("rows not saved, the job goes on, and those saved before stay: %s", error)
            return False
        finally:
            self._next = time.monotonic() + self._every
        return True

    def save_rest(self) -> None:
        """Save the rows since the last save, if there has been one: a short job has nothing worth keeping."""
        if self._saved:
            self.save()

    def all(self, split: str, rows: int) -> Features:
        """All rows of a finished split, [rows, D], memory-mapped."""
        return np.memmap(self._path(split), self._dtype, "r", shape=(rows, self._dimension))

    @property
    def _saved(self) -> bool:
        return (self._folder / JOURNAL).exists()

    def _path(self, split: str) -> Path:
        return self._folder / f"{split}.rows"

    def _bytes(self, rows: int) -> int:
        return rows * self._dimension * self._dtype.itemsize

    def _open(self, split: str) -> None:
        self._end_shard()
        if self._file:
            self._file.close()
        self._split, self._file = split, open(self._path(split), "ab", buffering=0)  # noqa: SIM115
        self._file.truncate(self._bytes(self.done(split)))  # rows appended after the last save are not in the journal

    def _append(self, features: Features) -> None:
        assert self._file
        content = features.reshape(-1).view(np.uint8).data
        left = content
        try:
            while left:
                left = left[self._file.write(left) :]
        except OSError as error:
            self._file.truncate(self._bytes(self.done(self._split)))
            raise refused(self._path(self._split), len(content), error) from error
        self._rows += len(features)
        self._checksum = zlib.crc32(content, self._checksum)

    def _end_shard(self) -> None:
        if self._rows:
            self._journal.setdefault(self._split, []).append([self._rows, self._checksum])
        self._rows, self._checksum = 0, 0

    def _restore(self) -> bool:
        """Take over what an earlier job saved; False if there is nothing, or nothing of this entry, code and inputs."""
        if not self._saved:
            return False
        try:
            saved = read_json(self._folder / JOURNAL)
            own, setting, self.resumed, journal = (saved[key] for key in ("own", "setting", "resumed", "splits"))
        except (StoreError, KeyError, TypeError, UnicodeDecodeError):
            log.warning("%s: not readable; its rows are computed again", self._folder / JOURNAL)
            return False
        if differing := [name for name in self._own if own.get(name) != self._own[name]]:
            log.info("%s: rows of other %s; they are computed again", self._folder, " and ".join(differing))
            return False
        self._journal = {split: self._intact(split, shards) for split, shards in journal.items()}
        before = {name: [setting.get(name), now] for name, now in self._setting.items() if setting.get(name) != now}
        for name, (then, now) in before.items():
            log.warning("rows were computed with %s %s, now %s: they may differ in their last bits", name, then, now)
        self.resumed += [before] if before else []
        log.info("going on after %s", ", ".join(f"{self.done(split):,} rows of {split}" for split in self._journal))
        return True

    def _intact(self, split: str, shards: list[list[int]]) -> list[list[int]]:
        """The shards before the first whose content differs from the journal."""
        path, end = self._path(split), 0
        content = np.memmap(path, np.uint8, "r") if path.exists() and path.stat().st_size else np.empty(0, np.uint8)
        for number, (rows, checksum) in enumerate(shards):
            start, end = end, end + self._bytes(rows)
            if end > len(content) or zlib.crc32(content[start:end].data) != checksum:
                first = sum(rows for rows, _ in shards[:number])
                log.warning("%s: cut short or altered; it is computed again from row %s on", path, f"{first:,}")
                return shards[:number]
        return shards

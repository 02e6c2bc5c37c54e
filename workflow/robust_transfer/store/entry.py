"""The store: entries, their cards, their locks, and how outputs appear in one piece.

An entry is a folder `store/<stage>/<name>-<hash>/` with `entry.json` (the settings that define it and the entries it is
made from), its outputs, `timing.json` (seconds, memory, device, commit) and `card.json` (what it is: checksums, facts,
code fingerprint, versions; no times). The card is written last: an entry with a card is finished.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import platform
import resource
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from robust_transfer.store.fingerprint import fingerprint, module_fingerprints
from robust_transfer.store.provenance import software, versions

ENTRY, CARD, TIMING = "entry.json", "card.json", "timing.json"
LOCK, DRAFT, STATE = ".lock", ".draft", ".state"
PLANNED = "ROBUST_TRANSFER_PLANNED"
"""Environment variable with the fingerprint by stage, as JSON, that jobs were planned with."""


class StoreError(RuntimeError):
    """Something in the store is missing, altered or in use; the message names it and the fix."""


@dataclass(frozen=True)
class Entry:
    """One entry of the store, opened by the stage that makes it or by one that reads it."""

    path: Path
    stage: str
    settings: dict[str, Any]
    """As in `entry.json`; the stage's settings model validates it."""
    inputs: dict[str, str]
    """Role to entry, as a path below the store: `{"backbone": "pretraining/…"}`."""

    @property
    def name(self) -> str:
        """Readable name and short hash."""
        return self.path.name

    def input(self, role: str) -> Entry:
        """The finished entry that this one is made from in that role; raises StoreError if it is not there."""
        if role not in self.inputs:
            raise StoreError(f"{self.path / ENTRY}: no input {role!r}; it has {', '.join(self.inputs) or 'none'}")
        entry = open_entry(self.path.parent.parent / self.inputs[role])
        if not finished(entry.path):
            raise StoreError(f"{entry.path}: not made yet (no {CARD}), and {self.path} needs it: make it first")
        return entry

    def card(self) -> dict[str, Any]:
        """The entry's `card.json`."""
        card: dict[str, Any] = read_json(self.path / CARD)
        return card

    def facts(self) -> dict[str, Any]:
        """What the stage recorded about its outputs: classes, counts, origin, …"""
        facts: dict[str, Any] = self.card()["facts"]
        return facts

    def file(self, name: str, *, checksum: bool = True) -> Path:
        """Path of an output, after checking its size and, unless told otherwise, its SHA-256 against the card.

        Raises StoreError for a file that is not in the card, is missing, or is not the file the card describes.
        """
        path, recorded = self.path / name, self.card()["files"].get(name)
        if recorded is None:
            raise StoreError(f"{path}: not in {self.path / CARD}, which lists {', '.join(self.card()['files'])}")
        if not path.exists():
            raise StoreError(f"{path}: listed in {CARD} but missing; move {self.path} aside and make it again")
        size = path.stat().st_size
        if size != recorded["bytes"] or (checksum and sha256(path) != recorded["sha256"]):
            raise StoreError(
                f"{path}: {size} bytes that are not the {recorded['bytes']} bytes its {CARD} describes; "
                f"the file was altered or cut short: move {self.path} aside and make it again"
            )
        return path

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the entry's exclusive lock; raises StoreError that names the holder if another process has it."""
        with open(self.path / LOCK, "a+") as lock:
            try:
                fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                lock.seek(0)
                holder = lock.read().strip() or "an unnamed process"
                raise StoreError(f"{self.path}: {holder} is writing this entry; wait for it, or stop it") from None
            lock.seek(0)
            lock.truncate()
            lock.write(f"process {os.getpid()} on {socket.gethostname()}{_cluster_job()}")
            lock.flush()
            try:
                yield
            finally:
                lock.truncate(0)

    @contextmanager
    def writing(self) -> Iterator[Draft]:
        """Write the entry's outputs: they appear together, by rename, when the block ends without an error.

        The block gets a Draft; a block that raises leaves the entry as it was. Only one process writes an entry.
        """
        with self.locked():
            folder = self.path / DRAFT
            shutil.rmtree(folder, ignore_errors=True)
            for name in (TIMING, CARD):  # of a process that was killed while it wrote them
                for left in self.path.glob(f".{name}.*"):
                    left.unlink(missing_ok=True)
            folder.mkdir()
            draft, start = Draft(folder), time.monotonic()
            made_by = software()  # asked first: what is checked out may change while a long job runs
            try:
                yield draft
                self._publish(draft, time.monotonic() - start, made_by)
            finally:
                shutil.rmtree(folder, ignore_errors=True)

    def _publish(self, draft: Draft, seconds: float, made_by: dict[str, str]) -> None:
        files = sorted(path for path in draft.folder.iterdir())
        card = {
            "entry": f"{self.stage}/{self.name}",
            "files": {path.name: {"bytes": path.stat().st_size, "sha256": sha256(path)} for path in files},
            "facts": draft.facts,
            "code": fingerprint(self.stage),
            "modules": module_fingerprints(self.stage),
            "provenance": versions(),
        }
        planned = json.loads(os.environ.get(PLANNED, "{}")).get(self.stage, card["code"])
        if planned != card["code"]:  # the code was edited between planning and now
            card["planned"] = planned
        timing = {"seconds": round(seconds, 3), "peak_memory_mb": process_memory_mb(), **draft.timing}
        timing["provenance"] = made_by
        (self.path / CARD).unlink(missing_ok=True)  # no card while files change: a card means finished
        for path in files:
            _flush(path)
            path.replace(self.path / path.name)
        write_json(self.path / TIMING, timing)
        write_json(self.path / CARD, card)
        shutil.rmtree(self.path / STATE, ignore_errors=True)  # of a job that is now done


@dataclass
class Draft:
    """Outputs in the making. Write files with `file()`, say what they are in `facts`, what they cost in `timing`."""

    folder: Path
    facts: dict[str, Any] = field(default_factory=dict)
    timing: dict[str, Any] = field(default_factory=dict)

    def file(self, name: str) -> Path:
        """Where to write an output of this name."""
        return self.folder / name

    def write_json(self, name: str, value: Any) -> None:
        """Write an output as JSON."""
        write_json(self.file(name), value)


def finished(path: Path) -> bool:
    """Whether an entry's folder holds its card, which is written last."""
    return (path / CARD).exists()


def open_entry(path: Path) -> Entry:
    """Open the entry at `path` by its `entry.json`; raises StoreError if there is none."""
    if not (path / ENTRY).exists():
        raise StoreError(
            f"{path}: no {ENTRY} there; write the entries of an experiment with "
            "`python -m robust_transfer entries --write`"
        )
    described = read_json(path / ENTRY)
    return Entry(path, described["stage"], described["settings"], described["inputs"])


def write_json(path: Path, value: Any) -> None:
    """Write JSON with a stable layout, in one piece."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a file in one piece: a reader sees the old one or the new one."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file in one piece: a reader sees the old one or the new one.

    A write that fails leaves nothing behind; raises StoreError, with the space that is free, where the disk refuses it.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        draft.write_bytes(content)
        _flush(draft)
        draft.replace(path)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise refused(path, len(content), error) from error
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    _flush(path.parent)


def refused(path: Path, size: int, error: OSError) -> StoreError:
    """What to raise where the disk did not take so many bytes."""
    free = shutil.disk_usage(path.parent).free
    return StoreError(
        f"{path}: {size:,} bytes could not be written ({error.strerror or error}; {free:,} bytes are free)"
    )


def sha256(path: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_json(path: Path) -> Any:
    """A JSON file's content; raises StoreError if it is missing or damaged."""
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise StoreError(f"{path}: missing") from None
    except json.JSONDecodeError as error:
        raise StoreError(f"{path}: not JSON ({error}); move {path.parent} aside and make it again") from None


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def process_memory_mb() -> float:
    """Most memory of this process so far, in MiB; pages of mapped files that it has read are counted."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # in KiB, on macOS in bytes
    return round(peak / (1024 if platform.system() != "Darwin" else 1024**2), 1)


def _cluster_job() -> str:
    job = os.environ.get("SLURM_JOB_ID")
    return f", SLURM job {job}" if job else ""

"""The store: entries, their cards, their locks, and how outputs appear in one piece.

An entry is a folder `store/<stage>/<name>-<hash>/` with `entry.json` (the settings that define it and the entries it is
made from), its outputs, `timing.json` (seconds, memory, device, commit) and `card.json` (what it is: checksums, facts,
what it was made from and by, versions; no times). The card is written last: an entry with a card is finished. All but
`entry.json` are links to files in `.finished`, which outlives what Snakemake deletes (see `finished`).
"""

from __future__ import annotations

import fcntl
import json
import logging
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

from robust_transfer.registry import STAGES
from robust_transfer.store import finished as kept
from robust_transfer.store.definitions import CODE, record_definitions
from robust_transfer.store.fingerprint import fingerprint, module_fingerprints
from robust_transfer.store.finished import CARD as CARD
from robust_transfer.store.finished import DRAFT as DRAFT
from robust_transfer.store.finished import FINISHED as FINISHED
from robust_transfer.store.finished import TIMING as TIMING
from robust_transfer.store.finished import flush
from robust_transfer.store.finished import sha256 as sha256
from robust_transfer.store.provenance import software, versions

ENTRY, LOCK, STATE = "entry.json", ".lock", ".state"
GPU = "ROBUST_TRANSFER_GPU"
"""Environment variable with the GPUs that this job works on, as JSON, for `timing.json`."""

log = logging.getLogger("robust_transfer")


class StoreError(RuntimeError):
    """Something in the store is missing, altered or in use; the message names it and the fix."""


class EntryInUseError(StoreError):
    """Another process is writing the entry."""


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
        if not entry._published(CARD).exists():
            raise StoreError(f"{entry.path}: not made yet (no {CARD}), and {self.path} needs it: make it first")
        return entry

    def card(self) -> dict[str, Any]:
        """The entry's `card.json`."""
        card: dict[str, Any] = read_json(self._published(CARD))
        return card

    def facts(self) -> dict[str, Any]:
        """What the stage recorded about its outputs: classes, counts, origin, …"""
        facts: dict[str, Any] = self.card()["facts"]
        return facts

    def file(self, name: str, *, checksum: bool = True) -> Path:
        """Path of an output, after checking its size and, unless told otherwise, its SHA-256 against the card.

        Raises StoreError for a file that is not in the card, is missing, or is not the file the card describes.
        """
        path, recorded = self._published(name), self.card()["files"].get(name)
        if recorded is None:
            raise StoreError(f"{path}: not in {self.path / CARD}, which lists {', '.join(self.card()['files'])}")
        if not path.exists():
            raise StoreError(f"{path}: listed in {CARD} but missing; {renewing(self.path)}")
        size = path.stat().st_size
        if size != recorded["bytes"]:
            raise StoreError(
                f"{path}: {size} bytes that are not the {recorded['bytes']} bytes its {CARD} describes; "
                f"the file was altered or cut short: {renewing(self.path)}"
            )
        if checksum and sha256(path) != recorded["sha256"]:
            raise StoreError(
                f"{path}: its checksum (SHA-256) is not the one in its {CARD}; "
                f"the file was altered or damaged: {renewing(self.path)}"
            )
        return path

    def _published(self, name: str) -> Path:
        """Where a file of the entry is read: where it was published, or as it was kept if Snakemake has deleted it."""
        path, finished = self.path / name, self.path / FINISHED / name
        return finished if not path.exists() and finished.exists() else path

    @contextmanager
    def locked(self, *, wait: bool = True) -> Iterator[None]:
        """Hold the entry's exclusive lock.

        If another process has it, a line says which, and this one waits; without `wait` EntryInUseError is raised.
        """
        with open(self.path / LOCK, "a+") as lock:
            try:
                fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                lock.seek(0)
                holder = lock.read().strip() or "an unnamed process"
                if not wait:
                    raise EntryInUseError(
                        f"{self.path}: {holder} is writing this entry; wait for it, or stop it"
                    ) from None
                log.info("%s: %s is writing this entry; waiting for it", self.path, holder)
                fcntl.lockf(lock, fcntl.LOCK_EX)
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
            for left in self.path.glob(".*.*"):  # of a process that was killed while it wrote them
                if left.suffix[1:].isdigit():
                    shutil.rmtree(left) if left.is_dir() else left.unlink(missing_ok=True)
            folder.mkdir()
            draft, start = Draft(folder), time.monotonic()
            # Asked first: what is checked out may change while a long job runs.
            made_by = {"code": fingerprint(self.stage), "modules": module_fingerprints(self.stage)}
            made_by["inputs"], made_with = kept.contents(self._store, self.inputs), software()
            record_definitions(self._store / CODE, self.stage)
            try:
                yield draft
                self._publish(draft, time.monotonic() - start, made_by, made_with)
            finally:
                shutil.rmtree(folder, ignore_errors=True)

    def _publish(self, draft: Draft, seconds: float, made_by: dict[str, Any], made_with: dict[str, str]) -> None:
        files = sorted(path for path in draft.folder.iterdir())
        for path in files:
            flush(path)
        card = {
            "entry": f"{self.stage}/{self.name}",
            "files": {path.name: {"bytes": path.stat().st_size, "sha256": sha256(path)} for path in files},
            "facts": draft.facts,
            **made_by,
            "provenance": versions(),
        }
        timing = {"seconds": round(seconds, 3), "peak_memory_mb": process_memory_mb(), **draft.timing}
        timing |= {"provenance": made_with, **({"gpu": json.loads(gpu)} if (gpu := os.environ.get(GPU)) else {})}
        write_json(draft.file(TIMING), timing)
        write_json(draft.file(CARD), card)
        kept.keep(self.path, draft.folder, aside=self._expensive)
        kept.publish(self.path)
        shutil.rmtree(self.path / STATE, ignore_errors=True)  # of a job that is now done

    def publish_finished(self) -> bool:
        """Publish once more what the entry keeps, if that is still what it is to be; False if it is to be made.

        That is, if it was made from the inputs as they are now and, for a cheap stage, by today's code. The caller
        must hold the lock. Raises StoreError if an expensive entry's files were altered: nothing is made anew, or
        lost, unless somebody says so.
        """
        kept.recover(self.path)
        if not self.is_kept():
            return False
        kept.publish(self.path)
        shutil.rmtree(self.path / STATE, ignore_errors=True)
        return True

    def is_kept(self) -> bool:
        """Whether what the entry keeps is what it is to be; raises StoreError as `publish_finished` does."""
        card = kept.kept_card(self.path)
        if card is None or not kept.same_inputs(card, kept.contents(self._store, self.inputs)):
            return False
        if not self._expensive and card.get("code") != fingerprint(self.stage):
            return False
        if altered := kept.damaged(self.path / FINISHED, card):
            told = f"{self.path / FINISHED}: altered or missing: {', '.join(altered)}"
            if self._expensive:
                raise StoreError(f"{told}; {renewing(self.path)}")
            log.warning("%s; it is made again", told)
            return False
        return True

    @property
    def _store(self) -> Path:
        return self.path.parent.parent

    @property
    def _expensive(self) -> bool:
        return self.stage in STAGES and STAGES[self.stage].expensive


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


def renewing(path: Path) -> str:
    """What to do about an entry that is not as it should be."""
    return f"to make it anew: robust-transfer store renew {path}"


def open_entry(path: Path) -> Entry:
    """Open the entry at `path` by its `entry.json`; raises StoreError if there is none, or it is not one."""
    if not (path / ENTRY).exists():
        raise StoreError(
            f"{path}: no {ENTRY} there; write the entries of an experiment with `robust-transfer entries --write`"
        )
    described = read_json(path / ENTRY)
    try:
        return Entry(path, described["stage"], described["settings"], described["inputs"])
    except (KeyError, TypeError):
        raise StoreError(
            f"{path / ENTRY}: not a description of an entry (no stage, settings or inputs); delete the file, "
            "and the next run writes it again"
        ) from None


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
        flush(draft)
        draft.replace(path)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise refused(path, len(content), error) from error
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    flush(path.parent)


def refused(path: Path, size: int, error: OSError) -> StoreError:
    """What to raise where the disk did not take so many bytes."""
    free = shutil.disk_usage(path.parent).free
    return StoreError(
        f"{path}: {size:,} bytes could not be written ({error.strerror or error}; {free:,} bytes are free)"
    )


def read_json(path: Path) -> Any:
    """A JSON file's content; raises StoreError if it is missing or damaged."""
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise StoreError(f"{path}: missing") from None
    except json.JSONDecodeError as error:
        fix = "delete the file, and the next run writes it again" if path.name == ENTRY else renewing(path.parent)
        raise StoreError(f"{path}: not JSON ({error}); {fix}") from None


def process_memory_mb() -> float:
    """Most memory of this process so far, in MiB; pages of mapped files that it has read are counted."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # in KiB, on macOS in bytes
    return round(peak / (1024 if platform.system() != "Darwin" else 1024**2), 1)


def _cluster_job() -> str:
    job = os.environ.get("SLURM_JOB_ID")
    return f", SLURM job {job}" if job else ""

"""What is done to a store by hand: have an entry made anew, and check that all files are as their cards describe."""

from __future__ import annotations

import fcntl
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from robust_transfer.store.entry import CARD, ENTRY, LOCK, StoreError, open_entry, write_bytes
from robust_transfer.store.finished import FINISHED, damaged, free_name, kept_card, missing_outputs, read_card

MOVED_ASIDE = re.compile(r"\.old\d+$")
"""End of the name of an entry that `store renew`, or a job that made it anew, has moved aside."""


def renew(path: Path) -> Path:
    """Move the entry at `path` aside, with all it holds, so that it is made anew; return where it lies now.

    Raises StoreError if there is no entry, or a process is writing it.
    """
    if not (path / ENTRY).exists():
        raise StoreError(
            f"{path}: no {ENTRY} there, so it is no entry; `store renew` takes store/<stage>/<name>-<hash>"
        )
    described = (path / ENTRY).read_bytes()
    try:
        entry = open_entry(path)
    except StoreError:  # broken: the next run describes it again
        described = b""
    else:
        with entry.locked(wait=False):
            pass
    aside = free_name(path)
    path.rename(aside)
    if described:
        path.mkdir()
        write_bytes(path / ENTRY, described)
    return aside


def holder(path: Path) -> str:
    """The process that is writing the entry at `path`, as it names itself; empty if none is.

    Asked by trying a shared lock, which the writer's excludes.
    """
    if not (path / LOCK).exists():
        return ""
    with open(path / LOCK) as lock:
        try:
            fcntl.lockf(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return lock.read().strip() or "an unnamed process"
    return ""


def entries_in(paths: Iterable[Path]) -> Iterator[Path]:
    """The entries among these paths, and those of the stores among them; raises StoreError for anything else."""
    for path in paths:
        if (path / ENTRY).exists():
            yield path
            continue
        found = sorted(file.parent for file in path.glob(f"*/*/{ENTRY}"))
        if not found:
            raise StoreError(f"{path}: neither an entry nor a store with entries")
        yield from found


def faults(path: Path) -> list[str]:
    """What is wrong with an entry's files, one line each. Reads all of them, as they are published and as kept."""
    card = read_card(path)
    if card is None:
        broken = (path / CARD).exists()
        return [f"{path / CARD}: not readable"] if broken else []
    missing = missing_outputs(path, card)
    lines = [f"{path / name}: missing; the next run publishes it again" for name in missing if kept_card(path)]
    lines += [f"{path / name}: missing" for name in missing if not kept_card(path)]
    lines += [f"{path / name}: not as {CARD} describes" for name in damaged(path, card) if name not in missing]
    if kept := kept_card(path):
        shared = {name for name in kept["files"] if _is_one(path / name, path / FINISHED / name)}
        separate = {"files": {name: one for name, one in kept["files"].items() if name not in shared}}
        lines += [f"{path / FINISHED / name}: not as {CARD} describes" for name in damaged(path / FINISHED, separate)]
    return lines


def _is_one(published: Path, kept: Path) -> bool:
    """Whether both are names of one file, which is then read once."""
    return published.exists() and kept.exists() and published.samefile(kept)

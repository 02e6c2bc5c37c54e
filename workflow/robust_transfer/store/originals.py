"""What an entry was made from outside the store: `originals.json` beside its card, and what differs from it by now.

A record names files with their sizes, times of change and, of sets up to 4 GB, checksums; of very many files it has
their folders alone. It is neither an output nor part of a card: it changes no content, and entries without one are
believed. To compare is cheap: files are looked at, and read only where a size is the same and the time is another.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from robust_transfer.store.entry import write_text
from robust_transfer.store.finished import sha256

ORIGINALS = "originals.json"
FILES = 50_000
"""Up to so many files are recorded one by one."""
HASHED_BYTES = 4 * 2**30
"""Sets up to this size get checksums: 2 to 4 s."""
NAMED = 3
"""Differences that a line names at most."""

Wanted = Callable[[str], bool]
"""Whether a file is recorded, by its path below the root."""


def record(root: Path, wanted: Wanted) -> dict[str, Any]:
    """The files below a folder, or one file, as they are now: what `originals.json` holds."""
    found = dict(_files(root, wanted))
    if len(found) > FILES:
        return {"root": str(root.absolute()), "folders": dict(_folders(root))}
    hashed = sum(size for size, _ in found.values()) <= HASHED_BYTES
    files = {name: [*seen, _checksum(_below(root, name)) if hashed else None] for name, seen in found.items()}
    return {"root": str(root.absolute()), "files": files}


def write_record(path: Path, recorded: dict[str, Any]) -> None:
    """Write `originals.json` into an entry; in ASCII, since names of files need not be UTF-8."""
    write_text(path / ORIGINALS, json.dumps(recorded, indent=1) + "\n")


def differences(path: Path, root: Path | None, wanted: Wanted) -> list[str]:
    """What is other by now than the entry at `path` recorded, one thing each: a few, with how many more there are.

    `root` is where the originals are by now; None: where they were. Nothing differs where there is no record, or where
    the originals are gone altogether, since they are not needed once an entry is made.
    """
    try:
        recorded = json.loads((path / ORIGINALS).read_text())
        before = Path(recorded["root"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return []
    root = root or before
    if not root.exists():
        return []
    moved = root.absolute() != before
    found = _other_folders(recorded["folders"], root, moved) if "folders" in recorded else []
    if "files" in recorded:
        found = [*_other_files(recorded["files"], root, wanted, moved)]
    more = [f"and {len(found) - NAMED} more"] if len(found) > NAMED else []
    return [*found[:NAMED], *more]


def _other_files(before: dict[str, Any], root: Path, wanted: Wanted, moved: bool) -> Iterator[str]:
    now = dict(_files(root, wanted))
    yield from (f"{name} is gone" for name in before if name not in now)
    yield from (f"{name} is new" for name in now if name not in before)
    for name, (size, changed, checksum) in before.items():
        if name not in now:
            continue
        if now[name][0] != size:
            yield f"{name} has {now[name][0]:,} bytes and had {size:,}"
        elif now[name][1] != changed and checksum is None and not moved:
            yield f"{name} was written anew since"
        elif now[name][1] != changed and checksum is not None and _checksum(_below(root, name)) != checksum:
            yield f"{name} has other content"


def _other_folders(before: dict[str, Any], root: Path, moved: bool) -> list[str]:
    """Folders in which files came or went; what was written within a file goes unseen here."""
    now = dict(_folders(root))
    found = [f"{name}/ is gone" for name in before if name not in now]
    found += [f"{name}/ is new" for name in now if name not in before]
    for name, (count, changed) in before.items():
        if name in now and now[name][0] != count:
            found.append(f"{name}/ holds {now[name][0]:,} files and held {count:,}")
        elif name in now and now[name][1] != changed and not moved:
            found.append(f"{name}/ was changed since")
    return found


def _files(root: Path, wanted: Wanted) -> Iterator[tuple[str, tuple[int, int]]]:
    """Size in bytes and time of change in nanoseconds, by path below the root; of one file, by its name."""
    if root.is_file():
        status = root.stat()
        yield root.name, (status.st_size, status.st_mtime_ns)
        return
    for folder, names in _walk(root):
        for name in names:
            path = os.path.join(folder, name)  # noqa: PTH118, strings: there may be a million
            below = os.path.relpath(path, root)
            if not wanted(below):
                continue
            try:
                status = os.stat(path)  # noqa: PTH116
            except OSError:  # a link to nothing; the stage names it if it is an image
                continue
            yield below, (status.st_size, status.st_mtime_ns)


def _folders(root: Path) -> Iterator[tuple[str, tuple[int, int]]]:
    for folder, names in _walk(root):
        yield os.path.relpath(folder, root), (len(names), os.stat(folder).st_mtime_ns)  # noqa: PTH116


def _walk(root: Path) -> Iterator[tuple[str, list[str]]]:
    """Folders and the names of the files in them; hidden ones are left out, links are followed, once."""
    seen = set()
    for folder, below, names in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        below[:] = sorted(name for name in below if not name.startswith(".")) if real not in seen else []
        if real not in seen:
            seen.add(real)
            yield folder, sorted(name for name in names if not name.startswith("."))


def _checksum(path: Path) -> str | None:
    """None for a file that cannot be read."""
    try:
        return sha256(path)
    except OSError:
        return None


def _below(root: Path, name: str) -> Path:
    return root if root.is_file() else root / name

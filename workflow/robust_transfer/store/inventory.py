"""What a store holds: sizes, ages and states of its entries, and what is made from what."""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from robust_transfer.quantities import duration, size
from robust_transfer.registry import STAGES
from robust_transfer.store.entry import ENTRY, StoreError, finished, read_json
from robust_transfer.store.finished import CARD, FINISHED, TIMING, entry_name
from robust_transfer.store.upkeep import MOVED_ASIDE, holder

ORDERS = ("size", "age", "name")


@dataclass(frozen=True)
class Listed:
    """One entry as `store list` shows it."""

    path: Path
    state: str
    """`finished`, `unfinished`, `moved aside`, or who is writing it."""
    size: int
    """Bytes on the disk, as `size_of` counts them."""
    age: float
    """Seconds since it was finished or, if it is not, described."""

    @property
    def stage(self) -> str:
        """Folder of the store that it lies in."""
        return self.path.parent.name


def listed(path: Path) -> Listed:
    """What the entry at `path` holds."""
    made = next((path / name for name in (f"{FINISHED}/{CARD}", CARD, ENTRY) if (path / name).exists()), path)
    return Listed(path, _state(path), size_of(path), time.time() - made.stat().st_mtime)


def size_of(path: Path) -> int:
    """Bytes that an entry has on the disk; of several names of one file (hard links) one is counted."""
    return sum(_files(path).values())


def table(entries: Iterable[Listed], order: str = "size", totals: bool = False) -> Iterator[str]:
    """Lines: entries by stage in this order (largest, oldest or by name first), a total of each stage, and of all."""
    of_stage: dict[str, list[Listed]] = defaultdict(list)
    for one in entries:
        of_stage[one.stage].append(one)
    by = {"size": lambda one: -one.size, "age": lambda one: -one.age, "name": lambda one: one.path.name}[order]
    for stage in sorted(of_stage, key=lambda name: ([*STAGES, name].index(name), name)):
        for one in sorted(of_stage[stage], key=by) if not totals else ():
            yield f"{size(one.size):>9}  {duration(one.age):>7}  {one.state:<11}  {one.stage}/{one.path.name}"
        yield f"{_total(of_stage[stage])}  {stage}"
    yield f"{_total([one for found in of_stage.values() for one in found])}  in all"


def uses(store: Path) -> dict[str, list[str]]:
    """By entry, as a path below the store: the finished entries that are made from it."""
    found: dict[str, list[str]] = defaultdict(list)
    for path in sorted(file.parent for file in store.glob(f"*/*/{ENTRY}")):
        if MOVED_ASIDE.search(path.name) or not finished(path):
            continue
        for one in _inputs(path):
            found[one].append(entry_name(path))
    return found


def seconds(path: Path) -> float:
    """What making the entry took; 0 if that is not recorded."""
    for timing in (path / TIMING, path / FINISHED / TIMING):
        try:
            return float(read_json(timing)["seconds"])
        except (StoreError, KeyError, TypeError, ValueError):
            continue
    return 0.0


def _state(path: Path) -> str:
    if writer := holder(path):
        return f"written by {writer}"
    if MOVED_ASIDE.search(path.name):
        return "moved aside"
    return "finished" if finished(path) or (path / FINISHED / CARD).exists() else "unfinished"


def _total(entries: Sequence[Listed]) -> str:
    unfinished = sum(one.state == "unfinished" for one in entries)
    told = [f"{len(entries)} entries", *([f"{unfinished} unfinished"] if unfinished else [])]
    written = sum(one.state.startswith("written by") for one in entries)
    told += [f"{written} being written"] if written else []
    return f"{size(sum(one.size for one in entries)):>9}  {', '.join(told)}"


def _files(folder: Path) -> dict[tuple[int, int], int]:
    """Sizes in bytes of the files below a folder, each file once whatever its names."""
    found = {}
    for path, _, names in os.walk(folder):
        for name in names:
            try:
                status = (Path(path) / name).lstat()
            except FileNotFoundError:  # of a job that is under way
                continue
            found[status.st_dev, status.st_ino] = status.st_size
    return found


def _inputs(path: Path) -> list[str]:
    try:
        return [str(one) for one in read_json(path / ENTRY)["inputs"].values()]
    except (StoreError, KeyError, TypeError, AttributeError):
        return []

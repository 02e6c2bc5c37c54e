"""Remove entries from a store: what that would free, what it would cost to have them back, and the removal itself."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from robust_transfer.quantities import duration, size
from robust_transfer.registry import STAGES
from robust_transfer.store.entry import ENTRY, Entry, StoreError
from robust_transfer.store.finished import entry_name
from robust_transfer.store.inventory import Listed, listed, seconds, uses
from robust_transfer.store.upkeep import holder

REMOVING = ".removing"
"""Folder of the store from which a removed entry's files are deleted: by one rename it is gone from its place."""


@dataclass(frozen=True)
class Removal:
    """One entry that is to be removed."""

    entry: Listed
    seconds: float
    """Of work that it took to make."""
    users: tuple[str, ...]
    """Finished entries that are made from it and stay."""

    def __str__(self) -> str:
        told = [f"{self.entry.path}: {size(self.entry.size)}, {self.entry.state}"]
        if self.entry.state == "finished":
            kind = STAGES[self.entry.stage].kind if self.entry.stage in STAGES else "of no stage"
            told.append(f"{kind}, took {duration(self.seconds)} to make")
        if self.users:
            stages = Counter(user.partition("/")[0] for user in self.users)
            named = ", ".join(f"{stage} {number}" for stage, number in stages.items())
            told.append(f"finished entries made from it stay: {named}; a run that needs those makes it again first")
        return "; ".join(told)


def planned_removals(paths: Sequence[Path]) -> list[Removal]:
    """What removing these entries means.

    Raises StoreError if one of them is no entry, or a process is writing it.
    """
    paths = list(dict.fromkeys(path.absolute() for path in paths))
    for path in paths:
        if not (path / ENTRY).exists():
            raise StoreError(f"{path}: no {ENTRY} there, so it is no entry; `store list` shows those that are")
        if writer := holder(path):
            raise StoreError(f"{path}: {writer} is writing this entry; wait for it, or stop it")
    gone = {entry_name(path) for path in paths}
    used = {store: uses(store) for store in {path.parent.parent for path in paths}}
    return [
        Removal(
            listed(path),
            seconds(path),
            tuple(one for one in used[path.parent.parent][entry_name(path)] if one not in gone),
        )
        for path in paths
    ]


def summed_up(removals: Sequence[Removal]) -> str:
    """One line on all of them."""
    finished = [one for one in removals if one.entry.state == "finished"]
    return (
        f"{len(removals)} entries, {size(sum(one.entry.size for one in removals))}; to have what is finished of "
        f"them back would take {duration(sum(one.seconds for one in finished))} of work"
    )


def remove(path: Path) -> None:
    """Remove one entry; raises StoreError if a process is writing it. At each moment it is there whole, or gone."""
    folder = path.parent.parent / REMOVING
    folder.mkdir(exist_ok=True)
    aside = folder / f"{path.parent.name}-{path.name}"
    shutil.rmtree(aside, ignore_errors=True)  # of a removal that was killed
    with Entry(path, path.parent.name, {}, {}).locked(wait=False):
        path.rename(aside)
    shutil.rmtree(aside)
    if not any(folder.iterdir()):
        folder.rmdir()

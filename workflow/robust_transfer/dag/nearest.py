"""What distinguishes an entry that is not made from the finished one that is nearest to it: settings, and inputs.

Nearest is, among finished entries of the same readable name, that with the fewest other settings. Where none has that
name, it is looked for among those made from the same inputs, and then among all of the stage.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from robust_transfer.configuration.base import kept
from robust_transfer.dag.grid import PlannedEntry
from robust_transfer.store.entry import ENTRY
from robust_transfer.store.finished import read_card

MANY = 200
"""Among more finished entries than this nothing of another name and other inputs is looked for."""
SHOWN = 60
"""Characters of a value that are shown."""
NOTHING = object()


@dataclass(frozen=True)
class Finished:
    """A finished entry of the store, as its `entry.json` describes it."""

    folder: str
    settings: Mapping[str, Any]
    inputs: Mapping[str, str]

    @property
    def name(self) -> str:
        """Readable name, without the hash."""
        return self.folder.rpartition("-")[0]


@dataclass(frozen=True)
class Nearest:
    """How an entry that is not made differs from a finished one."""

    entry: Finished
    settings: tuple[str, ...]
    """`training.epochs: 5 → 6`, for each setting that is another."""
    inputs: tuple[str, ...]
    """Roles of the inputs that are other entries."""


class Store:
    """The finished entries of a store, each read once and only when its stage is asked about."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stages: dict[str, list[Finished]] = {}
        self._indices: dict[tuple[str, str], dict[object, list[Finished]]] = {}

    def nearest(self, entry: PlannedEntry) -> Nearest | None:
        """The finished entry that is nearest to one that is not made; None if there is none to compare with."""
        candidates = self._by("name", entry.stage).get(entry.name)
        if not candidates:
            inputs = frozenset((role, one.id) for role, one in entry.inputs.items())
            candidates = self._by("inputs", entry.stage).get(inputs)
        if not candidates and len(self._finished(entry.stage)) <= MANY:
            candidates = self._finished(entry.stage)
        compared = [_compared(one, entry) for one in candidates or ()]
        return min(compared, key=lambda one: len(one.settings) + len(one.inputs), default=None)

    def _finished(self, stage: str) -> list[Finished]:
        if stage not in self._stages:
            self._stages[stage] = list(_read(self._path / stage))
        return self._stages[stage]

    def _by(self, what: str, stage: str) -> dict[object, list[Finished]]:
        """Entries by name, or by what they are made from."""
        if (what, stage) not in self._indices:
            index = self._indices[what, stage] = defaultdict(list)
            for one in self._finished(stage):
                index[one.name if what == "name" else frozenset(one.inputs.items())].append(one)
        return self._indices[what, stage]


def _read(folder: Path) -> Iterator[Finished]:
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if "." in path.name.rpartition("-")[2] or read_card(path) is None:  # moved aside, or not finished
            continue
        try:
            described = json.loads((path / ENTRY).read_text())
            yield Finished(path.name, dict(described["settings"]), dict(described["inputs"]))
        except (OSError, ValueError, KeyError, TypeError):
            continue


def _compared(before: Finished, now: PlannedEntry) -> Nearest:
    settings = _differing(before.settings, kept(now.settings), now.settings.identity)
    inputs = {role: one.id for role, one in now.inputs.items()}
    other = tuple(role for role in sorted({*inputs, *before.inputs}) if inputs.get(role) != before.inputs.get(role))
    return Nearest(before, tuple(settings), other)


def _differing(before: Any, now: Any, hashed: Any, key: str = "") -> Iterator[str]:
    """Settings, at any depth, that are another: those that did not exist before only if they are in the hash."""
    if not (isinstance(before, Mapping) and isinstance(now, Mapping)):
        if before != now:
            yield f"{key}: {_shown(before)} → {_shown(now)}"
        return
    hashed = hashed if isinstance(hashed, Mapping) else {}
    for name in sorted({*before, *now}):
        if name in before or name in hashed:
            inner = f"{key}.{name}" if key else name
            yield from _differing(before.get(name, NOTHING), now.get(name, NOTHING), hashed.get(name), inner)


def _shown(value: Any) -> str:
    text = "none" if value is NOTHING or value is None else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 1]}…"

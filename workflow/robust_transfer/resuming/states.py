"""States of a training under way: saved whole, checked when read, and bound to what they belong to.

They lie in the entry's folder `.state`, outside the outputs that Snakemake deletes before a job. A state is one
safetensors file whose name ends in the SHA-256 of its content: written beside, flushed, then renamed. The last two are
kept, so that a damaged one costs the time between two saves. They go when the entry's outputs are in place.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from robust_transfer.configuration.running import running
from robust_transfer.machine.devices import device_name
from robust_transfer.machine.distributed import ALONE, ProcessGroup
from robust_transfer.resuming.interruption import Interrupted, Interruption
from robust_transfer.store.entry import STATE, Entry, StoreError, write_bytes
from robust_transfer.store.fingerprint import changed_modules, module_fingerprints

log = logging.getLogger("robust_transfer")

KEPT = 2
"""States that are kept."""
SHARE = 0.05
"""Most of the time that may go into saving: a save that takes long is followed by a longer pause."""
_NAME = re.compile(r"step-(\d+)-([0-9a-f]{16})\.safetensors")
_KEY = "state"


@dataclass(frozen=True)
class State:
    """What a training needs to go on as if nothing had happened."""

    tensors: dict[str, Tensor]
    """Weights, velocities, sums: by name, on the CPU."""
    progress: dict[str, Any]
    """Where the training stands, as JSON values."""


class States:
    """The states of one entry's training, and when to save them.

    `entry` must be locked by the caller (`Entry.writing`). With `other_code` a state is taken that other code saved.
    `resumed` lists, for the card, what a state that was taken differed in.
    """

    def __init__(
        self,
        entry: Entry,
        *,
        every: float,
        interruption: Interruption,
        setting: Mapping[str, Any],
        other_code: bool = False,
        team: ProcessGroup = ALONE,
    ) -> None:
        """`every` is in seconds; `setting` says on what this training runs: device, threads, processes."""
        self._folder, self._entry, self._team = entry.path / STATE, entry, team
        self._every, self._interruption, self._other_code = every, interruption, other_code
        self._setting = {"torch": str(torch.__version__), **setting}
        self._code = module_fingerprints(entry.stage)
        self._next = time.monotonic() + every
        self.resumed: list[dict[str, Any]] = []

    def load(self) -> State | None:
        """The newest state that is whole, None if there is none.

        Raises StoreError if it belongs to another entry, or to other code unless that was allowed.
        """
        if self._team.is_main and self._folder.is_dir():
            for draft in self._folder.glob(".step-*"):  # of a save that was killed
                draft.unlink(missing_ok=True)
        found = sorted(self._found(), reverse=True)
        for number, (step, path) in enumerate(found):
            state = _read(path)
            if state is None:
                rest = f"the one of step {found[number + 1][0]} is used" if number + 1 < len(found) else "starting over"
                log.warning("%s: cut short or altered; %s", path, rest)
                continue
            self._check(path, state.progress)
            log.info("going on at step %d, saved in %s", step, path)
            return state
        return None

    def save(self, step: int, tensors: Mapping[str, Tensor], progress: Mapping[str, Any]) -> bool:
        """Save the state after `step` steps; False, with an error in the log, if the disk does not take it.

        The states before it stay until it is safe.
        """
        if not self._team.is_main:
            return True
        from safetensors.torch import save as serialised

        start = time.monotonic()
        described = json.dumps({**progress, "own": self._own(), "resumed": self.resumed}, sort_keys=True)
        content = serialised(
            {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, {_KEY: described}
        )
        path = self._folder / f"step-{step:010d}-{_digest(content)}.safetensors"
        try:
            self._folder.mkdir(exist_ok=True)
            write_bytes(path, content)
        except (StoreError, OSError) as error:
            log.error("state not saved, training goes on, and the last good state stays: %s", error)
            self._next = time.monotonic() + self._every
            return False
        for _, old in sorted(self._found())[:-KEPT]:
            old.unlink(missing_ok=True)
        now = time.monotonic()
        self._next = now + max(self._every, (now - start) / SHARE) if self._every else 0.0
        return True

    def wanted(self) -> str | None:
        """`stop` if this training, in any process, is to save and leave; `save` if a save is due; else None."""
        due = self._team.is_main and time.monotonic() >= self._next
        asked = 2 if self._interruption.reason else int(due)
        return (None, "save", "stop")[self._team.largest(asked)]

    def leave(self, step: int, saved: bool) -> Interrupted:
        """The exception with which a training leaves."""
        why = self._interruption.reason or "another process was asked to stop"
        kept = f"saved at step {step}" if saved else "NOT saved, the last good state stays"
        return Interrupted(f"{why}: {kept}; run the same command to go on")

    def _own(self) -> dict[str, Any]:
        return {"entry": self._entry.name, "code": self._code, "setting": self._setting}

    def _found(self) -> list[tuple[int, Path]]:
        if not self._folder.is_dir():
            return []
        matches = ((path, _NAME.fullmatch(path.name)) for path in self._folder.iterdir())
        return [(int(match[1]), path) for path, match in matches if match]

    def _check(self, path: Path, progress: dict[str, Any]) -> None:
        own = progress.pop("own")
        self.resumed = progress.pop("resumed")
        if own["entry"] != self._entry.name:
            raise StoreError(f"{path}: a state of {own['entry']}, not of {self._entry.name}; move {self._folder} aside")
        differing: dict[str, Any] = {}
        if own["code"] != self._code:
            changed = sorted(changed_modules(own["code"], self._code))
            if not self._other_code:
                raise StoreError(
                    f"{path}: saved by other code (changed since: {', '.join(changed)}); to go on with today's code, "
                    f"which the card will then say, use --other-code or running.other_code: true; to start over, move "
                    f"{self._folder} aside"
                )
            differing["code"] = changed
        for name, value in self._setting.items():
            before = own["setting"].get(name)
            if before != value:
                differing[name] = [before, value]
                log.warning("saved with %s %s, now %s: the result may differ in its last bits", name, before, value)
        if differing:
            self.resumed.append(differing)


@contextmanager
def states_of(entry: Entry, *, device: str, threads: int, team: ProcessGroup = ALONE) -> Iterator[States]:
    """The states of an entry's training as the job's settings (`running`) want them; signals are heard inside."""
    how = running()
    setting = {"device": device_name(device), "threads": threads, "processes": team.size}
    with Interruption(how.deadline) as interruption:
        yield States(
            entry,
            every=how.save_seconds,
            interruption=interruption,
            setting=setting,
            other_code=how.other_code,
            team=team,
        )


def _read(path: Path) -> State | None:
    from safetensors import safe_open
    from safetensors.torch import load

    match = _NAME.fullmatch(path.name)
    content = path.read_bytes()
    if match is None or _digest(content) != match[2]:
        return None
    with safe_open(path, framework="pt") as file:
        described = json.loads(file.metadata()[_KEY])
    return State(load(content), described)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]

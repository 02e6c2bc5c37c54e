"""States of a running training: saved atomically, verified when read, and bound to their entry and code.

They are stored in the entry's folder `.state`, outside the outputs that Snakemake deletes before a job. A state is one
safetensors file whose name ends in the SHA-256 of its content: written under another name, flushed, then renamed. The
last two are kept, so that a damaged one costs only the time between two saves. They are removed once the entry's
outputs are in place.
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
"""Number of states that are kept: the newest, and one in case it is damaged."""
SHARE = 0.05
"""Largest share of the time that may go into saving, as small as noise: after a slow save the next one waits."""
_NAME = re.compile(r"step-(\d+)-([0-9a-f]{16})\.safetensors")
_KEY = "state"


@dataclass(frozen=True)
class State:
    """All that a training needs to continue with the same bits as if it had not stopped."""

    tensors: dict[str, Tensor]
    """Weights, velocities and running sums by name, on the CPU."""
    progress: dict[str, Any]
    """Epoch, step and finished rows, as JSON values."""


class States:
    """The states of one entry's training, and when to save them.

    The caller must hold the entry's lock (`Entry.writing`). `resumed` lists, for the card, how the trainings that saved
    the states it resumed from differed from this one.
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
        """Nothing is read before `load`.

        Args:
            entry: Entry that is trained.
            every: Seconds between saves; 0 saves after every step.
            interruption: Says when to save and exit.
            setting: What the training runs on (device, threads, processes), as JSON values.
            other_code: Whether to resume from a state that other code saved, instead of raising StoreError.
            team: Processes of this training; the main one saves.
        """
        self._folder, self._entry, self._team = entry.path / STATE, entry, team
        self._every, self._interruption, self._other_code = every, interruption, other_code
        self._setting = {"torch": str(torch.__version__), **setting}
        self._code = module_fingerprints(entry.stage)
        self._next = time.monotonic() + every
        self.resumed: list[dict[str, Any]] = []

    def load(self) -> State | None:
        """The newest intact state, or None.

        Raises StoreError if it belongs to another entry, or was saved by other code and `other_code` is False.
        """
        if self._team.is_main and self._folder.is_dir():
            for draft in self._folder.glob(".step-*"):  # left by a save that was killed
                draft.unlink(missing_ok=True)
        saved = sorted(self._saved(), reverse=True)
        for number, (step, path) in enumerate(saved):
            state = _read(path)
            if state is None:
                rest = f"the one of step {saved[number + 1][0]} is used" if number + 1 < len(saved) else "starting over"
                log.warning("%s: cut short or altered; %s", path, rest)
                continue
            self._check(path, state.progress)
            log.info("going on at step %d, saved in %s", step, path)
            return state
        return None

    def save(self, step: int, tensors: Mapping[str, Tensor], progress: Mapping[str, Any]) -> bool:
        """Save the state after `step` steps; False, with an error logged, if it cannot be written.

        Older states stay until it is on disk.
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
        for _, old in sorted(self._saved())[:-KEPT]:
            old.unlink(missing_ok=True)
        now = time.monotonic()
        self._next = now + max(self._every, (now - start) / SHARE) if self._every else 0.0
        return True

    def wanted(self) -> str | None:
        """`stop` if any process of this training is to exit, `save` if a save is due, else None."""
        due = self._team.is_main and time.monotonic() >= self._next
        asked = 2 if self._interruption.reason else int(due)
        return (None, "save", "stop")[self._team.largest(asked)]

    def leave(self, step: int, saved: bool) -> Interrupted:
        """The exception to raise once a training that is to exit has tried to save, and whether it could.

        It has come further, since the steps that are asked after include one of its own.
        """
        why = self._interruption.reason or "another process was asked to stop"
        kept = f"saved at step {step}" if saved else "NOT saved, the last good state stays"
        goes_on = saved and self._interruption.is_out_of_time
        return Interrupted(f"{why}: {kept}; run the same command to go on", goes_on=goes_on)

    def _own(self) -> dict[str, Any]:
        return {"entry": self._entry.name, "code": self._code, "setting": self._setting}

    def _saved(self) -> list[tuple[int, Path]]:
        """(step, path) of each state, intact or not."""
        if not self._folder.is_dir():
            return []
        matches = ((path, _NAME.fullmatch(path.name)) for path in self._folder.iterdir())
        return [(int(match[1]), path) for path, match in matches if match]

    def _check(self, path: Path, progress: dict[str, Any]) -> None:
        own = progress.pop("own")
        self.resumed = progress.pop("resumed")
        if own["entry"] != self._entry.name:
            raise StoreError(
                f"{path}: a state of {own['entry']}, not of {self._entry.name}; to start over: rm -r {self._folder}"
            )
        differing: dict[str, Any] = {}
        if own["code"] != self._code:
            changed = sorted(changed_modules(own["code"], self._code))
            if not self._other_code:
                raise StoreError(
                    f"{path}: saved by other code (changed since: {', '.join(changed)}); to go on with today's code, "
                    f"which the card will then say, use --other-code or running.other_code: true; to start over: "
                    f"rm -r {self._folder}"
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
    """The states of an entry's training under the job's `running` settings; signals are handled inside."""
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

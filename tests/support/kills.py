"""Stages that are killed at any moment and started again: what they end with must be what they end with undisturbed.

    process = start(entry)                          # the stage's command, in a process of its own
    wait_until(process, lambda: saved_steps(entry) >= 3)
    assert process.send(signal.SIGTERM) == EXIT_CODE

    kills = kill_until_done(entry, moment_in_training, random.Random(0), most=8)
    assert_same_outputs(entry, undisturbed)

Processes are forked from this one: they have everything imported already, and start at once.
"""

import json
import logging
import os
import random
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from robust_transfer import cli
from robust_transfer.configuration.running import VARIABLE
from robust_transfer.store.entry import CARD, STATE, Entry, open_entry, read_json

from support.paths import WORKFLOW

EVERY_STEP: Mapping[str, Any] = {"save_seconds": 0}
"""Settings under `running` with which a stage saves after every step or batch."""
NEVER: Mapping[str, Any] = {"save_seconds": 1000}
"""Settings with which it saves only when it is asked to leave."""
POLL_SECONDS = 0.0003  # a state is being written for about a millisecond
UNCAUGHT = 99
"""Exit status of a process that ended with an exception."""

Moment = Callable[[], bool]
"""Whether the moment has come at which a process is to be killed."""


class Process:
    """A fork of this process that calls one function and ends with the status that it returns."""

    def __init__(self, call: Callable[[], int | None], log: Path) -> None:
        """Start it. What it prints and logs is appended to `log`."""
        pid = os.fork()
        if not pid:
            _run(call, log)
        self.pid, self.log = pid, log
        self._status: int | None = None

    def poll(self) -> int | None:
        """Exit status, minus the signal that killed it, or None while it runs."""
        return self._collect(os.WNOHANG)

    def wait(self) -> int:
        """Exit status, or minus the signal that killed it, once it has ended."""
        status = self._collect(0)
        assert status is not None
        return status

    def send(self, number: int) -> int:
        """Send a signal and wait for the end."""
        os.kill(self.pid, number)
        return self.wait()

    def kill(self) -> int:
        """Kill it and wait for the end; 0 if it had ended by itself just before."""
        return self.send(signal.SIGKILL)

    def children(self) -> list[int]:
        """Process ids of the processes that it has started. On Linux alone."""
        return [int(pid) for pid in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()]

    def said(self) -> str:
        """What it, and those before it with the same log, have printed and logged."""
        return self.log.read_text() if self.log.exists() else ""

    def _collect(self, options: int) -> int | None:
        if self._status is None:
            pid, status = os.waitpid(self.pid, options)
            self._status = os.waitstatus_to_exitcode(status) if pid else None
        return self._status


def _run(call: Callable[[], int | None], log: Path) -> NoReturn:
    """Call, in the fork, and end it."""
    status = UNCAUGHT
    try:
        descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        for stream in (1, 2):
            os.dup2(descriptor, stream)
        sys.stdout = sys.stderr = os.fdopen(descriptor, "w", buffering=1)
        logging.getLogger().handlers.clear()
        status = call() or 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def log_of(entry: Entry) -> Path:
    """File with what the processes that `start` started on an entry have said."""
    return entry.path / "test.log"


def said(entry: Entry) -> str:
    """What is in it; empty if there is none."""
    return log_of(entry).read_text() if log_of(entry).exists() else ""


def start(
    entry: Entry,
    *options: str,
    running: Mapping[str, Any] = EVERY_STEP,
    before: Callable[[], object] = lambda: None,
) -> Process:
    """Start an entry's stage, on the CPU with one thread.

    Args:
        entry: What the stage is to make.
        options: More options of its command.
        running: Settings under `running`, as the workflow hands them to a job.
        before: Called in the new process first, to change something there.
    """
    command = [entry.stage, str(entry.path), "--threads", "1", "--device", "cpu", *options]

    def call() -> int:
        os.environ |= {VARIABLE: json.dumps(dict(running)), "PYTHONPATH": str(WORKFLOW)}
        before()
        return cli.main(command)

    return Process(call, log_of(entry))


def finish(entry: Entry, *options: str) -> None:
    """Run the stage to its end, which must be a good one."""
    assert start(entry, *options).wait() == 0, said(entry)


def wait_until(process: Process, reached: Moment, seconds: float = 120) -> None:
    """Wait for a moment that must come while the process runs, and within so many seconds."""
    deadline = time.monotonic() + seconds
    while not reached():
        assert process.poll() is None, process.said()
        assert time.monotonic() < deadline, process.said()
        time.sleep(POLL_SECONDS)


def kill_at(process: Process, reached: Moment, pause: float = 0.0) -> bool:
    """Kill a process `pause` seconds after a moment. False if it ended before, which it must do well."""
    while not reached():
        if (status := process.poll()) is not None:
            assert status == 0, process.said()
            return False
        time.sleep(POLL_SECONDS)
    time.sleep(pause)
    return process.kill() != 0


def kill_until_done(
    entry: Entry,
    moment: Callable[[Entry, random.Random], Moment],
    draws: random.Random,
    *,
    most: int = 50,
    after_kill: Callable[[], object] = lambda: None,
) -> int:
    """Start a stage and kill it, again and again, until it was done before its kill; return the number of kills.

    Args:
        entry: What the stage is to make.
        moment: Draws when it is killed next: `moment_in_training` or `moment_in_features`.
        draws: Random numbers that all of it depends on.
        most: Kills after which it may finish in peace.
        after_kill: Called after each kill, to check what it left.
    """
    for kills in range(most):
        reached = moment(entry, draws)
        if not kill_at(start(entry), reached, draws.choice([0, draws.uniform(0, 0.03)])):
            return kills
        after_kill()
    finish(entry)
    return most


def saved_steps(entry: Entry) -> int:
    """Steps of a training's newest state."""
    return max((int(path.name.split("-")[1]) for path in (entry.path / STATE).glob("step-*")), default=0)


def is_saving(entry: Entry) -> bool:
    """Whether a training is writing a state this moment."""
    return any((entry.path / STATE).glob(".step-*"))


def saved_rows(entry: Entry, bytes_a_row: int = 32) -> int:
    """Rows of training features that have been written: by default of 16 features in half precision."""
    try:
        return (entry.path / STATE / "train.rows").stat().st_size // bytes_a_row
    except FileNotFoundError:
        return 0


def moment_in_training(entry: Entry, draws: random.Random, kind: str | None = None) -> Moment:
    """A moment up to three steps from here: at any point, while a state is written (`save`), or as an `epoch` ends."""
    kind = kind or draws.choice(["any", "any", "save", "epoch"])
    steps, epochs = saved_steps(entry) + draws.randrange(4), said(entry).count(" left")
    if kind == "epoch":
        return lambda: said(entry).count(" left") > epochs
    return lambda: saved_steps(entry) >= steps and (kind == "any" or is_saving(entry))


def moment_in_features(entry: Entry, draws: random.Random) -> Moment:
    """A moment some batches from here, the first of a new entry included."""
    rows = max(saved_rows(entry), 1) + draws.choice([0, 0, 16, 48, 100])
    return lambda: saved_rows(entry) >= rows


def hidden_files(entry: Entry) -> list[str]:
    """Names that are no outputs: the lock, what the entry keeps, and whatever is under way."""
    return sorted(path.name for path in entry.path.iterdir() if path.name.startswith("."))


def outputs(entry: Entry) -> dict[str, bytes]:
    """Content of the files that the entry's card lists, by name."""
    return {name: (entry.path / name).read_bytes() for name in sorted(read_json(entry.path / CARD)["files"])}


def assert_same_outputs(entry: Entry, expected: Entry) -> None:
    """Both are finished, with the same bytes in all outputs and the same facts in the cards, and no state is left."""
    ours, theirs = outputs(entry), outputs(expected)
    assert ours.keys() == theirs.keys()
    for name, content in ours.items():
        assert content == theirs[name], name
    card, other = (read_json(path / CARD) for path in (entry.path, expected.path))
    assert card["files"] == other["files"]
    assert card["facts"] == other["facts"]
    assert hidden_files(entry) == [".finished", ".lock"]


def kills_until(
    number: int, make: Callable[[], Entry], expected: Entry, moment: Callable[..., Moment], draws: random.Random
) -> tuple[int, int]:
    """Make entries under kills until there were so many; each must be as `expected`. Returns (kills, entries)."""
    kills = made = 0
    while kills < number:
        entry = make()
        kills += kill_until_done(entry, moment, draws)
        assert_same_outputs(entry, expected)
        made += 1
    return kills, made


@contextmanager
def locked_elsewhere(path: Path) -> Iterator[int]:
    """Another process holds the lock of the entry at `path`; its number."""
    reader, writer = os.pipe()
    pid = os.fork()
    if not pid:
        with open_entry(path).locked():
            os.write(writer, b"locked")
            signal.pause()
    os.read(reader, 6)
    try:
        yield pid
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)

"""When a job is to save its state and exit before it is done: on a signal, or ahead of a deadline.

SIGTERM (schedulers, `kill`), SIGUSR1 (`sbatch --signal`), SIGINT (Ctrl-C) and SIGHUP (a closed terminal, unless `nohup`
has it ignored) are handled while a job runs: it finishes the current step, saves, and exits with EXIT_CODE. The same
command resumes where it stopped.
"""

from __future__ import annotations

import signal
import time
from types import FrameType
from typing import Any

from robust_transfer.machine.launch import handled_signals
from robust_transfer.resuming.scheduler import end_of_job, is_preempted

EXIT_CODE = 75
"""Exit code of a command that saved its state and exited: EX_TEMPFAIL of sysexits.h, "try again"."""
MARGIN = 120.0
"""Seconds before a scheduler's time limit at which a job saves and exits: a slow step and a large state fit into it."""
SHARE = 0.1
"""Largest share of the time that is left when a job starts to which that comes: a short job works, too."""


class Interrupted(Exception):  # noqa: N818, it is no error
    """The job saved its state and is to exit; the message says why, and where it stopped."""

    def __init__(self, message: str, *, goes_on: bool = False) -> None:
        """Create it.

        Args:
            message: Why, and where it stopped.
            goes_on: Whether the scheduler may start the job again by itself: its time was up, and it had come further.
        """
        super().__init__(message)
        self.goes_on = goes_on


class Interruption:
    """Handles signals inside a `with` block, and watches the clock; `reason` says why to stop."""

    def __init__(self, stop_before: float | None = None) -> None:
        """Create an interruption without a deadline, unless there is one.

        Args:
            stop_before: Deadline in seconds since 1970. None takes the end of the SLURM job, if this is one, less
                MARGIN, or less in a short job.
        """
        self._stop_before = stop_before or _before(end_of_job())
        self._signal: int | None = None
        self._before: dict[int, Any] = {}

    @property
    def is_out_of_time(self) -> bool:
        """Whether the scheduler is why: its limit, by the clock or by the warning that the profile for SLURM asks for,
        or that it wants the node for a job of higher priority.

        SIGTERM otherwise is not: whoever cancels a job wants it to end.
        """
        if self._signal == signal.SIGTERM:
            return is_preempted()
        return self._signal == signal.SIGUSR1 or (self._signal is None and self.reason is not None)

    @property
    def reason(self) -> str | None:
        """Why to stop, or None to go on."""
        if self._signal is not None:
            return f"{signal.Signals(self._signal).name} received"
        if self._stop_before is not None and time.time() >= self._stop_before:
            return "the time limit is near"
        return None

    def __enter__(self) -> Interruption:
        self._before = {number: signal.signal(number, self._handle) for number in handled_signals()}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self._signal = number


def _before(end: float | None) -> float | None:
    """The deadline of a job that ends then."""
    return None if end is None else end - min(MARGIN, max(0.0, end - time.time()) * SHARE)

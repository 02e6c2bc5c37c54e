"""When a job is to save its state and exit before it is done: on a signal, or ahead of a deadline.

SIGTERM (schedulers, `kill`), SIGUSR1 (`sbatch --signal`), SIGINT (Ctrl-C) and SIGHUP (a closed terminal, unless `nohup`
has it ignored) are handled while a job runs: it finishes the current step, saves, and exits with EXIT_CODE. The same
command resumes where it stopped.
"""

from __future__ import annotations

import os
import signal
import time
from types import FrameType
from typing import Any

from robust_transfer.machine.launch import handled_signals

EXIT_CODE = 75
"""Exit code of a command that saved its state and exited: EX_TEMPFAIL of sysexits.h, "try again"."""
MARGIN = 120.0
"""Seconds before a scheduler's time limit at which a job saves and exits: a slow step and a large state fit into it."""


class Interrupted(Exception):  # noqa: N818, it is no error
    """The job saved its state and is to exit; the message says why, and where it stopped."""


class Interruption:
    """Handles signals inside a `with` block, and watches the clock; `reason` says why to stop."""

    def __init__(self, stop_before: float | None = None) -> None:
        """Create an interruption without a deadline, unless there is one.

        Args:
            stop_before: Deadline in seconds since 1970. None takes the end of the SLURM job, if this is one, less
                MARGIN.
        """
        end = os.environ.get("SLURM_JOB_END_TIME", "")
        self._stop_before = stop_before or (float(end) - MARGIN if end.isdigit() else None)
        self._signal: int | None = None
        self._before: dict[int, Any] = {}

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

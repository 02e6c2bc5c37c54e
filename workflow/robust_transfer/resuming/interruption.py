"""When a training is to save and leave before it is done: on a signal, or ahead of a deadline.

SIGTERM (schedulers, `kill`), SIGUSR1 (`sbatch --signal`) and SIGINT (Ctrl-C) are heard while a training runs; the step
under way ends first. The exit code is then EXIT_CODE, and the same command goes on where it stopped.
"""

from __future__ import annotations

import os
import signal
import time
from types import FrameType
from typing import Any

EXIT_CODE = 75
"""Of a command that saved its state and left: EX_TEMPFAIL of sysexits.h, try again."""
MARGIN = 120.0
"""Seconds before a scheduler's time limit at which a training saves and leaves."""
_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)


class Interrupted(Exception):  # noqa: N818, it is no error
    """The training saved its state and left; the message says why and where it stopped."""


class Interruption:
    """Hears signals inside a `with` block, and watches the clock. `reason` says why to stop, None to go on."""

    def __init__(self, stop_before: float | None = None) -> None:
        """`stop_before` is in seconds since 1970; None is the job's end, less MARGIN, where SLURM says it."""
        end = os.environ.get("SLURM_JOB_END_TIME", "")
        self._stop_before = stop_before or (float(end) - MARGIN if end.isdigit() else None)
        self._signal: int | None = None
        self._before: dict[int, Any] = {}

    @property
    def reason(self) -> str | None:
        """Why to stop, or None."""
        if self._signal is not None:
            return f"{signal.Signals(self._signal).name} received"
        if self._stop_before is not None and time.time() >= self._stop_before:
            return "the time limit is near"
        return None

    def __enter__(self) -> Interruption:
        self._before = {number: signal.signal(number, self._hear) for number in _SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        self._signal = number

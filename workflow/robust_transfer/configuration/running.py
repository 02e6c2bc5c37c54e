"""How jobs run: settings that change how long something takes and never what comes out."""

from __future__ import annotations

import os

from pydantic import NonNegativeInt, PositiveInt

from robust_transfer.configuration.base import Model

VARIABLE = "ROBUST_TRANSFER_RUNNING"
"""Environment variable by which the settings reach jobs, as JSON: a changed setting changes no command line."""


class Running(Model):
    """How jobs run. None of it is in any hash."""

    save_seconds: PositiveInt = 600
    """Seconds between two saved states of a training; also the most that a kill without warning costs."""
    workers: NonNegativeInt | None = None
    """Processes that decode training images. Default: as many as the job has threads."""
    resident_mb: PositiveInt = 4096
    """Training images up to this size, as pixels, are kept in memory; larger sets are read as they are needed."""
    compile: bool = False
    """Compile networks with torch.compile before training."""


def running() -> Running:
    """The settings of this job: those of the experiment that started it, else the defaults."""
    return Running.model_validate_json(os.environ.get(VARIABLE, "{}"))

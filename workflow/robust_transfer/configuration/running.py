"""How jobs run: settings that change how long something takes and never what comes out."""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path
from typing import Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt, field_validator

from robust_transfer.configuration.base import Model
from robust_transfer.configuration.paths import ReadPath, resolved

VARIABLE = "ROBUST_TRANSFER_RUNNING"
"""Environment variable by which the settings reach jobs, as JSON: a changed setting changes no command line."""

GpuStage = Literal[
    "stylizing",
    "pretraining",
    "evaluation",
    "features",
    "cue_conflict",
    "gallery",
    "linear_heads",
    "finetuning",
    "robustness",
]
Sharing = Literal[1, 2, 3, 4, 6, 8, 12, 24]


class Running(Model):
    """How jobs run. None of it is in any hash."""

    save_seconds: NonNegativeFloat = 60.0
    """Seconds between two saved states of a training or extraction, and so the most that a kill without warning \
costs. A state that takes long to write is saved less often, so that at most a twentieth of the time goes into it."""
    other_code: bool = False
    """Go on with a training whose state other code saved; its card will say so."""
    stop_before: datetime | None = None
    """Time at which trainings and extractions save and leave, such as 2030-01-31T08:00. Default: shortly before the \
time limit, in a SLURM job."""
    data: ReadPath = "data"
    """Folder of images as they were downloaded, those of each dataset of the catalogue in a folder of its name."""
    weights: ReadPath = "weights"
    """Folder of published weights as they were downloaded."""
    downloads: bool = False
    """Let jobs download what is missing in these two folders, where somebody still offers it."""
    strict: bool = False
    """Refuse to plan where finished entries are kept although the images or weights they were made from, or the code \
that made them, are others by now. Default: one line says so."""
    container: ReadPath | None = None
    """Image that jobs run in under `snakemake --sdm apptainer`: a file that `envs/` says how to make, or an address \
such as docker://registry/robust-transfer."""
    workers: NonNegativeInt | None = None
    """Processes that decode images to train on or to extract features from. Default: as many as the job has threads."""
    cores_per_gpu: PositiveInt = 16
    """Most processor cores of a job beside its GPU. It gets as many as decode the images that the card takes, and on \
one machine no more than its part of the cores; jobs without a GPU have one."""
    resident_mb: PositiveInt = 4096
    """Training images up to this size, as pixels, are kept in memory; larger sets are read as they are needed."""
    deterministic: bool = False
    """Let GPUs use deterministic algorithms alone, so that a training that was interrupted ends with the same bits as \
one that was not; CPUs always do."""
    cuda_graphs: bool = True
    """Record the kernels of a training step on small images once, and then launch them together: the same bits, in \
less time."""
    jobs_per_gpu: dict[GpuStage, Sharing] = Field(default={})
    """How many jobs of a stage share a GPU of this machine, such as {features: 4}. Default: each has one of its own. \
Trainings by several processes always have theirs. On a cluster the scheduler decides."""

    @field_validator("stop_before", mode="before")
    @classmethod
    def _a_time_is_no_number(cls, value: object) -> object:
        """YAML reads 12:30 as 750, which would be seconds since 1970, and 2030 likewise."""
        if isinstance(value, int | float):
            raise ValueError("a number, as YAML reads it; write date and time, such as 2030-01-31T08:00")
        return value

    def originals(self, dataset: str) -> Path:
        """Folder of a catalogued dataset's images as they were downloaded."""
        return resolved(self.data) / dataset

    @property
    def weights_folder(self) -> Path:
        """`weights`, with `~` and variables resolved."""
        return resolved(self.weights)

    @property
    def deadline(self) -> float | None:
        """`stop_before` in seconds since 1970."""
        return self.stop_before.timestamp() if self.stop_before else None


def running() -> Running:
    """The settings of this job: those of the experiment that started it, else the defaults."""
    return Running.model_validate_json(os.environ.get(VARIABLE, "{}"))

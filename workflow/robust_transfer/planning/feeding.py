"""How many processor cores and how much memory a job gets beside its GPU, so that the card does not wait for images.

One core is the job's own process, which starts kernels. The others decode: the seconds that one core takes to decode
the job's images, over the card's seconds for their passes, both as `rates` estimates them. On an H100 in bf16 that is 4
cores for ResNet-50 under PGD with three steps on ImageNet's JPEGs at 224 px (870 images/s, of which a core decodes
340), and more than most machines have for fine-tuning a ResNet-18 (5,900 images/s). The card's rates are others'
measurements of training, so this is an estimate; `timing.json` and the flag `loader-bound` say how long a training
waited.

Memory is what a stage takes by its rule, and beyond that what the images of a training take: as pixels where they are
kept, else one process for each core that reads them.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from robust_transfer.configuration.running import Running
from robust_transfer.dag.engine import Engine
from robust_transfer.dag.grid import Grid, PlannedEntry
from robust_transfer.dag.wiring import with_signature
from robust_transfer.machine.cards import models, usable
from robust_transfer.planning.images import counting
from robust_transfer.planning.rates import Rates, decoding_seconds, gpu_names, network_seconds, published_rates
from robust_transfer.planning.work import Lookup, UnknownImagesError, is_streamed, squares_mb, work_of
from robust_transfer.registry import STAGES

UNKNOWN = 8
"""Cores where a dataset's size is not known yet."""
FASTEST = "H100"
"""The card that is assumed where it is not known which one a job will get."""
SPARED = 0.1
"""Share of a decoding core's time below which it is not worth one."""
FEATURES_RESIDENT_MB = 256
"""As `stages.features` has it: larger splits are read while the network computes."""
WORKER_MB = 350
"""Memory of a process that decodes: 306 MB were measured of a spawned one (ResNet-18, 224 px), and 15 MB of a fork."""


def cores_beside_gpu(entry: PlannedEntry, counts: Lookup, rates: Rates, most: int) -> int:
    """Cores of a job with one such GPU, at most `most`."""
    try:
        work = work_of(entry, counts)
    except UnknownImagesError:
        return min(UNKNOWN, most)
    decoding = decoding_seconds(work)
    if not decoding:
        return 1
    busy = network_seconds(work, rates)
    decoders = math.ceil(decoding / busy - SPARED) if busy else most
    return min(1 + max(0, decoders), most)


def images_mb(entry: PlannedEntry, counts: Lookup, running: Running, workers: int) -> int:
    """MB of memory that the images of a training, or of an extraction, take while it runs; 0 for other stages."""
    settings: Any = entry.settings
    roles = [entry.inputs[role] for role in ("source", "stylized", "dataset") if role in entry.inputs]
    found = [counts(dataset) for dataset in roles]
    if entry.stage not in ("pretraining", "linear_heads", "finetuning", "features"):
        return 0
    backbone: Any = entry.inputs["backbone"].settings if "backbone" in entry.inputs else settings
    augmentation = "none" if entry.stage == "features" else settings.training.augmentation
    images = sum(dataset.total if "backbone" in entry.inputs else dataset.train for dataset in found if dataset)
    resident_mb = min(running.resident_mb, FEATURES_RESIDENT_MB if entry.stage == "features" else running.resident_mb)
    if not images or is_streamed(augmentation, images, backbone.input_size, resident_mb):
        return WORKER_MB * (workers if running.workers is None else running.workers)
    return math.ceil(squares_mb(augmentation, images, backbone.input_size))


def rates_of_card(model: str) -> Rates:
    """Published rates of what a driver calls `NVIDIA H100 80GB HBM3`; of the fastest card for one that is not known."""
    said = _words(model)
    known = [name for name in gpu_names() if _words(name) <= said]
    return published_rates(max(known, key=lambda name: len(_words(name)), default=FASTEST))


def _words(name: str) -> set[str]:
    return set(re.split(r"[-\s]+", name.lower()))


@dataclass(frozen=True)
class _Place:
    """Where the jobs run: what cards they get there, and how many cores are beside one."""

    rates: Rates
    cores: int


class Feeding:
    """The `threads` of rules that run networks."""

    def __init__(self, grid: Grid, engine: Engine) -> None:
        """Create it while the Snakefile is read; it looks at the machine once Snakemake asks for the first job."""
        self._engine, self._running = engine, grid.experiment.running
        self._entries: Mapping[str, Mapping[str, PlannedEntry]] = {name: grid.stage(name) for name in STAGES}
        self._counts = counting(Path(grid.experiment.store))
        self._found: dict[str, int] = {}

    def memory(self, stage: str, megabytes: int) -> Callable[[Any, int], int]:
        """Resource function: this much memory and that of images, doubled once when a job is tried again."""

        def megabytes_of_job(wildcards: Any, attempt: int) -> int:
            more = 0
            if self._place is not None and wildcards.entry in self._entries[stage]:
                entry = self._entries[stage][wildcards.entry]
                more = images_mb(entry, self._counts, self._running, self._cores(stage, wildcards.entry, self._place))
            return (megabytes + more) * min(attempt, 2)

        return with_signature(megabytes_of_job)

    def threads(self, stage: str) -> Callable[[Any], int]:
        """Threads function of a stage's rule: 1 where jobs run on this machine and it has no GPU that can be used."""

        def cores_of_job(wildcards: Any) -> int:
            return self._cores(stage, wildcards.entry, self._place) if self._place else 1

        return with_signature(cores_of_job)

    def _cores(self, stage: str, folder: str, place: _Place) -> int:
        """Cores of a job, for all of its GPUs together."""
        count = self._engine.resource(stage, "gpu")
        count = count if isinstance(count, int) and count > 0 else 1
        share = self._running.jobs_per_gpu.get(stage, 1) if count == 1 else 1  # type: ignore[call-overload]
        return count * max(1, min(self._needed(stage, folder, place.rates), place.cores // share))

    @functools.cached_property
    def _place(self) -> _Place | None:
        if not self._engine.is_local:
            return _Place(published_rates(FASTEST), self._running.cores_per_gpu)
        cards = usable()
        if not cards:
            return None
        most = self._running.cores_per_gpu
        here = (self._engine.cores or most) // len(cards)
        return _Place(rates_of_card(next(iter(models()), "")), min(here, most))

    def _needed(self, stage: str, folder: str, rates: Rates) -> int:
        if folder not in self._found:
            entry = self._entries[stage].get(folder)
            most = self._running.cores_per_gpu
            self._found[folder] = cores_beside_gpu(entry, self._counts, rates, most) if entry else 1
        return self._found[folder]

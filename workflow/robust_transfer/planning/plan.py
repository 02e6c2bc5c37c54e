"""The plan of an experiment: per stage, what is done, what is left, and the time and money that takes."""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from robust_transfer.dag.grid import Grid, PlannedEntry
from robust_transfer.planning.feeding import cores_beside_gpu
from robust_transfer.planning.images import counting
from robust_transfer.planning.rates import (
    ENGINE_SECONDS,
    FIGURE_SECONDS,
    FITTED_SECONDS,
    LIGHT_START_SECONDS,
    Calibrated,
    Rates,
    decoding_seconds,
    network_seconds,
    processor_seconds,
)
from robust_transfer.planning.work import Pass, UnknownImagesError, Work, work_of
from robust_transfer.registry import ALL_STAGES, COLLECTED, STAGES
from robust_transfer.store.entry import finished


@dataclass
class Hours:
    """Time and price of what is left of a stage, at some rates."""

    device: float = 0.0
    """Hours for which jobs occupy a device: a GPU, or a core of a calibrated processor."""
    processor: float = 0.0
    """Hours of one core for everything else: datasets, probes, figures, decoding for a GPU."""
    price: float | None = None


@dataclass
class StagePlan:
    """The jobs of one stage, and the work of those that are left."""

    stage: str
    done: int = 0
    left: int = 0
    unknown: int = 0
    """Of those left, how many depend on a dataset whose size is not known; only their start is counted."""
    work: Work = field(default_factory=Work)
    hours: dict[str, Hours] = field(default_factory=dict)
    """By the rates' name."""
    cores: dict[str, int] = field(default_factory=dict)
    """Cores of the job that needs the most beside one GPU, by the name of a GPU's rates; empty where none is used."""


@dataclass
class Plan:
    """The jobs, work and hours of an experiment."""

    experiment: str
    store: Path
    stages: dict[str, StagePlan]
    notes: list[str]
    """Assumptions behind the numbers, and what is missing from them."""
    currency: str
    longest: dict[str, float] = field(default_factory=dict)
    """Hours of the longest chain of dependent jobs, by the rates' name: a lower bound for any number of devices."""
    wall: dict[str, float] = field(default_factory=dict)
    """Hours on this machine with so many cores, by the name of calibrated rates."""
    cores: int = 1

    @property
    def total(self) -> StagePlan:
        """All stages together."""
        total = StagePlan("total")
        for stage in self.stages.values():
            total.done += stage.done
            total.left += stage.left
            total.unknown += stage.unknown
            total.work += stage.work
            for name, cores in stage.cores.items():
                total.cores[name] = max(total.cores.get(name, 1), cores)
            for name, hours in stage.hours.items():
                so_far = total.hours.setdefault(name, Hours())
                so_far.device += hours.device
                so_far.processor += hours.processor
                if hours.price is not None:
                    so_far.price = (so_far.price or 0.0) + hours.price
        return total


def make_plan(
    grid: Grid,
    rates: Sequence[Rates] = (),
    *,
    prices: Sequence[float] = (),
    currency: str = "$",
    cores: int = 1,
) -> Plan:
    """Plan what the store lacks of a grid. `prices`: the price of one hour at each of `rates`, if any are given."""
    store = Path(grid.experiment.store)
    counts = counting(store)
    plan = Plan(grid.experiment.experiment, store, {}, [], currency, cores=cores)
    works: dict[str, Work] = {}
    unknown: dict[str, None] = {}
    for entry in grid.entries.values():
        stage = plan.stages.setdefault(entry.stage, StagePlan(entry.stage))
        if finished(store / entry.id):
            stage.done += 1
            continue
        stage.left += 1
        try:
            works[entry.id] = work_of(entry, counts)
        except UnknownImagesError as error:
            stage.unknown += 1
            works[entry.id] = Work()
            unknown[str(error)] = None
        _gather(stage.work, works[entry.id])
        if STAGES[entry.stage].uses_gpu:
            for one in rates:
                if not _is_processor(one):
                    needed = cores_beside_gpu(entry, counts, one, grid.experiment.running.cores_per_gpu)
                    stage.cores[one.name] = max(stage.cores.get(one.name, 1), needed)
    ordered = [*(name for name in STAGES if name in plan.stages), *plan.stages]
    plan.stages = {name: plan.stages[name] for name in ordered} | _of_results(grid)
    plan.notes += unknown
    for one, price in zip(rates, [*prices, *[None] * len(rates)], strict=False):
        for stage in plan.stages.values():
            stage.hours[one.name] = _hours(stage, one, price)
        plan.longest[one.name] = _longest(grid, works, one) / 3600
        if _is_processor(one):
            hours = plan.total.hours[one.name]
            plan.wall[one.name] = max(
                plan.longest[one.name], (hours.device + hours.processor) / cores + _engine_hours(plan) / cores
            )
    _explain(plan, rates)
    return plan


def _is_processor(rates: Rates) -> bool:
    return isinstance(rates, Calibrated) and rates.device == "cpu"


def wanted(grid: Grid) -> tuple[dict[Pass, float], dict[Pass, int]]:
    """The passes of the whole grid, done or not: images by pass, and the most common batch size of each."""
    counts = counting(Path(grid.experiment.store))
    images: Counter[Pass] = Counter()
    batches: dict[Pass, Counter[int]] = {}
    for entry in grid.entries.values():
        try:
            of_entry = work_of(entry, counts).images
        except UnknownImagesError:
            continue
        images += of_entry
        for key, number in of_entry.items():
            batches.setdefault(key, Counter())[_batch(entry, key)] += number
    return dict(images), {key: sizes.most_common(1)[0][0] for key, sizes in batches.items()}


def _batch(entry: PlannedEntry, key: Pass) -> int:
    recipe: Any = getattr(entry.settings, "training", None)
    if recipe is None or key.kind == "forward":
        return min(256, max(16, 2**22 // key.side**2))  # as features are extracted
    return int(recipe.batchnorm_group or recipe.batch_size)


def _gather(into: Work, more: Work) -> None:
    """`into += more`, in place."""
    into.images.update(more.images)
    into.decoded += more.decoded
    into.decoded_bytes += more.decoded_bytes
    into.stored += more.stored
    into.fitted += more.fitted
    into.compared += more.compared
    into.written += more.written


def _of_results(grid: Grid) -> dict[str, StagePlan]:
    """The jobs that do not make entries: tables, figures and summary; done if their files exist."""
    folder = Path(grid.experiment.results) / grid.experiment.experiment
    drawn = [f"figures/{figure}.csv" for figure in grid.experiment.figures.draw]
    plans = {}
    for stage in (name for name, one in ALL_STAGES.items() if one.kind == "collected"):
        paths = [folder / name for name in (drawn if stage == "figures" else [COLLECTED[stage]])]
        done = sum(path.exists() for path in paths)
        plans[stage] = StagePlan(stage, done, len(paths) - done)
    return plans


def _fitted_seconds(rates: Rates) -> float:
    return rates.fitted_seconds if isinstance(rates, Calibrated) else FITTED_SECONDS


def _hours(stage: StagePlan, rates: Rates, price: float | None) -> Hours:
    starts = stage.left * _start(rates, stage.stage)
    processor = processor_seconds(stage.work, _fitted_seconds(rates))
    if not ALL_STAGES[stage.stage].uses_gpu:
        return Hours(0.0, (starts + processor) / 3600)
    device = (starts + network_seconds(stage.work, rates)) / 3600
    return Hours(device, processor / 3600, None if price is None else device * price)


def _start(rates: Rates, stage: str) -> float:
    if stage == "figures" and not isinstance(rates, Calibrated):
        return FIGURE_SECONDS
    return rates.start(stage)


def _engine_hours(plan: Plan) -> float:
    return sum(stage.left for stage in plan.stages.values()) * ENGINE_SECONDS / 3600


def _longest(grid: Grid, works: dict[str, Work], rates: Rates) -> float:
    """Seconds of the longest chain of jobs, each waiting for the one before."""
    ends: dict[str, float] = {}
    for entry in grid.entries.values():
        begin = max((ends[before.id] for before in entry.inputs.values()), default=0.0)
        own = 0.0
        if entry.id in works:
            work = works[entry.id]
            own = rates.start(entry.stage) + network_seconds(work, rates)
            if not STAGES[entry.stage].uses_gpu:
                own += processor_seconds(work, _fitted_seconds(rates))
        ends[entry.id] = begin + own
    return max(ends.values(), default=0.0)


def processor_hours(stage: StagePlan) -> float:
    """Hours of one core for all but networks, where no rates are given: from measurements in the stages' docstrings."""
    if ALL_STAGES[stage.stage].uses_gpu:
        return processor_seconds(stage.work) / 3600
    start = FIGURE_SECONDS if stage.stage == "figures" else LIGHT_START_SECONDS
    return (stage.left * start + processor_seconds(stage.work)) / 3600


def _explain(plan: Plan, rates: Sequence[Rates]) -> None:
    notes = plan.notes
    attacked = {"evaluation": "evaluations", "robustness": "transferred models"}
    if of := [what for name, what in attacked.items() if name in plan.stages and plan.stages[name].work.of("attack")]:
        counted = f"attacks of {' and '.join(of)} are counted for every test image"
        notes.append(f"{counted}, although misclassified ones are not attacked")
    for one in rates:
        if isinstance(one, Calibrated):
            said = ", ".join(f"{key} {value}" for key, value in one.described.items())
            notes.append(f"{one.name}: measured on this device or one like it ({said})")
        notes += one.notes
    if elsewhere := [one.name for one in rates if not isinstance(one, Calibrated)]:
        notes.append(
            f"{', '.join(elsewhere)}: from rates of ResNet-50 training that others published (planning/gpus.yaml names "
            "them), not measured here; the same GPU is up to 1.6 times as fast with other software"
        )
        notes.append(
            "other networks are scaled from ResNet-50 by FLOPs, which flatters depthwise and grouped convolutions "
            "(mobilenet, mnasnet, shufflenet, resnext) and small images: those can take several times as long"
        )
        for name in elsewhere:
            if slow := _decoding_limits(plan, name):
                notes.append(
                    f"{name}: with so many cores decoding takes longer than the GPU, in all {', '.join(slow)}; a "
                    "dataset's stored_side makes its images small once, and running.cores_per_gpu allows more"
                )
        notes.append(
            "GPU-hours suppose that decoding keeps up, for which the job that needs the most asks for as many cores as "
            "are stated beside them (at most running.cores_per_gpu, and on one machine its part of the cores)"
        )


def _decoding_limits(plan: Plan, name: str) -> list[str]:
    """Stages whose images take longer to decode than a GPU takes for them, with the cores that jobs ask for."""
    slow = []
    for stage in plan.stages.values():
        decoding = decoding_seconds(stage.work) / 3600 / max(1, stage.cores.get(name, 1) - 1)
        if name in stage.cores and decoding > 1.1 * stage.hours[name].device:
            slow.append(f"{stage.stage} {decoding:,.1f} h")
    return slow


def default_calibration(grid: Grid) -> Path:
    """Where a calibration of this machine is kept."""
    return Path(grid.experiment.results) / f"calibration-{socket.gethostname()}.json"

"""The grid: from a configuration to the list of entries, their names and hashes. Pure: no torch, no disk.

The Snakefile, the planner, the results table and the tests all read this list. No stage imports it, so that an edit
here changes no stage's fingerprint.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from robust_transfer.configuration.base import Model, identity, kept
from robust_transfer.configuration.datasets import DatasetSettings, GranularitySettings
from robust_transfer.configuration.eps import eps_name, eps_value
from robust_transfer.configuration.experiment import Experiment, Part
from robust_transfer.configuration.training import EvaluationSettings, PretrainingSettings
from robust_transfer.configuration.transfer import FeaturesSettings, FinetuningSettings, ProbingSettings


@dataclass(frozen=True, eq=False)
class PlannedEntry:
    """One entry of the store, before it exists."""

    stage: str
    name: str
    settings: Model
    inputs: dict[str, PlannedEntry] = field(default_factory=dict)

    @functools.cached_property
    def hash(self) -> str:
        """Ten hexadecimal digits over the settings that are not at their default and the hashes of the inputs."""
        defining = {
            "stage": self.stage,
            "settings": identity(self.settings),
            "inputs": {role: entry.hash for role, entry in self.inputs.items()},
        }
        text = json.dumps(defining, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()[:10]

    @functools.cached_property
    def folder(self) -> str:
        """Name of the entry's folder below its stage."""
        return f"{self.name}-{self.hash}"

    @property
    def id(self) -> str:
        """Path of the entry below the store."""
        return f"{self.stage}/{self.folder}"

    def described(self) -> dict[str, Any]:
        """What `entry.json` says."""
        return {
            "stage": self.stage,
            "name": self.name,
            "settings": kept(self.settings),
            "inputs": {role: entry.id for role, entry in self.inputs.items()},
        }


@dataclass(frozen=True)
class Measurement:
    """An entry that measures something, with the key its rows have in the results table."""

    entry: PlannedEntry
    key: dict[str, Any]


@dataclass
class Grid:
    """All entries of an experiment, each once, and what is measured."""

    experiment: Experiment
    entries: dict[str, PlannedEntry] = field(default_factory=dict)
    """By id, every entry after its inputs."""
    measurements: dict[str, Measurement] = field(default_factory=dict)
    """By the id of the entry that measures."""

    def stage(self, name: str) -> dict[str, PlannedEntry]:
        """The entries of one stage by folder name."""
        return {entry.folder: entry for entry in self.entries.values() if entry.stage == name}

    def _add(
        self, stage: str, name: str, settings: Model, inputs: dict[str, PlannedEntry] | None = None
    ) -> PlannedEntry:
        entry = PlannedEntry(stage, name, settings, inputs or {})
        return self.entries.setdefault(entry.id, entry)

    def _measure(self, entry: PlannedEntry, **key: Any) -> None:
        self.measurements.setdefault(entry.id, Measurement(entry, key))


def plan(experiment: Experiment) -> Grid:
    """The grid of an experiment: the union of its parts, in the configuration's order."""
    grid = Grid(experiment)
    for part in experiment.grid:
        for backbone, key in _backbones(grid, part):
            _evaluate(grid, part, backbone, key)
            for target in part.targets or experiment.targets:
                _transfer(grid, part, backbone, key, target)
    return grid


def _dataset(grid: Grid, name: str, view: str | int = "native") -> PlannedEntry:
    settings = DatasetSettings.model_validate(grid.experiment.datasets[name].model_dump())
    native = grid._add("datasets", name, settings)
    if view == "native":
        return native
    return grid._add("granularity", f"{name}_{view}px", GranularitySettings(size=int(view)), {"dataset": native})


def _backbones(grid: Grid, part: Part) -> Iterator[tuple[PlannedEntry, dict[str, Any]]]:
    experiment, pretraining = grid.experiment, grid.experiment.pretraining
    source = _dataset(grid, experiment.source)
    for architecture in part.architectures:
        for eps in part.eps:
            robust = eps != "0"
            for seed in part.seeds:
                settings = PretrainingSettings(
                    architecture=architecture,
                    input_size=experiment.input_size,
                    preprocessing=experiment.preprocessing,
                    norm=part.norm if robust else None,
                    eps=eps,
                    seed=seed,
                    recipe=pretraining.recipe,
                    training=pretraining.training,
                    attack=pretraining.attack if robust else None,
                    check=pretraining.check,
                )
                threat = f"{part.norm}_{eps_name(eps)}" if robust else "eps0"
                name = f"{experiment.source}_{architecture}_{threat}_seed{seed}"
                backbone = grid._add("pretraining", name, settings, {"source": source})
                yield (
                    backbone,
                    {
                        "backbone": backbone.id,
                        "source": experiment.source,
                        "arch": architecture,
                        "recipe": pretraining.recipe,
                        "norm": part.norm if robust else "none",
                        "eps": eps,
                        "backbone_seed": seed,
                    },
                )


def _evaluate(grid: Grid, part: Part, backbone: PlannedEntry, key: dict[str, Any]) -> None:
    evaluation = grid.experiment.evaluation
    radii = {key["eps"], *evaluation.eps} - {"0"}
    settings = EvaluationSettings(
        norm=part.norm,
        eps=tuple(sorted(radii, key=eps_value)),
        attack=evaluation.attack,
        autoattack=evaluation.autoattack,
        **({"autoattack_images": evaluation.autoattack_images} if evaluation.autoattack else {}),
        preprocessing=grid.experiment.preprocessing,
    )
    inputs = {"backbone": backbone, "source": backbone.inputs["source"]}
    entry = grid._add("evaluation", backbone.name, settings, inputs)
    grid._measure(entry, **key, target=key["source"], mode="source", protocol=None, variant={}, transfer_seed=None)


def _transfer(grid: Grid, part: Part, backbone: PlannedEntry, key: dict[str, Any], target: str) -> None:
    for view in part.views:
        dataset = _dataset(grid, target, view)
        variant = {} if view == "native" else {"downscaled": view}
        for seed in part.transfer_seeds:
            if "fixed-feature" in part.modes:
                probe = _fixed_feature(grid, backbone, dataset, target, seed)
                grid._measure(
                    probe,
                    **key,
                    target=target,
                    mode="fixed-feature",
                    protocol="frozen",
                    variant=variant,
                    transfer_seed=seed,
                )
            if "full-network" in part.modes:
                refit = _full_network(grid, backbone, dataset, target, seed)
                grid._measure(
                    refit,
                    **key,
                    target=target,
                    mode="full-network",
                    protocol="paper",
                    variant={**variant, "normalisation": "source"},
                    transfer_seed=seed,
                )


def _fixed_feature(grid: Grid, backbone: PlannedEntry, dataset: PlannedEntry, target: str, seed: int) -> PlannedEntry:
    experiment = grid.experiment
    name = f"{backbone.name}_on_{dataset.name}"
    settings = FeaturesSettings(**dict(experiment.features), preprocessing=experiment.preprocessing)
    features = grid._add("features", name, settings, {"backbone": backbone, "dataset": dataset})
    probing = ProbingSettings(**dict(experiment.probing), metric=experiment.datasets[target].metric, seed=seed)
    return grid._add("probing", f"{name}_seed{seed}", probing, {"features": features})


def _full_network(grid: Grid, backbone: PlannedEntry, dataset: PlannedEntry, target: str, seed: int) -> PlannedEntry:
    experiment, finetuning = grid.experiment, grid.experiment.finetuning
    name = f"{backbone.name}_on_{dataset.name}"
    inputs = {"backbone": backbone, "dataset": dataset}

    def settings(purpose: str, rates: tuple[float, ...]) -> FinetuningSettings:
        return FinetuningSettings(
            purpose="search" if purpose == "search" else "refit",
            learning_rates=rates,
            training=finetuning.training,
            validation_fraction=finetuning.validation_fraction,
            metric=experiment.datasets[target].metric,
            seed=seed,
            preprocessing=experiment.preprocessing,
        )

    searches = {}
    for i, rate in enumerate(finetuning.learning_rates):
        search = grid._add("finetuning", f"{name}_lr{rate:g}_seed{seed}", settings("search", (rate,)), inputs)
        searches[f"search{i}"] = search
    refit = settings("refit", finetuning.learning_rates)
    return grid._add("finetuning", f"{name}_refit_seed{seed}", refit, {**inputs, **searches})

"""Which transferred models are attacked, and the entries that do it.

A part of the grid asks for the attack on what it transfers (`robustness: true`); what several parts share is attacked
once, and keeps its weights whichever part planned it. Probes of one backbone share an entry, and so one job, where PGD
alone attacks them: that takes less time than the job's start. Under AutoAttack, which takes hundreds of times as long,
every model has an entry of its own, as linear heads and fine-tuned networks always have.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from robust_transfer.configuration.robustness import RobustnessSettings
from robust_transfer.configuration.training import Norm
from robust_transfer.tables.key import MeasurementKey

if TYPE_CHECKING:
    from robust_transfer.configuration.experiment import Experiment
    from robust_transfer.dag.grid import PlannedEntry


class Transfer(NamedTuple):
    """What is transferred where, in one mode and by one protocol.

    Any variant counts: two that are stated otherwise may mean the same, and would be one number from two entries.
    """

    backbone: str
    """Id of its entry."""
    target: str
    view: str | int
    images_per_class: int | None
    training_images: int | None
    seed: int
    mode: str
    protocol: str | None


class Model(NamedTuple):
    """A transferred model that is attacked."""

    transfer: PlannedEntry
    """The entry that measured it."""
    backbone: PlannedEntry
    dataset: PlannedEntry
    key: MeasurementKey
    norm: Norm


@dataclass
class Models:
    """The transferred models of a grid that are attacked."""

    wanted: Mapping[Transfer, Sequence[Norm]] = field(default_factory=dict)
    """The transfers that are to be attacked, and in which norms."""
    found: dict[tuple[str, Norm], Model] = field(default_factory=dict)
    """By the transfer's entry and the norm, in the order in which they were planned."""

    def add(
        self, of: Transfer, planned: PlannedEntry, backbone: PlannedEntry, dataset: PlannedEntry, key: MeasurementKey
    ) -> None:
        """Note the entry that measures a transfer, for every norm in which its model is to be attacked."""
        for norm in self.wanted.get(of, ()):
            self.found.setdefault((planned.id, norm), Model(planned, backbone, dataset, key, norm))


class Attack(NamedTuple):
    """An entry that attacks models, before it is one of the grid."""

    name: str
    settings: RobustnessSettings
    inputs: dict[str, PlannedEntry]
    models: Sequence[Model]


def attacks(experiment: Experiment, models: Models) -> Iterator[Attack]:
    """The entries that attack the models of a grid."""
    section = experiment.robustness
    together: dict[tuple[object, ...], list[Model]] = defaultdict(list)
    for model in models.found.values():
        shares = model.transfer.stage == "probing" and not section.autoattack
        together[model.backbone.id, model.norm, None if shares else model.transfer.id].append(model)
    settings = {norm: _settings(experiment, norm) for norm in {model.norm for model in models.found.values()}}
    for (_, _, alone), of_entry in together.items():
        first = of_entry[0]
        inputs = {"backbone": first.backbone}
        for number, model in enumerate(of_entry):
            inputs |= dict(_inputs(model, number))
        name = first.transfer.name if alone else f"{first.backbone.name}_probes"
        yield Attack(f"{name}_{first.norm}", settings[first.norm], inputs, of_entry)


def _settings(experiment: Experiment, norm: Norm) -> RobustnessSettings:
    section = experiment.robustness
    return RobustnessSettings(
        norm=norm,
        eps=section.eps,
        attack=section.attack or experiment.evaluation.attack,
        images=section.images,
        autoattack=section.autoattack,
        selection=experiment.selection[0],
    )


def _inputs(model: Model, number: int) -> Iterator[tuple[str, PlannedEntry]]:
    """A model, its images and what its weights come from, by role."""
    yield f"model{number}", model.transfer
    yield f"dataset{number}", model.dataset
    for role, entry in model.transfer.inputs.items():
        if role == "features":
            yield f"features{number}", entry
        elif role.startswith("final"):
            yield f"{role}_{number}", entry

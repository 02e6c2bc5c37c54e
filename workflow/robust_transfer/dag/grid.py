"""The grid: from a configuration to the list of entries, their names and hashes. Pure: no torch, no disk.

The Snakefile, the planner, the results table and the tests all read this list. No stage imports it, so that an edit
here changes no stage's fingerprint.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeVar

from robust_transfer.configuration.adversarial import ChoosingAttack
from robust_transfer.configuration.base import Model, kept
from robust_transfer.configuration.conflicts import ConflictsSettings, CueConflictSettings, ShapesConflicts
from robust_transfer.configuration.datasets import DatasetSettings, GranularitySettings, ShapesOrigin, Statistics
from robust_transfer.configuration.eps import eps_name, eps_value
from robust_transfer.configuration.experiment import Experiment, GridPart, TrainingSet
from robust_transfer.configuration.gallery import GallerySettings
from robust_transfer.configuration.stylizing import StylizingSettings
from robust_transfer.configuration.test_sets import AlsoTestOn
from robust_transfer.configuration.training import (
    TEXTURE_ROBUST,
    Attack,
    EvaluationSettings,
    Norm,
    PretrainingSettings,
    Recipe,
    TrainedOn,
)
from robust_transfer.configuration.transfer import (
    FeaturesSettings,
    FinetuningSettings,
    KnnSettings,
    LinearHeadsSettings,
    ProbingSettings,
    SelectingSettings,
)
from robust_transfer.configuration.variants import Variant
from robust_transfer.configuration.weights import FileWeights, ImportingSettings, RobustBenchWeights, Weights
from robust_transfer.dag.attacked import Models, Transfer, attacks
from robust_transfer.dag.deviations import deviations_in_name, deviations_of_finetuning, deviations_of_heads
from robust_transfer.dag.test_sets import ON_FEATURES, Tested, TestSets, test_set_entries
from robust_transfer.tables.key import Measurement, MeasurementKey, canonical

Settings = TypeVar("Settings", bound=Model | None)

PAPER = ("paper",)
"""The protocols of full-network transfer."""
ALL = TrainingSet(None, None, 0)
CUE_CONFLICT = "cue_conflict"
"""What conflict images are called in tables."""


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
            "settings": self.settings.identity,
            "inputs": {role: entry.hash for role, entry in self.inputs.items()},
        }
        text = json.dumps(defining, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()[:10]

    @functools.cached_property
    def folder(self) -> str:
        """Name of the entry's folder below its stage."""
        return f"{self.name}-{self.hash}"

    @functools.cached_property
    def id(self) -> str:
        """Path of the entry below the store."""
        return f"{self.stage}/{self.folder}"

    @property
    def runs(self) -> dict[str, PlannedEntry]:
        """The inputs that are runs to choose from, in the numbered roles `search0`, `search1`, …, `final0`, …"""
        return {role: entry for role, entry in self.inputs.items() if role[-1].isdigit()}

    def described(self) -> dict[str, Any]:
        """What `entry.json` says."""
        return {
            "stage": self.stage,
            "name": self.name,
            "settings": kept(self.settings),
            "inputs": {role: entry.id for role, entry in self.inputs.items()},
        }


@dataclass
class Grid:
    """All entries of an experiment, each once, and what is measured."""

    experiment: Experiment
    dropped: tuple[str, ...] = ()
    """Datasets that are left out, since their images are missing."""
    entries: dict[str, PlannedEntry] = field(default_factory=dict)
    """By id, every entry after its inputs."""
    measurements: dict[str, Measurement] = field(default_factory=dict)
    """By the id of the entry that measures, or of attacked models, of which one entry may measure several, by both."""
    models: Models = field(default_factory=Models)
    """The transferred models that are attacked."""
    tested: TestSets = field(default_factory=TestSets)
    """Those that are tested on more than their target."""
    _settings: dict[Hashable, Any] = field(default_factory=dict)
    """Settings that many entries share, by all that they depend on beside the experiment."""

    @property
    def measuring(self) -> list[str]:
        """The ids of the entries that measure something."""
        return list(dict.fromkeys(one.entry for one in self.measurements.values()))

    def stage(self, name: str) -> dict[str, PlannedEntry]:
        """The entries of one stage by folder name."""
        return {entry.folder: entry for entry in self.entries.values() if entry.stage == name}

    def _add(
        self, stage: str, name: str, settings: Model, inputs: dict[str, PlannedEntry] | None = None
    ) -> PlannedEntry:
        entry = PlannedEntry(stage, name, settings, inputs or {})
        return self.entries.setdefault(entry.id, entry)

    def _shared(self, depends_on: Hashable, make: Callable[[], Settings]) -> Settings:
        """The same settings once: thousands of transfers differ in their backbones alone."""
        if depends_on not in self._settings:
            self._settings[depends_on] = make()
        found: Settings = self._settings[depends_on]
        return found

    def _measure(
        self, entry: PlannedEntry, backbone: PlannedEntry, key: MeasurementKey, *, model: str | None = None
    ) -> None:
        """Note the key of what an entry measures, or of what it measures of one of several transferred models."""
        name = entry.id if model is None else f"{entry.id} {model}"
        self.measurements.setdefault(name, Measurement(entry.id, entry.stage, backbone.id, key, model))


def plan(experiment: Experiment, without: Collection[str] = ()) -> Grid:
    """The grid of an experiment: the union of its parts, in the configuration's order.

    Datasets named in `without` are left out: targets are not transferred to, and on the source nothing is evaluated.
    """
    grid = Grid(experiment, dropped=tuple(sorted(without)), models=Models(_attacked(experiment)))
    for part in experiment.grid:
        for backbone, key in _backbones(grid, part):
            if experiment.source not in without:
                _evaluate(grid, part, backbone, key)
                if part.gallery and key.backbone_seed in part.seeds[: experiment.gallery.seeds]:
                    _exhibit(grid, part, backbone, key)
                for view in part.transfer_to_source:
                    _transfer(grid, part, backbone, key, experiment.source, (view,))
            if part.cue_conflict:
                _confront(grid, backbone, key)
            for target in part.targets if part.targets is not None else experiment.targets:
                if target not in without:
                    _transfer(grid, part, backbone, key, target, part.views)
    for attack in attacks(experiment, grid.models):
        entry = grid._add("robustness", attack.name, attack.settings, attack.inputs)
        for model in attack.models:
            grid._measure(entry, model.backbone, model.key, model=model.transfer.id)
    for found in test_set_entries(grid.tested, experiment.selection[0]):
        entry = grid._add("test_sets", found.name, found.settings, found.inputs)
        for tested in found.models:
            grid._measure(entry, tested.backbone, tested.key, model=tested.transfer.id)
    return grid


def _attacked(experiment: Experiment) -> dict[Transfer, list[Norm]]:
    """The transfers whose models a part of the grid asks to attack, whichever part plans them, and in which norms."""
    found: dict[Transfer, list[Norm]] = {}
    for part in experiment.grid:
        for backbone, _ in _backbones(Grid(experiment), part) if part.robustness else ():
            targets = part.targets if part.targets is not None else experiment.targets
            to = [
                *itertools.product(targets, part.views),
                *((experiment.source, one) for one in part.transfer_to_source),
            ]
            ways = [
                (mode, name) for mode in part.modes for name in (part.protocols if mode == "fixed-feature" else PAPER)
            ]
            for (target, view), of_set, way in itertools.product(to, part.training_sets(), ways):
                norms = found.setdefault(Transfer(backbone.id, target, view, *of_set, *way), [])
                norms += [norm for norm in (experiment.attack_norm(part),) if norm not in norms]
    return found


def _dataset(grid: Grid, name: str, view: str | int = "native") -> PlannedEntry:
    stated = grid.experiment.datasets[name]
    settings = grid._shared(("datasets", name), lambda: DatasetSettings.model_validate(stated.model_dump()))
    native = grid._add("datasets", name, settings)
    if view == "native":
        return native
    if view == "stylized":
        return _stylized(grid, name, native)
    of_view = dict(grid.experiment.granularity)
    smaller = grid._shared(("granularity", view), lambda: GranularitySettings(size=int(view), **of_view))
    return grid._add("granularity", f"{name}_{view}px", smaller, {"dataset": native})


def _stylized(grid: Grid, name: str, native: PlannedEntry) -> PlannedEntry:
    experiment, stylizing = grid.experiment, grid.experiment.stylizing
    how = {name: value for name, value in dict(stylizing).items() if name != "styles"}
    if stylizing.method != "texture-swap":
        how |= {"side": experiment.input_size, "resize_ratio": experiment.preprocessing.resize_ratio}
    settings = grid._shared("stylizing", lambda: StylizingSettings(**how))
    others = {"styles": _dataset(grid, stylizing.styles)} if stylizing.styles not in (None, name) else {}
    return grid._add("stylizing", f"{name}_stylized", settings, {"dataset": native, **others})


def _view_in_key(grid: Grid, view: str | int) -> dict[str, Any]:
    """What a view adds to the variant of a number's key."""
    if view == "native":
        return {}
    return {"stylized": grid.experiment.stylizing.method} if view == "stylized" else {"downscaled": view}


def _backbones(grid: Grid, part: GridPart) -> Iterator[tuple[PlannedEntry, MeasurementKey]]:
    """The backbones of a part, each with the key of its accuracy on the source."""
    experiment, from_scratch = grid.experiment, grid.experiment.pretraining.texture_robust.start == "scratch"
    for architecture, eps, seed in itertools.product(part.architectures, part.eps, part.seeds):
        norm = part.norm if eps != "0" else None
        if part.trained_on == "native":
            backbone, recipe = _standard_or_robust(grid, part, architecture, norm, eps, seed)
        else:
            start = None if from_scratch else _standard_or_robust(grid, part, architecture, norm, eps, seed)[0]
            backbone = _texture_robust(grid, part.trained_on, start, architecture, seed)
            recipe = TEXTURE_ROBUST[part.trained_on]
        key = MeasurementKey(
            source=experiment.source,
            target=experiment.source,
            arch=architecture,
            recipe=recipe,
            norm=norm or "none",
            eps=eps,
            backbone_seed=seed,
            transfer_seed=None,
            mode="source",
            protocol=None,
            variant=canonical({}),
            images_per_class=None,
        )
        yield backbone, key


def _standard_or_robust(
    grid: Grid, part: GridPart, architecture: str, norm: Norm | None, eps: str, seed: int
) -> tuple[PlannedEntry, str]:
    """A backbone that is trained here or imported, and the name of its recipe."""
    experiment = grid.experiment
    name = f"{experiment.source}_{architecture}_{f'{norm}_{eps_name(eps)}' if norm else 'eps0'}"
    weights = experiment.weights_of(part)
    if weights is None:
        entry = _trained(grid, f"{name}_seed{seed}", architecture, norm, eps, seed)
        return entry, experiment.pretraining.recipe
    recipe = part.backbones or experiment.backbones
    return _imported(grid, f"{name}_{recipe}", weights, architecture, norm, eps, seed), recipe


def _trained(grid: Grid, name: str, architecture: str, norm: Norm | None, eps: str, seed: int) -> PlannedEntry:
    experiment, pretraining = grid.experiment, grid.experiment.pretraining
    settings = PretrainingSettings(
        architecture=architecture,
        input_size=experiment.input_size,
        preprocessing=experiment.preprocessing,
        norm=norm,
        eps=eps,
        seed=seed,
        recipe=pretraining.recipe,
        training=pretraining.training,
        attack=pretraining.attack if norm else None,
        check=pretraining.check,
    )
    return grid._add("pretraining", name, settings, {"source": _dataset(grid, experiment.source)})


def _texture_robust(
    grid: Grid, trained_on: TrainedOn, standard: PlannedEntry | None, architecture: str, seed: int
) -> PlannedEntry:
    """A backbone trained on stylized images, from the standard one or, without it, from scratch."""
    experiment, how = grid.experiment, grid.experiment.pretraining.texture_robust
    native, stylized = _dataset(grid, experiment.source), _dataset(grid, experiment.source, "stylized")
    start = {"start": standard} if standard else {}
    inputs: dict[str, PlannedEntry]
    recipe: Recipe
    match trained_on:
        case "stylized":
            recipe, inputs = how.stylized, {"source": stylized, **start}
        case "both":
            recipe, inputs = how.both, {"source": native, "stylized": stylized, **start}
        case _:
            both = _texture_robust(grid, "both", standard, architecture, seed)
            recipe, inputs = how.native, {"source": native, "start": both}
    settings = PretrainingSettings(
        architecture=architecture,
        input_size=experiment.input_size,
        preprocessing=experiment.preprocessing,
        norm=None,
        eps="0",
        seed=seed,
        recipe=TEXTURE_ROBUST[trained_on],
        training=recipe,
        attack=None,
        check=experiment.pretraining.check,
        trained_on=trained_on,
    )
    return grid._add("pretraining", f"{experiment.source}_{architecture}_{trained_on}_seed{seed}", settings, inputs)


def _imported(
    grid: Grid, name: str, weights: Weights, architecture: str, norm: Norm | None, eps: str, seed: int
) -> PlannedEntry:
    """A backbone from published weights. It depends on no images, so that its source may be missing."""
    settings = ImportingSettings(
        architecture=architecture,
        input_size=grid.experiment.input_size,
        norm=norm,
        eps=eps,
        seed=seed,
        weights=weights,
    )
    return grid._add("importing", name, settings)


def _evaluate(grid: Grid, part: GridPart, backbone: PlannedEntry, key: MeasurementKey) -> None:
    evaluation = grid.experiment.evaluation
    radii = {*([key.eps] if evaluation.own_eps else []), *evaluation.eps} - {"0"}
    settings = EvaluationSettings(
        norm=part.norm if radii else "l2",  # none is used: parts of other norms share the entry
        eps=tuple(sorted(radii, key=eps_value)),
        attack=evaluation.attack,
        precision=evaluation.precision,
        autoattack=evaluation.autoattack,
        **({"autoattack_images": evaluation.autoattack_images} if evaluation.autoattack else {}),
        preprocessing=grid.experiment.preprocessing,
    )
    for view in part.source_views:
        source = _dataset(grid, key.source, view)
        of_view = (
            settings
            if view == "native"
            else EvaluationSettings(
                norm="l2",
                eps=(),
                attack=Attack(),
                precision=evaluation.precision,
                preprocessing=grid.experiment.preprocessing,
            )
        )
        name = backbone.name if view == "native" else f"{backbone.name}_on_{source.name}"
        measuring = grid._add("evaluation", name, of_view, {"backbone": backbone, "source": source})
        grid._measure(measuring, backbone, replace(key, variant=canonical(_view_in_key(grid, view))))


def _exhibit(grid: Grid, part: GridPart, backbone: PlannedEntry, key: MeasurementKey) -> None:
    """Make a gallery of a backbone; of a standard one that parts of several norms have, by the first part's norm."""
    if any(one.inputs["backbone"] is backbone for one in grid.stage("gallery").values()):
        return
    experiment = grid.experiment

    def settings() -> GallerySettings:
        how = {name: value for name, value in dict(experiment.gallery).items() if name != "seeds"}
        how |= {"norm": part.norm, "perturbations": experiment.perturbations(part.norm)}
        return GallerySettings(**how, attack=experiment.evaluation.attack, preprocessing=experiment.preprocessing)

    inputs = {"backbone": backbone, "source": _dataset(grid, key.source)}
    entry = grid._add("gallery", backbone.name, grid._shared(("gallery", part.norm), settings), inputs)
    grid._measure(entry, backbone, replace(key, mode="gallery"))


def _confront(grid: Grid, backbone: PlannedEntry, key: MeasurementKey) -> None:
    """Measure a backbone on cue-conflict images, if there are some and the datasets of its probe are there."""
    experiment, section = grid.experiment, grid.experiment.cue_conflict
    if section is None or {*section.probe} & {*grid.dropped}:
        return
    origin = experiment.datasets[experiment.source].origin
    world = origin if isinstance(origin, ShapesOrigin) and isinstance(section.images, ShapesConflicts) else None
    drawn = grid._shared("conflicts", lambda: ConflictsSettings(images=section.images, world=world))
    inputs = {"backbone": backbone, "conflicts": grid._add("conflicts", CUE_CONFLICT, drawn)}
    if not section.probe and experiment.source not in grid.dropped and _has_outputs_of_ones_own(backbone):
        inputs["source"] = _dataset(grid, experiment.source)
    for i, name in enumerate(section.probe):
        inputs[f"features{i}"] = _Transfer(grid, backbone, _dataset(grid, name), name, ALL)._features()
    settings = grid._shared(
        "cue_conflict",
        lambda: CueConflictSettings(
            classes=section.classes,
            probe=tuple(section.probe.values()),
            probing=experiment.probing if section.probe else None,
        ),
    )
    grid._measure(
        grid._add("cue_conflict", backbone.name, settings, inputs),
        backbone,
        replace(key, target=CUE_CONFLICT, mode="cue-conflict"),
    )


def _has_outputs_of_ones_own(backbone: PlannedEntry) -> bool:
    """It is a checkpoint of the user's, or RobustBench's of CIFAR: the source's classes give its outputs names."""
    if not isinstance(backbone.settings, ImportingSettings):
        return False
    weights = backbone.settings.weights
    of_cifar = isinstance(weights, RobustBenchWeights) and weights.dataset != "imagenet"
    return of_cifar or isinstance(weights, FileWeights)


def _transfer(
    grid: Grid, part: GridPart, backbone: PlannedEntry, key: MeasurementKey, target: str, views: Iterable[str | int]
) -> None:
    for view, of_set in itertools.product(views, part.training_sets()):
        to = _Transfer(grid, backbone, _dataset(grid, target, view), target, of_set, view)
        where = replace(
            key, target=target, transfer_seed=of_set.seed,
            images_per_class=of_set.per_class, training_images=of_set.total,
        )  # fmt: skip
        viewed = _view_in_key(grid, view)
        layer = grid.experiment.features.layer
        features = viewed | ({"layer": layer} if layer else {})
        for protocol, measured_by in (("frozen", to.probe), ("knn", to.knn)):
            if "fixed-feature" in part.modes and protocol in part.protocols:
                how = replace(where, mode="fixed-feature", protocol=protocol, variant=canonical(features))
                to.measure(measured_by(), how)
        for variant in part.variants:
            heads = "fixed-feature" in part.modes and "paper" in part.protocols
            for mode, found in (
                ("fixed-feature", to.linear_heads(variant) if heads else None),
                ("full-network", to.full_network(variant) if "full-network" in part.modes else None),
            ):
                if found:
                    how = replace(where, mode=mode, protocol="paper", variant=canonical(viewed | found[1]))
                    to.measure(found[0], how)


@dataclass(frozen=True)
class _Transfer:
    """A backbone's transfer to a dataset from one training set; each method plans an entry that measures it."""

    grid: Grid
    backbone: PlannedEntry
    dataset: PlannedEntry
    target: str
    training_set: TrainingSet
    view: str | int = "native"

    @property
    def seed(self) -> int:
        """Seed of transfer."""
        return self.training_set.seed

    @property
    def _few(self) -> dict[str, int | None]:
        """What limits the training images, as settings have it."""
        return {"images_per_class": self.training_set.per_class, "training_images": self.training_set.total}

    def measure(self, entry: PlannedEntry, key: MeasurementKey) -> None:
        """Note the key of what an entry measures, and that its model is attacked, if it is."""
        self.grid._measure(entry, self.backbone, key)
        is_layer = entry.stage == "probing" and self.grid.experiment.features.layer is not None
        if entry.stage != "knn" and not is_layer:  # which have no gradient, and no head of the whole network
            self.grid.models.add(self._by(key.mode, key.protocol), entry, self.backbone, self.dataset, key)
        if on := [(one, self._images_of(one.dataset, entry.stage)) for one in self._other_test_sets]:
            self.grid.tested.found.setdefault(entry.id, Tested(entry, self.backbone, self.dataset, key, on))

    @property
    def _other_test_sets(self) -> list[AlsoTestOn]:
        """The further test sets of this target that are there."""
        others = self.grid.experiment.also_test_on.get(self.target, ())
        return [one for one in others if one.dataset not in self.grid.dropped]

    def _images_of(self, name: str, stage: str) -> PlannedEntry:
        """A further test set in the target's view, or for a model on features its features."""
        dataset = _dataset(self.grid, name, self.view)
        return replace(self, dataset=dataset, target=name)._features() if stage in ON_FEATURES else dataset

    def _by(self, mode: str, protocol: str | None) -> Transfer:
        return Transfer(self.backbone.id, self.target, self.view, *self.training_set, mode, protocol)

    def _keeps(self, mode: str) -> bool:
        """Networks that the paper's protocol trains in this mode keep their weights: they are attacked, or tested on
        more than their target."""
        return self._by(mode, "paper") in self.grid.models.wanted or bool(self._other_test_sets)

    @property
    def _name(self) -> str:
        per_class, total, _ = self.training_set
        few = f"_{per_class}perclass" if per_class else f"_{total}images" if total else ""
        return f"{self.backbone.name}_on_{self.dataset.name}{few}"

    @property
    def _depends_on(self) -> tuple[Hashable, ...]:
        """What the settings of a transfer depend on, beside the experiment and the protocol."""
        kept = self._keeps("fixed-feature"), self._keeps("full-network")
        return self.target, *self.training_set, *kept

    def _features(self) -> PlannedEntry:
        experiment, inputs = self.grid.experiment, {"backbone": self.backbone, "dataset": self.dataset}
        of_all = {**dict(experiment.features), "preprocessing": experiment.preprocessing}
        settings = self.grid._shared("features", lambda: FeaturesSettings(**of_all))
        return self.grid._add("features", f"{self.backbone.name}_on_{self.dataset.name}", settings, inputs)

    def _on_features(self) -> dict[str, Any]:
        """Settings that the protocols on stored features share."""
        experiment = self.grid.experiment
        return {
            "metric": experiment.datasets[self.target].metric,
            "seed": self.seed,
            **self._few,
            "selections": experiment.selection,
        }

    def probe(self) -> PlannedEntry:
        """By the frozen protocol."""
        settings = ProbingSettings(**dict(self.grid.experiment.probing), **self._on_features())
        return self.grid._add("probing", f"{self._name}_seed{self.seed}", settings, {"features": self._features()})

    def knn(self) -> PlannedEntry:
        """By the knn protocol."""
        settings = KnnSettings(**dict(self.grid.experiment.knn), **self._on_features())
        return self.grid._add("knn", f"{self._name}_seed{self.seed}", settings, {"features": self._features()})

    def linear_heads(self, variant: Variant) -> tuple[PlannedEntry, dict[str, str]] | None:
        """By the paper's protocol, fixed-feature; with how it deviates from what the paper's code did.

        None where the variant is of the other mode.
        """
        heads = self.grid._shared(("linear_heads", variant), lambda: self.grid.experiment.linear_heads_of(variant))
        if heads is None:
            return None
        tried = [*itertools.product(heads.learning_rates, heads.weight_decays)]

        def settings(
            purpose: Literal["search", "final"], rates: tuple[float, ...], decays: tuple[float, ...]
        ) -> LinearHeadsSettings:
            return LinearHeadsSettings(
                purpose=purpose,
                learning_rates=rates,
                weight_decays=decays,
                head_seeds=heads.head_seeds,
                training=heads.training,
                batchnorm=heads.batchnorm,
                normalisation=self._statistics(heads.normalisation),
                attack=heads.attack,
                chosen_under=heads.choosing if purpose == "search" else None,
                validation_fraction=heads.validation_fraction,
                **self._few,
                seed=self.seed,
                preprocessing=self.grid.experiment.preprocessing,
                keep_weights=purpose == "final" and self._keeps("fixed-feature"),
            )

        name = f"{self._name}_{heads.batchnorm}_{heads.normalisation}{'_adversarial' if heads.attack else ''}"
        inputs = {"backbone": self.backbone, "dataset": self.dataset}
        purposes: tuple[Literal["search", "final"], ...] = ("search", "final")
        # Heads share a pass, unless each sees images perturbed against itself.
        jobs = [((rate,), (decay,)) for rate, decay in tried] if heads.attack else [()]
        runs: dict[str, PlannedEntry] = {}
        for purpose in purposes[0 if "validation" in self.grid.experiment.selection else 1 :]:
            for i, job in enumerate(jobs):
                rates, decays = job or (heads.learning_rates, heads.weight_decays)
                depends_on = ("linear_heads", purpose, variant, job, *self._depends_on)
                shared = self.grid._shared(depends_on, functools.partial(settings, purpose, rates, decays))
                of_job = f"_lr{rates[0]:g}_wd{decays[0]:g}" if job else ""
                named = f"{name}{of_job}_{purpose}_seed{self.seed}"
                runs[f"{purpose}{i}"] = self.grid._add("linear_heads", named, shared, inputs)
        return self._choice(f"{name}_linear_heads", runs, heads.choosing), deviations_of_heads(heads)

    def full_network(self, variant: Variant) -> tuple[PlannedEntry, dict[str, str]] | None:
        """By the paper's protocol, full-network; with how it deviates from what the paper's code did.

        None where the variant is of the other mode.
        """
        experiment = self.grid.experiment
        finetuning = self.grid._shared(("finetuning", variant), lambda: experiment.finetuning_of(variant))
        if finetuning is None:
            return None
        inputs = {"backbone": self.backbone, "dataset": self.dataset}
        if finetuning.head == "probe":
            inputs |= {"features": self._features(), "probe": self.probe()}

        def settings(
            purpose: Literal["search", "refit", "final", "fixed"], rates: tuple[float, ...]
        ) -> FinetuningSettings:
            depends_on = ("finetuning", purpose, rates, variant, *self._depends_on)
            return self.grid._shared(depends_on, lambda: made(purpose, rates))

        def made(purpose: Literal["search", "refit", "final", "fixed"], rates: tuple[float, ...]) -> FinetuningSettings:
            return FinetuningSettings(
                purpose=purpose,
                learning_rates=rates,
                training=finetuning.training,
                normalisation=self._statistics(finetuning.normalisation),
                head=finetuning.head,
                trainable=finetuning.trainable,
                batchnorm=finetuning.batchnorm,
                attack=finetuning.attack,
                chosen_under=finetuning.choosing if purpose in ("search", "refit") else None,
                validation_fraction=finetuning.validation_fraction,
                **self._few,
                metric=experiment.datasets[self.target].metric,
                seed=self.seed,
                preprocessing=experiment.preprocessing,
                keep_weights=purpose != "search" and self._keeps("full-network"),
            )

        name, deviations = self._name + deviations_in_name(finetuning), deviations_of_finetuning(finetuning)
        if len(finetuning.learning_rates) == 1 and "test" not in experiment.selection:
            named = f"{name}_lr{finetuning.learning_rates[0]:g}_fixed_seed{self.seed}"
            only = settings("fixed", finetuning.learning_rates)
            return self.grid._add("finetuning", named, only, inputs), deviations
        runs: dict[str, PlannedEntry] = {}
        for i, rate in enumerate(finetuning.learning_rates):
            if "validation" in experiment.selection:
                named = f"{name}_lr{rate:g}_seed{self.seed}"
                runs[f"search{i}"] = self.grid._add("finetuning", named, settings("search", (rate,)), inputs)
            if "test" in experiment.selection:
                named = f"{name}_lr{rate:g}_final_seed{self.seed}"
                runs[f"final{i}"] = self.grid._add("finetuning", named, settings("final", (rate,)), inputs)
        if "test" in experiment.selection:
            return self._choice(f"{name}_finetuning", runs), deviations
        refit = settings("refit", finetuning.learning_rates)
        return self.grid._add("finetuning", f"{name}_refit_seed{self.seed}", refit, {**inputs, **runs}), deviations

    def _choice(self, name: str, runs: dict[str, PlannedEntry], under: ChoosingAttack | None = None) -> PlannedEntry:
        experiment = self.grid.experiment
        metric, radii = experiment.datasets[self.target].metric, under.eps if under else ()
        choosing = functools.partial(SelectingSettings, selections=experiment.selection, metric=metric, chosen_at=radii)
        settings = self.grid._shared(("selecting", metric, radii), choosing)
        return self.grid._add("selecting", f"{name}_seed{self.seed}", settings, runs)

    def _statistics(self, normalisation: str) -> Statistics | None:
        """What images are normalised by; None for what the backbone was trained with."""
        return self.grid.experiment.datasets[self.target].normalisation if normalisation == "target" else None

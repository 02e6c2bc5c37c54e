"""A whole experiment: one YAML file."""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Annotated, Literal, NamedTuple

from pydantic import BeforeValidator, Field, NonNegativeInt, PrivateAttr, field_validator, model_validator

from robust_transfer.configuration.adversarial import check_radius
from robust_transfer.configuration.base import Line, Model, Name
from robust_transfer.configuration.conflicts import CueConflict, ShapesConflicts
from robust_transfer.configuration.datasets import (
    Dataset,
    Granularity,
    Preprocessing,
    ShapesOrigin,
    is_labelled,
    not_swapped,
    same_images,
)
from robust_transfer.configuration.eps import Eps, eps_value
from robust_transfer.configuration.figures import Figures
from robust_transfer.configuration.gallery import Gallery
from robust_transfer.configuration.paths import WrittenFolder
from robust_transfer.configuration.robustness import Robustness
from robust_transfer.configuration.running import Running
from robust_transfer.configuration.sides import check_side
from robust_transfer.configuration.stylizing import Stylizing
from robust_transfer.configuration.test_sets import AlsoTestOn
from robust_transfer.configuration.training import (
    RECIPES,
    TEXTURE_ROBUST,
    Architecture,
    Evaluation,
    InputSize,
    Norm,
    Pretraining,
    Recipe,
    TrainedOn,
)
from robust_transfer.configuration.transfer import (
    Features,
    Finetuning,
    Knn,
    LinearHeads,
    Mode,
    Probing,
    ProtocolName,
    Selection,
)
from robust_transfer.configuration.variants import (
    SETTINGS,
    Setting,
    Variant,
    check_section,
    finetuning_of,
    linear_heads_of,
)
from robust_transfer.configuration.weights import (
    FileWeights,
    TorchvisionWeights,
    Weights,
    check_weights,
    shared_file,
    unknown_name,
)

TRAINED = "trained"
"""Backbones that this experiment trains itself."""


def _view(value: object) -> object:
    if value in ("native", "stylized") or (isinstance(value, int) and not isinstance(value, bool) and value >= 4):
        return value
    raise ValueError("a view is `stylized`, `native` or a short side in pixels, from 4 up")


View = Annotated[Literal["native", "stylized"] | int, BeforeValidator(_view)]


def _images(value: object) -> object:
    if value == "all" or (isinstance(value, int) and not isinstance(value, bool) and value >= 2):
        return value
    raise ValueError("images_per_class is `all` or a number from 2 up: one to train on and one to validate with")


def _in_total(value: object) -> object:
    if isinstance(value, int) and not isinstance(value, bool) and value >= 2:
        return value
    raise ValueError("training_images are numbers from 2 up: one to train on and one to validate with")


SUBSETS = (0, 1, 2, 3, 4)
"""Seeds of the subsets that transfer from few images is measured on, where no seeds are stated."""

ImagesPerClass = Annotated[Literal["all"] | int, BeforeValidator(_images)]
TrainingImages = Annotated[int, BeforeValidator(_in_total)]


class TrainingSet(NamedTuple):
    """How many training images a transfer gets, and the seed that draws them; all of them where both are None."""

    per_class: int | None
    total: int | None
    seed: int


class GridPart(Model):
    """A block of the grid: every architecture at every eps and seed, to every target in every mode and view.

    An experiment measures the union of its parts; what two parts share is done once.
    """

    architectures: Annotated[tuple[Architecture, ...], Field(min_length=1)]
    """Networks to pretrain, or to import."""
    backbones: Name | None = None
    """Where they come from: `trained`, or a name that `weights` defines. Default: the experiment's `backbones`."""
    norm: Norm = "l2"
    """Norm of the threat model."""
    eps: Annotated[tuple[Eps, ...], Field(min_length=1)]
    """Radii to train at; 0 is the standard network that the others are compared with."""
    seeds: Annotated[tuple[NonNegativeInt, ...], Field(min_length=1)] = (0,)
    """Seeds of pretraining."""
    trained_on: TrainedOn = "native"
    """Images of the source that backbones train on. Those of `stylized` images, of `both`, or of `both-then-native` \
ones are texture-robust: standard training, so eps [0], by the recipes of `pretraining.texture_robust`. With weights \
under `backbones` it starts from these."""
    targets: tuple[Name, ...] | None = None
    """Names from the experiment's `targets`. Default: all of them."""
    modes: tuple[Mode, ...] = ("fixed-feature", "full-network")
    """How backbones are transferred; [] only evaluates them on the source."""
    protocols: Annotated[tuple[ProtocolName, ...], Field(min_length=1)] = ("frozen",)
    """How fixed-feature transfer is measured."""
    variants: Annotated[tuple[Variant, ...], Field(min_length=1)] = (Variant(),)
    """Settings of the paper protocol to measure under; `{}` is that of the sections `linear_heads` and `finetuning`."""
    images_per_class: Annotated[tuple[ImagesPerClass, ...], Field(min_length=1)] = ("all",)
    """Training images of each class that transfer gets, validation images among them: `all`, or numbers. Those of a \
smaller number are among those of a larger one, by transfer seed. A number that no class has is refused. One draw of \
few images says little: each number is measured on five, unless `transfer_seeds` says otherwise."""
    training_images: tuple[TrainingImages, ...] = ()
    """Training images in total, of all classes together, beside what `images_per_class` says: numbers. They are drawn \
from all training images alike, as Utrera et al. (2020) did, so that a class has as many as chance gives it, or none; \
else as `images_per_class`."""
    views: Annotated[tuple[View, ...], Field(min_length=1)] = ("native",)
    """`native` images of targets, `stylized` ones (section `stylizing`), and short sides in pixels to which they are \
downscaled first."""
    source_views: Annotated[tuple[View, ...], Field(min_length=1)] = ("native",)
    """Test images of the source that backbones are evaluated on, without training: `stylized` ones too for Fig. 8a. \
On other than native images accuracy is clean alone."""
    transfer_to_source: tuple[View, ...] = ()
    """Views of the source that backbones are transferred to, in this part's modes, as to a target: `stylized` for \
Fig. 8a's lower half."""
    cue_conflict: bool = True
    """Measure these backbones on cue-conflict images, where the section `cue_conflict` names some."""
    gallery: bool = False
    """Make galleries of these backbones, of the first seed: pictures of what they respond to, as `gallery` says."""
    robustness: bool = False
    """Attack the models that this part transfers, on test images of their targets, as `robustness` says; fine-tuned \
networks and linear heads then keep their weights."""
    transfer_seeds: Annotated[tuple[NonNegativeInt, ...], Field(min_length=1)] | None = None
    """Seeds of transfer: validation split, head, order of images, and which images where they are few. Default: 0, \
and 0 to 4 where `images_per_class` is a number, and of `training_images`."""

    def transfer_seeds_of(self, images: str | int) -> tuple[int, ...]:
        """The seeds of transfer from so many images of each class (`all`, or a number)."""
        return self.transfer_seeds or ((0,) if images == "all" else SUBSETS)

    def training_sets(self) -> list[TrainingSet]:
        """Every training set of this part's transfers: by images of each class, then by images in total."""
        by_class = [(None if images == "all" else int(images), None) for images in self.images_per_class]
        in_total = [(None, images) for images in self.training_images]
        return [
            TrainingSet(*size, seed)
            for size in (*by_class, *in_total)
            for seed in self.transfer_seeds_of("all" if size == (None, None) else "few")
        ]

    @field_validator(
        "architectures", "eps", "seeds", "targets", "modes", "protocols", "variants", "images_per_class",
        "training_images", "views", "transfer_seeds", "source_views", "transfer_to_source",
    )  # fmt: skip
    @classmethod
    def _nothing_twice(cls, values: tuple[object, ...] | None) -> tuple[object, ...] | None:
        twice = sorted({str(value) for value in values or () if (values or ()).count(value) > 1})
        if twice:
            raise ValueError(f"named twice: {', '.join(twice)}")
        return values

    @model_validator(mode="after")
    def _fractions_are_linf(self) -> GridPart:
        for eps in self.eps:
            check_radius(self.norm, eps)
        return self

    @model_validator(mode="after")
    def _texture_robust_are_standard(self) -> GridPart:
        if self.trained_on != "native" and self.eps != ("0",):
            raise ValueError(
                f"trained_on = {self.trained_on}: texture-robust networks are trained without an attack; write "
                "eps: [0], and robust networks in a part of their own"
            )
        if "native" in self.transfer_to_source:
            raise ValueError("transfer_to_source: native are the images that backbones are trained on; take it out")
        return self


def _unmeasured(setting: Setting) -> str:
    """What a part of the grid must say so that this setting is measured."""
    mode = SETTINGS[setting][0]
    protocol = " and protocols: [paper]" if mode == "fixed-feature" else ""
    return f"is of {mode} transfer by the paper protocol; set modes: [{mode}]{protocol}"


def _section(part: GridPart) -> str:
    """Where the recipe of a part's backbones stands below `pretraining`."""
    return "training." if part.trained_on == "native" else "texture_robust, in every recipe, "


@dataclass(frozen=True)
class _Worded:
    """Words messages. All are equal: which files an experiment came from is no part of what it says."""

    word: Callable[[str], str] = field(default=str, compare=False)


class Experiment(Model):
    """What one configuration file says."""

    experiment: Name
    """Name of the experiment: what it measures and draws lies under `results/<experiment>/`."""
    title: Line = ""
    """Title of the report."""
    notice: str = ""
    """A caution that the report and the terminal summary show with the results."""
    store: WrittenFolder = "store"
    """Folder of everything that is expensive to compute; experiments share it. `~` and `$NAME` are resolved."""
    results: WrittenFolder = "results"
    """Folder of results, one folder per experiment. `~` and `$NAME` are resolved."""
    input_size: InputSize
    """Side of the network's input in pixels; eps is measured there."""
    preprocessing: Preprocessing = Preprocessing()
    """What happens to an image between the store and the network."""
    datasets: dict[Name, Dataset]
    """Datasets by name. Those that are neither source nor target are not prepared."""
    source: Name
    """The dataset that backbones are pretrained on."""
    targets: Annotated[tuple[Name, ...], Field(min_length=1)]
    """The downstream datasets, in the order of figures."""
    grid: Annotated[tuple[GridPart, ...], Field(min_length=1)]
    """Which backbones are trained and how each is transferred: the union of these parts."""
    weights: dict[Name, Weights] = Field(default={})
    """Published weights by a name of yours, which tables show as the recipe."""
    backbones: Name = TRAINED
    """Where backbones come from: `trained` here, or a name that `weights` defines."""
    missing: Literal["stop", "drop"] = "stop"
    """Where the images of a target are not on the disk: `stop` before the first job, or `drop` the target, which the \
report then names. A source that only evaluates imported backbones is dropped likewise."""
    pretraining: Pretraining = Pretraining()
    """How backbones are trained."""
    evaluation: Evaluation = Evaluation()
    """How backbones are evaluated on the source."""
    cue_conflict: CueConflict | None = None
    """Whether backbones decide by shape or by texture. Default: that is not measured."""
    gallery: Gallery = Gallery()
    """How galleries are made, of the parts of the grid that have `gallery: true`."""
    granularity: Granularity = Granularity()
    """How targets are downscaled."""
    stylizing: Stylizing = Stylizing()
    """How images are stylized."""
    features: Features = Features()
    """How features are extracted."""
    probing: Probing = Probing()
    """The frozen protocol of fixed-feature transfer."""
    knn: Knn = Knn()
    """The knn protocol of fixed-feature transfer."""
    linear_heads: LinearHeads = LinearHeads()
    """The paper protocol of fixed-feature transfer."""
    finetuning: Finetuning = Finetuning()
    """Full-network transfer."""
    also_test_on: dict[Name, Annotated[tuple[AlsoTestOn, ...], Field(min_length=1)]] = Field(default={})
    """By target, other datasets of its classes: every model that is transferred to the target is tested on their test\
 images too. Trained networks keep their weights for it."""
    robustness: Robustness = Robustness()
    """How transferred models are attacked, in the parts of the grid that have `robustness: true`."""
    selection: Annotated[tuple[Selection, ...], Field(min_length=1)] = ("validation",)
    """Where hyperparameters, and in 'best robust' cells eps and architecture, are chosen; `test` is what the paper \
did. With both every number is there twice, and figures show the first."""
    figures: Figures = Figures()
    """What is drawn."""
    running: Running = Running()
    """How jobs run."""

    _worded: _Worded = PrivateAttr(default=_Worded())

    def name_files_by(self, after_its_file: Callable[[str], str]) -> None:
        """Say how a message that begins with a key of this experiment gets the name of the file that states the key."""
        self._worded = _Worded(after_its_file)

    def mistake(self, message: str) -> str:
        """A message that begins with a key, after the file that states it, where the experiment came from files."""
        return self._worded.word(message)

    @model_validator(mode="after")
    def _names_resolve(self) -> Experiment:
        known = ", ".join(sorted(self.datasets)) or "none"
        for where, name in [("source", self.source), *((f"targets[{i}]", t) for i, t in enumerate(self.targets))]:
            if name not in self.datasets:
                raise ValueError(f"{where} = {name}: no such dataset; datasets defines {known}")
        if len(set(self.targets)) != len(self.targets):
            raise ValueError(f"targets = {', '.join(self.targets)}: a target is named twice")
        self._refuse_the_source_as_target()
        for i, part in enumerate(self.grid):
            for j, target in enumerate(part.targets or ()):
                if target not in self.targets:
                    raise ValueError(
                        f"grid[{i}].targets[{j}] = {target}: not a target; targets names {', '.join(self.targets)}"
                    )
        return self

    def _refuse_the_source_as_target(self) -> None:
        """Training images, and test images of the same classes, would count as transfer."""
        source = self.datasets[self.source].origin
        for i, target in enumerate(self.targets):
            if target == self.source:
                what = "the source itself"
            elif same_images(self.datasets[target].origin, source):
                what = f"the same images as the source, {self.source}"
            else:
                continue
            raise ValueError(
                f"targets[{i}] = {target}: {what}, on which backbones train; take it out: accuracy on the source is "
                "measured without that (mode: source)"
            )

    @model_validator(mode="after")
    def _conflicts_resolve(self) -> Experiment:
        if self.cue_conflict is None:
            return self
        origin = self.datasets[self.source].origin if self.source in self.datasets else None
        drawn = isinstance(self.cue_conflict.images, ShapesConflicts)
        if drawn and not (isinstance(origin, ShapesOrigin) and origin.task == "objects"):
            raise ValueError(
                "cue_conflict.images.kind = shapes: draws images of a source of kind shapes and task objects again, "
                f"and {self.source} is none; name images of kind folder or parquet"
            )
        known = ", ".join(sorted(self.datasets))
        for name, classes in self.cue_conflict.probe.items():
            if name not in self.datasets:
                raise ValueError(f"cue_conflict.probe.{name}: no such dataset; datasets defines {known}")
            strange = [one for one in classes if one not in (self.cue_conflict.classes or classes)]
            if strange:
                raise ValueError(
                    f"cue_conflict.probe.{name}.{strange[0]}: not one of cue_conflict.classes, among which it decides"
                )
        return self

    @model_validator(mode="after")
    def _other_test_sets_resolve(self) -> Experiment:
        known = ", ".join(sorted(self.datasets))
        for target, others in self.also_test_on.items():
            if target not in self.targets:
                raise ValueError(f"also_test_on.{target}: not a target; targets names {', '.join(self.targets)}")
            named = [one.dataset for one in others]
            for i, name in enumerate(named):
                where = f"also_test_on.{target}[{i}].dataset = {name}"
                if name not in self.datasets:
                    raise ValueError(f"{where}: no such dataset; datasets defines {known}")
                if name == target:
                    raise ValueError(f"{where}: the target itself, on whose test images its models are tested anyway")
                if name in named[:i]:
                    raise ValueError(f"{where}: named twice; put all of its classes in one map")
        return self

    @model_validator(mode="after")
    def _galleries_have_radii(self) -> Experiment:
        stated = self.gallery.perturbations
        for i, part in enumerate(self.grid):
            if not part.gallery:
                continue
            if part.norm != "linf" and (fractions := [eps for eps in stated if "/" in eps]):
                raise ValueError(
                    f"gallery.perturbations = {fractions[0]}: a fraction of 255, which only norm linf takes, and "
                    f"grid[{i}], which has a gallery, is of norm {part.norm}; write a decimal"
                )
            if not self.perturbations(part.norm):
                raise ValueError(
                    f"grid[{i}].gallery: no robust network of norm {part.norm} has a gallery, so there is no radius to "
                    "attack at; state some: `gallery: {perturbations: [0.5]}`"
                )
        return self

    @model_validator(mode="after")
    def _attacks_on_transferred_models(self) -> Experiment:
        for i, part in enumerate(self.grid):
            if not part.robustness:
                continue
            if not self.robustness.eps:
                raise ValueError(
                    f"grid[{i}].robustness: no radius to attack at; state some: `robustness: {{eps: [0.5]}}`"
                )
            norm, fractions = self.attack_norm(part), [eps for eps in self.robustness.eps if "/" in eps]
            if fractions and norm != "linf":
                raise ValueError(
                    f"robustness.eps = {fractions[0]}: a fraction of 255, which only norm linf takes, and the models "
                    f"of grid[{i}] are attacked in norm {norm}; write a decimal, or robustness.norm: linf"
                )
        return self

    def attack_norm(self, part: GridPart) -> Norm:
        """The norm in which transferred models of a part are attacked."""
        return self.robustness.norm or part.norm

    def perturbations(self, norm: Norm) -> tuple[Eps, ...]:
        """Radii of the adversarial examples of a gallery, growing: those stated, or all that its networks have."""
        trained = {eps for part in self.grid if part.gallery and part.norm == norm for eps in part.eps} - {"0"}
        return tuple(sorted(self.gallery.perturbations or trained, key=eps_value))

    @model_validator(mode="after")
    def _weights_exist(self) -> Experiment:
        if TRAINED in self.weights:
            raise ValueError(f"weights.{TRAINED}: this name means backbones trained here; take another")
        known = ", ".join([TRAINED, *self.weights])
        if self.backbones not in (TRAINED, *self.weights):
            raise ValueError(f"backbones = {self.backbones}: weights defines no such name; write one of {known}")
        for i, part in enumerate(self.grid):
            if part.backbones not in (None, TRAINED, *self.weights):
                raise ValueError(f"grid[{i}].backbones = {part.backbones}: write one of {known}")
            name, weights = part.backbones or self.backbones, self.weights_of(part)
            if weights is None:
                continue
            if part.seeds != (0,) and not (isinstance(weights, FileWeights) and "{seed" in weights.path):
                raise ValueError(f"grid[{i}].seeds: {name} has one network of each kind")
            for architecture in part.architectures:
                for eps in part.eps:
                    try:
                        check_weights(weights, architecture, part.norm, eps)
                    except ValueError as error:
                        raise ValueError(f"grid[{i}]: {name}: {error}") from None
                if isinstance(weights, TorchvisionWeights) and (wrong := unknown_name(weights.weights, architecture)):
                    raise ValueError(f"weights.{name}.weights = {weights.weights}: {wrong}")
        if shared := shared_file(self._files()):
            raise ValueError(shared)
        return self

    def _files(self) -> Iterator[tuple[str, FileWeights, str, Norm, str, int]]:
        """The networks of the grid that come from files, as `shared_file` takes them."""
        for part in self.grid:
            weights = self.weights_of(part)
            if isinstance(weights, FileWeights):
                name = part.backbones or self.backbones
                for architecture, eps, seed in itertools.product(part.architectures, part.eps, part.seeds):
                    yield name, weights, architecture, part.norm, eps, seed

    @model_validator(mode="after")
    def _recipe_says_something(self) -> Experiment:
        """A name that brings no values, by a slip, would train the paper's 90 epochs."""
        recipe, stated = self.pretraining.recipe, self.pretraining.training.model_fields_set
        if (
            recipe not in RECIPES
            and "epochs" not in stated
            and any(self.weights_of(part) is None for part in self.grid)
        ):
            near = difflib.get_close_matches(recipe, RECIPES, n=1)
            raise ValueError(
                f"pretraining.recipe = {recipe}: brings no values, and pretraining.training.epochs is not stated; "
                f"{f'did you mean {near[0]}? If not, ' if near else ''}state the settings of training, or write "
                f"{' or '.join(RECIPES)}, which bring theirs"
            )
        return self

    @model_validator(mode="after")
    def _networks_take_the_images(self) -> Experiment:
        for i, part in enumerate(self.grid):
            first = min([self.input_size, *(one.first_side(self.input_size) for one in self.recipes_of(part))])
            for j, architecture in enumerate(part.architectures):
                try:
                    check_side(architecture, self.input_size)
                except ValueError as error:
                    raise ValueError(
                        f"grid[{i}].architectures[{j}] = {architecture}: {error}, which input_size says; change one of "
                        "the two"
                    ) from None
                try:
                    check_side(architecture, first, built_for=self.input_size)
                except ValueError as error:
                    raise ValueError(
                        f"grid[{i}].architectures[{j}] = {architecture}: {error}, with which its training starts; set "
                        f"pretraining.{_section(part)}start_scale: 1, or a larger one"
                    ) from None
        return self

    def weights_of(self, part: GridPart) -> Weights | None:
        """The weights that a part's backbones are imported from, or start from where they are texture-robust.

        None where none are.
        """
        return self.weights.get(part.backbones or self.backbones)

    def recipes_of(self, part: GridPart) -> tuple[Recipe, ...]:
        """The recipes that a part's backbones are trained by, one after the other; none where they are imported."""
        robust, start = self.pretraining.texture_robust, () if self.weights_of(part) else (self.pretraining.training,)
        if part.trained_on == "native":
            return start
        first = start if robust.start == "standard" else ()
        return {
            "stylized": (*first, robust.stylized),
            "both": (*first, robust.both),
            "both-then-native": (*first, robust.both, robust.native),
        }[part.trained_on]

    @model_validator(mode="after")
    def _variants_resolve(self) -> Experiment:
        """Every variant gives consistent settings of each mode that it counts in."""
        for i, part in enumerate(self.grid):
            for j, variant in enumerate(part.variants if part.modes else ()):
                where = f"grid[{i}].variants[{j}]"
                measured = {"full-network": True, "fixed-feature": "paper" in part.protocols}
                modes = [mode for mode in part.modes if measured[mode]]
                if variant.setting and SETTINGS[variant.setting][0] not in modes:
                    raise ValueError(f"{where}.setting = {variant.setting}: {_unmeasured(variant.setting)}")
                heads = self.linear_heads_of(variant) if "fixed-feature" in modes else None
                finetuning = self.finetuning_of(variant) if "full-network" in modes else None
                for name, section in (("linear_heads", heads), ("finetuning", finetuning)):
                    if section:
                        self._check_variant(where, variant, name, section)
        return self

    def _check_variant(self, where: str, variant: Variant, name: str, settings: LinearHeads | Finetuning) -> None:
        own = f"{where}: " if variant != Variant() else ""  # what the section says is a mistake of the section
        if own:
            try:
                check_section(settings, variant, name)
            except ValueError as error:
                raise ValueError(f"{own}{error}") from None
        if settings.choose_by != "clean" and "test" in self.selection:
            raise ValueError(
                f"{own}{name}.choose_by = {settings.choose_by}: test images are never attacked to choose on; "
                "set selection: [validation]"
            )
        if isinstance(settings, Finetuning) and settings.head == "probe" and self.features.layer:
            raise ValueError(
                f"{own}finetuning.head = probe: starts at a probe on what the head sees, and features.layer says "
                f"{self.features.layer}; leave that out"
            )

    def linear_heads_of(self, variant: Variant) -> LinearHeads | None:
        """The section `linear_heads` as a variant changes it; None where the variant is of the other mode."""
        return linear_heads_of(self.linear_heads, variant)

    def finetuning_of(self, variant: Variant) -> Finetuning | None:
        """The section `finetuning` as a variant changes it; None where the variant is of the other mode."""
        return finetuning_of(self.finetuning, variant)

    @field_validator("selection")
    @classmethod
    def _no_selection_twice(cls, values: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(values)) != len(values):
            raise ValueError("names a selection twice")
        return values

    @model_validator(mode="after")
    def _views_lose_detail(self) -> Experiment:
        for i, part in enumerate(self.grid):
            for key in ("views", "source_views", "transfer_to_source"):
                for j, view in enumerate(getattr(part, key)):
                    if isinstance(view, int) and view >= self.input_size:
                        raise ValueError(
                            f"grid[{i}].{key}[{j}] = {view}: a downscaled view must be smaller than input_size "
                            f"{self.input_size}; at 32 px use 8, 12 or 16"
                        )
        return self

    @model_validator(mode="after")
    def _can_be_stylized(self) -> Experiment:
        styles = self.stylizing.styles
        if styles is not None and styles not in self.datasets:
            raise ValueError(
                f"stylizing.styles = {styles}: no such dataset; datasets defines {', '.join(sorted(self.datasets))}"
            )
        for name, where in self.stylized():
            if self.stylizing.method == "texture-swap" and (why := not_swapped(self.datasets[name])):
                raise ValueError(f"{where} of {name}: stylizing.method = texture-swap {why}")
        return self

    def stylized(self) -> Iterator[tuple[str, str]]:
        """Datasets of which a part of the grid needs a stylized view, and the setting that asks for it."""
        for i, part in enumerate(self.grid):
            targets = part.targets if part.targets is not None else self.targets
            if "stylized" in part.views and part.modes:
                for target in targets:
                    yield target, f"grid[{i}].views = stylized"
                    for one in self.also_test_on.get(target, ()):
                        yield one.dataset, f"grid[{i}].views = stylized, with also_test_on.{target},"
            for key in ("source_views", "transfer_to_source"):
                if "stylized" in getattr(part, key):
                    yield self.source, f"grid[{i}].{key} = stylized"
            if part.trained_on != "native":
                yield self.source, f"grid[{i}].trained_on = {part.trained_on}"

    @model_validator(mode="after")
    def _labelled(self) -> Experiment:
        """Images without classes are good for their styles alone."""
        named = [("source", self.source), *((f"targets[{i}]", t) for i, t in enumerate(self.targets))]
        named += [(f"also_test_on.{t}", one.dataset) for t, others in self.also_test_on.items() for one in others]
        for where, name in named:
            if not is_labelled(self.datasets[name].origin):
                raise ValueError(
                    f"datasets.{name}.origin: images without classes, which stylizing.styles alone can name, and "
                    f"{where} is {name}"
                )
        return self

    @model_validator(mode="after")
    def _texture_robust_have_names(self) -> Experiment:
        """Tables tell texture-robust networks from others by the name in the place of the recipe."""
        taken = [("pretraining.recipe", self.pretraining.recipe), *((f"weights.{name}", name) for name in self.weights)]
        for key, name in taken:
            if name in TEXTURE_ROBUST.values():
                raise ValueError(f"{key} = {name}: this name means texture-robust networks trained here; take another")
        return self

    @model_validator(mode="after")
    def _figures_resolve(self) -> Experiment:
        architectures = {name for part in self.grid for name in part.architectures}
        for i, name in enumerate(self.figures.widths):
            if name not in architectures:
                raise ValueError(
                    f"figures.widths[{i}] = {name}: not in the grid, which has {', '.join(sorted(architectures))}"
                )
        if self.figures.source == "both" and self.source != "imagenet":
            raise ValueError(
                f"figures.source = both: numbers were published of the source imagenet, and this one is {self.source}; "
                "write ours, or published for the paper's figures alone"
            )
        every_eps = {eps for part in self.grid for eps in part.eps}
        fixed = self.figures.fixed_eps
        if fixed is not None and (fixed not in every_eps or fixed == "0"):
            raise ValueError(
                f"figures.fixed_eps = {fixed}: not a robust eps of the grid, which has {', '.join(sorted(every_eps))}"
            )
        return self

"""Transfer: features, probes on them, fine-tuning, and which of it is measured."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import (
    BeforeValidator,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from robust_transfer.configuration.adversarial import (
    ChooseBy,
    ChoosingAttack,
    TrainingAttack,
    check_choice,
    choosing_attack,
)
from robust_transfer.configuration.base import ALWAYS, Model
from robust_transfer.configuration.datasets import Metric, Preprocessing, Statistics
from robust_transfer.configuration.eps import Eps
from robust_transfer.configuration.training import Recipe

Mode = Literal["fixed-feature", "full-network"]
ProtocolName = Literal["frozen", "paper", "knn"]
PROTOCOLS: tuple[ProtocolName, ...] = get_args(ProtocolName)
"""How fixed-feature transfer can be measured; where several were, figures show the first of them."""
Selection = Literal["validation", "test"]
BatchNorm = Literal["drift", "frozen"]
FinetuningBatchNorm = Literal["train", "frozen"]
Head = Literal["random", "probe"]
LearningRates = Annotated[tuple[PositiveFloat, ...], Field(min_length=1)]
Normalisation = Literal["target", "source"]

# 45 logarithmically spaced strengths, as many as Kornblith et al. (2019) tried. They multiply half the squared weights
# beside the mean loss of an image, so that one range serves every number of images: above 10 every accuracy is chance.
STRENGTHS = tuple(float(f"{10 ** (-8 + 9 * k / 44):.3g}") for k in range(45))


class Features(Model):
    """Activations before the head, of a network in eval mode."""

    dtype: Literal["float16", "float32"] = "float16"
    """How features are stored."""
    precision: Literal["fp32", "bf16"] = Field(default="fp32", json_schema_extra=ALWAYS)
    """How the network computes them."""
    layer: str | None = None
    """A layer by name, its activations averaged over places: `robust-transfer layers resnet18` lists them. \
Default: what the head sees."""


class Probing(Model):
    """Frozen protocol: multinomial logistic regression on stored features, mean cross-entropy + λ/2·‖W‖²."""

    strengths: Annotated[tuple[PositiveFloat, ...], Field(min_length=1)] = STRENGTHS
    """The λ among which validation accuracy chooses."""
    solver: Literal["lbfgs", "scikit-learn"] = "lbfgs"
    """What fits: our own `lbfgs`, all strengths along one path; or `scikit-learn`, to check ours by: its \
LogisticRegression at C = 1/(λ n) for n images (2/(λ n) for two classes). It takes ten to a hundred times as long."""
    standardise: bool = True
    """Scale every feature to mean 0 and variance 1 over the images that are fitted on."""
    validation_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """Share of each class's training images held out for choosing, where a dataset has no official validation split."""

    @model_validator(mode="after")
    def _no_strength_twice(self) -> Probing:
        if len(set(self.strengths)) != len(self.strengths):
            raise ValueError("strengths names a value twice")
        return self


class Knn(Model):
    """Knn protocol: the classes of the nearest training images by the cosine of stored features, nothing trained.

    The vote of Wu et al. (2018, "Unsupervised feature learning via non-parametric instance discrimination", k = 200)
    and of DINO (Caron et al. 2021, k of 10, 20, 100, 200): each neighbour counts exp(cosine / 0.07).
    """

    neighbours: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (1, 5, 10, 20, 50, 100, 200)
    """The numbers of neighbours, k, among which validation accuracy chooses. Those above the number of training \
images are left out."""
    weights: Literal["exponential", "uniform", "distance"] = "exponential"
    """What a neighbour's vote counts: `exponential`: exp(cosine / temperature); `uniform`: 1; `distance`: the inverse \
of the distance between features scaled to length 1."""
    temperature: PositiveFloat = 0.07
    """Of `exponential` votes."""
    validation_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """Share of each class's training images held out for choosing, where a dataset has no official validation split."""

    @model_validator(mode="after")
    def _grid(self) -> Knn:
        if len(set(self.neighbours)) != len(self.neighbours):
            raise ValueError("neighbours names a number twice")
        if self.weights != "exponential" and self.temperature != Knn.model_fields["temperature"].default:
            raise ValueError(f"temperature is not read with weights: {self.weights}; leave it out")
        return self


class LastBlocks(Model):
    """Only the last blocks of the network, what follows them, and the head."""

    last_blocks: PositiveInt
    """How many: residual blocks, or those of a transformer; where a network has none, its layers."""


def _trainable(value: object) -> object:
    """One message for a wrong value, where a union would give one for each of its members."""
    blocks = value.get("last_blocks") if isinstance(value, dict) and {*value} == {"last_blocks"} else None
    number = isinstance(blocks, int) and not isinstance(blocks, bool) and blocks > 0
    if value in ("all", "head") or isinstance(value, LastBlocks) or number:
        return value
    raise ValueError("write all, head, or {last_blocks: 2} with a number from 1 up")


Trainable = Annotated[Literal["all", "head"] | LastBlocks, BeforeValidator(_trainable)]


class LinearHeads(Model):
    """Paper protocol of fixed-feature transfer: heads trained by SGD on augmented images, all before them frozen.

    Every head has a learning rate, a weight decay and a seed of its own; all share each forward pass of the network.
    Under an attack each sees other images, so that each is trained in a job of its own. Defaults are what the released
    code did.
    """

    learning_rates: LearningRates = (0.01, 0.001)
    """Learning rates to choose among."""
    weight_decays: Annotated[tuple[NonNegativeFloat, ...], Field(min_length=1)] = (5e-4,)
    """Weight decays to choose among."""
    head_seeds: Annotated[tuple[NonNegativeInt, ...], Field(min_length=1)] = (0,)
    """Initialisations of the head, under one order of images and the same crops. What is measured is their mean; it \
says nothing of how other crops would turn out, so it never makes an interval over seeds."""
    training: Recipe = Recipe(epochs=150, batch_size=64, step_epochs=50, augmentation="resized-crop-flip")
    """Schedule, augmentation, precision; learning rate and weight decay are the grid's."""
    batchnorm: BatchNorm = "drift"
    """`drift`: BatchNorm stays in train mode, uses each batch's statistics, and its running ones move to the target, \
as in the released code, which froze weights alone; `frozen`: statistics of pretraining throughout."""
    normalisation: Normalisation = "target"
    """`target`: images normalised by the target dataset's `normalisation`, by default not at all, as in the released \
code; `source`: as the backbone was trained."""
    attack: TrainingAttack | None = None
    """Adversarial training of the head, on images perturbed against network and head. Default: none."""
    choose_by: ChooseBy = "clean"
    """Which validation accuracy chooses: on images as they are, on attacked ones, or the mean over several radii."""
    chosen_under: ChoosingAttack | None = None
    """The attack of that choice. Default: ten steps at the radius of `attack`."""
    validation_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """Share of each class's training images held out for choosing, where a dataset has no official validation split."""

    @property
    def choosing(self) -> ChoosingAttack | None:
        """The attack under which validation accuracy chooses; None: on images as they are."""
        return choosing_attack(self.choose_by, self.chosen_under, self.attack)

    @model_validator(mode="after")
    def _attacked(self) -> LinearHeads:
        if self.attack and len(self.head_seeds) > 1:
            raise ValueError("head_seeds: under an attack every head is a training of its own; name one seed")
        several = len(self.learning_rates) * len(self.weight_decays) > 1
        check_choice(self.choose_by, self.chosen_under, self.attack, several)
        return self

    @model_validator(mode="after")
    def _grid(self) -> LinearHeads:
        for name in ("learning_rates", "weight_decays", "head_seeds"):
            if len(set(getattr(self, name))) != len(getattr(self, name)):
                raise ValueError(f"{name} names a value twice")
        for name in ("learning_rate", "weight_decay"):
            if name in self.training.model_fields_set:
                raise ValueError(f"training.{name} is not read here: list the values in {name}s")
        for name in ("average_decay", "batchnorm_group"):
            if getattr(self.training, name):
                raise ValueError(f"training.{name} is not for heads: leave it out")
        if self.training.optimiser != "sgd":
            raise ValueError(
                f"training.optimiser = {self.training.optimiser}: heads that share a pass are trained by SGD; "
                "`finetuning` with trainable: head takes the other"
            )
        return self


class Finetuning(Model):
    """Full-network transfer: every parameter trained from the backbone's, the head fresh, unless stated otherwise."""

    learning_rates: LearningRates = (0.01, 0.001)
    """The learning rates among which validation accuracy chooses. A single one is fixed beforehand: the network is \
then trained once, on the training images less the validation ones, and not again on both."""
    training: Recipe = Recipe(
        epochs=150, batch_size=64, weight_decay=5e-4, step_epochs=50, augmentation="square-resized-crop-flip"
    )
    """Optimiser, schedule, augmentation, precision; its learning rate is the grid's."""
    normalisation: Normalisation = "source"
    """`source`: images normalised as the backbone was trained; `target`: by the target dataset's `normalisation`, by \
default not at all, as in the released code."""
    head: Head = "random"
    """Where the head starts: `random`, or at the `probe` that the frozen protocol fits (Kumar et al. 2022, LP-FT)."""
    trainable: Trainable = "all"
    """What is trained: `all`, `head`, or `{last_blocks: 2}` and the head. What is frozen is in eval mode."""
    batchnorm: FinetuningBatchNorm = "train"
    """`train`: BatchNorm uses each batch's statistics, and its running ones follow; `frozen`: statistics of \
pretraining throughout, while scale and shift are trained."""
    attack: TrainingAttack | None = None
    """Adversarial fine-tuning. Default: none."""
    choose_by: ChooseBy = "clean"
    """Which validation accuracy chooses: on images as they are, on attacked ones, or the mean over several radii."""
    chosen_under: ChoosingAttack | None = None
    """The attack of that choice. Default: ten steps at the radius of `attack`."""
    validation_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """Share of each class's training images held out for choosing, where a dataset has no official validation split."""

    @property
    def choosing(self) -> ChoosingAttack | None:
        """The attack under which validation accuracy chooses; None: on images as they are."""
        return choosing_attack(self.choose_by, self.chosen_under, self.attack)

    @model_validator(mode="after")
    def _starts_where_it_says(self) -> Finetuning:
        if self.head == "probe" and self.normalisation == "target":
            raise ValueError(
                "head: probe starts at a solution on images normalised as the backbone was trained; "
                "set normalisation: source"
            )
        check_choice(self.choose_by, self.chosen_under, self.attack, len(self.learning_rates) > 1)
        return self

    @model_validator(mode="after")
    def _rates(self) -> Finetuning:
        if len(set(self.learning_rates)) != len(self.learning_rates):
            raise ValueError("learning_rates names a value twice")
        if "learning_rate" in self.training.model_fields_set:
            raise ValueError("training.learning_rate is not read here: list the rates in learning_rates")
        return self


class FeaturesSettings(Features):
    """Settings of an entry under `store/features/`. Inputs: `backbone`, `dataset`."""

    preprocessing: Preprocessing = Preprocessing()


class ProbingSettings(Probing):
    """Settings of an entry under `store/probing/`. Input: `features`."""

    metric: Metric = "top1"
    seed: NonNegativeInt = 0
    """Seed of the validation split, and of which images count where there is a limit."""
    images_per_class: PositiveInt | None = None
    """Training images of each class, validation images among them. None: all."""
    training_images: PositiveInt | None = None
    """Training images of all classes together, validation images among them. None: no such limit."""
    selections: Annotated[tuple[Selection, ...], Field(min_length=1)] = ("validation",)
    """Where the strength is chosen; a result each."""


class KnnSettings(Knn):
    """Settings of an entry under `store/knn/`. Input: `features`."""

    metric: Metric = "top1"
    seed: NonNegativeInt = 0
    """Seed of the validation split, and of which images count where there is a limit."""
    images_per_class: PositiveInt | None = None
    """Training images of each class, validation images among them. None: all."""
    training_images: PositiveInt | None = None
    """Training images of all classes together, validation images among them. None: no such limit."""
    selections: Annotated[tuple[Selection, ...], Field(min_length=1)] = ("validation",)
    """Where the number of neighbours is chosen; a result each."""


class LinearHeadsSettings(Model):
    """Settings of an entry under `store/linear_heads/`. Inputs: `backbone`, `dataset`.

    A search run fits on the training images less the validation ones and measures validation accuracy; a final run fits
    on all training images and measures test accuracy. Both try every learning rate and weight decay.
    """

    purpose: Literal["search", "final"]
    learning_rates: tuple[PositiveFloat, ...]
    weight_decays: tuple[NonNegativeFloat, ...]
    head_seeds: tuple[NonNegativeInt, ...] = (0,)
    training: Recipe
    batchnorm: BatchNorm
    normalisation: Statistics | None
    """None: as the backbone was trained."""
    attack: TrainingAttack | None = None
    """With it there is one learning rate, weight decay and head seed."""
    chosen_under: ChoosingAttack | None = None
    """Of a search run: the attack on validation images, beside images as they are, by which to choose."""
    validation_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.2
    images_per_class: PositiveInt | None = None
    training_images: PositiveInt | None = None
    seed: NonNegativeInt = 0
    """Seed of the validation split, of which images count, of their order and crops."""
    preprocessing: Preprocessing = Preprocessing()
    keep_weights: bool = False
    """Keep the network with its heads, for whoever attacks or exports it."""

    @model_validator(mode="after")
    def _one_head_under_attack(self) -> LinearHeadsSettings:
        heads = len(self.learning_rates) * len(self.weight_decays) * len(self.head_seeds)
        if self.attack and heads > 1:
            raise ValueError(f"attack: {heads} heads would share images that are perturbed against one of them")
        return self


class FinetuningSettings(Model):
    """Settings of an entry under `store/finetuning/`. Inputs: `backbone`, `dataset`, and for a refit its search runs;
    with `head: probe` also `probe` (an entry under `store/probing/`) and the `features` that it was fitted to.

    A search run fits on the training images less the validation ones and measures validation accuracy; a refit takes
    the learning rate of its best search run, fits on all training images and measures test accuracy; a final run does
    so at the one rate it is given. A fixed run, where there is one rate to choose from, fits as a search run does and
    measures both: what it saves is a second training, at the cost of the validation images.
    """

    purpose: Literal["search", "refit", "final", "fixed"]
    learning_rates: tuple[PositiveFloat, ...]
    """The one rate of a search, final or fixed run; what a refit chooses from, in the order of inputs `search0`, …"""
    training: Recipe
    normalisation: Statistics | None = None
    """None: as the backbone was trained."""
    head: Head = "random"
    trainable: Trainable = "all"
    batchnorm: FinetuningBatchNorm = "train"
    attack: TrainingAttack | None = None
    chosen_under: ChoosingAttack | None = None
    """Of a search run: the attack on validation images, beside images as they are, by which a refit chooses."""
    validation_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.2
    images_per_class: PositiveInt | None = None
    """Training images of each class, validation images among them. None: all."""
    training_images: PositiveInt | None = None
    """Training images of all classes together, validation images among them. None: no such limit."""
    metric: Metric = "top1"
    seed: NonNegativeInt = 0
    preprocessing: Preprocessing = Preprocessing()
    keep_weights: bool = False
    """Keep the fine-tuned network, for whoever attacks or exports it."""


class SelectingSettings(Model):
    """Settings of an entry under `store/selecting/`. Inputs: `search0`, … and `final0`, …,
    which are runs of linear_heads or of finetuning.

    Of runs that differ in hyperparameters alone, the one that is best on validation images, on test images, or both,
    as a result each.
    """

    selections: Annotated[tuple[Selection, ...], Field(min_length=1)]
    metric: Metric = "top1"
    chosen_at: tuple[Eps, ...] = ()
    """Radii of the attack on validation images over which the accuracy that chooses is averaged. Default: none."""

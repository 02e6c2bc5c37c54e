"""Pretraining: architectures, threat models, attacks, recipes."""

from __future__ import annotations

import importlib.util
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from robust_transfer.architectures import check_architecture
from robust_transfer.configuration.base import ALWAYS, Model
from robust_transfer.configuration.datasets import Preprocessing
from robust_transfer.configuration.eps import Eps


def _architecture(name: str) -> str:
    check_architecture(name)
    return name


Architecture = Annotated[
    str,
    AfterValidator(_architecture),
    Field(
        description="A torchvision classification network by name (resnet18, wide_resnet50_2, …), one of its "
        "ResNets with a stem for images of about 32 pixels (resnet18_cifar), or a small CIFAR-style one: resnet8_w16 "
        "is a ResNet of 8 layers (6n + 2) and width 16."
    ),
]
Norm = Literal["l2", "linf"]
NORM_LABELS: dict[str, str] = {"l2": "L2", "linf": "L∞"}
"""What texts and figures call norms."""
Precision = Literal["fp32", "tf32", "bf16"]
Augmentation = Literal["none", "flip", "crop-flip", "square-resized-crop-flip", "resized-crop-flip"]
Beta = Annotated[float, Field(ge=0, lt=1)]
InputSize = Annotated[int, Field(ge=16, le=1024)]
TrainedOn = Literal["native", "stylized", "both", "both-then-native"]
TEXTURE_ROBUST: dict[TrainedOn, str] = {
    "stylized": "texture-robust-stylized",
    "both": "texture-robust-both",
    "both-then-native": "texture-robust-both-then-native",
}
"""What texture-robust backbones have in the place of a recipe's name, by what they are trained on."""


class Attack(Model):
    """Projected gradient descent on the input, at a norm and eps that stand elsewhere."""

    steps: PositiveInt = 3
    """Gradient steps."""
    relative_step_size: PositiveFloat | None = None
    """Step size as a multiple of eps. Default: 2 / steps, which is the paper's 2·eps/3 at three steps."""
    random_start: bool = False
    """Start at a random point of the ball, not at the image."""
    restarts: PositiveInt = 1
    """Starts, of which the worst perturbation of each image is kept. Above 1 needs `random_start`, and the first is \
the image."""
    use_best: bool = True
    """Keep the iterate with the highest loss of each image, not the last."""

    @property
    def step_size(self) -> float:
        """The step size as a multiple of eps."""
        return self.relative_step_size or 2 / self.steps

    @model_validator(mode="after")
    def _restarts_differ(self) -> Attack:
        if self.restarts > 1 and not self.random_start:
            raise ValueError(f"restarts: {self.restarts} equal starts give one result; set random_start: true")
        return self


class Recipe(Model):
    """How weights are trained: optimiser, schedule, augmentation, precision. Defaults are the paper's."""

    epochs: PositiveInt = 90
    """Passes over the training images."""
    batch_size: PositiveInt = 512
    """Images per optimiser step."""
    optimiser: Literal["sgd", "adamw"] = "sgd"
    """`adamw` (Loshchilov and Hutter 2019), as torch has it, for networks that SGD trains poorly, such as ViTs."""
    learning_rate: PositiveFloat = 0.1
    """Peak learning rate."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Momentum, for `sgd`."""
    nesterov: bool = False
    """Nesterov's form of momentum; needs momentum above 0."""
    betas: tuple[Beta, Beta] = (0.9, 0.999)
    """Decay of the means of gradients and of their squares, for `adamw`."""
    weight_decay: NonNegativeFloat = 1e-4
    """Weight decay, on all parameters: added to gradients by SGD, taken off weights by AdamW."""
    schedule: Literal["step", "cosine", "one-cycle"] = "step"
    """`step`: divided by `step_factor` every `step_epochs`; `cosine`: to 0; `one-cycle`: linear up over the first \
`warmup_fraction`, linear down to 0."""
    step_epochs: PositiveInt = 30
    """Epochs between divisions, for `step`."""
    step_factor: Annotated[float, Field(gt=1)] = 10.0
    """Divisor, for `step`."""
    warmup_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.25
    """Share of the steps that warm up, for `one-cycle`."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """In the training loss alone; attacks use the plain cross-entropy."""
    augmentation: Augmentation = Field(default="crop-flip", json_schema_extra=ALWAYS)
    """`crop-flip`: zero-pad by an eighth and crop, then flip; `resized-crop-flip`: a random part of 8 to 100 % of the \
image's area, resized, then flip, decoded anew each time; `square-resized-crop-flip`: the same of the centre square, \
from memory."""
    colour_jitter: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Brightness, contrast and saturation are scaled by random factors this far around 1."""
    lighting: NonNegativeFloat = 0.0
    """Standard deviation of random shifts along the principal colours of ImageNet."""
    start_scale: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Progressive resizing: side of the first epoch's images, as a share of `input_size`. An L2 eps shrinks with it."""
    growing_fraction: Annotated[float, Field(gt=0, le=1)] = 0.7
    """Share of the epochs over which the side grows to `input_size`, where `start_scale` is below 1."""
    average_decay: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Above 0: the result is the moving average of the weights over steps, with this decay."""
    average_images: PositiveInt = 8192
    """Training images, perturbed, on which an average's BatchNorm statistics are estimated."""
    precision: Precision = Field(default="fp32", json_schema_extra=ALWAYS)
    """`bf16` runs convolutions and matrix products in bfloat16 under autocast; weights stay in float32. `tf32` lets \
NVIDIA GPUs round their factors to 10 bits; elsewhere it is fp32."""
    fp32_head: bool = False
    """Under `precision: bf16` the head computes in float32, in training's attack too; else logits are rounded to 8 \
bits before the loss. Where accuracy is measured it always does."""
    batchnorm_group: Annotated[int, Field(ge=2)] | None = Field(default=None, json_schema_extra=ALWAYS)
    """Images over which BatchNorm takes its statistics. Default: the whole batch."""

    def first_side(self, input_size: int) -> int:
        """Side of the first epoch's images in pixels, which `training.schedules.side_at` says too."""
        if self.start_scale == 1:
            return input_size
        multiple = 32 if input_size >= 128 else 16 if input_size >= 64 else 4
        return min(input_size, max(multiple, multiple * round(input_size * self.start_scale / multiple)))

    @model_validator(mode="after")
    def _consistent(self) -> Recipe:
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov: true needs momentum above 0")
        if self.optimiser == "adamw" and self.nesterov:
            raise ValueError("nesterov: true is of optimiser: sgd; with adamw set it to false")
        if self.batchnorm_group and self.batch_size % self.batchnorm_group:
            raise ValueError(f"batchnorm_group {self.batchnorm_group} does not divide batch_size {self.batch_size}")
        return self


class Check(Model):
    """What is looked at while training runs: accuracy on some training images as they are, in eval mode.

    It changes no weights. Robust accuracy is under PGD from a random start at the backbone's own eps, with more steps
    than training takes: where it collapses while training's own attack seems to fail, training has overfitted to that.
    """

    images: PositiveInt = 512
    """Training images, drawn once by seed; at most a sixteenth of them."""
    steps: PositiveInt = 10
    """Steps of the attack, of 2.5 eps / steps."""
    every: PositiveInt = 1
    """Epochs between checks; the last is always checked."""


# Recipes by name: what `training` and `attack` say unless the configuration says otherwise.
RECIPES: dict[str, dict[str, dict[str, Any]]] = {
    # Salman et al. (2020), as far as it is known; the batch's split among BatchNorm groups is not.
    "paper": {
        "training": {
            "epochs": 90,
            "batch_size": 512,
            "learning_rate": 0.1,
            "schedule": "step",
            "step_epochs": 30,
            "weight_decay": 1e-4,
            "augmentation": "resized-crop-flip",
            "colour_jitter": 0.1,
            "lighting": 0.05,
            "batchnorm_group": 64,
        },
        "attack": {"steps": 3, "use_best": True},
    },
    # Few epochs of one-cycle with growing images and mixed precision: Wong, Rice and Kolter (2020), "Fast is better
    # than free". Label smoothing and weight averaging against robust overfitting: Pang et al. (2021), "Bag of tricks
    # for adversarial training"; Gowal et al. (2020), "Uncovering the limits".
    "fast": {
        "training": {
            "epochs": 18,
            "batch_size": 512,
            "learning_rate": 0.4,
            "nesterov": True,
            "schedule": "one-cycle",
            "warmup_fraction": 0.2,
            "weight_decay": 1e-4,
            "augmentation": "resized-crop-flip",
            "label_smoothing": 0.1,
            "start_scale": 0.57,
            "average_decay": 0.999,
            "precision": "bf16",
            "batchnorm_group": 64,
        },
        "attack": {"steps": 2, "use_best": False},
    },
}


SCHEDULE: dict[str, Any] = {
    "batch_size": 256, "learning_rate": 0.1, "schedule": "step", "weight_decay": 1e-4,
    "augmentation": "resized-crop-flip",
}  # fmt: skip
"""What the schedules of Geirhos et al. (2019) have in common; the last one has a smaller rate."""


class TextureRobust(Model):
    """How texture-robust backbones are trained, after Geirhos et al. (2019): standard training on stylized images.

    Defaults are their schedules for ResNet-50, which start from weights of ImageNet. Published top-1 accuracies on
    ImageNet: 60.18 % after `stylized`, 74.59 % after `both`, 76.72 % after `native`.
    """

    start: Literal["standard", "scratch"] = "standard"
    """`standard`: from the standard backbone of the same architecture and seed, or from the weights that `backbones` \
names; `scratch`: from random weights."""
    stylized: Recipe = Recipe(**SCHEDULE | {"epochs": 60, "step_epochs": 20})
    """For `trained_on: stylized` (SIN)."""
    both: Recipe = Recipe(**SCHEDULE | {"epochs": 45, "step_epochs": 15})
    """For `trained_on: both` (SIN+IN): every epoch has the native images and the stylized ones."""
    native: Recipe = Recipe(**SCHEDULE | {"epochs": 60, "step_epochs": 30, "learning_rate": 0.01})
    """For `trained_on: both-then-native` (SIN+IN→IN): what follows `both`, on native images alone."""

    @model_validator(mode="before")
    @classmethod
    def _over_the_published(cls, data: Any) -> Any:
        """Lay what is stated over the published schedule."""
        if not isinstance(data, dict):
            return data
        published = {name: cls.model_fields[name].default for name in ("stylized", "both", "native")}
        stated = {name: value for name, value in data.items() if name in published and isinstance(value, dict)}
        return data | {name: published[name].model_dump(exclude_unset=True) | value for name, value in stated.items()}


class Pretraining(Model):
    """How backbones are trained on the source. Which ones, the grid says."""

    recipe: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$")] = "paper"
    """What this recipe is called in tables. `paper` and `fast` bring values for `training` and `attack`, over which \
those stated count; another name brings none, and needs `training.epochs`."""
    training: Recipe = Recipe()
    """Optimiser, schedule, augmentation, precision."""
    attack: Attack = Attack()
    """The attack of adversarial training."""
    check: Check = Check()
    """What is looked at while training runs."""
    texture_robust: TextureRobust = TextureRobust()
    """How texture-robust backbones are trained: those of parts of the grid with `trained_on`."""

    @model_validator(mode="before")
    @classmethod
    def _recipe_by_name(cls, data: Any) -> Any:
        """Lay what is stated over what the recipe's name brings."""
        if not isinstance(data, dict):
            return data
        brought = RECIPES.get(str(data.get("recipe", "paper")), {})
        stated = {key: data.get(key) or {} for key in brought}
        if not all(isinstance(value, dict) for value in stated.values()):
            return data
        return data | {key: brought[key] | stated[key] for key in brought}


class Evaluation(Model):
    """How backbones are evaluated on the source's test images: clean, and under PGD at their own eps and at these."""

    eps: tuple[Eps, ...] = ()
    """Radii at which every backbone is attacked, beside its own."""
    own_eps: bool = True
    """Attack every backbone at the eps it was trained for."""
    attack: Attack = Attack(steps=20, relative_step_size=0.125, random_start=True)
    """The attack of the evaluation."""
    precision: Precision | None = None
    """Precision of the network's body; the head's is always fp32. Default: that at which a backbone was trained, fp32 \
for imported ones. Attacks find some perturbations in fp32 that they miss in bf16, and the other way round."""
    autoattack: bool = False
    """Attack by AutoAttack too, at the same radii: hundreds of times the work of PGD for each image that withstands. \
Needs `make setup EXTRAS=attacks`."""
    autoattack_images: PositiveInt | None = 1000
    """Test images that AutoAttack gets, drawn by seed; null: all."""

    @model_validator(mode="after")
    def _library_is_there(self) -> Evaluation:
        check_autoattack(self.autoattack)
        return self


def check_autoattack(wanted: bool) -> None:
    """Raise ValueError if AutoAttack is wanted and its library is missing.

    Asked when the configuration is read, since jobs run in the same environment: else hours of training later.
    """
    if wanted and importlib.util.find_spec("pyautoattack") is None:
        raise ValueError(
            "autoattack: true needs the library pyautoattack, which is not installed: "
            "run `make setup EXTRAS=attacks`, or set autoattack: false"
        )


class PretrainingSettings(Model):
    """Settings of an entry under `store/pretraining/`. Input: `source`, a dataset.

    Of a texture-robust backbone also `stylized`, where it trains on both, and `start`, the backbone it starts from.
    """

    architecture: Architecture
    input_size: InputSize
    preprocessing: Preprocessing = Preprocessing()
    norm: Norm | None
    """None for eps 0: a standard network has no threat model."""
    eps: Eps
    seed: NonNegativeInt
    recipe: str
    training: Recipe
    attack: Attack | None
    """None for eps 0."""
    check: Check = Check()
    trained_on: TrainedOn = "native"


class EvaluationSettings(Model):
    """Settings of an entry under `store/evaluation/`. Inputs: `backbone`, `source`."""

    norm: Norm
    eps: tuple[Eps, ...]
    """Radii of the attacks, all above 0."""
    attack: Attack
    precision: Precision | None = None
    """None: the backbone's."""
    autoattack: bool = False
    autoattack_images: PositiveInt | None = 1000
    preprocessing: Preprocessing = Preprocessing()
    seed: NonNegativeInt = 0

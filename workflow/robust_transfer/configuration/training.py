"""Pretraining: architectures, threat models, attacks, recipes."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from robust_transfer.configuration.base import ALWAYS, Model
from robust_transfer.configuration.datasets import Preprocessing
from robust_transfer.configuration.eps import Eps
from robust_transfer.networks.names import check_architecture


def _architecture(name: str) -> str:
    check_architecture(name)
    return name


Architecture = Annotated[
    str,
    AfterValidator(_architecture),
    Field(
        description="A torchvision classification network by name (resnet18, wide_resnet50_2, …), or a small "
        "CIFAR-style one: resnet8_w16 is a ResNet of 8 layers (6n + 2) and width 16."
    ),
]
Norm = Literal["l2", "linf"]
Precision = Literal["fp32", "bf16"]
Augmentation = Literal["none", "flip", "crop-flip", "square-resized-crop-flip"]
InputSize = Annotated[int, Field(ge=16, le=1024)]


class Attack(Model):
    """Projected gradient descent on the input, at a norm and eps that stand elsewhere."""

    steps: PositiveInt = 3
    """Gradient steps."""
    relative_step_size: PositiveFloat | None = None
    """Step size as a multiple of eps. Default: 2 / steps, which is the paper's 2·eps/3 at three steps."""
    random_start: bool = False
    """Start at a random point of the ball, not at the image."""
    restarts: PositiveInt = 1
    """Independent starts, of which the worst perturbation of each image is kept; above 1 needs `random_start`."""
    use_best: bool = True
    """Keep the iterate with the highest loss of each image, not the last."""

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
    """Images an optimiser step."""
    learning_rate: PositiveFloat = 0.1
    """Peak learning rate of SGD."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Momentum of SGD."""
    nesterov: bool = False
    """Nesterov's form of momentum; needs momentum above 0."""
    weight_decay: NonNegativeFloat = 1e-4
    """Weight decay of SGD, on all parameters."""
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
    """`crop-flip`: zero-pad by an eighth and crop, then flip; `square-resized-crop-flip`: a random part of 8 to 100 % \
of the area of the centre square, resized, then flip."""
    precision: Precision = Field(default="fp32", json_schema_extra=ALWAYS)
    """`bf16` runs convolutions and matrix products in bfloat16 under autocast; weights stay in float32."""
    batchnorm_group: Annotated[int, Field(ge=2)] | None = Field(default=None, json_schema_extra=ALWAYS)
    """Images over which BatchNorm takes its statistics. Default: the whole batch."""

    @model_validator(mode="after")
    def _consistent(self) -> Recipe:
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov: true needs momentum above 0")
        if self.batchnorm_group and self.batch_size % self.batchnorm_group:
            raise ValueError(f"batchnorm_group {self.batchnorm_group} does not divide batch_size {self.batch_size}")
        return self


class Pretraining(Model):
    """How backbones are trained on the source. Which ones, the grid says."""

    recipe: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$")] = "paper"
    """What this recipe is called in tables."""
    training: Recipe = Recipe()
    """Optimiser, schedule, augmentation, precision."""
    attack: Attack = Attack()
    """The attack of adversarial training."""


class Evaluation(Model):
    """How backbones are evaluated on the source's test images: clean, and under PGD at their own eps and at these."""

    eps: tuple[Eps, ...] = ()
    """Radii at which every backbone is attacked, beside its own."""
    attack: Attack = Attack(steps=20, relative_step_size=0.125, random_start=True)
    """The attack of the evaluation."""


class PretrainingSettings(Model):
    """Settings of an entry under `store/pretraining/`. Input: `source`, a dataset."""

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


class EvaluationSettings(Model):
    """Settings of an entry under `store/evaluation/`. Inputs: `backbone`, `source`."""

    norm: Norm
    eps: tuple[Eps, ...]
    """Radii of the attacks, all above 0."""
    attack: Attack
    preprocessing: Preprocessing = Preprocessing()
    seed: NonNegativeInt = 0

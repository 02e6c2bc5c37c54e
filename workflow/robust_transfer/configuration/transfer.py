"""Transfer: features, probes on them, fine-tuning, and which of it is measured."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, model_validator

from robust_transfer.configuration.base import ALWAYS, Model
from robust_transfer.configuration.datasets import Metric, Preprocessing
from robust_transfer.configuration.training import Recipe

Mode = Literal["fixed-feature", "full-network"]
Protocol = Literal["frozen"]
Selection = Literal["validation"]

# 45 logarithmically spaced strengths, as many as Kornblith et al. (2019) tried. They multiply half the squared weights
# beside the mean loss of an image, so that one range serves every number of images: above 10 every accuracy is chance.
STRENGTHS = tuple(float(f"{10 ** (-8 + 9 * k / 44):.3g}") for k in range(45))


class Features(Model):
    """Activations before the head, of a network in eval mode."""

    dtype: Literal["float16", "float32"] = "float16"
    """How features are stored."""
    precision: Literal["fp32", "bf16"] = Field(default="fp32", json_schema_extra=ALWAYS)
    """How the network computes them."""


class Probing(Model):
    """Frozen protocol: multinomial logistic regression on stored features, mean cross-entropy + λ/2·‖W‖²."""

    strengths: Annotated[tuple[PositiveFloat, ...], Field(min_length=1)] = STRENGTHS
    """The λ among which validation accuracy chooses."""
    standardise: bool = True
    """Scale every feature to mean 0 and variance 1 over the images that are fitted on."""
    validation_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """Share of each class's training images held out for choosing, where a dataset has no official validation split."""

    @model_validator(mode="after")
    def _no_strength_twice(self) -> Probing:
        if len(set(self.strengths)) != len(self.strengths):
            raise ValueError("strengths names a value twice")
        return self


class Finetuning(Model):
    """Full-network transfer: every parameter trained from the backbone's, the head fresh."""

    learning_rates: Annotated[tuple[PositiveFloat, ...], Field(min_length=1)] = (0.01, 0.001)
    """The learning rates among which validation accuracy chooses."""
    training: Recipe = Recipe(
        epochs=150, batch_size=64, weight_decay=5e-4, step_epochs=50, augmentation="square-resized-crop-flip"
    )
    """Optimiser, schedule, augmentation, precision; its learning rate is the grid's."""
    validation_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """Share of each class's training images held out for choosing, where a dataset has no official validation split."""

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
    """Seed of the validation split."""


class FinetuningSettings(Model):
    """Settings of an entry under `store/finetuning/`. Inputs: `backbone`, `dataset`, and for a refit its search runs.

    A search run fits on the training images less the validation ones and measures validation accuracy; a refit takes
    the learning rate of its best search run, fits on all training images and measures test accuracy.
    """

    purpose: Literal["search", "refit"]
    learning_rates: tuple[PositiveFloat, ...]
    """The one rate of a search run; the rates a refit chooses from, in the order of inputs `search0`, `search1`, …"""
    training: Recipe
    validation_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.2
    metric: Metric = "top1"
    seed: NonNegativeInt = 0
    preprocessing: Preprocessing = Preprocessing()

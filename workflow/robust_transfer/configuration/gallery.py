"""Galleries: pictures of what a backbone responds to, and numbers beside them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, field_validator

from robust_transfer.configuration.base import Model
from robust_transfer.configuration.datasets import Preprocessing
from robust_transfer.configuration.eps import Eps, eps_value
from robust_transfer.configuration.training import Attack, Norm

SHEETS = ("adversarial", "gradients", "inversions", "visualisations")
"""The contact sheets of a gallery."""
METRICS = ("gradient_low_frequency", "inversion_distance", "inversion_pixels", "inversion_ssim", "inversion_moved")
"""The numbers beside them, of mode `gallery` in the results table."""


class Inversion(Model):
    """Images rebuilt from their representation alone (Engstrom et al. 2019). Defaults are the published ones."""

    start: Literal["noise", "image"] = "noise"
    """Where the search begins: at grey `noise`, the same for all images, or at an `image` of another class."""
    steps: PositiveInt = 10_000
    """Steps of gradient descent; 10,000 were published for 224 pixels."""
    step_size: PositiveFloat = 1.0
    """Euclidean length of a step in pixel units of [0, 1]; 1 was published for 224 pixels. At other sizes take as \
much less as the side is smaller: 0.1 at 24 pixels."""


class Visualisation(Model):
    """Images on which a class's logit is large, found from grey noise. Defaults are published ones, for 224 pixels."""

    steps: PositiveInt = 200
    """Steps of gradient ascent."""
    step_size: PositiveFloat = 1.0
    """Euclidean length of a step, as of `inversion`."""


class _How(Model):
    """What section and settings share."""

    images: Annotated[int, Field(ge=2)] = 32
    """Test images of the source that numbers are means over, spread over its classes. Sheets show the first eight."""
    perturbations: tuple[Eps, ...] = ()
    """Radii of the adversarial examples, in the norm of the part of the grid. Default: all at which networks of the \
gallery were trained in that norm."""
    inversion: Inversion = Inversion()
    """How images are rebuilt."""
    visualisation: Visualisation = Visualisation()
    """How classes are visualised."""

    @field_validator("perturbations")
    @classmethod
    def _perturbed(cls, values: tuple[str, ...]) -> tuple[str, ...]:
        if any(eps_value(one) == 0 for one in values):
            raise ValueError("a radius of 0 perturbs nothing; the sheet shows the images as they are anyway")
        if len(set(values)) != len(values):
            raise ValueError("names a radius twice")
        return values


class Gallery(_How):
    """How galleries of backbones are made: for the parts of the grid that have `gallery: true`.

    Adversarial examples (attacked as `evaluation.attack` says), gradients of the loss, images rebuilt from their
    representation, and class visualisations.
    """

    seeds: PositiveInt = 1
    """Of how many of a part's `seeds` there is a gallery, from the first on; several give figures intervals over \
seeds."""


class GallerySettings(_How):
    """Settings of an entry under `store/gallery/`. Inputs: `backbone`, `source`."""

    norm: Norm
    attack: Attack
    preprocessing: Preprocessing = Preprocessing()
    seed: NonNegativeInt = 0
    """Of random starts of the attack, and of the noise that images are found from."""

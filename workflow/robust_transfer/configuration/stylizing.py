"""Stylizing: datasets whose images keep their shapes and lose their textures."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from robust_transfer.configuration.base import ALWAYS, Model, Name
from robust_transfer.configuration.paths import ReadPath

Method = Literal["phase", "adain", "texture-swap"]
OF_ADAIN = ("alpha", "encoder", "decoder")


class _How(Model):
    """What section and settings share."""

    method: Method = Field(default="phase", json_schema_extra=ALWAYS)
    """`adain`: style transfer by adaptive instance normalisation, as Stylized-ImageNet was made (Geirhos et al. \
2019); `phase`: the phase of the image's Fourier transform with the amplitude of another's (Chen et al. 2021), which \
needs no weights; `texture-swap`: images of the built-in generator, drawn again with the grating of a random class."""
    seed: NonNegativeInt = 0
    """Seed of the choice of each image's style."""
    alpha: Annotated[float, Field(ge=0, le=1)] = 1.0
    """Of `adain`: how far the encoded image goes towards the style; 0 leaves it, 1 is what Stylized-ImageNet has."""
    encoder: ReadPath = "adain/vgg_normalised.pth"
    """Of `adain`: file of the encoder's weights, below `running.weights` or absolute."""
    decoder: ReadPath = "adain/decoder.pth"
    """Of `adain`: file of the decoder's weights, below `running.weights` or absolute."""

    @model_validator(mode="after")
    def _of_adain_alone(self) -> _How:
        for name in OF_ADAIN:
            if self.method != "adain" and getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"{name} is not read with method: {self.method}; leave it out")
        return self


class Stylizing(_How):
    """How images are stylized for the view `stylized`, and for backbones that are trained on it."""

    styles: Name | None = None
    """The dataset whose training images give the styles: a name under `datasets`. Default, for `phase` alone: the \
dataset that is stylized, of which every image gets another one's."""

    @model_validator(mode="after")
    def _styles_of_the_method(self) -> Stylizing:
        if self.method == "adain" and self.styles is None:
            raise ValueError(
                "method: adain takes its styles from a dataset, and styles names none; Stylized-ImageNet has "
                "paintings: `origin: {kind: catalogue, dataset: painter-by-numbers}`"
            )
        if self.method == "texture-swap" and self.styles is not None:
            raise ValueError(f"styles = {self.styles}: method: texture-swap draws textures itself; leave it out")
        return self


class StylizingSettings(_How):
    """Settings of an entry under `store/stylizing/`: a dataset with other textures, made from its input `dataset`.

    Input `styles`: the dataset that gives the styles, where that is another one.
    """

    side: PositiveInt | None = None
    """Side in pixels of the centre squares that are stylized, and of the style images; None for `texture-swap`."""
    resize_ratio: float = 256 / 224
    """Images are resized to `side` times this on their short side before that centre is cut out."""

"""Style transfer by adaptive instance normalisation, as Stylized-ImageNet was made.

Huang and Belongie (ICCV 2017), "Arbitrary style transfer in real-time with adaptive instance normalization"; Geirhos et
al. (ICLR 2019), "ImageNet-trained CNNs are biased towards texture". Encoder and decoder are read from files in the
layout of the PyTorch port that Stylized-ImageNet was made with (naoto0804/pytorch-AdaIN): `vgg_normalised.pth`, a
sequence of 53 modules of which the first 31, up to relu4_1, encode, and `decoder.pth`, one of 29 modules. Nothing in
them is executed. The encoder takes images in [0, 1]: its first convolution, of 1 × 1, normalises them. Widths of layers
are those of the files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn

from robust_transfer.weights.pickle_values import CheckpointError
from robust_transfer.weights.pickles import read_checkpoint
from robust_transfer.weights.state_dicts import find_state

ENCODED = 31
"""Modules of the encoder's file that encode, up to relu4_1."""
POOLED = (7, 14, 27, 40)
"""Those of the encoder's file that halve the image, rounding up."""
ENLARGED = (3, 16, 23)
"""Those of the decoder that double it."""
ENCODER = (0, 2, 5, 9, 12, 16, 19, 22, 25, 29, 32, 35, 38, 42, 45, 48, 51)
"""Convolutions of the encoder's file, of which those below `ENCODED` are read."""
DECODER = (1, 5, 8, 11, 14, 18, 21, 25, 28)
"""Convolutions of the decoder."""
LENGTHS = (53, 29)
"""Modules of the two files."""
SHRINKING = 8
"""How many times smaller than the image its code is, in height and width."""
VARIANCE = 1e-5
"""Added to variances, which are unbiased."""


@dataclass(frozen=True)
class StyleTransfer:
    """An encoder and a decoder that fit each other."""

    encoder: nn.Sequential
    decoder: nn.Sequential
    alpha: float = 1.0
    """How far codes go towards the style."""

    def __call__(self, content: Tensor, style: Tensor) -> Tensor:
        """Images of `content` in the styles of `style`: uint8 [N, S, S, 3] each, on the networks' device."""
        images, styles = (_as_images(pixels) for pixels in (content, style))
        with torch.inference_mode():
            code = self.encoder(images)
            towards = adapted(code, self.encoder(styles))
            drawn = self.decoder(self.alpha * towards + (1 - self.alpha) * code)
        height, width = content.shape[1:3]  # a side that eight does not divide comes back larger
        pixels: Tensor = drawn[:, :, :height, :width].clamp(0, 1).mul(255).round().to(torch.uint8)
        return pixels.permute(0, 2, 3, 1)


def adapted(code: Tensor, style: Tensor) -> Tensor:
    """A code with the mean and the standard deviation, over places, of every channel of another's: float [N, C, h, w].

    Huang and Belongie (2017), equation 8, with the unbiased variance and 1e-5 added to it.
    """
    (mean, deviation), (style_mean, style_deviation) = _statistics(code), _statistics(style)
    return (code - mean) / deviation * style_deviation + style_mean


def load_style_transfer(encoder: Path, decoder: Path, alpha: float = 1.0) -> StyleTransfer:
    """The networks of two files, on the CPU, in eval mode.

    Raises CheckpointError for a file that is something else, and for two that do not fit each other; it names which
    layers are missing, unexpected or of another shape.
    """
    known, drawn = _state(encoder, ENCODER), _state(decoder, DECODER)
    read = [i for i in ENCODER if i < ENCODED]
    forth, back = _widths(encoder, known, read), _widths(decoder, drawn, DECODER)
    if forth[read[-1]][0] != back[DECODER[0]][1]:
        raise CheckpointError(
            f"{decoder}: decodes {back[DECODER[0]][1]} channels, where {encoder} encodes into {forth[read[-1]][0]}; "
            "they are not of one pair: name an encoder and a decoder that were trained together"
        )
    encodes, decodes = encoder_of(forth, ENCODED), decoder_of(back)
    encodes.load_state_dict({name: known[name] for name in encodes.state_dict()})
    decodes.load_state_dict(drawn)
    return StyleTransfer(encodes.eval(), decodes.eval(), alpha)


def encoder_of(widths: Mapping[int, tuple[int, int]], length: int = LENGTHS[0]) -> nn.Sequential:
    """The first `length` modules of the encoder's file, with convolutions of these (out, in) channels by index."""
    modules: list[nn.Module] = []
    for i in range(length):
        if i in ENCODER:
            out, into = widths[i]
            modules.append(nn.Conv2d(into, out, 1 if i == 0 else 3))
        elif i in POOLED:
            modules.append(nn.MaxPool2d(2, 2, 0, ceil_mode=True))
        else:
            modules.append(nn.ReflectionPad2d(1) if i + 1 in ENCODER else nn.ReLU())
    return nn.Sequential(*modules)


def decoder_of(widths: Mapping[int, tuple[int, int]]) -> nn.Sequential:
    """The decoder, with convolutions of these (out, in) channels by index."""
    modules: list[nn.Module] = []
    for i in range(LENGTHS[1]):
        if i in DECODER:
            out, into = widths[i]
            modules.append(nn.Conv2d(into, out, 3))
        elif i in ENLARGED:
            modules.append(nn.Upsample(scale_factor=2, mode="nearest"))
        else:
            modules.append(nn.ReflectionPad2d(1) if i + 1 in DECODER else nn.ReLU())
    return nn.Sequential(*modules)


def _as_images(pixels: Tensor) -> Tensor:
    return pixels.permute(0, 3, 1, 2).float() / 255


def _statistics(code: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of every channel, each [N, C, 1, 1]."""
    variance, mean = torch.var_mean(code, dim=(2, 3), keepdim=True, correction=1)
    return mean, torch.sqrt(variance + VARIANCE)


def _state(path: Path, convolutions: Sequence[int]) -> dict[str, Tensor]:
    """The tensors of a file by name, in float32. Raises CheckpointError for names of another layout."""
    state = find_state(read_checkpoint(path), path).state
    known = {f"{i}.{part}" for i in convolutions for part in ("weight", "bias")}
    if strange := [name for name in state if name not in known]:
        raise CheckpointError(
            f"{path}: {strange[0]} is unexpected; there are <i>.weight and <i>.bias of convolutions i = "
            f"{', '.join(map(str, convolutions))}"
        )
    return {name: tensor.float() for name, tensor in state.items()}


def _widths(path: Path, state: Mapping[str, Tensor], convolutions: Sequence[int]) -> dict[int, tuple[int, int]]:
    """(out, in) channels of convolutions by index. Raises CheckpointError where they do not make a network."""
    widths: dict[int, tuple[int, int]] = {}
    for i in convolutions:
        if missing := [name for name in (f"{i}.weight", f"{i}.bias") if name not in state]:
            raise CheckpointError(f"{path}: {missing[0]} is missing; is it the file of the other network?")
        shape, kernel = tuple(state[f"{i}.weight"].shape), 1 if i == 0 else 3
        if len(shape) != 4 or shape[2:] != (kernel, kernel) or state[f"{i}.bias"].shape != shape[:1]:
            raise CheckpointError(f"{path}: {i}.weight is {list(shape)}; expected is [out, in, {kernel}, {kernel}]")
        widths[i] = (shape[0], shape[1])
    for one, following in pairwise(convolutions):
        if widths[one][0] != widths[following][1]:
            raise CheckpointError(
                f"{path}: {following}.weight takes {widths[following][1]} channels, and {one}.weight gives "
                f"{widths[one][0]}"
            )
    images = widths[0][1] if 0 in widths else widths[convolutions[-1]][0]
    if images != 3:
        raise CheckpointError(f"{path}: made for images of {images} channels; they have 3 here")
    return widths

"""A small encoder and decoder in the layout of the published files."""

from pathlib import Path

import torch
from robust_transfer.stylization.adain import DECODER, ENCODER, decoder_of, encoder_of
from torch import nn

WIDTH = 8
"""Channels of every layer of the small networks but the first and the last."""


def widths(
    indices: tuple[int, ...], first: tuple[int, int], last: tuple[int, int], width: int = WIDTH
) -> dict[int, tuple[int, int]]:
    """(out, in) channels of convolutions by index: of one width between the first and the last."""
    return {indices[0]: first, **dict.fromkeys(indices[1:-1], (width, width)), indices[-1]: last}


def small_networks(seed: int = 0, width: int = WIDTH) -> tuple[nn.Sequential, nn.Sequential]:
    """An encoder of 53 modules and a decoder of 29, with random weights that keep images and codes of one size."""
    torch.manual_seed(seed)
    of_encoder = widths(ENCODER, (3, 3), (width, width), width) | {ENCODER[1]: (width, 3)}
    encoder = encoder_of(of_encoder)
    decoder = decoder_of(widths(DECODER, (width, width), (3, width), width))
    with torch.no_grad():
        for network in (encoder, decoder):
            for layer in network:
                if isinstance(layer, nn.Conv2d):
                    nn.init.kaiming_normal_(layer.weight)
                    nn.init.uniform_(layer.bias, -0.1, 0.3)  # type: ignore[arg-type]
    return encoder, decoder


def write_networks(folder: Path, seed: int = 0) -> tuple[Path, Path]:
    """Their state dicts as torch.save writes them, under the published names."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = folder / "vgg_normalised.pth", folder / "decoder.pth"
    for network, path in zip(small_networks(seed), paths, strict=True):
        torch.save(network.state_dict(), path)
    return paths

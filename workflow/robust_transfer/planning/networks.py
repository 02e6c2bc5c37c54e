"""The size of a network that is not built: FLOPs of a forward pass, parameters, dimension of its features.

The paper's architectures are listed in `architectures.csv` and small ResNets are computed, so that planning does not
import torch. Any other network is built without weights and counted by `torch.utils.flop_counter`.
"""

from __future__ import annotations

import csv
import functools
from dataclasses import dataclass
from pathlib import Path

from robust_transfer.architectures import small_resnet

TABLE = Path(__file__).with_name("architectures.csv")
TABLE_SIDE = 224


@dataclass(frozen=True)
class Size:
    """A network's body, without its head."""

    dimension: int
    """Length of the feature vector that the head reads."""
    parameters: int
    buffers: int
    """Numbers in BatchNorm's running statistics."""
    flops: float
    """Of one forward pass of one image, a multiply-add counted as two."""

    def weights_bytes(self, classes: int) -> int:
        """Size of the stored weights, in float32, with a head for so many classes."""
        return 4 * (self.parameters + self.buffers + (self.dimension + 1) * classes)


@functools.cache
def size_of(architecture: str, side: int) -> Size:
    """The size of a network on images of `side` pixels. Imports torch if neither table nor formula covers it.

    From the table, FLOPs of convolutions are scaled by the area, which is exact at multiples of 32.
    """
    if small := small_resnet(architecture):
        return _small_resnet(*small, side)
    if row := _table().get(architecture):
        area = (side / TABLE_SIDE) ** 2
        flops = float(row["convolution_flops"]) * area + float(row["dense_flops"])
        return Size(int(row["dimension"]), int(row["parameters"]), int(row["buffers"]), flops)
    return counted(architecture, side)


@functools.cache
def layer_dimension(architecture: str, side: int, layer: str) -> int:
    """Length of a named layer's output for one image. Imports torch; raises LayerError if there is no such layer."""
    from robust_transfer.networks.layers import layer_named, outline

    return layer_named(outline(architecture, side), layer, side).dimension


def counted(architecture: str, side: int) -> Size:
    """As `size_of`, counted on the network itself."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from robust_transfer.networks.layers import outline

    network = outline(architecture, side)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network.features(torch.zeros(1, 3, side, side, device=network.head.weight.device))
    return Size(
        network.head.in_features,
        sum(parameter.numel() for parameter in network.body.parameters()),
        sum(buffer.numel() for buffer in network.body.buffers()),
        float(counter.get_total_flops()),
    )


@functools.cache
def _table() -> dict[str, dict[str, str]]:
    lines = (line for line in TABLE.read_text().splitlines() if not line.startswith("#"))
    return {row["architecture"]: row for row in csv.DictReader(lines)}


def _small_resnet(depth: int, width: int, side: int) -> Size:
    """As `networks.small_resnet` builds it: a stem and three stages of (depth - 2) / 6 blocks."""
    flops = 2 * 27 * width * side**2
    parameters, normalised, layers = 27 * width + 2 * width, width, 1
    channels_in = width
    for stage in range(3):
        channels = width << stage
        for block in range((depth - 2) // 6):
            if stage and block == 0:
                side = -(-side // 2)
            weights = 9 * channels_in * channels + 9 * channels * channels
            norms = 2
            if channels_in != channels:
                weights, norms = weights + channels_in * channels, 3
            flops += 2 * weights * side**2
            parameters += weights + norms * 2 * channels
            normalised, layers = normalised + norms * channels, layers + norms
            channels_in = channels
    return Size(4 * width, parameters, 2 * normalised + layers, float(flops))

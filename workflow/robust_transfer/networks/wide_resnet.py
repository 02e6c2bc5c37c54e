"""Wide ResNets for images of about 32 pixels (Zagoruyko and Komodakis 2016), by depth and width: those of RobustBench.

Two networks go by the name WRN-28-10 in that literature, and one's weights mean nothing in the other. `wrn28_10` is the
original, with ReLUs. `wrn28_10_swish` is that of Gowal et al. (2020): swish in place of ReLU, and convolutions at
stride 2 that pad below and to the right alone.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

STEM = 16
"""Channels of the stem."""


class PreActivation(nn.Module):
    """Two 3×3 convolutions, each after BatchNorm and a non-linearity, around a shortcut.

    Where the number of channels changes, the shortcut is a 1×1 convolution of what has been normalised.
    """

    def __init__(self, channels_in: int, channels: int, stride: int, *, swish: bool) -> None:
        super().__init__()
        one_sided = swish and stride == 2
        self.pad: nn.Module = nn.ZeroPad2d((0, 1, 0, 1)) if one_sided else nn.Identity()
        self.norm1 = nn.BatchNorm2d(channels_in)
        self.activation1 = _activation(swish)
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, padding=0 if one_sided else 1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)
        self.activation2 = _activation(swish)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.shortcut = nn.Conv2d(channels_in, channels, 1, stride, bias=False) if channels_in != channels else None

    def forward(self, x: Tensor) -> Tensor:
        """Activations [N, C_in, H, W] to [N, C, H/stride, W/stride]."""
        active = self.activation1(self.norm1(x))
        out = self.conv2(self.activation2(self.norm2(self.conv1(self.pad(active)))))
        return torch.add(out, x if self.shortcut is None else self.shortcut(active))


class WideResNet(nn.Module):
    """The body of `wrn{depth}_{width}`: a 3×3 stem of 16 channels, three stages of 16, 32 and 64 times `width` channels
    at strides 1, 2 and 2, global average pooling. Convolutions are initialised as He et al. (2015)."""

    def __init__(self, depth: int, width: int, *, swish: bool) -> None:
        super().__init__()
        self.features_n = 64 * width
        self.stem = nn.Conv2d(3, STEM, 3, padding=1, bias=False)
        blocks: list[nn.Module] = []
        channels_in = STEM
        for channels, first_stride in ((16 * width, 1), (32 * width, 2), (64 * width, 2)):
            for block in range((depth - 4) // 6):
                blocks.append(PreActivation(channels_in, channels, first_stride if block == 0 else 1, swish=swish))
                channels_in = channels
        self.blocks = nn.Sequential(*blocks)
        self.norm = nn.BatchNorm2d(channels_in)
        self.activation = _activation(swish)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Normalised images [N, 3, H, W] to features [N, 64·width]."""
        return torch.mean(self.activation(self.norm(self.blocks(self.stem(x)))), dim=(2, 3))


def _activation(swish: bool) -> nn.Module:
    return nn.SiLU(inplace=True) if swish else nn.ReLU(inplace=True)

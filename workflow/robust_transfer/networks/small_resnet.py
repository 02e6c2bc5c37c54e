"""Small ResNets for images of about 32 pixels (He et al. 2016, section 4.2), by depth and width."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

REGISTER = 16
"""float32 values in a vector register of AVX-512."""


class Subsampling(nn.Conv2d):
    """A strided 1×1 convolution that subsamples its input first: the same values, and a gradient that is safe.

    oneDNN's gradient with respect to the weights of a strided 1×1 convolution in float32 writes outside its memory
    where a channels-last input has fewer channels than a vector register holds (uxlfoundation/oneDNN issue 6035, torch
    2.15): widths below 16 crashed with two threads and batches of odd size.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Activations [N, C_in, H, W] to [N, C, H/stride, W/stride]."""
        return F.conv2d(F.avg_pool2d(x, 1, self.stride), self.weight, self.bias)


class BasicBlock(nn.Module):
    """Two 3×3 convolutions with BatchNorm around a shortcut; the shortcut is a 1×1 convolution where shapes change."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu1 = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.relu2 = nn.ReLU(inplace=True)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or channels_in != channels:
            convolution = Subsampling if channels_in < REGISTER else nn.Conv2d
            self.shortcut = nn.Sequential(
                convolution(channels_in, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        """Activations [N, C_in, H, W] to [N, C, H/stride, W/stride]."""
        out = self.relu1(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += self.shortcut(x)
        result: Tensor = self.relu2(out)
        return result


class SmallResNet(nn.Module):
    """The body of `resnet{depth}_w{width}`: 3×3 stem at stride 1, three stages of `width`, 2 and 4 times `width`
    channels at strides 1, 2 and 2, global average pooling. Convolutions are initialised as He et al. (2015)."""

    def __init__(self, depth: int, width: int) -> None:
        super().__init__()
        self.features_n = 4 * width
        self.stem = nn.Sequential(
            nn.Conv2d(3, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)
        )
        blocks: list[nn.Module] = []
        channels_in = width
        for channels, first_stride in ((width, 1), (2 * width, 2), (4 * width, 2)):
            for block in range((depth - 2) // 6):
                blocks.append(BasicBlock(channels_in, channels, first_stride if block == 0 else 1))
                channels_in = channels
        self.blocks = nn.Sequential(*blocks)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Normalised images [N, 3, H, W] to features [N, 4·width]."""
        return torch.mean(self.blocks(self.stem(x)), dim=(2, 3))

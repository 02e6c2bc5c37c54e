"""The gradient of a network's first convolution with respect to images, computed as a forward convolution.

An attack needs that gradient at every step, and oneDNN's own is slow where it has three output channels. A convolution
of stride s is s² convolutions of stride 1, one for each position of a pixel modulo s; so its transpose is a forward
convolution to 3·s² channels, whose output is rearranged (as by nn.PixelShuffle). CPU time on one core of an AMD EPYC
with other jobs running, lowest of 8, bf16: 7×7 at stride 2 on 16 images of 224 pixels 36 ms instead of 97, on 64 of 64
pixels 13 instead of 34; 3×3 at stride 1 to 16 channels, 128 images of 32 pixels, 2.2 instead of 3.3.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class FirstConvolution(nn.Module):
    """A convolution with constant weights and a fast gradient with respect to its input."""

    def __init__(self, convolution: nn.Conv2d) -> None:
        """The same function as `convolution`. Raises ValueError for one that is not `supported`."""
        super().__init__()
        if not supported(convolution):
            raise ValueError(f"{convolution}: FirstConvolution does not compute its gradient; leave it as it is")
        self.convolution = convolution
        self._places = _places(convolution)
        self.refresh()

    def refresh(self) -> None:
        """Copy the convolution's current weights."""
        weight = self.convolution.weight.detach()
        flat = torch.cat([weight.new_zeros(1), weight.flatten()])
        self.transposed = flat[self._places].contiguous(memory_format=torch.channels_last)

    def forward(self, images: Tensor) -> Tensor:
        """Images [N, C, H, W] to [N, C_out, H/stride, W/stride]."""
        divisible = all(side % self.convolution.stride[0] == 0 for side in images.shape[2:])
        y: Tensor = _Convolve.apply(images, self) if divisible else self.convolution(images)
        return y


def supported(convolution: nn.Conv2d) -> bool:
    """Whether FirstConvolution can replace a convolution, and is faster on its device."""
    side, stride, padding = convolution.kernel_size, convolution.stride, convolution.padding
    if type(convolution) is not nn.Conv2d:  # others may pad by the size of their input, as timm's do
        return False
    square = side[0] == side[1] and stride[0] == stride[1] and not isinstance(padding, str) and padding[0] == padding[1]
    plain = convolution.groups == 1 and convolution.dilation == (1, 1) and convolution.padding_mode == "zeros"
    return square and plain and convolution.in_channels <= 4 and convolution.weight.device.type == "cpu"


class _Convolve(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, images: Tensor, layer: FirstConvolution) -> Tensor:
        ctx.layer, ctx.shape, ctx.dtype = layer, images.shape, images.dtype
        y: Tensor = layer.convolution(images)
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        layer, (n, channels, height, width) = ctx.layer, ctx.shape
        stride = layer.convolution.stride[0]
        low, high = _reach(layer.convolution)
        rows, columns = height // stride, width // stride
        # Outputs up to rows - 1 + high see the last block of pixels; with little padding there are fewer.
        beyond = max(rows - gradients[0].shape[2], columns - gradients[0].shape[3])
        pad = max(-low, beyond + high, 0)
        gradient = F.conv2d(gradients[0], layer.transposed.to(gradients[0].dtype), padding=pad)
        off = pad + low
        gradient = gradient[:, :, off : off + rows, off : off + columns]
        placed = gradient.permute(0, 2, 3, 1).reshape(n, rows, columns, stride, stride, channels)
        placed = placed.permute(0, 1, 3, 2, 4, 5).reshape(n, height, width, channels).permute(0, 3, 1, 2)
        return placed.to(ctx.dtype), None


def _reach(convolution: nn.Conv2d) -> tuple[int, int]:
    """(low, high): the outputs that depend on a pixel of block q are q + low to q + high."""
    side, stride, padding = convolution.kernel_size[0], convolution.stride[0], int(convolution.padding[0])
    offsets = [
        (place + padding - tap) // stride
        for place in range(stride)
        for tap in range(side)
        if (place + padding - tap) % stride == 0
    ]
    return min(offsets), max(offsets)


def _places(convolution: nn.Conv2d) -> Tensor:
    """Positions of the transposed weights [stride² · C, C_out, K, K] in the flat weights, plus 1; 0 for a zero."""
    side, stride, padding = convolution.kernel_size[0], convolution.stride[0], int(convolution.padding[0])
    low, high = _reach(convolution)
    shape = convolution.weight.shape
    numbered = 1 + torch.arange(convolution.weight.numel()).view(shape)
    places = torch.zeros(stride, stride, shape[1], shape[0], high - low + 1, high - low + 1, dtype=torch.int64)
    taps = [
        (place, tap, (place + padding - tap) // stride - low)
        for place in range(stride)
        for tap in range(side)
        if (place + padding - tap) % stride == 0
    ]
    for row, tap_row, down in taps:
        for column, tap_column, right in taps:
            places[row, column, :, :, down, right] = numbered[:, :, tap_row, tap_column].t()
    return places.view(-1, *places.shape[3:])

"""The gradient of a network's first convolution with respect to images, computed as a forward convolution.

An attack needs that gradient at every step, and oneDNN's own is slow where it has three output channels. A convolution
of stride s is s² convolutions of stride 1, one for each position of a pixel modulo s; so its transpose is a forward
convolution to 3·s² channels, whose output is rearranged (as by nn.PixelShuffle). CPU time on one core of an AMD EPYC
with other jobs running, lowest of 8, bf16: 7×7 at stride 2 on 16 images of 224 pixels 36 ms instead of 97, on 64 of 64
pixels 13 instead of 34; 3×3 at stride 1 to 16 channels, 128 images of 32 pixels, 2.2 instead of 3.3.

On a GPU the convolution itself is computed likewise, from the pixels of a block as channels: cuDNN takes 1.5 ms for the
7×7 on 256 images of 224 pixels and 2.7 for its gradient (H200, bf16, n = 1, 2026-11-26), a third of an attack's step on
ResNet-18.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SIXTEEN_BITS = (torch.bfloat16, torch.float16)
"""Types in which a GPU's part of this was measured; in others cuDNN's own convolutions stay."""


class FirstConvolution(nn.Module):
    """A convolution with constant weights and a fast gradient with respect to its input."""

    def __init__(self, convolution: nn.Conv2d, *, by_blocks: bool | None = None) -> None:
        """The same function as `convolution`. Raises ValueError for one that is not `supported`.

        Args:
            convolution: Convolution with constant weights.
            by_blocks: Compute forward too as a convolution of stride 1, of the pixels of each block as channels. Other
                rounding. Default: on a GPU.
        """
        super().__init__()
        if not supported(convolution):
            raise ValueError(f"{convolution}: FirstConvolution does not compute its gradient; leave it as it is")
        self.convolution, self.relu = convolution, False
        """`relu`: whether its output goes through a ReLU."""
        on_gpu = convolution.weight.device.type == "cuda"
        self._by_blocks = on_gpu if by_blocks is None else by_blocks
        places = _places(convolution)
        if self._by_blocks:  # tensor cores take channels by eights
            places = F.pad(places, (0, 0) * 3 + (0, -len(places) % 8))
        self._places = places.to(convolution.weight.device)
        self.transposed = self.onward = convolution.weight.new_empty(0)
        self.refresh()

    def refresh(self) -> None:
        """Copy the convolution's current weights, to where they were copied before."""
        weight = self.convolution.weight.detach()
        flat = torch.cat([weight.new_zeros(1), weight.flatten()])
        self.transposed = _kept(self.transposed, flat[self._places])
        if self._by_blocks:
            self.onward = _kept(self.onward, self.transposed.transpose(0, 1).flip(2, 3))

    def forward(self, images: Tensor) -> Tensor:
        """Images [N, C, H, W] to [N, C_out, H/stride, W/stride]."""
        divisible = all(side % self.convolution.stride[0] == 0 for side in images.shape[2:])
        if divisible and (not images.is_cuda or self.convolution.weight.dtype in SIXTEEN_BITS):
            y: Tensor = _Convolve.apply(images, self)
            return y
        y = self.convolution(images)
        return F.relu(y) if self.relu else y

    def convolved(self, images: Tensor) -> Tensor:
        """The same of images whose sides are multiples of the stride, without a gradient."""
        layer = self.convolution
        if not self._by_blocks or not self._as_many_as_blocks(images):
            y: Tensor = layer(images)
        elif self.relu and is_fused(blocks := self._blocks(images), self.onward):
            y = torch.ops.aten.cudnn_convolution_relu(blocks, self.onward, layer.bias, (1, 1), (0, 0), (1, 1), 1)
            return y
        else:
            y = F.conv2d(self._blocks(images), self.onward, layer.bias)
        return F.relu_(y) if self.relu else y

    def _as_many_as_blocks(self, images: Tensor) -> bool:
        """Whether there are as many outputs as blocks of stride × stride pixels, which is so in networks' stems."""
        side, stride, padding = (int(each[0]) for each in (
            self.convolution.kernel_size, self.convolution.stride, self.convolution.padding
        ))  # fmt: skip
        return all((pixels + 2 * padding - side) // stride + 1 == pixels // stride for pixels in images.shape[2:])

    def _blocks(self, images: Tensor) -> Tensor:
        """Blocks [N, stride² · C or more, H/stride + K - 1, W/stride + K - 1], with zeros around, channels last."""
        n, channels, height, width = images.shape
        stride = self.convolution.stride[0]
        rows, columns = height // stride, width // stride
        taken, _, around, _ = self.transposed.shape
        _, high = _reach(self.convolution)
        blocks = self.onward.new_zeros(n, rows + around - 1, columns + around - 1, taken)
        inner = blocks[:, high : high + rows, high : high + columns, : stride * stride * channels]
        pixels = images.view(n, channels, rows, stride, columns, stride).permute(0, 2, 4, 3, 5, 1)
        inner.view(n, rows, columns, stride, stride, channels).copy_(pixels)
        return blocks.permute(0, 3, 1, 2)


def _kept(before: Tensor, now: Tensor) -> Tensor:
    """`now`, in the memory of `before` where there is such."""
    now = now.contiguous(memory_format=torch.channels_last)
    return before.copy_(now) if before.shape == now.shape and before.dtype == now.dtype else now


def is_fused(x: Tensor, weight: Tensor) -> bool:
    """Whether cuDNN computes a convolution of `x` and a ReLU at once: on a GPU in 16 bits, where it was measured."""
    return x.is_cuda and x.dtype == weight.dtype and x.dtype in SIXTEEN_BITS


def supported(convolution: nn.Conv2d) -> bool:
    """Whether FirstConvolution can replace a convolution, and is faster on its device."""
    side, stride, padding = convolution.kernel_size, convolution.stride, convolution.padding
    if type(convolution) is not nn.Conv2d:  # others may pad by the size of their input, as timm's do
        return False
    square = side[0] == side[1] and stride[0] == stride[1] and not isinstance(padding, str) and padding[0] == padding[1]
    plain = convolution.groups == 1 and convolution.dilation == (1, 1) and convolution.padding_mode == "zeros"
    pays = convolution.weight.device.type == "cpu" or stride[0] > 1
    return square and plain and convolution.in_channels <= 4 and pays


class _Convolve(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, images: Tensor, layer: FirstConvolution) -> Tensor:
        ctx.layer, ctx.shape, ctx.dtype = layer, images.shape, images.dtype
        y = layer.convolved(images)
        ctx.save_for_backward(*([y] if layer.relu else []))
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        layer, (n, channels, height, width) = ctx.layer, ctx.shape
        given = gradients[0]
        if layer.relu:
            given = torch.ops.aten.threshold_backward(given, *ctx.saved_tensors, 0)
        stride = layer.convolution.stride[0]
        low, high = _reach(layer.convolution)
        rows, columns = height // stride, width // stride
        # Outputs up to rows - 1 + high see the last block of pixels; with little padding there are fewer.
        beyond = max(rows - given.shape[2], columns - given.shape[3])
        pad = max(-low, beyond + high, 0)
        gradient = F.conv2d(given, layer.transposed.to(given.dtype), padding=pad)
        off = pad + low
        gradient = gradient[:, : stride * stride * channels, off : off + rows, off : off + columns]
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

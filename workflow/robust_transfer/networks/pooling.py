"""Adaptive average pooling whose gradient on CUDA can be deterministic, for networks that end in it (AlexNet, VGG).

torch's own kernel adds gradients where windows overlap, in any order, and under `use_deterministic_algorithms` it is
refused at the first backward pass. An output is the mean over rows [⌊iS/O⌋, ⌈(i+1)S/O⌉) of S and the same columns, so
the gradient is two matrix products by these means, which are deterministic.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Side = int | tuple[int, int]


class AdaptiveAvgPool2d(nn.AdaptiveAvgPool2d):
    """torch's, with another gradient on CUDA under `torch.use_deterministic_algorithms`; elsewhere the same bits."""

    def forward(self, x: Tensor) -> Tensor:
        """Maps [N, C, H, W] to [N, C, *output_size]."""
        if is_refused(x):
            y: Tensor = _Pool.apply(x, self.output_size)
            return y
        return super().forward(x)


def is_refused(x: Tensor) -> bool:
    """Whether torch would refuse the gradient of its own pooling."""
    return x.is_cuda and torch.are_deterministic_algorithms_enabled()


def replace_pools(network: nn.Module) -> None:
    """Put this pooling in the place of torch's, where the output is more than one value, which is a plain mean."""
    for path, layer in list(network.named_modules()):
        if type(layer) is nn.AdaptiveAvgPool2d and layer.output_size not in (1, (1, 1)):
            network.set_submodule(path, AdaptiveAvgPool2d(layer.output_size))


class _Pool(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, side: Side) -> Tensor:
        ctx.shape = x.shape
        return F.adaptive_avg_pool2d(x, side)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (gradient,) = gradients
        at = torch.promote_types(gradient.dtype, torch.float32)  # bf16 would round a third
        rows, columns = (
            means(size, outputs, gradient.device, at)
            for size, outputs in zip(ctx.shape[2:], gradient.shape[2:], strict=True)
        )
        spread = (rows.t() @ gradient.to(at) @ columns).to(gradient.dtype)
        return spread.contiguous(memory_format=torch.channels_last), None


@functools.cache
def means(size: int, outputs: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """The matrix [outputs, size] that takes the means of pooling along one axis; made once, not at every step."""
    matrix = torch.zeros(outputs, size, dtype=dtype)
    for output in range(outputs):
        window = slice(output * size // outputs, -(-(output + 1) * size // outputs))
        matrix[output, window] = 1 / (window.stop - window.start)
    return matrix.to(device)

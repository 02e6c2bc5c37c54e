"""Max pooling of channels-last maps on a GPU, by kernels that read and write each value once.

torch's own keep a 64-bit index for each output. On 256 × 64 maps of 112 × 112 in bf16 they take 0.82 ms forward and
1.95 ms backward, a fifth of a robust training step of ResNet-18 at 224 pixels (H200, torch 2.11, n = 1, 2026-11-26).
These keep one byte: the place of the largest value in its window, by row, the first of several that are as large.
"""

from __future__ import annotations

import functools
import logging
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

BLOCK = 1024
"""Values that one program of a kernel computes."""

log = logging.getLogger("robust_transfer")


class MaxPool2d(nn.MaxPool2d):
    """torch's, with faster kernels on a GPU in 16 bits; elsewhere the same bits."""

    def forward(self, x: Tensor) -> Tensor:
        """Maps [N, C, H, W] to [N, C, H', W']."""
        if (
            x.is_cuda
            and x.dtype in (torch.bfloat16, torch.float16)
            and x.is_contiguous(memory_format=torch.channels_last)
        ):
            y: Tensor = _Pool.apply(x, self.kernel_size, self.stride, self.padding)
        else:
            y = super().forward(x)
        return y


@functools.cache
def kernels_run() -> bool:
    """Whether the kernels can be compiled here, tried once for a process: Triton may be missing, or a C compiler."""
    try:
        x = torch.ones(1, 8, 4, 4, device="cuda", dtype=torch.bfloat16).contiguous(memory_format=torch.channels_last)
        torch.ops.robust_transfer.max_pool(x, 2, 2, 0)
    except Exception as error:  # of any kind, as Triton's compilation has many steps
        said = str(error).partition("\n")[0] or type(error).__name__
        log.warning("max pooling by torch's kernels, which are slower: Triton's did not run (%s)", said)
        return False
    return True


def replace_max_pools(network: nn.Module) -> None:
    """Put this pooling in the place of torch's, where windows are square and lie within the padded map."""
    for path, layer in list(network.named_modules()):
        if type(layer) is nn.MaxPool2d and _is_plain(layer):
            network.set_submodule(path, MaxPool2d(layer.kernel_size, layer.stride, layer.padding))


def _is_plain(layer: nn.MaxPool2d) -> bool:
    are_square = all(isinstance(value, int) for value in (layer.kernel_size, layer.stride, layer.padding))
    return are_square and layer.dilation == 1 and not layer.ceil_mode and not layer.return_indices


class _Pool(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, side: int, stride: int, padding: int) -> Tensor:
        y, places = torch.ops.robust_transfer.max_pool(x, side, stride, padding)
        ctx.save_for_backward(places)
        ctx.shape, ctx.window = x.shape, (side, stride, padding)
        result: Tensor = y
        return result

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        (places,) = ctx.saved_tensors
        gradient = gradients[0].contiguous(memory_format=torch.channels_last)
        spread: Tensor = torch.ops.robust_transfer.max_pool_backward(gradient, places, *ctx.shape[2:], *ctx.window)
        return spread, None, None, None


def _pool(x: Tensor, side: int, stride: int, padding: int) -> tuple[Tensor, Tensor]:
    """The largest values of windows, in `x`'s type, and their places in the windows, row by row: uint8."""
    n, channels, height, width = x.shape
    rows, columns = ((pixels + 2 * padding - side) // stride + 1 for pixels in (height, width))
    y = _empty(x, n, channels, rows, columns)
    places = torch.empty_like(y, dtype=torch.uint8)
    _kernels().forward[_programs(y)](
        x, y, places, height, width, rows, columns, channels, y.numel(), SIDE=side, STRIDE=stride, PADDING=padding,
        BLOCK=BLOCK,
    )  # fmt: skip
    return y, places


def _spread(gradient: Tensor, places: Tensor, height: int, width: int, side: int, stride: int, padding: int) -> Tensor:
    """Gradients of outputs [N, C, H', W'], each where its window's largest value was: [N, C, H, W]."""
    n, channels, rows, columns = gradient.shape
    spread = _empty(gradient, n, channels, height, width)
    _kernels().backward[_programs(spread)](
        gradient, places, spread, height, width, rows, columns, channels, spread.numel(), SIDE=side, STRIDE=stride,
        PADDING=padding, REACH=-(-side // stride), BLOCK=BLOCK,
    )  # fmt: skip
    return spread


def _kernels() -> Any:
    import robust_transfer.networks.max_pool_kernels as kernels  # imports Triton

    return kernels


def _empty(like: Tensor, *shape: int) -> Tensor:
    return torch.empty(shape, dtype=like.dtype, device=like.device, memory_format=torch.channels_last)


def _programs(of: Tensor) -> tuple[int]:
    return (-(-of.numel() // BLOCK),)


def _pool_by_torch(x: Tensor, side: int, stride: int, padding: int) -> tuple[Tensor, Tensor]:
    y, indices = F.max_pool2d(x, side, stride, padding, return_indices=True)
    top, left = (_corners(outputs, stride, padding, x.device) for outputs in y.shape[2:])
    width = x.shape[3]
    places = (indices // width - top[:, None]) * side + indices % width - left
    return y.contiguous(memory_format=torch.channels_last), places.to(torch.uint8)


def _spread_by_torch(
    gradient: Tensor, places: Tensor, height: int, width: int, side: int, stride: int, padding: int
) -> Tensor:
    top, left = (_corners(outputs, stride, padding, gradient.device) for outputs in gradient.shape[2:])
    within = places.long()
    indices = (top[:, None] + within // side) * width + left + within % side
    like = gradient.new_empty(*gradient.shape[:2], height, width)
    spread: Tensor = torch.ops.aten.max_pool2d_with_indices_backward(
        gradient.contiguous(), like, [side] * 2, [stride] * 2, [padding] * 2, [1, 1], False, indices.contiguous()
    )
    return spread.contiguous(memory_format=torch.channels_last)


def _corners(outputs: int, stride: int, padding: int, device: torch.device) -> Tensor:
    """First row, or column, of each window."""
    return torch.arange(outputs, device=device) * stride - padding


_WINDOW = "int side, int stride, int padding"
_library: Any = torch.library.Library("robust_transfer", "DEF")  # type: ignore[no-untyped-call]
_library.define(f"max_pool(Tensor x, {_WINDOW}) -> (Tensor, Tensor)")
_library.define(f"max_pool_backward(Tensor gradient, Tensor places, int height, int width, {_WINDOW}) -> Tensor")
for _key, _functions in {"CUDA": (_pool, _spread), "CPU": (_pool_by_torch, _spread_by_torch)}.items():
    _library.impl("max_pool", _functions[0], _key)
    _library.impl("max_pool_backward", _functions[1], _key)

"""CUDA graphs: kernels that are recorded once, and then launched all together.

Starting a kernel costs the host some microseconds, and a step of adversarial training starts hundreds: for small images
that is more than their work. Measured on an H200 (torch 2.11, bf16, PGD with three steps, n = 1, 2026-11-26): a step on
128 images of 32 pixels takes 7.5 ms instead of 22.3 (resnet18_cifar) and 2.3 instead of 15.4 (resnet8_w16), one on 512
of 64 pixels 13.4 instead of 23.1 (resnet18), one on 256 of 224 pixels 66 instead of 67. The same kernels run in the
same order, so that results have the same bits.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from robust_transfer.configuration.running import running

LARGEST = 4_000_000
"""Pixels in a batch up to which its kernels are recorded. Above, launching them takes no longer than their work, and a
recording keeps the memory that it works in."""
UNRECORDED = 3
"""First calls that run as they are: in these cuDNN chooses its kernels, and buffers are allocated."""

log = logging.getLogger("robust_transfer")


@dataclass(frozen=True)
class _Recording:
    graph: Any
    inputs: tuple[Tensor, ...]
    outputs: Any


class Recorder:
    """Calls functions of tensors, and records their kernels where that pays: see `pays`.

    A function must launch the same kernels whenever it is called under the same key with tensors of the same shapes:
    what else it depends on is in the key, or in tensors that stay where they are. It must not ask for tensors' values.
    """

    def __init__(self) -> None:
        self._recordings: dict[Hashable, _Recording] = {}
        self._calls: dict[Hashable, int] = {}
        self._wanted = running().cuda_graphs

    def pays(self, images: Tensor) -> bool:
        """Whether what is done with a batch of images [N, C, H, W] is worth recording."""
        small = images.is_cuda and images.numel() <= LARGEST * images.shape[1]
        return small and self._wanted

    def call(self, key: Hashable, function: Callable[..., Any], *inputs: Tensor) -> Any:
        """`function(*inputs)`; what it returns is overwritten by the next call under the same key.

        Under a new key it runs as it is, then it is recorded, and from then on the recording is replayed. Where it
        cannot be recorded, the log says why, and it goes on as it is.
        """
        key = (key, tuple((one.shape, one.stride(), one.dtype) for one in inputs))
        if key not in self._recordings:
            self._calls[key] = self._calls.get(key, 0) + 1
            if not self._wanted or self._calls[key] <= UNRECORDED:
                return _beside(function, inputs)
            try:
                self._recordings[key] = _recorded(function, inputs)
            except RuntimeError as error:
                log.warning("CUDA graphs: not recorded (%s); slower, otherwise the same", str(error).partition("\n")[0])
                self._wanted = False
                return function(*inputs)
        recording = self._recordings[key]
        for own, given in zip(recording.inputs, inputs, strict=True):
            own.copy_(given)
        recording.graph.replay()
        return recording.outputs


def _beside(function: Callable[..., Any], inputs: tuple[Tensor, ...]) -> Any:
    """Call on a stream beside the current one, as torch asks of calls that prepare a recording."""
    current, beside = torch.cuda.current_stream(), torch.cuda.Stream()  # type: ignore[no-untyped-call]
    beside.wait_stream(current)
    with torch.cuda.stream(beside):
        outputs = function(*inputs)
    current.wait_stream(beside)
    return outputs


def _recorded(function: Callable[..., Any], inputs: tuple[Tensor, ...]) -> _Recording:
    own = tuple(one.clone(memory_format=torch.preserve_format) for one in inputs)
    graph = torch.cuda.CUDAGraph()
    # Threads that load images may use the GPU meanwhile.
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        outputs = function(*own)
    return _Recording(graph, own, outputs)

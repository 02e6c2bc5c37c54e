"""BatchNorm over a batch that is processed in groups, by one process (gradient accumulation) or by several.

Each group is normalised by its own statistics. The running statistics are updated once per step, towards the mean of
all groups' statistics, whichever process had which group; within a step they do not change, since the attack uses them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

_Norm = nn.modules.batchnorm._BatchNorm


class RunningStatistics:
    """The running statistics of a network's BatchNorm layers in train mode, updated once per step."""

    def __init__(self, network: nn.Module) -> None:
        self._norms = [
            module
            for module in network.modules()
            if isinstance(module, _Norm) and module.running_mean is not None and module.training
        ]
        self._running = [
            buffer for norm in self._norms for buffer in (norm.running_mean, norm.running_var) if buffer is not None
        ]
        self._sums: list[Tensor] = []

    @contextmanager
    def of_step(self) -> Iterator[list[Tensor]]:
        """A step of several groups; yields the sums of their statistics.

        Inside it call `of_group` after each group's forward pass, then add the sums up over processes. Afterwards call
        `move` or `replace`.
        """
        self._before = [buffer.clone() for buffer in self._running]
        self._counts = [
            None if norm.num_batches_tracked is None else norm.num_batches_tracked.clone() for norm in self._norms
        ]
        self._sums = [torch.zeros_like(buffer) for buffer in self._running]
        self._momenta = [norm.momentum for norm in self._norms]
        for norm in self._norms:
            norm.momentum = 1.0  # a forward pass then stores the group's own statistics
        try:
            yield self._sums
        finally:
            for norm, momentum in zip(self._norms, self._momenta, strict=True):
                norm.momentum = momentum

    @torch.no_grad()
    def of_group(self) -> None:
        """Add the statistics that a forward pass in train mode stored, and restore those from before the step."""
        if self._running:
            torch._foreach_add_(self._sums, self._running)
            torch._foreach_copy_(self._running, self._before)

    @torch.no_grad()
    def move(self, groups: int) -> None:
        """Update the running statistics towards the mean of that many groups, by the layers' momentum."""
        for i, norm in enumerate(self._norms):
            before = self._counts[i]
            if norm.num_batches_tracked is not None and before is not None:
                norm.num_batches_tracked.copy_(before + 1)
            momentum = self._momenta[i]
            if momentum is None:  # a cumulative average
                momentum = 1 / (int(before) + 1) if before is not None else 1.0
            for j in (2 * i, 2 * i + 1):
                self._running[j].copy_(self._before[j] * (1 - momentum) + self._sums[j] * (momentum / groups))

    @torch.no_grad()
    def replace(self, groups: int) -> None:
        """Replace the running statistics by the mean of that many groups."""
        for running, total in zip(self._running, self._sums, strict=True):
            running.copy_(total / groups)

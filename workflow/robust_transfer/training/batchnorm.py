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
        self._counts = [norm.num_batches_tracked for norm in self._norms if norm.num_batches_tracked is not None]
        self._before, self._counts_before, self._sums = (
            [torch.empty_like(tensor) for tensor in tensors] for tensors in (self._running, self._counts, self._running)
        )

    @contextmanager
    def of_step(self) -> Iterator[list[Tensor]]:
        """A step of several groups; yields the sums of their statistics.

        Inside it call `of_group` after each group's forward pass, then add the sums up over processes. Afterwards call
        `move` or `replace`.
        """
        for copies, tensors in ((self._before, self._running), (self._counts_before, self._counts)):
            if tensors:
                torch._foreach_copy_(copies, tensors)
        if self._sums:
            torch._foreach_zero_(self._sums)
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
        if self._counts:
            torch._foreach_copy_(self._counts, torch._foreach_add(self._counts_before, 1))
        if not self._running:
            return
        momenta = [self._momentum_of(place // 2) for place in range(len(self._running))]
        kept = torch._foreach_mul(self._before, [1 - momentum for momentum in momenta])
        added = torch._foreach_mul(self._sums, [momentum / groups for momentum in momenta])
        torch._foreach_copy_(self._running, torch._foreach_add(kept, added))

    def _momentum_of(self, layer: int) -> float:
        momentum, count = self._momenta[layer], self._norms[layer].num_batches_tracked
        if momentum is not None:
            return momentum
        return 1 / int(count) if count is not None else 1.0  # a cumulative average

    @torch.no_grad()
    def replace(self, groups: int) -> None:
        """Replace the running statistics by the mean of that many groups."""
        if self._running:
            torch._foreach_copy_(self._running, torch._foreach_div(self._sums, groups))

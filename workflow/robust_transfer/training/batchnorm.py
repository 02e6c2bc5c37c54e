"""BatchNorm over a batch that is seen in groups: by one process, by accumulation, by several processes.

Each group is normalised by its own statistics. The running statistics move once a step, towards the mean of the groups'
statistics, whichever process has seen which group; while a step lasts they stay, since the attack computes with them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

_Norm = nn.modules.batchnorm._BatchNorm


class RunningStatistics:
    """The running statistics of a network's BatchNorm layers over one step at a time."""

    def __init__(self, network: nn.Module) -> None:
        self._norms = [
            module for module in network.modules() if isinstance(module, _Norm) and module.running_mean is not None
        ]
        self._running = [
            buffer for norm in self._norms for buffer in (norm.running_mean, norm.running_var) if buffer is not None
        ]
        self._sums: list[Tensor] = []

    @contextmanager
    def of_step(self) -> Iterator[list[Tensor]]:
        """A step of several groups. Gives the sums of the groups' statistics, to be filled by `of_group` and, by the
        caller, added up over processes; then call `move`."""
        self._before = [buffer.clone() for buffer in self._running]
        self._counts = [
            None if norm.num_batches_tracked is None else norm.num_batches_tracked.clone() for norm in self._norms
        ]
        self._sums = [torch.zeros_like(buffer) for buffer in self._running]
        self._momenta = [norm.momentum for norm in self._norms]
        for norm in self._norms:
            norm.momentum = 1.0  # a forward pass leaves the group's own statistics
        try:
            yield self._sums
        finally:
            for norm, momentum in zip(self._norms, self._momenta, strict=True):
                norm.momentum = momentum

    @torch.no_grad()
    def of_group(self) -> None:
        """Take the statistics that a forward pass in train mode has left, and put those before the step back."""
        if self._running:
            torch._foreach_add_(self._sums, self._running)
            torch._foreach_copy_(self._running, self._before)

    @torch.no_grad()
    def move(self, groups: int) -> None:
        """Move once towards the mean of that many groups, whose sums are complete."""
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
        """Become the mean of that many groups, whose sums are complete."""
        for running, total in zip(self._running, self._sums, strict=True):
            running.copy_(total / groups)

"""Data-parallel training: several processes, one GPU each, share each batch's BatchNorm groups and sum their gradients.

`python -m robust_transfer pretraining <entry> --processes 2` starts them; so does `torchrun --nproc-per-node 2 -m
robust_transfer pretraining <entry>`. Both set the environment variables RANK, WORLD_SIZE, …, which are what is read.

Gradients are summed once per step, after the backward pass. DistributedDataParallel of torch overlaps that exchange
with the backward pass; here it would gain little, since a step with three steps of PGD computes at least eight passes
per exchange.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from robust_transfer.machine.launch import LAUNCHED, die_with_parent


@dataclass(frozen=True)
class ProcessGroup:
    """The processes of one training, from the view of one of them."""

    rank: int = 0
    size: int = 1
    control: Any = None
    """torch's process group (gloo) for decisions, which are exchanged on the CPU whatever the device."""

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes files and the log."""
        return self.rank == 0

    def add(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its sum over all processes, in place, with one exchange per dtype."""
        if self.size == 1:
            return
        for dtype in dict.fromkeys(tensor.dtype for tensor in tensors):
            alike = [tensor for tensor in tensors if tensor.dtype == dtype]
            flat = torch.cat([tensor.reshape(-1) for tensor in alike])
            torch.distributed.all_reduce(flat)
            parts = torch.split(flat, [tensor.numel() for tensor in alike])
            for tensor, part in zip(alike, parts, strict=True):
                tensor.copy_(part.view(tensor.shape))

    def largest(self, value: int) -> int:
        """The largest of all processes' values."""
        if self.size == 1:
            return value
        agreed = torch.tensor(value)
        torch.distributed.all_reduce(agreed, torch.distributed.ReduceOp.MAX, group=self.control)
        return int(agreed)


ALONE = ProcessGroup()
"""A training by one process."""


@contextmanager
def process_group(device: str) -> Iterator[ProcessGroup]:
    """The process group that the environment describes; `ALONE` without WORLD_SIZE.

    On `cuda` it selects the GPU numbered LOCAL_RANK, and raises RuntimeError if there is no such GPU.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield ALONE
        return
    if LAUNCHED in os.environ:
        die_with_parent()
    if device == "cuda":
        local_rank, visible = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
        if local_rank >= visible:
            raise RuntimeError(
                f"{size} processes, and {visible} GPUs are visible: each process needs its own; start fewer processes"
            )
        torch.cuda.set_device(local_rank)
    torch.distributed.init_process_group("nccl" if device == "cuda" else "gloo")
    try:
        control = torch.distributed.new_group(backend="gloo")
        yield ProcessGroup(torch.distributed.get_rank(), size, control)
    finally:
        torch.distributed.destroy_process_group()

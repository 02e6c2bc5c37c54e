"""Several processes on one training, a GPU each: they share every batch by its BatchNorm groups and add up gradients.

`python -m robust_transfer pretraining <entry> --processes 2` starts them; so does `torchrun --nproc-per-node 2 -m
robust_transfer pretraining <entry>`, whose environment variables (RANK, WORLD_SIZE, …) are what counts.
One sum over all gradients a step, after backward: under PGD with three steps a step computes eight passes or more for
each exchange, so that hiding the exchange behind backward, as torch's DistributedDataParallel does, has little to hide.
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
    """The processes of a training as one of them sees it."""

    rank: int = 0
    size: int = 1
    control: Any = None
    """The process group over which processes agree, on the CPU whatever the device."""

    @property
    def is_main(self) -> bool:
        """Is this the process that writes and speaks?"""
        return self.rank == 0

    def add(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its sum over the processes, in place: one exchange for each dtype."""
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
        """The largest of the processes' values."""
        if self.size == 1:
            return value
        agreed = torch.tensor(value)
        torch.distributed.all_reduce(agreed, torch.distributed.ReduceOp.MAX, group=self.control)
        return int(agreed)


ALONE = ProcessGroup()


@contextmanager
def process_group(device: str) -> Iterator[ProcessGroup]:
    """The team that the environment names, alone if it names none; a process's GPU is that of its LOCAL_RANK."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield ALONE
        return
    if LAUNCHED in os.environ:
        die_with_parent()
    if device == "cuda":
        place, visible = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
        if place >= visible:
            raise RuntimeError(f"{size} processes, and {visible} GPUs are visible: one each is needed; ask for fewer")
        torch.cuda.set_device(place)
    torch.distributed.init_process_group("nccl" if device == "cuda" else "gloo")
    try:
        control = torch.distributed.new_group(backend="gloo")
        yield ProcessGroup(torch.distributed.get_rank(), size, control)
    finally:
        torch.distributed.destroy_process_group()

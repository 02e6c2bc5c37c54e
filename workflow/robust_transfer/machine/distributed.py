"""Data-parallel training: several processes, one GPU each, share each batch's BatchNorm groups and sum their gradients.

`python -m robust_transfer pretraining <entry> --processes 2` starts them; so do `torchrun --nproc-per-node 2 -m
robust_transfer pretraining <entry>` and SLURM's `srun`. What is read are the environment variables RANK, WORLD_SIZE, ….

Gradients are summed once per step, after the backward pass. DistributedDataParallel of torch overlaps that exchange
with the backward pass; here it would gain little, since a step with three steps of PGD computes at least eight passes
per exchange.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from robust_transfer.machine.launch import stay_with_starter


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

    On `cuda` it selects the GPU numbered LOCAL_RANK, or the only one where each process sees its own. Raises
    RuntimeError if there is no such GPU, or if two processes have the same.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield ALONE
        return
    stay_with_starter()
    if device == "cuda":
        local_rank, seen = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
        if local_rank >= seen != 1:
            raise _too_few(size, seen)
        torch.cuda.set_device(0 if seen == 1 else local_rank)
    torch.distributed.init_process_group("nccl" if device == "cuda" else "gloo")
    try:
        team = ProcessGroup(torch.distributed.get_rank(), size, torch.distributed.new_group(backend="gloo"))
        if device == "cuda":
            _check_gpus(team)
        yield team
    finally:
        torch.distributed.destroy_process_group()


def _check_gpus(team: ProcessGroup) -> None:
    """Raise RuntimeError if two processes of a machine have the same GPU, which NCCL would hang or fail on."""
    index = torch.cuda.current_device()
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    own = (socket.gethostname(), str(torch.cuda.get_device_properties(index).uuid), visible, index)
    theirs: list[Any] = [None] * team.size
    torch.distributed.all_gather_object(theirs, own, group=team.control)
    if len(set(theirs)) < team.size:
        raise _too_few(team.size, torch.cuda.device_count())


def _too_few(processes: int, visible: int) -> RuntimeError:
    return RuntimeError(
        f"{processes} processes, and {visible} GPUs are visible: each process needs its own; start fewer processes"
    )

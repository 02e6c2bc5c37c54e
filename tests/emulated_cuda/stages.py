"""Run stages on emulated CUDA, one after the other, and report what each launched and waited for.

    python -m emulated_cuda.stages report.json store/pretraining/<entry> store/features/<entry> …

To be started by `support.emulation.start`. Ends with the exit status of the first stage that fails.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import torch
from emulated_cuda.graphs import graphs_by
from emulated_cuda.operators import Emulation
from robust_transfer import cli
from robust_transfer.machine import cards
from torch import Tensor


def main() -> int:
    """Run the stages; 0 if all did their work."""
    parser = argparse.ArgumentParser()
    parser.add_argument("report", type=Path)
    parser.add_argument("entries", type=Path, nargs="+")
    parser.add_argument("--driver", type=Path, help="what stands for /proc/driver/nvidia")
    given = parser.parse_args()
    if given.driver:
        cards.DRIVER = given.driver
    exchange_by_gloo()
    reported = {}
    for entry in given.entries:
        with Emulation() as emulated, graphs_by(emulated):
            status = cli.main([entry.parent.name, str(entry), "--device", "cuda"])
        if status:
            return status
        reported[entry.parent.name] = {"launches": emulated.launches.total(), "blocking": dict(emulated.blocking)}
    given.report.write_text(json.dumps(reported))
    return 0


def exchange_by_gloo() -> None:
    """Have processes exchange tensors by gloo on the host where they would by NCCL."""
    start, add = torch.distributed.init_process_group, torch.distributed.all_reduce

    def init_process_group(backend: str, **options: Any) -> None:
        start({"nccl": "gloo"}.get(backend, backend), **options)

    def all_reduce(tensor: Tensor, *arguments: Any, **options: Any) -> None:
        summed = tensor.cpu()
        add(summed, *arguments, **options)
        tensor.copy_(summed)

    torch.distributed.init_process_group = init_process_group  # type: ignore[assignment]
    torch.distributed.all_reduce = all_reduce  # type: ignore[assignment]


if __name__ == "__main__":
    sys.exit(main())

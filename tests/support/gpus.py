"""GPUs that are not there: the files by which a driver describes them."""

from collections.abc import Sequence
from pathlib import Path

UUIDS = [f"GPU-{number}0000000-1111-2222-3333-444444444444" for number in range(1, 9)]
VERSION = "580.95.05"


def driver(folder: Path, uuids: Sequence[str], *, models: Sequence[str] = (), version: str = VERSION) -> Path:
    """What `/proc/driver/nvidia` holds on a machine with these cards, written below `folder`; returns it."""
    for number, uuid in enumerate(uuids):
        card = folder / "gpus" / f"0000:{number:02x}:00.0"
        card.mkdir(parents=True)
        model = models[number] if models else "NVIDIA H100 80GB HBM3"
        (card / "information").write_text(
            f"Model: \t\t {model}\nIRQ:   \t\t 77\nGPU UUID: \t {uuid}\nVideo BIOS: \t 96.00.61.00.01\n"
            f"Bus Type: \t PCIe\nDevice Minor: \t {number}\n"
        )
    (folder / "version").write_text(
        f"NVRM version: NVIDIA UNIX x86_64 Kernel Module  {version}  Tue Sep 23 10:00:00 UTC 2025\n"
        "GCC version:  gcc version 12.2.0 (Debian 12.2.0-14)\n"
    )
    return folder

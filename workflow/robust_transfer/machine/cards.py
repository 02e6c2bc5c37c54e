"""What NVIDIA GPUs this process may use, found without importing torch or starting CUDA.

A card's name is what CUDA_VISIBLE_DEVICES takes: an index, a UUID (`GPU-…`), or a MIG instance (`MIG-…`). Names of this
machine's cards are UUIDs, since an index means the fastest card first to CUDA and the bus order to `nvidia-smi`.
"""

from __future__ import annotations

import functools
import os
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

VISIBLE = "CUDA_VISIBLE_DEVICES"
DRIVER = Path("/proc/driver/nvidia")
"""Where the driver describes itself: `version`, and a folder for each card in `gpus`. Not on WSL2."""
WSL = Path("/dev/dxg")
"""The device through which WSL2 reaches the host's driver."""
SMI = ("nvidia-smi", "/usr/lib/wsl/lib/nvidia-smi")
SMI_SECONDS = 30.0
"""How long `nvidia-smi` may take: seconds where the driver was not loaded, for ever where a card has died."""
NEEDED = {11: "450.80", 12: "525.60", 13: "580.65"}
"""Oldest Linux driver by major version of CUDA: NVIDIA's "CUDA Compatibility", table of minor version compatibility."""
_MIG_NAME = re.compile(r"\(UUID: (MIG-[^)]+)\)")
_GPU_NAME = re.compile(r"\(UUID: (GPU-[^)]+)\)")


@dataclass(frozen=True)
class Card:
    """One GPU, or one MIG instance of a GPU."""

    name: str
    """As CUDA_VISIBLE_DEVICES takes it."""
    key: str
    """The same for every name of this card, as far as that is known: what locks are named by."""

    @property
    def is_mig(self) -> bool:
        """Whether it is a part of a GPU, which CUDA lets a process use one of."""
        return self.name.startswith("MIG-")


def visible(environment: Mapping[str, str] = os.environ) -> tuple[Card, ...]:
    """The cards that CUDA_VISIBLE_DEVICES names, or else all of this machine; none without a driver."""
    told = environment.get(VISIBLE)
    if told is not None and not told.strip():
        return ()
    machine = of_machine()
    if told is None or not machine:
        return machine
    return _named(told, machine, environment.get("CUDA_DEVICE_ORDER") == "PCI_BUS_ID")


def usable() -> tuple[Card, ...]:
    """The visible cards, or none where their driver is too old for torch, which alone can say more."""
    return () if driver_fault() else visible()


def of_machine() -> tuple[Card, ...]:
    """All cards of this machine by UUID, in the order of the bus; of a GPU that is split, its MIG instances.

    Where the driver does not say UUIDs, cards are named by index.
    """
    folders = sorted(DRIVER.glob("gpus/*"))
    if not folders and not WSL.exists():
        return ()
    if not folders or next(DRIVER.glob("capabilities/gpu*/mig/gi*"), None):
        return _listed_by_smi() or tuple(_by_index(number) for number in range(len(folders)))
    found = [_said(folder, "GPU UUID") for folder in folders]
    if not all(uuid.startswith("GPU-") and "?" not in uuid for uuid in found):
        return tuple(_by_index(number) for number in range(len(folders)))
    return tuple(Card(uuid, uuid) for uuid in found)


def models() -> tuple[str, ...]:
    """What the driver calls this machine's GPUs, such as `NVIDIA H100 80GB HBM3`, in the order of the bus."""
    return tuple(_said(folder, "Model") for folder in sorted(DRIVER.glob("gpus/*")))


def driver_version() -> str:
    """The NVIDIA driver's version, such as `580.95.05`; empty if it does not say."""
    try:
        said = (DRIVER / "version").read_text()
    except OSError:
        return ""
    found = re.search(r"Kernel Module.*?\s(\d+(?:\.\d+)+)", said)
    return found[1] if found else ""


def cuda_of_torch() -> str:
    """The CUDA version that the installed torch was built for, read without importing it; empty for a build without."""
    spec = find_spec("torch")
    version = Path(spec.origin).with_name("version.py") if spec and spec.origin else None
    found = version and version.exists() and re.search(r"^cuda\b.*=\s*'([\d.]+)'", version.read_text(), re.M)
    return found[1] if found else ""


def driver_fault() -> str:
    """What keeps torch from using this machine's cards, and the fix, if their driver is too old for it; else empty."""
    driver, cuda = driver_version(), cuda_of_torch()
    needed = NEEDED.get(int(cuda.partition(".")[0])) if cuda else None
    if not driver or not needed or _numbers(driver) >= _numbers(needed):
        return ""
    return f"the NVIDIA driver is {driver}, and torch for CUDA {cuda} needs {needed} or later: update the driver"


def _named(told: str, machine: tuple[Card, ...], by_bus: bool) -> tuple[Card, ...]:
    """The cards of a CUDA_VISIBLE_DEVICES, read as CUDA does: the first name that means nothing ends the list."""
    found: dict[str, Card] = {}
    for name in (part.strip() for part in told.split(",")):
        if name.isdigit():
            if int(name) >= max(len(machine), 1):
                break
            # Indexes of machines with different cards mean another order than the bus's, unless that is asked for.
            alike = by_bus or len({_said(folder, "Model") for folder in DRIVER.glob("gpus/*")}) == 1
            is_known = alike and machine[int(name)].name.startswith("GPU-")
            card = Card(name, machine[int(name)].key if is_known else f"index-{name}")
        elif name.startswith(("GPU-", "MIG-")):
            meant = [card for card in machine if card.name.startswith(name)]  # an abbreviation will do
            card = Card(name, meant[0].key if len(meant) == 1 else name)
        else:
            break
        found.setdefault(card.key, card)
    return tuple(found.values())


def _by_index(number: int) -> Card:
    return Card(str(number), f"index-{number}")


def _said(folder: Path, what: str) -> str:
    """One line of a card's description by the driver."""
    try:
        lines = (folder / "information").read_text(errors="replace").splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(what)), "")


@functools.cache
def _listed_by_smi() -> tuple[Card, ...]:
    """The cards that `nvidia-smi -L` lists: the MIG instances of each GPU that has some, else the GPU."""
    for program in SMI:
        try:
            done = subprocess.run([program, "-L"], capture_output=True, text=True, timeout=SMI_SECONDS, check=True)
        except (OSError, subprocess.SubprocessError):
            continue
        return _read_list(done.stdout)
    return ()


def _read_list(listed: str) -> tuple[Card, ...]:
    cards: list[Card] = []
    for line in listed.splitlines():
        if gpu := _GPU_NAME.search(line):
            cards.append(Card(gpu[1], gpu[1]))
        elif mig := _MIG_NAME.search(line):
            if cards and not cards[-1].is_mig:
                cards.pop()  # the GPU itself, which has been split
            cards.append(Card(mig[1], mig[1]))
    return tuple(cards)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))

"""Whether torch can use a GPU here, which only torch knows: a driver may be there and too old, or show nothing."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping

import torch

from robust_transfer.machine.cards import VISIBLE, driver_fault, visible

log = logging.getLogger("robust_transfer")


class DeviceError(RuntimeError):
    """A GPU is asked for, and torch cannot use one; the message says why, and what to do."""


def resolved(asked: str) -> str:
    """`cpu` or `cuda`. `auto` is `cuda` if torch can use a GPU; if one is there all the same, a warning says why not.

    Raises DeviceError if `cuda` is asked for and cannot be.
    """
    if asked == "cpu":
        return "cpu"
    fault = _fault()
    if not fault:
        return "cuda"
    if asked == "cuda":
        raise DeviceError(f"--device cuda: {fault}; --device cpu does without")
    if visible():
        log.warning("working on the CPU, although there is a GPU: %s", fault)
    return "cpu"


def _fault(environment: Mapping[str, str] = os.environ) -> str:
    """Why torch cannot use the first visible GPU; empty if it can."""
    hidden = environment.get(VISIBLE, "unset").strip() in ("", "-1", "NoDevFiles")
    if hidden:
        return f"{VISIBLE} = {environment[VISIBLE]!r} hides all GPUs"
    if torch.cuda.is_available():
        return _unserved()
    if fault := driver_fault():
        return fault
    try:
        torch.cuda.init()  # type: ignore[no-untyped-call]
    except (RuntimeError, AssertionError) as error:
        return f"torch {torch.__version__} says: {str(error).splitlines()[0]}"
    return f"torch {torch.__version__} finds none"


def _unserved() -> str:
    """Empty if the installed torch has code for the first visible GPU."""
    served = [int(arch[3:].rstrip("af")) for arch in torch.cuda.get_arch_list() if arch.startswith("sm_")]
    major, minor = torch.cuda.get_device_capability(0)
    if torch.version.hip or not served or 10 * major + minor >= min(served):
        return ""
    return (
        f"{torch.cuda.get_device_name(0)} has compute capability {major}.{minor}, and torch {torch.__version__} serves "
        f"{min(served) // 10}.{min(served) % 10} and later; leave it out of {VISIBLE}"
    )


def described() -> dict[str, str]:
    """The GPUs of this job as `timing.json` has them: what CUDA_VISIBLE_DEVICES says, and the first one's model."""
    return {"cards": os.environ.get(VISIBLE, "all"), "model": torch.cuda.get_device_name(0)}

"""Device settings of a job: threads, memory allocation, determinism and precision."""

from __future__ import annotations

import ctypes
import os
import platform
import sys

import torch

from robust_transfer.configuration.running import running
from robust_transfer.configuration.training import Precision
from robust_transfer.store.entry import process_memory_mb

_MALLOPT = {"M_MMAP_MAX": (-4, 0), "M_TRIM_THRESHOLD": (-1, 2**31 - 1)}
"""Options of glibc's `mallopt`, as in malloc.h: no allocation by mmap, and freed memory is never returned."""


def prepare(device: str, threads: int, precision: Precision) -> torch.device:
    """Set torch's number of threads, and make large tensors cheap to allocate; returns the device.

    On `cuda` it also turns on cuDNN's benchmark mode or, under `running.deterministic`, deterministic algorithms, and
    says whether matrix products and convolutions may use TF32: under `precision` tf32 alone, for the whole job, so
    that one that goes on from a saved state computes its first batch as one that came there by itself.
    """
    torch.set_num_threads(threads)
    _keep_freed_memory()
    if device == "cuda":
        deterministic = running().deterministic
        # torch's default is TF32 in convolutions, whatever the precision
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision == "tf32"
        torch.backends.cudnn.benchmark = not deterministic
        if deterministic:
            os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"  # without it cuBLAS may differ from call to call
            torch.use_deterministic_algorithms(True)
    return torch.device(device)


def device_name(device: str) -> str:
    """Name of the device: a GPU's model, or `cpu` and the processor's architecture."""
    return torch.cuda.get_device_name() if device == "cuda" else f"cpu {platform.machine()}"


def autocast(precision: Precision, device: torch.device) -> torch.autocast:
    """The context manager under which a network computes in `precision`; of TF32 `prepare` decides."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16")


def peak_memory_mb(device: torch.device) -> float:
    """Peak memory so far, in MiB: allocated on the device if it is a GPU, else resident in the process."""
    if device.type == "cuda":
        return round(torch.cuda.max_memory_allocated(device) / 1024**2, 1)
    return process_memory_mb()


def _keep_freed_memory() -> None:
    """Let glibc reuse the memory of freed tensors instead of returning it to the kernel and faulting it in again.

    Activations of a training step are a few MB each, above the size from which malloc maps fresh pages every time.
    Measured on one core of an AMD EPYC (resnet8_w16, 128 images of 32 pixels, bf16): one gradient step of the attack
    takes 55 ms instead of 67.
    """
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        if hasattr(libc, "gnu_get_libc_version"):
            for option, value in _MALLOPT.values():
                libc.mallopt(option, value)

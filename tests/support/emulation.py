"""Processes that find a GPU where there is none: the runtime of tests/emulated_cuda, compiled and preloaded."""

import functools
import importlib.util
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch

from support.paths import TESTS
from support.processes import environment

COMPILER = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")


def _headers() -> Path | None:
    """Folder of CUDA's headers; triton's are whole, NVIDIA's own packages lack a part."""
    found = importlib.util.find_spec("triton")
    folder = Path(found.origin).parent / "backends" / "nvidia" / "include" if found and found.origin else None
    return folder if folder and (folder / "cuda_runtime_api.h").exists() else None


def missing() -> str:
    """What is missing here to emulate CUDA; empty if nothing is."""
    if torch.cuda.is_available():
        return "a GPU is here, which is better"
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        return "emulated CUDA needs Linux on x86-64"
    if not torch.version.cuda or not _headers():
        return "emulated CUDA needs a torch that was built for CUDA, and the headers that come with triton"
    return "" if COMPILER else "emulated CUDA needs a C compiler"


needs_emulation = pytest.mark.skipif(bool(missing()), reason=missing())
"""Skips a test, by the name of what is missing."""


def start(*command: object, gpus: int = 1, variables: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
    """Start Python, with these arguments, in a process that finds so many GPUs; its output and errors are pipes.

    Operators on their tensors fail, but for those within `emulated_cuda.operators.Emulation`.
    """
    library = runtime()
    told = environment(
        LD_PRELOAD=str(library), LD_LIBRARY_PATH=str(library.parent), EMULATED_GPUS=str(gpus), **(variables or {})
    )
    pipe = subprocess.PIPE
    return subprocess.Popen([sys.executable, *map(str, command)], env=told, stdout=pipe, stderr=pipe, text=True)


def output(process: subprocess.Popen[str], status: int = 0, seconds: float = 900) -> str:
    """What a process has printed, once it has ended with this status."""
    try:
        printed, errors = process.communicate(timeout=seconds)
    finally:
        process.kill()
    assert process.returncode == status, errors
    return printed


@functools.cache
def runtime() -> Path:
    """The runtime as a library, compiled once for this process, in a folder that goes with it."""
    folder = Path(_folder().name)
    library, headers = folder / "libemulated_cuda.so", _headers()
    assert COMPILER
    assert headers
    source = TESTS / "emulated_cuda" / "runtime.c"
    flags = ["-shared", "-fPIC", "-O1", "-pthread", f"-I{headers}"]
    subprocess.run([COMPILER, *flags, "-o", str(library), str(source)], check=True)
    (folder / "libcuda.so.1").symlink_to(library)  # which torch asks of the driver itself
    return library


@functools.cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="emulated-cuda-")

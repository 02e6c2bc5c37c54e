"""Measurements in rounds: every contender once per round, so that whatever slows the machine slows all of them.

On a CPU contenders live side by side and idle in turn. On a GPU one is alive at a time, since each keeps weights,
activations and cuDNN's workspaces in the card's memory: it is started once, warms up by WARM calls, which cuDNN's
benchmark mode needs, and is timed for all rounds, each over calls of at least SECONDS.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import date
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

WARM, SECONDS = 5, 0.5
"""On a GPU: calls that are not counted, and the least time of those that are."""


def use_tf32(allowed: bool) -> None:
    """Have all of this process's matrix products and convolutions use TF32 on a GPU, or none.

    torch's default is TF32 in convolutions alone, so that "fp32" would mean another thing for each contender.
    """
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = allowed


@dataclass(frozen=True)
class NetworkCase:
    """A network on images of one size; benchmarks add what else they vary."""

    architecture: str
    side: int
    """Of the images, in pixels."""

    @property
    def name(self) -> str:
        """As the command line names it."""
        return f"{self.architecture}-{self.side}"


def command_line(description: str | None, cases: Sequence[NetworkCase] = ()) -> argparse.ArgumentParser:
    """The options that benchmarks share; `--case` where there are cases to choose from."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    if cases:
        names = list(dict.fromkeys(case.name for case in cases))
        parser.add_argument("--case", nargs="+", choices=names, help="only these (default: all for the device)")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of the CPU")
    parser.add_argument("--rounds", type=int, default=5, help="alternating runs that are counted")
    parser.add_argument("--json", type=Path, help="write every round here")
    return parser


@dataclass(frozen=True)
class Speeds:
    """Speeds of the contenders in one case."""

    case: str
    images_per_second: dict[str, list[float]]
    """By contender, one number per round."""
    notes: dict[str, Any] = field(default_factory=dict)

    def median(self, contender: str) -> float:
        """Median over rounds."""
        return statistics.median(self.images_per_second[contender])

    def ratios(self, contender: str, to: str) -> list[float]:
        """Speed of `contender` over that of `to` in the same round, one number per round."""
        both = self.images_per_second[contender], self.images_per_second[to]
        return [one / other for one, other in zip(*both, strict=True)]


@dataclass(frozen=True)
class Contender:
    """A candidate: `make(*arguments)`, called in a process of its own, returns the callable that is timed."""

    make: Callable[..., Callable[[], object]]
    arguments: tuple[Any, ...] = ()


def measure(
    case: str, contenders: Mapping[str, Contender], *, images: int, rounds: int, threads: int, device: str
) -> Speeds:
    """Images per second of contenders that process `images` images per call; first calls warm up and are not counted.

    Each has its own process, so that they do not share process-wide state (the memory allocator, the kernels that cuDNN
    picks, whether TF32 is used). On a GPU one lives at a time, else all do, and those whose turn it is not are idle.
    """
    if device == "cuda":
        return Speeds(case, _one_after_the_other(contenders, images, rounds, threads))
    speeds: dict[str, list[float]] = {name: [] for name in contenders}
    names = list(contenders)
    with contextlib.ExitStack() as stack:
        lines = {name: stack.enter_context(_started(one, threads, device)) for name, one in contenders.items()}
        for number in range(rounds + 1):
            for name in names[number % len(names) :] + names[: number % len(names)]:  # each goes first in turn
                seconds = _seconds(name, lines[name])
                if number:
                    speeds[name].append(images / seconds)
    return Speeds(case, speeds)


def _one_after_the_other(
    contenders: Mapping[str, Contender], images: int, rounds: int, threads: int
) -> dict[str, list[float]]:
    speeds = {}
    for name, contender in contenders.items():
        with _started(contender, threads, "cuda", warm=WARM, at_least=SECONDS) as line:
            speeds[name] = [images / _seconds(name, line) for _ in range(rounds)]
    return speeds


@contextlib.contextmanager
def _started(
    contender: Contender, threads: int, device: str, *, warm: int = 0, at_least: float = 0.0
) -> Iterator[Connection]:
    """A contender's process, and the line on which it is asked for the seconds of a call; it ends with the block."""
    spawn = multiprocessing.get_context("spawn")
    line, theirs = spawn.Pipe()
    process = spawn.Process(target=_serve, args=(theirs, contender, threads, device, warm, at_least))
    process.start()
    theirs.close()
    try:
        yield line
    finally:
        line.close()
        process.join()


def _seconds(name: str, line: Connection) -> float:
    try:
        line.send(None)
        seconds: float = line.recv()
    except (EOFError, BrokenPipeError, ConnectionResetError):
        raise RuntimeError(f"{name}: its process ended; its error is printed above") from None
    return seconds


def _serve(line: Connection, contender: Contender, threads: int, device: str, warm: int, at_least: float) -> None:
    torch.set_num_threads(threads)
    timed = contender.make(*contender.arguments)
    wait: Callable[[], None] = torch.cuda.synchronize if device == "cuda" else lambda: None
    for _ in range(warm):
        timed()
    wait()
    while True:
        try:
            line.recv()
        except EOFError:
            return
        start, calls = time.perf_counter(), 0
        while not calls or time.perf_counter() - start < at_least:
            timed()
            calls += 1
            wait()
        line.send((time.perf_counter() - start) / calls)


def show(measured: Sequence[Speeds], compared: Sequence[tuple[str, str]]) -> None:
    """Print a table: speeds by contender, and ratios of these pairs as median (lowest to highest round)."""
    for speeds in measured:
        print(f"\n{speeds.case}")
        for name in speeds.images_per_second:
            print(f"  {name:38} {speeds.median(name):10.1f} images/s")
        for one, other in compared:
            if {one, other} <= speeds.images_per_second.keys():
                ratios = speeds.ratios(one, other)
                label = f"{one} / {other}"
                print(f"  {label:68} {statistics.median(ratios):6.2f} ({min(ratios):.2f} to {max(ratios):.2f})")
        for name, value in speeds.notes.items():
            print(f"  {name:38} {value:10.3g}" if isinstance(value, float) else f"  {name}: {value}")


def write(
    path: Path, measured: Sequence[Speeds], compared: Sequence[tuple[str, str]], about: Mapping[str, Any]
) -> None:
    """Write all rounds, and the medians of ratios, as JSON."""
    cases = [
        {
            **asdict(speeds),
            "median_ratios": {
                f"{one} / {other}": round(statistics.median(speeds.ratios(one, other)), 3)
                for one, other in compared
                if {one, other} <= speeds.images_per_second.keys()
            },
        }
        for speeds in measured
    ]
    path.write_text(json.dumps({"about": dict(about), "cases": cases}, indent=1) + "\n")


def hardware(device: str, threads: int) -> dict[str, Any]:
    """The hardware and versions that a measurement is reported with."""
    about: dict[str, Any] = {
        "device": torch.cuda.get_device_name() if device == "cuda" else _processor(),
        "cores": os.cpu_count(),
        "threads": threads,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
    if device == "cuda":
        about |= {"cuda": torch.version.cuda, "date": date.today().isoformat()}
    return about


def describe(about: Mapping[str, Any]) -> str:
    """The hardware in one line."""
    return ", ".join(f"{name} {value}" for name, value in about.items())


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except FileNotFoundError:
        return platform.processor() or platform.machine()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.machine()

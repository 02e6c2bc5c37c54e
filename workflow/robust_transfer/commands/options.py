"""What the options of several commands share."""

from __future__ import annotations

import argparse
import os
from datetime import datetime
from pathlib import Path
from typing import TypeAlias

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
"""Where a command adds itself."""


def add_configfile(command: argparse.ArgumentParser) -> None:
    """The option `--configfile`, of commands that plan an experiment."""
    command.add_argument(
        "--configfile",
        type=Path,
        nargs="+",
        default=[],
        help="files that describe the experiment, later ones over earlier ones (default: config.yaml)",
    )


def add_log(command: argparse.ArgumentParser) -> None:
    """The option `--log`, of commands that rules call."""
    command.add_argument("--log", type=Path, help="file to append messages to, beside the terminal")


def positive(text: str) -> int:
    """The type of a whole number from 1 up."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value}: at least 1")
    return value


def point_in_time(text: str) -> datetime:
    """The type of a date and time in ISO 8601."""
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text}: not a time; write it as 2030-01-31T08:00") from None


def device(asked: str) -> str:
    """`cuda` if asked for or, for `auto`, if the NVIDIA driver shows a device; found out without importing torch."""
    if asked != "auto":
        return asked
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible in ("", "-1") or not Path("/proc/driver/nvidia/gpus").exists():
        return "cpu"
    return "cuda"

"""What the options of several commands share."""

from __future__ import annotations

import argparse
import json
import os
from datetime import datetime
from pathlib import Path
from typing import TypeAlias

from robust_transfer.store.entry import GPU

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
    """`cpu`, or `cuda` if torch can use a GPU, which the job's `timing.json` then names. Imports torch unless `cpu`."""
    if asked == "cpu":
        return "cpu"
    from robust_transfer.machine.detection import described, resolved

    found = resolved(asked)
    if found == "cuda":
        os.environ[GPU] = json.dumps(described())
    return found

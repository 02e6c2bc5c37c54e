"""Start the processes of a team (see `distributed`), pass signals on to them, and end with them. Imports no torch."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

PATIENCE = 30.0
"""Seconds that processes get to save and leave once one of them has."""
COMMAND = [sys.executable, "-m", "robust_transfer"]
LAUNCHED = "ROBUST_TRANSFER_LAUNCHED"
"""Environment variable of processes that `launch` has started, which end when it is killed."""
_PR_SET_PDEATHSIG = 1


def is_main() -> bool:
    """Is this process the first of its team, or alone? Says what the environment says."""
    return os.environ.get("RANK", "0") == "0"


def launch(processes: int, arguments: Sequence[str]) -> int:
    """Run this program in so many processes that form a team; returns the exit code of the first to fail, else 0.

    Signals to save, stop or end are passed on to all of them. When one fails, the others get PATIENCE seconds to end.
    """
    environment = os.environ | {
        "WORLD_SIZE": str(processes),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(_free_port()),
        LAUNCHED: "1",
    }
    environment.setdefault("GLOO_SOCKET_IFNAME", "lo")
    command = [*COMMAND, *arguments]
    started = [
        subprocess.Popen(command, env=environment | {"RANK": str(rank), "LOCAL_RANK": str(rank)})
        for rank in range(processes)
    ]

    def pass_on(number: int, frame: Any) -> None:
        for process in started:
            process.send_signal(number)

    before = {number: signal.signal(number, pass_on) for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)}
    try:
        return _waited(started)
    finally:
        for process in started:
            process.kill()
        for number, handler in before.items():
            signal.signal(number, handler)


def _waited(started: Sequence[subprocess.Popen[bytes]]) -> int:
    failed, deadline = 0, float("inf")
    while None in [process.poll() for process in started] and time.monotonic() < deadline:
        if not failed and (failed := _first_failure(started)):
            deadline = time.monotonic() + PATIENCE
        time.sleep(0.05)
    found = failed or _first_failure(started)
    return 128 - found if found < 0 else found


def _first_failure(started: Sequence[subprocess.Popen[bytes]]) -> int:
    """Exit code of the first of those that have ended, as `poll` has seen, with one that is not 0; else 0."""
    return next((process.returncode for process in started if process.returncode), 0)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def die_with_parent() -> None:
    """Let the kernel end this process when the one that started it is killed, which could not tell it.

    On Linux alone; elsewhere nothing is done.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)

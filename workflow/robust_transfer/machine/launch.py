"""Start the processes of one training (see `distributed`), and pass signals on to them. Imports no torch."""

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
"""Seconds that the other processes get to save and exit once one has failed: a state is written in a few seconds."""
COMMAND = [sys.executable, "-m", "robust_transfer"]
"""What each process runs, before its arguments."""
LAUNCHED = "ROBUST_TRANSFER_LAUNCHED"
"""Environment variable of processes that `launch` has started; they end when it is killed."""
_PR_SET_PDEATHSIG = 1  # from linux/prctl.h


def is_main() -> bool:
    """Whether this process is the first of its training, or the only one, by the environment variable RANK."""
    return os.environ.get("RANK", "0") == "0"


def launch(processes: int, arguments: Sequence[str]) -> int:
    """Run this program in several processes that train together; returns the exit code of the first that fails, else 0.

    SIGTERM, SIGUSR1, SIGINT and SIGHUP are passed on to all of them, the last unless it is ignored (`nohup`). When one
    fails, the others get PATIENCE seconds to exit.

    Args:
        processes: How many.
        arguments: Command-line arguments of each.
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

    before = {number: signal.signal(number, pass_on) for number in handled_signals()}
    try:
        return _waited(started)
    finally:
        for process in started:
            process.kill()
        for number, handler in before.items():
            signal.signal(number, handler)


def handled_signals() -> list[signal.Signals]:
    """Those on which a job saves and exits. SIGHUP is none of them where it is ignored, as under `nohup`."""
    hangup = [] if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else [signal.SIGHUP]
    return [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT, *hangup]


def _waited(started: Sequence[subprocess.Popen[bytes]]) -> int:
    failed, deadline = 0, float("inf")
    while None in [process.poll() for process in started] and time.monotonic() < deadline:
        if not failed and (failed := _first_failure(started)):
            deadline = time.monotonic() + PATIENCE
        time.sleep(0.05)
    code = failed or _first_failure(started)
    return 128 - code if code < 0 else code  # as a shell reports a process that a signal ended


def _first_failure(started: Sequence[subprocess.Popen[bytes]]) -> int:
    """The first exit code that is not 0, of the processes that `poll` has found ended; 0 if there is none."""
    return next((process.returncode for process in started if process.returncode), 0)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def die_with_parent() -> None:
    """Have the kernel kill this process when its parent dies, which after SIGKILL could not pass anything on.

    Works on Linux only; elsewhere it does nothing.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)

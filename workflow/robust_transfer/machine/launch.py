"""Start the processes of one training (see `distributed`), and pass signals on to them. Imports no torch.

Who starts them says by environment variables how many there are and which is which: `launch` here, torchrun, or SLURM's
`srun`, whose variables `join_step` translates.
"""

from __future__ import annotations

import ctypes
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

PATIENCE = 30.0
"""Seconds that the other processes get to save and exit once one has failed: a state is written in a few seconds."""
COMMAND = [sys.executable, "-m", "robust_transfer"]
"""What each process runs, before its arguments."""
LAUNCHED = "ROBUST_TRANSFER_LAUNCHED"
"""Environment variable of processes that `launch` has started; they end when it is killed."""
TORCHRUN = "TORCHELASTIC_RUN_ID"
"""Environment variable of processes that torchrun has started."""
LOOPBACK = "127.0.0.1"
PORTS = range(15000, 31000)
"""Where the processes of a SLURM job step meet: below the ports that Linux gives to outgoing connections."""
_PR_SET_PDEATHSIG = 1  # from linux/prctl.h


class LaunchError(RuntimeError):
    """The processes of a training cannot find each other; the message says what is missing."""


@dataclass(frozen=True)
class Machines:
    """The machines that share a training, from the view of one of them."""

    count: int = 1
    number: int = 0
    """Of this one, from 0."""
    meeting: str = ""
    """HOST:PORT on the first of them, where all processes meet; empty with one machine."""

    @property
    def address(self) -> tuple[str, str]:
        """Host and port; on one machine, a port that is free now."""
        host, _, port = self.meeting.rpartition(":")
        return (host, port) if self.meeting else (LOOPBACK, str(_free_port()))


def is_main() -> bool:
    """Whether this process is the first of its training, or the only one, by the environment variable RANK."""
    return os.environ.get("RANK", "0") == "0"


def launch(processes: int, arguments: Sequence[str], machines: Machines = Machines()) -> int:
    """Run this program in several processes that train together; returns the exit code of the first that fails, else 0.

    SIGTERM, SIGUSR1, SIGINT and SIGHUP are passed on to all of them, the last unless it is ignored (`nohup`). When one
    fails, the others get PATIENCE seconds to exit.

    Args:
        processes: How many on this machine.
        arguments: Command-line arguments of each.
        machines: Those that do the same.
    """
    host, port = machines.address
    environment = os.environ | {
        "WORLD_SIZE": str(processes * machines.count),
        "MASTER_ADDR": host,
        "MASTER_PORT": port,
        LAUNCHED: "1",
    }
    if host == LOOPBACK:
        environment.setdefault("GLOO_SOCKET_IFNAME", "lo")
    command, first = [*COMMAND, *arguments], processes * machines.number
    started = [
        subprocess.Popen(command, env=environment | {"RANK": str(first + local), "LOCAL_RANK": str(local)})
        for local in range(processes)
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


def join_step() -> None:
    """If `srun` has started this process as one of several, say so in the variables that torchrun would set.

    A batch script has SLURM_NTASKS too, and is one process: it has no step. MASTER_ADDR and MASTER_PORT may be given.
    Raises LaunchError where the first node's name cannot be found out.
    """
    told = os.environ
    size = told.get("SLURM_STEP_NUM_TASKS") or told.get("SLURM_NTASKS") or "1"
    is_step = "SLURM_STEP_ID" in told or "MASTER_ADDR" in told or told.get("SLURM_PROCID", "0") != "0"
    if "WORLD_SIZE" in told or "SLURM_PROCID" not in told or size == "1" or not is_step:
        return
    if "MASTER_ADDR" not in told:
        told["MASTER_ADDR"] = _first_node(told)
    if told["MASTER_ADDR"] == LOOPBACK:
        told.setdefault("GLOO_SOCKET_IFNAME", "lo")
    numbers = [int(told.get(name, "0")) for name in ("SLURM_JOB_ID", "SLURM_STEP_ID")]
    told.setdefault("MASTER_PORT", str(PORTS[(numbers[0] + 997 * numbers[1]) % len(PORTS)]))
    told |= {"RANK": told["SLURM_PROCID"], "WORLD_SIZE": size, "LOCAL_RANK": told.get("SLURM_LOCALID", "0")}


def _first_node(told: Mapping[str, str]) -> str:
    """Name of the first node of a SLURM job step, which is this machine if there is one."""
    nodes = told.get("SLURM_STEP_NODELIST") or told.get("SLURM_JOB_NODELIST") or told.get("SLURM_NODELIST", "")
    if nodes and not re.search(r"[][,]", nodes):
        return LOOPBACK
    try:
        done = subprocess.run(["scontrol", "show", "hostnames", nodes], capture_output=True, text=True, check=True)
        return done.stdout.split()[0]
    except (OSError, subprocess.SubprocessError, IndexError) as error:
        raise LaunchError(
            f"SLURM_STEP_NODELIST = {nodes!r}: scontrol does not say which nodes these are ({error}); set MASTER_ADDR "
            "to the first one's name, and MASTER_PORT"
        ) from error


def stay_with_starter() -> None:
    """End when the process that started this one dies, which after SIGKILL could not pass anything on.

    By SIGKILL if that is `launch`. By SIGTERM if it is torchrun, which dies of SIGUSR1: then the training is saved.
    """
    if LAUNCHED in os.environ:
        die_with_parent()
    elif TORCHRUN in os.environ:
        die_with_parent(signal.SIGTERM)


def die_with_parent(number: signal.Signals = signal.SIGKILL) -> None:
    """Have the kernel send this process a signal when its parent dies.

    Works on Linux only; elsewhere it does nothing.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number)

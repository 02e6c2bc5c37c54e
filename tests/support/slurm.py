"""A real SLURM of three nodes on this machine, from Debian's packages, for as long as a test needs it.

    with Cluster(folder) as cluster:
        cluster.run("sinfo")

Its daemons (munged, slurmctld and a slurmd per node, each with a port of its own) are children of this process and die
with it. No systemd and no cgroups: processes are tracked by their parents, and memory is sampled once a second. Nodes
say that they have more processors and memory than the machine, and two of them a GPU, which is a device file with
nothing behind it. The configuration must lie in /etc/slurm, since the executor drops SLURM_CONF; so this needs root,
and a machine without another SLURM.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self

from robust_transfer.machine.launch import die_with_parent

from support.paths import ROOT

CONFIGURATION = Path("/etc/slurm/slurm.conf")
GPUS = Path("/etc/slurm/gres.conf")
NODES = ("node1", "node2", "node3")
WITH_GPU = NODES[:2]
CPUS, MEMORY_MB = 16, 64_000
"""What each node says it has."""
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scontrol", "scancel", "srun", "sinfo")
MARK = "# Written by a test of robust-transfer; process"
PORT = 26817
"""Of the controller; the nodes have those after it."""
PLUGINS = ROOT / ".venv-slurm"
"""The executor, installed beside the environment: with SLURM's client there and no controller that answers, every
start of a Snakemake that has it waits ten seconds."""
TEMPLATE = """\
{mark} {process}
ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmctldPidFile={folder}/slurmctld.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdSpoolDir={folder}/%n
SlurmdPidFile={folder}/%n.pid
SlurmdLogFile={folder}/%n.log
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill
GresTypes=gpu
MinJobAge=3600
KillWait=10
ReturnToService=1
SchedulerParameters=bf_interval=1,sched_min_interval=100000
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
PartitionName=all Nodes=ALL Default=YES State=UP MaxTime=UNLIMITED PriorityTier=1
PartitionName=urgent Nodes=ALL State=UP MaxTime=UNLIMITED PriorityTier=2
PartitionName=short Nodes=ALL State=UP MaxTime=60 PriorityTier=1
{nodes}
"""


def lacking(plugins: bool = True) -> str:
    """Why there can be no such cluster here; empty if there can.

    Args:
        plugins: Whether Snakemake's executor is needed, too.
    """
    if missing := [program for program in PROGRAMS if shutil.which(program) is None]:
        return f"SLURM is not installed: no {', '.join(missing)} (Debian: slurmctld slurmd slurm-client munge)"
    if os.geteuid() != 0:
        return "only root can write /etc/slurm/slurm.conf, where SLURM's own programs look for it"
    if CONFIGURATION.exists() and not _is_left_over(CONFIGURATION):
        return f"{CONFIGURATION} is there: another SLURM"
    if plugins and not plugin_folder():
        return "Snakemake's executor for SLURM is not installed: make executors"
    return ""


def plugin_folder() -> Path | None:
    """Where the executor lies: beside the environment, or None if it is nowhere."""
    return PLUGINS if (PLUGINS / "snakemake_executor_plugin_slurm").is_dir() else None


class Cluster:
    """The cluster, once entered; its files lie in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._daemons: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Self:
        if reason := lacking(plugins=False):
            raise RuntimeError(reason)
        self._configure()
        try:
            self._start_munge()
            self.start_controller()
            for node in NODES:
                self.start_node(node)
            self.wait(
                lambda: self.run("sinfo", "-h", "-t", "idle", "-o", "%D").strip() == str(len(NODES)), "idle nodes"
            )
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def run(self, *command: str, check: bool = True) -> str:
        """One of SLURM's programs, and what it prints."""
        ran = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert not check or ran.returncode == 0, ran.stderr
        return ran.stdout

    def jobs(self, state: str = "all", folder: Path | None = None) -> dict[str, str]:
        """State of every job that SLURM remembers, by number.

        Args:
            state: Those in one of these states alone.
            folder: Those that were submitted there alone.
        """
        lines = [line.split() for line in self.run("squeue", "-h", f"--states={state}", "-o", "%i %T %Z").splitlines()]
        return {number: now for number, now, there in lines if folder is None or there == str(folder)}

    def start_controller(self) -> None:
        """Start slurmctld, and wait until it answers."""
        self._start("slurmctld", ["slurmctld", "-D"])
        self.wait(lambda: "UP" in self.run("scontrol", "ping", check=False), "slurmctld")

    def stop(self, name: str) -> None:
        """Kill a daemon: `slurmctld`, or a node by its name."""
        self._daemons[name].kill()
        self._daemons.pop(name).wait()

    def start_node(self, node: str) -> None:
        """Start a node's slurmd."""
        self._start(node, ["slurmd", "-D", "-N", node])

    def wait(self, reached: Callable[[], object], what: str, seconds: float = 60) -> None:
        """Wait for something that must come within so many seconds."""
        deadline = time.monotonic() + seconds
        while not reached():
            assert time.monotonic() < deadline, f"no {what} after {seconds} s\n{self.said()}"
            time.sleep(0.2)

    def said(self) -> str:
        """The ends of the logs of all daemons, for a message."""
        logs = sorted(self.folder.glob("*.log"))
        return "\n".join(f"{path.name}: {path.read_text(errors='replace')[-1500:]}" for path in logs)

    def _configure(self) -> None:
        for name in ("state", *NODES):
            (self.folder / name).mkdir(parents=True)
        key = self.folder / "munge.key"
        key.write_bytes(secrets.token_bytes(128))
        key.chmod(0o400)
        nodes = [
            f"NodeName={node} NodeHostname={socket.gethostname()} NodeAddr=127.0.0.1 Port={PORT + number} CPUs={CPUS} "
            f"RealMemory={MEMORY_MB}{' Gres=gpu:1' if node in WITH_GPU else ''}"
            for number, node in enumerate(NODES, 1)
        ]
        gpus = []
        for number, node in enumerate(WITH_GPU):
            device = self.folder / f"gpu{number}"
            os.mknod(device, 0o20666, os.makedev(195, 240 + number))  # NVIDIA's major number, no driver behind it
            gpus.append(f"NodeName={node} Name=gpu File={device}\n")
        text = TEMPLATE.format(
            mark=MARK,
            process=os.getpid(),
            host=socket.gethostname(),
            port=PORT,
            folder=self.folder,
            nodes="\n".join(nodes),
        )
        GPUS.write_text("".join(gpus))
        CONFIGURATION.write_text(text)

    def _start_munge(self) -> None:
        files = {"key-file": "munge.key", "socket": "munge.socket", "pid-file": "munge.pid", "log-file": "munge.log"}
        files["seed-file"] = "munge.seed"
        options = [f"--{option}={self.folder / name}" for option, name in files.items()]
        self._start("munged", ["munged", "--foreground", "--force", *options])
        self.wait((self.folder / "munge.socket").exists, "munged")

    def _start(self, name: str, command: Sequence[str]) -> None:
        with (self.folder / f"{name}.out.log").open("ab") as log:
            self._daemons[name] = subprocess.Popen(
                command,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C is for this process, which then stops them in order
                preexec_fn=die_with_parent,
            )

    def _stop(self) -> None:
        """Cancel what runs, stop the daemons and remove their configuration."""
        try:
            active = "pending,running,completing,suspended"
            if "slurmctld" in self._daemons and self.jobs(active):
                self.run("scancel", "--user=root", check=False)
                self.wait(lambda: not self.jobs(active), "end of the jobs")
        finally:
            for daemon in reversed(self._daemons.values()):
                daemon.terminate()
            for daemon in self._daemons.values():
                try:
                    daemon.wait(10)
                except subprocess.TimeoutExpired:
                    daemon.kill()
                    daemon.wait()
            CONFIGURATION.unlink(missing_ok=True)
            GPUS.unlink(missing_ok=True)


def environment(**variables: str) -> Mapping[str, str]:
    """This process's environment with the executor on Python's path."""
    path = os.pathsep.join(filter(None, [str(plugin_folder() or ""), os.environ.get("PYTHONPATH")]))
    return os.environ | {"PYTHONPATH": path} | variables


def _is_left_over(path: Path) -> bool:
    """Whether a test wrote the file whose process is no more."""
    first = path.read_text().partition("\n")[0]
    return first.startswith(MARK) and not Path(f"/proc/{first.rpartition(' ')[2]}").exists()


if (
    __name__ == "__main__"
):  # PYTHONPATH=tests python tests/support/slurm.py FOLDER: a cluster to try things on, until Ctrl-C
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    with Cluster(Path(sys.argv[1])) as shown:
        print(shown.run("sinfo"), flush=True)
        with suppress(KeyboardInterrupt):
            time.sleep(1e6)

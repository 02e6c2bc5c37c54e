"""One training on two machines, here two "nodes" of one host: by our launcher, by torchrun, and by SLURM's srun."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from robust_transfer.machine import launch
from robust_transfer.machine.launch import LaunchError, join_step
from robust_transfer.resuming.interruption import EXIT_CODE
from robust_transfer.store.entry import Entry
from support.kills import NEVER, assert_same_outputs, finish, said, saved_steps
from support.kills import start as fork
from support.prepared_datasets import new_entry, squares_entry
from support.processes import environment
from support.training import pretraining_settings

SETTINGS = pretraining_settings({"epochs": 4, "batch_size": 12, "batchnorm_group": 6, "learning_rate": 0.1})


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Entry:
    return squares_entry(tmp_path_factory.mktemp("source"))


def entry_of(source: Entry) -> Entry:
    return new_entry(source.path.parents[2], "pretraining", SETTINGS, source=source)


@pytest.fixture(scope="module")
def by_one(source: Entry) -> Entry:
    """What one process makes of two groups a batch."""
    entry = entry_of(source)
    finish(entry)
    return entry


class Node:
    """A machine's share of a training: a command in a process of its own."""

    def __init__(self, *command: str, log: Path, **variables: str) -> None:
        self.log = log
        running = '{"save_seconds": 0}'
        with log.open("a") as file:
            self.process = subprocess.Popen(
                [sys.executable, *command],
                env=environment(ROBUST_TRANSFER_RUNNING=running, **variables),
                stdout=file,
                stderr=file,
            )

    def said(self) -> str:
        return self.log.read_text()

    def end(self) -> int:
        return self.process.wait(timeout=120)


def stage(entry: Entry) -> list[str]:
    return ["-m", "robust_transfer", "pretraining", str(entry.path), "--device", "cpu"]


def our_own(entry: Entry, folder: Path) -> list[Node]:
    meet = ["--machines", "2", "--meet", f"127.0.0.1:{launch._free_port()}", "--machine"]
    return [Node(*stage(entry), *meet, str(number), log=folder / f"{number}.txt") for number in range(2)]


def torchrun(entry: Entry, folder: Path) -> list[Node]:
    rendezvous = ["--nnodes", "2", "--nproc-per-node", "1", "--master-addr", "127.0.0.1"]
    rendezvous += ["--master-port", str(launch._free_port()), "--node-rank"]
    return [
        Node("-m", "torch.distributed.run", *rendezvous, str(number), *stage(entry), log=folder / f"{number}.txt")
        for number in range(2)
    ]


def step(number: int, **more: str) -> dict[str, str]:
    """Environment variables of a process of a job step on two nodes, as SLURM 22.05 sets them."""
    return {
        **{"SLURM_JOB_ID": "29", "SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "2", "SLURM_NTASKS": "2"},
        **{"SLURM_STEP_NODELIST": "node[1-2]", "SLURM_PROCID": str(number), "SLURM_LOCALID": "0"},
        **more,
    }


def srun(entry: Entry, folder: Path) -> list[Node]:
    """As srun starts them; the first node's name is what a `scontrol` says."""
    scontrol = folder / "scontrol"
    scontrol.write_text('#!/bin/sh\n[ "$*" = "show hostnames node[1-2]" ] && echo 127.0.0.1 && echo node2\n')
    scontrol.chmod(0o755)
    path, port = f"{folder}:{os.environ['PATH']}", str(launch._free_port())
    return [
        Node(*stage(entry), log=folder / f"{number}.txt", PATH=path, MASTER_PORT=port, **step(number))
        for number in range(2)
    ]


WAYS = (our_own, torchrun, srun)


@pytest.fixture
def nodes() -> Iterator[list[Node]]:
    started: list[Node] = []
    yield started
    for node in started:
        node.process.kill()
        node.process.wait()


@pytest.mark.parametrize(
    "way", [WAYS[0], *(pytest.param(way, marks=pytest.mark.faults) for way in WAYS[1:])], ids=lambda way: way.__name__
)
def test_two_machines_make_the_same_bits_as_one_process(way, source, by_one, nodes, tmp_path) -> None:
    entry = entry_of(source)
    nodes += way(entry, tmp_path)
    assert [node.end() for node in nodes] == [0, 0], "".join(node.said() for node in nodes)
    assert_same_outputs(entry, by_one)
    nodes += (again := way(entry, tmp_path))  # finished before: on every machine
    assert [node.end() for node in again] == [0, 0], "".join(node.said() for node in again)
    assert "finished before" in nodes[0].said()


SIGNALS = [(way, number) for way in (our_own, srun, torchrun) for number in (signal.SIGTERM, signal.SIGUSR1)]


@pytest.mark.faults
@pytest.mark.parametrize(("way", "number"), SIGNALS)
def test_a_signal_to_one_machine_saves_and_ends_both(way, number, source, by_one, nodes, tmp_path) -> None:
    """With code 75, but for torchrun, whose own is 1 or the signal: its workers save all the same, and none stays."""
    entry = entry_of(source)
    nodes += way(entry, tmp_path)
    deadline = time.monotonic() + 100
    while saved_steps(entry) < 3:
        assert time.monotonic() < deadline
        assert nodes[0].process.poll() is None, nodes[0].said()
        time.sleep(0.005)
    nodes[1].process.send_signal(number)
    codes = [node.end() for node in nodes]
    if way is torchrun:
        assert 0 not in codes
    else:
        assert codes == [EXIT_CODE, EXIT_CODE], "".join(node.said() for node in nodes)
    with entry.locked():  # once no process trains any more
        assert "saved at step" in "".join(node.said() for node in nodes)
    assert not (entry.path / "card.json").exists()
    nodes += (again := way(entry, tmp_path))
    assert [node.end() for node in again] == [0, 0], "".join(node.said() for node in again)
    assert "going on at step" in again[0].said()
    assert_same_outputs(entry, by_one)


class TestStep:
    @pytest.fixture(autouse=True)
    def elsewhere(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in [*os.environ]:
            if name.startswith("SLURM_") or name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
                monkeypatch.delenv(name)
        monkeypatch.setattr(os, "environ", dict(os.environ))

    def joined(self, variables: Mapping[str, str]) -> dict[str, str]:
        os.environ |= variables
        before = set(os.environ)
        join_step()
        return {name: value for name, value in os.environ.items() if name not in before}

    def test_a_step_on_one_node_meets_on_this_machine(self) -> None:
        found = self.joined(step(1, SLURM_LOCALID="1", SLURM_STEP_NODELIST="node7"))
        assert found.pop("MASTER_PORT").isdigit()
        assert found.pop("GLOO_SOCKET_IFNAME", "lo") == "lo"
        assert found == {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "MASTER_ADDR": "127.0.0.1"}

    def test_steps_meet_at_ports_of_their_own_that_all_their_processes_know(self) -> None:
        ports = []
        for variables in (step(0), step(1), step(0, SLURM_STEP_ID="1"), step(0, SLURM_JOB_ID="30")):
            os.environ.pop("WORLD_SIZE", None)
            os.environ.pop("MASTER_PORT", None)
            self.joined(variables | {"MASTER_ADDR": "x"})
            ports.append(os.environ["MASTER_PORT"])
        assert ports[0] == ports[1]
        assert len(set(ports)) == 3

    def test_what_is_given_is_taken(self) -> None:
        given = {"MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "4000"}
        assert self.joined(step(1) | given) == {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "0"}

    def test_without_the_steps_own_variables_a_second_process_or_an_address_says_that_it_is_one(self) -> None:
        bare = {"SLURM_PROCID": "1", "SLURM_NTASKS": "2", "SLURM_LOCALID": "1", "SLURM_JOB_NODELIST": "node1"}
        assert self.joined(bare)["RANK"] == "1"
        for name in ("WORLD_SIZE", "RANK"):
            os.environ.pop(name)
        assert self.joined(bare | {"SLURM_PROCID": "0", "MASTER_ADDR": "node1"})["RANK"] == "0"

    @pytest.mark.parametrize(
        "variables",
        [
            {},
            {"SLURM_PROCID": "0", "SLURM_NTASKS": "4", "SLURM_LOCALID": "0", "SLURM_JOB_NODELIST": "node1"},  # a script
            step(0, SLURM_STEP_NUM_TASKS="1"),
            step(0, WORLD_SIZE="2", RANK="0"),
        ],
    )
    def test_others_are_alone(self, variables: Mapping[str, str]) -> None:
        assert self.joined(variables) == {}

    def test_without_scontrol_the_address_is_asked_for(self) -> None:
        os.environ["PATH"] = "/nowhere"
        with pytest.raises(LaunchError, match=r"'node\[1-2\]': scontrol does not say .* set MASTER_ADDR to the first"):
            self.joined(step(1))


def test_machines_must_say_where_they_meet(source: Entry) -> None:
    entry = entry_of(source)
    for options in (("--machine", "1"), ("--machine", "2", "--meet", "a:1"), ("--machine", "1", "--meet", "a")):
        assert fork(entry, "--machines", "2", *options, running=NEVER).wait() == 1
    assert said(entry).count("its number, 0 to 1, and on all of them the same HOST:PORT of machine 0") == 3

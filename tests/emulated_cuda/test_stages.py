"""Every stage that computes on a GPU, on emulated CUDA: it ends with the CPU's bits, whole or interrupted."""

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from robust_transfer import cli
from robust_transfer.configuration.load import validate
from robust_transfer.configuration.running import VARIABLE
from robust_transfer.dag.grid import plan
from robust_transfer.dag.wiring import Wiring
from robust_transfer.machine import launch
from robust_transfer.registry import STAGES
from robust_transfer.resuming.interruption import EXIT_CODE
from robust_transfer.store.entry import Entry, open_entry
from support.emulation import needs_emulation, output, start
from support.gpus import UUIDS, driver
from support.kills import EVERY_STEP, Process, assert_same_outputs, saved_steps
from support.kills import finish as finish_by_cpu
from support.prepared_datasets import new_entry
from support.style_networks import write_networks

pytestmark = needs_emulation

ATTACK = {"steps": 2, "random_start": True}
TRAINING = {"epochs": 1, "batch_size": 32, "precision": "bf16"}
ROBUST = {"architectures": ["resnet8_w4"], "eps": [0.5]}
EXPERIMENT: dict[str, Any] = {
    "experiment": "emulated",
    "input_size": 16,
    "datasets": {
        "objects": {
            "origin": {"kind": "shapes", "task": "objects", "train": 128, "test": 40, "side": 16, "classes": 12}
        },
        "coarse": {"origin": {"kind": "shapes", "task": "coarse", "train": 64, "test": 40, "side": 16}},
        "again": {"origin": {"kind": "shapes", "task": "coarse", "train": 10, "test": 20, "side": 16}},
    },
    "source": "objects",
    "targets": ["coarse"],
    "grid": [
        {**ROBUST, "modes": ["fixed-feature"], "protocols": ["frozen", "paper"], "gallery": True, "robustness": True},
        {**ROBUST, "modes": ["full-network"], "source_views": ["stylized"]},
    ],
    "pretraining": {"training": TRAINING | {"batchnorm_group": 16, "average_decay": 0.5}, "attack": ATTACK},
    "stylizing": {"method": "phase"},
    "evaluation": {"eps": [0.5], "attack": ATTACK},
    "cue_conflict": {"images": {"kind": "shapes", "images": 40}},
    "gallery": {
        "images": 8,
        "inversion": {"steps": 5, "step_size": 0.1},
        "visualisation": {"steps": 5, "step_size": 0.1},
    },
    "features": {"precision": "bf16"},
    "linear_heads": {"learning_rates": [0.1], "training": TRAINING},
    "finetuning": {"learning_rates": [0.01], "training": TRAINING},
    "robustness": {"eps": [0.5], "images": 20},
    "also_test_on": {"coarse": [{"dataset": "again"}]},
    "figures": {"draw": ["headline"]},
}
"""All stages on a network of a few weights and tens of images of 16 pixels."""
ON_GPU = [name for name, stage in STAGES.items() if stage.uses_gpu]


@dataclass(frozen=True)
class Made:
    """The entries of the stages that use a GPU, by the CPU and on emulated CUDA."""

    by_cpu: list[Entry]
    emulated: list[Entry]
    report: Mapping[str, Any]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    write_networks(folder)
    return folder


@pytest.fixture(scope="module")
def by_cpu(tmp_path_factory: pytest.TempPathFactory, weights: Path) -> list[Entry]:
    """The whole experiment, and the texture transfer that needs networks."""
    root = tmp_path_factory.mktemp("cpu")
    wiring = Wiring(plan(validate(EXPERIMENT | {"store": str(root / "store"), "results": str(root / "results")})))
    wiring.write_entries()
    entries = [open_entry(wiring.store / name) for name in wiring.grid.entries]
    networks = {"encoder": "vgg_normalised.pth", "decoder": "decoder.pth"}
    settings = {"method": "adain", "side": 16, "resize_ratio": 1.0, **networks}
    entries.append(new_entry(root, "stylizing", settings, dataset=entries[0]))

    def run() -> int:
        os.environ[VARIABLE] = json.dumps({"weights": str(weights)})
        return max(cli.main([entry.stage, str(entry.path), "--device", "cpu"]) for entry in entries)

    process = Process(run, root / "log.txt")
    assert process.wait() == 0, process.said()
    return entries


def unmade(entries: list[Entry], folder: Path) -> list[Entry]:
    """A copy of the store in which what a GPU is used for is not made yet; the entries of that."""
    store = folder / "store"
    shutil.copytree(entries[0].path.parents[1], store)
    found = [open_entry(store / entry.stage / entry.path.name) for entry in entries if entry.stage in ON_GPU]
    for entry in found:
        for path in entry.path.iterdir():
            if path.name != "entry.json":
                shutil.rmtree(path) if path.is_dir() else path.unlink()
    return found


@pytest.fixture(scope="module")
def made(by_cpu: list[Entry], weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Pretraining is interrupted once; then it goes on, and the other stages follow, on a card that they lock."""
    folder = tmp_path_factory.mktemp("cuda")
    entries, report = unmade(by_cpu, folder), folder / "report.json"
    told = {VARIABLE: json.dumps({**EVERY_STEP, "weights": str(weights)})}
    told |= {"ROBUST_TRANSFER_SLOTS": str(folder / "slots"), "CUDA_VISIBLE_DEVICES": UUIDS[1]}
    command = ["-m", "emulated_cuda.stages", "--driver", driver(folder / "driver", UUIDS[:2]), report]
    pretraining = entries[0]
    process = start(*command, pretraining.path, variables=told)
    deadline = time.monotonic() + 300
    while process.poll() is None and not saved_steps(pretraining) and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGTERM)
    output(process, status=EXIT_CODE)
    output(start(*command, *(entry.path for entry in entries), variables=told))
    return Made([entry for entry in by_cpu if entry.stage in ON_GPU], entries, json.loads(report.read_text()))


@pytest.mark.parametrize("stage", ON_GPU)
def test_a_stage_makes_on_cuda_what_it_makes_on_the_cpu(stage: str, made: Made) -> None:
    pairs = [pair for pair in zip(made.emulated, made.by_cpu, strict=True) if pair[0].stage == stage]
    assert pairs
    for entry, by_cpu in pairs:
        assert_same_outputs(entry, by_cpu)
        timing = json.loads((entry.path / "timing.json").read_text())
        assert timing["device"] == "cuda"
        assert timing["gpu"] == {"cards": UUIDS[1], "model": "Emulated H100"}


@pytest.fixture(scope="module")
def by_two(by_cpu: list[Entry], tmp_path_factory: pytest.TempPathFactory) -> Entry:
    """What two processes make of the pretraining on the CPU."""
    entry = unmade(by_cpu, tmp_path_factory.mktemp("two"))[0]
    finish_by_cpu(entry, "--processes", "2")
    return entry


@pytest.mark.faults
class TestTwoProcesses:
    """Each on a GPU: the one of its number, or the only one that it sees, which must not be the other's."""

    def start(self, entry: Entry, folder: Path, gpus: int, *cards: str) -> list[subprocess.Popen[str]]:
        """Start both, with these values of CUDA_VISIBLE_DEVICES, if any."""
        team = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(launch._free_port())}
        return [
            start(
                *("-m", "emulated_cuda.stages", folder / f"{rank}.json", entry.path),
                gpus=gpus,
                variables=team
                | {"GLOO_SOCKET_IFNAME": "lo", "RANK": str(rank), "LOCAL_RANK": str(rank)}
                | ({"CUDA_VISIBLE_DEVICES": cards[rank]} if cards else {}),
            )
            for rank in range(2)
        ]

    @pytest.mark.parametrize(("gpus", "cards"), [(2, ()), (1, ("0", "1"))], ids=["both seen", "one seen by each"])
    def test_they_make_what_two_make_on_the_cpu(
        self, gpus: int, cards: tuple[str, ...], by_cpu: list[Entry], by_two: Entry, tmp_path: Path
    ) -> None:
        entry = unmade(by_cpu, tmp_path)[0]
        for process in self.start(entry, tmp_path, gpus, *cards):
            output(process)
        timing = json.loads((entry.path / "timing.json").read_text())
        assert (timing["processes"], timing["device"]) == (2, "cuda")
        assert_same_outputs(entry, by_two)

    def test_one_gpu_for_both_is_refused(self, by_cpu: list[Entry], tmp_path: Path) -> None:
        entry = unmade(by_cpu, tmp_path)[0]
        ended = [process.communicate(timeout=300) for process in self.start(entry, tmp_path, 1, "0", "0")]
        assert "2 processes, and 1 GPUs are visible: each process needs its own" in ended[0][1]
        assert not (entry.path / "card.json").exists()

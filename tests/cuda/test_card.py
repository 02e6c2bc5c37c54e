"""On a real card: stages end with the same bits every time, and near the CPU's results. Skipped where there is none.

pytest tests/cuda
"""

import copy
import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from robust_transfer.attacks import L2
from robust_transfer.configuration.load import validate
from robust_transfer.configuration.running import VARIABLE
from robust_transfer.configuration.training import Attack, Precision, Recipe
from robust_transfer.dag.grid import plan
from robust_transfer.dag.wiring import Wiring
from robust_transfer.machine.devices import autocast, prepare
from robust_transfer.machine.distributed import ALONE
from robust_transfer.networks import folding
from robust_transfer.networks.build import build
from robust_transfer.networks.folding import Folded
from robust_transfer.networks.max_pool import MaxPool2d
from robust_transfer.resuming.interruption import EXIT_CODE
from robust_transfer.store.entry import Entry, open_entry
from robust_transfer.store.features import open_features
from robust_transfer.training.loop import Adversary, Training
from support.gpu_stages import EXPERIMENT, ON_GPU, TRAINING
from support.kills import assert_same_outputs, saved_steps
from support.processes import environment
from torch import Tensor

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "first": {"deterministic": True},
    "second": {"deterministic": True, "cuda_graphs": False},
    "interrupted": {"deterministic": True, "save_seconds": 0},
}
"""Stores by name, and the settings under `running` that they are made with."""
RUN = """
import sys
from robust_transfer import cli
for entry, device in zip(sys.argv[1::2], sys.argv[2::2]):
    if status := cli.main([entry.split("/")[-2], entry, "--device", device, "--threads", "1"]):
        sys.exit(status)
"""


def experiment(folder: Path) -> list[Entry]:
    """The entries of all stages; a batch of pretraining has two groups, one of fine-tuning has one."""
    changed = copy.deepcopy(EXPERIMENT)
    changed["pretraining"]["training"]["epochs"] = 2
    changed["finetuning"]["training"] = TRAINING | {"epochs": 4}
    wiring = Wiring(plan(validate(changed | {"store": str(folder / "store"), "results": str(folder / "results")})))
    wiring.write_entries()
    return [open_entry(wiring.store / name) for name in wiring.grid.entries]


def start(entries: list[Entry], folder: Path, settings: Mapping[str, Any]) -> subprocess.Popen[bytes]:
    """Run their stages in one process, with locks on cards of its own."""
    arguments = [text for one in entries for text in (str(one.path), "cuda" if one.stage in ON_GPU else "cpu")]
    told = environment(**{VARIABLE: json.dumps(dict(settings)), "ROBUST_TRANSFER_SLOTS": str(folder / "slots")})
    with open(folder / "log.txt", "ab") as log:
        return subprocess.Popen([sys.executable, "-c", RUN, *arguments], env=told, stdout=log, stderr=log)


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Entry]]:
    """All stages on the card: as it is, without graphs, and with a pretraining that was interrupted."""
    folders = {name: tmp_path_factory.mktemp(name) for name in SETTINGS}
    made = {name: experiment(folder) for name, folder in folders.items()}
    processes = {name: start(made[name], folders[name], SETTINGS[name]) for name in ("first", "second")}
    until_pretraining = made["interrupted"][:2]
    assert [one.stage for one in until_pretraining] == ["datasets", "pretraining"]
    process = start(until_pretraining, folders["interrupted"], SETTINGS["interrupted"])
    while process.poll() is None and not saved_steps(until_pretraining[1]):
        time.sleep(0.005)
    process.send_signal(signal.SIGTERM)
    assert process.wait() == EXIT_CODE, (folders["interrupted"] / "log.txt").read_text()
    processes["interrupted"] = start(made["interrupted"], folders["interrupted"], SETTINGS["interrupted"])
    for name, each in processes.items():
        assert each.wait() == 0, (folders[name] / "log.txt").read_text()
    return made


@pytest.mark.parametrize("other", ["second", "interrupted"])
@pytest.mark.parametrize("stage", ON_GPU)
def test_every_stage_ends_with_the_same_bits(stage: str, other: str, stores: dict[str, list[Entry]]) -> None:
    pairs = [pair for pair in zip(stores["first"], stores[other], strict=True) if pair[0].stage == stage]
    assert pairs
    for one, another in pairs:
        assert_same_outputs(one, another)
        gpu = json.loads((one.path / "timing.json").read_text())["gpu"]
        assert gpu["model"] == torch.cuda.get_device_name()
        assert gpu["cards"].startswith(("GPU-", "MIG-"))


def test_features_are_the_cpus(stores: dict[str, list[Entry]], tmp_path: Path) -> None:
    """In bf16, from the same weights."""
    entry = next(one for one in stores["first"] if one.stage == "features")
    shutil.copytree(entry.path.parents[1], tmp_path / "store")
    by_cpu = open_entry(tmp_path / "store" / "features" / entry.path.name)
    for path in by_cpu.path.iterdir():
        if path.name != "entry.json":
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    command = [sys.executable, "-m", "robust_transfer", "features", str(by_cpu.path), "--device", "cpu"]
    subprocess.run(command, env=environment(), check=True)
    for name in ("train", "test"):
        (found, labels), (expected, labels_by_cpu) = (open_features(one, name) for one in (entry, by_cpu))
        assert np.array_equal(labels, labels_by_cpu)
        difference = np.linalg.norm(np.float64(found) - np.float64(expected))
        assert difference < 0.02 * np.linalg.norm(np.float64(expected))


@pytest.mark.parametrize(("architecture", "side"), [("resnet8_w16", 32), ("resnet18", 64), ("resnet50", 224)])
def test_a_fused_network_rounds_no_more_than_another(
    architecture: str, side: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An attack's network in bf16: its logits and gradients are as far from float32's as those of a plain one."""
    on = prepare("cuda", 1, "bf16")
    network = build(architecture, 10).to(on, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    images = torch.rand(8, 3, side, side, device=on).contiguous(memory_format=torch.channels_last)
    expected = _logits_and_gradient(network, images, "fp32")
    fused = _logits_and_gradient(Folded(network), images, "bf16")
    with monkeypatch.context() as changed:
        changed.setattr(folding, "fuse", lambda body: None)
        changed.setattr(folding, "supported", lambda convolution: False)
        plain = _logits_and_gradient(Folded(network), images, "bf16")
    for one, other, exact in zip(fused, plain, expected, strict=True):
        assert 0 < (one - exact).norm() < 1.5 * (other - exact).norm()


def _logits_and_gradient(network: torch.nn.Module, images: Tensor, precision: Precision) -> tuple[Tensor, Tensor]:
    x = images.clone().requires_grad_(True)
    with autocast(precision, images.device):
        if isinstance(network, Folded):
            network.refresh()
        logits = network(x).float()
    (gradient,) = torch.autograd.grad(logits.square().sum(), x)
    return logits.detach(), gradient


def test_max_pooling_is_torchs() -> None:
    x = torch.rand(64, 64, 112, 112, device="cuda", dtype=torch.bfloat16).contiguous(memory_format=torch.channels_last)
    x.requires_grad_(True)
    y, expected = MaxPool2d(3, 2, 1)(x), torch.nn.functional.max_pool2d(x, 3, 2, 1)
    assert torch.equal(y, expected)
    given = torch.randn_like(y)
    spread, by_torch = (torch.autograd.grad(one, x, given)[0] for one in (y, expected))
    torch.testing.assert_close(spread, by_torch, rtol=0.01, atol=0.01)


@pytest.mark.parametrize("use_best", [False, True])
def test_recorded_steps_have_the_bits_of_others(use_best: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight steps with random starts, of which the last five are replayed."""
    ended = []
    for recorded in (True, False):
        monkeypatch.setenv(VARIABLE, json.dumps({"cuda_graphs": recorded, "deterministic": True}))
        on = prepare("cuda", 1, "bf16")
        network = build("resnet18_cifar", 10).to(on, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
        training = Training(network, Recipe(batch_size=32, precision="bf16"), 0, ALONE, 0.05, on)
        attack = Attack(steps=2, random_start=True, restarts=2, use_best=use_best)
        adversary = Adversary(network, L2(0.5), attack, 0, 32)
        generator = torch.Generator().manual_seed(0)
        for step in range(8):
            images = torch.rand(32, 3, 32, 32, generator=generator).to(on, memory_format=torch.channels_last)
            labels = torch.randint(0, 10, (32,), generator=generator).to(on)
            with autocast("bf16", on):
                perturbed = adversary(images, labels, 0, torch.arange(32, device=on) + 32 * step)
            training.learn(iter([(perturbed, labels)]), images=32, groups=1, rate=0.05)
        ended.append([value.clone() for value in network.state_dict().values()] + [training.loss])
    torch.use_deterministic_algorithms(False)
    assert all(torch.equal(one, other) for one, other in zip(*ended, strict=True))

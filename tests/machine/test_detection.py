"""Whether torch can use a GPU: what is said where it cannot, and on emulated CUDA that it does, on the card it took.

The emulation (a CUDA runtime whose memory is the host's) is looked for in the folder that EMULATED_CUDA names, by
default beside the checkout.
"""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from machine.test_several_machines import SETTINGS
from robust_transfer.machine import cards, launch
from robust_transfer.machine.detection import DeviceError, resolved
from robust_transfer.store.entry import Entry
from support.gpus import UUIDS, driver
from support.kills import assert_same_outputs, finish
from support.paths import ROOT
from support.prepared_datasets import new_entry, squares_entry
from support.processes import environment

EMULATION = Path(os.environ.get("EMULATED_CUDA", ROOT.parent / "shared" / "emulated-cuda"))
emulated = pytest.mark.skipif(
    not (EMULATION / "emulated").exists() or torch.cuda.is_available(),
    reason=f"needs emulated CUDA in {EMULATION} (EMULATED_CUDA), and no real GPU",
)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine with one card, by its driver's files."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    folder = driver(tmp_path / "driver", UUIDS[:1])
    monkeypatch.setattr(cards, "DRIVER", folder)
    return folder


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")
class TestWithoutAGpu:
    def test_a_machine_without_one_says_nothing(self, caplog: pytest.LogCaptureFixture) -> None:
        assert resolved("auto") == "cpu"
        assert not caplog.text

    def test_a_driver_that_torch_cannot_use_is_said(self, machine: Path, caplog: pytest.LogCaptureFixture) -> None:
        assert resolved("auto") == "cpu"
        assert f"working on the CPU, although there is a GPU: torch {torch.__version__} " in caplog.text

    def test_a_driver_that_is_too_old_is_named_with_the_one_that_is_needed(
        self, machine: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        driver(machine.parent / "old", UUIDS[:1], version="470.42.01")
        monkeypatch.setattr(cards, "DRIVER", machine.parent / "old")
        monkeypatch.setattr(cards, "cuda_of_torch", lambda: "13.2")
        assert resolved("auto") == "cpu"
        assert "the NVIDIA driver is 470.42.01, and torch for CUDA 13.2 needs 580.65 or later" in caplog.text
        with pytest.raises(DeviceError, match=r"--device cuda: the NVIDIA driver is 470.* --device cpu does without"):
            resolved("cuda")

    @pytest.mark.parametrize("told", ["", " ", "-1", "NoDevFiles"])
    def test_hidden_ones_are_not_used_and_not_missed(
        self, told: str, machine: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", told)
        assert resolved("auto") == "cpu"
        assert not caplog.text
        with pytest.raises(DeviceError, match=f"CUDA_VISIBLE_DEVICES = '{told}' hides all GPUs"):
            resolved("cuda")


def test_a_card_that_torch_has_no_code_for_is_named(
    machine: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_75", "sm_90a", "sm_120", "compute_120"])
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "Tesla P100")
    for capability, device in (((6, 0), "cpu"), ((7, 5), "cuda"), ((12, 0), "cuda")):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _, given=capability: given)
        assert resolved("auto") == device
    assert "Tesla P100 has compute capability 6.0, and torch" in caplog.text
    assert "serves 7.5 and later; leave it out of CUDA_VISIBLE_DEVICES" in caplog.text


def run(
    code: str, *arguments: object, gpus: int = 1, variables: Mapping[str, str] | None = None
) -> subprocess.Popen[str]:
    """Start code under the emulation, with so many cards."""
    command = ["sh", str(EMULATION / "emulated"), sys.executable, "-c", code, *map(str, arguments)]
    pipe, told = subprocess.PIPE, environment(FAKE_GPUS=str(gpus), EMULATION=str(EMULATION), **(variables or {}))
    return subprocess.Popen(command, env=told, stdout=pipe, stderr=pipe, text=True)


def printed(process: subprocess.Popen[str]) -> str:
    out, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    return out


RESOLVE = """
import sys
from collections.abc import Mapping
from pathlib import Path
from robust_transfer.machine import cards, detection
cards.DRIVER = Path(sys.argv[1])
print(detection.resolved("auto"), detection.described() if len(sys.argv) > 2 else "")
"""
STAGE = """
import os, sys
from collections.abc import Mapping
from pathlib import Path
sys.path.insert(0, os.environ["EMULATION"])
import run  # has gloo take NCCL's place
from robust_transfer.cli import main
from robust_transfer.machine import cards
cards.DRIVER = Path(sys.argv[1])
with run.emulate.MODE:
    sys.exit(main(sys.argv[2:]))
"""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Entry:
    return squares_entry(tmp_path_factory.mktemp("source"))


@emulated
class TestEmulated:
    def test_torch_is_believed_where_the_driver_has_no_folder(self, tmp_path: Path) -> None:
        """As on WSL2."""
        assert printed(run(RESOLVE, tmp_path, "described")).startswith("cuda {'cards': 'all', 'model': 'NVIDIA H100")

    def test_torch_is_believed_where_the_driver_shows_a_card_that_it_does_not_find(self, machine: Path) -> None:
        assert printed(run(RESOLVE, machine, gpus=0)) == "cpu \n"

    def entry(self, source: Entry) -> Entry:
        training = SETTINGS["training"] | {"epochs": 1}
        return new_entry(source.path.parents[2], "pretraining", SETTINGS | {"training": training}, source=source)

    def test_a_stage_takes_a_card_and_records_it(self, source: Entry, tmp_path: Path) -> None:
        entry, by_cpu = self.entry(source), self.entry(source)
        folder = driver(tmp_path / "driver", UUIDS[:2])
        told = {"ROBUST_TRANSFER_SLOTS": str(tmp_path / "slots"), "CUDA_VISIBLE_DEVICES": f"{UUIDS[1]}"}
        printed(run(STAGE, folder, "pretraining", entry.path, variables=told))
        timing = json.loads((entry.path / "timing.json").read_text())
        assert timing["device"] == "cuda"
        assert timing["gpu"]["cards"] == UUIDS[1]
        assert timing["gpu"]["model"].startswith("NVIDIA H100")
        finish(by_cpu)
        assert_same_outputs(entry, by_cpu)

    @pytest.mark.parametrize(
        ("seen", "shared"),
        [pytest.param(2, False, marks=pytest.mark.faults), (1, False), pytest.param(1, True, marks=pytest.mark.faults)],
    )
    def test_each_process_of_two_has_a_gpu(self, seen: int, shared: bool, source: Entry, tmp_path: Path) -> None:
        """The one of its number, or the only one that it sees, which must not be the other's."""
        entry = self.entry(source)
        team = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(launch._free_port())}
        team["GLOO_SOCKET_IFNAME"] = "lo"
        processes = []
        for rank in ("0", "1"):
            own = {"CUDA_VISIBLE_DEVICES": "0" if shared else rank} if seen == 1 else {}
            variables = team | own | {"RANK": rank, "LOCAL_RANK": rank}
            processes.append(run(STAGE, tmp_path, "pretraining", entry.path, gpus=seen, variables=variables))
        errors = [process.communicate(timeout=300)[1] for process in processes]
        if shared:
            assert [process.returncode for process in processes] == [1, 1]
            assert "2 processes, and 1 GPUs are visible: each process needs its own" in errors[0]
        else:
            assert [process.returncode for process in processes] == [0, 0], errors
            assert json.loads((entry.path / "timing.json").read_text())["processes"] == 2

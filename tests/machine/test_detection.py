"""Whether torch can use a GPU: what is said where it cannot, and on emulated CUDA that it does."""

from pathlib import Path

import pytest
import torch
from robust_transfer.machine import cards
from robust_transfer.machine.detection import DeviceError, resolved
from support.emulation import needs_emulation, output, start
from support.gpus import UUIDS, driver


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


RESOLVE = """
import sys
from pathlib import Path
from robust_transfer.machine import cards, detection
cards.DRIVER = Path(sys.argv[1])
print(detection.resolved("auto"), detection.described() if len(sys.argv) > 2 else "")
"""


@needs_emulation
class TestEmulated:
    def test_torch_is_believed_where_the_driver_has_no_folder(self, tmp_path: Path) -> None:
        """As on WSL2."""
        printed = output(start("-c", RESOLVE, tmp_path, "described"))
        assert printed == "cuda {'cards': 'all', 'model': 'Emulated H100'}\n"

    def test_torch_is_believed_where_the_driver_shows_a_card_that_it_does_not_find(self, machine: Path) -> None:
        assert output(start("-c", RESOLVE, machine, gpus=0)) == "cpu \n"

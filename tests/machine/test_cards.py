"""What GPUs there are: read from a driver's files as it writes them, from `nvidia-smi -L`, and from the environment."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from robust_transfer.machine import cards
from robust_transfer.machine.cards import Card, visible
from support.gpus import UUIDS, driver

A, B, C = UUIDS[:3]
MIG = [f"MIG-{number}1111111-2222-3333-4444-555555555555" for number in range(3)]
LISTED = f"""\
GPU 0: NVIDIA A100-SXM4-40GB (UUID: {A})
  MIG 3g.20gb     Device  0: (UUID: {MIG[0]})
  MIG 3g.20gb     Device  1: (UUID: {MIG[1]})
GPU 1: NVIDIA A100-SXM4-40GB (UUID: {B})
"""


def of(monkeypatch: pytest.MonkeyPatch, folder: Path, uuids: Sequence[str], **told: str) -> list[tuple[str, str]]:
    """Name and key of each card, on a machine with these cards and with these environment variables."""
    monkeypatch.setattr(cards, "DRIVER", driver(folder, uuids))
    return [(card.name, card.key) for card in visible(told)]


class TestVisible:
    def test_without_a_driver_there_is_none(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setattr(cards, "DRIVER", tmp_path)
        monkeypatch.setattr(cards, "SMI", ("/nowhere/nvidia-smi",))
        assert visible({}) == visible({"CUDA_VISIBLE_DEVICES": "0,1"}) == ()

    def test_a_machines_cards_are_named_by_uuid(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        assert of(monkeypatch, tmp_path, [A, B]) == [(A, A), (B, B)]

    @pytest.mark.parametrize(
        ("told", "expected"),
        [
            ("", []),
            (" ", []),
            ("-1", []),
            ("NoDevFiles", []),
            ("1", [("1", B)]),
            ("2,0", [("2", C), ("0", A)]),
            ("0,-1,1", [("0", A)]),
            ("0,3,1", [("0", A)]),
            ("0,0", [("0", A)]),
            (f"{B},{A}", [(B, B), (A, A)]),
            (B[:10], [(B[:10], B)]),
            (f"0,{A}", [("0", A)]),
            (MIG[0], [(MIG[0], MIG[0])]),
        ],
    )
    def test_a_list_is_read_as_cuda_reads_it(
        self, told: str, expected: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        assert of(monkeypatch, tmp_path, [A, B, C], CUDA_VISIBLE_DEVICES=told) == expected

    def test_an_index_among_different_cards_is_known_in_the_order_of_the_bus_alone(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setattr(cards, "DRIVER", driver(tmp_path, [A, B], models=["NVIDIA T4", "NVIDIA A100"]))
        told = {"CUDA_VISIBLE_DEVICES": "1"}
        assert visible(told) == (Card("1", "index-1"),)
        assert visible(told | {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}) == (Card("1", B),)

    def test_a_driver_that_does_not_say_uuids(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        unknown = "GPU-????????-????-????-????-????????????"
        assert of(monkeypatch, tmp_path, [unknown, unknown]) == [("0", "index-0"), ("1", "index-1")]


class TestListed:
    @pytest.fixture(autouse=True)
    def smi(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        program = tmp_path / "nvidia-smi"
        program.write_text(f"#!/bin/sh\ncat <<'END'\n{LISTED}END\n")
        program.chmod(0o755)
        monkeypatch.setattr(cards, "SMI", ("/nowhere/nvidia-smi", str(program)))
        cards._listed_by_smi.cache_clear()

    def names(self, **told: str) -> list[str]:
        return [card.name for card in visible(told)]

    def test_a_split_card_counts_as_its_instances(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        folder = driver(tmp_path / "driver", [A, B])
        (folder / "capabilities" / "gpu0" / "mig" / "gi1").mkdir(parents=True)
        monkeypatch.setattr(cards, "DRIVER", folder)
        assert self.names() == [MIG[0], MIG[1], B]
        assert [card.is_mig for card in visible({})] == [True, True, False]
        assert self.names(CUDA_VISIBLE_DEVICES=MIG[1]) == [MIG[1]]

    def test_wsl_has_no_folder_of_the_driver(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setattr(cards, "DRIVER", tmp_path / "nowhere")
        assert self.names() == []
        (tmp_path / "dxg").touch()
        monkeypatch.setattr(cards, "WSL", tmp_path / "dxg")
        assert self.names() == [MIG[0], MIG[1], B]


class TestDriver:
    @pytest.mark.parametrize(
        ("version", "cuda", "fault"),
        [
            ("580.95.05", "13.2", ""),
            ("580.65", "13.2", ""),
            ("535.104.05", "13.2", "driver is 535.104.05, and torch for CUDA 13.2 needs 580.65 or later: update"),
            ("535.104.05", "12.8", ""),
            ("470.42", "12.8", "needs 525.60 or later"),
            ("580.95.05", "", ""),
            ("600.1", "14.0", ""),
        ],
    )
    def test_one_that_is_too_old_is_named(
        self, version: str, cuda: str, fault: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setattr(cards, "DRIVER", driver(tmp_path, [A], version=version))
        monkeypatch.setattr(cards, "cuda_of_torch", lambda: cuda)
        assert cards.driver_version() == version
        assert fault in cards.driver_fault()
        assert bool(fault) == bool(cards.driver_fault())

    def test_the_open_kernel_modules_say_it_in_other_words(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        said = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  575.57.08  Release Build  (root@x)  Sat\n"
        (tmp_path / "version").write_text(said)
        monkeypatch.setattr(cards, "DRIVER", tmp_path)
        assert cards.driver_version() == "575.57.08"

    def test_torchs_cuda_is_read_without_importing_it(self) -> None:
        torch = pytest.importorskip("torch")
        assert cards.cuda_of_torch() == (torch.version.cuda or "")


def test_the_environment_is_not_changed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    told: Mapping[str, str] = {"CUDA_VISIBLE_DEVICES": "1"}
    monkeypatch.setattr(cards, "DRIVER", driver(tmp_path, [A, B]))
    visible(told)
    assert told == {"CUDA_VISIBLE_DEVICES": "1"}

"""Cores and memory beside a GPU: counted by hand from what decoders deliver and what a card takes."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple, cast

import pytest
import yaml
from robust_transfer.configuration.load import validate
from robust_transfer.configuration.running import Running
from robust_transfer.dag.engine import Engine
from robust_transfer.dag.grid import Grid, PlannedEntry, plan
from robust_transfer.planning.command import run_plan
from robust_transfer.planning.feeding import (
    FEATURES_RESIDENT_MB,
    UNKNOWN,
    WORKER_MB,
    Feeding,
    cores_beside_gpu,
    images_mb,
    rates_of_card,
)
from robust_transfer.planning.images import ImageCounts
from robust_transfer.planning.rates import decoding_seconds, gpu_names, network_seconds, published_rates
from robust_transfer.planning.work import Lookup, is_streamed, work_of
from support.gpus import UUIDS, driver
from support.processes import environment

IMAGENET = ImageCounts(1_281_167, 50_000, None, 1000, 97_000, raw=False)


def grid(**over: Any) -> Grid:
    """An ImageNet-like source, and a target, whose sizes `counts` says."""
    folders = {name: {"origin": {"kind": "folder", "path": f"nowhere/{name}"}} for name in ("imagenet", "birds")}
    settings: dict[str, Any] = {
        "experiment": "fed",
        "input_size": 224,
        "datasets": folders,
        "source": "imagenet",
        "targets": ["birds"],
        "grid": [{"architectures": ["resnet50"], "eps": [0, 3], "modes": ["full-network", "fixed-feature"]}],
        "pretraining": {
            "recipe": "paper",
            "training": {"precision": "bf16", "augmentation": "resized-crop-flip"},
            "attack": {"steps": 3, "use_best": False},
        },
        "finetuning": {
            "learning_rates": [0.01],
            "training": {"precision": "bf16", "augmentation": "resized-crop-flip"},
        },
    }
    return plan(validate(settings | over))


def entry_of(planned: Grid, stage: str, part: str) -> PlannedEntry:
    return next(entry for entry in planned.stage(stage).values() if part in entry.name)


def counts(entry: PlannedEntry) -> ImageCounts:
    return IMAGENET


def always(counted: ImageCounts | None) -> Lookup:
    """The same counts for every dataset."""
    return lambda entry: counted


def cores(planned: Grid, stage: str, part: str, card: str = "H100", most: int = 64) -> int:
    return cores_beside_gpu(entry_of(planned, stage, part), counts, published_rates(card), most)


def test_what_a_core_decodes_is_what_workers_were_measured_at() -> None:
    """`loading/streaming.py`: 340 images/s of 97 kB, and 4,100 of 2 kB."""
    for size, measured in ((97_000, 340), (2_000, 4_100)):
        counted = ImageCounts(1000, 1, None, 2, size, raw=False)
        work = work_of(entry_of(grid(), "features", "eps0_"), always(counted))
        assert work.decoded / decoding_seconds(work) == pytest.approx(measured, rel=0.05)


def test_one_core_is_the_jobs_own_and_the_others_decode_what_the_card_takes() -> None:
    planned = grid()
    entry = entry_of(planned, "pretraining", "eps3")
    work, rates = work_of(entry, counts), published_rates("H100")
    takes = 1_281_167 * 90 / network_seconds(work, rates)
    decodes = work.decoded / decoding_seconds(work)
    assert 700 < takes < 900
    assert 310 < decodes < 360
    assert cores(planned, "pretraining", "eps3") == 1 + 3 == 1 + -(-takes // decodes)
    assert cores(planned, "pretraining", "eps0_") == 1 + 8  # 2,600 images/s
    assert cores(planned, "pretraining", "eps3", "V100") == 1 + 1


def test_a_smaller_network_needs_more_and_gets_what_there_may_be() -> None:
    small = grid(grid=[{"architectures": ["resnet18"], "eps": [0], "modes": ["full-network"]}])
    assert cores(small, "finetuning", "resnet18") > 16
    assert cores(small, "finetuning", "resnet18", most=8) == 8


def test_images_that_are_decoded_once_and_raw_pixels_need_no_core_for_it() -> None:
    planned = grid(input_size=32, preprocessing={"resize_ratio": 1.0},
                   pretraining={"recipe": "paper", "training": {"augmentation": "crop-flip"}})  # fmt: skip
    entry, rates = entry_of(planned, "pretraining", "eps3"), published_rates("H100")
    small = ImageCounts(50_000, 10_000, None, 10, 2_400, raw=False)
    raw = ImageCounts(50_000, 10_000, None, 10, 3 * 32**2, raw=True)
    assert cores_beside_gpu(entry, always(small), rates, 16) == 1  # 12 s of 160
    assert cores_beside_gpu(entry, always(raw), rates, 16) == 1


def test_a_dataset_of_unknown_size_gets_a_number_that_says_so() -> None:
    entry, rates = entry_of(grid(), "pretraining", "eps3"), published_rates("H100")
    assert cores_beside_gpu(entry, always(None), rates, 64) == UNKNOWN
    assert cores_beside_gpu(entry, always(None), rates, 4) == 4


def test_sets_that_are_too_large_to_keep_are_decoded_in_each_epoch() -> None:
    once, anew = (
        grid(pretraining={"recipe": "paper", "training": {"epochs": 10, "augmentation": "flip"}}, input_size=side)
        for side in (32, 224)
    )
    assert not is_streamed("flip", 1_281_167, 32)  # 3.8 GB
    for planned, readings in ((once, 1), (anew, 10)):
        work = work_of(entry_of(planned, "pretraining", "eps0_"), counts)
        assert work.decoded == 1_281_167 * readings


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA H100 PCIe", "H100-PCIe"),
        ("NVIDIA A100-SXM4-80GB", "A100"),
        ("NVIDIA A100-PCIE-40GB", "A100-40GB-PCIe"),
        ("NVIDIA GeForce RTX 3090", "RTX-3090"),
        ("NVIDIA RTX 6000 Ada Generation", "RTX-6000-Ada"),
        ("Quadro RTX 8000", "RTX-8000"),
        ("Tesla V100-SXM2-16GB", "V100"),
        ("NVIDIA H200", "H200"),
        ("NVIDIA B300", "H100"),
        ("", "H100"),
    ],
)
def test_a_card_is_known_by_what_its_driver_calls_it_else_the_fastest_is_assumed(model: str, name: str) -> None:
    assert rates_of_card(model).name == name
    assert name in gpu_names()


class Machine:
    """What Feeding asks of the engine."""

    is_local = True

    def __init__(self, cores: int | None, gpu: int = 1) -> None:
        self.cores, self._gpu = cores, gpu

    def resource(self, rule: str, name: str) -> int:
        return self._gpu


class Cluster(Machine):
    is_local = False


class Wildcards(NamedTuple):
    entry: str


@pytest.mark.parametrize(
    ("engine", "running", "cards", "expected"),
    [
        (Machine(64), {}, 0, 1),
        (Machine(64), {}, 1, 16),
        (Machine(64), {"cores_per_gpu": 12}, 1, 12),
        (Machine(64), {}, 8, 8),
        (Machine(64, gpu=4), {}, 8, 32),
        (Machine(4), {}, 8, 1),
        (Machine(64), {"jobs_per_gpu": {"finetuning": 2}}, 8, 4),
        (Machine(None), {}, 1, 16),
        (Cluster(None), {}, 0, 16),
        (Cluster(None), {"cores_per_gpu": 6}, 0, 6),
        (Cluster(None, gpu=2), {"cores_per_gpu": 6}, 0, 12),
    ],
)
def test_a_job_has_no_more_than_its_part_of_the_machine(
    engine: Machine, running: dict[str, Any], cards: int, expected: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "driver").mkdir()
    monkeypatch.setattr("robust_transfer.machine.cards.DRIVER", driver(tmp_path / "driver", UUIDS[:cards]))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr("robust_transfer.planning.feeding.counting", lambda store: counts)
    parts = [{"architectures": ["resnet18"], "eps": [0], "modes": ["full-network"]}]
    small = grid(grid=parts, running=running)
    feeding = Feeding(small, cast(Engine, engine))
    job = Wildcards(entry_of(small, "finetuning", "resnet18").folder)
    assert feeding.threads("finetuning")(job) == expected
    memory = feeding.memory("finetuning", 4000)
    assert memory(job, 1) == 4000 + (WORKER_MB * expected if cards or isinstance(engine, Cluster) else 0)
    assert memory(job, 3) == 2 * memory(job, 1)


def test_memory_is_that_of_pixels_or_of_workers() -> None:
    planned = grid()
    training = entry_of(planned, "pretraining", "eps3")
    assert images_mb(training, counts, Running(), 5) == 5 * WORKER_MB
    assert images_mb(training, counts, Running(workers=2), 5) == 2 * WORKER_MB
    kept = entry_of(grid(input_size=32, pretraining={"recipe": "paper", "training": {"augmentation": "flip"}}),
                    "pretraining", "eps0_")  # fmt: skip
    assert images_mb(kept, counts, Running(), 5) == 3754  # of 1,281,167 × 32 × 32 × 3 bytes
    assert images_mb(kept, counts, Running(resident_mb=3000), 5) == 5 * WORKER_MB
    assert images_mb(entry_of(planned, "evaluation", "eps3"), counts, Running(), 5) == 0  # reads block after block


def test_features_keep_as_little_as_their_stage_does() -> None:
    from robust_transfer.stages import features

    assert features.RESIDENT_MB == FEATURES_RESIDENT_MB
    entry = entry_of(grid(input_size=32), "features", "eps0_")
    small = ImageCounts(50_000, 10_000, None, 10, 2_400, raw=False)
    assert images_mb(entry, always(small), Running(), 3) == 176  # 60,000 × 32 × 32 × 3 bytes
    assert images_mb(entry, counts, Running(), 3) == 3 * WORKER_MB


def test_plan_says_how_many_cores_jobs_ask_for(tmp_path: Path) -> None:
    imagenet = {"origin": {"kind": "catalogue", "dataset": "imagenet"}}
    coarse = {"origin": {"kind": "shapes", "task": "coarse", "train": 100, "test": 40}}
    described = {
        "experiment": "fed",
        "input_size": 64,
        "store": str(tmp_path / "store"),
        "datasets": {"imagenet": imagenet, "coarse": coarse},
        "source": "imagenet",
        "targets": ["coarse"],
        "grid": [{"architectures": ["resnet18"], "eps": [0], "modes": ["fixed-feature"]}],
        "pretraining": {"recipe": "paper", "training": {"precision": "bf16"}},
        "running": {"cores_per_gpu": 6},
    }
    (tmp_path / "experiment.yaml").write_text(yaml.safe_dump(described))
    said = json.loads(run_plan([tmp_path / "experiment.yaml"], gpus=["H100", "V100"], in_json=True))
    assert said["stages"]["pretraining"]["cores_beside_gpu"].keys() == {"H100", "V100"}
    assert 1 <= said["stages"]["pretraining"]["cores_beside_gpu"]["V100"] <= 6
    assert said["stages"]["datasets"]["cores_beside_gpu"] == {}
    shown = run_plan([tmp_path / "experiment.yaml"], gpus=["H100"])
    assert " cores " in shown
    assert "running.cores_per_gpu" in shown
    assert "H100: with so many cores decoding takes longer than the GPU, in all pretraining" in " ".join(shown.split())


def test_planning_it_imports_no_torch() -> None:
    code = "import sys; import robust_transfer.planning.feeding; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment(), check=True)
    assert done.stdout == "False\n"

"""A miniature of the paper, offline: experiments/paper.yaml itself, on a handful of images in each dataset's own layout
and on checkpoints in the format of the released ones, from originals to figures.
"""

import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
import yaml
from robust_transfer.configuration.weights import released_file
from robust_transfer.registry import FIGURES
from support.catalogue_files import make
from support.paths import ROOT

TARGETS = (
    *("aircraft", "birdsnap", "cifar10", "cifar100", "caltech101", "caltech256"),
    *("cars", "dtd", "flowers", "food", "pets", "sun397"),
)
SHORT = {"epochs": 1, "batch_size": 8}
# What is overlaid: cut-down copies, few networks, short trainings, small images. The rest is the paper's file.
LIMITS = {
    "input_size": 32,
    "datasets": {name: {"origin": {"partial": True}} for name in ("imagenet", *TARGETS)},
    "grid": [
        {"architectures": ["resnet18"], "eps": [0, 3], "modes": ["fixed-feature"], "protocols": ["paper"]},
        {"architectures": ["resnet18"], "eps": [0, 3], "targets": ["dtd", "pets"], "modes": ["full-network"]},
        {"architectures": ["resnet18"], "eps": [3], "targets": ["cifar10"], "protocols": ["paper"], "views": [16]},
    ],
    "linear_heads": {"training": SHORT},
    "finetuning": {"training": SHORT},
    "figures": {"widths": [], "bootstrap": 100, "fixed_eps": None},
}


def checkpoint(path: Path, seed: int) -> None:
    """As the authors' training wrote it: a stream in the format of torch 1.1, the network wrapped and repeated."""
    models = pytest.importorskip("torchvision.models")
    torch.manual_seed(seed)
    state = {}
    for name, value in models.resnet18(weights=None).state_dict().items():
        state[f"module.model.{name}"] = state[f"module.attacker.model.{name}"] = value
    for prefix in ("module.normalizer.", "module.attacker.normalize."):
        state[f"{prefix}new_mean"] = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
        state[f"{prefix}new_std"] = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    content = {"model": state, "optimizer": {}, "schedule": print, "epoch": 89, "amp": None, "adv_prec1": 30.0}
    torch.save(content, path, _use_new_zipfile_serialization=False)


@pytest.mark.faults
def test_a_miniature_of_the_paper(tmp_path: Path) -> None:
    for name in ("Snakefile", "config.yaml"):
        shutil.copy(ROOT / name, tmp_path / name)
    for name in ("rules", "profiles", "envs", "workflow", "experiments", "claims", "published"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in TARGETS:
        make(name, tmp_path / "data" / name, classes=2, train=4, test=3)
    make("imagenet", tmp_path / "data" / "imagenet", classes=2, train=4, test=3)
    (tmp_path / "weights").mkdir()
    for seed, eps in enumerate(("0", "3")):
        checkpoint(tmp_path / "weights" / released_file("resnet18", "l2", eps), seed)
    (tmp_path / "limits.yaml").write_text(yaml.safe_dump(LIMITS))

    command = [sys.executable, "-m", "snakemake", "--cores", "2", "--configfile"]
    run = subprocess.run(
        [*command, "experiments/paper.yaml", "limits.yaml"], cwd=tmp_path, capture_output=True, text=True, timeout=1500
    )
    assert run.returncode == 0, run.stderr[-5000:]
    results = tmp_path / "results" / "paper"
    table = pq.read_table(results / "results.parquet").to_pandas()
    transfers = table[(table["mode"] == "fixed-feature") & table["eps"].isin(["0", "3"]) & (table["variant"] == "{}")]
    assert {*transfers["target"]} == {*TARGETS}
    assert {*table["selection"].dropna()} == {"test"}
    assert (table["recipe"] == "released").all()
    drawn = yaml.safe_load((tmp_path / "experiments" / "paper.yaml").read_text())["figures"]["draw"]
    for figure in drawn:
        for suffix in FIGURES[figure].suffixes:
            assert (results / "figures" / f"{figure}.{suffix}").stat().st_size > 0
    assert "unlike-published" in (results / "flags.csv").read_text()  # what untrained networks are
    again = subprocess.run(
        [*command, "experiments/paper.yaml", "limits.yaml"], cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert "Nothing to be done" in again.stderr

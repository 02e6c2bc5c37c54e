"""The examples of CONTRIBUTING.md, applied to a copy of the repository as they stand, do what they say."""

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from robust_transfer.store.features import write_features
from support.documents import blocks
from support.fake_entries import Fake
from support.paths import ROOT
from support.prepared_datasets import new_entry, write_folder

DOCUMENT = ROOT / "CONTRIBUTING.md"


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what a run needs, with every example applied."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("Snakefile", "config.yaml"):
        shutil.copy(ROOT / name, folder / name)
    for name in ("rules", "profiles", "envs", "workflow"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for block in blocks(DOCUMENT):
        if block.words[0] == "diff":
            patch(folder / block.words[1], block.text)
        elif block.words[1:2] == ("new",):
            path = folder / block.words[2]
            assert not path.exists(), f"{path} is not new"
            path.write_text(block.text)
        elif block.words[1:2] == ("append",):
            with open(folder / block.words[2], "a") as file:
                file.write("\n\n" * block.words[2].endswith(".py") + block.text)
    return folder


def patch(path: Path, diff: str) -> None:
    """Replace what a diff shows with ` ` and `-` by what it shows with ` ` and `+`; it has to be there once."""
    lines = diff.splitlines(keepends=True)
    assert all(line[0] in " +-" for line in lines), diff
    old = "".join(line[1:] for line in lines if line[0] in " -")
    new = "".join(line[1:] for line in lines if line[0] in " +")
    text = path.read_text()
    assert text.count(old) == 1, f"{path}: {text.count(old)} times:\n{old}"
    path.write_text(text.replace(old, new))


def python(checkout: Path, *arguments: str, cwd: Path | None = None) -> str:
    """What this Python prints, run with the copy of the package."""
    environment = {**os.environ, "PYTHONPATH": str(checkout / "workflow")}
    run = subprocess.run(
        [sys.executable, *arguments], cwd=cwd or checkout, env=environment, capture_output=True, text=True, timeout=300
    )
    assert run.returncode == 0, run.stderr[-3000:] + run.stdout[-3000:]
    return run.stdout


def experiment(folder: Path, **over: object) -> Path:
    """The default configuration with other top-level values, whole, so that it may lie over the default or alone."""
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load((ROOT / "config.yaml").read_text()) | over))
    return path


def test_examples_are_five_and_name_files() -> None:
    headings = re.findall(r"^## Add (.+)$", DOCUMENT.read_text(), re.M)
    assert headings == ["a figure", "a setting", "a dataset to the catalogue", "an architecture", "a stage"]
    applied = [block for block in blocks(DOCUMENT) if block.words[0] == "diff" or len(block.words) == 3]
    assert len(applied) >= 15


def test_the_figure_is_drawn(checkout: Path, tmp_path: Path) -> None:
    fake = Fake(tmp_path)
    for eps, accuracy in (("0", 40), ("0.25", 70), ("1", 50)):
        fake.transfer(accuracy, accuracy, target="coarse", eps=eps)
    table = fake.collect()
    python(checkout, "-m", "robust_transfer", "figures", "by_eps", str(table), "--out", str(tmp_path / "by_eps"))
    drawn = list(csv.DictReader((tmp_path / "by_eps.csv").open()))
    assert [(row["eps"], float(row["value"])) for row in drawn] == [("0", 40), ("0.25", 70), ("1", 50)]
    assert (tmp_path / "by_eps.png").stat().st_size > 1000


def test_the_setting_is_documented_changes_features_and_no_old_hash(checkout: Path, tmp_path: Path) -> None:
    hashes = (
        "import sys; from pathlib import Path; from robust_transfer.configuration.load import load; "
        "from robust_transfer.dag.grid import plan; "
        "print(sorted(plan(load([Path(sys.argv[1])])).stage('features')))"
    )
    before = python(ROOT, "-c", hashes, str(experiment(tmp_path)))
    assert python(checkout, "-c", hashes, str(experiment(tmp_path))) == before
    changed = experiment(tmp_path, features={"precision": "bf16", "unit_length": True})
    assert python(checkout, "-c", hashes, str(changed)) != before
    norms = (
        "import numpy as np, torch; from robust_transfer.configuration.transfer import FeaturesSettings; "
        "from robust_transfer.stages.features import computed; "
        "batches = [torch.rand(4, 3, 8, 8)]; "
        "found = computed(lambda x: x.flatten(1), batches, FeaturesSettings(dtype='float32', unit_length={})); "
        "print(np.linalg.norm(next(found), axis=1).round(3).tolist())"
    )
    assert json.loads(python(checkout, "-c", norms.format(True))) == [1.0] * 4
    assert min(json.loads(python(checkout, "-c", norms.format(False)))) > 2
    python(checkout, "-m", "robust_transfer", "schema")
    assert (
        "\n| `unit_length` | `true` or `false` | `false` | unless default |"
        in (checkout / "docs" / "configuration.md").read_text()
    )


def test_the_dataset_is_listed_and_prepared(checkout: Path, tmp_path: Path) -> None:
    assert "Pebbles of three beaches" in python(checkout, "-m", "robust_transfer", "catalogue", "pebbles")
    beaches = ("north", "south", "west")
    write_folder(tmp_path / "data/pebbles/train", dict.fromkeys(beaches, 2))
    write_folder(tmp_path / "data/pebbles/test", dict.fromkeys(beaches, 1))
    default = yaml.safe_load((ROOT / "config.yaml").read_text())
    pebbles = {"origin": {"kind": "catalogue", "dataset": "pebbles"}}
    grid = [{"architectures": ["resnet8_w16"], "eps": [0]}]
    changes = {"datasets": default["datasets"] | {"pebbles": pebbles}, "targets": ["pebbles"], "grid": grid}
    mine = experiment(tmp_path, experiment="mine", figures={"widths": []}, **changes)
    python(checkout, "-m", "robust_transfer", "entries", "--write", "--configfile", str(mine), cwd=tmp_path)
    (entry,) = (tmp_path / "store" / "datasets").glob("pebbles-*")
    python(checkout, "-m", "robust_transfer", "datasets", str(entry), cwd=tmp_path)
    facts = json.loads((entry / "card.json").read_text())["facts"]
    assert facts["classes"] == list(beaches)
    assert facts["counts"] == {"train": 6, "test": 3}


def test_the_architecture_is_built(checkout: Path) -> None:
    built = (
        "import torch; from robust_transfer.networks.build import build; "
        "network = build('convnet_w4', 5).eval(); "
        "print(list(network(torch.rand(2, 3, 32, 32)).shape), network.head.in_features)"
    )
    assert python(checkout, "-c", built).split() == ["[2,", "5]", "32"]


def test_the_stage_and_the_figure_are_planned(checkout: Path, tmp_path: Path) -> None:
    mine = experiment(checkout, figures={"draw": ["by_eps"]})
    found = python(checkout, "-m", "snakemake", "-n", "--cores", "1", "--configfile", str(mine))
    jobs = dict(re.findall(r"^(\w+)\s+(\d+)\s*$", found, re.M))
    assert jobs["geometry"] == jobs["features"]
    assert jobs["figure_by_eps"] == "1"
    assert "measure how many dimensions" in python(checkout, "-m", "robust_transfer", "geometry", "--help").lower()


def test_the_stage_measures(checkout: Path, tmp_path: Path) -> None:
    features = new_entry(tmp_path, "features", {})
    with features.writing() as draft:  # two dimensions of six vary, alike
        corners = np.zeros((40, 6), np.float32)
        corners[:, :2] = np.array([(0, 0), (0, 1), (1, 0), (1, 1)] * 10)
        write_features(draft.file("train.arrow"), corners, np.zeros(40, np.int64))
        draft.facts = {"origin": {}}
    entry = new_entry(tmp_path, "geometry", {}, features=features)
    python(checkout, "-m", "robust_transfer", "geometry", str(entry.path))
    assert json.loads((entry.path / "geometry.json").read_text())["dimensions"] == pytest.approx(2)

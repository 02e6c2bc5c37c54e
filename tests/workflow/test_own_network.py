"""A network of one's own to images of one's own: what works, and what is refused before any job."""

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
import yaml
from robust_transfer.configuration.load import ConfigurationError, load
from robust_transfer.dag.availability import planned
from robust_transfer.dag.grid import plan
from robust_transfer.dag.sources import foreign_networks
from robust_transfer.dag.wiring import Wiring
from robust_transfer.networks.build import build
from robust_transfer.tables.measured import measured
from robust_transfer.tables.results import read_results
from support.checkouts import Checkout
from support.prepared_datasets import encoded_squares, write_folder, write_parquet

SMALL = """
extends: own-network
input_size: 32
datasets: {outlines: {origin: {side: 32, train: 60, test: 60}}}
"""
"""The experiment with images of 32 pixels, and fewer."""


def checkpoint(folder: Path, classes: int) -> Path:
    """weights/resnet8_w8.pt below a folder, with random weights of so many classes."""
    path = folder / "weights" / "resnet8_w8.pt"
    path.parent.mkdir(exist_ok=True)
    torch.save(build("resnet8_w8", classes).state_dict(), path)
    return path


@pytest.mark.faults  # 28 s
def test_a_network_of_a_thousand_classes_transfers_without_their_images(tmp_path: Path) -> None:
    """The experiment itself, but for the size of its images and its architecture, from start to end, offline."""
    checkout = Checkout(tmp_path, SMALL + "grid: [{architectures: [resnet8_w8], eps: [0], modes: [fixed-feature]}]\n")
    checkpoint(tmp_path, 1000)
    run = checkout.snakemake()
    assert run.returncode == 0, run.stdout + run.stderr
    assert "Left out, since the images are missing: ImageNet." in run.stderr
    assert "Glyph" not in run.stderr  # libraries' remarks are no news
    assert "report   `make report CONFIG=experiment.yaml` writes results/own-network/report.html" in run.stderr
    (row,) = measured(read_results(tmp_path / "results/own-network/results.parquet"), target="outlines").itertuples()
    assert (row.arch, row.recipe, row.n) == ("resnet8_w8", "mine", 60)


def experiment(folder: Path, origin: Mapping[str, object], **stated: object) -> Wiring:
    """Such a network, to be evaluated on a source of this origin, as Snakemake would begin."""
    grid = [{"architectures": ["resnet8_w8"], "eps": [0], "modes": ["fixed-feature"]}]
    small = yaml.safe_load(SMALL)
    described = {**small, "grid": grid, "source": "mine", **stated}
    described["datasets"] = {**small["datasets"], "mine": {"origin": {**origin}}}
    (folder / "mine.yaml").write_text(yaml.safe_dump(described))
    return Wiring(planned(load([folder / "mine.yaml"])))


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with class folders and a parquet file of three classes each."""
    monkeypatch.chdir(tmp_path)
    write_folder(tmp_path / "folder", {"ant": 2, "bee": 2, "cat": 2})
    for seed, split in enumerate(("train", "test")):
        images, labels = encoded_squares(6, seed=seed)
        write_parquet(tmp_path / "parquet" / f"{split}.parquet", images, [label % 3 for label in labels])
    return tmp_path


FOLDER, PARQUET = {"kind": "folder", "path": "folder"}, {"kind": "parquet", "path": "parquet"}
CIFAR = {"kind": "catalogue", "dataset": "cifar10"}


@pytest.mark.parametrize("origin", [FOLDER, PARQUET], ids=lambda origin: origin["kind"])
def test_a_source_of_other_classes_is_refused_before_any_job(origin: Mapping[str, object], here: Path) -> None:
    checkpoint(here, 1000)
    message = (
        r"weights/resnet8_w8.pt: its 1000 outputs are not the \d classes of source mine; .* name that one as source"
        r".*`source: imagenet`.*`missing: drop`.*experiments/own-network.yaml"
    )
    with pytest.raises(ConfigurationError, match=message):
        experiment(here, origin).prepare()
    assert not (here / "store").exists()


def test_outputs_that_fit_the_source_are_not_refused(here: Path) -> None:
    checkpoint(here, 3)
    experiment(here, FOLDER).prepare()
    assert foreign_networks(experiment(here, FOLDER).grid) == []
    checkpoint(here, 10)
    (message,) = foreign_networks(experiment(here, FOLDER).grid)
    assert "its 10 outputs are not the 3 classes of source mine" in message
    assert "imagenet" not in message
    shapes = {"kind": "shapes", "task": "objects", "classes": 10, "train": 20, "test": 20}
    assert foreign_networks(experiment(here, shapes).grid) == []


def test_a_catalogued_source_is_told_by_how_many_classes_it_has(here: Path) -> None:
    checkpoint(here, 1000)
    assert len(foreign_networks(plan(experiment(here, CIFAR, missing="stop").grid.experiment))) == 1
    checkpoint(here, 10)
    assert foreign_networks(plan(experiment(here, CIFAR, missing="stop").grid.experiment)) == []


def test_a_checkpoint_that_cannot_be_read_is_told_before_any_job(here: Path) -> None:
    checkpoint(here, 1000).write_bytes(b"no checkpoint")
    with pytest.raises(ConfigurationError, match=r"weights/resnet8_w8\.pt: "):
        experiment(here, FOLDER).prepare()


def test_a_missing_source_that_trains_nothing_says_that_it_can_be_dropped(here: Path) -> None:
    checkpoint(here, 1000)
    with pytest.raises(
        ConfigurationError, match=r"source = mine: no backbone trains on it; `missing: drop` leaves out"
    ):
        experiment(here, {"kind": "folder", "path": "elsewhere"}, missing="stop").prepare()

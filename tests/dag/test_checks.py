"""What planning knows of numbers that jobs would stumble over."""

import json
from pathlib import Path
from typing import Any

import pytest
from robust_transfer.configuration.load import DEFAULT, ConfigurationError, load
from robust_transfer.dag.availability import planned
from robust_transfer.dag.checks import mistakes, recipe_notices
from robust_transfer.dag.grid import Grid, plan
from support.mistakes import grid, imported


def planned_with(**over: Any) -> Grid:
    return plan(load([DEFAULT], over))


@pytest.mark.parametrize("images", [99, 100])
def test_as_many_images_as_the_largest_class_has_are_enough(images: int) -> None:
    assert mistakes(planned_with(**grid(images_per_class=[images, "all"]))) == []


def test_a_finished_dataset_says_how_many_images_its_classes_have(tmp_path: Path) -> None:
    datasets = {"coarse": {"origin": {"kind": "folder", "path": str(tmp_path)}}}
    over = {"store": str(tmp_path), "datasets": datasets, "targets": ["coarse"], **grid(images_per_class=[21])}
    made = planned_with(**over)
    assert mistakes(made) == []  # nobody knows
    [entry] = (entry for entry in made.stage("datasets").values() if entry.name == "coarse")
    (tmp_path / entry.id).mkdir(parents=True)
    card = {"facts": {"images_per_class": {"train": {"min": 3, "max": 20}}}, "files": {}, "inputs": {}}
    (tmp_path / entry.id / "card.json").write_text(json.dumps(card))
    with pytest.raises(
        ConfigurationError, match=r"images_per_class = 21: no class of coarse has more than 20 training"
    ):
        planned(made.experiment)


def test_images_in_total_are_at_most_those_there_are(tmp_path: Path) -> None:
    there = int(planned_with().experiment.datasets["coarse"].origin.model_dump()["train"])
    assert mistakes(planned_with(**grid(training_images=[there]))) == []
    lines = mistakes(planned_with(**grid(training_images=[there + 1])))
    assert any(f"training_images = {there + 1}: coarse has {there} training images" in line for line in lines)
    datasets = {"coarse": {"origin": {"kind": "folder", "path": str(tmp_path)}}}
    over = {"store": str(tmp_path), "datasets": datasets, "targets": ["coarse"], **grid(training_images=[61])}
    made = planned_with(**over)
    assert mistakes(made) == []  # nobody knows
    [entry] = (entry for entry in made.stage("datasets").values() if entry.name == "coarse")
    (tmp_path / entry.id).mkdir(parents=True)
    card = {"facts": {"counts": {"train": 60}}, "files": {}, "inputs": {}}
    (tmp_path / entry.id / "card.json").write_text(json.dumps(card))
    assert any("coarse has 60 training images" in line for line in mistakes(made))


def test_a_part_that_transfers_nothing_needs_no_images() -> None:
    assert mistakes(planned_with(**grid(images_per_class=[5000], modes=[]))) == []


def test_a_recipe_of_ones_own_is_told_what_it_leaves_at_its_defaults() -> None:
    mine = {"recipe": "mine", "training": {"epochs": 3, "batch_size": 32}}
    [line] = recipe_notices(planned_with(pretraining=mine))
    for word in ("pretraining.recipe = mine", "brings no values", "learning_rate 0.1", "schedule step"):
        assert word in line
    assert "batch_size" not in line
    assert recipe_notices(planned_with()) == []
    assert recipe_notices(planned_with(pretraining={"recipe": "fast"})) == []


def test_a_recipe_that_trains_nothing_is_not_asked_for_its_epochs() -> None:
    """Where all networks are imported, no training is described."""
    weights = imported({"kind": "files", "path": "net.pt"})
    assert recipe_notices(planned_with(pretraining={"recipe": "fsat"}, **weights)) == []

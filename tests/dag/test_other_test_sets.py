"""Which models are tested on further test sets, by which entries, and which classes do not match."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from robust_transfer.configuration.load import load
from robust_transfer.configuration.test_sets import TestSetsSettings
from robust_transfer.dag.grid import Grid, plan
from robust_transfer.dag.test_sets import class_mistakes
from support.small_experiments import part, small

ALSO = {"coarse": [{"dataset": "again"}, {"dataset": "objects", "classes": {"disc": "disc"}}]}


def planned(tmp_path: Path, also: Any = None, dropped: tuple[str, ...] = (), **of: Any) -> Grid:
    written = yaml.safe_load(small([part([0, 0.5], ("fixed-feature", "full-network"), **of)]))
    written["datasets"]["again"] = {"origin": {"kind": "shapes", "task": "coarse", "train": 8, "test": 20}}
    written |= {"also_test_on": also} if also else {}
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(written))
    return plan(load([tmp_path / "small.yaml"]), dropped)


def test_without_the_setting_nothing_is_another(tmp_path: Path) -> None:
    plain, tested = planned(tmp_path), planned(tmp_path, ALSO)
    assert not plain.stage("test_sets")
    kept = {id for id in plain.entries if not id.startswith("finetuning/")}
    assert kept <= tested.entries.keys()
    assert plain.measurements.keys() & tested.measurements.keys() >= {id for id in kept if id in plain.measurements}


def test_models_on_features_share_an_entry_and_trained_ones_keep_their_weights(tmp_path: Path) -> None:
    grid = planned(tmp_path, ALSO, protocols=["frozen", "knn", "paper"])
    entries = [*grid.stage("test_sets").values()]
    assert len(entries) == 2 * 3
    by_model = {entry.inputs["model0"].stage: entry for entry in entries}
    assert by_model.keys() == {"probing", "selecting", "finetuning"}
    shared = by_model["probing"]
    settings = shared.settings
    assert isinstance(settings, TestSetsSettings)
    assert [(one.model, one.images, one.test_set) for one in settings.tests] == [
        (model, f"images{i}", name) for model in ("model0", "model1") for i, name in enumerate(("again", "objects"))
    ]
    assert [settings.tests[i].classes for i in (0, 1)] == [None, {"disc": "disc"}]
    assert shared.inputs["images0"].inputs["dataset"].name == "again"
    assert shared.inputs["images0"].stage == "features"
    assert by_model["finetuning"].inputs["images1"].id == grid.entries[by_model["finetuning"].inputs["images1"].id].id
    assert by_model["finetuning"].inputs["images1"].name == "objects"
    trained = [one.settings for one in grid.stage("finetuning").values()]
    assert all(one.keep_weights for one in trained if one.purpose != "search")  # type: ignore[attr-defined]
    final = by_model["selecting"].inputs["final0_0"]
    assert final.settings.keep_weights  # type: ignore[attr-defined]
    measured = [one for one in grid.measurements.values() if one.stage == "test_sets"]
    assert {one.model for one in measured} == {
        entry.inputs[role].id for entry in entries for role in entry.inputs if role.startswith("model")
    }
    assert {one.key.target for one in measured} == {"coarse"}


def test_of_a_downscaled_target_the_other_images_are_downscaled_too(tmp_path: Path) -> None:
    grid = planned(tmp_path, {"coarse": [{"dataset": "again"}]}, views=[12])
    images = {entry.inputs["images0"].name for entry in grid.stage("test_sets").values()}
    assert images == {"again_12px", *(f"{one.name}_on_again_12px" for one in grid.stage("pretraining").values())}


def test_a_test_set_whose_images_are_missing_is_left_out(tmp_path: Path) -> None:
    grid = planned(tmp_path, ALSO, ("again",))
    names = {one.test_set for entry in grid.stage("test_sets").values() for one in entry.settings.tests}  # type: ignore[attr-defined]
    assert names == {"objects"}


@pytest.mark.parametrize(
    ("also", "says"),
    [
        ({"dataset": "again"}, []),
        (
            {"dataset": "again", "classes": {"wheel": "disc"}},
            ["also_test_on.coarse, again: classes.wheel: no class of"],
        ),
        ({"dataset": "objects"}, ["also_test_on.coarse, objects: ", "classes are none of coarse", "`classes`"]),
    ],
)
def test_classes_are_compared_before_any_job(tmp_path: Path, also: Any, says: list[str]) -> None:
    messages = class_mistakes(planned(tmp_path, {"coarse": [also]}))
    assert len(messages) == bool(says)
    assert all(one in messages[0] for one in says)

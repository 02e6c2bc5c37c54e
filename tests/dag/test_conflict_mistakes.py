"""What cannot be decided on conflict images is found out before any job: one message each, and nothing written."""

from pathlib import Path
from typing import Any

import pytest
from dag.test_grid import SMALL
from robust_transfer.configuration.load import ConfigurationError, validate
from robust_transfer.dag.conflicts import conflict_mistakes
from robust_transfer.dag.grid import plan
from robust_transfer.dag.wiring import Wiring
from stages.test_conflicts import CLASSES, published_names, write_images
from support.prepared_datasets import write_folder


def wired(root: Path, **over: Any) -> Wiring:
    places = {"store": str(root / "store"), "results": str(root / "results")}
    return Wiring(plan(validate({**SMALL, **places, **over})))


def photos(root: Path, classes: dict[str, int]) -> dict[str, Any]:
    """A source of class folders."""
    write_folder(root / "photos/train", classes)
    write_folder(root / "photos/test", classes)
    datasets: Any = SMALL["datasets"]
    changed: dict[str, Any] = {
        "datasets": {**datasets, "photos": {"origin": {"kind": "folder", "path": str(root / "photos")}}},
        "source": "photos",
    }
    return changed


@pytest.fixture
def stimuli(tmp_path: Path) -> dict[str, Any]:
    images: dict[str, Any] = write_images(tmp_path / "stimuli", published_names())
    return images


def messages(root: Path, images: dict[str, Any], over: dict[str, Any] | None = None, **section: Any) -> list[str]:
    wiring = wired(root, cue_conflict={"images": images, **section}, **(over or {}))
    found = conflict_mistakes(wiring.grid)
    if found:
        for stop in (wiring.absences, wiring.prepare):
            with pytest.raises(ConfigurationError, match=found[0][:12]):
                stop()
        assert not (root / "store").exists()
        assert not (root / "results").exists()
    return found


def test_the_generator_knows_its_own_classes(tmp_path: Path) -> None:
    assert messages(tmp_path, {"kind": "shapes"}) == []


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    [message] = messages(tmp_path, {"kind": "folder", "path": str(tmp_path / "none")})
    assert message.startswith(f"cue_conflict.images: {tmp_path / 'none'}: no such folder; expected is one with images")


def test_names_that_say_nothing(tmp_path: Path, stimuli: dict[str, Any]) -> None:
    write_images(tmp_path / "stimuli", ["cat.png", "dog/dog7.png"])
    [message] = messages(tmp_path, stimuli)
    assert "2 of 19 names do not say which shape and which texture" in message
    assert "<shape><number>-<texture><number>.png" in message


def test_a_source_that_knows_none_of_the_classes(tmp_path: Path, stimuli: dict[str, Any]) -> None:
    [message] = messages(tmp_path, stimuli)
    assert "the source objects knows 0 of the 16 classes of the images" in message
    assert "name datasets with images of them in cue_conflict.probe" in message
    assert "classes: [" not in message


def test_a_source_that_knows_some_by_name_or_by_wordnet_id(tmp_path: Path, stimuli: dict[str, Any]) -> None:
    over = photos(tmp_path, {"cat": 2, "n02099601": 2, "n02123045": 2, "truck": 2, "n01440764": 2, "dog": 2})
    [message] = messages(tmp_path, stimuli, over)
    assert "the source photos knows 3 of the 16 classes" in message
    assert message.endswith("cue_conflict.probe, or cue_conflict.classes: [cat, dog, truck]")
    assert messages(tmp_path, stimuli, over, classes=["cat", "dog", "truck"]) == []


def test_imagenet_knows_all_sixteen(tmp_path: Path, stimuli: dict[str, Any]) -> None:
    datasets: Any = SMALL["datasets"]
    over = {
        "datasets": {**datasets, "imagenet": {"origin": {"kind": "catalogue", "dataset": "imagenet"}}},
        "source": "imagenet",
    }
    wiring = wired(tmp_path, cue_conflict={"images": stimuli}, **over)
    assert conflict_mistakes(wiring.grid) == []


PROBE = {name: [f"shape {i + 1}"] for i, name in enumerate(CLASSES[:10])}


def test_a_probe_that_knows_some(tmp_path: Path, stimuli: dict[str, Any]) -> None:
    [message] = messages(tmp_path, stimuli, probe={"coarse": PROBE})
    assert (
        "the probe knows 10 of the 16 classes of the images, not dog, elephant, keyboard, knife, oven, truck" in message
    )
    assert "map more classes in cue_conflict.probe, or cue_conflict.classes: [airplane, bear" in message
    assert messages(tmp_path, stimuli, probe={"coarse": PROBE}, classes=list(PROBE)) == []


def test_classes_that_are_none(tmp_path: Path, stimuli: dict[str, Any]) -> None:
    wrong = {**PROBE, "airoplane": ["shape 11"], "bear": ["shape two"]}
    found = messages(tmp_path, stimuli, probe={"coarse": wrong})
    assert "cue_conflict.probe.coarse: airoplane: no class of the images, did you mean airplane?" in found
    assert any(
        "cue_conflict.probe.coarse.bear: shape two: no class of coarse, did you mean shape" in one for one in found
    )
    found = messages(tmp_path, stimuli, classes=["cat", "bear", "zebra"])
    assert any("cue_conflict.classes: zebra: no class of the images" in one for one in found)

"""The stage that measures shape bias: networks with a known answer, by their outputs and through a probe."""

import csv
import json

import numpy as np
import pytest
import torch
from robust_transfer.configuration.conflicts import CueConflictSettings
from robust_transfer.configuration.transfer import FeaturesSettings, Probing
from robust_transfer.networks.build import build
from robust_transfer.stages import cue_conflict, features
from robust_transfer.statistics.logistic_regression import Regression
from robust_transfer.statistics.shape_bias import Decisions
from robust_transfer.store.entry import StoreError, open_entry
from robust_transfer.store.features import open_features
from robust_transfer.tables.sanity import conflict_flags
from robust_transfer.training.class_probe import fit_probe, numbers
from stages.test_conflicts import made
from support.backbones import stored_backbone
from support.prepared_datasets import encoded, new_entry, prepared, write_parquet

SIDE = 16
COLOURS = ("red", "green", "blue")
"""Of the lower half of an image, its shape here; the upper half is its texture."""


def picture(shape, texture):
    image = np.zeros((SIDE, SIDE, 3), np.uint8)
    image[: SIDE // 2, :, texture] = 200
    image[SIDE // 2 :, :, shape] = 200
    return image


def conflict_set(root, side=SIDE):
    """Each pair of colours twice."""
    folder = root / "conflicts"
    for shape, texture, number in np.ndindex(3, 3, 2):
        name = f"{COLOURS[shape]}{number + 1}-{COLOURS[texture]}{number + 1}.png"
        (folder / COLOURS[shape]).mkdir(parents=True, exist_ok=True)
        image = picture(shape, texture).repeat(side // SIDE, 0).repeat(side // SIDE, 1)
        (folder / COLOURS[shape] / name).write_bytes(encoded(image))
    return made(root, {"kind": "folder", "path": str(folder)})


def plain_set(root):
    """Images of one colour, without a conflict, under names of their own: 15 of each to train on and 5 to test on."""
    for split, count in (("train", 15), ("test", 5)):
        images = [encoded(np.clip(picture(c, c) + np.uint8(i), 0, 255)) for c in range(3) for i in range(count)]
        labels = [f"dyed {COLOURS[c]}" for c in range(3) for _ in range(count)]
        write_parquet(root / "plain" / f"{split}.parquet", [*images, images[0]], [*labels, "unnamed"])
    return prepared(root, {"kind": "parquet", "path": str(root / "plain")})


class Halves(torch.nn.Module):
    """Features: the mean of each channel over the lower and over the upper half, weighted."""

    def __init__(self, lower, upper):
        super().__init__()
        self.lower, self.upper = lower, upper

    def forward(self, x):
        half = x.shape[2] // 2
        return self.lower * x[:, :, half:].mean((2, 3)) + self.upper * x[:, :, :half].mean((2, 3))


@pytest.fixture
def looking(monkeypatch, tmp_path):
    """A function that has every backbone look at the halves of images with these weights; outputs are the features."""
    stored = stored_backbone(tmp_path, build("resnet8_w4", 3), classes=list(COLOURS), input_size=SIDE, precision="fp32")

    def backbone(lower, upper):
        network = build("resnet8_w4", 3).eval()
        network.body = Halves(lower, upper)
        network.head = torch.nn.Linear(3, 3)
        with torch.no_grad():
            network.head.weight.copy_(torch.eye(3) * 10)
            network.head.bias.zero_()
        for stage in (cue_conflict, features):
            monkeypatch.setattr(stage, "load_backbone", lambda entry: network)
        return stored

    return backbone


def measured(root, backbone, conflicts, probe=(), source=None, **settings):
    inputs = {f"features{i}": entry for i, (entry, _) in enumerate(probe)}
    inputs |= {"source": source} if source else {}
    described = CueConflictSettings(
        probe=tuple(of for _, of in probe), probing=Probing() if probe else None, **settings
    ).model_dump(mode="json")
    entry = new_entry(root, "cue_conflict", described, backbone=backbone, conflicts=conflicts, **inputs)
    cue_conflict.run(entry, threads=1, device="cpu")
    entry = open_entry(entry.path)
    rows = json.loads(entry.file("metrics.json").read_text())
    return entry, {(row["metric"], row["variant"].get("shape", "")): row for row in rows}


@pytest.mark.parametrize(("weights", "bias"), [((2.0, 1.0), 100.0), ((1.0, 2.0), 0.0)])
def test_a_network_that_looks_at_one_half_has_that_halfs_bias(tmp_path, looking, weights, bias):
    entry, rows = measured(tmp_path, looking(*weights), conflict_set(tmp_path))
    assert rows["shape_bias", ""]["value"] == bias
    assert rows["shape_bias", ""]["n"] == 12  # of 18 images six agree
    assert rows["shape_decisions", ""]["value"] == bias
    assert rows["texture_decisions", ""]["value"] == 100 - bias
    assert {shape for metric, shape in rows if metric == "shape_bias"} == {"", *COLOURS}
    facts = entry.facts()
    assert facts["agreeing"] == {"images": 6, "right": 6}
    assert (facts["images"], facts["resized"], facts["sides"]) == (12, False, {"images": [SIDE], "network": SIDE})
    low, high = rows["shape_bias", ""]["interval"]
    assert low < high
    assert low <= bias <= high


def test_decisions_are_written_by_image(tmp_path, looking):
    entry, rows = measured(tmp_path, looking(2.0, 1.0), conflict_set(tmp_path))
    with open(entry.file("decisions.csv"), newline="") as file:
        written = list(csv.DictReader(file))
    assert [int(row["image"]) for row in written] == list(range(18))
    conflict = [row for row in written if row["shape"] != row["texture"]]
    assert sum(row["decision"] == row["shape"] for row in conflict) == rows["shape_bias", ""]["n"]


def test_only_images_of_the_stated_classes_count(tmp_path, looking):
    entry, rows = measured(tmp_path, looking(2.0, 1.0), conflict_set(tmp_path), classes=("green", "red"))
    assert entry.facts()["images"] == 4
    assert rows["shape_bias", ""]["n"] == 4


def test_images_of_other_sides_are_said_to_be_resized(tmp_path, looking, caplog):
    entry, rows = measured(tmp_path, looking(2.0, 1.0), conflict_set(tmp_path, side=2 * SIDE))
    assert rows["shape_bias", ""]["value"] == 100  # resized, and no half cropped away
    assert all(row["variant"]["resized_from"] == 2 * SIDE for row in rows.values())
    assert entry.facts()["sides"] == {"images": [2 * SIDE], "network": SIDE}
    assert "not comparable" in caplog.text


def of_plain(root, backbone, plain):
    settings = FeaturesSettings(dtype="float32", preprocessing={"resize_ratio": 1.0}).model_dump(mode="json")
    entry = new_entry(root, "features", settings, backbone=backbone, dataset=plain)
    features.run(entry, threads=1, device="cpu")
    return open_entry(entry.path), {colour: (f"dyed {colour}",) for colour in COLOURS}


@pytest.mark.parametrize(("weights", "bias"), [((2.0, 1.0), 100.0), ((1.0, 2.0), 0.0)])
def test_a_probe_on_images_without_a_conflict_decides(tmp_path, looking, weights, bias):
    backbone = looking(*weights)
    probe = of_plain(tmp_path, backbone, plain_set(tmp_path))
    entry, rows = measured(tmp_path, backbone, conflict_set(tmp_path), probe=[probe])
    assert rows["shape_bias", ""]["value"] == bias
    assert rows["shape_bias", ""]["hyperparameters"]["probe_accuracy"] == 100
    assert entry.facts()["decided_by"]["probe_images"] == {"train": 45, "test": 15}  # those of no class are left out


def test_a_probe_of_several_datasets_is_the_regression_on_all_their_images(tmp_path, looking):
    backbone = looking(2.0, 1.0)
    stored, of = of_plain(tmp_path, backbone, plain_set(tmp_path))
    maps = [{"red": of["red"]}, {"green": of["green"], "blue": of["blue"]}]
    found = fit_probe([stored, stored], maps, COLOURS, Probing(strengths=(1e-3,)), seed=0)
    values, labels = open_features(stored, "train")
    place = numbers(stored.facts()["classes"], of, COLOURS)[labels]
    kept = place >= 0
    alone = next(Regression(values[kept], place[kept], standardise=True).path([1e-3]))
    np.testing.assert_allclose(found.fit.weights, alone.weights, atol=1e-3)


def test_classes_that_no_output_stands_for_are_named(tmp_path, looking):
    backbone = looking(2.0, 1.0)
    stored = stored_backbone(tmp_path, build("resnet8_w4", 3), classes=["red", "green", "lamp"], precision="fp32")
    assert backbone.facts()["classes"] == list(COLOURS)
    with pytest.raises(StoreError, match="none of its 3 outputs stands for blue; name a probe"):
        measured(tmp_path, stored, conflict_set(tmp_path))


def test_numbered_outputs_of_a_checkpoint_stand_for_the_sources_classes(tmp_path, looking):
    backbone = looking(2.0, 1.0)
    numbered = stored_backbone(
        tmp_path, build("resnet8_w4", 3), classes=["0", "1", "2"], input_size=SIDE, precision="fp32", imported={}
    )
    dyed = plain_set(tmp_path)  # of four classes
    with pytest.raises(StoreError, match="its 3 outputs are not the 4 classes"):
        measured(tmp_path, numbered, conflict_set(tmp_path), source=dyed)
    for split in ("train", "test"):
        write_parquet(tmp_path / f"named/{split}.parquet", [encoded(picture(c, c)) for c in range(3)], [0, 1, 2])
    (tmp_path / "named/info.json").write_text(json.dumps({"classes": list(COLOURS)}))
    named = prepared(tmp_path, {"kind": "parquet", "path": str(tmp_path / "named")})
    _, rows = measured(tmp_path, numbered, open_entry(next((tmp_path / "store/conflicts").iterdir())), source=named)
    assert rows["shape_bias", ""]["value"] == 100
    assert backbone.facts()["classes"] == list(COLOURS)


def test_a_shape_bias_of_guesses_is_flagged():
    """Of 1,200 images and 16 classes guessing decides an eighth, 150 ± 11."""
    assert [flag.flag for flag in conflict_flags(160, 1200, 16)] == ["cues-at-chance"]
    assert "13.3 % of 1200 images" in conflict_flags(160, 1200, 16)[0].message
    assert "gives 12.5 %" in conflict_flags(160, 1200, 16)[0].message
    assert conflict_flags(200, 1200, 16) == []
    assert conflict_flags(Decisions(500, 240, 460).decided, 1200, 16) == []

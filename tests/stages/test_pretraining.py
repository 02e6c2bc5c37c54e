"""The stage end to end: from a prepared dataset to an entry that other stages can open."""

import json
import re

import numpy as np
import pytest
import torch
from robust_transfer.configuration.training import PretrainingSettings
from robust_transfer.datasets.arrow import open_split
from robust_transfer.loading.augmentation import resident_images
from robust_transfer.networks.backbones import load_backbone
from robust_transfer.networks.build import build
from robust_transfer.stages import pretraining
from robust_transfer.store.entry import StoreError, open_entry
from support import kills
from support.prepared_datasets import encoded, encoded_squares, new_entry, prepared, write_parquet
from support.processes import first_line, start

CLASSES = 3


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    root = tmp_path_factory.mktemp("source")
    write_parquet(root / "data/train.parquet", *encoded_squares(48))
    write_parquet(root / "data/test.parquet", *encoded_squares(30, seed=1))
    return prepared(root, {"kind": "parquet", "path": str(root / "data")})


def settings(**changes):
    robust = changes.get("eps", "0") != "0"
    training = {"epochs": 2, "batch_size": 16, "learning_rate": 0.05, "augmentation": "flip", "precision": "bf16"}
    return PretrainingSettings.model_validate(
        {
            "architecture": "resnet8_w4",
            "input_size": 16,
            "preprocessing": {"resize_ratio": 1.0},
            "norm": "l2" if robust else None,
            "eps": "0",
            "seed": 0,
            "recipe": "short",
            "training": training | changes.pop("training", {}),
            "attack": {"steps": 2} if robust else None,
            **changes,
        }
    ).model_dump(mode="json")


def backbone(source, **changes):
    entry = new_entry(source.path.parents[2], "pretraining", settings(**changes), source=source)
    pretraining.run(entry, threads=1, device="cpu")
    return open_entry(entry.path)


@pytest.mark.parametrize("eps", ["0", "0.5"])
def test_makes_a_backbone_that_says_what_it_is(source, eps):
    entry = backbone(source, eps=eps)
    facts = entry.facts()
    assert facts["architecture"] == "resnet8_w4"
    assert facts["classes"] == ["0", "1", "2"]
    assert facts["input_size"] == 16
    assert (facts["norm"], facts["eps"]) == (None if eps == "0" else "l2", eps)
    assert facts["precision"] == "bf16"
    assert facts["parameters"] == build("resnet8_w4", CLASSES).parameters_n
    lines = (entry.path / "epochs.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in lines] == ["epoch", "1", "2"]
    timing = json.loads((entry.path / "timing.json").read_text())
    assert timing["images"] == 2 * 48
    assert timing["images_per_second"] > 0
    assert [row["epoch"] for row in timing["epochs"]] == [1, 2]
    assert (timing["device"], timing["threads"]) == ("cpu", 1)


def test_weights_differ_from_their_start_and_from_those_of_another_eps(source):
    start = build("resnet8_w4", CLASSES, seed=0).get_parameter("body.stem.0.weight")
    networks = (load_backbone(backbone(source, eps=eps)) for eps in ("0", "0.5"))
    plain, robust = (network.get_parameter("body.stem.0.weight") for network in networks)
    assert (plain - start).abs().max() > 1e-3
    assert (plain - robust).abs().max() > 1e-4


def test_made_again_it_is_the_same_card(source):
    """Then what was made from it stays current."""
    cards = [backbone(source, eps="0.5").card() for _ in range(2)]
    assert cards[0]["files"] == cards[1]["files"]
    assert cards[0]["facts"] == cards[1]["facts"]
    assert backbone(source, eps="0.5", seed=1).card()["files"] != cards[0]["files"]


@pytest.mark.parametrize("architecture", ["resnet18", "mobilenet_v2"])
def test_torchvisions_networks_train_too(source, architecture):
    pytest.importorskip("torchvision")
    entry = backbone(source, eps="0.5", architecture=architecture, input_size=32, training={"epochs": 1})
    assert load_backbone(entry)(torch.rand(2, 3, 32, 32)).shape == (2, CLASSES)


def test_a_failed_training_leaves_the_entry_unmade(source):
    entry = new_entry(source.path.parents[2], "pretraining", settings(training={"learning_rate": 1e30}), source=source)
    with pytest.raises(RuntimeError, match="the loss is"):
        pretraining.run(entry, threads=1, device="cpu")
    assert sorted(path.name for path in entry.path.iterdir()) == [".lock", "entry.json"]


def test_a_second_process_is_told_who_writes_and_waits(source):
    entry = new_entry(source.path.parents[2], "pretraining", settings(training={"epochs": 1}), source=source)
    code = """
        import sys
        from pathlib import Path
        from robust_transfer.store.entry import StoreError, open_entry
        with open_entry(Path(sys.argv[1])).locked():
            print("holding", flush=True)
            input()
    """
    holder = start(code, entry.path)
    try:
        assert first_line(holder.stdout) == "holding"
        waiting = kills.start(entry)
        told = re.compile(rf"process {holder.pid} on .* is writing this entry; waiting for it")
        kills.wait_until(waiting, lambda: bool(told.search(waiting.said())))
    finally:
        holder.communicate("\n")
    assert waiting.wait() == 0, waiting.said()


class TestResidentImages:
    def test_crops_are_taken_from_the_whole_square_at_twice_the_side(self, tmp_path):
        images = [encoded(np.full((20, 30, 3), 7 * i, np.uint8)) for i in range(6)]
        write_parquet(tmp_path / "data/train.parquet", images, [0, 1] * 3)
        write_parquet(tmp_path / "data/test.parquet", images, [0, 1] * 3)
        split = open_split(prepared(tmp_path, {"kind": "parquet", "path": str(tmp_path / "data")}), "train")
        assert resident_images(split, "crop-flip", 16, 8 / 7).shape == (6, 16, 16, 3)
        resident = resident_images(split, "square-resized-crop-flip", 16, 8 / 7)
        assert resident.shape == (6, 32, 32, 3)
        assert resident.dtype == torch.uint8
        assert [image.unique().tolist() for image in resident] == [[7 * i] for i in range(6)]


class TestTextureRobust:
    """Training from a backbone's weights, on one dataset or on two."""

    @pytest.fixture(scope="class")
    @staticmethod
    def stylized(source):
        root = source.path.parents[2]
        write_parquet(root / "other/train.parquet", *encoded_squares(36, seed=5))
        write_parquet(root / "other/test.parquet", *encoded_squares(30, seed=6))
        return prepared(root, {"kind": "parquet", "path": str(root / "other")})

    @pytest.fixture(scope="class")
    @staticmethod
    def start(source):
        return backbone(source, seed=3)

    def train(self, source, trained_on, **roles):
        described = settings(trained_on=trained_on, training={"epochs": 1, "learning_rate": roles.pop("rate", 0.05)})
        entry = new_entry(source.path.parents[2], "pretraining", described, source=source, **roles)
        pretraining.run(entry, threads=1, device="cpu")
        return open_entry(entry.path)

    def test_an_epoch_has_the_images_of_both(self, source, stylized, start):
        entry = self.train(source, "both", stylized=stylized, start=start)
        assert json.loads((entry.path / "timing.json").read_text())["images"] == 48 + 36
        facts = entry.facts()
        assert facts["trained_on"] == [source.name, stylized.name]
        assert (facts["start"], facts["eps"], facts["norm"]) == (start.name, "0", None)

    def test_it_starts_from_the_weights_that_it_is_given(self, source, start):
        """At a learning rate near 0 they hardly move, but for BatchNorm's running statistics."""
        entry = self.train(source, "both-then-native", start=start, rate=1e-12)
        before, after = (load_backbone(one).state_dict() for one in (start, entry))
        moved = [name for name in before if not torch.allclose(before[name].float(), after[name].float(), atol=1e-6)]
        assert moved
        assert all("running_" in name or name.endswith("num_batches_tracked") for name in moved)

    def test_from_scratch_it_starts_as_any_other(self, source):
        one, other = self.train(source, "stylized"), backbone(source, training={"epochs": 1})
        for name, tensor in load_backbone(one).state_dict().items():
            torch.testing.assert_close(load_backbone(other).state_dict()[name], tensor, rtol=0, atol=0)

    def test_a_backbone_of_other_classes_is_refused(self, source, start):
        root = source.path.parents[2]
        for split in ("train", "test"):
            images, labels = encoded_squares(24, seed=7)
            write_parquet(root / f"named/{split}.parquet", images, [f"class {label}" for label in labels])
        other = prepared(root, {"kind": "parquet", "path": str(root / "named")})
        with pytest.raises(StoreError, match=r"3 outputs are not the 3 classes .*start: scratch"):
            self.train(other, "stylized", start=start)

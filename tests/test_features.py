"""Features against the network's own, one image at a time; what does not fit or does not belong is refused."""

import json
import logging

import numpy as np
import pytest
import torch
from prepared_datasets import encoded, new_entry, pixels, prepared, write_parquet
from robust_transfer import features as stage
from robust_transfer.configuration.transfer import FeaturesSettings
from robust_transfer.datasets.arrow import open_split
from robust_transfer.feature_store import integers, open_features, strings, write_features
from robust_transfer.features import FeatureError, extract
from robust_transfer.networks.backbones import save_weights
from robust_transfer.networks.build import build
from robust_transfer.store import StoreError, open_entry

CLASSES = ["a", "b", "c"]
COUNTS = {"train": 21, "validation": 6, "test": 9}


def trained(seed=0):
    """A network whose BatchNorm statistics are not the initial ones, in eval mode."""
    network = build("resnet8_w4", 5, seed=seed)
    with torch.no_grad():
        for _ in range(3):
            network(torch.rand(16, 3, 16, 16, generator=torch.Generator().manual_seed(seed)))
    return network.eval()


def backbone_entry(root, network):
    entry = new_entry(root, "pretraining", {})
    facts = {"architecture": network.architecture, "classes": list("vwxyz"), "input_size": 16}
    with entry.writing() as draft:
        save_weights(draft.file("weights.safetensors"), network, facts)
        draft.facts = facts
    return entry


@pytest.fixture
def inputs(tmp_path):
    """A backbone and a dataset of images of different sizes."""
    torch.set_num_threads(1)
    for seed, (split, count) in enumerate(COUNTS.items()):
        images = [encoded(pixels(17 + i % 5, 20, seed=100 * seed + i)) for i in range(count)]
        write_parquet(tmp_path / "origin" / f"{split}.parquet", images, [CLASSES[i % 3] for i in range(count)])
    dataset = prepared(tmp_path, {"kind": "parquet", "path": str(tmp_path / "origin")})
    return {"backbone": backbone_entry(tmp_path, trained()), "dataset": dataset}


def made(root, inputs, **settings):
    entry = new_entry(root, "features", {"precision": "fp32", **settings}, **inputs)
    stage.run(entry, threads=1, device="cpu")
    return open_entry(entry.path)


def one_by_one(network, dataset, split):
    """Features [N, D] as the network gives them for single images of the stored size and crop."""
    images = stage.square_images(open_split(dataset, split), 16, 256 / 224)
    with torch.no_grad():
        return np.concatenate(
            [network.features(torch.tensor(image / 255.0).float().permute(2, 0, 1)[None]).numpy() for image in images]
        )


def test_features_are_the_networks_own_in_the_datasets_order(tmp_path, inputs, caplog):
    caplog.set_level(logging.INFO, "robust_transfer")
    entry = made(tmp_path, inputs, dtype="float32")
    for split, count in COUNTS.items():
        features, labels = open_features(entry, split)
        assert features.shape == (count, 16)
        assert features.dtype == np.float32
        assert labels.tolist() == open_split(inputs["dataset"], split).labels.tolist()
        np.testing.assert_allclose(features, one_by_one(trained(), inputs["dataset"], split), rtol=1e-4, atol=1e-5)
        assert features.std(0).min() > 0
    facts = entry.facts()
    assert (facts["dimension"], facts["counts"], facts["classes"]) == (16, COUNTS, CLASSES)
    timing = json.loads((entry.path / "timing.json").read_text())
    assert timing["images"] == 36
    assert timing["images_per_second"] > 0
    assert caplog.messages[-1].startswith("16 features of 36 images at 16 px, ")


def test_half_precision_is_the_default_and_rounds_only(tmp_path, inputs):
    half, _ = open_features(made(tmp_path, inputs), "test")
    single, _ = open_features(made(tmp_path, inputs, dtype="float32"), "test")
    assert half.dtype == np.float16
    np.testing.assert_array_equal(half, single.astype(np.float16))


def test_bf16_computes_about_the_same_and_not_the_same(tmp_path, inputs):
    coarse, _ = open_features(made(tmp_path, inputs, precision="bf16"), "test")
    fine, _ = open_features(made(tmp_path, inputs), "test")
    assert 0 < np.abs(coarse - fine).max() < 0.1 * np.abs(fine).max()


def test_large_splits_are_decoded_block_by_block_to_the_same_features(tmp_path, inputs, monkeypatch):
    whole = made(tmp_path, inputs, dtype="float32")
    monkeypatch.setattr(stage, "RESIDENT_BYTES", 4 * 3 * 16 * 16)
    blocks = made(tmp_path, inputs, dtype="float32")
    for split in COUNTS:
        np.testing.assert_allclose(
            open_features(blocks, split)[0], open_features(whole, split)[0], rtol=1e-4, atol=1e-5
        )


def test_features_are_mapped_and_take_no_memory(tmp_path, inputs):
    features, _ = open_features(made(tmp_path, inputs), "train")
    assert not features.flags.writeable
    assert not features.flags.owndata


def test_a_feature_too_large_for_half_precision_names_its_image(tmp_path, inputs):
    network = trained()
    values = extract(network, iter([np.zeros((3, 16, 16, 3), np.uint8)]), FeaturesSettings(dtype="float32"))
    assert np.isfinite(values).all()

    class Large(torch.nn.Module):
        def forward(self, images):
            found = images.mean((2, 3))
            found[images[:, 0, 0, 0] > 0.5] = 70_000
            return found

    network.body, network.normalise = Large(), torch.nn.Identity()
    images = np.zeros((40, 16, 16, 3), np.uint8)
    images[33] = 255
    blocks = [images[:20], images[20:]]
    with pytest.raises(
        FeatureError, match=r"dtd, test: image 33 has a feature of size 70000.*features\.dtype: float32"
    ):
        extract(network, iter(blocks), FeaturesSettings(dtype="float16"), where="dtd, test")
    assert extract(network, iter(blocks), FeaturesSettings(dtype="float32"))[33].tolist() == [70_000] * 3


def test_features_that_are_not_finite_name_the_image_and_leave_nothing(tmp_path, inputs):
    network = trained()
    with torch.no_grad():
        next(network.body.parameters())[0] = torch.nan
    entry = new_entry(
        tmp_path,
        "features",
        {"precision": "fp32"},
        backbone=backbone_entry(tmp_path, network),
        dataset=inputs["dataset"],
    )
    with pytest.raises(FeatureError, match="train: image 0 has features that are not finite"):
        stage.run(entry, threads=1, device="cpu")
    assert sorted(path.name for path in entry.path.iterdir()) == [".lock", "entry.json"]


@pytest.mark.parametrize(("role", "file"), [("backbone", "weights.safetensors"), ("dataset", "test.arrow")])
def test_inputs_that_their_cards_do_not_describe_are_refused(tmp_path, inputs, role, file):
    path = inputs[role].path / file
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(StoreError, match=file):
        made(tmp_path, inputs)


def test_features_of_another_backbone_than_the_one_beside_them_are_refused(tmp_path, inputs):
    entry = made(tmp_path, inputs)
    backbone = inputs["backbone"]
    with backbone.writing() as draft:
        save_weights(draft.file("weights.safetensors"), trained(seed=1), backbone.facts())
        draft.facts = backbone.facts()
    with pytest.raises(StoreError, match=r"made from another backbone than .*make the features again"):
        open_features(entry, "test")
    (backbone.path / "card.json").unlink()  # moved away: nothing to compare with
    assert len(open_features(entry, "test")[1]) == 9


def test_altered_features_are_refused(tmp_path, inputs):
    entry = made(tmp_path, inputs)
    path = entry.path / "train.arrow"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(StoreError, match=r"train\.arrow.*altered"):
        open_features(entry, "train")


def test_several_record_batches_read_as_one(tmp_path):
    import pyarrow as pa

    features = np.random.default_rng(0).normal(size=(10, 3)).astype(np.float16)
    write_features(tmp_path / "whole.arrow", features, np.arange(10))
    whole = pa.ipc.open_file(str(tmp_path / "whole.arrow")).get_batch(0)
    entry = new_entry(tmp_path, "features", {})
    with entry.writing() as draft:
        with pa.ipc.new_file(str(draft.file("train.arrow")), whole.schema) as writer:
            writer.write_batch(whole.slice(0, 4))
            writer.write_batch(whole.slice(4))
        draft.facts = {"origin": {}}
    read, labels = open_features(entry, "train")
    np.testing.assert_array_equal(read, features)
    assert labels.tolist() == list(range(10))


def test_arrow_arrays_hold_what_they_were_made_of():
    assert strings(["validation", "", "tést"]).to_pylist() == ["validation", "", "tést"]
    assert integers(np.array([3, -1, 2**31 - 1])).to_pylist() == [3, -1, 2**31 - 1]

"""Features against the network's own, one image at a time; killed anywhere, the same bits; what is refused, and how."""

import json
import logging
import random
import re
import resource
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from robust_transfer.configuration.running import VARIABLE
from robust_transfer.configuration.transfer import FeaturesSettings
from robust_transfer.datasets.arrow import open_split
from robust_transfer.datasets.resident import square_images
from robust_transfer.networks.build import build
from robust_transfer.networks.layers import LayerError
from robust_transfer.resuming import shards
from robust_transfer.resuming.interruption import EXIT_CODE, Interrupted
from robust_transfer.stages import features as stage
from robust_transfer.stages.features import FeatureError, computed
from robust_transfer.store.entry import StoreError, open_entry
from robust_transfer.store.features import integers, open_features, strings, write_features
from support.backbones import stored_backbone, write_backbone
from support.kills import (
    assert_same_outputs,
    finish,
    kill_until_done,
    kills_until,
    moment_in_features,
    said,
    saved_rows,
    start,
    wait_until,
)
from support.prepared_datasets import encoded, new_entry, pixels, prepared, squares, write_parquet, written

CLASSES = ["a", "b", "c"]
COUNTS = {"train": 21, "validation": 6, "test": 9}


def trained(seed=0):
    """A network whose BatchNorm statistics are not the initial ones, in eval mode."""
    network = build("resnet8_w4", 5, seed=seed)
    with torch.no_grad():
        for _ in range(3):
            network(torch.rand(16, 3, 16, 16, generator=torch.Generator().manual_seed(seed)))
    return network.eval()


@pytest.fixture
def inputs(tmp_path):
    """A backbone and a dataset of images of different sizes."""
    torch.set_num_threads(1)
    for seed, (split, count) in enumerate(COUNTS.items()):
        images = [encoded(pixels(17 + i % 5, 20, seed=100 * seed + i)) for i in range(count)]
        write_parquet(tmp_path / "origin" / f"{split}.parquet", images, [CLASSES[i % 3] for i in range(count)])
    dataset = prepared(tmp_path, {"kind": "parquet", "path": str(tmp_path / "origin")})
    return {"backbone": stored_backbone(tmp_path, trained()), "dataset": dataset}


def made(root, inputs, **settings):
    entry = new_entry(root, "features", {"precision": "fp32", **settings}, **inputs)
    stage.run(entry, threads=1, device="cpu")
    return open_entry(entry.path)


def one_by_one(network, dataset, split):
    """Features [N, D] as the network gives them for single images of the stored size and crop."""
    images = square_images(open_split(dataset, split), 16, 256 / 224)
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


@pytest.mark.parametrize("workers", [0, 2])
def test_a_split_that_is_not_held_in_memory_gives_the_same_bits(tmp_path, inputs, monkeypatch, caplog, workers):
    monkeypatch.setattr(stage, "BATCH_PIXELS", 0)  # 16 images
    whole = made(tmp_path, inputs)
    monkeypatch.setattr(stage, "RESIDENT_MB", 0)
    monkeypatch.setenv(VARIABLE, json.dumps({"workers": workers}))
    caplog.set_level(logging.INFO, "robust_transfer")
    streamed = made(tmp_path, inputs)
    assert f"21 images are read as they are needed, by {f'{workers} processes' if workers else 'this process'}" in (
        caplog.messages
    )
    for split in COUNTS:
        assert (streamed.path / f"{split}.arrow").read_bytes() == (whole.path / f"{split}.arrow").read_bytes()


def test_a_layer_by_name_is_averaged_over_places(tmp_path, inputs):
    entry, network, seen = made(tmp_path, inputs, dtype="float32", layer="blocks.0"), trained(), []
    network.body.blocks[0].register_forward_hook(lambda module, given, output: seen.append(output.mean((2, 3)).numpy()))
    one_by_one(network, inputs["dataset"], "test")
    features, _ = open_features(entry, "test")
    assert features.shape == (9, 4)
    assert entry.facts()["dimension"] == 4
    np.testing.assert_allclose(features, np.concatenate(seen), rtol=1e-4, atol=1e-5)


def test_a_layer_that_the_network_does_not_have_is_refused_with_near_ones(tmp_path, inputs):
    with pytest.raises(LayerError, match=r"features\.layer = block\.1: resnet8_w4 at 16 px .*did you mean blocks\.1, "):
        made(tmp_path, inputs, layer="block.1")


def test_features_are_mapped_and_take_no_memory(tmp_path, inputs):
    features, _ = open_features(made(tmp_path, inputs), "train")
    assert not features.flags.writeable
    assert not features.flags.owndata


def test_a_feature_too_large_for_half_precision_names_its_image():
    batches = [torch.zeros(20, 3), torch.zeros(20, 3)]
    batches[1][13] = 70_000
    with pytest.raises(
        FeatureError, match=r"dtd, test: image 33 has a feature of size 70000.*features\.dtype: float32"
    ):
        list(computed(torch.Tensor.float, batches, FeaturesSettings(dtype="float16"), where="dtd, test"))
    with pytest.raises(FeatureError, match="image 133 has"):
        list(computed(torch.Tensor.float, batches, FeaturesSettings(dtype="float16"), first=100))
    found = list(computed(torch.Tensor.float, batches, FeaturesSettings(dtype="float32")))
    assert found[1][13].tolist() == [70_000] * 3


def test_features_that_are_not_finite_name_the_image_and_leave_nothing(tmp_path, inputs):
    network = trained()
    with torch.no_grad():
        next(network.body.parameters())[0] = torch.nan
    entry = new_entry(
        tmp_path,
        "features",
        {"precision": "fp32"},
        backbone=stored_backbone(tmp_path, network),
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
    write_backbone(backbone, trained(seed=1))
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


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_writing_mapped_rows_takes_no_memory(tmp_path):
    def anonymous():
        status = Path("/proc/self/status").read_text()
        return int(re.findall(r"RssAnon:\s+(\d+)", status)[0]) // 1024

    n, dimension = 2**15, 1024  # 64 MB
    (tmp_path / "rows").write_bytes(bytes(n * dimension * 2))
    rows = np.memmap(tmp_path / "rows", np.float16, "r", shape=(n, dimension))
    before = anonymous()
    write_features(tmp_path / "train.arrow", rows, np.zeros(n, np.int64))
    assert anonymous() - before < 8


@pytest.fixture(scope="module")
def roles(tmp_path_factory):
    """A backbone and 400 images."""
    root = tmp_path_factory.mktemp("features")
    images, labels = squares(400)
    return {"backbone": stored_backbone(root, trained()), "dataset": written(root, [*images.numpy()], [*labels])}


class TestInterrupted:
    """Of 400 images in 25 batches, a shard each."""

    @pytest.fixture(autouse=True)
    def small_batches(self, monkeypatch):
        torch.set_num_threads(1)
        monkeypatch.setattr(stage, "BATCH_PIXELS", 0)

    @pytest.fixture
    def expected(self, roles):
        return made(roles["dataset"].path.parents[2], roles)

    def entry(self, roles):
        return new_entry(roles["dataset"].path.parents[2], "features", {"precision": "fp32"}, **roles)

    def slowly(self):
        """Let each batch take a twentieth of a second more."""
        check = stage._check

        def checked(*given):
            time.sleep(0.05)
            check(*given)

        stage._check = checked

    def test_killed_at_random_it_ends_with_the_same_bits(self, roles, expected):
        entry = self.entry(roles)

        def what_is_there_is_whole():
            if (entry.path / "train.arrow").exists():
                assert (entry.path / "train.arrow").read_bytes() == (expected.path / "train.arrow").read_bytes()

        draws = random.Random(0)
        kills = kill_until_done(entry, moment_in_features, draws, most=100, after_kill=what_is_there_is_whole)
        assert_same_outputs(entry, expected)
        assert 3 <= kills < 100
        assert re.search(r"going on after \d+ rows of train", said(entry))

    @pytest.mark.faults
    def test_a_hundred_kills_change_no_bit(self, roles, expected, capsys):
        draws = random.Random(1)
        kills, jobs = kills_until(100, lambda: self.entry(roles), expected, moment_in_features, draws)
        with capsys.disabled():
            print(f"\n{kills} kills in {jobs} jobs: 0 bits changed")

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
    def test_a_signal_saves_and_leaves(self, roles, expected, number):
        entry = self.entry(roles)
        process = start(entry, running={}, before=self.slowly)
        wait_until(process, lambda: saved_rows(entry) >= 32)
        assert process.send(number) == EXIT_CODE
        assert re.search(rf"{number.name} received: \d+ rows of train saved; run the same", said(entry))
        assert not (entry.path / "train.arrow").exists()
        finish(entry)
        assert "going on after" in said(entry)
        assert_same_outputs(entry, expected)

    def test_a_deadline_saves_and_leaves(self, roles, expected):
        entry = self.entry(roles)
        assert start(entry, "--stop-before", "2020-01-01T00:00").wait() == EXIT_CODE
        assert "the time limit is near: 16 rows of train saved" in said(entry)
        finish(entry)
        assert_same_outputs(entry, expected)

    def stopped(self, roles, monkeypatch, batches=3):
        """An entry whose job has left after so many batches, each saved as a shard by a process of its own."""
        entry = self.entry(roles)
        monkeypatch.setenv(VARIABLE, json.dumps({"stop_before": "2020-01-01T00:00"}))
        for _ in range(batches):
            with pytest.raises(Interrupted):
                stage.run(entry, threads=1, device="cpu")
        monkeypatch.delenv(VARIABLE)
        return entry

    def goes_on(self, entry, caplog, threads=1):
        with caplog.at_level(logging.INFO, "robust_transfer"):
            stage.run(entry, threads=threads, device="cpu")
        return caplog.text

    @pytest.mark.parametrize(("damage", "good"), [("a bit", 16), ("cut short", 32), ("emptied", 0), ("gone", 0)])
    def test_a_damaged_shard_is_noticed_and_computed_again(self, roles, expected, monkeypatch, caplog, damage, good):
        entry = self.stopped(roles, monkeypatch)
        path = entry.path / ".state" / "train.rows"
        content = bytearray(path.read_bytes())
        if damage == "a bit":
            content[len(content) // 2] ^= 1
        path.write_bytes(content[: {"a bit": None, "cut short": -1}.get(damage, 0)])
        if damage == "gone":
            path.unlink()
        log = self.goes_on(entry, caplog)
        assert f"{path}: cut short or altered; it is computed again from row {good} on" in log
        assert f"going on after {good} rows of train" in log
        assert_same_outputs(entry, expected)

    @pytest.mark.parametrize("content", ["", "{}", '{"own": ', "[1]"])
    def test_a_damaged_journal_starts_over(self, roles, expected, monkeypatch, caplog, content):
        entry = self.stopped(roles, monkeypatch)
        (entry.path / ".state" / "journal.json").write_text(content)
        assert "journal.json: not readable; its rows are computed again" in self.goes_on(entry, caplog)
        assert_same_outputs(entry, expected)

    def test_rows_of_other_code_are_dropped(self, roles, expected, monkeypatch, caplog):
        entry = self.stopped(roles, monkeypatch)
        monkeypatch.setattr(shards, "fingerprint", lambda stage: "000000000000")
        log = self.goes_on(entry, caplog)
        assert "rows of other code; they are computed again" in log
        assert "going on" not in log
        assert_same_outputs(entry, expected)

    def test_rows_of_other_inputs_are_dropped(self, roles, monkeypatch, tmp_path, caplog):
        images, labels = squares(60)
        roles = {
            "backbone": stored_backbone(tmp_path, trained()),
            "dataset": written(tmp_path, [*images.numpy()], labels.tolist()),
        }
        entry, backbone = self.stopped(roles, monkeypatch), roles["backbone"]
        write_backbone(backbone, trained(seed=1))
        assert "rows of other inputs; they are computed again" in self.goes_on(entry, caplog)
        assert_same_outputs(entry, made(tmp_path, roles))

    def test_another_number_of_threads_is_said_and_recorded(self, roles, monkeypatch, caplog):
        entry = self.stopped(roles, monkeypatch)
        log = self.goes_on(entry, caplog, threads=2)
        assert "rows were computed with threads 1, now 2: they may differ in their last bits" in log
        assert open_entry(entry.path).facts()["resumed"] == [{"threads": [1, 2]}]

    def test_a_disk_that_is_full_is_said_and_good_rows_stay(self, roles, expected, monkeypatch):
        """A limit on file sizes fails a write half way, as a full disk does."""
        entry = self.stopped(roles, monkeypatch)
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (8000, limits[1]))  # 250 rows
            process = start(entry, running={})
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert process.wait() == 1
        refused = r"StoreError: .*train\.rows: 512 bytes could not be written \(File too large; [\d,]+ bytes"
        assert re.search(refused, said(entry))
        assert saved_rows(entry) == 240
        finish(entry)
        assert "going on after 240 rows of train" in said(entry)
        assert_same_outputs(entry, expected)

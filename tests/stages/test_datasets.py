"""The datasets stage: choosing images by seed, the stored format and its checks, loading, and every origin."""

import json
import logging
import os
import pickle
import signal
import sys
import time
import types
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from robust_transfer.dag.checks import torchvision_datasets
from robust_transfer.datasets.arrow import checksum, entry_splits, open_split
from robust_transfer.datasets.errors import DatasetError
from robust_transfer.datasets.images import to_store
from robust_transfer.datasets.resident import square_images
from robust_transfer.datasets.splits import balanced_subset, few_images, few_in_total_mask, few_mask, validation_mask
from robust_transfer.datasets.storing import SplitWriter, in_order, raw_shape
from robust_transfer.stages import datasets as prepare
from robust_transfer.store.entry import Entry, StoreError, open_entry, write_json
from support.kills import Process, wait_until
from support.paths import ROOT
from support.prepared_datasets import encoded, new_entry, pixels, prepared, write_folder, write_parquet, written

SHARED = Path(os.environ.get("SHARED_DATA", ROOT.parent / "shared" / "data"))

# Choosing by seed


def label_vectors(count: int) -> list[np.ndarray]:
    """Random label vectors: few to many classes, even to very uneven, with gaps in the numbering."""
    found = []
    for seed in range(count):
        random = np.random.default_rng(seed)
        names = np.sort(random.choice(1000, random.integers(1, 40), replace=False))
        sizes = np.ceil(random.exponential(random.uniform(1, 30), len(names))).astype(int)
        found.append(random.permutation(np.repeat(names, sizes)))
    return found


def test_validation_masks_are_stratified_and_nested():
    for seed, labels in enumerate(label_vectors(150)):
        classes, sizes = np.unique(labels, return_counts=True)
        smaller = np.zeros(len(labels), bool)
        for fraction in (0.05, 0.2, 0.5, 0.9):
            mask = validation_mask(labels, fraction, seed)
            taken = np.array([mask[labels == c].sum() for c in classes])
            assert (taken >= np.minimum(1, sizes - 1)).all()  # one of each class, where it has one to give away
            assert (taken < sizes).all()
            free = (taken > 1) & (taken < sizes - 1)
            assert (np.abs(taken - fraction * sizes)[free] <= 0.5).all()
            assert mask[smaller].all()
            np.testing.assert_array_equal(mask, validation_mask(labels, fraction, seed))
            smaller = mask


def test_few_images_of_each_class_are_that_many():
    labels = np.repeat([0, 1, 2], [4, 20, 9])
    assert np.bincount(labels[few_mask(labels, 9, 0)]).tolist() == [4, 9, 9]
    assert few_mask(labels, 20, 0).all()
    with pytest.raises(ValueError, match="images_per_class = 21: no class has more than 20 training images"):
        few_mask(labels, 21, 0)


def test_few_images_in_total_are_that_many_nested_and_alike_for_every_class():
    labels = np.repeat([0, 1, 2], [400, 2000, 900])
    before = np.zeros(len(labels), bool)
    for images in (2, 100, 800, 3300):
        mask = few_in_total_mask(labels, images, 1)
        assert mask.sum() == images
        assert mask[before].all()
        before = mask
    drawn = np.bincount(labels[few_in_total_mask(labels, 800, 1)])
    assert np.abs(drawn - 800 * np.array([400, 2000, 900]) / 3300).max() < 3 * (800 * 0.24) ** 0.5
    assert (few_in_total_mask(labels, 800, 1) != few_in_total_mask(labels, 800, 2)).any()
    with pytest.raises(ValueError, match="training_images = 3301: there are 3300 training images"):
        few_in_total_mask(labels, 3301, 0)
    assert few_images(labels, None, None, 0) is None
    np.testing.assert_array_equal(few_images(labels, 3, None, 0), np.flatnonzero(few_mask(labels, 3, 0)))
    np.testing.assert_array_equal(few_images(labels, None, 7, 0), np.flatnonzero(few_in_total_mask(labels, 7, 0)))


def test_limits_are_balanced_and_nested():
    for seed, labels in enumerate(label_vectors(150)):
        classes, sizes = np.unique(labels, return_counts=True)
        smaller = np.empty(0, np.int64)
        for limit in (len(classes), len(classes) + 3, 2 * len(classes), len(labels) - 1, len(labels), len(labels) + 9):
            if limit < max(len(classes), len(smaller)):
                continue
            rows = balanced_subset(labels, limit, seed)
            assert len(rows) == min(limit, len(labels))
            assert (np.diff(rows) > 0).all()
            taken = np.array([(labels[rows] == c).sum() for c in classes])
            assert taken.min() >= 1
            assert (taken[taken < sizes] >= taken.max() - 1).all()  # only a class that has no more gives less
            assert np.isin(smaller, rows).all()
            smaller = rows


def test_a_limit_below_the_number_of_classes_says_how_many_there_are():
    with pytest.raises(ValueError, match="2 images cannot hold one of each of 3 classes"):
        balanced_subset(np.array([0, 1, 2, 2]), 2, 0)


def test_choices_depend_on_the_seed_and_never_change():
    labels = np.arange(40) % 4
    assert len({validation_mask(labels, 0.2, seed).tobytes() for seed in range(-2, 8)}) == 10
    assert len({balanced_subset(labels, 8, seed).tobytes() for seed in range(-2, 8)}) == 10
    # golden: other rows would silently change every transfer that was measured with them
    assert np.flatnonzero(validation_mask(labels, 0.2, 0)).tolist() == GOLDEN_MASK
    assert balanced_subset(labels, 6, 0).tolist() == GOLDEN_SUBSET


GOLDEN_MASK = [5, 12, 16, 17, 22, 31, 34, 39]
GOLDEN_SUBSET = [6, 10, 24, 27, 29, 33]

# The stored format


@pytest.fixture
def images() -> list[np.ndarray]:
    return [pixels(10, 12, seed=i) for i in range(50)]


@pytest.mark.parametrize("batch_bytes", [1, 3 * 360, 2**26])
@pytest.mark.parametrize("raw", [True, False])
def test_images_and_labels_come_back(tmp_path, images, raw, batch_bytes):
    labels = [i % 7 for i in range(50)]
    split = open_split(
        written(tmp_path, images if raw else [encoded(image) for image in images], labels, batch_bytes), "train"
    )
    assert split.shape == ((10, 12) if raw else None)
    assert len(split) == 50
    assert split.labels.dtype == np.int64
    assert split.labels.tolist() == labels
    assert split.classes == tuple(f"class {i}" for i in range(7))
    for i in np.random.default_rng(0).permutation(50):
        np.testing.assert_array_equal(split.image(i), images[i])
        np.testing.assert_array_equal(np.asarray(split.picture(i)), images[i])
        assert split.size(i) == (10, 12)
    if raw:
        np.testing.assert_array_equal(np.concatenate(list(split.stacks())), np.stack(images))
    for outside in (-1, 50):
        with pytest.raises(IndexError, match="holds 50"):
            split.image(outside)


def test_reading_does_not_hand_out_the_file_itself(tmp_path, images):
    split = open_split(written(tmp_path, images, [0] * 50), "train")
    split.image(3)[:] = 0
    np.testing.assert_array_equal(split.image(3), images[3])
    with pytest.raises(ValueError, match="read-only"):
        split.labels[0] = 1


def test_a_split_travels_to_another_process(tmp_path, images):
    split = pickle.loads(pickle.dumps(open_split(written(tmp_path, images, [0] * 50), "train")))
    np.testing.assert_array_equal(split.image(49), images[49])


def test_an_empty_split_can_be_read(tmp_path):
    with_images = written(tmp_path, [pixels(8, 8)], [0])
    entry = new_entry(tmp_path, "datasets", {})
    with entry.writing() as draft:
        with SplitWriter(draft.file("train.arrow"), None) as writer:
            pass
        draft.facts = {**with_images.facts(), "counts": {"train": 0}, "checksums": {"train": writer.checksums}}
    assert len(open_split(entry, "train")) == 0


def change(entry: Entry, find: bytes, by: int = 0) -> None:
    """Flip a bit where those bytes stand in the train split, or `by` bytes after."""
    path = entry.path / "train.arrow"
    data = bytearray(path.read_bytes())
    position = data.find(find)
    assert position >= 0
    data[position + by] ^= 1
    path.write_bytes(data)


def test_altered_images_are_noticed_when_their_batch_is_read(tmp_path, images):
    entry = written(tmp_path, images, [0] * 50, batch_bytes=10 * 360)
    change(entry, images[25].tobytes(), by=7)
    split = open_split(entry, "train")
    np.testing.assert_array_equal(split.image(19), images[19])  # another record batch
    for _ in range(2):
        with pytest.raises(StoreError, match=r"images 20 to 29 do not match.*store renew "):
            split.image(22)
    with pytest.raises(StoreError, match="20 to 29"):
        split.verify()
    with pytest.raises(StoreError, match="20 to 29"):
        square_images(split, 12, 1.0)


def test_altered_labels_and_footers_are_noticed_on_opening(tmp_path, images):
    labels = [1000 + i for i in range(50)]
    entry = written(tmp_path, images, labels)
    change(entry, np.array(labels, np.int32).tobytes())
    with pytest.raises(StoreError, match="labels 0 to 49 do not match"):
        open_split(entry, "train")
    entry = written(tmp_path, images, labels)
    path = entry.path / "train.arrow"
    data = bytearray(path.read_bytes())
    data[-20] ^= 1
    path.write_bytes(data)
    with pytest.raises(StoreError, match="the footer do"):
        open_split(entry, "train")


def test_no_bit_of_a_file_can_change_unnoticed(tmp_path):
    """One byte after the other: reading everything fails with a StoreError, or gives what was written."""
    images = [pixels(4, 4, seed=i) for i in range(6)]
    entry = written(tmp_path, images, list(range(6)), batch_bytes=3 * 48)
    path = entry.path / "train.arrow"
    good = path.read_bytes()
    noticed = 0
    for position in range(0, len(good), 2):
        data = bytearray(good)
        data[position] ^= 0x10
        path.write_bytes(data)
        try:
            split = open_split(entry, "train")
            found = [split.image(i) for i in range(6)]
        except StoreError:
            noticed += 1
            continue
        np.testing.assert_array_equal(np.stack(found), np.stack(images))
        assert split.labels.tolist() == list(range(6))
    assert noticed > len(good) / 6


@pytest.mark.parametrize("left", [0, 5, 300, -1])
def test_truncated_files_are_noticed(tmp_path, images, left):
    entry = written(tmp_path, images, [0] * 50)
    path = entry.path / "train.arrow"
    path.write_bytes(path.read_bytes()[:left])
    with pytest.raises(StoreError, match="cut short"):
        open_split(entry, "train")


def recorded(entry: Entry, data: bytes) -> Entry:
    """The entry with another train file, which its card takes for the right one by its size."""
    (entry.path / "train.arrow").write_bytes(data)
    card = entry.card()
    card["files"]["train.arrow"]["bytes"] = len(data)
    write_json(entry.path / "card.json", card)
    return entry


def test_foreign_files_are_refused(tmp_path, images):
    entry = written(tmp_path, images, [0] * 50)
    good = (entry.path / "train.arrow").read_bytes()
    for foreign in (b"not arrow at all" * 20, b"", b"ARROW1", good[:-6] + b"ARROW2"):
        with pytest.raises(StoreError, match="does not end as an Arrow file"):
            open_split(recorded(entry, foreign), "train")
    other = written(tmp_path, images[::-1], [0] * 50)  # same size, same schema, other images
    (other.path / "train.arrow").rename(entry.path / "train.arrow")
    card = entry.card()
    card["files"]["train.arrow"]["bytes"] = len(good)
    write_json(entry.path / "card.json", card)
    with pytest.raises(StoreError, match="do not match"):
        open_split(entry, "train").image(0)


def test_a_card_that_counts_otherwise_is_noticed(tmp_path, images):
    entry = written(tmp_path, images, [0] * 50)
    card = entry.card()
    card["facts"]["counts"]["train"] = 49
    write_json(entry.path / "card.json", card)
    with pytest.raises(StoreError, match="50 images where the card counts 49"):
        open_split(entry, "train")


def test_a_batch_is_checked_once(tmp_path, images, monkeypatch):
    split = open_split(written(tmp_path, images, [0] * 50, batch_bytes=10 * 360), "train")
    asked = []

    def counted(*arrays):
        asked.append(1)
        return checksum(*arrays)

    monkeypatch.setattr("robust_transfer.datasets.arrow.checksum", counted)
    for i in [*range(50), *range(50)]:
        split.image(i)
    assert len(asked) == 5


def test_other_formats_and_missing_splits_are_named(tmp_path, images, monkeypatch):
    monkeypatch.setattr("robust_transfer.datasets.storing.FORMAT", "2")
    entry = written(tmp_path, images, [0] * 50)
    with pytest.raises(StoreError, match="dataset format 2, where this code reads 1"):
        open_split(entry, "train")
    with pytest.raises(StoreError, match="validation"):
        open_split(entry, "validation")
    assert entry_splits(entry) == ["train"]


def test_the_writer_refuses_what_does_not_fit(tmp_path):
    with SplitWriter(tmp_path / "a.arrow", (8, 8)) as writer:
        with pytest.raises(ValueError, match=r"\(9, 8, 3\) in a split of \(8, 8\)"):
            writer.add(pixels(9, 8), 0)
        with pytest.raises(ValueError, match="float64"):
            writer.add(pixels(8, 8).astype(float), 0)
        with pytest.raises(TypeError, match="bytes given"):
            writer.add(b"x", 0)


def anonymous_mb() -> float:
    status = Path("/proc/self/status").read_text()
    return int(status.split("RssAnon:")[1].split()[0]) / 1024


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="RssAnon is Linux's")
def test_anonymous_memory_does_not_grow_with_the_file(tmp_path):
    block = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    entry = written(tmp_path, [block] * 8000, [0] * 8000, batch_bytes=2**24)
    assert (entry.path / "train.arrow").stat().st_size > 90e6
    before = anonymous_mb()
    split = open_split(entry, "train")
    for i in np.random.default_rng(0).permutation(8000):
        assert split.image(i)[0, 0, 0] == block[0, 0, 0]
    assert anonymous_mb() - before < 10


def test_raw_storage_needs_one_small_shape():
    assert raw_shape([(32, 32)] * 5) == (32, 32)
    assert raw_shape([(32, 32), (32, 33)]) is None
    assert raw_shape([(32, 65)] * 5) is None
    assert raw_shape([]) is None
    sizes = iter([(100, 100), (1, 1)])
    assert raw_shape(sizes) is None
    assert list(sizes) == [(1, 1)]  # a large set is told by its first image


def test_threads_keep_the_order_and_stay_close():
    asked = []

    def items():
        for i in range(100):
            asked.append(i)
            yield i

    def slowly(i):
        time.sleep(0.001 * (i % 3))
        return i

    results = in_order(slowly, items(), threads=3)
    assert next(results) == 0
    assert len(asked) < 30
    assert list(results) == list(range(1, 100))
    with pytest.raises(ZeroDivisionError):
        list(in_order(lambda i: 1 / (i - 5), items(), threads=3))


# Loading


def test_squares_are_those_of_torchvision(tmp_path):
    from torchvision.transforms import CenterCrop, Compose, Resize

    sizes = [(32, 32), (33, 47), (47, 33), (12, 16), (31, 200), (64, 65), (101, 99), (7, 7), (1, 9), (38, 37)]
    odd = [pixels(*size, seed=i) for i, size in enumerate(sizes)]
    entry = written(tmp_path, [encoded(image) for image in odd], [0] * len(odd))
    even = written(tmp_path, [pixels(35, 38, seed=i) for i in range(5)], [0] * 5, batch_bytes=2 * 35 * 38 * 3)
    for split in (open_split(entry, "train"), open_split(even, "train")):
        for side, ratio in [(32, 1.0), (28, 256 / 224), (35, 1.0), (33, 1.1), (31, 35 / 31)]:
            transform = Compose([Resize(round(side * ratio)), CenterCrop(side)])
            expected = [np.asarray(transform(split.picture(i))) for i in range(len(split))]
            np.testing.assert_array_equal(square_images(split, side, ratio), np.stack(expected))
            np.testing.assert_array_equal(square_images(split, side, ratio, threads=2), np.stack(expected))


def test_raw_squares_of_the_right_size_are_copied(tmp_path, monkeypatch):
    images = [pixels(32, 32, seed=i) for i in range(20)]
    split = open_split(written(tmp_path, images, [0] * 20, batch_bytes=7 * 3072), "train")
    monkeypatch.setattr(type(split), "picture", None)  # no work an image
    np.testing.assert_array_equal(square_images(split, 32, 1.0), np.stack(images))
    with pytest.raises(ValueError, match="below 1"):
        square_images(split, 32, 0.9)


# Origins


def test_generated_images_are_stored_as_they_come(tmp_path, monkeypatch):
    made = {
        split: np.stack([pixels(16, 16, seed=seed + i) for i in range(8)])
        for split, seed in (("train", 0), ("test", 50))
    }

    def generate(origin, split):
        return made[split], np.arange(8) % 2, [f"{origin.task} {i}" for i in range(2)]

    generator = types.SimpleNamespace(generate=generate)
    monkeypatch.setitem(sys.modules, "robust_transfer.datasets.origins.shapes", generator)
    entry = prepared(tmp_path, {"kind": "shapes", "task": "coarse", "train": 8, "test": 8, "side": 16}, test_limit=4)
    assert entry.facts()["classes"] == ["coarse 0", "coarse 1"]
    assert entry.facts()["counts"] == {"train": 8, "test": 4}
    assert entry.facts()["origin"] == {"kind": "shapes", "task": "coarse"}
    np.testing.assert_array_equal(square_images(open_split(entry, "train"), 16, 1.0), made["train"])


def folder(path: Path, **settings: object) -> dict[str, object]:
    return {"kind": "folder", "path": str(path), **settings}


def parquet(path: Path, **settings: object) -> dict[str, object]:
    return {"kind": "parquet", "path": str(path), **settings}


def test_a_folder_with_train_and_test(tmp_path):
    write_folder(tmp_path / "set" / "train", {"dog": 3, "cat": 4})
    write_folder(tmp_path / "set" / "test", {"cat": 1, "dog": 2})
    (tmp_path / "set" / "info.json").write_text('{"licence": "CC0"}')
    entry = prepared(tmp_path, folder(tmp_path / "set"))
    facts = entry.facts()
    assert facts["classes"] == ["cat", "dog"]
    assert facts["counts"] == {"train": 7, "test": 3}
    assert facts["licence"] == "CC0"
    assert facts["shape"] == [20, 24]
    assert facts["origin"] == folder(tmp_path / "set")
    assert facts["images_per_class"]["train"] == {"min": 3, "max": 4}
    assert facts["short_side"] == {"min": 20, "median": 20, "max": 20}
    assert facts["classes_without_test"] == []
    assert facts["ignored_files"] == facts["skipped"] == 0
    split = open_split(entry, "train")
    assert split.labels.tolist() == [0] * 4 + [1] * 3
    np.testing.assert_array_equal(split.image(4), np.asarray(Image.open(tmp_path / "set" / "train" / "dog" / "0.png")))
    timing = json.loads((entry.path / "timing.json").read_text())
    assert timing["images"] == 10
    assert timing["images_per_second"] > 0


def test_val_is_the_test_set_unless_there_is_one(tmp_path):
    for name, count in (("train", 4), ("val", 2)):
        write_folder(tmp_path / "set" / name, {"cat": count, "dog": count})
    assert prepared(tmp_path, folder(tmp_path / "set")).facts()["counts"] == {"train": 8, "test": 4}
    write_folder(tmp_path / "set" / "test", {"cat": 3, "dog": 3})
    entry = prepared(tmp_path, folder(tmp_path / "set"))
    assert entry.facts()["counts"] == {"train": 8, "validation": 4, "test": 6}
    assert entry_splits(entry) == ["train", "validation", "test"]
    assert len(open_split(entry, "validation")) == 4


@pytest.mark.parametrize("below", ["", "train"])
def test_without_test_images_a_share_of_each_class_is_set_aside(tmp_path, below):
    write_folder(tmp_path / "set" / below, {"cat": 10, "dog": 5, "emu": 1})
    entry = prepared(tmp_path, folder(tmp_path / "set", test_fraction=0.4))
    facts = entry.facts()
    assert facts["counts"] == {"train": 6 + 3 + 1, "test": 4 + 2}
    assert facts["classes_without_test"] == ["emu"]
    parts = [open_split(entry, split) for split in ("train", "test")]
    together = {split.image(i).tobytes() for split in parts for i in range(len(split))}
    assert len(together) == 16  # every image is in one of them
    other = prepared(tmp_path, folder(tmp_path / "set", test_fraction=0.4, seed=1))
    assert other.card()["files"] != entry.card()["files"]


def test_a_class_called_train_is_a_class(tmp_path):
    write_folder(tmp_path / "set", {"bus": 5, "train": 5})
    assert prepared(tmp_path, folder(tmp_path / "set")).facts()["classes"] == ["bus", "train"]


def test_a_lived_in_folder(tmp_path, caplog):
    root = write_folder(tmp_path / "set", {"cat": 4, "dog": 4})
    (root / "cat" / ".hidden.png").write_bytes(b"x")
    (root / "cat" / "Thumbs.db").write_bytes(b"x")
    (root / "README.txt").write_text("x")
    (root / "info.json").write_text("{}")
    (root / ".git").mkdir()
    (root / "dog" / "more").mkdir()
    (root / "dog" / "more" / "UPPER.JPEG").write_bytes(encoded(pixels(20, 24), "JPEG"))
    (root / "dog" / "loop").symlink_to(root / "dog")
    elsewhere = write_folder(tmp_path / "elsewhere", {"emu": 3})
    (root / "emu").symlink_to(elsewhere / "emu")
    with caplog.at_level(logging.INFO, "robust_transfer"):
        facts = prepared(tmp_path, folder(root)).facts()
    assert facts["classes"] == ["cat", "dog", "emu"]
    assert sum(facts["counts"].values()) == 4 + 5 + 3
    assert facts["ignored_files"] == 4
    assert "4 files that are no images were ignored" in caplog.text


def test_parquet_with_names_beside_it(tmp_path):
    files = [encoded(pixels(16, 16, seed=i)) for i in range(12)]
    write_parquet(tmp_path / "set" / "train.parquet", files[:9], [2, 1, 0] * 3)
    write_parquet(tmp_path / "set" / "test.parquet", files[9:], [0, 2, 0])
    (tmp_path / "set" / "info.json").write_text(json.dumps({"classes": ["a", "b", "c"], "licence": "none stated"}))
    entry = prepared(tmp_path, parquet(tmp_path / "set"))
    assert entry.facts()["classes"] == ["a", "b", "c"]
    assert entry.facts()["classes_without_test"] == ["b"]
    assert entry.facts()["licence"] == "none stated"
    split = open_split(entry, "train")
    assert split.labels.tolist() == [2, 1, 0] * 3
    np.testing.assert_array_equal(split.image(8), pixels(16, 16, seed=8))


def test_parquet_as_hugging_face_writes_it(tmp_path):
    rows = [{"bytes": encoded(pixels(70, 80, seed=i)), "path": f"{i}.png"} for i in range(9)]
    described = {
        "info": {
            "features": {"label": {"names": ["ant", "bee"], "_type": "ClassLabel"}, "image": {"_type": "Image"}},
            "license": "mit",
        }
    }
    data = tmp_path / "set"
    write_parquet(data / "train-00000-of-00002.parquet", rows[:4], [0, 1, 0, 1], huggingface=described)
    write_parquet(data / "train-00001-of-00002.parquet", rows[4:6], [1, 0], huggingface=described)
    write_parquet(data / "test-00000-of-00001.parquet", rows[6:8], [1, 0], huggingface=described)
    write_parquet(data / "validation.parquet", rows[8:], [1], huggingface=described)
    entry = prepared(tmp_path, parquet(data))
    assert entry.facts()["classes"] == ["ant", "bee"]
    assert entry.facts()["licence"] == "mit"
    assert entry.facts()["encoding"] == "encoded"
    split = open_split(entry, "train")
    assert split.labels.tolist() == [0, 1, 0, 1, 1, 0]
    for i in range(6):
        assert split.stored(i) == rows[i]["bytes"]  # the original file, untouched
    assert len(open_split(entry, "validation")) == 1
    for seed in range(5):
        limited = open_split(prepared(tmp_path, parquet(data), train_limit=3, seed=seed), "train")
        chosen = balanced_subset(split.labels, 3, seed)
        assert [limited.stored(i) for i in range(3)] == [rows[i]["bytes"] for i in chosen]


def test_parquet_with_names_or_odd_numbers_as_labels(tmp_path):
    files = [encoded(pixels(8, 8, seed=i)) for i in range(4)]
    for labels, names in (([["b", "a", "b"], ["a"]], ["a", "b"]), ([[9, 2, 9], [2]], ["2", "9"])):
        root = tmp_path / names[0]
        write_parquet(root / "train.parquet", files[:3], labels[0])
        write_parquet(root / "test.parquet", files[3:], labels[1])
        entry = prepared(tmp_path, parquet(root))
        assert entry.facts()["classes"] == names
        assert open_split(entry, "train").labels.tolist() == [1, 0, 1]
        assert open_split(entry, "test").labels.tolist() == [0]


def food(root: Path) -> Path:
    """Food-101 in its original layout, with six images."""
    base = root / "food-101"
    (base / "meta").mkdir(parents=True)
    for c, name in enumerate(("pie", "soup")):
        (base / "images" / name).mkdir(parents=True)
        for i in range(3):
            (base / "images" / name / f"{i}.jpg").write_bytes(encoded(pixels(70, 66, seed=10 * c + i), "JPEG"))
    for split, rows in (("train", (0, 1)), ("test", (2,))):
        listing = {name: [f"{name}/{i}" for i in rows] for name in ("pie", "soup")}
        (base / "meta" / f"{split}.json").write_text(json.dumps(listing))
    return root


def vision(dataset: str, root: Path, **settings: object) -> dict[str, object]:
    return {"kind": "torchvision", "dataset": dataset, "root": str(root), **settings}


def test_torchvision_with_its_own_files(tmp_path):
    splits = {"train": {"split": "train"}, "test": {"split": "test"}}
    entry = prepared(tmp_path, vision("Food101", food(tmp_path / "data"), **splits))
    assert entry.facts()["classes"] == ["pie", "soup"]
    assert entry.facts()["counts"] == {"train": 4, "test": 2}
    split = open_split(entry, "train")
    assert split.labels.tolist() == [0, 0, 1, 1]
    assert split.stored(3) == (tmp_path / "data/food-101/images/soup/1.jpg").read_bytes()


def test_torchvision_with_pixels(tmp_path):
    made = {"size": 6, "image_size": [3, 12, 10], "num_classes": 2}
    splits = {"train": made, "test": {**made, "size": 4, "random_offset": 50}}
    entry = prepared(tmp_path, vision("FakeData", tmp_path, **splits))
    from torchvision.datasets import FakeData

    expected = FakeData(size=6, image_size=(3, 12, 10), num_classes=2)
    split = open_split(entry, "train")
    assert split.shape == (12, 10)
    for i in range(6):
        image, label = expected[i]
        np.testing.assert_array_equal(split.image(i), np.asarray(image))
        assert split.labels[i] == int(label)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dataset": "Cifar10"}, "no such class; did you mean CIFAR10"),
        ({"dataset": "CIFAR10"}, r"CIFAR10, train: is not complete in .*set download: true"),
        ({"dataset": "Food101"}, "takes no train: set origin.train to what selects the train images, of split"),
        ({"dataset": "ImageFolder", "download": True, "train": {}, "test": {"loader": 1}}, "downloads nothing"),
        ({"dataset": "CIFAR10", "test": {"train": True}}, "both select"),
        (
            {"dataset": "CIFAR10", "download": True, "root": "/proc/nowhere"},
            r"could not be downloaded; put its files into /proc/nowhere by other means",
        ),
    ],
)
def test_torchvision_says_what_is_missing(tmp_path, settings, message):
    with pytest.raises(DatasetError, match=message):
        prepared(tmp_path, {**vision("", tmp_path / "data"), **settings})


def broken_folder(root: Path, case: str) -> dict[str, object]:
    if case == "missing":
        return folder(root / "nowhere")
    root.mkdir()
    if case == "file":
        (root / "file").write_text("x")
        return folder(root / "file")
    if case == "no class folders":
        (root / "a.png").write_bytes(encoded(pixels(8, 8)))
    if case == "no images":
        (root / "cat").mkdir()
    if case == "class without images":
        write_folder(root, {"cat": 3, "dog": 0})
    if case == "only test":
        write_folder(root / "test", {"cat": 1})
    if case in ("unlabelled test", "strange test class", "empty test"):
        write_folder(root / "train", {"cat": 3, "dog": 3})
        write_folder(root / "test", {"cow": 1, "cat": 1} if case == "strange test class" else {})
    if case == "unlabelled test":
        (root / "test").mkdir()
        (root / "test" / "a.png").write_bytes(encoded(pixels(8, 8)))
    if case == "empty test":
        (root / "test" / "cat").mkdir(parents=True)
    if case == "bad info":
        write_folder(root, {"cat": 3})
        (root / "info.json").write_text("{")
    return folder(root)


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("missing", r"nowhere: no such folder; expected are class folders with images, or train/"),
        ("file", "file: not a folder"),
        ("empty", "no class folders"),
        ("no class folders", "no class folders"),
        ("no images", "no images in class folders"),
        ("class without images", "no training images of dog"),
        ("only test", "test with class folders but no train/"),
        ("unlabelled test", "test: no class folders, so its images have no labels"),
        ("strange test class", r"classes that .*train lacks: cow"),
        ("empty test", r"test: no images in class folders"),
        ("bad info", "info.json: not JSON"),
    ],
)
def test_folders_that_are_no_dataset(tmp_path, case, message):
    with pytest.raises(DatasetError, match=message):
        prepared(tmp_path, broken_folder(tmp_path / "set", case))


def broken_parquet(root: Path, case: str) -> dict[str, object]:
    if case == "missing":
        return parquet(root / "nowhere")
    file = encoded(pixels(8, 8))
    train: list[int | float | str | None] = [0, 1, 1]
    test: list[int | str] = [0, 1]
    names = ["a", "b"]
    if case == "label outside":
        test = [0, 2]
    if case == "unlabelled":
        test = [-1, 0]
    if case == "unknown name":
        train, test = ["a", "b", "b"], ["a", "c"]
    if case == "unknown without names":
        train, test, names = ["a", "b", "b"], ["a", "c"], []
    if case == "no label":
        train = [0, None, 1]
    if case == "float":
        train = [0.0, 1.0, 1.0]
    if case == "class without images":
        names = ["a", "b", "zebra"]
    if case == "names twice":
        train, test, names = ["a", "b", "b"], ["a", "b"], ["a", "b", "a"]
    write_parquet(root / "train.parquet", [1, 2, 3] if case == "no image" else [file] * 3, train)
    if case != "no test":
        write_parquet(root / "test.parquet", [file] * 2, test)
    if case == "garbage":
        (root / "test.parquet").write_bytes(b"PAR1 no")
    info = "[]" if case == "info list" else json.dumps({"classes": [1, 2] if case == "info numbers" else names})
    (root / "info.json").write_text(info)
    return parquet(root, **({"label_column": "fine_label"} if case == "column" else {}))


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("missing", "nowhere: no such folder; expected is one that holds train.parquet"),
        ("no test", r"no test.parquet, and no shards test-\*.parquet; it holds info.json, train.parquet"),
        ("garbage", "test.parquet: not readable as parquet"),
        ("column", "no column 'fine_label'; set origin.label_column to one of image, label"),
        ("label outside", r"test.parquet: label 2 in row 1, but info.json names 2 classes, 0 to 1"),
        ("unlabelled", r"test.parquet: label -1 in row 0, but info.json names 2 classes"),
        ("unknown name", r"test.parquet: label 'c' in row 1, not among the 2 classes that info.json names"),
        ("unknown without names", r"test.parquet: label 'c' in row 1, not a label of train"),
        ("no label", r"train.parquet: 1 rows without a label, the first is row 1"),
        ("float", "column 'label' is double; labels are integers or class names"),
        ("no image", "column 'image' is int64; images are encoded files"),
        ("class without images", "no training images of zebra"),
        ("names twice", "info.json names classes twice, so labels are ambiguous: a"),
        ("info list", "info.json: holds a list"),
        ("info numbers", "info.json: classes is not a list of names"),
    ],
)
def test_parquet_that_is_no_dataset(tmp_path, case, message):
    with pytest.raises(DatasetError, match=message):
        prepared(tmp_path, broken_parquet(tmp_path / "set", case))


# The stage


def test_limits_are_applied_to_the_stored_images(tmp_path):
    root = tmp_path / "set"
    files = [encoded(pixels(16, 16, seed=i)) for i in range(60)]
    write_parquet(root / "train.parquet", files[:40], [i % 4 for i in range(40)])
    write_parquet(root / "test.parquet", files[40:], [i % 4 for i in range(20)])
    sets = []
    for limit in (8, 18):
        entry = prepared(tmp_path, parquet(root), train_limit=limit, test_limit=limit // 2)
        assert entry.facts()["counts"] == {"train": limit, "test": limit // 2}
        split = open_split(entry, "train")
        assert np.ptp(np.bincount(split.labels)) <= 1
        sets.append({split.image(i).tobytes() for i in range(limit)})
    assert sets[0] < sets[1]
    with pytest.raises(DatasetError, match="train_limit: 3 images cannot hold one of each of 4 classes"):
        prepared(tmp_path, parquet(root), train_limit=3)
    assert prepared(tmp_path, parquet(root), train_limit=1000).facts()["counts"]["train"] == 40


def test_images_beyond_a_limit_are_not_decoded(tmp_path):
    root = tmp_path / "set"
    files = [encoded(pixels(16, 16, seed=i)) for i in range(20)]
    chosen = balanced_subset(np.arange(20) % 2, 6, 0)
    broken = [file if i in chosen else b"broken" for i, file in enumerate(files)]
    write_parquet(root / "train.parquet", broken, [i % 2 for i in range(20)])
    write_parquet(root / "test.parquet", files[:2], [0, 1])
    split = open_split(prepared(tmp_path, parquet(root), train_limit=6), "train")
    for i, row in enumerate(chosen):
        np.testing.assert_array_equal(split.image(i), pixels(16, 16, seed=row))


def test_the_same_settings_give_the_same_bytes(tmp_path):
    root = tmp_path / "set"
    write_folder(root, {"cat": 12, "dog": 9}, size=(90, 70))
    settings = {"stored_side": 40, "train_limit": 10}
    first = prepared(tmp_path, folder(root), **settings)
    for threads in (1, 3):
        again = prepared(tmp_path, folder(root), threads=threads, **settings)
        assert again.card()["files"] == first.card()["files"]
        assert again.facts() == first.facts()
    assert first.facts()["short_side"] == {"min": 40, "median": 40, "max": 40}
    assert first.facts()["shape"] == [51, 40]


def contents(entry: Entry) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in entry.path.iterdir() if not path.name.startswith(".")}


def test_a_failed_preparation_leaves_the_entry_as_it_was(tmp_path):
    root = write_folder(tmp_path / "set", {"cat": 3, "dog": 3})
    entry = prepared(tmp_path, folder(root))
    before = contents(entry)
    (root / "cat" / "0.png").write_bytes(b"broken")
    with pytest.raises(DatasetError):
        prepare.run(entry, threads=1, device="cpu")
    assert contents(entry) == before
    fresh = new_entry(tmp_path, "datasets", {"origin": folder(root)})
    with pytest.raises(DatasetError):
        prepare.run(fresh, threads=1, device="cpu")
    assert contents(fresh).keys() == {"entry.json"}


def test_a_killed_preparation_leaves_nothing_half_written(tmp_path):
    root = write_folder(tmp_path / "set", {"cat": 3, "dog": 3})
    entry = new_entry(tmp_path, "datasets", {"origin": folder(root)})

    def slowly(*args, **settings):
        time.sleep(1)
        return to_store(*args, **settings)

    def run():
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(prepare, "to_store", slowly)
            prepare.run(entry, threads=1, device="cpu")

    process = Process(run, tmp_path / "log")
    wait_until(process, (entry.path / ".draft" / "train.arrow").exists, seconds=30)
    assert process.kill() == -signal.SIGKILL
    visible = [path.name for path in entry.path.iterdir() if not path.name.startswith(".")]
    assert visible == ["entry.json"]
    prepare.run(open_entry(entry.path), threads=1, device="cpu")
    assert len(open_split(entry, "train")) == 4
    assert not (entry.path / ".draft").exists()


def test_progress_of_a_big_set_is_logged(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("robust_transfer.datasets.storing.PROGRESS_SECONDS", 0.0)
    with caplog.at_level(logging.INFO, "robust_transfer"):
        prepared(tmp_path, folder(write_folder(tmp_path / "set", {"cat": 3, "dog": 3})))
    assert "train: 2 of 4 images" in caplog.text


@pytest.mark.skipif(not (SHARED / "dtd10").is_dir(), reason=f"no real images in {SHARED}; SHARED_DATA says where")
def test_a_real_set(tmp_path):
    entry = prepared(tmp_path, parquet(SHARED / "dtd10"), train_limit=100, stored_side=32)
    assert entry.facts()["counts"] == {"train": 100, "test": 400}
    assert entry.facts()["short_side"] == {"min": 32, "median": 32, "max": 32}
    squares = square_images(open_split(entry, "train"), 32, 1.0)
    assert 60 < squares.mean() < 200
    assert pa.ipc.open_file(str(entry.path / "train.arrow")).schema.names == ["image", "label"]


def test_planning_knows_the_names_that_torchvision_has():
    from torchvision import datasets

    assert {*torchvision_datasets()} == {*datasets.__all__}

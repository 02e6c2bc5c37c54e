"""The granularity stage: the same images and labels with less detail."""

import numpy as np
import pytest
from PIL import Image
from robust_transfer.datasets.arrow import entry_splits, open_split
from robust_transfer.datasets.resident import square_images
from robust_transfer.stages import granularity
from robust_transfer.store.entry import Entry, StoreError
from support.prepared_datasets import encoded, new_entry, pixels, prepared, write_folder, write_parquet


def downscaled(root, dataset: Entry, size: int, threads: int = 1, **settings: str) -> Entry:
    entry = new_entry(root, "granularity", {"size": size, **settings}, dataset=dataset)
    granularity.run(entry, threads=threads, device="cpu")
    return entry


@pytest.fixture
def dataset(tmp_path) -> Entry:
    """Three splits of images that differ in size; some are smaller than the 12 pixels they are brought down to."""
    root = tmp_path / "set"
    sizes = [(20, 30), (40, 25), (12, 50), (10, 11), (90, 90), (13, 12), (9, 40), (64, 48), (30, 31)]
    files = [encoded(pixels(*size, seed=i)) for i, size in enumerate(sizes)]
    for split, rows in (("train", slice(0, 5)), ("validation", slice(5, 7)), ("test", slice(7, 9))):
        write_parquet(root / f"{split}.parquet", files[rows], [i % 2 for i in range(len(files[rows]))])
    return prepared(tmp_path, {"kind": "parquet", "path": str(root)})


def test_images_are_brought_down_and_never_up(tmp_path, dataset):
    small = downscaled(tmp_path, dataset, 12)
    assert entry_splits(small) == entry_splits(dataset) == ["train", "validation", "test"]
    for name in entry_splits(dataset):
        before, after = open_split(dataset, name), open_split(small, name)
        np.testing.assert_array_equal(after.labels, before.labels)
        for i in range(len(before)):
            picture = before.picture(i)
            if min(picture.size) > 12:
                scale = 12 / min(picture.size)
                picture = picture.resize(
                    (int(picture.width * scale), int(picture.height * scale)), Image.Resampling.BILINEAR
                )
            np.testing.assert_array_equal(after.image(i), np.asarray(picture))


def test_smaller_images_are_enlarged_as_by_torchvision_where_the_settings_say_so(tmp_path, dataset):
    from torchvision.transforms import Resize

    small = downscaled(tmp_path, dataset, 12, smaller="enlarge")
    assert (small.facts()["short_side"]["min"], small.facts()["short_side"]["max"]) == (12, 12)
    for name in entry_splits(dataset):
        before, after = open_split(dataset, name), open_split(small, name)
        for i in range(len(before)):
            np.testing.assert_array_equal(after.image(i), np.asarray(Resize(12)(before.picture(i))))


def test_the_card_says_what_changed_and_keeps_the_rest(tmp_path, dataset):
    facts, before = downscaled(tmp_path, dataset, 12).facts(), dataset.facts()
    assert facts["downscaled_to"] == 12
    assert facts["short_side"]["max"] == 12
    assert facts["short_side"]["min"] == 9
    for key in ("classes", "counts", "origin", "licence", "classes_without_test", "images_per_class"):
        assert facts[key] == before[key]


def test_images_of_one_shape_are_stored_raw(tmp_path):
    root = write_folder(tmp_path / "set", {"cat": 6, "dog": 6}, size=(96, 96))
    dataset = prepared(tmp_path, {"kind": "folder", "path": str(root)})
    assert dataset.facts()["encoding"] == "encoded"
    small = downscaled(tmp_path, dataset, 12)
    assert small.facts()["encoding"] == "raw"
    assert small.facts()["shape"] == [12, 12]
    split = open_split(dataset, "train")
    expected = split.picture(3).resize((12, 12), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(open_split(small, "train").image(3), np.asarray(expected))
    smaller = downscaled(tmp_path, small, 8)  # of a derived dataset as of any other
    assert smaller.facts()["shape"] == [8, 8]


def test_detail_is_lost(tmp_path):
    """A grating of two pixels' period is gone after downscaling to an eighth and enlarging again; a blob is not."""
    y, x = np.mgrid[0:96, 0:96]
    blob = 200.0 * (np.hypot(x - 40, y - 50) < 25)
    grating = 50.0 * (x % 2)
    images = [np.stack([values.astype(np.uint8)] * 3, -1) for values in (blob, blob + grating)]
    for split in ("train", "test"):
        write_parquet(tmp_path / "set" / f"{split}.parquet", [encoded(image) for image in images], [0, 1])
    dataset = prepared(tmp_path, {"kind": "parquet", "path": str(tmp_path / "set")})
    small = downscaled(tmp_path, dataset, 12)

    def contrasts(entry: Entry) -> tuple[float, float]:
        plain, grated = square_images(open_split(entry, "train"), 96, 1.0).astype(float)
        return float((grated - plain).std()), float(plain.std())

    (detail, shape), (detail_left, shape_left) = contrasts(dataset), contrasts(small)
    assert detail == pytest.approx(25, abs=1)
    assert detail_left < 1
    assert shape_left > 0.8 * shape


def test_the_result_does_not_depend_on_threads(tmp_path, dataset):
    files = [downscaled(tmp_path, dataset, 10, threads).card()["files"] for threads in (1, 2)]
    assert files[0] == files[1]


def test_a_missing_or_altered_dataset_is_named(tmp_path, dataset):
    unmade = new_entry(tmp_path, "datasets", {})
    entry = new_entry(tmp_path, "granularity", {"size": 12}, dataset=unmade)
    with pytest.raises(StoreError, match="not made yet"):
        granularity.run(entry, threads=1, device="cpu")
    path = dataset.path / "test.arrow"
    data = bytearray(path.read_bytes())
    data[data.find(b"IDAT") + 6] ^= 1
    path.write_bytes(data)
    entry = new_entry(tmp_path, "granularity", {"size": 12}, dataset=dataset)
    with pytest.raises(StoreError, match=r"test.arrow.*images 0 to 1 do not match"):
        granularity.run(entry, threads=1, device="cpu")
    assert not (entry.path / "card.json").exists()

"""Folders and parquet files that are laid out otherwise than they look: recognised, or refused with what to do."""

import logging
from pathlib import Path

import pyarrow as pa
import pytest
from robust_transfer.datasets.errors import DatasetError
from robust_transfer.datasets.images import to_store
from robust_transfer.datasets.names import split_of
from support.prepared_datasets import encoded, pixels, prepared, write_folder, write_parquet

FLOWERS = {"daisy": 3, "rose": 3, "tulip": 3}


def folder(path: Path) -> dict[str, str]:
    return {"kind": "folder", "path": str(path)}


def parquet(path: Path) -> dict[str, str]:
    return {"kind": "parquet", "path": str(path)}


@pytest.mark.parametrize(
    ("name", "split"),
    [
        *((name, "train") for name in ("train", "Train", "TRAINING", "training_set", "train-images", "seg_train")),
        *((name, "test") for name in ("test", "Testing", "test set", "TestSet", "test2017")),
        *((name, "validation") for name in ("val", "Valid", "validation", "dev", "val_images", "val2017")),
        *((name, None) for name in ("daisy", "trainer", "train_car", "data", "images", "1", "contest", "valley")),
    ],
)
def test_names_of_splits(name: str, split: str | None) -> None:
    assert split_of(name) == split


@pytest.mark.parametrize(
    ("train", "validation", "test"),
    [("training", None, "testing"), ("Train", None, "valid"), ("TRAIN", "Valid", "Test"), ("train_set", "dev", "tst")],
)
def test_splits_in_the_usual_spellings(train: str, validation: str | None, test: str, tmp_path: Path) -> None:
    write_folder(tmp_path / "set" / train, FLOWERS)
    write_folder(tmp_path / "set" / test, {"daisy": 2, "rose": 1})
    counts = {"train": 9, "test": 3}
    if validation:
        write_folder(tmp_path / "set" / validation, {"tulip": 2})
        counts["validation"] = 2
    facts = prepared(tmp_path, folder(tmp_path / "set")).facts()
    assert facts["classes"] == ["daisy", "rose", "tulip"]
    assert facts["counts"] == counts


def test_folders_beside_the_splits_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for split in ("train", "test", "extra"):
        write_folder(tmp_path / "set" / split, FLOWERS)
    with caplog.at_level(logging.WARNING, "robust_transfer"):
        prepared(tmp_path, folder(tmp_path / "set"))
    assert "left out, since test, train hold the classes: extra" in caplog.text


def one_level_too_high(root: Path) -> None:
    write_folder(root / "flowers", FLOWERS)


def splits_one_level_too_high(root: Path) -> None:
    write_folder(root / "flowers" / "train", FLOWERS)
    write_folder(root / "flowers" / "test", FLOWERS)


def nested_in_a_split(root: Path) -> None:
    for split in ("train", "test"):
        write_folder(root / split / "images", FLOWERS)


def one_class(root: Path) -> None:
    write_folder(root, {"daisy": 5})


def splits_of_images(root: Path) -> None:
    write_folder(root, {"training": 4, "testing": 4})


def splits_of_images_among_classes(root: Path) -> None:
    write_folder(root, {"train": 4, "val": 4, "daisy": 2})


def splits_within_classes(root: Path) -> None:
    for name in FLOWERS:
        write_folder(root / name, {"train": 3, "test": 2})


def two_names_of_a_split(root: Path) -> None:
    for name in ("train", "Training", "test"):
        write_folder(root / name, FLOWERS)


def one_image_of_each(root: Path) -> None:
    write_folder(root, dict.fromkeys(FLOWERS, 1))


def photographs_of_another_kind(root: Path) -> None:
    for name in FLOWERS:
        (root / name).mkdir(parents=True)
        (root / name / "a.CR2").write_bytes(b"raw")


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (one_level_too_high, ["single class, flowers", "folders daisy, rose, tulip", "write path: {root}/flowers"]),
        (splits_one_level_too_high, ["a single class, flowers", "folders test, train", "write path: {root}/flowers"]),
        (nested_in_a_split, ["{root}/train: a single class, images", "folders daisy, rose, tulip", "or move them up"]),
        (one_class, ["a single class, daisy: there is nothing to tell it from", "expected are class folders"]),
        (splits_of_images, ["testing, training would be classes", "names of splits", "a folder for every class"]),
        (splits_of_images_among_classes, ["train, val would be classes"]),
        (splits_within_classes, ["class folders hold test, train, which are names of splits", "splits outside"]),
        (two_names_of_a_split, ["Training, train are all names of the train split", "move all but one"]),
        (one_image_of_each, ["no test images: every class has a single image", "at least three of each", "test/"]),
        (photographs_of_another_kind, ["no images in class folders (but files of other kinds: 3 .cr2", ".jpg"]),
    ],
)
def test_folders_that_cannot_be_meant(make, says: list[str], tmp_path: Path) -> None:
    make(tmp_path / "set")
    with pytest.raises(DatasetError) as error:
        prepared(tmp_path, folder(tmp_path / "set"))
    for words in says:
        assert words.format(root=tmp_path / "set") in str(error.value)


def test_a_class_called_train_is_a_class(tmp_path: Path) -> None:
    write_folder(tmp_path / "set", {"boat": 3, "train": 3})
    assert prepared(tmp_path, folder(tmp_path / "set")).facts()["classes"] == ["boat", "train"]


def test_more_files_are_images(tmp_path: Path) -> None:
    write_folder(tmp_path / "set", {"a": 3, "b": 3})
    (tmp_path / "set" / "a" / "x.JFIF").write_bytes(encoded(pixels(20, 24), "JPEG"))
    (tmp_path / "set" / "b" / "x.avif").write_bytes(encoded(pixels(20, 24), "AVIF"))
    facts = prepared(tmp_path, folder(tmp_path / "set")).facts()
    assert sum(facts["counts"].values()) == 8
    assert facts["ignored_files"] == 0


@pytest.mark.parametrize(
    ("suffix", "content", "kind"),
    [
        (".heic", b"\0\0\0\x24ftypheic\0\0\0\0", "HEIC"),
        (".HEIF", b"\0\0\0\x24ftypmif1\0\0\0\0", "HEIF"),
        (".jxl", b"\xff\x0a\0\0", "JPEG XL"),
    ],
)
def test_images_that_nothing_reads_are_named_with_what_to_do(
    suffix: str, content: bytes, kind: str, tmp_path: Path
) -> None:
    write_folder(tmp_path / "set", {"a": 3, "b": 3})
    (tmp_path / "set" / "a" / f"x{suffix}").write_bytes(content)
    with pytest.raises(DatasetError, match=f"1 of 7 images.*\n.*a {kind} image, which is not read here; convert it"):
        prepared(tmp_path, folder(tmp_path / "set"))
    facts = prepared(tmp_path, folder(tmp_path / "set"), unreadable="skip").facts()
    assert facts["skipped"] == 1


IMAGES = [encoded(pixels(20, 20, seed=i)) for i in range(4)]


def split(root: Path, *names: str, **labels: list[int]) -> None:
    for name in names:
        write_parquet(root / f"{name}.parquet", IMAGES, labels.get("labels", [0, 1, 0, 1]))


@pytest.mark.parametrize(
    ("names", "counts"),
    [
        (["Train", "valid-00000-of-00002", "valid-00001-of-00002"], {"train": 4, "test": 8}),
        (["training", "val", "testing"], {"train": 4, "validation": 4, "test": 4}),
        (["train-00001-of-00002", "train-00002-of-00002", "test"], {"train": 8, "test": 4}),
    ],
)
def test_parquet_in_the_usual_spellings(names: list[str], counts: dict[str, int], tmp_path: Path) -> None:
    split(tmp_path / "rows", *names)
    assert prepared(tmp_path, parquet(tmp_path / "rows")).facts()["counts"] == counts


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (
            [*(f"train-0000{i}-of-00004" for i in (0, 1, 3)), "test"],
            "train says it has 4 shards: missing: 2; fetch them again",
        ),
        (["train", "test-00000-of-00003"], "test says it has 3 shards: missing: 1, 2"),
        (["train", "train-00000-of-00001", "test"], "train-00000-of-00001.parquet, train.parquet are all files of the"),
        (["train", "Train", "test"], "Train.parquet, train.parquet are all files of the train split"),
        (["train-00000-of-00001", "training-00000-of-00001", "test"], "are all files of the train split: one file, or"),
        (["train-00000-of-00002", "train-00000-of-00001", "test"], "are not numbered as shards of one set"),
        (["train-00000-of-00001", "train-small", "test"], "are not numbered as shards of one set"),
        (["data/train", "data/test"], "no train.parquet, and no shards train-*.parquet; those in data/ are opened by"),
        (["flowers"], "it holds flowers.parquet; name files by their split"),
    ],
)
def test_parquet_files_that_cannot_be_meant(names: list[str], says: str, tmp_path: Path) -> None:
    split(tmp_path / "rows", *names)
    with pytest.raises(DatasetError) as error:
        prepared(tmp_path, parquet(tmp_path / "rows"))
    assert says in str(error.value)


def test_class_folders_opened_as_parquet_are_recognised(tmp_path: Path) -> None:
    write_folder(tmp_path / "rows", FLOWERS)
    with pytest.raises(DatasetError, match="class folders with images are opened by kind: folder"):
        prepared(tmp_path, parquet(tmp_path / "rows"))


def test_parquet_of_one_class_is_refused(tmp_path: Path) -> None:
    split(tmp_path / "rows", "train", "test", labels=[0] * 4)
    with pytest.raises(DatasetError, match="a single class, 0: there is nothing to tell it from"):
        prepared(tmp_path, parquet(tmp_path / "rows"))


@pytest.mark.parametrize(
    "column",
    [
        [{"path": f"{i}.png"} for i in range(4)],
        [{"path": f"{i}.png", "bytes": None} for i in range(4)],
        [f"{i}.png" for i in range(4)],
    ],
    ids=["no bytes", "null bytes", "strings"],
)
def test_parquet_of_paths_says_what_to_do(column: list[object], tmp_path: Path) -> None:
    fields = [("path", pa.string()), ("bytes", pa.binary())]
    kind = pa.struct(fields) if isinstance(column[0], dict) and "bytes" in column[0] else None
    for name in ("train", "test"):
        write_parquet(tmp_path / "rows" / f"{name}.parquet", pa.array(column, kind), [0, 1, 0, 1])
    with pytest.raises(DatasetError, match=r"store the files' bytes in the column .*, or open the images by kind: fol"):
        prepared(tmp_path, parquet(tmp_path / "rows"))


def test_an_avif_image_is_stored_as_it_is() -> None:
    image = encoded(pixels(20, 24), "AVIF")
    stored, height, width = to_store(image, side=None, exif_rotation=True, raw=False)
    assert (stored, height, width) == (image, 20, 24)

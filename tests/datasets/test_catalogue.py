"""The catalogue of datasets: its facts, every layout read by its real parser, and copies that are not what it says."""

import hashlib
import inspect
import io
import os
import pickle
import re
import sys
import tarfile
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from robust_transfer.configuration.catalogue import datasets as catalogue_module
from robust_transfer.configuration.catalogue.datasets import (
    FolderSource,
    HuggingFaceSource,
    LayoutSource,
    catalogue,
    catalogued,
)
from robust_transfer.configuration.catalogue.imagenet import imagenet_classes
from robust_transfer.configuration.datasets import CatalogueOrigin, Dataset
from robust_transfer.datasets.collection import Collection
from robust_transfer.datasets.errors import DatasetError
from robust_transfer.datasets.finding import missing, present_source
from robust_transfer.datasets.origins.catalogued import open_catalogued
from robust_transfer.datasets.origins.layouts import LAYOUTS
from robust_transfer.datasets.origins.layouts.imagenet import validation_wnids
from robust_transfer.stages import datasets as prepare
from support.catalogue_files import CALTECH_TRAIN, MAKERS, make, make_folders, python2_pickle
from support.prepared_datasets import encoded, new_entry, pixels, write_parquet


def origin_of(name: str, **settings: Any) -> CatalogueOrigin:
    """`birdsnap_official` is birdsnap's split `official`."""
    dataset, _, split = name.partition("_")
    stated = {"split": split} if split else {}
    return CatalogueOrigin.model_validate({"kind": "catalogue", "dataset": dataset, **stated, **settings})


def opened(name: str, folder: Path, *, downloads: bool = False, **settings: Any) -> Collection:
    return open_catalogued(origin_of(name, **settings), folder, downloads=downloads)


def images(collection: Collection, split: str) -> list[tuple[str, Image.Image]]:
    """Every image of a split, decoded, under the name that messages use."""
    chosen = np.arange(len(collection.splits[split].labels))
    found = []
    for name, given in collection.splits[split].images(chosen):
        data = given.read_bytes() if isinstance(given, Path) else given
        assert isinstance(data, bytes | Image.Image)
        found.append((name, Image.open(io.BytesIO(data)) if isinstance(data, bytes) else data))
    return found


def seen_class(image: Image.Image, classes: int) -> int:
    """The class whose hue an image of `catalogue_files` shows."""
    hue, saturation, _ = (np.asarray(channel).astype(int) for channel in image.convert("HSV").split())
    return int(np.median(hue[saturation > 180]) / 255 * classes)


@pytest.fixture
def recounted(monkeypatch: pytest.MonkeyPatch):
    """Give a dataset of the catalogue other facts: classes, or anything of its split `paper`."""

    def change(name: str, classes: int | None = None, **facts: Any) -> None:
        known = catalogued(name)
        split = known.splits["paper"].model_copy(update=facts)
        entry = known.model_copy(update={"classes": classes or known.classes, "splits": {"paper": split}})
        changed = catalogue().model_copy(update={"datasets": catalogue().datasets | {name: entry}})
        monkeypatch.setattr(catalogue_module, "catalogue", lambda: changed)

    return change


def counts(train: int, test: int, validation: int | None = None) -> catalogue_module.Counts:
    return catalogue_module.Counts(train=train, test=test, validation=validation)


# Facts

TABLE = {  # classes, train, validation, test, metric, label
    "imagenet": (1000, 1281167, None, 50000, "top1", "ImageNet"),
    "aircraft": (100, 3334, 3333, 3333, "mean_per_class", "Aircraft"),
    "birdsnap": (500, 32677, None, 8171, "top1", "Birdsnap"),
    "cifar10": (10, 50000, None, 10000, "top1", "CIFAR-10"),
    "cifar100": (100, 50000, None, 10000, "top1", "CIFAR-100"),
    "caltech101": (101, 3030, None, 5647, "mean_per_class", "Caltech-101"),
    "caltech256": (257, 15420, None, 15187, "mean_per_class", "Caltech-256"),
    "cars": (196, 8144, None, 8041, "top1", "Cars"),
    "dtd": (47, 1880, 1880, 1880, "top1", "DTD"),
    "flowers": (102, 1020, 1020, 6149, "mean_per_class", "Flowers"),
    "food": (101, 75750, None, 25250, "top1", "Food"),
    "pets": (37, 3680, None, 3669, "mean_per_class", "Pets"),
    "sun397": (397, 19850, None, 19850, "top1", "SUN397"),
    "painter-by-numbers": (1, 79433, None, 0, "top1", "Paintings"),  # of which 79,395 are usable
}


def test_the_catalogue_says_what_the_paper_says():
    assert sorted(catalogue().datasets) == sorted(TABLE)
    for name, (classes, train, validation, test, metric, label) in TABLE.items():
        known = catalogued(name)
        assert (known.classes, known.metric, known.label) == (classes, metric, label), name
        assert known.splits["paper"].counts == counts(train, test, validation), name
    assert catalogued("birdsnap").splits["official"].counts == counts(47386, 2443)
    assert {name for name in TABLE if "official" in catalogued(name).splits} == {"birdsnap"}
    assert {name for name in TABLE if catalogued(name).normalisation} == {"cifar10", "cifar100"}
    assert catalogued("cifar10").normalisation == {"mean": (0.4914, 0.4822, 0.4465), "std": (0.2023, 0.1994, 0.2010)}
    assert catalogued("cifar100").normalisation == {"mean": (0.5071, 0.4867, 0.4408), "std": (0.2675, 0.2565, 0.2761)}


def test_splits_by_rule_agree_with_the_numbers_of_images():
    for name, per_class in CALTECH_TRAIN.items():
        known = catalogued(name)
        assert known.splits["paper"].counts.train == per_class * known.classes
        source = known.splits["paper"].sources[0]
        assert isinstance(source, LayoutSource)
        assert source.options["images"] == per_class
    assert 30 * 101 + 5647 == 8677
    assert 60 * 257 + 15187 == 30607


def test_what_the_catalogue_names_exists():
    for name in TABLE:
        for split in catalogued(name).splits.values():
            kinds = [source.kind for source in split.sources]
            assert "folder" in kinds or catalogued(name).classes == 1 or split.says.startswith("the test images that")
            for source in split.sources:
                if isinstance(source, LayoutSource):
                    parameters = inspect.signature(LAYOUTS[source.layout]).parameters
                    assert set(parameters) >= {"incomplete", *source.options}
                    for file in source.files:
                        assert file.url.startswith("http")
                        assert file.md5 is None or re.fullmatch("[0-9a-f]{32}", file.md5)
                if isinstance(source, HuggingFaceSource):
                    assert re.fullmatch("[0-9a-f]{40}", source.revision)
                    assert {"train", "test"} <= set(source.splits)
    sources = [source for name in TABLE for source in catalogued(name).splits["paper"].sources]
    used = {source.layout for source in sources if isinstance(source, LayoutSource)} | {"birdsnap"}
    assert used == set(LAYOUTS)


def test_imagenet_classes_are_in_the_order_of_published_networks():
    wnids = imagenet_classes()
    assert len(set(wnids)) == 1000
    assert list(wnids) == sorted(wnids)
    assert (wnids[0], wnids[207], wnids[999]) == ("n01440764", "n02099601", "n15075141")
    assert (
        hashlib.md5("\n".join(wnids).encode()).hexdigest() == WNIDS_MD5
    )  # one wrong id would move all labels after it


WNIDS_MD5 = "9d0b4dfdf4f9039970fca981f7068107"


def test_a_dataset_takes_metric_normalisation_and_label_from_the_catalogue():
    taken = Dataset.model_validate({"origin": {"kind": "catalogue", "dataset": "cifar100"}})
    assert (taken.metric, taken.label, taken.normalisation.std) == ("top1", "CIFAR-100", (0.2675, 0.2565, 0.2761))


def test_an_unknown_dataset_is_answered_with_near_names():
    with pytest.raises(ValueError, match="the catalogue has no caltech-101; did you mean caltech101"):
        catalogued("caltech-101")


# Every layout, by its real parser


@pytest.mark.parametrize("name", sorted(set(MAKERS) - {"imagenet"}))
def test_each_layout_gives_every_image_its_split_and_its_class(tmp_path, name):
    make(name, tmp_path, classes=4, train=3, test=2, seed=7)
    source = present_source(origin_of(name), tmp_path)
    assert source is not None
    found = opened(name, tmp_path, partial=True)
    per_class = {"train": CALTECH_TRAIN.get(name, 3), "validation": 3, "test": 2}
    official = name in ("aircraft", "dtd", "flowers")
    assert list(found.splits) == (["train", "validation", "test"] if official else ["train", "test"])
    assert len(found.classes) == len(set(found.classes)) == 4
    names: list[str] = []
    for split, listed in found.splits.items():
        assert np.bincount(listed.labels, minlength=4).tolist() == [per_class[split]] * 4
        decoded = images(found, split)
        assert [seen_class(image, 4) for _, image in decoded] == listed.labels.tolist()
        names += [image for image, _ in decoded]
    assert len(names) == len(set(names))
    assert found.described == {
        "kind": "catalogue",
        "dataset": name.partition("_")[0],
        "split": name.partition("_")[2] or "paper",
        "revision": 1,
        "source": source.described,
    }
    assert str(tmp_path) not in str(found.described)
    assert found.licence == catalogued(name.partition("_")[0]).licence


NAMES = {
    "aircraft": ["700-0 Mk 0", "800-1 Mk 1", "900-2 Mk 2", "1000-3 Mk 3"],  # as in variants.txt, and not sorted
    "birdsnap_official": ["Acadian Flycatcher", "Cooper's Hawk", "Wilson's Plover", "Bird 3"],
    "caltech101": ["Faces", "Faces_easy", "accordion", "airplanes"],
    "caltech256": ["001.ak47", "056.dog", "198.spider-101", "257.clutter"],
    "cars": ["Make Model 0 2012", "Make Model 1 2012", "Make Model 2 2012", "Make Model 3 2012"],
    "cifar10": ["class 0", "class 1", "class 2", "class 3"],
    "dtd": ["banded", "blotchy", "polka-dotted", "zigzagged"],
    "flowers": ["pink primrose", "hard-leaved pocket orchid", "canterbury bells", "sweet pea"],
    "food": ["apple_pie", "baby_back_ribs", "sushi", "waffles"],
    "pets": ["Abyssinian", "american bulldog", "Bombay", "yorkshire terrier"],
    "sun397": ["abbey", "bow_window/indoor", "bow_window/outdoor", "youth_hostel"],
}


@pytest.mark.parametrize("name", NAMES)
def test_classes_have_readable_names_in_the_order_of_labels(tmp_path, name):
    make(name, tmp_path, train=1, test=1, side=16)
    assert list(opened(name, tmp_path, partial=True).classes) == NAMES[name]


TORCHVISION = {  # folder that its root holds, class, and what selects each split
    "aircraft": ("aircraft", "FGVCAircraft", {"train": "train", "validation": "val", "test": "test"}),
    "cars": ("cars", "StanfordCars", {"train": "train", "test": "test"}),
    "dtd": ("dtd", "DTD", {"train": "train", "validation": "val", "test": "test"}),
    "food": ("food", "Food101", {"train": "train", "test": "test"}),
    "pets": ("oxford-iiit-pet", "OxfordIIITPet", {"train": "trainval", "test": "test"}),
}


@pytest.mark.parametrize("name", TORCHVISION)
def test_torchvision_reads_the_same_files_alike(tmp_path, name):
    from torchvision import datasets

    below, maker, splits = TORCHVISION[name]
    folder = tmp_path / below
    make(name, folder, side=16, seed=3)
    found = opened(name, folder, partial=True)
    root = tmp_path if below in ("dtd", "oxford-iiit-pet") else folder
    for split, selected in splits.items():
        theirs = getattr(datasets, maker)(root=str(root), split=selected)
        expected = [Path(path).name for path in files_of(theirs)]
        assert [Path(image).name for image, _ in images(found, split)] == expected
        assert found.splits[split].labels.tolist() == [theirs[i][1] for i in range(len(theirs))]


def files_of(dataset: Any) -> list[str | Path]:
    pairs = getattr(dataset, "_samples", None)
    if pairs is not None:
        return [path for path, _ in pairs]
    return list(getattr(dataset, "_image_files", None) or dataset._images)


@pytest.mark.parametrize("name", CALTECH_TRAIN)
def test_caltech_trains_on_the_first_files_by_name_and_leaves_out_what_lies_astray(tmp_path, name):
    make(name, tmp_path, classes=2, test=3, side=16)
    first = next(path for path in sorted(tmp_path.rglob("*_0001.jpg")) if "BACKGROUND" not in str(path))
    (first.parent / "folder.jpg").mkdir()
    found = opened(name, tmp_path, partial=True)
    trained = [Path(image).name for image, _ in images(found, "train")]
    tested = [Path(image).name for image, _ in images(found, "test")]
    assert trained[: CALTECH_TRAIN[name]] == sorted(trained[: CALTECH_TRAIN[name]])
    assert max(trained[: CALTECH_TRAIN[name]]) < min(tested[:3])
    assert not any("BACKGROUND" in image or "greg" in image for image, _ in images(found, "test"))
    assert found.ignored_files == (3 if name == "caltech256" else 1)


def test_sun397_takes_only_the_images_of_the_partition(tmp_path):
    make("sun397", tmp_path, side=16)
    found = opened("sun397", tmp_path, partial=True)
    assert (tmp_path / "SUN397/a/abbey/sun_neither.jpg").exists()
    assert not any("neither" in name for split in found.splits for name, _ in images(found, split))


@pytest.mark.parametrize("name", ["pets", "sun397"])
def test_files_that_are_no_jpeg_for_all_their_name_are_read(tmp_path, name):
    make(name, tmp_path)
    assert {image.format for _, image in images(opened(name, tmp_path, partial=True), "train")} > {"JPEG"}


# The other layouts


@pytest.mark.parametrize("test", ["test", "val", "valid"])
@pytest.mark.parametrize("name", ["food", "sun397", "cars"])
def test_class_folders_are_read_as_the_papers_code_expects_them(tmp_path, recounted, name, test):
    make_folders(tmp_path, test, side=16)
    recounted(name, classes=4, counts=counts(12, 8))
    found = opened(name, tmp_path)
    assert found.classes == ("class_0", "class_1", "class_2", "class_3")
    assert found.described["source"] == "class folders"
    assert [seen_class(image, 4) for _, image in images(found, "test")] == found.splits["test"].labels.tolist()


def test_class_folders_may_hold_train_and_validation_as_one(tmp_path, recounted):
    make_folders(tmp_path, train=4, side=16)
    recounted("dtd", classes=4, counts=counts(8, 8, validation=8))
    assert {split: len(part.labels) for split, part in opened("dtd", tmp_path).splits.items()} == {
        "train": 16,
        "test": 8,
    }
    recounted("dtd", classes=4, counts=counts(8, 8, validation=9))
    with pytest.raises(DatasetError, match="16 train images, where the catalogue counts 17"):
        opened("dtd", tmp_path)


def test_the_owners_layout_comes_before_class_folders(tmp_path):
    make_folders(tmp_path, side=16)
    assert isinstance(present_source(origin_of("pets"), tmp_path), FolderSource)
    make("pets", tmp_path, side=16)
    assert isinstance(present_source(origin_of("pets"), tmp_path), LayoutSource)


@pytest.mark.parametrize(("name", "moved"), [("caltech101", "caltech101"), ("food", "food-101"), ("dtd", "dtd")])
def test_a_layout_may_lie_directly_in_the_folder(tmp_path, name, moved):
    make(name, tmp_path / "made", side=16)
    assert (
        opened(name, tmp_path / "made" / moved, partial=True).classes
        == opened(name, tmp_path / "made", partial=True).classes
    )


def parquet_repository(folder: Path, test: str) -> None:
    for split, n in (("train", 3), (test, 2)):
        grey = [encoded(np.full((8, 8, 3), 40 * c, np.uint8)) for c in range(4)]
        write_parquet(folder / f"data/{split}-00000-of-00001.parquet", grey * n, [*range(4)] * n)
    (folder / "README.md").write_text("not wanted")


def hub(monkeypatch: pytest.MonkeyPatch, repository: Path) -> list[dict[str, Any]]:
    """A Hugging Face library that copies files matching the patterns from a folder."""
    asked: list[dict[str, Any]] = []

    def snapshot_download(repo_id: str, **arguments: Any) -> None:
        asked.append({"repo_id": repo_id, **arguments})
        for pattern in arguments["allow_patterns"]:
            for path in repository.glob(pattern):
                target = arguments["local_dir"] / path.relative_to(repository)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(path.read_bytes())

    monkeypatch.setitem(sys.modules, "huggingface_hub", SimpleNamespace(snapshot_download=snapshot_download))
    return asked


def test_a_hugging_face_repository_is_fetched_at_its_commit_and_its_splits_are_mapped(tmp_path, monkeypatch, recounted):
    parquet_repository(tmp_path / "hub", "validation")
    asked = hub(monkeypatch, tmp_path / "hub")
    hubs = tuple(s for s in catalogued("food").splits["paper"].sources if isinstance(s, HuggingFaceSource))
    recounted("food", classes=4, counts=counts(12, 8), sources=hubs)
    found = opened("food", tmp_path / "food", downloads=True)
    assert {split: part.labels.tolist() for split, part in found.splits.items()} == {
        "train": [0, 1, 2, 3] * 3,
        "test": [0, 1, 2, 3] * 2,
    }
    assert asked == [
        {
            "repo_id": "ethz/food101",
            "repo_type": "dataset",
            "revision": "e06acf2a88084f04bce4d4a525165d68e0a36c38",
            "allow_patterns": ["data/train-*.parquet", "data/validation-*.parquet"],
            "local_dir": tmp_path / "food" / "huggingface",
        }
    ]
    assert found.described["source"] == "Hugging Face ethz/food101 at e06acf2a88"
    assert not (tmp_path / "food/huggingface/README.md").exists()
    opened("food", tmp_path / "food")  # and is found there afterwards, without asking again
    assert len(asked) == 1


def test_a_repository_whose_shards_are_not_all_there_is_not_taken_for_one(tmp_path):
    folder = tmp_path / "huggingface/data"
    write_parquet(folder / "validation-00000-of-00001.parquet", [b""], [0])
    write_parquet(folder / "train-00000-of-00002.parquet", [b""], [0])
    assert present_source(origin_of("food"), tmp_path) is None
    write_parquet(folder / "train-00001-of-00002.parquet", [b""], [0])
    assert isinstance(present_source(origin_of("food"), tmp_path), HuggingFaceSource)


def test_imagenet_parquet_files_have_their_classes_by_wordnet_id(tmp_path, monkeypatch, recounted):
    folder = tmp_path / "huggingface/data"
    white = encoded(np.zeros((8, 8, 3), np.uint8))
    described = {"info": {"features": {"label": {"names": [f"name {c}" for c in range(1000)]}}}}
    write_parquet(folder / "train-00000-of-00001.parquet", [white] * 1000, [*range(1000)], huggingface=described)
    write_parquet(folder / "validation-00000-of-00001.parquet", [white] * 2, [207, 0], huggingface=described)
    found = opened("imagenet", tmp_path, partial=True)
    assert found.classes == imagenet_classes()
    assert found.splits["test"].labels.tolist() == [207, 0]


def test_without_the_hugging_face_library_the_extra_is_named(tmp_path, monkeypatch, recounted):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    hubs = tuple(s for s in catalogued("cars").splits["paper"].sources if isinstance(s, HuggingFaceSource))
    recounted("cars", sources=hubs)
    with pytest.raises(
        DatasetError, match=r"tanganke/stanford_cars at 9abf6cf7d6: .*run `make setup EXTRAS=huggingface`"
    ):
        opened("cars", tmp_path, downloads=True)


# ImageNet's archives


def test_imagenet_archives_are_unpacked_once_and_sorted_by_the_kit(tmp_path):
    make("imagenet", tmp_path, classes=4, train=3, test=2)
    found = opened("imagenet", tmp_path, partial=True)
    assert found.classes == imagenet_classes()[::250]
    for split in ("train", "test"):
        assert [seen_class(image, 4) for _, image in images(found, split)] == found.splits[split].labels.tolist()
    assert np.bincount(found.splits["test"].labels).tolist() == [2] * 4
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.JPEG")}
    assert opened("imagenet", tmp_path, partial=True).classes == found.classes
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.JPEG")} == before
    for archive in tmp_path.glob("ILSVRC*"):
        archive.unlink()
    assert opened("imagenet", tmp_path, partial=True).described["source"] == "class folders"


def test_sorting_the_validation_images_goes_on_where_it_was_interrupted(tmp_path, monkeypatch):
    make("imagenet", tmp_path, classes=2, train=1, test=4)
    replace, calls = Path.replace, []

    def interrupted(self: Path, target: Path) -> Path:
        calls.append(self)
        if "ILSVRC2012_val" in self.name and sum("ILSVRC2012_val" in path.name for path in calls) == 4:
            raise KeyboardInterrupt
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        opened("imagenet", tmp_path, partial=True)
    assert not (tmp_path / "val").exists()
    monkeypatch.undo()
    found = opened("imagenet", tmp_path, partial=True)
    assert (
        [seen_class(image, 2) for _, image in images(found, "test")]
        == found.splits["test"].labels.tolist()
        == [0] * 4 + [1] * 4
    )


def test_only_synsets_without_children_are_classes_of_validation_images(tmp_path):
    make("imagenet", tmp_path, classes=3, test=1)
    with tarfile.open(tmp_path / "ILSVRC2012_devkit_t12.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    data = tmp_path / "ILSVRC2012_devkit_t12/data"
    truth = data / "ILSVRC2012_validation_ground_truth.txt"
    assert sorted(validation_wnids(data)) == list(imagenet_classes()[:999:333])
    truth.write_text(truth.read_text() + "4\n")  # the inner node
    with pytest.raises(DatasetError, match=r"ground_truth\.txt: class 4, which meta\.mat does not have"):
        validation_wnids(data)


def test_folders_that_are_no_wordnet_ids_are_not_imagenet(tmp_path):
    make_folders(tmp_path, "val", side=16)
    with pytest.raises(DatasetError, match="class_0, class_1, class_2 and 1 more are no classes of ILSVRC 2012"):
        opened("imagenet", tmp_path, partial=True)


# Copies that are not what the catalogue says


def test_a_complete_copy_is_accepted_and_a_cut_down_one_refused(tmp_path, recounted):
    make("pets", tmp_path, side=16)
    recounted("pets", classes=4, counts=counts(12, 8))
    assert len(opened("pets", tmp_path).splits["train"].labels) == 12
    for classes, expected, message in (
        (5, counts(12, 8), "4 classes, where the catalogue counts 5; .*partial: true"),
        (4, counts(13, 8), "12 train images, where the catalogue counts 13; .*partial: true"),
        (4, counts(12, 9), "8 test images, where the catalogue counts 9; .*partial: true"),
    ):
        recounted("pets", classes=classes, counts=expected)
        with pytest.raises(DatasetError, match=message):
            opened("pets", tmp_path)
        assert opened("pets", tmp_path, partial=True).classes


def test_more_than_the_catalogue_counts_is_refused_from_partial_copies_too(tmp_path, recounted):
    make("pets", tmp_path, side=16)
    for classes, expected in ((3, counts(12, 8)), (4, counts(11, 8)), (4, counts(12, 7))):
        recounted("pets", classes=classes, counts=expected)
        for partial in (False, True):
            with pytest.raises(DatasetError, match="other images than the catalogue's"):
                opened("pets", tmp_path, partial=partial)


def test_a_split_that_the_catalogue_does_not_have_is_refused(tmp_path):
    make_folders(tmp_path, "test", side=16)
    make_folders(tmp_path, "val", side=16)
    with pytest.raises(DatasetError, match="validation images, where the catalogue has train, test"):
        opened("food", tmp_path, partial=True)


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def test_a_cut_down_copy_may_lack_images_and_classes_that_its_lists_name(tmp_path, caplog):
    make("dtd", tmp_path, side=16)
    (tmp_path / "dtd/images/banded/banded_train00.jpg").unlink()
    for path in (tmp_path / "dtd/images/polka-dotted").iterdir():
        path.unlink()
    with pytest.raises(DatasetError, match=r"4 of 12 train images are not there: images/banded/banded_train00\.jpg"):
        opened("dtd", tmp_path)
    found = opened("dtd", tmp_path, partial=True)
    assert found.classes == ("banded", "blotchy", "zigzagged")
    assert np.bincount(found.splits["train"].labels).tolist() == [2, 3, 3]
    for split in found.splits:
        real = [0, 1, 3]
        assert [seen_class(image, 4) for _, image in images(found, split)] == [
            real[c] for c in found.splits[split].labels
        ]
    assert "1 of 4 classes have no training images here and are left out" in caplog.text


def test_birdsnap_lacks_images_since_their_addresses_died(tmp_path, caplog, monkeypatch):
    make("birdsnap_official", tmp_path, side=16)
    (tmp_path / "download/images/Acadian_Flycatcher/train1.jpg").unlink()
    known = catalogued("birdsnap").model_copy(update={"classes": 4})
    changed = catalogue().model_copy(update={"datasets": catalogue().datasets | {"birdsnap": known}})
    monkeypatch.setattr(catalogue_module, "catalogue", lambda: changed)
    found = opened("birdsnap_official", tmp_path)
    assert len(found.splits["train"].labels) == 11
    assert "1 of 12 train images are not there: download/images/Acadian_Flycatcher/train1.jpg" in caplog.text
    assert "11 of 47386 train" in caplog.text


LISTS = {
    "aircraft": ("fgvc-aircraft-2013b/data/images_variant_train.txt", "0999999 700-0 Mk 0", "0999999.jpg"),
    "dtd": ("dtd/labels/test1.txt", "banded/banded_9999.jpg", "banded_9999.jpg"),
    "food": ("food-101/meta/train.txt", "sushi/123456", "sushi/123456.jpg"),
    "pets": ("annotations/trainval.txt", "Bombay_999 3 1 1", "Bombay_999.jpg"),
    "sun397": ("Partitions/Testing_01.txt", "/a/abbey/sun_gone.jpg", "SUN397/a/abbey/sun_gone.jpg"),
}


@pytest.mark.parametrize("name", LISTS)
def test_a_list_that_names_a_missing_image_is_an_error_that_names_it(tmp_path, name):
    make(name, tmp_path, side=16)
    path, line, image = LISTS[name]
    with open(tmp_path / path, "a") as file:
        file.write(line + "\n")
    with pytest.raises(DatasetError, match=f"1 of .* images are not there: .*{re.escape(image)}; unpack the archives"):
        opened(name, tmp_path)


BROKEN = {
    "aircraft": ("fgvc-aircraft-2013b/data/images_variant_test.txt", "0034007 Concorde\n", "Concorde"),
    "dtd": ("dtd/labels/test1.txt", "banded/../../../secret.jpg\n", "outside that folder"),
    "food": ("food-101/meta/test.txt", "soup/1\n", "classes that are not among the 4 known ones: soup"),
    "pets": ("annotations/test.txt", "Bombay_1 one 1 1\n", "'one' is not a number"),
    "sun397": ("Partitions/Testing_01.txt", "/q/quarry/sun_a.jpg\n", "/q/quarry"),
    "cars": ("stanford_cars/devkit/cars_train_annos.mat", "MATLAB 5.0", "not readable as a MATLAB file"),
    "flowers": ("setid.mat", "<html>", "setid.mat: not readable as a MATLAB file"),
    "birdsnap_official": ("species.txt", "id\tname\n1\tCrow\n", "no column common"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_lists_are_named(tmp_path, name):
    make(name, tmp_path, side=16)
    path, content, message = BROKEN[name]
    (tmp_path / path).write_text(content)
    with pytest.raises(DatasetError, match=re.escape(message)) as error:
        opened(name, tmp_path, partial=True)
    assert str(tmp_path) in str(error.value)


def test_an_image_in_two_splits_is_refused(tmp_path):
    make("food", tmp_path, side=16)
    with open(tmp_path / "food-101/meta/test.txt", "a") as file:
        file.write("sushi/1\n")
    with pytest.raises(DatasetError, match=r"images/sushi/1\.jpg is listed in train and again in test"):
        opened("food", tmp_path, partial=True)


def test_unreadable_images_that_are_skipped_are_no_error_of_counts(tmp_path, recounted, monkeypatch):
    make("pets", tmp_path / "data/pets", side=80)
    (tmp_path / "data/pets/images/Bombay_1.jpg").write_bytes(b"GIF89a, or so it says")
    recounted("pets", classes=4, counts=counts(12, 8))
    monkeypatch.setenv("ROBUST_TRANSFER_RUNNING", f'{{"data": "{tmp_path / "data"}"}}')
    settings = {"origin": {"kind": "catalogue", "dataset": "pets"}, "unreadable": "skip"}
    entry = new_entry(tmp_path, "datasets", settings)
    prepare.run(entry, threads=1, device="cpu")
    facts = entry.card()["facts"]
    assert facts["counts"] == {"train": 11, "test": 8}
    assert facts["skipped_images"] == ["images/Bombay_1.jpg"]
    assert facts["origin"]["source"] == "layout pets"
    assert facts["licence"] == "CC BY-SA 4.0"


# CIFAR's pickles


class Canary:
    """Unpickled by a careless reader, it leaves a file."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.path}",)


def hostile_batches(canary: Path) -> dict[str, bytes]:
    honest = {"data": np.zeros((1, 3072), np.uint8), "labels": [0], "filenames": ["a"]}
    inside_state = python2_pickle(honest).replace(b"cnumpy\ndtype\n", b"cbuiltins\neval\n")
    return {
        "a call": pickle.dumps({**honest, "data": Canary(canary)}, protocol=2),
        "a call among the labels": pickle.dumps({**honest, "labels": [Canary(canary)]}, protocol=4),
        "a call nobody asks for": pickle.dumps({**honest, "more": Canary(canary)}),
        "eval for a dtype": inside_state,
        "an old-style class": b"(S'touch " + str(canary).encode() + b"'\nios\nsystem\n.",
        "an object array": pickle.dumps({**honest, "data": np.array([[Canary(canary)] * 3072])}, protocol=2),
    }


@pytest.mark.parametrize("kind", hostile_batches(Path("canary")))
def test_nothing_that_a_batch_names_is_run(tmp_path, kind):
    make("cifar10", tmp_path)
    canary = tmp_path / "canary"
    data = hostile_batches(canary)[kind]
    (tmp_path / "cifar-10-batches-py/data_batch_3").write_bytes(data)
    with pytest.raises(DatasetError, match=r"data_batch_3: not a batch of this dataset \(it names "):
        opened("cifar10", tmp_path, partial=True)
    assert not canary.exists()
    if kind.startswith("a call"):
        pickle.loads(data)
        assert canary.exists()  # so it would have


def test_the_tests_batches_are_pickles_that_numpy_reads(tmp_path):
    make("cifar10", tmp_path, seed=5)
    path = tmp_path / "cifar-10-batches-py/data_batch_1"
    theirs = pickle.loads(path.read_bytes(), encoding="latin1")  # as the dataset's page says to read them
    assert theirs["data"].dtype == np.uint8
    (name, first), *_ = images(opened("cifar10", tmp_path, partial=True), "train")
    assert name == f"data_batch_1 0 ({theirs['filenames'][0]})"
    np.testing.assert_array_equal(np.asarray(first), theirs["data"][0].reshape(3, 32, 32).transpose(1, 2, 0))


def test_batches_of_todays_numpy_are_read_too(tmp_path):
    make("cifar10", tmp_path)
    pixels = np.arange(2 * 3072, dtype=np.uint32).astype(np.uint8).reshape(2, 3072)
    batch = {"data": pixels, "labels": [1, 3], "filenames": ["a", "b"]}
    (tmp_path / "cifar-10-batches-py/test_batch").write_bytes(pickle.dumps(batch, protocol=2))
    found = opened("cifar10", tmp_path, partial=True)
    assert found.splits["test"].labels.tolist() == [1, 3]
    (name, first), _ = images(found, "test")
    assert name == "test_batch 0 (a)"
    np.testing.assert_array_equal(np.asarray(first), pixels[0].reshape(3, 32, 32).transpose(1, 2, 0))


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ({"data": np.zeros((1, 3072), np.float32), "labels": [0]}, "not one of uint8 values"),
        ({"data": np.zeros((1, 1000), np.uint8), "labels": [0]}, r"shape \(1, 1000\)"),
        ({"data": np.zeros((2, 3072), np.uint8), "labels": [0]}, "with 1 labels"),
        ({"data": np.zeros((1, 3072), np.uint8), "labels": [11]}, "not all numbers from 0 to 3"),
        ({"data": [0], "labels": [0]}, "no array data"),
        ([1], "holds a list"),
    ],
)
def test_batches_of_other_values_are_refused(tmp_path, batch, message):
    make("cifar10", tmp_path)
    (tmp_path / "cifar-10-batches-py/data_batch_2").write_bytes(python2_pickle(batch))
    with pytest.raises(DatasetError, match=f"data_batch_2: .*{message}"):
        opened("cifar10", tmp_path, partial=True)


def test_a_truncated_batch_is_named(tmp_path):
    make("cifar100", tmp_path)
    path = tmp_path / "cifar-100-python/train"
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(DatasetError, match="train: not a batch of this dataset"):
        opened("cifar100", tmp_path, partial=True)


# What is not there


def test_what_is_missing_is_said_with_where_to_get_it_and_where_to_put_it(tmp_path):
    folder = tmp_path / "data" / "sun397"
    with pytest.raises(DatasetError) as error:
        opened("sun397", folder)
    text = str(error.value)
    assert text == missing(origin_of("sun397"), folder)
    for part in (
        str(folder),
        "Training_01.txt",
        "vision.princeton.edu",
        "issue 9348",
        "tanganke/sun397",
        "downloads: true",
    ):
        assert part in text
    assert "image-net.org" in missing(origin_of("imagenet"), folder)
    assert "logging in" in missing(origin_of("imagenet"), folder)
    assert "downloads: true" not in missing(origin_of("birdsnap"), folder)  # nobody offers it
    assert "https://www.robots.ox.ac.uk/~vgg/data/dtd/download/dtd-r1.0.1.tar.gz" in missing(origin_of("dtd"), folder)


@pytest.mark.parametrize("name", TABLE)
def test_empty_folders_and_hidden_files_are_no_dataset(tmp_path, name):
    assert present_source(origin_of(name), tmp_path / "nowhere") is None
    for source in catalogued(name).splits["paper"].sources:
        if isinstance(source, LayoutSource):
            for at in source.at:
                for paths in source.found_by:
                    path = tmp_path / at / (paths if isinstance(paths, str) else paths[0])
                    _made(path if "." not in path.name else path.parent)
    for split in ("train", "test", "val"):
        (_made(tmp_path / split) / ".DS_Store").write_text("hidden")
    assert present_source(origin_of(name), tmp_path) is None


# Downloads, from files of this machine


def served(tmp_path: Path, recounted: Any, **file: Any) -> None:
    """Let the catalogue's DTD come from an archive on this machine, or from a Hugging Face copy."""
    make("dtd", tmp_path / "original", side=16)
    with tarfile.open(tmp_path / "dtd-r1.0.1.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "original/dtd", "dtd")
    layout, folder, copy = catalogued("dtd").splits["paper"].sources
    offered = catalogue_module.CataloguedFile(url=(tmp_path / "dtd-r1.0.1.tar.gz").as_uri(), **file)
    sources = (layout.model_copy(update={"files": (offered,)}), folder, copy)
    recounted("dtd", classes=4, counts=counts(12, 8, validation=12), sources=sources)


def test_what_is_offered_is_downloaded_verified_and_unpacked(tmp_path, recounted):
    served(tmp_path, recounted)
    found = opened("dtd", tmp_path / "data", downloads=True)
    assert {split: len(part.labels) for split, part in found.splits.items()} == {
        "train": 12,
        "validation": 12,
        "test": 8,
    }
    assert found.described["source"] == "layout dtd"
    assert (tmp_path / "data/dtd/labels/train1.txt").exists()


def test_archives_put_there_by_hand_are_unpacked_without_downloads(tmp_path, recounted):
    served(tmp_path, recounted)
    _made(tmp_path / "data")
    (tmp_path / "dtd-r1.0.1.tar.gz").rename(tmp_path / "data/dtd-r1.0.1.tar.gz")
    source = present_source(origin_of("dtd"), tmp_path / "data")
    assert isinstance(source, LayoutSource)
    assert source.described == "layout dtd"
    assert len(opened("dtd", tmp_path / "data").classes) == 4


def test_another_source_is_tried_where_one_fails(tmp_path, recounted, monkeypatch, caplog):
    served(tmp_path, recounted, md5="0" * 32)
    parquet_repository(tmp_path / "hub", "test")
    asked = hub(monkeypatch, tmp_path / "hub")
    found = opened("dtd", tmp_path / "data", downloads=True, partial=True)
    assert found.described["source"] == "Hugging Face tanganke/dtd at d2afa97d9f"
    assert len(asked) == 1
    assert "layout dtd:" in caplog.text


def test_where_every_source_fails_all_reasons_are_said(tmp_path, recounted, monkeypatch):
    served(tmp_path, recounted, md5="0" * 32)

    def refused(*_: Any, **__: Any) -> None:
        raise ConnectionError("no route to host")

    monkeypatch.setitem(sys.modules, "huggingface_hub", SimpleNamespace(snapshot_download=refused))
    with pytest.raises(DatasetError) as error:
        opened("dtd", tmp_path / "data", downloads=True)
    text = str(error.value)
    assert text.startswith(missing(origin_of("dtd"), tmp_path / "data").partition("Or let it be downloaded")[0])
    assert "downloads: true" not in text  # they were
    assert "layout dtd: " in text
    assert "0" * 32 in text
    assert "tanganke/dtd at d2afa97d9f: could not be fetched (no route to host)" in text


def test_caltech_archives_in_an_archive_are_unpacked(tmp_path, recounted):
    make("caltech101", tmp_path / "original", classes=2, side=16)
    inner = io.BytesIO()
    with tarfile.open(fileobj=inner, mode="w:gz") as archive:
        archive.add(tmp_path / "original/caltech101/101_ObjectCategories", "101_ObjectCategories")
    with zipfile.ZipFile(_made(tmp_path / "data") / "caltech-101.zip", "w") as archive:
        archive.writestr("caltech-101/101_ObjectCategories.tar.gz", inner.getvalue())
        archive.writestr("caltech-101/Annotations.tar", b"not looked at")
    found = opened("caltech101", tmp_path / "data", partial=True)
    assert found.classes == ("Faces", "Faces_easy")


def test_paintings_are_images_without_classes_at_any_depth(tmp_path, caplog):
    for i, place in enumerate(("1.jpg", "more/2.png", "more/3.txt")):
        path = tmp_path / "painter-by-numbers" / "train" / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(pixels(30, 40, seed=i)))
    origin = CatalogueOrigin(kind="catalogue", dataset="painter-by-numbers")
    collection = open_catalogued(origin, tmp_path / "painter-by-numbers", downloads=False)
    assert (len(collection.splits["train"].labels), len(collection.splits["test"].labels)) == (2, 0)
    assert (collection.classes, collection.labelled, collection.ignored_files) == (("image",), False, 1)
    assert "2 of 79433 train" in caplog.text

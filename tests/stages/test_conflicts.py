"""Cue-conflict images: drawn by the generator, or read by names that say which shape and which texture they show."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from robust_transfer.configuration.catalogue.imagenet16 import imagenet16
from robust_transfer.configuration.conflicts import ConflictsSettings
from robust_transfer.configuration.datasets import ShapesOrigin
from robust_transfer.datasets.arrow import open_split
from robust_transfer.datasets.errors import DatasetError
from robust_transfer.datasets.origins.conflicts import open_conflicts
from robust_transfer.datasets.origins.shapes import generate
from robust_transfer.stages import conflicts
from robust_transfer.statistics.shape_bias import pairs
from robust_transfer.store.entry import open_entry
from support.prepared_datasets import encoded, new_entry, pixels

WORLD = {
    **{"kind": "shapes", "task": "objects", "train": 20, "test": 20, "side": 24, "classes": 8, "plain": 0.25},
    **{"misleading": 0.3, "amplitude": 0.2},
}
CLASSES = list(imagenet16())


def write_images(root, names, side=20):
    for number, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(pixels(side, side, seed=number)))
    return {"kind": "folder", "path": str(root)}


def write_rows(root, names, **columns):
    root.mkdir(parents=True, exist_ok=True)
    images = [encoded(pixels(20, 20, seed=number)) for number in range(len(names))]
    pq.write_table(pa.table({"image": images, "name": names, **columns}), root / "test.parquet")
    return {"kind": "parquet", "path": str(root)}


def published_names():
    """An image of each of the 16 classes as shape, in conflict with the next one's texture, and one that agrees."""
    following = [*CLASSES[1:], CLASSES[0]]
    return [f"{shape}/{shape}1-{texture}3.png" for shape, texture in zip(CLASSES, following, strict=True)] + [
        "bear/bear10-bear2.png"
    ]


def made(root, images, **settings):
    described = ConflictsSettings.model_validate({"images": images, **settings}).model_dump(mode="json")
    entry = new_entry(root, "conflicts", described)
    conflicts.run(entry, threads=1, device="cpu")
    return open_entry(entry.path)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    return made(tmp_path_factory.mktemp("drawn"), {"kind": "shapes", "images": 160}, world=WORLD)


def test_generated_images_show_every_pair_of_classes_with_a_grating(drawn):
    facts, split = drawn.facts(), open_split(drawn, "test")
    assert len(facts["cues"]) == 6  # of eight classes a quarter has none
    shapes, textures = pairs(split.labels, 6)
    assert len(split) == 120
    counts = np.bincount(6 * shapes + textures, minlength=36)
    assert counts.min() >= 3
    assert counts.max() <= 4
    assert facts["conflicting"] == (shapes != textures).sum()
    assert facts["agreeing"] == (shapes == textures).sum()
    assert facts["sides"] == [24]
    assert (
        split.classes[split.labels[0]] == f"{facts['cues'][shapes[0]]} with the texture of {facts['cues'][textures[0]]}"
    )


def test_generated_images_are_those_of_the_source_with_another_grating(drawn):
    """Where both classes agree they are the source's own test images, none of which then misleads."""
    facts, split = drawn.facts(), open_split(drawn, "test")
    world = ShapesOrigin.model_validate({**WORLD, "test": 160, "misleading": 0})
    images, labels, names = generate(world, "test")
    of_cues = [image for image, label in zip(images, labels, strict=True) if names[label] in facts["cues"]]
    shapes, textures = pairs(split.labels, 6)
    for number, (shape, texture) in enumerate(zip(shapes, textures, strict=True)):
        same = np.array_equal(split.image(number), of_cues[number])
        assert same == (shape == texture), number


def test_files_of_the_published_layout_are_stored_as_they_are(tmp_path):
    entry = made(tmp_path, write_images(tmp_path / "stimuli", published_names()))
    facts, split = entry.facts(), open_split(entry, "test")
    assert facts["cues"] == CLASSES
    assert (facts["conflicting"], facts["agreeing"], facts["sides"]) == (16, 1, [20])
    shapes, textures = pairs(split.labels, 16)
    by_path = sorted(published_names())
    assert [CLASSES[shape] for shape in shapes] == [path.partition("/")[0] for path in by_path]
    assert [CLASSES[texture] for texture in textures] == [path.rpartition("-")[2][:-5] for path in by_path]
    first = pixels(20, 20, seed=published_names().index(by_path[0]))
    np.testing.assert_array_equal(split.image(0), first)


def test_rows_with_names_are_the_same_set(tmp_path):
    names = sorted(name.rpartition("/")[2].removesuffix(".png") for name in published_names())
    rows = open_conflicts(ConflictsSettings.model_validate({"images": write_rows(tmp_path / "rows", names)}))
    files = open_conflicts(
        ConflictsSettings.model_validate({"images": write_images(tmp_path / "files", published_names())})
    )
    assert rows.classes == files.classes
    np.testing.assert_array_equal(rows.images.labels, files.images.labels)
    assert [name for name, _ in rows.images.images(np.array([0, 16]))] == [
        f"test.parquet row {row} ({names[row]})" for row in (0, 16)
    ]


WRONG = {
    "a name without a texture": ([*published_names(), "cat/cat5.png"], "1 of 18 names.*cat5.png; expected is <shape>"),
    "names without numbers": (["cat-dog.png"], "1 of 1 names do not say which shape"),
    "a texture of no shape": ([*published_names(), "cat/cat1-zebra2.png"], "textures of classes that no shape.*zebra"),
    "a part of the published set": (published_names()[:9], "textures|9 of the 16"),
    "no images": ([], "no such folder"),
    "two classes of one's own": (["mug1-pan1.png", "pan1-mug1.png"], "2 classes, mug, pan: of fewer than 3"),
}


@pytest.mark.parametrize(("names", "message"), WRONG.values(), ids=WRONG)
def test_sets_whose_names_say_too_little_are_refused(tmp_path, names, message):
    images = write_images(tmp_path / "stimuli", names) if names else {"kind": "folder", "path": str(tmp_path / "none")}
    with pytest.raises(DatasetError, match=message):
        open_conflicts(ConflictsSettings.model_validate({"images": images}))


def test_nine_of_sixteen_classes_are_refused_by_their_names(tmp_path):
    names = [f"{shape}1-{CLASSES[0]}1.png" for shape in CLASSES[:9]]
    with pytest.raises(DatasetError, match="shapes of 9 of the 16 published classes, no clock, dog"):
        open_conflicts(ConflictsSettings.model_validate({"images": write_images(tmp_path / "part", names)}))


def test_a_file_without_names_is_refused(tmp_path):
    images = {**write_rows(tmp_path, ["cat1-dog1"], label=[0]), "name_column": "file"}
    with pytest.raises(DatasetError, match="no column file; there are image, name, label"):
        open_conflicts(ConflictsSettings.model_validate({"images": images}))


def test_an_image_that_cannot_be_read_leaves_nothing(tmp_path):
    images = write_images(tmp_path / "stimuli", published_names())
    (tmp_path / "stimuli/cat/cat1-chair3.png").write_bytes(b"torn")
    with pytest.raises(DatasetError, match=r"cat/cat1-chair3.png: cannot be read"):
        made(tmp_path, images)
    assert not list((tmp_path / "store").rglob("test.arrow"))

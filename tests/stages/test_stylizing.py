"""The stage stylizing: other textures, the same labels; killed anywhere, the same bits; what is refused, and how."""

import random
import re

import numpy as np
import pytest
import torch
from PIL import Image
from robust_transfer.configuration.datasets import ShapesOrigin
from robust_transfer.configuration.running import VARIABLE
from robust_transfer.datasets.arrow import entry_splits, open_split
from robust_transfer.datasets.errors import DatasetError
from robust_transfer.datasets.origins.shapes import generate
from robust_transfer.datasets.resident import square_images
from robust_transfer.stages import stylizing as stage
from robust_transfer.store.entry import Entry
from robust_transfer.stylization.adain import load_style_transfer
from robust_transfer.stylization.phase import recombined
from robust_transfer.stylization.styles import chosen
from robust_transfer.weights.pickle_values import CheckpointError
from support.kills import (
    assert_same_outputs,
    kill_until_done,
    kills_until,
    said,
    saved_rows,
)
from support.prepared_datasets import encoded, new_entry, pixels, prepared, write_parquet
from support.style_networks import small_networks, write_networks

SIDE = 16
PHASE = {"method": "phase", "side": SIDE, "resize_ratio": 1.25}
WORLD = {"kind": "shapes", "task": "objects", "train": 60, "test": 30, "side": 16, "amplitude": 0.1, "misleading": 0.5}


def parquet(root, name, **counts) -> Entry:
    """A dataset of images that differ in size."""
    for seed, (split, count) in enumerate(counts.items()):
        files = [encoded(pixels(17 + i % 5, 20 + i % 3, seed=100 * seed + i)) for i in range(count)]
        write_parquet(root / name / f"{split}.parquet", files, [i % 3 for i in range(count)])
    return prepared(root, {"kind": "parquet", "path": str(root / name)})


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    torch.set_num_threads(1)
    return tmp_path_factory.mktemp("stylizing")


@pytest.fixture(scope="module")
def dataset(root) -> Entry:
    return parquet(root, "images", train=40, validation=6, test=9)


@pytest.fixture(scope="module")
def paintings(root) -> Entry:
    """Style images without classes, a few of them too small for `SIDE`."""
    for i, size in enumerate([(30, 40), (16, 16), (15, 90), (40, 20), (12, 12)]):
        path = root / "paintings" / f"{i}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(encoded(pixels(*size, seed=500 + i)))
    return prepared(root, {"kind": "folder", "path": str(root / "paintings"), "labelled": False})


def stylized(root, settings, threads=1, **inputs) -> Entry:
    entry = new_entry(root, "stylizing", settings, **inputs)
    stage.run(entry, threads=threads, device="cpu")
    return entry


def images(entry: Entry, split: str) -> np.ndarray:
    opened = open_split(entry, split)
    return np.stack([opened.image(i) for i in range(len(opened))])


def squares_of(dataset: Entry, split: str) -> np.ndarray:
    return square_images(open_split(dataset, split), SIDE, 1.25)


@pytest.fixture(scope="module")
def world(root) -> Entry:
    """Images of the built-in generator."""
    return prepared(root, WORLD)


@pytest.fixture(scope="module")
def many(root) -> Entry:
    """Images enough for many batches."""
    return parquet(root, "many", train=200, test=40)


class TestPhase:
    def test_every_image_gets_another_ones_amplitude(self, root, dataset):
        entry = stylized(root, PHASE, dataset=dataset)
        assert entry_splits(entry) == ["train", "validation", "test"]
        for split in entry_splits(entry):
            content = squares_of(dataset, split)
            numbers = np.arange(len(content))
            styles = square_images(open_split(dataset, "train"), SIDE, 1.0)
            which = chosen(0, split, numbers, 40, own=split == "train")
            expected = recombined(torch.from_numpy(content), torch.from_numpy(styles[which])).numpy()
            np.testing.assert_array_equal(images(entry, split), expected)
            np.testing.assert_array_equal(open_split(entry, split).labels, open_split(dataset, split).labels)

    def test_the_card_says_what_changed_and_keeps_the_rest(self, root, dataset):
        facts, before = stylized(root, PHASE, dataset=dataset).facts(), dataset.facts()
        assert facts["stylized"] == {
            **{"method": "phase", "seed": 0, "styles": dataset.name, "style_images": 40, "style_images_dropped": 0}
        }
        assert facts["shape"] == [SIDE, SIDE]
        for name in ("classes", "counts", "origin", "images_per_class"):
            assert facts[name] == before[name]

    @pytest.mark.parametrize("batch", [4, 7, 256])
    def test_neither_threads_nor_batches_change_a_byte(self, root, dataset, batch, monkeypatch):
        one = stylized(root, PHASE, dataset=dataset)
        monkeypatch.setattr(stage, "BATCH_PIXELS", batch * SIDE**2)
        assert_same_outputs(stylized(root, PHASE, threads=3, dataset=dataset), one)

    def test_another_seed_gives_other_styles(self, root, dataset):
        one, other = (stylized(root, PHASE | {"seed": seed}, dataset=dataset) for seed in (0, 1))
        assert (images(one, "train") != images(other, "train")).any(axis=(1, 2, 3)).mean() > 0.8

    def test_styles_of_another_dataset(self, root, dataset, paintings):
        entry = stylized(root, PHASE, dataset=dataset, styles=paintings)
        assert entry.facts()["stylized"]["style_images"] == 5  # small ones are enlarged
        assert paintings.facts()["counts"] == {"train": 5, "test": 0}
        content = squares_of(dataset, "test")
        which = chosen(0, "test", np.arange(len(content)), 5)
        given = square_images(open_split(paintings, "train"), SIDE, 1.0)[which]
        expected = recombined(torch.from_numpy(content), torch.from_numpy(given)).numpy()
        np.testing.assert_array_equal(images(entry, "test"), expected)

    def test_the_contact_sheet_has_originals_results_and_styles(self, root, dataset):
        entry = stylized(root, PHASE, dataset=dataset)
        with Image.open(entry.file("samples.png")) as sheet:
            large = 6 * SIDE + 4  # 96 pixels and a gap
            assert sheet.size == (3 * large + 4, 3 * large + 4)
            first = np.asarray(sheet)[4 : 4 + 6 * SIDE : 6, 4 : 4 + 6 * SIDE : 6]
        np.testing.assert_array_equal(first, squares_of(dataset, "test")[0])

    def test_one_style_image_is_refused(self, root, dataset):
        (root / "alone").mkdir()
        (root / "alone" / "1.png").write_bytes(encoded(pixels(30, 30)))
        alone = prepared(root, {"kind": "folder", "path": str(root / "alone"), "labelled": False})
        entry = new_entry(root, "stylizing", PHASE, dataset=dataset, styles=alone)
        with pytest.raises(DatasetError, match="1 style images; styles are drawn from two or more"):
            stage.run(entry, threads=1, device="cpu")
        assert not (entry.path / "card.json").exists()


class TestAdain:
    SETTINGS = PHASE | {"method": "adain", "encoder": "vgg_normalised.pth", "decoder": "decoder.pth"}

    @pytest.fixture
    def weights(self, tmp_path, monkeypatch):
        write_networks(tmp_path)
        monkeypatch.setenv(VARIABLE, f'{{"weights": "{tmp_path}"}}')
        return tmp_path

    def test_images_are_what_the_networks_make_of_them(self, root, dataset, paintings, weights):
        entry = stylized(root, self.SETTINGS, dataset=dataset, styles=paintings)
        facts = entry.facts()["stylized"]
        assert (facts["style_images"], facts["style_images_dropped"], facts["alpha"]) == (3, 2, 1.0)
        assert len(facts["decoder"]["sha256"]) == 64
        content, large = squares_of(dataset, "test"), np.array([0, 1, 3])
        styles = square_images(open_split(paintings, "train"), SIDE, 1.0)[large]
        which = chosen(0, "test", np.arange(len(content)), 3)
        transfer = load_style_transfer(weights / "vgg_normalised.pth", weights / "decoder.pth")
        expected = transfer(torch.from_numpy(content), torch.from_numpy(styles[which])).numpy()
        np.testing.assert_array_equal(images(entry, "test"), expected)

    def test_networks_that_do_not_fit_leave_nothing_half_written(self, root, dataset, paintings, weights):
        torch.save(small_networks(width=12)[1].state_dict(), weights / "decoder.pth")
        entry = new_entry(root, "stylizing", self.SETTINGS, dataset=dataset, styles=paintings)
        with pytest.raises(CheckpointError, match="decodes 12 channels"):
            stage.run(entry, threads=1, device="cpu")
        assert sorted(path.name for path in entry.path.iterdir()) == [".lock", "entry.json"]


class TestTextureSwap:
    def test_the_generator_draws_the_same_images_with_other_gratings(self, root, world):
        entry = stylized(root, {"method": "texture-swap"}, dataset=world)
        for split, count in (("train", 60), ("test", 30)):
            textures = chosen(0, split, np.arange(count), 20)
            drawn, labels, _ = generate(ShapesOrigin(**WORLD), split, textures=textures)  # type: ignore[arg-type]
            np.testing.assert_array_equal(images(entry, split), drawn)
            np.testing.assert_array_equal(open_split(entry, split).labels, labels)

    def test_limits_keep_the_same_images(self, root):
        limited = prepared(root, WORLD, train_limit=40, seed=3)
        entry = stylized(root, {"method": "texture-swap"}, dataset=limited)
        np.testing.assert_array_equal(open_split(entry, "train").labels, open_split(limited, "train").labels)
        plain = prepared(root, WORLD | {"amplitude": 0, "misleading": 0}, train_limit=40, seed=3)
        same = stylized(root, {"method": "texture-swap"}, dataset=plain)
        np.testing.assert_array_equal(images(same, "train"), images(plain, "train"))


def moment(entry: Entry, draws: random.Random):
    """A moment some batches from here, the first of a new entry included."""
    rows = max(saved_rows(entry, 3 * SIDE**2), 1) + draws.choice([0, 0, 4, 12, 30])
    return lambda: saved_rows(entry, 3 * SIDE**2) >= rows


class TestInterrupted:
    """Batches of four images, a shard each."""

    @pytest.fixture(autouse=True)
    def small_batches(self, monkeypatch):
        torch.set_num_threads(1)
        monkeypatch.setattr(stage, "BATCH_PIXELS", 0)

    def test_killed_at_random_it_ends_with_the_same_bits(self, root, many):
        expected = stylized(root, PHASE, dataset=many)
        entry = new_entry(root, "stylizing", PHASE, dataset=many)
        kills = kill_until_done(entry, moment, random.Random(0), most=100)
        assert_same_outputs(entry, expected)
        assert 3 <= kills < 100
        assert re.search(r"going on after \d+ rows of train", said(entry))

    @pytest.mark.faults
    def test_a_hundred_kills_change_no_bit(self, root, many, capsys):
        expected = stylized(root, PHASE, dataset=many)
        kills, jobs = kills_until(
            100, lambda: new_entry(root, "stylizing", PHASE, dataset=many), expected, moment, random.Random(1)
        )
        with capsys.disabled():
            print(f"\n{kills} kills in {jobs} jobs: 0 bits changed")

"""The stage that makes galleries: sheets, their texts, and numbers with known values."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from robust_transfer.configuration.gallery import METRICS, GallerySettings
from robust_transfer.gallery.sheets import GAP, LEAST, MARGIN, Row, write_sheet
from robust_transfer.networks.build import build
from robust_transfer.stages import gallery
from robust_transfer.store.entry import StoreError, open_entry
from support.backbones import stored_backbone
from support.prepared_datasets import new_entry, separable

SHEETS = ("adversarial", "gradients", "inversions", "visualisations")
SETTINGS = {
    "norm": "l2",
    "perturbations": ["0.5", "2"],
    "attack": {"steps": 2},
    "images": 6,
    "inversion": {"steps": 3, "step_size": 0.2, "start": "image"},
    "visualisation": {"steps": 2, "step_size": 0.2},
    "preprocessing": {"resize_ratio": 1.0},
}


def made(root, source, classes=None, **over):
    network = build("resnet8_w4", 3, seed=2)
    names = classes or source.facts()["classes"]
    backbone = stored_backbone(root, network, classes=names, norm="l2", eps="0.5")
    settings = GallerySettings.model_validate(SETTINGS | over).model_dump(mode="json")
    entry = new_entry(root, "gallery", settings, backbone=backbone, source=source)
    gallery.run(entry, threads=1, device="cpu")
    return open_entry(entry.path)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return separable(tmp_path_factory.mktemp("plain"))


@pytest.fixture(scope="module")
def entry(plain):
    return made(plain.path.parents[2], plain)


def test_every_sheet_is_a_picture_that_is_put_into_words(entry):
    facts = entry.facts()
    assert facts["title"] == "ResNet-8 w4, ε 0.5 (L2)"
    for name in SHEETS:
        with Image.open(entry.file(f"{name}.png")) as sheet:
            cell = 128  # eight times 16 pixels
            gap, margin = (round(one * cell / LEAST) for one in (GAP, MARGIN))
            assert sheet.width == margin + 6 * (cell + gap)
        assert facts["title"] in facts["alternatives"][name]
    assert "Attacked within L2 0.5, " in facts["alternatives"]["adversarial"]
    assert "Attacked within L2 2, " in facts["alternatives"]["adversarial"]
    assert "From another image" in facts["alternatives"]["inversions"]


def test_its_numbers_are_rows_of_the_results_table(entry):
    rows = json.loads(entry.file("metrics.json").read_text())
    assert [row["metric"] for row in rows] == [*METRICS]
    for row in rows:
        assert row["n"] == 6
        assert row["interval"][0] <= row["value"] <= row["interval"][1]
        assert (row["split"], row["selection"], row["attack"]) == ("test", None, None)
    by_metric = {row["metric"]: row for row in rows}
    assert by_metric["inversion_moved"]["hyperparameters"]["at_start"] == 0
    moved = by_metric["inversion_moved"]["value"]
    assert 0 < moved <= 100 * 3 * 0.2 / (3 * 16 * 16) ** 0.5 + 1e-6  # three steps of 0.2, root mean squared
    distance = by_metric["inversion_distance"]
    assert distance["value"] < distance["hyperparameters"]["at_start"]


def test_the_same_settings_give_the_same_bits(entry, plain):
    again = made(plain.path.parents[2], plain)
    for name in (*(f"{sheet}.png" for sheet in SHEETS), "metrics.json"):
        assert entry.file(name).read_bytes() == again.file(name).read_bytes()


def test_an_image_is_as_near_to_itself_as_can_be():
    network, images = build("resnet8_w4", 3).eval(), torch.rand(3, 3, 16, 16)
    same = gallery._nearness(network, images, images)
    assert same["inversion_distance"].tolist() == [0, 0, 0]
    assert same["inversion_pixels"].tolist() == [0, 0, 0]
    assert same["inversion_ssim"].tolist() == pytest.approx([100, 100, 100])
    grey = gallery._nearness(network, torch.zeros(1, 3, 16, 16), torch.full((1, 3, 16, 16), 0.25))
    assert grey["inversion_pixels"].tolist() == pytest.approx([25])


def test_a_network_of_other_classes_is_refused(plain):
    with pytest.raises(StoreError, match="not the 3 classes of"):
        made(plain.path.parents[2], plain, classes=["a", "b", "c"])


@pytest.mark.parametrize(
    ("classes", "count", "expected", "columns"),
    [
        (3, 5, [0, 1, 2, 3, 4], [0, 1, 2, 3, 4]),  # class after class, then the second images
        (20, 5, [0, 4, 9, 14, 19], [0, 1, 2, 3, 4]),  # some of the classes, evenly spread
        (16, 16, [*range(16)], [0, 2, 4, 6, 8, 10, 12, 15]),  # sheets have eight columns
        (3, 40, [*range(40)], [0, 1, 2, 3, 4, 5, 6, 7]),
    ],
)
def test_images_are_spread_over_classes(classes, count, expected, columns):
    numbers, shown = gallery.chosen(np.arange(60) % classes, count)
    assert numbers.tolist() == expected
    assert shown == columns


def test_sheets_enlarge_images_by_a_whole_number_and_cut_long_words(tmp_path):
    images = np.zeros((2, 50, 50, 3), np.uint8)
    images[1, ..., 0] = 200  # a colour that no letter has
    write_sheet(
        tmp_path / "sheet.png", "A title", [Row("a name of several words that is long", images, ["x" * 200, "ε"])]
    )
    with Image.open(tmp_path / "sheet.png") as sheet:
        pixels = np.asarray(sheet)
    gap, margin = (round(one * 150 / LEAST) for one in (GAP, MARGIN))
    assert pixels.shape[1] == margin + 2 * (150 + gap)
    black = (pixels == 0).all(-1)
    assert black.sum() == 150 * 150
    assert black.any(0).sum() == 150
    assert (pixels == (200, 0, 0)).all(-1).sum() == 150 * 150
    below = pixels[-gap * 3 :, margin + 150 : margin + 150 + gap]
    assert (below == 255).all(), "words of one image reach into the next"

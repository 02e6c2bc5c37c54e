"""Which style an image gets."""

from pathlib import Path

import numpy as np
import pytest
from robust_transfer.datasets.arrow import open_split
from robust_transfer.datasets.errors import DatasetError
from robust_transfer.stylization.styles import Styles, chosen
from support.prepared_datasets import encoded, pixels, written


def test_a_style_is_a_function_of_seed_split_and_image() -> None:
    every = chosen(0, "train", np.arange(1000), 50)
    for part in (np.arange(300, 700), np.array([999, 3, 500])):  # whatever order or part of the work it is
        np.testing.assert_array_equal(chosen(0, "train", part, 50), every[part])
    others = (chosen(1, "train", np.arange(1000), 50), chosen(0, "test", np.arange(1000), 50))
    for other in others:
        assert (other == every).mean() < 0.06
    assert every[:6].tolist() == [32, 0, 32, 9, 21, 36]  # golden: other styles would be another dataset of this name


def test_all_styles_are_drawn_equally_often() -> None:
    counts = np.bincount(chosen(3, "train", np.arange(20_000), 20), minlength=20)
    assert counts.min() > 1000 - 4 * 31  # four standard deviations
    assert counts.max() < 1000 + 4 * 31


def test_of_its_own_split_no_image_gets_itself() -> None:
    images = np.arange(5000)
    found = chosen(0, "train", images, 5000, own=True)
    assert (found != images).all()
    assert found.min() >= 0
    assert found.max() < 5000


def test_small_style_images_are_dropped_and_counted(tmp_path: Path) -> None:
    sizes = [(40, 30), (20, 60), (31, 30), (30, 29), (90, 45)]
    files = [encoded(pixels(*size, seed=i)) for i, size in enumerate(sizes)]
    split = open_split(written(tmp_path, files, [0] * 5), "train")
    styles = Styles(split, 30, least=30)
    assert (len(styles), styles.dropped) == (3, 2)
    images = styles.images(np.array([1, 0]))
    assert images.shape == (2, 30, 30, 3)
    np.testing.assert_array_equal(images[1], Styles(split, 30, least=1).images([0])[0])
    with pytest.raises(DatasetError, match="1 style images, and 4 whose short side is below 40 pixels"):
        Styles(split, 40, least=40)

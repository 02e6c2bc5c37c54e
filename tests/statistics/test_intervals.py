"""Intervals hold the truth as often as they say, and effective numbers of images are what they are called."""

import numpy as np
import pytest
from robust_transfer.statistics.intervals import (
    exact_interval,
    paired_difference_interval,
    seeds_difference_interval,
    seeds_interval,
)
from robust_transfer.statistics.metrics import effective_images
from scipy.stats import binom, binomtest, t, ttest_ind


@pytest.mark.parametrize(("right", "images"), [(0, 30), (7, 30), (30, 30), (999, 1000)])
def test_the_interval_of_an_accuracy_is_scipys_and_has_a_width(right: int, images: int) -> None:
    low, high = exact_interval(100 * right / images, images)
    expected = binomtest(right, images).proportion_ci(method="exact")
    assert low < high
    assert (low, high) == (pytest.approx(100 * expected.low), pytest.approx(100 * expected.high))


@pytest.mark.parametrize(("truth", "images"), [(0.5, 200), (0.5, 1000), (0.9, 1000), (0.999, 1000), (0.9, 10_000)])
def test_it_covers_what_it_says(truth: float, images: int) -> None:
    """Summed over everything that can be drawn, and not simulated."""
    held = 0.0
    for right in range(images + 1):
        chance = float(binom.pmf(right, images, truth))
        if chance > 1e-12:
            low, high = exact_interval(100 * right / images, images)
            held += chance * (low <= 100 * truth <= high)
    assert 0.945 <= held <= 0.982  # at 0.999 of 1,000 images 0.981 is the least above 0.92 that there is


@pytest.mark.parametrize("of_class", [(1,), (2,), (5,), (1, 2, 5, 40)])
@pytest.mark.parametrize("spread", ["equal", "unequal"])
def test_a_mean_over_classes_covers_it_too(of_class: tuple[int, ...], spread: str) -> None:
    generator = np.random.default_rng(0)
    sizes = np.resize(of_class, 60)
    truth = np.full(60, 0.8) if spread == "equal" else generator.beta(4, 1, 60)
    labels, experiments, held = np.repeat(np.arange(60), sizes), 400, 0
    for _ in range(experiments):
        correct = (generator.random(len(labels)) < truth[labels]).astype(float)
        value = 100 * float((np.bincount(labels, correct) / sizes).mean())
        low, high = exact_interval(value, effective_images(correct, labels, "mean_per_class"))
        held += low <= 100 * truth.mean() <= high
    # Classes of one image hide how unequal they are, so that theirs errs on the wide side.
    assert 0.93 <= held / experiments <= (1.0 if 1 in of_class else 0.985)


def test_effective_images() -> None:
    labels = np.arange(100) % 4
    correct = (np.arange(100) < 70).astype(float)
    assert effective_images(correct, labels, "top1") == pytest.approx(100)
    halves = np.full(100, 0.5)  # two heads that are never both right: nothing varies
    assert effective_images(halves, labels, "top1") == 100
    assert effective_images(np.ones(100), labels, "top1") == 100
    assert effective_images(np.ones(100), labels, "mean_per_class") == pytest.approx(100)
    uneven = np.repeat([0, 1], [99, 1])
    assert effective_images(np.ones(100), uneven, "mean_per_class") == pytest.approx(4 / (1 / 99 + 1))
    assert effective_images((correct + correct[::-1]) / 2, labels, "top1") > 100  # two heads vary less than one


def test_seeds() -> None:
    half = t.ppf(0.975, 2) * np.std([70, 72, 77], ddof=1) / np.sqrt(3)
    assert seeds_interval([70, 72, 77], 0.0) == (pytest.approx(73 - half), pytest.approx(73 + half))
    assert seeds_interval([70, 72, 77], 1.0)[0] == pytest.approx(73 - np.hypot(half, 1.959964))
    assert seeds_interval([1, 99], 0.0) == (0, 100)
    low, high = seeds_difference_interval([70, 72, 77], [60, 61, 62], 0.0)
    welch = ttest_ind([70, 72, 77], [60, 61, 62], equal_var=False).confidence_interval()
    assert (low, high) == (pytest.approx(welch.low), pytest.approx(welch.high))


def test_a_paired_difference_has_a_width_where_both_are_always_right() -> None:
    perfect = (100.0, *exact_interval(100.0, 300))
    low, high = paired_difference_interval(perfect, perfect, 0.0)
    assert low < 0 < high
    one, other = (70.0, 65.0, 75.0), (60.0, 55.0, 65.0)
    apart, alike = (paired_difference_interval(one, other, correlation) for correlation in (0.0, 0.8))
    assert apart[0] < alike[0] < 10 < alike[1] < apart[1]

"""Accuracies and intervals against definitions written out longhand."""

import json

import numpy as np
import pytest
from robust_transfer.statistics.metrics import bootstrap, mean_per_class, measurements, top1


@pytest.fixture(scope="module")
def imbalanced():
    """5 classes of 400, 200, 40, 1 and 0 images; a class's images are right with a probability of its own."""
    generator = np.random.default_rng(1)
    labels = np.repeat([0, 1, 2, 3], [400, 200, 40, 1])
    right = generator.random(len(labels)) < np.array([0.9, 0.5, 0.2, 1.0])[labels]
    return labels, np.where(right, labels, 4), 5


def by_index(labels, predictions, classes, resamples):
    """Both metrics on resamples drawn image by image."""
    generator = np.random.default_rng(2)
    values = []
    for _ in range(resamples):
        drawn = generator.integers(len(labels), size=len(labels))
        values.append(
            (top1(labels[drawn], predictions[drawn]), mean_per_class(labels[drawn], predictions[drawn], classes))
        )
    return np.array(values).T


def test_top1_is_the_share_of_right_predictions():
    assert top1(np.array([0, 1, 2, 2]), np.array([0, 1, 2, 0])) == 75


def test_mean_per_class_weighs_classes_and_not_images():
    labels, predictions = np.array([0] * 90 + [1] * 10), np.zeros(100, dtype=int)
    assert top1(labels, predictions) == 90
    assert mean_per_class(labels, predictions, 2) == 50


def test_classes_without_images_are_left_out():
    labels, predictions = np.array([0, 0, 3, 3]), np.array([0, 0, 3, 1])
    assert mean_per_class(labels, predictions, 6) == 75
    assert mean_per_class(labels, predictions, 600) == 75


def test_intervals_are_those_of_resampling_images_one_by_one(imbalanced):
    labels, predictions, classes = imbalanced
    fast = bootstrap(labels, predictions, classes)
    for metric, slow in zip(("top1", "mean_per_class"), by_index(labels, predictions, classes, 4000), strict=True):
        # An end of the interval has a standard error of 4 % of its half-width at 1000 resamples and 2 % at 4000.
        expected = np.percentile(slow, [2.5, 97.5])
        assert fast[metric] == pytest.approx(expected, abs=0.2 * np.ptp(expected) / 2), metric


def test_intervals_hold_the_truth_as_often_as_they_say():
    generator = np.random.default_rng(3)
    held = 0
    for _ in range(200):
        labels = np.arange(400) % 4
        predictions = np.where(generator.random(400) < 0.7, labels, (labels + 1) % 4)
        low, high = bootstrap(labels, predictions, 4)["mean_per_class"]
        held += low <= 70 <= high
    assert 0.89 <= held / 200 <= 0.99


def test_intervals_are_the_same_each_time_and_shrink_to_a_point_when_nothing_varies(imbalanced):
    labels, predictions, classes = imbalanced
    assert bootstrap(labels, predictions, classes) == bootstrap(labels.copy(), predictions.copy(), classes)
    assert bootstrap(labels, labels, classes) == {"top1": (100, 100), "mean_per_class": (100, 100)}


def test_rows_say_what_was_measured(imbalanced):
    labels, predictions, classes = imbalanced
    attack = {"norm": "l2", "eps": 0.5, "steps": 3, "restarts": 1}
    rows = measurements(labels, predictions, classes, split="test", attack=attack)
    assert json.loads(json.dumps(rows)) == rows
    assert [row["metric"] for row in rows] == ["top1", "mean_per_class"]
    assert rows[0]["value"] == top1(labels, predictions)
    assert rows[1]["value"] == mean_per_class(labels, predictions, classes)
    for row in rows:
        assert row["ci_low"] < row["value"] < row["ci_high"]
        assert (row["split"], row["n"], row["ci_kind"], row["attack"]) == ("test", 641, "images", attack)
        assert (row["selection"], row["hyperparameters"]) == (None, {})


@pytest.mark.parametrize(
    ("labels", "predictions", "message"),
    [
        ([], [], "at least one label"),
        ([0, 1], [0], r"labels \[2\] and predictions \[1\]"),
        ([0, 3], [0, 1], "labels go from 0 to 3, and there are 3 classes"),
        ([0, 1], [-1, 1], "predictions go from -1 to 1"),
    ],
)
def test_what_cannot_be_measured_is_refused(labels, predictions, message):
    with pytest.raises(ValueError, match=message):
        measurements(np.array(labels, dtype=int), np.array(predictions, dtype=int), 3, split="test")

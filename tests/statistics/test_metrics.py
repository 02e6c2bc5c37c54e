"""Accuracies and intervals against definitions written out longhand."""

import json

import numpy as np
import pytest
from robust_transfer.statistics.metrics import mean_per_class, measurements, top1


@pytest.fixture(scope="module")
def imbalanced():
    """5 classes of 400, 200, 40, 1 and 0 images; a class's images are right with a probability of its own."""
    generator = np.random.default_rng(1)
    labels = np.repeat([0, 1, 2, 3], [400, 200, 40, 1])
    right = generator.random(len(labels)) < np.array([0.9, 0.5, 0.2, 1.0])[labels]
    return labels, np.where(right, labels, 4), 5


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


def test_rows_say_what_was_measured(imbalanced):
    labels, predictions, classes = imbalanced
    attack = {"norm": "l2", "eps": 0.5, "steps": 3, "restarts": 1}
    rows = measurements(labels, predictions, classes, split="test", attack=attack)
    assert json.loads(json.dumps(rows)) == rows
    assert [row["metric"] for row in rows] == ["top1", "mean_per_class"]
    assert rows[0]["value"] == top1(labels, predictions)
    assert rows[1]["value"] == mean_per_class(labels, predictions, classes)
    for row in rows:
        assert (row["split"], row["n"], row["attack"]) == ("test", 641, attack)
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

"""The knn protocol against scikit-learn's classifier on cosines, and the stage on features with a known answer."""

from __future__ import annotations

import csv
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from robust_transfer.datasets.splits import few_mask, validation_mask
from robust_transfer.stages import knn
from robust_transfer.statistics.intervals import exact_interval
from robust_transfer.statistics.nearest_neighbours import Neighbours, Weights, unit
from robust_transfer.store.entry import Entry
from robust_transfer.store.features import open_features
from sklearn.neighbors import KNeighborsClassifier
from support.prepared_datasets import new_entry
from support.stored_features import problem, stored_features


def features_and_labels(n: int = 500) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    return problem(n, 24, 6, separation=0.7)


class TestNeighbours:
    @pytest.mark.parametrize("weights", ["exponential", "uniform", "distance"])
    @pytest.mark.parametrize("dtype", [np.float32, np.float16])
    def test_every_k_votes_as_scikit_learns_classifier_does_by_cosine(self, weights: Weights, dtype: Any) -> None:
        features, labels = features_and_labels()
        features = features.astype(dtype)
        ks, votes = [1, 2, 5, 50, 400], {"exponential": lambda cosine: np.exp((1 - cosine) / 0.1)}
        votes |= {"distance": lambda cosine: 1 / np.sqrt(2 * cosine.clip(1e-12))}
        search = Neighbours(features[:400], labels[:400], weights=weights, temperature=0.1)
        found = dict(search.predictions(features[400:], ks))
        assert list(found) == ks
        for k, predicted in found.items():
            theirs = KNeighborsClassifier(k, metric="cosine", weights=votes.get(weights, weights))
            expected = theirs.fit(features[:400].astype(np.float64), labels[:400]).predict(features[400:])
            assert np.mean(predicted == expected) >= 0.99  # but for ties, which rounding breaks
        assert len({tuple(predicted) for predicted in found.values()}) > 1

    def test_lengths_do_not_matter_and_labels_may_be_any(self) -> None:
        features, labels = features_and_labels()
        scale = np.random.default_rng(0).uniform(0.1, 10, (500, 1)).astype(np.float32)
        one, other = (
            next(Neighbours(x[:400], 3 * labels[:400], weights="uniform", temperature=1).predictions(x[400:], [7]))[1]
            for x in (features, features * scale)
        )
        assert np.mean(one == other) >= 0.99
        assert set(one) <= set(3 * labels)

    def test_one_that_is_nearer_outvotes_several_that_are_far_unless_votes_are_uniform(self) -> None:
        angles = np.array([0.1, 0.9, 1.0, 1.1])
        features, labels = np.stack([np.cos(angles), np.sin(angles)], 1), np.array([1, 0, 0, 0])
        asked = np.array([[1.0, 0.0]])
        for weights, temperature, expected in (("exponential", 0.07, 1), ("exponential", 10, 0), ("uniform", 1, 0)):
            search = Neighbours(features, labels, weights=weights, temperature=temperature)  # type: ignore[arg-type]
            assert next(search.predictions(asked, [4]))[1].tolist() == [expected]

    def test_at_a_low_temperature_the_nearest_decides_and_nothing_overflows(self) -> None:
        features, labels = features_and_labels()
        cold = Neighbours(features[:400], labels[:400], weights="exponential", temperature=1e-6)
        found = dict(cold.predictions(features[400:], [1, 100]))
        assert (found[1] == found[100]).all()

    def test_features_of_zero_have_neighbours_too(self) -> None:
        features, labels = features_and_labels()
        features[[3, 450]] = 0
        assert not unit(features)[3].any()
        search = Neighbours(features[:400], labels[:400], weights="exponential", temperature=0.07)
        assert next(search.predictions(features[450:451], [1]))[1].tolist() == [labels[3]]

    def test_features_that_are_not_finite_are_refused(self) -> None:
        features, labels = features_and_labels()
        features[3, 5] = np.inf
        with pytest.raises(ValueError, match="feature 5 is not finite"):
            Neighbours(features, labels, weights="uniform", temperature=1)


def run(stored: Entry, **settings: Any) -> tuple[Entry, dict[tuple[str, str], Any], Any]:
    """Run the stage; returns the entry, its top-1 rows by (selection, split), its predictions."""
    entry = new_entry(stored.path.parents[2], "knn", settings, features=stored)
    knn.run(entry, threads=1, device="cpu")
    rows = json.loads(entry.file("metrics.json").read_text())
    top1 = {(row["selection"], row["split"]): row for row in rows if row["metric"] == "top1"}
    assert len(rows) == 2 * len(top1)
    return entry, top1, pq.read_table(entry.file("predictions.parquet")).to_pandas()


def expected(train: Any, labels: Any, asked: Any, k: int) -> Any:
    votes = Neighbours(train, labels, weights="exponential", temperature=0.07)
    return next(votes.predictions(asked, [k]))[1]


class TestStage:
    def test_separable_features_are_classified_without_error(self, tmp_path: Path) -> None:
        _, rows, _ = run(stored_features(tmp_path, {"train": 400, "test": 200}))
        assert {row["value"] for row in rows.values()} == {100.0}

    def test_shuffled_labels_are_classified_by_chance(self, tmp_path: Path) -> None:
        _, rows, _ = run(stored_features(tmp_path, {"train": 400, "test": 400}, shuffled=True))
        low, high = exact_interval(rows["validation", "test"]["value"], rows["validation", "test"]["effective_n"])
        assert low <= 25 <= high

    def test_k_is_chosen_on_a_share_of_train_and_both_are_searched_before_the_test(self, tmp_path: Path) -> None:
        stored = stored_features(tmp_path, {"train": 400, "test": 200}, separation=0.7)
        ks = [1, 5, 20, 100]
        entry, rows, table = run(stored, neighbours=ks, validation_fraction=0.25, seed=2)
        (train, labels), (test, truth) = (open_features(stored, split) for split in ("train", "test"))
        held = validation_mask(labels, 0.25, 2)
        accuracies = {
            k: 100 * np.mean(expected(train[~held], labels[~held], train[held], k) == labels[held]) for k in ks
        }
        best = max(accuracies, key=lambda k: (accuracies[k], -k))
        with open(entry.file("neighbours.csv"), newline="") as file:
            assert {int(row["k"]): float(row["top1"]) for row in csv.DictReader(file)} == pytest.approx(accuracies)
        assert rows["validation", "validation"]["value"] == pytest.approx(accuracies[best])
        assert rows["validation", "test"]["hyperparameters"] == {"k": best, "at_edge": best == 100}
        tested = table[table["split"] == "test"]
        assert tested["prediction"].tolist() == expected(train, labels, test, best).tolist()
        assert rows["validation", "test"]["value"] == pytest.approx(100 * np.mean(tested["prediction"] == truth))
        assert table[table["split"] == "validation"]["index"].tolist() == np.flatnonzero(held).tolist()
        counts = {"train": 300, "validation": 100, "test": 200}
        assert entry.facts() == {"k": {"validation": best}, "counts": counts}

    def test_chosen_on_test_every_k_searches_all_training_images(self, tmp_path: Path) -> None:
        stored = stored_features(tmp_path, {"train": 200, "test": 100}, separation=0.5)
        ks = [1, 5, 20]
        _, rows, table = run(stored, neighbours=ks, selections=["validation", "test"])
        assert set(rows) == {("validation", "validation"), ("validation", "test"), ("test", "test")}
        (train, labels), (test, truth) = (open_features(stored, split) for split in ("train", "test"))
        accuracies = {k: 100 * np.mean(expected(train, labels, test, k) == truth) for k in ks}
        best = max(accuracies, key=lambda k: (accuracies[k], -k))
        assert rows["test", "test"]["hyperparameters"]["k"] == best
        assert rows["test", "test"]["value"] == pytest.approx(accuracies[best])
        assert set(table[table["selection"] == "test"]["split"]) == {"test"}

    def test_official_validation_images_are_used_where_there_are_some(self, tmp_path: Path) -> None:
        stored = stored_features(tmp_path, {"train": 200, "validation": 90, "test": 100}, separation=0.7)
        entry, rows, _ = run(stored)
        assert rows["validation", "validation"]["n"] == 90
        assert entry.facts()["counts"] == {"train": 200, "validation": 90, "test": 100}

    def test_few_images_are_the_probes(self, tmp_path: Path) -> None:
        stored = stored_features(tmp_path, {"train": 200, "validation": 90, "test": 100}, separation=0.7)
        entry, _, table = run(stored, images_per_class=5, neighbours=[1, 5], seed=3)
        labels = open_features(stored, "train")[1]
        few = np.flatnonzero(few_mask(labels, 5, 3))
        held = few[validation_mask(labels[few], 0.2, 3)]
        assert table[table["split"] == "validation"]["index"].tolist() == held.tolist()
        assert entry.facts()["counts"] == {"train": 16, "validation": 4, "test": 100}

    def test_k_above_the_number_of_training_images_is_left_out(self, tmp_path: Path, caplog: Any) -> None:
        caplog.set_level(logging.INFO, "robust_transfer")
        stored = stored_features(tmp_path, {"train": 200, "test": 100}, separation=0.7)
        entry, rows, _ = run(stored, images_per_class=5, neighbours=[16, 17, 200, 2])
        with open(entry.file("neighbours.csv"), newline="") as file:
            assert [row["k"] for row in csv.DictReader(file)] == ["2", "16"]
        assert "k above 16 left out: there are 16 training images" in caplog.messages
        k = rows["validation", "test"]["hyperparameters"]
        assert k == {"k": k["k"], "at_edge": k["k"] == 2}

    def test_k_that_is_always_too_large_is_refused(self, tmp_path: Path) -> None:
        stored = stored_features(tmp_path, {"train": 200, "test": 100})
        settings = {"images_per_class": 5, "neighbours": [200, 17]}
        entry = new_entry(tmp_path, "knn", settings, features=stored)
        with pytest.raises(ValueError, match=r"knn.neighbours: the smallest, 17, is more than the 16 training images"):
            knn.run(entry, threads=1, device="cpu")
        assert not (entry.path / "card.json").exists()

    def test_a_best_k_at_the_end_of_the_grid_is_said_unless_it_is_1(self, tmp_path: Path, caplog: Any) -> None:
        stored = stored_features(tmp_path, {"train": 200, "test": 100})
        _, rows, _ = run(stored, neighbours=[3, 5])
        assert rows["validation", "test"]["hyperparameters"] == {"k": 3, "at_edge": True}
        ours = [message for name, level, message in caplog.record_tuples if level >= logging.WARNING]
        assert ours == ["the best k, 3, is the smallest of the grid: widen knn.neighbours"]
        _, rows, _ = run(stored, neighbours=[1, 5], seed=1)
        assert rows["validation", "test"]["hyperparameters"] == {"k": 1, "at_edge": False}

    def test_the_same_features_give_the_same_files(self, tmp_path: Path) -> None:
        stored = stored_features(tmp_path, {"train": 200, "test": 100}, separation=0.5)
        entry, _, _ = run(stored)
        files = entry.card()["files"]
        knn.run(entry, threads=1, device="cpu")
        assert entry.card()["files"] == files
        assert sorted(files) == ["metrics.json", "neighbours.csv", "predictions.parquet"]

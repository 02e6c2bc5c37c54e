"""The solver against scikit-learn's optimum, and the stage on features with a known answer."""

import csv
import json
import logging

import numpy as np
import pyarrow.parquet as pq
import pytest
from robust_transfer.configuration.transfer import ProbingSettings
from robust_transfer.datasets.splits import validation_mask
from robust_transfer.stages import probing
from robust_transfer.statistics.intervals import exact_interval
from robust_transfer.statistics.lbfgs import TOLERANCE
from robust_transfer.statistics.logistic_regression import Regression
from robust_transfer.statistics.metrics import measurements
from robust_transfer.store.entry import open_entry, write_json
from robust_transfer.store.features import open_features, write_features
from robust_transfer.training.fixed_features import training_parts
from sklearn.linear_model import LogisticRegression
from support.stored_features import problem, stored_features


def standardised(features):
    centred = features - features.mean(0, dtype=np.float64)
    return centred / centred.std(0)


def objective(features, labels, strength, weights, biases):
    """Mean cross-entropy + λ/2·‖W‖², in float64."""
    scores = features.astype(np.float64) @ np.asarray(weights, np.float64).T + biases
    others = scores - scores[np.arange(len(labels)), labels][:, None]
    return np.mean(np.logaddexp.reduce(others, axis=1)) + strength / 2 * np.sum(np.asarray(weights, np.float64) ** 2)


def optimum(features, labels, strength):
    """The objective that scikit-learn reaches in float64 with a tight tolerance."""
    two = labels.max() == 1
    model = LogisticRegression(C=(2 if two else 1) / (strength * len(labels)), tol=1e-9, max_iter=20_000)
    model.fit(features, labels)
    weights, biases = model.coef_, model.intercept_
    if two:  # one row w of scores, whose penalty is twice that of the rows -w/2 and w/2
        weights, biases = np.concatenate([-weights, weights]) / 2, np.concatenate([-biases, biases]) / 2
    return objective(features, labels, strength, weights, biases)


class TestSolver:
    @pytest.mark.parametrize(
        ("n", "dimension", "classes", "separation"),
        [
            pytest.param(300, 40, 10, 0.3, id="overlapping"),
            pytest.param(300, 40, 10, 4.0, id="separable"),
            pytest.param(60, 150, 3, 0.5, id="more features than images"),
            pytest.param(200, 20, 2, 0.5, id="two classes"),
            pytest.param(450, 25, 30, 1.0, id="thirty classes"),
        ],
    )
    def test_every_strength_reaches_the_optimum_of_scikit_learn(self, n, dimension, classes, separation):
        features, labels = problem(n, dimension, classes, separation=separation)
        scaled = standardised(features)
        for fit in Regression(features, labels, standardise=True).path([100.0, 1.0, 1e-2, 1e-4, 1e-6]):
            reached = objective(scaled, labels, fit.strength, fit.weights, fit.biases)
            assert fit.gap <= TOLERANCE
            assert reached == pytest.approx(fit.objective, rel=1e-5)
            assert reached <= optimum(scaled, labels, fit.strength) * (1 + 1e-4), fit

    def test_a_thousand_classes_reach_it_too(self):
        features, labels = problem(1500, 8, 1000, separation=3.0)
        fit = next(Regression(features, labels, standardise=True).path([1e-2]))
        assert fit.objective <= optimum(standardised(features), labels, 1e-2) * (1 + 1e-4)
        assert len(fit.classes) == 1000

    @pytest.mark.parametrize("strength", [1e3, 1e5])
    def test_under_a_strong_penalty_weights_are_still_the_optimums(self, strength):
        features, labels = problem(300, 40, 10, separation=0.5)
        fit = next(Regression(features, labels, standardise=True).path([strength]))
        limit = (np.eye(10)[labels] - 0.1).T @ standardised(features) / (300 * strength)
        np.testing.assert_allclose(fit.weights, limit, atol=0.03 * np.abs(limit).max())

    def test_a_strength_alone_reaches_what_the_path_does_at_a_greater_cost(self):
        features, labels = problem(300, 40, 10, separation=0.5)
        regression = Regression(features, labels, standardise=True)
        grid = np.logspace(-6, 2, 33).tolist()
        path = {fit.strength: fit for fit in regression.path(grid)}
        assert list(path) == sorted(grid, reverse=True)
        alone = {strength: next(regression.path([strength])) for strength in grid}
        for strength, fit in alone.items():
            assert fit.objective == pytest.approx(path[strength].objective, rel=1e-4)
            assert fit.weights.dtype == path[strength].weights.dtype == np.float32
        cost, cost_alone = (sum(fit.evaluations for fit in fits.values()) for fits in (path, alone))
        assert cost < cost_alone / 2

    @pytest.mark.parametrize(("n", "dimension"), [(300, 40), (60, 150)])
    def test_torch_computes_the_same(self, monkeypatch, n, dimension):
        torch = pytest.importorskip("torch")
        torch.set_num_threads(1)
        features, labels = problem(n, dimension, 5, separation=0.5)
        grid = [10.0, 1.0, 0.3, 0.1, 1e-2, 1e-4]
        expected = list(Regression(features, labels, standardise=True).path(grid))
        predicted = [fit.predict(fit.scaling(features)) for fit in expected]
        monkeypatch.setattr("robust_transfer.statistics.logistic_regression._namespace", lambda device: torch)
        fits = Regression(features, labels, standardise=True).path(grid)
        for fit, reference, predictions in zip(fits, expected, predicted, strict=True):
            assert isinstance(fit.weights, torch.Tensor)
            assert fit.objective == pytest.approx(reference.objective, rel=1e-4)
            assert np.mean(fit.predict(fit.scaling(features)) == predictions) > 0.98

    def test_without_standardisation_features_are_taken_as_they_are(self):
        features, labels = problem(300, 40, 5, separation=0.5)
        features = (features * 7 + 20).astype(np.float16)
        for fit in Regression(features, labels, standardise=False).path([1.0, 1e-3]):
            centred = features - features.mean(0, dtype=np.float64)
            reached = objective(centred, labels, fit.strength, fit.weights, fit.biases)
            assert reached <= optimum(centred, labels, fit.strength) * (1 + 1e-4)

    def test_constant_features_and_missing_classes_change_nothing(self):
        features, labels = problem(300, 40, 5, separation=1)
        padded = np.concatenate([features, np.full((300, 3), 7.7, np.float32)], 1)
        fit = next(Regression(padded, labels * 2, standardise=True).path([1e-3]))
        plain = next(Regression(features, labels, standardise=True).path([1e-3]))
        assert fit.objective == pytest.approx(plain.objective, rel=1e-5)
        assert fit.classes.tolist() == [0, 2, 4, 6, 8]
        np.testing.assert_array_equal(fit.predict(fit.scaling(padded)), 2 * plain.predict(plain.scaling(features)))

    def test_features_that_are_all_constant_leave_the_class_frequencies(self):
        labels = np.repeat([0, 1, 2], [50, 30, 20])
        for shape in ((100, 5), (100, 200)):
            fit = next(Regression(np.ones(shape, np.float32), labels, standardise=True).path([1e-3]))
            assert fit.objective == pytest.approx(
                -(0.5 * np.log(0.5) + 0.3 * np.log(0.3) + 0.2 * np.log(0.2)), rel=1e-5
            )
            assert (fit.predict(fit.scaling(np.ones(shape, np.float32))) == 0).all()

    def test_what_cannot_be_fitted_is_refused(self):
        features, labels = problem(20, 4, 2, separation=1)
        with pytest.raises(ValueError, match="all 20 images to fit on have label 3"):
            Regression(features, labels * 0 + 3, standardise=True)
        features[7, 2] = np.nan
        with pytest.raises(ValueError, match="feature 2 is not finite"):
            Regression(features, labels, standardise=True)


class TestDevice:
    @pytest.mark.parametrize(
        ("shape", "classes", "threads", "expected"),
        [
            ((1_500, 64), 10, 1, "cpu"),
            ((10_000, 73), 10, 1, "cpu"),
            ((10_000, 75), 10, 1, "cuda"),
            ((10_000, 75), 10, 8, "cpu"),
            ((10_000, 512), 100, 8, "cuda"),
        ],
    )
    def test_a_gpu_fits_what_takes_the_cpu_longer_than_starting_kernels(self, shape, classes, threads, expected):
        assert probing.solver_device("cuda", shape, classes, threads) == expected
        assert probing.solver_device("cpu", shape, classes, threads) == "cpu"

    def test_a_small_probe_runs_on_the_cpu_and_says_so(self, tmp_path, caplog):
        entry = probe_entry(stored_features(tmp_path, {"train": 60, "test": 20}, classes=3), strengths=[0.1, 0.01])
        with caplog.at_level(logging.INFO):
            probing.run(entry, threads=1, device="cuda")
        assert json.loads((entry.path / "timing.json").read_text())["device"] == "cpu"
        assert "fitted on the CPU: " in caplog.text


def probe_entry(features, **settings):
    path = features.path.parents[1] / "probing" / f"probe{len(settings)}-abcdef"
    path.mkdir(parents=True)
    inputs = {"features": f"features/{features.name}"}
    write_json(path / "entry.json", {"stage": "probing", "settings": settings, "inputs": inputs})
    return open_entry(path)


def probe(features, **settings):
    """Run the stage; returns the entry, its metrics by (split, metric), its predictions by split."""
    entry = probe_entry(features, **settings)
    probing.run(entry, threads=1, device="cpu")
    rows = {(row["split"], row["metric"]): row for row in json.loads(entry.file("metrics.json").read_text())}
    table = pq.read_table(entry.file("predictions.parquet")).to_pandas()
    return entry, rows, dict(list(table.groupby("split")))


class TestStage:
    def test_separable_features_are_classified_without_error(self, tmp_path):
        _, rows, _ = probe(stored_features(tmp_path, {"train": 400, "test": 200}))
        assert {row["value"] for row in rows.values()} == {100.0}

    def test_shuffled_labels_are_classified_by_chance(self, tmp_path):
        _, rows, _ = probe(stored_features(tmp_path, {"train": 400, "test": 400}, shuffled=True))
        for metric in ("top1", "mean_per_class"):
            row = rows["test", metric]
            low, high = exact_interval(row["value"], row["effective_n"])
            assert low <= 25 <= high
            assert high - low < 12

    def test_a_share_of_train_is_held_out_and_both_are_fitted_before_the_test(self, tmp_path):
        stored = stored_features(tmp_path, {"train": 400, "test": 200}, separation=1.0)
        entry, rows, predictions = probe(stored, strengths=[1.0, 0.1, 1e-2, 1e-3, 1e-4], validation_fraction=0.25)
        features, labels = problem(600, 16, 4, separation=1.0)
        features = features.astype(np.float16)

        held = validation_mask(labels[:400], 0.25, 0)
        validation, test = predictions["validation"], predictions["test"]
        assert validation["index"].tolist() == np.flatnonzero(held).tolist()
        assert validation["label"].tolist() == labels[:400][held].tolist()
        assert test["index"].tolist() == list(range(200))
        assert test["label"].tolist() == labels[400:].tolist()

        chosen = rows["test", "top1"]["hyperparameters"]["lambda"]
        for images, split in ((~held, validation), (held | True, test)):
            fit = next(Regression(features[:400][images], labels[:400][images], standardise=True).path([chosen]))
            tested = features[:400][held] if split is validation else features[400:]
            assert np.mean(fit.predict(fit.scaling(tested)) == split["prediction"]) > 0.98
        hyperparameters = {"lambda": chosen, "at_edge": chosen in (1.0, 1e-4)}
        for split, table in predictions.items():
            expected = measurements(
                table["label"].to_numpy(), table["prediction"].to_numpy(), 4,
                split=split, selection="validation", hyperparameters=hyperparameters,
            )  # fmt: skip
            assert [row for (of, _), row in rows.items() if of == split] == expected
        assert entry.facts() == {
            "lambda": {"validation": chosen},
            "counts": {"train": 300, "validation": 100, "test": 200},
        }

    def test_official_validation_images_are_used_where_there_are_some(self, tmp_path):
        stored = stored_features(tmp_path, {"train": 200, "validation": 90, "test": 100}, separation=1.0)
        entry, rows, predictions = probe(stored)
        assert predictions["validation"]["index"].tolist() == list(range(90))
        assert rows["validation", "top1"]["n"] == 90
        assert entry.facts()["counts"] == {"train": 200, "validation": 90, "test": 100}

    @pytest.mark.parametrize("metric", ["top1", "mean_per_class"])
    def test_the_best_on_validation_by_its_metric_is_chosen_and_the_larger_of_equals(self, tmp_path, metric):
        stored = stored_features(tmp_path, {"train": 120, "test": 50}, separation=0.7)
        entry, rows, _ = probe(stored, metric=metric)
        with open(entry.file("strengths.csv"), newline="") as file:
            read = list(csv.DictReader(file))
        assert {row.pop("selection") for row in read} == {"validation"}
        grid = [{name: float(value) for name, value in row.items()} for row in read]
        assert len(grid) == 45
        best = max(row[metric] for row in grid)
        assert len({row[metric] for row in grid}) > 1
        chosen = rows["validation", metric]
        assert chosen["value"] == best
        assert chosen["hyperparameters"]["lambda"] == max(row["lambda"] for row in grid if row[metric] == best)

    def test_test_labels_do_not_touch_what_is_chosen(self, tmp_path):
        counts = {"train": 200, "test": 100}
        _, rows, predictions = probe(stored_features(tmp_path / "a", counts, separation=0.7))
        other = stored_features(tmp_path / "b", counts, separation=0.7)
        features, labels = problem(300, 16, 4, separation=0.7)
        with other.writing() as draft:
            write_features(draft.file("train.arrow"), features[:200].astype(np.float16), labels[:200])
            write_features(draft.file("test.arrow"), features[200:].astype(np.float16), (labels[200:] + 1) % 4)
            draft.facts = other.facts()
        _, wrong_rows, wrong_predictions = probe(other)
        assert wrong_rows["validation", "top1"] == rows["validation", "top1"]
        assert wrong_predictions["test"]["prediction"].tolist() == predictions["test"]["prediction"].tolist()
        assert wrong_rows["test", "top1"]["value"] < rows["test", "top1"]["value"]

    def test_chosen_on_test_every_strength_sees_all_training_images(self, tmp_path):
        stored = stored_features(tmp_path, {"train": 120, "test": 60}, separation=0.7)
        strengths = [1.0, 0.1, 1e-2, 1e-3]
        entry, *_ = probe(stored, strengths=strengths, selections=["validation", "test"])
        rows = {
            (row["selection"], row["split"]): row
            for row in json.loads((entry.path / "metrics.json").read_text())
            if row["metric"] == "top1"
        }
        assert set(rows) == {("validation", "validation"), ("validation", "test"), ("test", "test")}
        features, labels = open_features(stored, "train")
        tested, truth = open_features(stored, "test")
        regression = Regression(features, labels, standardise=True)
        accuracies = {
            fit.strength: 100 * np.mean(fit.predict(fit.scaling(tested)) == truth) for fit in regression.path(strengths)
        }
        best = max(accuracies, key=lambda strength: (accuracies[strength], strength))
        assert rows["test", "test"]["hyperparameters"]["lambda"] == best
        assert rows["test", "test"]["value"] == pytest.approx(accuracies[best])
        assert rows["test", "test"]["value"] >= rows["validation", "test"]["value"]
        table = pq.read_table(entry.path / "predictions.parquet").to_pylist()
        of = [row for row in table if row["selection"] == "test"]
        assert {row["split"] for row in of} == {"test"}
        assert 100 * np.mean([row["label"] == row["prediction"] for row in of]) == rows["test", "test"]["value"]

    def test_few_images_are_nested_and_validated_among_themselves(self, tmp_path):
        stored = stored_features(tmp_path, {"train": 200, "validation": 90, "test": 100}, separation=1.0)
        labels = open_features(stored, "train")[1]
        seen = []
        for n in (5, 10, 25):
            settings = ProbingSettings(images_per_class=n, seed=3)
            train, validation = training_parts(stored, settings)
            used = np.concatenate([train.index, validation.index])
            assert np.bincount(labels[used]).tolist() == [n] * 4
            assert np.bincount(validation.labels).tolist() == [round(0.2 * n)] * 4
            assert not set(train.index) & set(validation.index)
            assert (train.labels == labels[train.index]).all()
            seen.append(set(used))
        assert seen[0] < seen[1] < seen[2]
        entry, rows, _ = probe(stored, images_per_class=5)
        assert entry.facts()["counts"] == {"train": 16, "validation": 4, "test": 100}
        assert rows["test", "top1"]["n"] == 100

    def test_a_best_strength_at_the_end_of_the_grid_is_said(self, tmp_path, caplog):
        caplog.set_level(logging.INFO, "robust_transfer")
        stored = stored_features(tmp_path, {"train": 200, "test": 100})
        _, rows, _ = probe(stored, strengths=[1e-5, 1e-4, 1e-3])
        assert rows["test", "top1"]["hyperparameters"] == {"lambda": 1e-3, "at_edge": True}
        warning, result = caplog.messages
        assert warning == "the best λ, 0.001, is the largest of the grid: widen probing.strengths"
        assert result.startswith("probe: λ 0.001 of 3, chosen on validation at 100.0 %, test 100.0 % (top-1), ")

    def test_a_dataset_with_one_image_a_class_is_refused(self, tmp_path):
        entry = probe_entry(stored_features(tmp_path, {"train": 4, "test": 100}))
        with pytest.raises(ValueError, match="no class has two training images"):
            probing.run(entry, threads=1, device="cpu")
        assert not (entry.path / "card.json").exists()

    def test_the_same_features_give_the_same_files(self, tmp_path):
        stored = stored_features(tmp_path, {"train": 200, "test": 100}, separation=0.5)
        entry, _, _ = probe(stored)
        files = entry.card()["files"]
        probing.run(entry, threads=1, device="cpu")
        assert entry.card()["files"] == files
        assert sorted(files) == ["metrics.json", "predictions.parquet", "strengths.csv"]


class TestScikitLearn:
    """The stage with `solver: scikit-learn`; `tests/statistics/test_scikit_learn.py` holds the two solvers together."""

    def test_it_chooses_and_measures_what_ours_does(self, tmp_path):
        stored = stored_features(tmp_path, {"train": 300, "test": 200}, separation=1.5)
        strengths = [1.0, 0.1, 1e-2, 1e-3]
        ours, rows, said = probe(stored, strengths=strengths)
        theirs, their_rows, they_said = probe(stored, strengths=strengths, solver="scikit-learn")
        assert their_rows == rows
        assert theirs.facts() == ours.facts()
        for split, table in said.items():
            assert (table["prediction"].to_numpy() == they_said[split]["prediction"].to_numpy()).all()
        grids = [list(csv.reader(entry.file("strengths.csv").open())) for entry in (ours, theirs)]
        assert [row[:4] for row in grids[0]] == [row[:4] for row in grids[1]]  # selection, λ and both accuracies
        assert grids[0] != grids[1]  # evaluations and gaps differ: it was another solver

    def test_both_selections_and_few_images_are_honoured(self, tmp_path):
        stored = stored_features(tmp_path, {"train": 300, "test": 200}, separation=1.5)
        settings = {"images_per_class": 10, "selections": ["validation", "test"], "seed": 3, "strengths": [0.1, 0.01]}
        ours, theirs = (
            json.loads(probe(stored, **settings, **solver)[0].file("metrics.json").read_text())
            for solver in ({}, {"solver": "scikit-learn"})
        )
        assert len(theirs) == 6
        assert theirs == ours

    def test_fits_that_have_not_converged_are_said(self, tmp_path, caplog, monkeypatch):
        monkeypatch.setattr("robust_transfer.statistics.scikit_learn.ScikitLearn.iterations", 1)
        stored = stored_features(tmp_path, {"train": 300, "test": 100}, separation=0.5)
        probe(stored, strengths=[1e-3, 1e-5], solver="scikit-learn")
        assert "2 of the fits stopped before they had converged, at λ from 1e-05 up" in caplog.messages
        assert any(said.startswith("the fit to all training images stopped before") for said in caplog.messages)

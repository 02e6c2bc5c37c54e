"""The results table: what entries measured, means over seeds, and what validation chooses."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from robust_transfer.configuration.training import Attack, Recipe
from robust_transfer.stages import results as results_stage
from robust_transfer.statistics import candidates
from robust_transfer.statistics.candidates import Candidate, SelectionError, TransferRun
from robust_transfer.statistics.predictions import Predictions
from robust_transfer.statistics.selection import Bootstrap
from robust_transfer.store.entry import StoreError
from robust_transfer.tables.errors import TableError
from robust_transfer.tables.experiment_info import ExperimentInfo
from robust_transfer.tables.key import BEST_ARCH, BEST_ROBUST, canonical
from robust_transfer.tables.results import KEY, SCHEMA, read_results
from robust_transfer.tables.training import read_flags, read_training
from scipy.stats import binomtest, t
from support import tables
from support.fake_entries import Fake, number, trained
from support.tables import Row


def rows(path, **where) -> list[Row]:
    """Rows whose columns have these values."""
    return tables.rows(read_results(path), **where)


def only(path, **where) -> Row:
    found = rows(path, **where)
    assert len(found) == 1, found
    return found[0]


def chosen(path, **where) -> Row:
    where = {"arch": BEST_ARCH, "eps": BEST_ROBUST, "metric": "top1", "target": "coarse", **where}
    return only(path, backbone_seed=None, **where)


def test_entries_become_rows_in_the_order_of_the_experiment(tmp_path):
    fake = Fake(tmp_path)
    source = fake.source(90, eps="0.25")
    fake.transfer(80, 82, target="fine", eps="0.25")
    fake.transfer(70, 72, target="coarse")
    path = fake.collect()
    measured = [row for row in rows(path) if row.entry and row.backbone_seed is not None]
    assert [row.target for row in measured] == ["objects"] * 2 + ["fine"] * 4 + ["coarse"] * 4
    clean = only(path, entry=source, attack=None)
    assert (clean.value, clean.mode, clean.protocol, clean.transfer_seed, clean.n) == (90, "source", None, None, 200)
    attacked = next(row for row in rows(path, entry=source) if row.attack)
    assert attacked.attack == '{"eps":"0.25","norm":"l2","restarts":1,"steps":20}'
    fine = only(path, target="fine", split="test", metric="top1", eps="0.25", arch="resnet8_w8")
    assert (fine.value, fine.norm, fine.eps_value, fine.code) == (80, "l2", 0.25, "abcdef012345")
    assert fine.hyperparameters == '{"strength":0.01}'


def test_linf_eps_keeps_its_spelling_and_has_a_value(tmp_path):
    fake = Fake(tmp_path, fixed_eps={"linf": "4/255"})
    fake.transfer(80, 80, target="coarse", eps="4/255", norm="linf")
    path = fake.collect()
    row = only(path, eps="4/255", split="test", metric="top1", arch="resnet8_w8")
    assert row.eps_value == pytest.approx(4 / 255)
    assert chosen(path).norm == "linf"


def test_schema_and_metadata_are_complete(tmp_path):
    fake = Fake(tmp_path)
    fake.transfer(80, 80, target="coarse")
    path = fake.collect()
    assert pq.read_schema(path).names == SCHEMA.names
    assert set(KEY) < set(SCHEMA.names)
    about = json.loads(pq.read_schema(path).metadata[b"experiment"])
    assert "entries" not in about
    assert "costs" not in about
    assert ExperimentInfo.of(read_results(path)).targets[0].label == "Coarse"


def test_a_duplicate_key_is_an_error_that_names_it(tmp_path):
    fake = Fake(tmp_path)
    fake.transfer(80, 80, target="coarse")
    other = fake.key("probing", target="coarse")
    other["entry"] += "-again"
    fake.add(other, [number(75, 200), number(75, 200, split="validation")], {})
    columns = pq.read_table(tmp_path / "store" / fake.entries[0]["entry"] / "predictions.parquet")
    again = tmp_path / "store" / other["entry"]
    right = columns["label"].to_numpy().copy()
    right[:50] = (right[:50] + 1) % 4
    right[200:250] = (right[200:250] + 1) % 4
    pq.write_table(columns.set_column(3, "prediction", [right.astype(np.int32)]), again / "predictions.parquet")
    fake.seal(again)
    with pytest.raises(TableError, match=r"two rows with one key .*target=coarse, arch=resnet8_w8.*-again") as caught:
        fake.collect()
    assert fake.entries[0]["entry"] in str(caught.value)
    assert not (tmp_path / "results.parquet").exists()


def test_metrics_that_contradict_their_predictions_are_an_error(tmp_path):
    fake = Fake(tmp_path)
    entry = tmp_path / "store" / fake.transfer(80, 80, target="coarse")
    (entry / "metrics.json").write_text(json.dumps([number(85, 200)]))
    fake.seal(entry)
    with pytest.raises(TableError, match=r"metrics.json says test top1 = 85.00, predictions.parquet says 80.00"):
        fake.collect()


def test_an_altered_or_unfinished_entry_is_refused(tmp_path):
    fake = Fake(tmp_path)
    entry = tmp_path / "store" / fake.transfer(80, 80, target="coarse")
    (entry / "metrics.json").write_text("[]")
    with pytest.raises(StoreError, match=r"metrics.json.*altered or cut short"):
        fake.collect()
    (entry / "card.json").unlink()
    with pytest.raises(StoreError, match=r"card.json: missing"):
        fake.collect()


def test_costs_have_a_row_an_entry_and_keep_what_has_no_column(tmp_path):
    fake = Fake(tmp_path)
    entry = fake.transfer(80, 80, target="coarse")
    fake.collect()
    backbone, row = pq.read_table(tmp_path / "timings.parquet").to_pylist()
    assert (backbone["stage"], backbone["entry"]) == ("pretraining", fake.backbones[0])
    assert (row["entry"], row["stage"], row["seconds"], row["device"]) == (entry, "probing", 1.5, "cpu")
    assert row["images_per_second"] is None
    assert json.loads(row["details"]) == {"shards": 2}


def test_eps_is_chosen_on_validation_and_reported_on_test(tmp_path):
    fake = Fake(tmp_path)
    fake.transfer(50, 50, target="coarse")
    fake.transfer(90, 60, target="coarse", eps="0.1")  # the best on test, which nobody may know
    fake.transfer(70, 80, target="coarse", eps="0.25")
    row = chosen(fake.collect())
    assert row.value == pytest.approx(70)
    assert (row.chosen["eps"], row.chosen["arch"], row.split, row.selection) == (
        "0.25",
        "resnet8_w8",
        "test",
        "validation",
    )
    assert row.entry == fake.entries[2]["entry"]
    assert row.eps_value is None


def test_of_equals_the_smaller_eps_is_chosen(tmp_path):
    generator = np.random.default_rng(1)
    fake = Fake(tmp_path)
    for eps, accuracy in (("1", 80), ("0.1", 40), ("0.25", 60)):
        fake.transfer(accuracy, generator.permutation(fake.images) < 140, target="coarse", eps=eps)
    assert chosen(fake.collect()).chosen["eps"] == "0.1"


def test_architecture_is_chosen_too_for_robust_and_for_standard(tmp_path):
    fake = Fake(tmp_path)
    small, large = fake.architectures
    fake.transfer(50, 55, target="coarse", arch=small)
    fake.transfer(60, 50, target="coarse", arch=large)
    fake.transfer(70, 70, target="coarse", arch=small, eps="0.25")
    fake.transfer(65, 80, target="coarse", arch=large, eps="0.25")
    path = fake.collect()
    assert (chosen(path).value, chosen(path).chosen["arch"]) == (pytest.approx(65), large)
    standard = chosen(path, eps="0")
    assert (standard.value, standard.norm, standard.chosen["arch"]) == (pytest.approx(50), "none", small)
    assert chosen(path, arch=small).value == pytest.approx(70)
    assert chosen(path, metric="top1_difference").value == pytest.approx(15)
    assert chosen(path, metric="top1_difference", arch=large).value == pytest.approx(5)
    fixed = chosen(path, eps="0.25")  # fixed beforehand, so only the architecture is chosen
    assert (fixed.value, fixed.chosen["arch"]) == (pytest.approx(65), large)


def test_modes_and_variants_choose_for_themselves(tmp_path):
    fake = Fake(tmp_path)
    for eps, native, downscaled in (("0.1", 80, 40), ("1", 60, 55)):
        fake.transfer(native, native, target="coarse", eps=eps)
        fake.transfer(downscaled, downscaled, target="coarse", eps=eps, variant={"downscaled": 12})
    path = fake.collect()
    assert chosen(path, variant="{}").chosen["eps"] == "0.1"
    assert chosen(path, variant='{"downscaled":12}').chosen["eps"] == "1"


def test_mean_per_class_targets_choose_by_it(tmp_path):
    # Class 0 has 60 of 100 images: right on all of them and nothing else is .6 of images and a quarter of classes.
    fake = Fake(tmp_path, metric="mean_per_class", images=100)
    labels = np.array([0] * 60 + [1] * 15 + [2] * 15 + [3] * 10)
    for eps, right in (("0.1", labels == 0), ("0.25", labels > 0)):
        recalls = [right[labels == label].mean() for label in range(4)]
        metrics = [
            number(100 * value, 100, split=split, metric=metric)
            for split in ("test", "validation")
            for metric, value in (("top1", right.mean()), ("mean_per_class", np.mean(recalls)))
        ]
        predictions = {
            "split": ["test"] * 100 + ["validation"] * 100,
            "index": [*range(100)] * 2,
            "label": [*labels] * 2,
            "prediction": [*np.where(right, labels, (labels + 1) % 4)] * 2,
        }
        fake.add(fake.key("probing", target="coarse", eps=eps), metrics, predictions)
    row = chosen(fake.collect(), metric="mean_per_class")
    assert (row.value, row.chosen["eps"]) == (pytest.approx(75), "0.25")


def test_a_candidate_without_validation_predictions_is_an_error_that_names_it(tmp_path):
    fake = Fake(tmp_path)
    fake.transfer(50, 50, target="coarse", eps="0.1")
    fake.transfer(50, np.zeros(0, bool), target="coarse", eps="0.25")
    with pytest.raises(SelectionError, match=r"0.25.*has no validation rows") as raised:
        fake.collect()
    entry = Path(str(raised.value).partition("to make it anew: robust-transfer store renew ")[2])
    assert (entry / "metrics.json").exists()
    assert "0.25" in entry.name


def test_runs_on_other_test_images_are_not_compared(tmp_path):
    fake = Fake(tmp_path)
    fake.transfer(50, 50, target="coarse")
    fake.transfer(np.ones(150, bool), 50, target="coarse", eps="0.25")
    with pytest.raises(SelectionError, match=r"200 test images.*150.*were tested on different images"):
        fake.collect()


def test_seeds_keep_their_rows_and_get_a_mean(tmp_path):
    fake = Fake(tmp_path)
    for seed, accuracy in enumerate((70, 72, 77)):
        fake.transfer(accuracy, accuracy, target="coarse", backbone_seed=seed)
    path = fake.collect()
    where = {"target": "coarse", "arch": "resnet8_w8", "split": "test", "metric": "top1"}
    assert sorted(row.value for row in rows(path, **where) if row.backbone_seed is not None) == [70, 72, 77]
    mean = only(path, backbone_seed=None, **where)
    singles = [row for row in rows(path, **where) if row.backbone_seed is not None]
    images = np.mean([row.ci_high - row.ci_low for row in singles]) / 2  # all seeds share the test images' error
    half = np.hypot(t.ppf(0.975, 2) * np.std([70, 72, 77], ddof=1) / np.sqrt(3), images)
    assert (mean.value, mean.ci_kind, mean.n) == (73, "seeds", 3)
    assert t.ppf(0.975, 2) == pytest.approx(4.303, abs=5e-4)  # as tables have it
    assert (mean.ci_low, mean.ci_high) == (pytest.approx(73 - half), pytest.approx(73 + half))
    assert json.loads(mean.hyperparameters) == {"mean_over": "backbone_seed", "seeds": [0, 1, 2]}


def test_two_seeds_say_little_and_no_interval_leaves_the_percentages(tmp_path):
    fake = Fake(tmp_path)
    for seed, accuracy in enumerate((70, 80)):
        fake.transfer(accuracy, accuracy, target="coarse", backbone_seed=seed)
    mean = rows(fake.collect(), target="coarse", arch="resnet8_w8", split="test", metric="top1").pop()
    assert (mean.backbone_seed, mean.value, mean.ci_kind, mean.n) == (None, 75, "seeds", 2)
    assert mean.ci_low < 75 - 12.7 * 5
    assert (mean.ci_low >= 0, mean.ci_high) == (True, 100)


def test_transfer_seeds_are_averaged_before_backbone_seeds(tmp_path):
    fake = Fake(tmp_path)
    for backbone, transfer, accuracy in ((0, 0, 60), (0, 1, 70), (0, 2, 80), (1, 0, 80)):
        fake.transfer(accuracy, accuracy, target="coarse", backbone_seed=backbone, transfer_seed=transfer)
    path = fake.collect()
    where = {"target": "coarse", "arch": "resnet8_w8", "split": "test", "metric": "top1", "transfer_seed": None}
    assert only(path, backbone_seed=0, **where).value == 70
    assert only(path, backbone_seed=None, **where).value == 75


def test_a_seed_is_never_chosen(tmp_path):
    fake = Fake(tmp_path)
    for seed, accuracy in enumerate((60, 80)):
        fake.transfer(accuracy, accuracy, target="coarse", eps="0.1", backbone_seed=seed)
        fake.transfer(74, 74, target="coarse", eps="0.25", backbone_seed=seed)
    row = chosen(fake.collect())
    assert (row.value, row.chosen["eps"]) == (pytest.approx(74), "0.25")


def test_networks_of_fewer_seeds_than_others_are_not_chosen_among(tmp_path):
    """One lucky seed of a narrow network, standard or robust, beside two seeds of a wide one."""
    fake = Fake(tmp_path)
    narrow, wide = fake.architectures
    for eps, lucky, accuracies in (("0", 70, (60, 64)), ("0.25", 95, (80, 82))):
        fake.transfer(lucky, lucky, target="coarse", arch=narrow, eps=eps)
        for seed, accuracy in enumerate(accuracies):
            fake.transfer(accuracy, accuracy, target="coarse", arch=wide, eps=eps, backbone_seed=seed)
    path = fake.collect()
    best, standard, difference = chosen(path), chosen(path, eps="0"), chosen(path, metric="top1_difference")
    assert (best.value, best.ci_kind, best.n, best.chosen["arch"]) == (pytest.approx(81), "seeds", 2, wide)
    assert (standard.value, standard.ci_kind, standard.chosen["arch"]) == (pytest.approx(62), "seeds", wide)
    assert (difference.value, difference.ci_kind) == (pytest.approx(19), "seeds")
    assert chosen(path, arch=narrow).value == pytest.approx(95)  # among networks of its own width


def test_seeds_that_are_right_on_every_image_leave_the_error_over_images(tmp_path):
    fake = Fake(tmp_path)
    for eps in ("0", "0.25"):
        for seed in range(3):
            fake.transfer(100, 100, target="coarse", eps=eps, backbone_seed=seed)
    path = fake.collect()
    for row in (chosen(path), chosen(path, eps="0"), chosen(path, metric="top1_difference")):
        assert row.ci_kind == "seeds"
        assert row.ci_low < row.value - 0.5  # of 200 images
    means = only(path, backbone_seed=None, arch="resnet8_w8", eps="0.25", target="coarse", split="test", metric="top1")
    assert means.ci_low < 99.5


def test_where_standard_and_robust_have_other_seeds_those_that_they_share_are_compared(tmp_path):
    fake = Fake(tmp_path)
    for seed, accuracy in enumerate((60, 90)):
        fake.transfer(accuracy, accuracy, target="coarse", backbone_seed=seed)
    fake.transfer(80, 80, target="coarse", eps="0.25")
    path = fake.collect()
    assert chosen(path, metric="top1_difference").value == pytest.approx(20)
    assert chosen(path, metric="top1_difference").ci_kind == "images"
    apart = Fake(tmp_path / "apart")
    apart.transfer(60, 60, target="coarse", backbone_seed=0)
    apart.transfer(80, 80, target="coarse", eps="0.25", backbone_seed=1)
    assert chosen(apart.collect(), metric="top1_difference").value == pytest.approx(20)


def run(right: dict[str, np.ndarray], name: str = "a", index: np.ndarray | None = None) -> TransferRun:
    splits = {}
    for split, correct in right.items():
        images = np.arange(len(correct)) if index is None or split == "test" else index
        splits[split] = Predictions(images.astype(np.int64), images.astype(np.int64) % 2, correct)
    return TransferRun(f"probing/{name}", "pretraining/b", 0, 0, splits)


def test_the_interval_of_a_choice_is_that_of_the_network_chosen_on_other_images():
    """Validation images choose and test images measure: the interval is the one that the network would have alone."""
    generator = np.random.default_rng(0)
    validation = generator.random(100) < 0.5
    close = validation.copy()
    close[np.flatnonzero(validation)[0]] = False
    close[np.flatnonzero(~validation)[:1]] = True
    a = Candidate("x", "l2", "0.1", (run({"test": generator.random(400) < 0.9, "validation": validation}),))
    b = Candidate("x", "l2", "0.25", (run({"test": generator.random(400) < 0.5, "validation": close}, "b"),))
    bootstrap = Bootstrap([a, b], "top1", 1000)
    both, alone = bootstrap.pick([0, 1]), bootstrap.pick([0])
    assert bootstrap.accuracy(both) == bootstrap.accuracy(alone)
    assert 0.2 < both.share < 0.8  # how stable the choice is stands beside it
    assert alone.share == 1


def test_differences_are_paired_over_images():
    """Networks that are right on the same images differ with certainty, however uncertain each accuracy is."""
    right = np.random.default_rng(0).random(200) < 0.5
    better = right.copy()
    better[np.flatnonzero(~right)[:10]] = True
    bootstrap = Bootstrap(
        [Candidate("x", "none", "0", (run({"test": right}),))], "top1", 500
    )  # one candidate needs no validation images
    assert bootstrap.pick([0]).accuracies[0] == pytest.approx(100 * right.mean())
    two = Bootstrap(
        [
            Candidate("x", "none", "0", (run({"test": right, "validation": right}),)),
            Candidate("x", "l2", "1", (run({"test": better, "validation": right}, "b"),)),
        ],
        "top1",
        1000,
    )
    standard, robust = two.pick([0]), two.pick([1])
    paired = two.difference(robust, standard)
    assert 1 < paired.low < 5 < paired.high < 9
    unpaired = robust.accuracies - np.roll(standard.accuracies, 1)
    assert 4 * unpaired[1:].std() > 2 * (paired.high - paired.low)


def test_an_interval_over_images_is_the_exact_one():
    right = np.arange(1000) < 700
    bootstrap = Bootstrap([Candidate("x", "l2", "1", (run({"test": right}),))], "top1", 100)
    found = bootstrap.accuracy(bootstrap.pick([0]))
    exact = binomtest(700, 1000).proportion_ci(method="exact")
    assert (found.value, found.kind, found.n) == (pytest.approx(70), "images", 1000)
    assert (found.low, found.high) == (pytest.approx(100 * exact.low), pytest.approx(100 * exact.high))


def test_a_choice_on_test_images_has_no_interval_and_an_estimate_without_its_luck():
    """Twenty networks that are equally good: the best of them on the test images is lucky, and not better."""
    generator = np.random.default_rng(0)
    equal = [Candidate("x", "l2", str(i), (run({"test": generator.random(300) < 0.7}, str(i)),)) for i in range(20)]
    standard = Candidate("x", "none", "0", (run({"test": generator.random(300) < 0.7}, "standard"),))
    bootstrap = Bootstrap([*equal, standard], "top1", 500, "test")
    best, other = bootstrap.pick(range(20)), bootstrap.pick([20])
    lucky, honest = bootstrap.accuracy(best), bootstrap.out_of_bag(best)
    assert math.isnan(lucky.low)
    assert math.isnan(lucky.high)
    assert honest is not None
    assert 70 - 3 < honest.value < 70 + 3 < lucky.value
    assert honest.low < 70 < honest.high
    difference = bootstrap.out_of_bag(best, other)
    assert math.isnan(bootstrap.difference(best, other).low)
    assert difference is not None
    assert difference.low < 0 < difference.high
    assert bootstrap.out_of_bag(other) is None  # nothing was chosen
    assert not math.isnan(bootstrap.accuracy(other).low)


def test_validation_images_may_differ_between_transfer_seeds():
    """Each seed is scored on its own validation images; those it shares with another count the same in both."""
    first, second = np.arange(0, 60), np.arange(30, 90)
    seeds = (
        run({"test": np.ones(50, bool), "validation": first < 30}, "a", first),
        run({"test": np.ones(50, bool), "validation": second < 60}, "b", second),
    )
    other = run({"test": np.zeros(50, bool), "validation": first < 20}, "c", first)
    bootstrap = Bootstrap([Candidate("x", "l2", "1", seeds), Candidate("x", "l2", "3", (other,))], "top1", 300)
    assert bootstrap.decisive[:, 0] == pytest.approx([50, 100 / 3])
    assert bootstrap.pick([0, 1]).picked[0] == 0


def test_chunks_do_not_change_the_resamples(monkeypatch):
    two = [
        Candidate("x", "l2", eps, (run({"test": np.arange(90) < k, "validation": np.arange(70) < k}, eps),))
        for eps, k in (("1", 40), ("3", 45))
    ]
    whole = Bootstrap(two, "mean_per_class", 50).test
    monkeypatch.setattr(candidates, "CHUNK", 90 * 7)
    assert np.array_equal(Bootstrap(two, "mean_per_class", 50).test, whole)


def test_a_class_missing_from_a_resample_is_left_out_of_its_mean():
    counts = np.array([[2, 0, 0, 2], [1, 1, 1, 1]])
    weights = candidates._weights(counts, np.array([0, 1, 1, 0]), "mean_per_class")
    assert weights == pytest.approx(np.array([[0.5, 0, 0, 0.5], [0.25, 0.25, 0.25, 0.25]]))


def test_labels_that_contradict_each_other_are_an_error():
    a = run({"test": np.ones(4, bool)})
    wrong = Predictions(np.arange(4), np.array([0, 1, 0, 0]), np.ones(4, bool))
    b = TransferRun("probing/wrong", "pretraining/b", 0, 0, {"test": wrong})
    with pytest.raises(SelectionError, match="test image 3 different labels"):
        Bootstrap([Candidate("x", "l2", "1", (a,)), Candidate("x", "l2", "3", (b,))], "top1", 100)


def test_the_same_entries_give_the_same_bytes(tmp_path):
    fake = Fake(tmp_path)
    for eps in ("0", "0.25", "1"):
        fake.transfer(60, 60, target="coarse", eps=eps)
    first = fake.collect().read_bytes()
    assert fake.collect().read_bytes() == first


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path: None, "no results table there"),
        (lambda path: path.write_text("hello"), r"not a parquet file .*; rm \S*, and the next run makes it again"),
        (lambda path: path.write_bytes((path.parent / "timings.parquet").read_bytes()), "it lacks experiment"),
    ],
)
def test_reading_something_else_is_an_error_that_says_what_to_do(tmp_path, write, message):
    fake = Fake(tmp_path)
    fake.transfer(60, 60, target="coarse")
    fake.collect()
    other = tmp_path / "other.parquet"
    write(other)
    with pytest.raises(TableError, match=message):
        read_results(other)


def test_epochs_become_rows_with_the_backbone_and_their_cost(tmp_path):
    fake = Fake(tmp_path)
    fake.source(60, eps="0.25", backbone_seed=3)
    entry = fake.backbone(trained(4, every=2), eps="0.25", backbone_seed=3)
    fake.collect()
    table = read_training(tmp_path / "training.parquet")
    first, second, *_ = epochs = tables.rows(table)
    assert [row.epoch for row in epochs] == [1, 2, 3, 4]
    assert (first.entry, first.source, first.arch, first.recipe) == (entry, "objects", "resnet8_w8", "short")
    assert (first.norm, first.eps, first.seed, first.side) == ("l2", "0.25", 3, 32)
    assert (first.clean_accuracy, first.robust_accuracy) == (None, None)
    assert (second.loss, second.train_accuracy) == (0.95, 35.0)
    assert (second.clean_accuracy, second.robust_accuracy) == (47.0, 27.5)
    assert second.learning_rate == pytest.approx(0.051)
    assert (second.seconds, second.images_per_second, second.peak_memory_mb) == (2.0, 501.0, 300.0)
    assert ExperimentInfo.of(table).experiment == "fake"


def test_a_backbone_that_several_entries_use_has_its_epochs_once(tmp_path):
    fake = Fake(tmp_path)
    fake.source(60)
    fake.transfer(50, 50, target="coarse")
    fake.transfer(50, 50, target="fine")
    fake.collect()
    assert len(read_training(tmp_path / "training.parquet")) == 1


def test_epochs_of_old_entries_lack_what_was_not_recorded_then(tmp_path):
    fake = Fake(tmp_path)
    fake.source(60)
    old = [{"epoch": 1, "loss": 2.0, "train_accuracy": 40.0, "learning_rate": 0.1}]
    fake.backbone(old, timed=False)
    fake.collect()
    (row,) = tables.rows(read_training(tmp_path / "training.parquet"))
    assert (row.loss, row.train_accuracy, row.learning_rate) == (2.0, 40.0, 0.1)
    missing = (row.side, row.clean_accuracy, row.robust_accuracy)
    assert (*missing, row.seconds, row.images_per_second, row.peak_memory_mb) == (None,) * 6


def test_a_backbone_that_was_not_trained_here_has_no_epochs(tmp_path):
    fake = Fake(tmp_path)
    fake.source(60)
    fake.backbone([])
    fake.collect()
    assert read_training(tmp_path / "training.parquet").empty


def test_epochs_that_were_altered_or_are_none_are_refused(tmp_path):
    fake = Fake(tmp_path)
    fake.source(60)
    path = tmp_path / "store" / fake.backbone(trained(2)) / "epochs.csv"
    path.write_text(path.read_text().replace("epoch,", "step,"))
    with pytest.raises(StoreError, match=r"epochs.csv.*altered or cut short"):
        fake.collect()
    fake.seal(path.parent)
    with pytest.raises(StoreError, match=r"epochs.csv: not the epochs of a training \(no epoch\); .* store renew "):
        fake.collect()


def test_flags_are_gathered_from_cards_and_timings(tmp_path):
    fake = Fake(tmp_path)
    fake.source(60)
    collapsed = {"flag": "collapsed-robustness", "message": 'fell, from "40 %" to 2 %; mend it'}
    slow = {"flag": "loader-bound", "message": "800 of 1000"}
    entry = fake.backbone(trained(2), flags=(collapsed,), slow=(slow,))
    fake.collect()
    found = tables.rows(read_flags(tmp_path / "flags.csv"))
    assert [(one.entry, one.stage) for one in found] == [(entry, "pretraining")] * 2
    assert [{"flag": one.flag, "message": one.message} for one in found] == [collapsed, slow]


def test_without_flags_the_list_is_a_header(tmp_path):
    fake = Fake(tmp_path)
    fake.source(60)
    fake.collect()
    assert (tmp_path / "flags.csv").read_text() == "entry,stage,flag,message\n"
    assert read_flags(tmp_path / "flags.csv").empty


def test_test_accuracies_raise_flags_that_training_did_not(tmp_path):
    fake = Fake(tmp_path)
    guessing = fake.source(26)  # of four classes
    overfitted = fake.source(90, eps="0.25")  # the fake's accuracy under attack is half of it
    fake.backbone(trained(3, robust_accuracy=97.0), eps="0.25")
    fake.source(90, eps="1")  # its attack is at another eps than its own
    fake.backbone(trained(3, robust_accuracy=97.0), eps="1")
    known = {"flag": "at-chance", "message": "said already"}
    fake.source(26, arch="resnet8_w16")
    fake.backbone(trained(1), flags=(known,), arch="resnet8_w16")
    fake.collect()
    found = tables.rows(read_flags(tmp_path / "flags.csv"))
    assert [(one.entry, one.flag) for one in found if one.stage == "evaluation"] == [
        (guessing, "at-chance"),
        (overfitted, "robust-overfitting"),
    ]
    assert "45.0 % on 200 test images, 97.0 % on 512 training images" in found[-1].message


def test_an_imported_backbone_unlike_its_published_accuracy_is_flagged(tmp_path):
    fake = Fake(tmp_path)
    for eps, published in (("0", 72.0), ("0.25", 62.0), ("1", None)):  # three standard errors of 200 images are 10.4
        fake.source(60, eps=eps)
        fake.backbone([], published=published, eps=eps)
    fake.collect()
    (flag,) = tables.rows(read_flags(tmp_path / "flags.csv"))
    assert (flag.stage, flag.flag) == ("evaluation", "unlike-published")
    assert "60.00 % of 200 test images are right, published were 72.00 %" in flag.message


def test_a_backbone_attacked_in_two_norms_has_one_clean_accuracy(tmp_path):
    fake = Fake(tmp_path)
    first = fake.source(60)
    linf = {"norm": "linf", "eps": "4/255", "steps": 20, "restarts": 1}
    measured = [number(60, 200, selection=None), number(20, 200, selection=None, attack=linf)]
    second = fake.add({**fake.entries[0], "entry": f"{first}_linf"}, measured, {})
    path = fake.collect()
    assert [row.entry for row in rows(path, mode="source", attack=None)] == [first]
    assert [json.loads(row.attack or "")["norm"] for row in rows(path, entry=second)] == ["linf"]


@pytest.mark.parametrize("read_it", [read_training, read_flags])
def test_a_table_that_is_missing_or_something_else_is_an_error_that_names_it(tmp_path, read_it):
    with pytest.raises(TableError, match=r"gone: no .* there"):
        read_it(tmp_path / "gone")
    fake = Fake(tmp_path)
    fake.source(60)
    with pytest.raises(TableError, match=r"timings.parquet: not a"):
        read_it(fake.collect().parent / "timings.parquet")


def with_selections(fake, entry, right):
    """Give an entry results for both selections; `right` by (selection, split) is a list of heads' hits [images]."""
    path = fake.root / "store" / entry
    rows = []
    names = ("split", "index", "label", "prediction", "selection", "head_seed")
    columns: dict[str, list[object]] = {name: [] for name in names}
    for (where, split), heads in right.items():
        value = 100 * float(np.concatenate(heads).mean())
        for metric in ("top1", "mean_per_class"):
            rows.append(number(value, len(heads[0]), split=split, metric=metric, selection=where))
        for seed, hits in enumerate(heads):
            labels = np.arange(len(hits)) % fake.classes
            columns["split"] += [split] * len(hits)
            columns["index"] += range(len(hits))
            columns["label"] += labels.tolist()
            columns["prediction"] += np.where(hits, labels, (labels + 1) % fake.classes).tolist()
            columns["selection"] += [where] * len(hits)
            columns["head_seed"] += [seed] * len(hits)
    (path / "metrics.json").write_text(json.dumps(rows))
    pq.write_table(pa.table(columns), path / "predictions.parquet")
    fake.seal(path)


def share(n, of=200):
    return np.arange(of) < n


def test_each_selection_chooses_for_itself_and_heads_count_as_their_mean(tmp_path):
    fake = Fake(tmp_path, targets=("coarse",), architectures=("resnet8_w8",))
    for eps, validation, test in (("0", 100, (100, 120)), ("0.25", 150, (110, 110)), ("1", 120, (150, 130))):
        fake.source(50.0, eps=eps)
        entry = fake.transfer(50, 50, target="coarse", eps=eps)
        with_selections(
            fake,
            entry,
            {
                ("validation", "validation"): [share(validation), share(validation)],
                ("validation", "test"): [share(n) for n in test],
                ("test", "test"): [share(n + 4) for n in test],
            },
        )
    path = fake.collect()
    for where, eps, value, ahead_by in (("validation", "0.25", 55, 0), ("test", "1", 72, 72 - 57)):
        best = chosen(path, selection=where)
        assert (best.chosen["eps"], best.value) == (eps, pytest.approx(value))
        assert chosen(path, selection=where, metric="top1_difference").value == pytest.approx(ahead_by)


def test_a_head_that_lacks_an_image_is_an_error(tmp_path):
    fake = Fake(tmp_path, targets=("coarse",), architectures=("resnet8_w8",))
    fake.source(50.0)
    entry = fake.transfer(50, 50, target="coarse")
    with_selections(fake, entry, {("test", "test"): [share(100), share(100)[:-1]]})
    with pytest.raises(StoreError, match="test image twice, or not once for each head"):
        fake.collect()


def test_numbers_tell_networks_of_different_training_apart(tmp_path):
    fake = Fake(tmp_path)
    for eps, epochs in (("0", 15), ("0.25", 2)):
        fake.transfer(50, 50, target="coarse", eps=eps)
        fake.source(70, eps=eps)
        path = tmp_path / "store" / fake.backbone(trained(2), eps=eps)
        settings: dict[str, Any] = {
            "training": {**Recipe().model_dump(mode="json"), "epochs": epochs, "nesterov": True}
        }
        settings |= {"attack": Attack(steps=1).model_dump(mode="json") if eps != "0" else None}
        (path / "entry.json").write_text(json.dumps({"stage": "pretraining", "settings": settings, "inputs": {}}))
    table = read_results(fake.collect())
    said = table.groupby(["mode", "eps"], observed=True)["training"].agg(list)
    standard, robust = {"epochs": 15, "nesterov": True}, {"attack": {"steps": 1}, "epochs": 2, "nesterov": True}
    assert {*said["source", "0"]} == {*said["fixed-feature", "0"]} == {canonical(standard)}
    assert {*said["source", "0.25"]} == {canonical(robust)}
    chosen = table[(table["eps"] == "best-robust") & (table["metric"] == "top1")]
    assert {*chosen["training"]} == {canonical(robust)}
    assert table.loc[table["metric"].str.endswith("_difference"), "training"].isna().all()


def test_test_images_overrule_what_few_training_images_say(tmp_path):
    fake = Fake(tmp_path)
    known = {"flag": "at-chance", "message": "accuracy on 64 training images is 25.0 %"}
    for accuracy, arch in ((60, "resnet8_w8"), (26, "resnet8_w16")):
        fake.source(accuracy, arch=arch)
        fake.backbone(trained(1), flags=(known,), arch=arch)
    fake.collect()
    found = tables.rows(read_flags(tmp_path / "flags.csv"))
    assert [one.entry for one in found if one.flag == "at-chance"] == ["pretraining/objects_resnet8_w16_none_0_0"]


def confronted(fake: Fake, bias: float, eps: str, seed: int) -> str:
    """A backbone that was measured on cue-conflict images: its shape bias, also of one class, and its decisions."""
    of = fake.key("evaluation", eps=eps, backbone_seed=seed)
    key = {**of, "stage": "cue_conflict", "target": "cue_conflict", "mode": "cue-conflict"}
    key["entry"] = f"cue_conflict/{of['entry'].partition('/')[2]}"
    overall = number(bias, 150, metric="shape_bias", selection=None, interval=[bias - 7, bias + 9])
    overall |= {"variant": {"resized_from": 112}}
    of_class = {**overall, "value": bias + 1, "variant": {"resized_from": 112, "shape": "cat"}}
    shares = number(30.0, 200, metric="shape_decisions", selection=None, effective_n=200)
    shares |= {"variant": {"resized_from": 112}}
    return fake.add(key, [overall, of_class, shares], {})


def test_shape_biases_are_rows_with_the_intervals_that_were_measured_and_no_network_is_chosen_by_them(tmp_path):
    fake = Fake(tmp_path)
    for eps, bias in (("0", 20.0), ("0.25", 60.0)):
        fake.transfer(70, 72, target="coarse", eps=eps)
        for seed in (0, 1):
            confronted(fake, bias + 4 * seed, eps, seed)
    path = fake.collect()
    found = rows(path, metric="shape_bias", eps="0", backbone_seed=1)
    assert [(row.value, row.ci_low, row.ci_high, row.ci_kind, row.n) for row in found] == [
        (24, 17, 33, "images", 150),
        (25, 17, 33, "images", 150),
    ]
    assert [row.variant for row in found] == ['{"resized_from":112}', '{"resized_from":112,"shape":"cat"}']
    assert {(row.target, row.mode, row.protocol, row.selection) for row in found} == {
        ("cue_conflict", "cue-conflict", None, None)
    }
    share = only(path, metric="shape_decisions", eps="0", backbone_seed=1)
    exact = binomtest(60, 200).proportion_ci(method="exact")
    assert (share.ci_low, share.ci_high) == pytest.approx((100 * exact.low, 100 * exact.high), abs=1e-6)
    mean = only(path, metric="shape_bias", eps="0.25", backbone_seed=None, variant='{"resized_from":112}')
    assert (mean.value, mean.ci_kind, mean.n) == (62, "seeds", 2)
    half = math.hypot(t.ppf(0.975, 1) * np.std([60, 64], ddof=1) / math.sqrt(2), 8)  # seeds, and half of 16 over images
    assert (mean.ci_low, mean.ci_high) == pytest.approx((62 - half, 62 + half), abs=1e-6)
    assert not [row for row in rows(path, mode="cue-conflict") if row.eps == BEST_ROBUST or row.arch == BEST_ARCH]
    table = read_results(path)
    assert list(table["mode"].cat.categories) == ["cue-conflict", "fixed-feature"]


def test_of_two_evaluations_clean_accuracy_counts_once_for_each_view_of_the_source():
    of = {"mode": "source", "backbone": "pretraining/one"}
    rows = pd.DataFrame(
        [
            {**of, "entry": "evaluation/l2", "variant": "{}", "attack": None},
            {**of, "entry": "evaluation/l2", "variant": "{}", "attack": '{"norm":"l2"}'},
            {**of, "entry": "evaluation/linf", "variant": "{}", "attack": None},
            {**of, "entry": "evaluation/linf", "variant": "{}", "attack": '{"norm":"linf"}'},
            {**of, "entry": "evaluation/stylized", "variant": '{"stylized":"phase"}', "attack": None},
        ]
    )
    assert list(results_stage._clean_once(rows).index) == [0, 1, 3, 4]

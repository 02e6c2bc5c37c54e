"""Choosing among runs that differ in hyperparameters, on validation and on test images."""

import csv
import json
from pathlib import Path
from typing import ClassVar

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from robust_transfer.configuration.transfer import SelectingSettings
from robust_transfer.stages import selecting
from robust_transfer.store.entry import StoreError, open_entry
from support.prepared_datasets import new_entry


def rows(entry):
    return json.loads((entry.path / "metrics.json").read_text())


def run_entry(
    root: Path,
    purpose: str,
    accuracies: dict[tuple[float, float], tuple[float, float]],
    diverged: tuple[float, ...] = (),
):
    """A run with these top-1 and mean per-class accuracies, and one image that is right or not.

    `diverged` are learning rates.
    """
    entry = new_entry(root, "linear_heads", {"purpose": purpose})
    split = "validation" if purpose == "search" else "test"
    with entry.writing() as draft:
        numbers: list[dict[str, object]] = []
        names = ("split", "index", "label", "prediction", "run", "head_seed")
        table: dict[str, list[object]] = {name: [] for name in names}
        for number, ((rate, decay), values) in enumerate(accuracies.items()):
            for metric, value in zip(("top1", "mean_per_class"), values, strict=True):
                hyperparameters = {"learning_rate": rate, "weight_decay": decay}
                row = {"metric": metric, "value": value, "split": split, "selection": None}
                numbers.append(row | {"hyperparameters": hyperparameters, "run": number})
            for column, cell in zip(table, (split, 0, 1, number, number, 0), strict=True):
                table[column].append(cell)
        draft.write_json("metrics.json", numbers)
        pq.write_table(pa.table(table), draft.file("predictions.parquet"))
        draft.facts = {"diverged": [{"learning_rate": rate, "weight_decay": 0.0, "step": 3} for rate in diverged]}
    return open_entry(entry.path)


def chosen(root, *, selections=("validation", "test"), metric="top1", chosen_at=(), **inputs):
    settings = SelectingSettings(selections=selections, metric=metric, chosen_at=chosen_at).model_dump(mode="json")
    entry = new_entry(root, "selecting", settings, **inputs)
    selecting.run(entry, threads=1, device="cpu")
    return open_entry(entry.path)


def test_validation_images_under_attack_choose_where_radii_are_given(tmp_path):
    search = run_entry(tmp_path, "search", {(0.1, 0.0): (60.0, 0.0), (0.01, 0.0): (70.0, 0.0)})
    path = search.path / "metrics.json"
    attacked = [
        row | {"attack": {"eps": "0.5"}, "value": {60.0: 50.0, 70.0: 20.0}.get(row["value"], 0.0)}
        for row in rows(search)
    ]
    made = new_entry(tmp_path, "linear_heads", {"purpose": "search"})
    with made.writing() as draft:
        draft.write_json("metrics.json", rows(search) + attacked)
        draft.file("predictions.parquet").write_bytes((path.parent / "predictions.parquet").read_bytes())
    final = run_entry(tmp_path, "final", {(0.1, 0.0): (66.0, 0.0), (0.01, 0.0): (64.0, 0.0)})
    for radii, expected in (((), 0.01), (("0.5",), 0.1), (("0", "0.5"), 0.1)):
        entry = chosen(
            tmp_path, selections=("validation",), chosen_at=radii, search0=open_entry(made.path), final0=final
        )
        tested = [row for row in rows(entry) if row["split"] == "test"]
        assert {row["hyperparameters"]["learning_rate"] for row in tested} == {expected}
        assert not [row for row in tested if row.get("attack")]


class TestChoosing:
    SEARCH: ClassVar = {(0.1, 0.0): (60.0, 10.0), (0.01, 0.0): (70.0, 20.0), (0.001, 0.0): (50.0, 30.0)}
    FINAL: ClassVar = {(0.1, 0.0): (66.0, 11.0), (0.01, 0.0): (64.0, 12.0), (0.001, 0.0): (65.0, 13.0)}

    def of(self, entry, selection, split, metric="top1"):
        return next(
            row for row in rows(entry) if (row["selection"], row["split"], row["metric"]) == (selection, split, metric)
        )

    def test_validation_and_test_each_choose_their_own(self, tmp_path):
        entry = chosen(
            tmp_path,
            search0=run_entry(tmp_path, "search", self.SEARCH),
            final0=run_entry(tmp_path, "final", self.FINAL),
        )
        assert self.of(entry, "validation", "test")["value"] == 64
        assert self.of(entry, "validation", "validation")["value"] == 70
        assert self.of(entry, "validation", "test")["hyperparameters"]["learning_rate"] == 0.01
        assert self.of(entry, "test", "test")["value"] == 66
        assert not [row for row in rows(entry) if row["selection"] == "test" and row["split"] == "validation"]
        table = pq.read_table(entry.path / "predictions.parquet").to_pylist()
        # the made-up predictions are the numbers of the runs
        assert {(row["selection"], row["split"], row["prediction"]) for row in table} == {
            ("validation", "test", 1), ("validation", "validation", 1), ("test", "test", 0),
        }  # fmt: skip
        assert len((entry.path / "runs.csv").read_text().splitlines()) == 7

    def test_the_datasets_metric_chooses(self, tmp_path):
        runs = {
            "search0": run_entry(tmp_path, "search", self.SEARCH),
            "final0": run_entry(tmp_path, "final", self.FINAL),
        }
        entry = chosen(tmp_path, metric="mean_per_class", **runs)
        assert self.of(entry, "validation", "test", "mean_per_class")["hyperparameters"]["learning_rate"] == 0.001

    def test_runs_may_come_one_by_one_and_need_no_search_for_test(self, tmp_path):
        finals = {f"final{i}": run_entry(tmp_path, "final", {key: self.FINAL[key]}) for i, key in enumerate(self.FINAL)}
        entry = chosen(tmp_path, selections=("test",), **finals)
        assert self.of(entry, "test", "test")["value"] == 66
        with pytest.raises(StoreError, match="nothing to choose on validation images from: no input search0"):
            chosen(tmp_path, selections=("validation",), **finals)

    def test_of_equal_runs_the_smallest_rate_is_taken(self, tmp_path):
        equal = {(0.1, 0.0): (50.0, 50.0), (0.01, 0.1): (50.0, 50.0), (0.01, 0.0): (50.0, 50.0)}
        entry = chosen(tmp_path, selections=("test",), final0=run_entry(tmp_path, "final", equal))
        assert self.of(entry, "test", "test")["hyperparameters"] == {"learning_rate": 0.01, "weight_decay": 0.0}

    def test_a_run_that_diverged_is_taken_only_where_all_did(self, tmp_path, caplog):
        of = {"search0": ("search", self.SEARCH), "final0": ("final", self.FINAL)}
        for diverged, *expected in ((0.01, 0.1, 0.1), (0.1, 0.01, 0.001)):
            runs = {role: run_entry(tmp_path, *purpose, diverged=(diverged,)) for role, purpose in of.items()}
            entry = chosen(tmp_path, **runs)
            for selection, rate in zip(("validation", "test"), expected, strict=True):
                assert self.of(entry, selection, "test")["hyperparameters"]["learning_rate"] == rate
            assert "the run that is reported diverged" not in caplog.text
            listed = list(csv.DictReader((entry.path / "runs.csv").read_text().splitlines()))
            assert [float(row["learning_rate"]) for row in listed if row["diverged"] == "yes"] == [diverged] * 2
        runs = {role: run_entry(tmp_path, *purpose, diverged=(0.1, 0.01, 0.001)) for role, purpose in of.items()}
        assert self.of(chosen(tmp_path, **runs), "validation", "test")["value"] == 64
        assert "chosen on validation: the run that is reported diverged, and guesses" in caplog.text

    def test_a_final_run_that_is_missing_or_another_is_named(self, tmp_path):
        search = run_entry(tmp_path, "search", self.SEARCH)
        final = run_entry(tmp_path, "final", {(0.1, 0.0): (1.0, 1.0)})
        with pytest.raises(StoreError, match=r"no final run has .*0\.01.*the best on validation images"):
            chosen(tmp_path, search0=search, final0=final)
        with pytest.raises(StoreError, match=r"input final0 is .*, a search run"):
            chosen(tmp_path, search0=search, final0=search)

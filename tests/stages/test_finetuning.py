"""Full-network transfer: what is trained on and measured, how the learning rate is chosen, what is written."""

import json
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from robust_transfer.configuration.transfer import FinetuningSettings
from robust_transfer.datasets.splits import validation_mask
from robust_transfer.networks.backbones import load_backbone
from robust_transfer.networks.build import IMAGENET_MEAN, IMAGENET_STD, build
from robust_transfer.stages import finetuning
from robust_transfer.statistics.intervals import exact_interval
from robust_transfer.store.entry import StoreError, open_entry
from robust_transfer.store.runs import runs_in
from robust_transfer.training import transfer
from support.backbones import stored_backbone
from support.prepared_datasets import encoded_squares, new_entry, prepared, separable, shuffled, write_parquet

SIDE, CLASSES = 16, 3


def target(root, *, official):
    for seed, (split, n) in enumerate({"train": 45, "test": 30, "validation": 12 if official else 0}.items()):
        if n:
            write_parquet(root / f"data{official}" / f"{split}.parquet", *encoded_squares(n, seed=seed))
    return prepared(root, {"kind": "parquet", "path": str(root / f"data{official}")})


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("transfer")


@pytest.fixture(scope="module")
def dataset(root):
    return target(root, official=False)


@pytest.fixture(scope="module")
def dataset_with_validation(root):
    return target(root, official=True)


@pytest.fixture(scope="module")
def backbone(root):
    return stored_backbone(root, build("resnet8_w4", 5, seed=2))


def settings(purpose, rates, **changes):
    training = {"epochs": 8, "batch_size": 16, "augmentation": "flip", "schedule": "one-cycle", "precision": "bf16"}
    return FinetuningSettings.model_validate(
        {
            "purpose": purpose,
            "learning_rates": rates,
            "training": training | changes.pop("training", {}),
            "preprocessing": {"resize_ratio": 1.0},
            **changes,
        }
    ).model_dump(mode="json")


def run(backbone, dataset, described, **searches):
    root = dataset.path.parents[2]
    entry = new_entry(root, "finetuning", described, backbone=backbone, dataset=dataset, **searches)
    finetuning.run(entry, threads=1, device="cpu")
    return open_entry(entry.path)


RATES = (1e-6, 0.1)  # one that learns nothing, one that learns


@pytest.fixture(scope="module")
def searches(backbone, dataset):
    found = [run(backbone, dataset, settings("search", (rate,))) for rate in RATES]
    return {f"search{i}": entry for i, entry in enumerate(found)}


@pytest.fixture(scope="module")
def refit(backbone, dataset, searches):
    return run(backbone, dataset, settings("refit", RATES), **searches)


def rows(entry):
    return json.loads((entry.path / "metrics.json").read_text())


def predictions(entry, split):
    found = [row for row in pq.read_table(entry.path / "predictions.parquet").to_pylist() if row["split"] == split]
    return {row["index"]: (row["label"], row["prediction"]) for row in found}


class TestSearch:
    def test_measures_the_validation_images_carved_from_train(self, searches, dataset):
        entry = searches["search1"]
        labels = np.arange(45) % CLASSES
        carved = np.flatnonzero(validation_mask(labels, 0.2, 0))
        found = predictions(entry, "validation")
        assert [*found] == carved.tolist()
        assert [label for label, _ in found.values()] == labels[carved].tolist()
        assert {row["split"] for row in rows(entry)} == {"validation"}
        assert {row["n"] for row in rows(entry)} == {len(carved)}
        assert {row["selection"] for row in rows(entry)} == {None}
        assert [row["hyperparameters"] for row in rows(entry)] == [{"learning_rate": 0.1}] * 2

    def test_accuracy_is_that_of_its_predictions(self, searches):
        for entry in searches.values():
            found = predictions(entry, "validation").values()
            top1 = 100 * np.mean([label == prediction for label, prediction in found])
            assert next(row["value"] for row in rows(entry) if row["metric"] == "top1") == pytest.approx(top1)

    def test_does_not_see_validation_or_test_images(self, dataset, dataset_with_validation):
        for data, trained_on, measured in ((dataset, 36, 9), (dataset_with_validation, 45, 12)):
            parts, part = transfer.parts(data, FinetuningSettings.model_validate(settings("search", (0.1,))))
            assert sum(len(p.indices) for p in parts) == trained_on
            assert len(part.indices) == measured
            assert not {(p.split.name, i) for p in parts for i in p.indices} & {
                (part.split.name, i) for i in part.indices
            }
            assert all(p.split.name == "train" for p in parts)


class TestRefit:
    def test_takes_the_rate_with_the_best_validation_accuracy(self, refit, searches):
        assert refit.facts()["learning_rate"] == 0.1
        test = [row for row in rows(refit) if row["split"] == "test"]
        assert [row["hyperparameters"] for row in test] == [{"learning_rate": 0.1}] * 2
        assert {row["selection"] for row in rows(refit)} == {"validation"}
        assert test[0]["value"] > 80

    def test_keeps_the_chosen_runs_validation_rows_and_predictions(self, refit, searches):
        chosen = searches["search1"]
        copied = [row for row in rows(refit) if row["split"] == "validation"]
        assert copied == [row | {"selection": "validation"} for row in rows(chosen)]
        assert predictions(refit, "validation") == predictions(chosen, "validation")
        assert [*predictions(refit, "test")] == [*range(30)]

    def test_trains_on_every_training_image(self, dataset, dataset_with_validation):
        for data, splits in ((dataset, {"train": 45}), (dataset_with_validation, {"train": 45, "validation": 12})):
            parts, part = transfer.parts(data, FinetuningSettings.model_validate(settings("refit", RATES)))
            assert {p.split.name: len(p.indices) for p in parts} == splits
            assert (part.split.name, len(part.indices)) == ("test", 30)

    def test_with_official_validation_images(self, backbone, dataset_with_validation):
        search = run(backbone, dataset_with_validation, settings("search", (0.1,)))
        assert [*predictions(search, "validation")] == [*range(12)]
        refit = run(backbone, dataset_with_validation, settings("refit", (0.1,)), search0=search)
        assert json.loads((refit.path / "timing.json").read_text())["images"] == 8 * 57
        assert predictions(refit, "validation") == predictions(search, "validation")

    def test_of_equal_rates_the_smaller_is_taken_whatever_their_order(self, backbone, dataset, searches):
        for rates in ((0.2, 0.1), (0.1, 0.2)):
            made = {}
            for i, rate in enumerate(rates):
                copy = new_entry(
                    dataset.path.parents[2],
                    "finetuning",
                    settings("search", (rate,)),
                    backbone=backbone,
                    dataset=dataset,
                )
                with copy.writing() as draft:
                    rows = json.loads((searches["search1"].path / "metrics.json").read_text())
                    draft.write_json(
                        "metrics.json", [row | {"hyperparameters": {"learning_rate": rate}} for row in rows]
                    )
                    name = "predictions.parquet"
                    draft.file(name).write_bytes((searches["search1"].path / name).read_bytes())
                made[f"search{i}"] = copy
            entry = new_entry(dataset.path.parents[2], "finetuning", settings("refit", rates), **made)
            chosen = finetuning.choose(entry, FinetuningSettings.model_validate(entry.settings))
            assert chosen.hyperparameters == {"learning_rate": 0.1}

    def test_the_datasets_metric_chooses(self, backbone, dataset):
        """One run is ahead in top-1, the other in mean per-class accuracy."""
        values = {0.1: {"top1": 60.0, "mean_per_class": 40.0}, 0.2: {"top1": 50.0, "mean_per_class": 45.0}}
        made = {}
        for i, (rate, of) in enumerate(values.items()):
            search = new_entry(dataset.path.parents[2], "finetuning", settings("search", (rate,)))
            with search.writing() as draft:
                rows = [
                    {"metric": name, "value": value, "hyperparameters": {"learning_rate": rate}}
                    for name, value in of.items()
                ]
                draft.write_json("metrics.json", rows)
                pq.write_table(pq.read_table(self._some(dataset)), draft.file("predictions.parquet"))
            made[f"search{i}"] = search
        for metric, expected in (("top1", 0.1), ("mean_per_class", 0.2)):
            described = settings("refit", tuple(values), metric=metric)
            entry = new_entry(dataset.path.parents[2], "finetuning", described, **made)
            chosen = finetuning.choose(entry, FinetuningSettings.model_validate(described))
            assert chosen.hyperparameters == {"learning_rate": expected}

    def _some(self, dataset):
        path = dataset.path.parents[2] / "some.parquet"
        pq.write_table(pa.table({"split": ["validation"], "index": [0]}), path)
        return path

    def test_searches_of_other_rates_are_refused(self, backbone, dataset, searches):
        with pytest.raises(StoreError, match=r"input search0 is .* at learning rates \(1e-06,\) where a search at 0.5"):
            run(backbone, dataset, settings("refit", (0.5, 0.1)), **searches)

    def test_a_missing_search_is_named(self, backbone, dataset, searches):
        with pytest.raises(StoreError, match="no input 'search1'"):
            run(backbone, dataset, settings("refit", RATES), search0=searches["search0"])


class TestFinal:
    def test_trains_on_every_training_image_at_its_rate_and_tests(self, backbone, dataset_with_validation):
        final = run(backbone, dataset_with_validation, settings("final", (0.05,)))
        found = rows(final)
        assert [row["hyperparameters"] for row in found] == [{"learning_rate": 0.05}] * 2
        assert {(row["split"], row["selection"], row["n"]) for row in found} == {("test", None, 30)}
        assert json.loads((final.path / "timing.json").read_text())["images"] == 8 * 57

    def test_target_normalisation_changes_what_the_network_sees(self, backbone, dataset):
        identity = {"mean": [0, 0, 0], "std": [1, 1, 1]}
        imagenet = {"mean": IMAGENET_MEAN, "std": IMAGENET_STD}
        files = [
            run(backbone, dataset, settings("final", (0.05,), normalisation=normalisation)).card()["files"]
            for normalisation in (None, imagenet, identity)
        ]
        assert files[0] == files[1] != files[2]

    def test_separable_images_are_classified_without_error(self, backbone, root):
        assert rows(run(backbone, separable(root), settings("final", (0.1,))))[0]["value"] == 100

    def test_shuffled_labels_are_classified_by_chance(self, backbone, root):
        for row in rows(run(backbone, shuffled(root), settings("final", (0.1,)))):
            low, high = exact_interval(row["value"], row["effective_n"])
            assert low < 100 / CLASSES < high


class TestFixed:
    """The one rate there is: trained once, on what a search trains on, and measured on validation and test images."""

    @pytest.fixture(scope="class")
    def fixed(self, backbone, dataset):
        return run(backbone, dataset, settings("fixed", (RATES[1],)))

    def test_validates_as_the_search_at_its_rate_does(self, fixed, searches):
        search = searches["search1"]
        found = [row for row in rows(fixed) if row["split"] == "validation"]
        assert found == [row | {"selection": "validation"} for row in rows(search)]
        assert predictions(fixed, "validation") == predictions(search, "validation")
        assert (fixed.path / "epochs.csv").read_text() == (search.path / "epochs.csv").read_text()

    def test_tests_every_test_image(self, fixed):
        found = [row for row in rows(fixed) if row["split"] == "test"]
        assert [(row["n"], row["selection"]) for row in found] == [(30, "validation")] * 2
        tested = predictions(fixed, "test")
        assert [*tested] == [*range(30)]
        top1 = 100 * np.mean([label == prediction for label, prediction in tested.values()])
        assert found[0]["value"] == pytest.approx(top1)
        assert found[0]["value"] > 80
        assert {row["hyperparameters"]["learning_rate"] for row in rows(fixed)} == {0.1}

    def test_official_validation_images_are_not_trained_on(self, backbone, dataset_with_validation):
        entry = run(backbone, dataset_with_validation, settings("fixed", (0.1,)))
        assert json.loads((entry.path / "timing.json").read_text())["images"] == 8 * 45
        assert [*predictions(entry, "validation")] == [*range(12)]
        assert [*predictions(entry, "test")] == [*range(30)]


TOO_LARGE = 1e30


@pytest.fixture(scope="module")
def diverged(backbone, dataset):
    return run(backbone, dataset, settings("search", (TOO_LARGE,)))


class TestDivergence:
    """A learning rate at which training diverges is a candidate that failed."""

    def test_is_recorded_with_its_rate_and_step(self, diverged, backbone, dataset, caplog):
        assert diverged.facts()["diverged"] == [{"learning_rate": TOO_LARGE, "step": 2}]
        [flag] = diverged.facts()["flags"]
        assert flag["flag"] == "candidate-diverged"
        assert "not finite at learning rate 1e+30, step 2" in flag["message"]
        assert {prediction for _, prediction in predictions(diverged, "validation").values()} == {0}
        assert (diverged.path / "epochs.csv").read_text().splitlines() == [
            "epoch,side,loss,train_accuracy,clean_accuracy,robust_accuracy,learning_rate"
        ]
        again = run(backbone, dataset, settings("search", (TOO_LARGE,)))
        assert again.card()["files"] == diverged.card()["files"]
        assert "diverged, and guess: runs at learning rate 1e+30, step 2" in caplog.text

    def test_is_never_chosen_while_another_did_not(self, diverged, backbone, dataset, searches, caplog):
        """Whatever its accuracy: on classes of other sizes a constant guess may be right more often."""
        lucky = new_entry(
            dataset.path.parents[2],
            "finetuning",
            settings("search", (TOO_LARGE,)),
            backbone=backbone,
            dataset=dataset,
        )
        with lucky.writing() as draft:
            draft.write_json("metrics.json", [row | {"value": 100.0} for row in rows(diverged)])
            name = "predictions.parquet"
            draft.file(name).write_bytes((diverged.path / name).read_bytes())
            draft.facts = diverged.facts()
        caplog.set_level("INFO", "robust_transfer")
        refit = run(
            backbone, dataset, settings("refit", (TOO_LARGE, RATES[0])), search0=lucky, search1=searches["search0"]
        )
        assert refit.facts()["learning_rate"] == RATES[0]
        assert "diverged" not in refit.facts()
        assert "by learning rate: diverged at 1e+30, " in caplog.text

    def test_where_all_did_the_number_is_a_guess_that_says_so(self, diverged, backbone, dataset):
        refit = run(backbone, dataset, settings("refit", (TOO_LARGE,), keep_weights=True), search0=diverged)
        assert refit.facts()["diverged"] == [{"learning_rate": TOO_LARGE, "step": 2}]
        assert "flags" not in refit.facts()  # the results table raises its own
        network = load_backbone(refit)
        assert all(value.isfinite().all() for value in network.state_dict().values())
        assert not network.head.weight.any()
        test = [row for row in rows(refit) if row["split"] == "test"]
        assert test[0]["value"] == pytest.approx(100 / CLASSES, abs=4)

    @pytest.mark.parametrize("purpose", ["fixed", "final"])
    def test_the_only_rate_stops_nothing(self, purpose, backbone, dataset):
        entry = run(backbone, dataset, settings(purpose, (TOO_LARGE,)))
        assert entry.facts()["diverged"] == [{"learning_rate": TOO_LARGE, "step": 2}]
        assert ("flags" in entry.facts()) == (purpose == "final")
        assert {row["split"] for row in rows(entry)} >= {"test"}

    def test_under_attack_too(self, backbone, dataset):
        """Adversarial training, chosen under attack: a diverged candidate has the rows that a choice reads."""
        attack = {"eps": "0.5", "steps": 2}
        changes = {"attack": attack, "chosen_under": {"norm": "l2", "eps": ["0", "0.5"], "steps": 2}}
        search = run(backbone, dataset, settings("search", (TOO_LARGE,), **changes))
        [one] = runs_in(search)
        assert one.is_diverged
        assert one.accuracy("top1", ("0", "0.5")) == one.accuracy("top1")


class TestOutputs:
    def test_are_the_declared_ones_and_no_weights(self, refit):
        assert sorted(refit.card()["files"]) == ["epochs.csv", "metrics.json", "predictions.parquet"]
        schema = pq.read_schema(refit.path / "predictions.parquet")
        assert [f"{field.name} {field.type}" for field in schema] == [
            *("split string", "index int32", "label int32", "prediction int32")
        ]
        assert len((refit.path / "epochs.csv").read_text().splitlines()) == 9

    def test_made_again_they_are_the_same(self, backbone, dataset, searches):
        again = run(backbone, dataset, settings("search", (RATES[1],)))
        assert again.card()["files"] == searches["search1"].card()["files"]
        other = run(backbone, dataset, settings("search", (RATES[1],), seed=1))
        assert other.card()["files"] != again.card()["files"]

    def test_training_starts_from_the_backbone_with_a_fresh_head(self, backbone, dataset, monkeypatch):
        started: dict[str, Any] = {}

        def fit(network, *_, **kwargs):
            started.update({name: value.clone() for name, value in network.state_dict().items()}, seed=kwargs["seed"])
            raise KeyboardInterrupt

        monkeypatch.setattr(transfer, "fit", fit)
        with pytest.raises(KeyboardInterrupt):
            run(backbone, dataset, settings("search", (0.1,), seed=4))
        body = build("resnet8_w4", 5, seed=2).body.state_dict()
        assert all(torch.equal(started[f"body.{name}"], value) for name, value in body.items())
        assert started["head.weight"].shape == (CLASSES, 16)
        assert started["seed"] == 4

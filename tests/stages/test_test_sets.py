"""Transferred models on other test sets: the model of the target, the other images, and the classes that a map says."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from robust_transfer.configuration.test_sets import TestedOn, TestSetsSettings
from robust_transfer.configuration.transfer import (
    FeaturesSettings,
    FinetuningSettings,
    KnnSettings,
    LinearHeadsSettings,
    ProbingSettings,
    SelectingSettings,
)
from robust_transfer.datasets.arrow import open_split
from robust_transfer.datasets.class_maps import LEFT_OUT, ClassMapError, class_numbers
from robust_transfer.networks.build import build
from robust_transfer.stages import features, finetuning, knn, linear_heads, probing, selecting, test_sets
from robust_transfer.store.predictions import read_predictions
from stages.test_robustness import PLAIN, TRAINING, made
from support.backbones import stored_backbone
from support.prepared_datasets import encoded_squares, prepared, write_parquet

NAMES = ("red", "green", "blue", "nothing")
TO_TARGET = {"red": "0", "green": "1", "blue": "2"}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("test_sets")


@pytest.fixture(scope="module")
def other(root):
    """The target's own test images in another order, with names of their own, and images of a fourth class."""
    images, labels = encoded_squares(45, seed=1)
    order = np.random.default_rng(0).permutation(50)
    images, labels = [*images, *images[:5]], [*labels, *[3] * 5]
    rows = [images[i] for i in order], [NAMES[labels[i]] for i in order]
    write_parquet(root / "other" / "test.parquet", *rows)
    write_parquet(root / "other" / "train.parquet", images[:4], NAMES)
    return prepared(root, {"kind": "parquet", "path": str(root / "other")}), order


@pytest.fixture(scope="module")
def backbone(root):
    return stored_backbone(root, build("resnet8_w4", 5, seed=2))


@pytest.fixture(scope="module")
def stored(root, backbone, dataset, other):
    settings = FeaturesSettings(preprocessing=PLAIN)
    return [made(root, "features", features, settings, backbone=backbone, dataset=one) for one in (dataset, other[0])]


def transfers(root, backbone, dataset, stored):
    """A model of each kind, and the images of the roles `images0`, the target's own, and `images1`, the others."""
    trained = {"training": TRAINING, "preprocessing": PLAIN, "keep_weights": True}
    on = {"backbone": backbone, "dataset": dataset}
    tuned = FinetuningSettings(purpose="fixed", learning_rates=(0.05,), normalisation=None, **trained)
    runs = {}
    for purpose in ("search", "final"):
        heads = LinearHeadsSettings(
            purpose=purpose, learning_rates=(1e-4, 0.1), weight_decays=(0.0,), head_seeds=(0,), batchnorm="drift",
            normalisation=None, **{**trained, "keep_weights": purpose == "final"},
        )  # fmt: skip
        runs[f"{purpose}0"] = made(root, "linear_heads", linear_heads, heads, **on)
    return {
        "probe": made(root, "probing", probing, ProbingSettings(strengths=(1e-3, 1e-2)), features=stored[0]),
        "knn": made(root, "knn", knn, KnnSettings(neighbours=(1, 5)), features=stored[0]),
        "heads": made(root, "selecting", selecting, SelectingSettings(selections=("validation",)), **runs),
        "tuned": made(root, "finetuning", finetuning, tuned, **on),
    }, runs["final0"]


def settings_of(*classes, name="other"):
    return TestSetsSettings(
        tests=tuple(
            TestedOn(model="model0", images=f"images{i}", target="squares", test_set=f"{name}{i}", classes=one)
            for i, one in enumerate(classes)
        )
    )


def test_the_targets_own_images_get_its_own_answers_and_other_classes_are_left_out(
    root, backbone, dataset, stored, other
):
    """Every kind of model answers as it did to the same images of its target, whatever they are called."""
    models, final = transfers(root, backbone, dataset, stored)
    renamed, order = other
    for kind, transfer in models.items():
        on_features = kind in ("probe", "knn")
        images = stored if on_features else [dataset, renamed]
        inputs = {"backbone": backbone, "model0": transfer, "dataset0": dataset, "images0": images[0]}
        inputs |= {"images1": images[1]} | ({"features0": stored[0]} if on_features else {})
        inputs |= {"final0_0": final} if kind == "heads" else {}
        entry = made(root, "test_sets", test_sets, settings_of(None, TO_TARGET), **inputs)
        own = read_predictions(transfer, "validation")["test"]
        rows = json.loads(entry.file("metrics.json").read_text())
        assert [(row["test_set"], row["metric"], row["split"]) for row in rows] == [
            (name, metric, "other") for name in ("other0", "other1") for metric in ("top1", "mean_per_class")
        ]
        assert {row["model"] for row in rows} == {f"{transfer.path.parent.name}/{transfer.path.name}"}
        first = next(row for row in json.loads(transfer.file("metrics.json").read_text()) if row["split"] == "test")
        for row in rows[::2]:
            assert row["value"] == pytest.approx(first["value"]), kind
            assert row["n"] == 45
        assert row["selection"] == "validation"
        table = pq.read_table(entry.file(test_sets.TESTED)).to_pandas()
        again = table[table["test_set"] == "other0"]
        assert (again["label"] == again["prediction"]).tolist() == own.correct.astype(bool).tolist()
        renumbered = table[table["test_set"] == "other1"]
        known = np.concatenate([own.correct, own.correct[:5]])[order[renumbered["index"]]]
        assert (renumbered["label"] == renumbered["prediction"]).tolist() == known.astype(bool).tolist()
        labels = open_split(renamed, "test").labels
        assert [renamed.facts()["classes"][one] for one in labels[renumbered["index"]]] == [
            NAMES[one] for one in renumbered["label"]
        ]


def test_names_that_do_not_match_are_told_of_before_anything_is_fitted(root, backbone, dataset, stored, other):
    settings = settings_of(None, name="colours")
    of_probe = ProbingSettings(strengths=(1e-3,))
    probe = made(root, "probing", probing, of_probe, features=stored[0])
    inputs = {"backbone": backbone, "model0": probe, "dataset0": dataset, "features0": stored[0], "images0": stored[1]}
    with pytest.raises(ClassMapError, match=r"colours0: 4 of 4 classes are none of squares: .*red"):
        made(root, "test_sets", test_sets, settings, **inputs)


def test_classes_are_mapped_by_name():
    known, targets = ("automobile", "cat", "frog"), ("cat", "car", "dog")
    said = {"dataset": "stl", "target": "cifar"}
    assert class_numbers(("dog", "cat"), targets, None, **said) == [2, 0]
    assert class_numbers(known, targets, {"automobile": "car", "cat": "cat"}, **said) == [1, 0, LEFT_OUT]
    assert class_numbers(known, targets, {"automobile": "car", "frog": "car"}, **said) == [1, LEFT_OUT, 1]


@pytest.mark.parametrize(
    ("classes", "says"),
    [
        (None, ["also_test_on.cifar, stl: 2 of 3 classes are none of cifar: automobile, frog", "`classes`"]),
        ({"autmobile": "car"}, ["classes.autmobile: no class of stl, did you mean automobile?"]),
        ({"cat": "cart"}, ["classes: cart: no class of cifar, did you mean cat?"]),
        ({"zebra": "cat", "cat": "xyz"}, ["classes.zebra: no class of stl, which has automobile", "xyz: no class"]),
    ],
)
def test_what_does_not_match_is_named(classes, says):
    with pytest.raises(ClassMapError) as error:
        class_numbers(("automobile", "cat", "frog"), ("cat", "car", "dog"), classes, dataset="stl", target="cifar")
    assert all(one in str(error.value) for one in says), str(error.value)

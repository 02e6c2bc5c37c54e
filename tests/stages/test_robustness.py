"""Transferred models under attack: what is attacked is the parts put together, and what is written says so."""

import importlib.util
import json
import random
import runpy
import signal
from functools import partial
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from robust_transfer.attacks import Starts, pgd, threat_model
from robust_transfer.configuration.robustness import RobustnessSettings
from robust_transfer.configuration.training import Attack
from robust_transfer.configuration.transfer import (
    FeaturesSettings,
    FinetuningSettings,
    KnnSettings,
    LinearHeadsSettings,
    ProbingSettings,
    SelectingSettings,
)
from robust_transfer.datasets.arrow import open_split
from robust_transfer.datasets.resident import square_images
from robust_transfer.loading.augmentation import as_images
from robust_transfer.networks.backbones import load_backbone
from robust_transfer.networks.build import build
from robust_transfer.resuming.interruption import EXIT_CODE
from robust_transfer.stages import features, finetuning, knn, linear_heads, probing, robustness, selecting
from robust_transfer.statistics.logistic_regression import Regression
from robust_transfer.store.attacked import read_attacked
from robust_transfer.store.entry import STATE, StoreError, open_entry
from robust_transfer.store.features import open_features
from robust_transfer.store.predictions import read_predictions
from robust_transfer.tables.key import canonical
from robust_transfer.training import attacking
from robust_transfer.training.exporting import export
from robust_transfer.training.inference import predict
from robust_transfer.training.transferred import load_transferred
from support.backbones import stored_backbone
from support.kills import assert_same_outputs, finish, kill_until_done, said, start, wait_until
from support.prepared_datasets import new_entry

SIDE, CLASSES, EPS = 16, 3, "0.25"
TRAINING = {"epochs": 3, "batch_size": 8, "augmentation": "none", "schedule": "one-cycle", "precision": "fp32"}
PLAIN = {"resize_ratio": 1.0}
ATTACK = Attack(steps=5, relative_step_size=0.4, random_start=True)


def made(root, stage, module, settings, **inputs):
    entry = new_entry(root, stage, settings.model_dump(mode="json"), **inputs)
    module.run(entry, threads=1, device="cpu")
    return open_entry(entry.path)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    torch.set_num_threads(1)
    return tmp_path_factory.mktemp("robustness")


@pytest.fixture(scope="module")
def backbone(root):
    return stored_backbone(root, build("resnet8_w4", 5, seed=2))


@pytest.fixture(scope="module")
def stored(root, backbone, dataset):
    settings = FeaturesSettings(dtype="float32", preprocessing=PLAIN)
    return made(root, "features", features, settings, backbone=backbone, dataset=dataset)


@pytest.fixture(scope="module")
def probe(root, stored):
    return made(root, "probing", probing, ProbingSettings(strengths=(1e-3, 1e-2)), features=stored)


@pytest.fixture(scope="module")
def tuned(root, backbone, dataset):
    settings = FinetuningSettings(
        purpose="fixed", learning_rates=(0.05,), training=TRAINING, preprocessing=PLAIN, keep_weights=True,
        normalisation={"mean": (0.4, 0.5, 0.6), "std": (0.3, 0.2, 0.1)},
    )  # fmt: skip
    return made(root, "finetuning", finetuning, settings, backbone=backbone, dataset=dataset)


@pytest.fixture(scope="module", params=["drift", "frozen"])
def heads(request, root, backbone, dataset):
    """Linear heads at three rates, two seeds of each, and the choice among them."""
    runs = {}
    for purpose in ("search", "final"):
        settings = LinearHeadsSettings(
            purpose=purpose, learning_rates=(1e-4, 0.3, 0.1), weight_decays=(0.0,), head_seeds=(0, 1),
            training=TRAINING, batchnorm=request.param, normalisation=None, preprocessing=PLAIN,
            keep_weights=purpose == "final",
        )  # fmt: skip
        runs[f"{purpose}0"] = made(root, "linear_heads", linear_heads, settings, backbone=backbone, dataset=dataset)
    return made(root, "selecting", selecting, SelectingSettings(selections=("validation", "test")), **runs)


def attack_settings(**changes):
    given = {"norm": "l2", "eps": [EPS], "attack": ATTACK, "images": 30, **changes}
    return RobustnessSettings.model_validate(given)


def inputs_of(*models, backbone, dataset, stored):
    roles = {"backbone": backbone}
    for i, model in enumerate(models):
        roles |= {f"model{i}": model, f"dataset{i}": dataset}
        roles |= {f"features{i}": stored} if model.stage == "probing" else {}
    return roles


@pytest.fixture(scope="module")
def attacked(root, probe, tuned, backbone, dataset, stored):
    inputs = inputs_of(probe, tuned, backbone=backbone, dataset=dataset, stored=stored)
    return made(root, "robustness", robustness, attack_settings(), **inputs)


def images_of(dataset, indices=None):
    split = open_split(dataset, "test")
    pixels = torch.from_numpy(square_images(split, SIDE, 1.0, indices=indices))
    labels = split.labels if indices is None else split.labels[indices]
    return pixels, torch.from_numpy(labels.astype(np.int64))


def name_of(entry):
    return f"{entry.stage}/{entry.path.name}"


class ByHand(torch.nn.Module):
    """A backbone and a probe as two parts: features, standardised, through the probe's weights."""

    def __init__(self, backbone, stored, probe):
        super().__init__()
        parts = [open_features(stored, "train")]
        fit = next(Regression(*parts[0], standardise=True).path([probe.facts()["lambda"]["validation"]]))
        self.backbone = load_backbone(backbone)
        values = (fit.scaling.mean, fit.scaling.deviation, fit.weights, fit.biases)
        self.mean, self.deviation, self.weights, self.biases = (
            torch.from_numpy(np.array(one)).float() for one in values
        )

    def forward(self, images):
        scaled = (self.backbone.features(images) - self.mean) / self.deviation
        return scaled @ self.weights.T + self.biases


def test_attacking_the_composed_model_is_attacking_its_parts(attacked, backbone, stored, probe, dataset):
    by_hand, model = ByHand(backbone, stored, probe), load_transferred(probe)
    found = read_attacked(attacked, name_of(probe))
    clean, under = found.values()
    pixels, labels = images_of(dataset, clean.index)
    torch.testing.assert_close(model.network(as_images(pixels)), by_hand(as_images(pixels)), rtol=1e-4, atol=1e-4)
    right = (by_hand(as_images(pixels)).argmax(1) == labels).numpy()
    assert clean.correct.tolist() == right.tolist()
    starts = Starts(0, 0, torch.from_numpy(clean.index))
    perturbed = pgd(by_hand, as_images(pixels), labels, threat_model("l2", EPS), ATTACK, starts)
    withstood = right & (by_hand(perturbed).argmax(1) == labels).numpy()
    assert under.correct.tolist() == withstood.tolist()
    assert 0 < withstood.sum() < right.sum()


def test_a_composed_model_predicts_what_its_transfer_did(probe, tuned, dataset):
    pixels, labels = images_of(dataset)
    for entry in (probe, tuned):
        recorded = read_predictions(entry, "validation")["test"]
        found = predict(load_transferred(entry).network, pixels, "fp32")
        assert (found == labels.numpy()).tolist() == recorded.correct.astype(bool).tolist()
        assert 100 / CLASSES < 100 * recorded.correct.mean() <= 100


@pytest.mark.parametrize("selection", ["validation", "test"])
def test_of_linear_heads_the_chosen_one_is_taken(heads, dataset, selection):
    pixels, _ = images_of(dataset)
    model = load_transferred(heads, selection)
    table = pq.read_table(heads.path / "predictions.parquet").to_pylist()
    chosen = [row for row in table if row["selection"] == selection and row["split"] == "test" and not row["head_seed"]]
    recorded = [row["prediction"] for row in sorted(chosen, key=lambda row: row["index"])]
    assert predict(model.network, pixels, "fp32").tolist() == recorded
    assert model.hyperparameters["learning_rate"] in (0.3, 0.1)


def test_rows_say_of_which_model_they_are_and_agree_with_the_images(attacked, probe, tuned):
    rows = json.loads((attacked.path / "metrics.json").read_text())
    assert [(row["model"], row["metric"]) for row in rows[::2]] == [
        (name_of(model), "top1") for model in (probe, probe, tuned, tuned)
    ]
    assert {row["split"] for row in rows} == {"test"}
    assert {row["selection"] for row in rows} == {"validation"}
    assert [row["attack"] for row in rows[:4:2]] == [
        {"kind": "none", "norm": "l2", "eps": "0", "precision": "fp32"},
        {
            **{"norm": "l2", "eps": EPS, "steps": 5, "relative_step_size": 0.4, "random_start": True},
            **{"restarts": 1, "use_best": True, "precision": "fp32"},
        },
    ]
    for row in rows:
        images = read_attacked(attacked, row["model"])[canonical(row["attack"])]
        assert (row["n"], len(images.index)) == (30, 30)
        if row["metric"] == "top1":
            assert row["value"] == pytest.approx(100 * images.correct.mean())
    assert rows[0]["hyperparameters"] == {"lambda": probe.facts()["lambda"]["validation"]}
    assert rows[4]["hyperparameters"] == {"learning_rate": 0.05}
    assert attacked.facts()["models"] == [name_of(probe), name_of(tuned)]


def test_more_images_hold_those_of_fewer_attacked_alike(root, attacked, probe, backbone, dataset, stored):
    inputs = inputs_of(probe, backbone=backbone, dataset=dataset, stored=stored)
    whole = made(root, "robustness", robustness, attack_settings(images=None), **inputs)
    few, every = read_attacked(attacked, name_of(probe)), read_attacked(whole, name_of(probe))
    for attack, of_few in few.items():
        assert every[attack].correct[of_few.index].tolist() == of_few.correct.tolist()
        assert len(every[attack].index) == 45


def test_a_class_without_training_images_is_never_predicted(root, backbone, stored, dataset):
    settings = ProbingSettings(strengths=(1e-2,))
    entry = made(root, "probing", probing, settings, features=stored)
    values, labels = open_features(stored, "train")
    fit = next(Regression(values[labels != 1], labels[labels != 1], standardise=True).path([1e-2]))
    from robust_transfer.networks.probe_head import probe_head

    head, (tested, _) = probe_head(fit, CLASSES), open_features(stored, "test")
    found = head(torch.from_numpy(np.array(tested))).argmax(1).numpy()
    assert found.tolist() == fit.predict(fit.scaling(tested)).tolist()
    assert 1 not in found
    assert load_transferred(entry).network.head.bias.isfinite().all()


def test_a_probe_computes_in_full_precision_on_a_body_in_bf16(root, backbone, dataset):
    settings = FeaturesSettings(dtype="float32", precision="bf16", preprocessing=PLAIN)
    stored = made(root, "features", features, settings, backbone=backbone, dataset=dataset)
    entry = made(root, "probing", probing, ProbingSettings(strengths=(1e-3,)), features=stored)
    model, (pixels, labels) = load_transferred(entry), images_of(dataset)
    assert model.precision == "bf16"
    recorded = read_predictions(entry, "validation")["test"]
    found = predict(model.network.to(memory_format=torch.channels_last), pixels, "bf16") == labels.numpy()
    assert (found == recorded.correct.astype(bool)).mean() > 0.97


def test_a_model_whose_training_diverged_guesses_under_attack_and_is_not_exported(root, backbone, dataset):
    settings = FinetuningSettings(
        purpose="fixed", learning_rates=(1e30,), training=TRAINING, preprocessing=PLAIN, keep_weights=True
    )
    entry = made(root, "finetuning", finetuning, settings, backbone=backbone, dataset=dataset)
    inputs = {"backbone": backbone, "model0": entry, "dataset": dataset}
    attacked = made(root, "robustness", robustness, attack_settings(), **inputs)
    found = read_attacked(attacked, f"finetuning/{entry.name}")
    assert len(found) == 2
    assert len({tuple(of.correct.tolist()) for of in found.values()}) == 1
    with pytest.raises(StoreError, match="its training diverged, so that there is no model to write"):
        export(entry, root / "diverged.safetensors")


def test_weights_that_were_not_kept_are_named_with_the_fix(root, backbone, dataset, stored):
    settings = FinetuningSettings(purpose="fixed", learning_rates=(0.05,), training=TRAINING, preprocessing=PLAIN)
    entry = made(root, "finetuning", finetuning, settings, backbone=backbone, dataset=dataset)
    assert "weights.safetensors" not in entry.card()["files"]
    with pytest.raises(StoreError, match="its weights were not kept; set robustness: true"):
        load_transferred(entry)
    neighbours = made(root, "knn", knn, KnnSettings(neighbours=(1, 5)), features=stored)
    with pytest.raises(StoreError, match="holds no transferred model, nearest neighbours are no network"):
        load_transferred(neighbours)
    with pytest.raises(StoreError, match="no strength was chosen on test, but on validation"):
        load_transferred(made(root, "probing", probing, ProbingSettings(strengths=(1.0,)), features=stored), "test")


def test_a_fine_tuned_network_is_a_backbone_to_whoever_loads_it(tuned):
    network = load_backbone(tuned.path)
    assert network.normalise.std.flatten().tolist() == pytest.approx([0.3, 0.2, 0.1])
    assert network.classes == CLASSES


def as_vectors(model):
    """The model, whose gradients libraries can view as vectors: a flat tensor in between permits it."""
    return lambda images: model(images.flatten(1).view(images.shape))


class TestExported:
    """The file and its lines, run as a reader runs them."""

    def test_of_linear_heads_the_chosen_one_is_written(self, heads, tmp_path, dataset):
        images = as_images(images_of(dataset)[0])
        found = self.loaded(heads, tmp_path, selection="test")[0]["model"](images)
        torch.testing.assert_close(found, load_transferred(heads, "test").network(images), rtol=1e-5, atol=1e-5)

    def loaded(self, entry, folder, **options):
        lines = export(entry, folder / "model.safetensors", **options)
        return runpy.run_path(str(lines)), lines

    @pytest.mark.parametrize("kind", ["probe", "tuned"])
    def test_a_small_resnet_gives_the_same_logits(self, kind, request, tmp_path, dataset):
        entry = request.getfixturevalue(kind)
        module, lines = self.loaded(entry, tmp_path)
        images = as_images(images_of(dataset)[0])
        torch.testing.assert_close(module["model"](images), load_transferred(entry).network(images), rtol=0, atol=0)
        assert module["about"]["classes"] == list(load_transferred(entry).classes)
        assert len([line for line in lines.read_text().splitlines() if line.strip()]) <= 16

    @pytest.mark.parametrize("architecture", ["resnet18", "mobilenet_v3_small", "timm_resnet10t"])
    def test_a_network_of_a_library_needs_nothing_of_this_package(self, architecture, root, tmp_path, dataset):
        if architecture.startswith("timm_"):
            pytest.importorskip("timm", reason="not installed: make setup EXTRAS=timm")
        backbone = stored_backbone(root, build(architecture, 5, seed=1), input_size=32)
        settings = FeaturesSettings(dtype="float32", preprocessing=PLAIN)
        stored = made(root, "features", features, settings, backbone=backbone, dataset=dataset)
        entry = made(root, "probing", probing, ProbingSettings(strengths=(1e-2,)), features=stored)
        module, lines = self.loaded(entry, tmp_path)
        assert "robust_transfer" not in lines.read_text()
        images = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
        torch.testing.assert_close(
            module["model"](images), load_transferred(entry).network(images), rtol=1e-4, atol=1e-4
        )

    @pytest.mark.parametrize("norm", ["l2", "linf"])
    def test_another_library_finds_it_as_robust(self, norm, root, probe, tuned, backbone, dataset, stored, tmp_path):
        torchattacks = pytest.importorskip("torchattacks", reason="not installed: make setup EXTRAS=peers")
        eps, images = {"l2": 0.25, "linf": 8 / 255}[norm], 45
        attack = Attack(steps=10, relative_step_size=0.25, random_start=False, use_best=False)
        spelt = {"l2": "0.25", "linf": "8/255"}[norm]
        settings = attack_settings(norm=norm, eps=[spelt], attack=attack, images=images)
        inputs = inputs_of(probe, tuned, backbone=backbone, dataset=dataset, stored=stored)
        entry = made(root, "robustness", robustness, settings, **inputs)
        pixels, labels = images_of(dataset)
        for model in (probe, tuned):
            module, _ = self.loaded(model, tmp_path)
            wrapped = torch.nn.Module()
            wrapped.add_module("network", module["network"])
            wrapped.forward = as_vectors(module["model"])
            kind = {"l2": torchattacks.PGDL2, "linf": torchattacks.PGD}[norm]
            theirs = kind(wrapped.eval(), eps=eps, alpha=eps * attack.step_size, steps=10, random_start=False)
            perturbed = theirs(as_images(pixels).contiguous(), labels)
            clean, under = read_attacked(entry, name_of(model)).values()
            withstood = clean.correct * (module["model"](perturbed).argmax(1) == labels).numpy()
            assert abs(withstood.sum() - under.correct.sum()) <= 1
            assert under.correct.sum() < clean.correct.sum()

    def test_autoattack_on_the_file_agrees(self, root, probe, backbone, dataset, stored, tmp_path, monkeypatch):
        library = pytest.importorskip("pyautoattack", reason="not installed: make setup EXTRAS=attacks")

        def shortened(*args, **kwargs):
            """Of tenths of the steps and hundredths of the queries, which cost tens of seconds."""
            adversary = library.AutoAttack(*args, **kwargs)
            for attack in (adversary.apgd, adversary.apgd_targeted, adversary.fab):
                attack.n_iter = 10
            adversary.square.n_queries = 50
            return adversary

        monkeypatch.setattr(attacking, "library", lambda: SimpleNamespace(AutoAttack=shortened))
        inputs = inputs_of(probe, backbone=backbone, dataset=dataset, stored=stored)
        entry = made(root, "robustness", robustness, attack_settings(images=12, autoattack=True), **inputs)
        clean, by_pgd, under = read_attacked(entry, name_of(probe)).values()
        pixels, labels = images_of(dataset, clean.index)
        module, _ = self.loaded(probe, tmp_path)
        theirs = shortened(as_vectors(module["model"]), norm="L2", eps=0.25, seed=0, device="cpu")
        theirs.attacks_to_run = ["apgd-ce", "fab-t", "square"]  # three classes: the loss of targeted APGD needs four
        theirs.fab.n_target_classes = 2
        _, found = theirs.run_standard_evaluation(as_images(pixels).contiguous(), labels, batch_size=12)
        assert (found == labels).float().tolist() == under.correct.tolist()
        assert under.correct.sum() <= by_pgd.correct.sum() <= clean.correct.sum()

    def test_a_name_of_another_kind_is_refused(self, probe, tmp_path):
        with pytest.raises(StoreError, match=r"model.pt: write a name that ends in .safetensors"):
            export(probe, tmp_path / "model.pt")


def rows_done(entry):
    """Bytes of predictions that a job has written so far."""
    return sum(path.stat().st_size for path in (entry.path / STATE).glob("model*.rows"))


@pytest.fixture
def small_batches(monkeypatch):
    monkeypatch.setattr(robustness, "BATCH", 4)


def test_killed_at_random_it_ends_with_the_same_files(root, small_batches, probe, tuned, backbone, dataset, stored):
    inputs = inputs_of(probe, tuned, backbone=backbone, dataset=dataset, stored=stored)
    settings = attack_settings().model_dump(mode="json")
    whole = new_entry(root, "robustness", settings, **inputs)
    robustness.run(whole, threads=1, device="cpu")
    entry = new_entry(root, "robustness", settings, **inputs)

    def moment(entry, draws):
        done = rows_done(entry) + draws.randrange(1, 100)
        return lambda: rows_done(entry) >= done

    assert kill_until_done(entry, moment, random.Random(3), most=5) >= 2
    assert_same_outputs(entry, whole)
    assert "going on after" in said(entry)


def has_begun(entry):
    return rows_done(entry) > 100


def test_asked_to_leave_it_saves_and_goes_on(root, small_batches, attacked, probe, tuned, backbone, dataset, stored):
    inputs = inputs_of(probe, tuned, backbone=backbone, dataset=dataset, stored=stored)
    for _ in range(10):  # one that is done before the signal comes is no test of it
        entry = new_entry(root, "robustness", attacked.settings, **inputs)
        process = start(entry)
        wait_until(process, partial(has_begun, entry))
        if (status := process.send(signal.SIGTERM)) != 0:
            break
    assert status == EXIT_CODE
    assert not {"card.json", "metrics.json", "attacked.parquet"} & {path.name for path in entry.path.iterdir()}
    finish(entry)
    assert_same_outputs(entry, attacked)


@pytest.mark.skipif(importlib.util.find_spec("pyautoattack") is not None, reason="pyautoattack is installed")
def test_without_the_library_autoattack_says_how_to_get_it(root, probe, backbone, dataset, stored):
    inputs = inputs_of(probe, backbone=backbone, dataset=dataset, stored=stored)
    with pytest.raises(StoreError, match="make setup EXTRAS=attacks"):
        made(root, "robustness", robustness, attack_settings(autoattack=True), **inputs)

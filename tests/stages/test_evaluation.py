"""Clean and attacked accuracy of backbones with a known answer, and of what the stage writes."""

import importlib.util
import itertools
import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from dag.test_grid import planned
from robust_transfer.attacks import L2, Linf
from robust_transfer.configuration.load import ConfigurationError
from robust_transfer.configuration.training import Attack, EvaluationSettings
from robust_transfer.datasets import resident
from robust_transfer.networks.backbones import load_backbone
from robust_transfer.networks.build import build
from robust_transfer.stages import evaluation
from robust_transfer.statistics.intervals import exact_interval
from robust_transfer.store.entry import StoreError, open_entry
from robust_transfer.training.inference import BATCH, predict
from support.backbones import stored_backbone
from support.prepared_datasets import encoded, new_entry, prepared, write_parquet

SIDE, CLASSES = 16, 2


def greys(n, seed=0):
    """Encoded images of class 0, dark, and class 1, bright: grey levels 102 and 153 of 255, and labels."""
    labels = np.arange(n) % CLASSES
    return [encoded(np.full((SIDE, SIDE, 3), 102 + 51 * label, np.uint8)) for label in labels], labels.tolist()


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    root = tmp_path_factory.mktemp("source")
    write_parquet(root / "data/train.parquet", *greys(8))
    write_parquet(root / "data/test.parquet", *greys(20))
    return prepared(root, {"kind": "parquet", "path": str(root / "data")})


@pytest.fixture(scope="module")
def backbone(source):
    """A network that compares the mean over one pixel in 16, which is what its strides leave, with 1/2.

    The classes lie 0.1 on either side, so every image is lost from 0.1 on within Linf, from 0.1·sqrt(3·16) = 0.693 on
    within L2, and none before.
    """
    network = build("resnet8_w4", CLASSES).eval()
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            parameter.fill_(1.0 if name.endswith(("bn1.weight", "bn2.weight", ".1.weight")) else 0.0)
        parameters = dict(network.named_parameters())
        parameters["body.stem.0.weight"][0, :, 1, 1] = network.normalise.std.flatten() / 3
        parameters["body.stem.1.bias"][0] = network.normalise.mean.mean()
        for name, parameter in parameters.items():
            if name.endswith("shortcut.0.weight") and not name.startswith("body.blocks.0."):
                parameter[0, 0] = 1.0
        network.head.weight[1, 0], network.head.bias[1] = 40.0, -20.0
    return stored(source, network)


def stored(source, network, **changes):
    return stored_backbone(source.path.parents[2], network, **{"precision": "fp32", **changes})


def evaluated(source, backbone, **changes):
    settings = {
        "norm": "l2",
        "eps": [],
        "attack": {"steps": 10, "relative_step_size": 0.25, "random_start": True},
        "preprocessing": {"resize_ratio": 1.0},
        **changes,
    }
    settings = EvaluationSettings.model_validate(settings).model_dump(mode="json")
    entry = new_entry(source.path.parents[2], "evaluation", settings, backbone=backbone, source=source)
    evaluation.run(entry, threads=1, device="cpu")
    return open_entry(entry.path)


def rows(entry):
    return json.loads((entry.path / "metrics.json").read_text())


@pytest.mark.parametrize(("norm", "below", "above"), [("l2", "0.65", "0.75"), ("linf", "0.09", "28/255")])
@pytest.mark.parametrize("random_start", [True, False])
def test_images_are_lost_from_the_radius_at_which_they_must_be(source, backbone, norm, below, above, random_start):
    attack = {"steps": 10, "relative_step_size": 0.25, "random_start": random_start}
    found = rows(evaluated(source, backbone, norm=norm, eps=[below, above], attack=attack))
    by_attack = {(row["attack"] or {}).get("eps"): row["value"] for row in found if row["metric"] == "top1"}
    assert by_attack == {None: 100.0, below: 100.0, above: 0.0}


def test_rows_say_what_was_measured(source, backbone):
    attack = {"steps": 3, "random_start": True, "restarts": 2}
    entry = evaluated(source, backbone, eps=["0.5"], attack=attack)
    found = rows(entry)
    assert [row["metric"] for row in found] == ["top1", "mean_per_class"] * 2
    assert [row["attack"] for row in found] == [None] * 2 + [
        {
            **{"norm": "l2", "eps": "0.5", "steps": 3, "relative_step_size": 0.666667, "random_start": True},
            **{"restarts": 2, "use_best": True, "precision": "fp32"},
        }
    ] * 2
    for other in ({"relative_step_size": 0.1}, {"restarts": 1, "random_start": False}, {"use_best": False}):
        label = rows(evaluated(source, backbone, eps=["0.5"], attack=attack | other))[-1]["attack"]
        assert label != found[-1]["attack"], "two attacks that differ must not have one key"
    for row in found:
        assert (row["split"], row["selection"], row["n"], row["hyperparameters"]) == ("test", None, 20, {})
        low, high = exact_interval(row["value"], row["effective_n"])
        assert low <= row["value"] <= high
    assert entry.facts() == {"backbone": backbone.name, "images": 20, "precision": "fp32"}
    timing = json.loads((entry.path / "timing.json").read_text())
    assert (timing["images"], timing["device"], timing["threads"]) == (40, "cpu", 1)


def test_block_by_block_it_is_the_same(source, backbone, monkeypatch):
    entries = []
    for block in (2048, 7):
        monkeypatch.setattr(resident, "BLOCK", block)
        entries.append(evaluated(source, backbone, norm="linf", eps=["0.09", "28/255"], attack={"steps": 2}))
    assert rows(entries[0]) == rows(entries[1])


@pytest.mark.parametrize("random_start", [True, False])
@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_a_block_in_which_no_image_is_right_is_evaluated(tmp_path, source, backbone, norm, random_start, monkeypatch):
    """Of blocks of one image and of six: those of a class that the network takes for the other are all lost."""
    write_parquet(tmp_path / "data/train.parquet", *greys(8))
    images, labels = greys(7)
    write_parquet(tmp_path / "data/test.parquet", images, [*labels[:3], *(1 - label for label in labels[3:])])
    source = prepared(source.path.parents[2], {"kind": "parquet", "path": str(tmp_path / "data")})
    attack = {"steps": 2, "random_start": random_start}
    for block in (1, 3, 6, 2048):
        monkeypatch.setattr(resident, "BLOCK", block)
        found = rows(evaluated(source, backbone, norm=norm, eps=["0.01", "0.05"], attack=attack))
        assert [row["value"] for row in found if row["metric"] == "top1"] == [pytest.approx(300 / 7)] * 3


@pytest.mark.parametrize("right", [True, False])
def test_a_single_test_image_is_evaluated(tmp_path, source, backbone, right):
    write_parquet(tmp_path / "data/train.parquet", *greys(8))
    (image,), (label,) = greys(1)
    write_parquet(tmp_path / "data/test.parquet", [image], [label if right else 1 - label])
    source = prepared(source.path.parents[2], {"kind": "parquet", "path": str(tmp_path / "data")})
    found = rows(evaluated(source, backbone, eps=["0.01"], attack={"steps": 2, "random_start": True}))
    assert [(row["n"], row["value"]) for row in found] == [(1, 100.0 * right)] * 4


@pytest.mark.parametrize("blocks", [[600], [300, 300], [256, 344], [1] * 300, [100, 0, 500, 0], [0], []])
def test_images_of_blocks_come_in_whole_batches_in_their_order(blocks):
    ends = np.cumsum([0, *blocks])
    given = [np.arange(first, end) for first, end in itertools.pairwise(ends)]
    images = [torch.from_numpy(2 * numbers) for numbers in given]
    found = list(evaluation.in_whole_batches(zip(given, images, strict=True)))
    for numbers, pixels in found:
        np.testing.assert_array_equal(2 * numbers, pixels)
    assert [number for numbers, _ in found for number in numbers] == [*range(ends[-1])]
    assert all(len(numbers) and len(numbers) % BATCH == 0 for numbers, _ in found[:-1])
    assert all(len(numbers) for numbers, _ in found)


def test_random_starts_go_by_an_images_number(source):
    """Not by its place in a block: which images are lost hangs on the start, where the attack is weak."""
    network = build("resnet8_w4", 4, seed=3).eval()
    pixels = torch.randint(0, 256, (64, SIDE, SIDE, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    clean = predict(network, pixels, "fp32")

    def lost(seed, *blocks):
        found = []
        for first, end in blocks:
            part = slice(first, end)
            labels, threat = torch.from_numpy(clean[part]), Linf(0.004)
            attack = Attack(steps=1, relative_step_size=0.01, random_start=True, use_best=False)
            given, numbers = (network, pixels[part], labels, clean[part]), torch.arange(first, end)
            found.append(evaluation.attacked_predictions(*given, threat, attack, seed, "fp32", numbers=numbers))
        return np.concatenate(found).tolist()

    whole = lost(0, (0, 64))
    assert lost(0, (0, 20), (20, 64)) == whole
    assert any(lost(seed, (0, 64)) != whole for seed in (1, 2, 3))


def test_made_again_it_is_the_same_card(source, backbone):
    cards = [evaluated(source, backbone, eps=["0.69"]).card() for _ in range(2)]
    assert cards[0]["files"] == cards[1]["files"]


def test_without_attacks_only_clean_accuracy_is_measured(source, backbone):
    assert [row["attack"] for row in rows(evaluated(source, backbone))] == [None, None]


def test_a_backbone_of_other_classes_is_refused(source):
    other = stored(source, build("resnet8_w4", 3))
    with pytest.raises(StoreError, match=r"its 3 outputs are not the 2 classes of .*trained on"):
        evaluated(source, other)


def test_precision_is_the_backbones(source, backbone):
    """Logits in bfloat16 differ; the accuracy of so plain a network does not."""
    network = load_backbone(backbone)
    bf16 = stored(source, network, precision="bf16")
    entry = evaluated(source, bf16, eps=["0.6", "0.8"])
    assert entry.facts()["precision"] == "bf16"
    assert [row["value"] for row in rows(entry) if row["metric"] == "top1"] == [100.0, 100.0, 0.0]


def test_an_image_that_is_wrong_already_is_lost(source, backbone):
    """A random start would take half of these images across to their label; that is no robustness."""
    network = load_backbone(backbone)
    pixels, labels = torch.full((40, SIDE, SIDE, 3), 127, dtype=torch.uint8), torch.ones(40, dtype=torch.int64)
    clean = predict(network, pixels, "fp32")
    assert (clean == 0).all()
    attack = Attack(steps=1, relative_step_size=1e-6, random_start=True, use_best=False)
    for right, expected in ((labels, 0), (1 - labels, 1)):
        found = evaluation.attacked_predictions(network, pixels, right, clean, Linf(0.3), attack, 0, "fp32")
        assert found.tolist().count(1) == pytest.approx(20 * expected, abs=12 * expected)


class TestAutoAttack:
    @pytest.fixture(autouse=True)
    def shortened(self, monkeypatch):
        """Tenths of the steps and hundredths of the queries, which cost 20 s and more a test; what was asked for."""
        library = pytest.importorskip("pyautoattack", reason="not installed: make setup EXTRAS=attacks")
        made = []

        def autoattack(*args, **kwargs):
            adversary = library.AutoAttack(*args, **kwargs)
            made.append((adversary, adversary.apgd.n_iter, adversary.fab.n_iter, adversary.square.n_queries))
            for attack in (adversary.apgd, adversary.apgd_targeted, adversary.fab):
                attack.n_iter = 10
            adversary.square.n_queries = 50
            return adversary

        monkeypatch.setattr(evaluation, "_library", lambda: SimpleNamespace(AutoAttack=autoattack))
        return made

    @pytest.mark.parametrize(("norm", "below", "above"), [("l2", "0.65", "0.75"), ("linf", "0.09", "28/255")])
    def test_images_are_lost_from_the_radius_at_which_they_must_be(self, source, backbone, norm, below, above):
        entry = evaluated(source, backbone, norm=norm, eps=[below, above], autoattack=True, autoattack_images=6)
        found = [row for row in rows(entry) if (row["attack"] or {}).get("kind") == "autoattack"]
        assert [row["attack"] for row in found if row["metric"] == "top1"] == [
            {"norm": norm, "eps": eps, "steps": None, "restarts": 1, "kind": "autoattack", "precision": "fp32"}
            for eps in (below, above)
        ]
        assert [row["value"] for row in found if row["metric"] == "top1"] == [100.0, 0.0]
        assert {row["n"] for row in found} == {6}
        assert json.loads((entry.path / "timing.json").read_text())["autoattack_seconds"] > 0

    @pytest.mark.parametrize("threat", [L2(0.3), Linf(4 / 255)], ids=str)
    @pytest.mark.parametrize("precision", ["fp32", "bf16"])
    def test_it_is_at_least_as_strong_as_pgd(self, threat, precision, shortened):
        """On a network of ten classes that were its own predictions, but for four: those are lost to begin with."""
        network = build("resnet8_w4", 10, seed=4).eval().to(memory_format=torch.channels_last)
        generator = torch.Generator().manual_seed(0)
        pixels = torch.randint(0, 256, (48, SIDE, SIDE, 3), dtype=torch.uint8, generator=generator)
        clean = predict(network, pixels, precision)
        labels = torch.from_numpy(clean).clone()
        labels[:4] = (labels[:4] + 1) % 10
        attack = Attack(steps=20, relative_step_size=0.125, random_start=True)
        by_pgd = evaluation.attacked_predictions(network, pixels, labels, clean, threat, attack, 0, precision)
        found = evaluation.autoattacked_predictions(network, pixels, labels, clean, threat, 0, precision)
        withstood, withstood_pgd = found == labels.numpy(), by_pgd == labels.numpy()
        assert (found[:4] == clean[:4]).all()
        assert 0 < withstood.sum() <= withstood_pgd.sum() < 44
        [(adversary, *lengths)] = shortened
        assert lengths == [100, 100, 5000]
        assert adversary.attacks_to_run == ["apgd-ce", "apgd-t", "fab-t", "square"]
        assert (adversary.apgd.n_restarts, adversary.apgd_targeted.n_target_classes) == (1, 9)
        assert all(parameter.requires_grad for parameter in network.parameters())

    def test_with_few_classes_all_the_others_are_targets(self, source, backbone, shortened):
        evaluated(source, backbone, eps=["0.75"], autoattack=True, autoattack_images=4)
        [(adversary, *_)] = shortened
        assert adversary.attacks_to_run == ["apgd-ce", "fab-t", "square"]
        assert adversary.fab.n_target_classes == 1

    @pytest.mark.parametrize("wrong", [5, 6])
    def test_one_image_or_none_that_is_right_is_attacked(self, wrong):
        network = build("resnet8_w4", 10, seed=4).eval()
        generator = torch.Generator().manual_seed(0)
        pixels = torch.randint(0, 256, (6, SIDE, SIDE, 3), dtype=torch.uint8, generator=generator)
        clean = predict(network, pixels, "fp32")
        labels = torch.from_numpy(clean).clone()
        labels[:wrong] = (labels[:wrong] + 1) % 10
        found = evaluation.autoattacked_predictions(network, pixels, labels, clean, Linf(0.5), 0, "fp32")
        assert (found[:wrong] == clean[:wrong]).all()

    def test_made_again_it_finds_the_same(self, source, backbone):
        files = [
            evaluated(source, backbone, eps=["0.69"], autoattack=True, autoattack_images=4).card()["files"]
            for _ in range(2)
        ]
        assert files[0] == files[1]


def test_more_images_for_autoattack_hold_those_of_fewer():
    few, more = evaluation.drawn(50, 5, seed=0), evaluation.drawn(50, 20, seed=0)
    assert set(few.tolist()) < set(more.tolist()) < set(range(50))
    assert len(few) == 5
    assert more.tolist() == sorted(more.tolist())
    assert evaluation.drawn(50, None, seed=0).tolist() == list(range(50))
    assert evaluation.drawn(3, 5, seed=0).tolist() == list(range(3))


def test_only_where_it_is_asked_for_autoattack_makes_other_entries(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)

    def entries(**settings):
        return set(planned(evaluation=settings).stage("evaluation"))

    assert entries(autoattack=False, autoattack_images=7) == entries()
    one, other = entries(autoattack=True), entries(autoattack=True, autoattack_images=7)
    assert one.isdisjoint(entries())
    assert one.isdisjoint(other)


def test_without_the_library_a_configuration_that_needs_it_is_refused(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigurationError, match=r"evaluation: autoattack: true needs .* `make setup EXTRAS=attacks`"):
        planned(evaluation={"autoattack": True})


def test_without_the_library_the_error_says_how_to_get_it(source, backbone, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyautoattack", None)
    with pytest.raises(StoreError, match="make setup EXTRAS=attacks"):
        evaluated(source, backbone, eps=["0.5"], autoattack=True)

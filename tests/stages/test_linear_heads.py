"""Linear heads by the paper's protocol: each as if alone, batch statistics that drift or stay, what is written."""

import itertools
import json

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from robust_transfer import randomness
from robust_transfer.configuration.running import VARIABLE
from robust_transfer.configuration.training import Recipe
from robust_transfer.configuration.transfer import LinearHeads, LinearHeadsSettings
from robust_transfer.datasets.splits import few_in_total_mask, few_mask
from robust_transfer.networks.backbones import WEIGHTS, load_backbone, read_weights
from robust_transfer.networks.build import build
from robust_transfer.stages import linear_heads
from robust_transfer.statistics.intervals import exact_interval
from robust_transfer.store.entry import open_entry
from robust_transfer.store.runs import runs_in
from robust_transfer.training.loop import fit
from robust_transfer.training.transfer import parts
from support.backbones import stored_backbone
from support.prepared_datasets import new_entry, separable, shuffled, squares
from support.training import loader_of

SIDE, CLASSES = 16, 3
IDENTITY = {"mean": [0, 0, 0], "std": [1, 1, 1]}


def described(purpose="final", **changes):
    training = {"epochs": 4, "batch_size": 16, "augmentation": "crop-flip", "step_epochs": 3}
    return LinearHeadsSettings.model_validate(
        {
            "purpose": purpose,
            "learning_rates": [0.1, 0.01],
            "weight_decays": [5e-4],
            "training": training | changes.pop("training", {}),
            "batchnorm": "drift",
            "normalisation": IDENTITY,
            "preprocessing": {"resize_ratio": 1.0},
            **changes,
        }
    )


def backbone_network(seed=2):
    """A network whose BatchNorm statistics are those of other images."""
    network = build("resnet8_w4", 5, seed=seed)
    with torch.no_grad():
        for _ in range(5):
            network(torch.rand(32, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(seed)))
    return network.eval()


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("linear_heads")


@pytest.fixture(scope="module")
def backbone(root):
    return stored_backbone(root, backbone_network())


def run(backbone, dataset, settings):
    root = dataset.path.parents[2]
    entry = new_entry(root, "linear_heads", settings.model_dump(mode="json"), backbone=backbone, dataset=dataset)
    linear_heads.run(entry, threads=1, device="cpu")
    return open_entry(entry.path)


def rows(entry):
    return json.loads((entry.path / "metrics.json").read_text())


def trained(tried, settings, steps):
    """Weights [H, K, D] and biases of heads trained together for so many steps, and the body's statistics."""
    recipe = Recipe(
        epochs=steps // 5, batch_size=8, step_epochs=steps // 10, augmentation="crop-flip", precision="bf16"
    )
    network = backbone_network()
    optimiser = linear_heads.put_on(network, CLASSES, tried, settings)
    largest = max(rate for rate, _ in tried)
    loader = loader_of(*squares(40), recipe)
    fit(network, loader, recipe, input_size=SIDE, seed=0, learning_rate=largest, optimiser=optimiser)
    return network.head.weight.detach(), network.head.bias.detach(), network.body.state_dict()


class TestParallel:
    @pytest.mark.parametrize("batchnorm", ["drift", "frozen"])
    def test_every_head_is_within_1e_5_of_its_run_alone_after_200_steps(self, batchnorm):
        tried = [(0.3, 0.0), (0.1, 5e-4), (0.01, 0.1), (0.001, 5e-4)]
        seeds = (0, 7)
        settings = described(batchnorm=batchnorm, learning_rates=[0.3, 0.1, 0.01, 0.001], head_seeds=seeds)
        weights, biases, statistics = trained(tried, settings, 200)
        assert len(weights) == 8
        for of, ((rate, decay), seed) in enumerate(itertools.product(tried, seeds)):
            if of % 3:
                continue  # of the eight, these have two seeds and three rates
            alone = described(batchnorm=batchnorm, learning_rates=[rate], weight_decays=[decay], head_seeds=[seed])
            weight, bias, its_statistics = trained([(rate, decay)], alone, 200)
            for together, single in ((weights[of], weight[0]), (biases[of], bias[0])):
                assert torch.linalg.norm(together - single) <= 1e-5 * torch.linalg.norm(single)
            assert all(torch.equal(statistics[name], value) for name, value in its_statistics.items())

    def test_heads_of_other_seeds_and_rates_end_elsewhere(self):
        settings = described(learning_rates=[0.1, 0.01], head_seeds=[0, 1])
        weights, *_ = trained([(0.1, 0.0), (0.01, 0.0)], settings, 20)
        assert all((weights[i] - weights[j]).norm() > 1e-2 * weights[i].norm() for i in range(4) for j in range(i))

    def test_they_are_what_plain_sgd_of_torch_makes_of_a_frozen_network(self):
        """The released code: body without gradients in train mode, torch's SGD on the head."""
        settings = described(learning_rates=[0.05], weight_decays=[5e-4])
        recipe = Recipe(epochs=4, batch_size=8, step_epochs=2, augmentation="crop-flip", precision="fp32")
        network = backbone_network()
        optimiser = linear_heads.put_on(network, CLASSES, [(0.05, 5e-4)], settings)
        start = network.head.weight[0].detach().clone(), network.head.bias[0].detach().clone()
        loader = loader_of(*squares(40), recipe)
        fit(network, loader, recipe, input_size=SIDE, seed=0, learning_rate=0.05, optimiser=optimiser)

        theirs = backbone_network().train()
        theirs.head = torch.nn.Linear(16, CLASSES)
        with torch.no_grad():
            theirs.head.weight.copy_(start[0])
            theirs.head.bias.copy_(start[1])
        for parameter in theirs.body.parameters():
            parameter.requires_grad = False
        sgd = torch.optim.SGD(theirs.head.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
        schedule = torch.optim.lr_scheduler.StepLR(sgd, 2)
        again = loader_of(*squares(40), recipe)
        for epoch in range(4):
            groups = list(torch.split(randomness.order(0, epoch, 40), 8))
            for images, numbers in zip(again.batches(epoch, groups, SIDE), groups, strict=True):
                sgd.zero_grad()
                torch.nn.functional.cross_entropy(theirs(images), again.labels[numbers]).backward()
                sgd.step()
            schedule.step()
        torch.testing.assert_close(network.head.weight[0], theirs.head.weight, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(network.head.bias[0], theirs.head.bias, rtol=1e-4, atol=1e-6)
        ours, drifted = network.body.state_dict(), theirs.body.state_dict()
        assert all(torch.allclose(ours[name].float(), value.float(), rtol=1e-4) for name, value in drifted.items())

    def test_a_head_that_diverges_leaves_the_others_alone(self):
        tried = [(1e30, 5e-4), (0.05, 5e-4)]
        weights, *_ = trained(tried, described(learning_rates=[1e30, 0.05]), 20)
        alone, *_ = trained(tried[1:], described(learning_rates=[0.05]), 20)
        assert not weights[0].isfinite().all()
        torch.testing.assert_close(weights[1], alone[0], rtol=1e-5, atol=1e-7)


class TestStatistics:
    @pytest.mark.parametrize(("batchnorm", "moved"), [("drift", True), ("frozen", False)])
    def test_they_drift_or_stay_and_weights_never_move(self, batchnorm, moved):
        *_, after = trained([(0.1, 5e-4)], described(batchnorm=batchnorm, learning_rates=[0.1]), 20)
        before = backbone_network().body.state_dict()
        after = {name.removeprefix("body."): value for name, value in after.items()}
        for name, value in before.items():
            same = torch.equal(value, after[name])
            assert same != moved if "running" in name else same or "num_batches" in name


class TestStage:
    def test_measures_every_rate_and_decay(self, backbone, dataset):
        entry = run(backbone, dataset, described(weight_decays=[0.0, 5e-4], head_seeds=[0, 1, 2]))
        found = rows(entry)
        assert [(row["run"], row["metric"]) for row in found] == [
            (run, metric) for run in range(4) for metric in ("top1", "mean_per_class")
        ]
        assert {row["selection"] for row in found} == {None}
        assert {row["split"] for row in found} == {"test"}
        assert found[2]["hyperparameters"] == {"learning_rate": 0.1, "weight_decay": 5e-4, "head_seeds": [0, 1, 2]}
        table = pq.read_table(entry.path / "predictions.parquet").to_pandas()
        assert len(table) == 4 * 3 * 45
        for number, of_run in table.groupby("run"):
            mean = 100 * (of_run["label"] == of_run["prediction"]).mean()
            assert found[2 * number]["value"] == pytest.approx(mean)
            assert found[2 * number]["n"] == 45
            low, high = exact_interval(mean, found[2 * number]["effective_n"])
            assert low < mean < high or mean == 100
        assert sorted(entry.card()["files"]) == ["epochs.csv", "metrics.json", "predictions.parquet"]

    def test_made_again_it_is_the_same_and_other_settings_are_not(self, backbone, dataset):
        first = run(backbone, dataset, described()).card()["files"]
        assert run(backbone, dataset, described()).card()["files"] == first
        for change in ({"batchnorm": "frozen"}, {"normalisation": None}, {"seed": 1}):
            assert run(backbone, dataset, described(**change)).card()["files"] != first

    def test_separable_images_are_classified_without_error(self, backbone, root):
        # BatchNorm's statistics must have drifted all the way before features in eval mode are those trained on
        settings = described(training={"epochs": 30, "step_epochs": 30})
        entry = run(backbone, separable(root), settings)
        assert rows(entry)[0]["value"] == 100

    def test_shuffled_labels_are_classified_by_chance(self, backbone, root):
        entry = run(backbone, shuffled(root), described())
        for row in rows(entry):
            low, high = exact_interval(row["value"], row["effective_n"])
            assert low < 100 / CLASSES < high

    def test_crops_of_stored_images_as_released_are_read_as_they_are_needed(self, backbone, dataset, monkeypatch):
        monkeypatch.setenv(VARIABLE, json.dumps({"workers": 0}))
        released = LinearHeads().training.model_copy(update={"epochs": 1})
        assert (released.batch_size, released.augmentation) == (64, "resized-crop-flip")
        entry = run(backbone, dataset, described(training=released.model_dump(exclude={"weight_decay"})))
        assert len(rows(entry)) == 4

    def test_a_head_that_diverged_is_named(self, backbone, dataset, caplog):
        entry = run(backbone, dataset, described(learning_rates=[1e30, 0.1]))
        [diverged] = entry.facts()["diverged"]
        assert (diverged["learning_rate"], diverged["weight_decay"]) == (1e30, 5e-4)
        assert 1 < diverged["step"] <= 4
        assert "diverged, and guess: runs at learning rate 1e+30, weight decay 0.0005, step" in caplog.text
        assert [flag["flag"] for flag in entry.facts()["flags"]] == ["candidate-diverged"]
        assert [one.is_diverged for one in runs_in(entry)] == [True, False]

    def test_of_several_seeds_one_is_enough(self, backbone, dataset):
        assert linear_heads._diverged([None, 7, 3, None, None, None], [(0.1, 0.0), (0.1, 0.1), (0.01, 0.0)]) == [
            {"learning_rate": 0.1, "weight_decay": 0.0, "step": 7},
            {"learning_rate": 0.1, "weight_decay": 0.1, "step": 3},
        ]

    @pytest.mark.parametrize("attack", [None, {"eps": "0.5", "steps": 1}])
    def test_where_all_heads_diverge_they_guess(self, backbone, dataset, attack):
        """Under attack a job has one head: a rate that is too large for it must not stop the others."""
        under = {"norm": "l2", "eps": ["0.5"], "steps": 1} if attack else None
        settings = described("search", learning_rates=[1e30], attack=attack, chosen_under=under, keep_weights=True)
        entry = run(backbone, dataset, settings)
        [one] = runs_in(entry)
        assert one.is_diverged
        assert one.accuracy("top1", ("0.5",) if attack else ()) == one.accuracy("top1")
        weights, _ = read_weights(entry.file(WEIGHTS))
        assert not weights["head.weight"].any()
        start = load_backbone(backbone).state_dict()
        assert all(torch.equal(weights[name], value) for name, value in start.items() if name.startswith("body."))

    def test_cards_that_name_learning_rates_alone_are_read(self, backbone, dataset):
        entry = new_entry(dataset.path.parents[2], "linear_heads", {"purpose": "search"})
        with entry.writing() as draft:
            numbers = [{"learning_rate": rate, "weight_decay": 0.0} for rate in (1e30, 0.1)]
            draft.write_json(
                "metrics.json", [{"hyperparameters": one, "run": number} for number, one in enumerate(numbers)]
            )
            draft.facts = {"diverged": [1e30]}
        assert [one.is_diverged for one in runs_in(open_entry(entry.path))] == [True, False]

    def test_few_images_in_total_are_too(self, dataset):
        few = described("final", training_images=25)
        trained_on, _ = parts(dataset, few)
        assert trained_on[0].indices.tolist() == np.flatnonzero(few_in_total_mask(np.arange(60) % 3, 25, 0)).tolist()
        searched, validated = parts(dataset, few.model_copy(update={"purpose": "search"}))
        assert sorted([*searched[0].indices, *validated.indices]) == trained_on[0].indices.tolist()

    def test_few_images_are_the_same_for_every_purpose(self, dataset):
        few = described("final", images_per_class=5)
        trained_on, measured_on = parts(dataset, few)
        labels = np.arange(60) % 3
        assert trained_on[0].indices.tolist() == np.flatnonzero(few_mask(labels, 5, 0)).tolist()
        assert measured_on.split.name == "test"
        searched, validated = parts(dataset, few.model_copy(update={"purpose": "search"}))
        assert len(validated) == 3
        assert sorted([*searched[0].indices, *validated.indices]) == trained_on[0].indices.tolist()

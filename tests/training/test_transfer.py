"""Training on a target: adversarial, from the probe's solution, in parts, and chosen under attack."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from robust_transfer.attacks import L2, Starts, pgd, threat_model
from robust_transfer.configuration.adversarial import TrainingAttack
from robust_transfer.configuration.training import Attack, Recipe
from robust_transfer.configuration.transfer import (
    FeaturesSettings,
    FinetuningSettings,
    LinearHeadsSettings,
    ProbingSettings,
)
from robust_transfer.datasets.resident import square_images
from robust_transfer.loading.augmentation import as_images
from robust_transfer.networks.build import Network, build
from robust_transfer.networks.folding import Folded
from robust_transfer.networks.freezing import freeze
from robust_transfer.stages import features, finetuning, linear_heads, probing
from robust_transfer.store.entry import Entry, open_entry
from robust_transfer.training import transfer
from robust_transfer.training.loop import Adversary, fit
from robust_transfer.training.probe_solution import fitted_probe
from robust_transfer.training.schedules import eps_share_at
from support.backbones import stored_backbone
from support.prepared_datasets import encoded_squares, new_entry, prepared, squares, write_parquet
from support.training import loader_of

SIDE, CLASSES = 16, 3
ATTACK = {"eps": "0.5", "steps": 2, "random_start": True}


def backbone_network(classes: int = 5) -> Network:
    """A network whose BatchNorm statistics are those of other images."""
    network = build("resnet8_w4", classes, seed=2)
    with torch.no_grad():
        for _ in range(5):
            network(torch.rand(32, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(2)))
    return network.eval()


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return tmp_path_factory.mktemp("transfer")


@pytest.fixture(scope="module")
def inputs(root: Path) -> dict[str, Entry]:
    for seed, (split, n) in enumerate({"train": 60, "test": 30}.items()):
        write_parquet(root / "data" / f"{split}.parquet", *encoded_squares(n, seed=seed))
    dataset = prepared(root, {"kind": "parquet", "path": str(root / "data")})
    return {"backbone": stored_backbone(root, backbone_network()), "dataset": dataset}


def settings(purpose: str = "search", **changes: Any) -> FinetuningSettings:
    training = {"epochs": 2, "batch_size": 16, "augmentation": "flip", "precision": "fp32"}
    return FinetuningSettings.model_validate(
        {
            "purpose": purpose,
            "learning_rates": changes.pop("learning_rates", [0.05]),
            "training": training | changes.pop("training", {}),
            "preprocessing": {"resize_ratio": 1.0},
            **changes,
        }
    )


def heads_settings(purpose: str = "search", **changes: Any) -> LinearHeadsSettings:
    given = settings(**{"training": changes.pop("training", {})}).model_dump(mode="json")
    return LinearHeadsSettings.model_validate(
        {
            "purpose": purpose,
            "learning_rates": [0.1],
            "weight_decays": [5e-4],
            "training": given["training"],
            "batchnorm": "frozen",
            "normalisation": None,
            "preprocessing": given["preprocessing"],
            **changes,
        }
    )


def finetuned(
    monkeypatch: pytest.MonkeyPatch, inputs: dict[str, Entry], how: FinetuningSettings
) -> tuple[Entry, dict[str, torch.Tensor]]:
    """A finished entry, and what its network ended with."""
    ended: dict[str, torch.Tensor] = {}

    def predicted(network: Network, *args: Any, **options: Any) -> NDArray[np.int64]:
        ended.update({name: value.clone() for name, value in network.state_dict().items()})
        return transfer.predicted(network, *args, **options)

    monkeypatch.setattr(finetuning, "predicted", predicted)
    root = inputs["dataset"].path.parents[2]
    entry = new_entry(root, "finetuning", how.model_dump(mode="json"), **inputs)
    finetuning.run(entry, threads=1, device="cpu")
    return open_entry(entry.path), ended


def rows(entry: Entry) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((entry.path / "metrics.json").read_text())
    return found


class TestAdversary:
    @pytest.mark.parametrize("norm", ["l2", "linf"])
    def test_an_adversarial_head_is_what_pretraining_makes_of_a_frozen_network(self, norm: str) -> None:
        """The head of linear_heads against the loop of pretraining, which freezes all but the head."""
        attack = TrainingAttack.model_validate({"norm": norm, "eps": "0.5" if norm == "l2" else "4/255", "steps": 2})
        how = heads_settings(attack=attack, training={"epochs": 4})
        recipe = Recipe(
            epochs=4, batch_size=16, augmentation="flip", precision="fp32", learning_rate=0.1, weight_decay=5e-4
        )
        ours = backbone_network()
        optimiser = linear_heads.put_on(ours, CLASSES, [(0.1, 5e-4)], how)
        theirs = backbone_network()
        theirs.replace_head(CLASSES)
        with torch.no_grad():
            theirs.head.weight.copy_(ours.head.weight[0])
            theirs.head.bias.copy_(ours.head.bias[0])
        start = theirs.head.weight.detach().clone()
        freeze(theirs, "head", "train")
        adversary = transfer.adversary(ours, how, SIDE)
        fit(ours, loader_of(*squares(48), recipe), how.training, input_size=SIDE, seed=0, learning_rate=0.1,
            optimiser=optimiser, perturb=adversary)  # fmt: skip
        threat = threat_model(attack.norm, attack.eps)
        reference = Adversary(theirs, threat, Attack(steps=2), 0, SIDE)
        fit(theirs, loader_of(*squares(48), recipe), recipe, input_size=SIDE, seed=0, perturb=reference)
        torch.testing.assert_close(ours.head.weight[0], theirs.head.weight, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(ours.head.bias[0], theirs.head.bias, rtol=1e-5, atol=1e-6)
        assert (theirs.head.weight - start).norm() > 0.1 * start.norm()

    def test_an_attack_on_heads_that_share_images_is_refused(self) -> None:
        with pytest.raises(ValueError, match="2 heads would share images that are perturbed against one of them"):
            heads_settings(attack=ATTACK, learning_rates=[0.1, 0.01])

    def test_adversarial_training_ends_elsewhere_than_standard_training(
        self, inputs: dict[str, Entry], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        _, standard = finetuned(monkeypatch, inputs, settings())
        _, adversarial = finetuned(monkeypatch, inputs, settings(attack=ATTACK))
        assert not torch.equal(standard["head.weight"], adversarial["head.weight"])

    def test_eps_is_0_then_grows_in_a_line_and_then_stays(self) -> None:
        shares = [eps_share_at(step / 8, 0.25, 0.75) for step in range(8)]
        assert shares == [0, 0, 0, 0.25, 0.5, 0.75, 1, 1]
        assert {eps_share_at(step / 8, 0, 0) for step in range(8)} == {1}
        assert [eps_share_at(step / 4, 0.5, 0.5) for step in range(4)] == [0, 0, 1, 1]

    def test_each_step_is_perturbed_by_its_share_of_eps(self) -> None:
        """Of two epochs of three steps, the first has none and the last two the whole."""
        network = build("resnet8_w4", CLASSES)
        adversary = Adversary(network, L2(0.6), Attack(steps=2), 0, SIDE, ramp=(0.1, 0.6))
        norms = []

        class Watched(Adversary):
            def __call__(self, images: torch.Tensor, *rest: Any) -> torch.Tensor:
                perturbed = super().__call__(images, *rest)
                norms.append(float((perturbed - images).flatten(1).norm(dim=1).max()))
                return perturbed

        adversary.__class__ = Watched
        recipe = Recipe(epochs=2, batch_size=16, learning_rate=1e-3, augmentation="none", precision="fp32")
        fit(network, loader_of(*squares(48), recipe), recipe, input_size=SIDE, seed=0, perturb=adversary)
        expected = [0.6 * share for share in (0, (1 / 6 - 0.1) / 0.5, (2 / 6 - 0.1) / 0.5, 0.8, 1, 1)]
        assert norms == pytest.approx(expected, rel=0.02, abs=1e-6)


class TestWhatIsTrained:
    def test_head_alone_leaves_every_other_tensor_untouched(
        self, inputs: dict[str, Entry], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """To the bit, statistics included, and under an attack too, in groups and with decay."""
        before = backbone_network().state_dict()
        changes: list[dict[str, Any]] = [
            {},
            {"attack": ATTACK},
            {"training": {"batchnorm_group": 8, "optimiser": "adamw"}},
        ]
        for change in changes:
            _, after = finetuned(monkeypatch, inputs, settings(trainable="head", **change))
            others = [name for name in before if not name.startswith("head.")]
            assert all(torch.equal(after[name], before[name]) for name in others)
            assert after["head.weight"].shape == (CLASSES, 16)

    @pytest.mark.parametrize("training", [{}, {"batchnorm_group": 8}])
    def test_frozen_batchnorm_leaves_running_statistics(
        self, inputs: dict[str, Entry], monkeypatch: pytest.MonkeyPatch, training: dict[str, Any]
    ) -> None:
        before = backbone_network().state_dict()
        _, after = finetuned(monkeypatch, inputs, settings(batchnorm="frozen", training=training))
        statistics = [name for name in before if "running" in name or "num_batches" in name]
        assert len(statistics) == 27
        assert all(torch.equal(after[name], before[name]) for name in statistics)
        weights = [name for name in before if name.startswith("body.") and name not in statistics]
        assert not any(torch.equal(after[name], before[name]) for name in weights)

    def test_last_blocks_leave_those_before_them(
        self, inputs: dict[str, Entry], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        before = backbone_network().state_dict()
        _, after = finetuned(monkeypatch, inputs, settings(trainable={"last_blocks": 1}))
        moved = {name for name in before if not name.startswith("head") and not torch.equal(after[name], before[name])}
        assert moved == {name for name in before if name.startswith("body.blocks.2.")}

    def test_adamw_trains(self, inputs: dict[str, Entry], monkeypatch: pytest.MonkeyPatch) -> None:
        training = {"optimiser": "adamw", "schedule": "cosine", "epochs": 8}
        entry, _ = finetuned(monkeypatch, inputs, settings(learning_rates=[0.01], training=training))
        assert rows(entry)[0]["value"] > 80


@pytest.fixture(scope="module")
def probed(inputs: dict[str, Entry]) -> dict[str, Entry]:
    """The inputs of a run that starts at the probe."""
    root = inputs["dataset"].path.parents[2]
    described = FeaturesSettings.model_validate({"dtype": "float32", "preprocessing": {"resize_ratio": 1.0}})
    stored = new_entry(root, "features", described.model_dump(mode="json"), **inputs)
    features.run(stored, threads=1, device="cpu")
    stored = open_entry(stored.path)
    probe = new_entry(root, "probing", ProbingSettings().model_dump(mode="json"), features=stored)
    probing.run(probe, threads=1, device="cpu")
    return {**inputs, "features": stored, "probe": open_entry(probe.path)}


class TestHead:
    @pytest.mark.parametrize("purpose", ["search", "final"])
    def test_starts_at_the_loss_of_the_probe(
        self, probed: dict[str, Entry], monkeypatch: pytest.MonkeyPatch, purpose: str
    ) -> None:
        """Mean cross-entropy of the network, in eval mode, on the images that the run trains on."""
        how, started = settings(purpose, head="probe"), list[float]()

        def train(entry: Entry, network: Network, trained_on: Any, *_: Any, **__: Any) -> None:
            subset = trained_on[0]
            pixels = square_images(subset.split, SIDE, 1.0, indices=subset.indices)
            with torch.no_grad():
                logits = network.eval()(as_images(torch.from_numpy(pixels)))
            started.append(float(F.cross_entropy(logits, torch.from_numpy(subset.labels))))
            raise KeyboardInterrupt

        monkeypatch.setattr(finetuning, "train", train)
        root = probed["dataset"].path.parents[2]
        entry = new_entry(root, "finetuning", how.model_dump(mode="json"), **probed)
        with pytest.raises(KeyboardInterrupt):
            finetuning.run(entry, threads=1, device="cpu")
        fit = fitted_probe(entry, how)
        penalty = fit.strength / 2 * float((fit.weights**2).sum())
        assert started == [pytest.approx(fit.objective - penalty, rel=1e-4)]
        assert started[0] < 0.9 * np.log(CLASSES)

    def test_of_a_search_has_not_seen_validation_images(self, probed: dict[str, Entry]) -> None:
        fits = [fitted_probe(self.entry(probed, purpose), settings(purpose)) for purpose in ("search", "final")]
        assert not np.array_equal(fits[0].weights, fits[1].weights)

    def entry(self, probed: dict[str, Entry], purpose: str) -> Entry:
        described = settings(purpose, head="probe").model_dump(mode="json")
        return new_entry(probed["dataset"].path.parents[2], "finetuning", described, **probed)

    def test_alone_and_frozen_it_is_the_probe_where_nothing_is_learned(
        self, probed: dict[str, Entry], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        how = settings(head="probe", trainable="head", learning_rates=[1e-9], training={"epochs": 1})
        _, ended = finetuned(monkeypatch, probed, how)
        fit = fitted_probe(self.entry(probed, "search"), how)
        expected = torch.from_numpy(fit.weights / fit.scaling.deviation)
        torch.testing.assert_close(ended["head.weight"], expected, rtol=1e-4, atol=1e-5)


UNDER = {"norm": "l2", "eps": ["0", "0.6", "2"], "steps": 3}


class TestChoosing:
    def test_a_search_measures_validation_images_under_attack_too(
        self, inputs: dict[str, Entry], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        entry, _ = finetuned(
            monkeypatch,
            inputs,
            settings(chosen_under=UNDER, learning_rates=[0.1], training={"epochs": 8, "schedule": "one-cycle"}),
        )
        found = [(row["attack"] and row["attack"]["eps"], row["metric"], row["split"]) for row in rows(entry)]
        assert found == [
            (eps, metric, "validation") for eps in (None, "0.6", "2") for metric in ("top1", "mean_per_class")
        ]
        values = [row["value"] for row in rows(entry)[::2]]
        assert values == sorted(values, reverse=True)
        assert values[0] > values[-1]
        assert rows(entry)[2]["attack"]["random_start"] is True

    def test_other_runs_do_not(self, inputs: dict[str, Entry], monkeypatch: pytest.MonkeyPatch) -> None:
        for purpose in ("final", "fixed"):
            entry, _ = finetuned(monkeypatch, inputs, settings(purpose, chosen_under=UNDER))
            assert {row["attack"] for row in rows(entry)} == {None}

    def test_heads_that_share_a_pass_are_each_attacked_alone(self, inputs: dict[str, Entry]) -> None:
        how = heads_settings(chosen_under=UNDER, learning_rates=[0.3, 0.001], head_seeds=[0, 1], training={"epochs": 3})
        caught: list[Network] = []
        entry = self.run_heads(inputs, how, lambda network: caught.append(copy.deepcopy(network)))
        found = rows(entry)
        assert [(row["run"], (row["attack"] or {}).get("eps")) for row in found[::2]] == [
            (0, None), (1, None), (0, "0.6"), (0, "2"), (1, "0.6"), (1, "2"),
        ]  # fmt: skip
        network, part = caught[0], transfer.parts(inputs["dataset"], how)[1]
        images = as_images(torch.from_numpy(square_images(part.split, SIDE, 1.0, indices=part.indices)))
        labels, under = torch.from_numpy(part.labels), how.chosen_under
        assert under is not None
        heads, right = network.head, []
        for number in range(2):  # the head seeds of the first run
            network.head = torch.nn.Linear(16, CLASSES)
            with torch.no_grad():
                network.head.weight.copy_(heads.weight[number])
                network.head.bias.copy_(heads.bias[number])
                clean = network(images).argmax(1) == labels
            starts = Starts(0, 0, torch.from_numpy(part.indices))
            attacked = pgd(Folded(network), images, labels, L2(0.6), under, starts)
            with torch.no_grad():
                right.append(((network(attacked).argmax(1) == labels) & clean).float().mean())
        by_hand = 100 * float(torch.stack(right).mean())
        assert found[4]["value"] == pytest.approx(by_hand)
        assert 0 < by_hand < 100

    def run_heads(self, inputs: dict[str, Entry], how: LinearHeadsSettings, catch: Callable[[Network], None]) -> Entry:
        with pytest.MonkeyPatch.context() as patch:

            def predicted(network: Network, *args: Any, **options: Any) -> NDArray[np.int64]:
                found = transfer.predicted(network, *args, **options)
                catch(network)
                return found

            patch.setattr(linear_heads, "predicted", predicted)
            root = inputs["dataset"].path.parents[2]
            entry = new_entry(root, "linear_heads", how.model_dump(mode="json"), **inputs)
            linear_heads.run(entry, threads=1, device="cpu")
        return open_entry(entry.path)

    @pytest.mark.parametrize(
        ("eps", "expected"), [((), 0.1), (("0.5",), 0.2), (("0", "0.5"), 0.3)], ids=["clean", "attacked", "expected"]
    )
    def test_a_refit_takes_the_rate_that_is_best_under_its_attack(
        self, root: Path, eps: tuple[str, ...], expected: float
    ) -> None:
        """One rate is best on clean images, one at eps 0.5, and one in the mean of both."""
        made = {}
        for i, (rate, clean, attacked) in enumerate(((0.1, 80.0, 10.0), (0.2, 20.0, 50.0), (0.3, 70.0, 45.0))):
            search = new_entry(root, "finetuning", settings(learning_rates=[rate]).model_dump(mode="json"))
            with search.writing() as draft:
                shared = {"metric": "top1", "hyperparameters": {"learning_rate": rate}}
                values = [
                    shared | {"value": clean, "attack": None},
                    shared | {"value": attacked, "attack": {"eps": "0.5"}},
                ]
                draft.write_json("metrics.json", values)
            made[f"search{i}"] = search
        under = {"chosen_under": {"eps": eps}} if eps else {}
        how = settings("refit", learning_rates=[0.1, 0.2, 0.3], **under)
        entry = new_entry(root, "finetuning", how.model_dump(mode="json"), **made)
        assert finetuning.choose(entry, how).hyperparameters == {"learning_rate": expected}

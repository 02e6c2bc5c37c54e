"""Rows of transferred models under attack: what is compared with what, and that nothing takes them for clean ones."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from figures.test_figures import drawn
from robust_transfer.claims.ledger import Verdict, ledger
from robust_transfer.claims.lookup import Measured
from robust_transfer.configuration.claims import Claim, Family, read_claims
from robust_transfer.page.rows import explorer, headline_charts, sources
from robust_transfer.registry import FIGURES
from robust_transfer.stages.report import summary
from robust_transfer.store.attacked import read_attacked
from robust_transfer.store.entry import StoreError, open_entry
from robust_transfer.tables.compare import compare
from robust_transfer.tables.compare_experiments import compare_experiments
from robust_transfer.tables.errors import TableError
from robust_transfer.tables.measured import measured
from robust_transfer.tables.results import read_results
from support.fake_entries import Fake
from support.tables import Row, rows

IMAGES = 50
ARCH = "resnet8_w16"
CLEAN_VALIDATION = {"0": 60, "0.25": 70, "0.5": 80}
"""By eps of pretraining: the best robust network on clean validation images is that of 0.5."""
WITHSTOOD = {"0": range(5), "0.25": range(40), "0.5": range(20)}
"""Which images are right under attack: the network of 0.25 withstands more than the one that is chosen."""


def marked(images: Any) -> np.ndarray:
    right = np.zeros(200, dtype=bool)
    right[list(images)] = True
    return right


def collected(root: Path, *, attacked: bool, seeds: tuple[int, ...] = (0,), mode: str = "probing") -> Path:
    """An experiment of three networks on two targets, whose models are attacked or not."""
    root.mkdir()
    fake = Fake(root, architectures=(ARCH,))
    for eps, validation in CLEAN_VALIDATION.items():
        for seed in seeds:
            fake.source(90 - 20 * float(eps), eps=eps, backbone_seed=seed, arch=ARCH)
            for target in ("coarse", "fine"):
                of = {"target": target, "eps": eps, "arch": ARCH, "backbone_seed": seed}
                entry = fake.transfer(validation, validation, mode, **of)
                if attacked:
                    fake.attacked(entry, {"0": 0, "0.1": marked(WITHSTOOD[eps]), "1": marked(range(2))})
    return fake.collect()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("attacked")


@pytest.fixture(scope="module")
def clean(folder: Path) -> Path:
    return collected(folder / "clean", attacked=False)


@pytest.fixture(scope="module")
def attacked(folder: Path) -> Path:
    return collected(folder / "attacked", attacked=True)


def under(path: Path, radius: str, /, **where: Any) -> list[Row]:
    """Rows on the target `coarse` under the attack of this radius."""
    found = rows(read_results(path), target="coarse", **where)
    return [row for row in found if row.attack and row.mode != "source" and json.loads(row.attack)["eps"] == radius]


def test_every_network_has_its_accuracy_under_every_attack(attacked: Path) -> None:
    for radius, right in (("0.1", WITHSTOOD), ("1", dict.fromkeys(WITHSTOOD, range(2)))):
        found = under(attacked, radius, metric="top1", arch=ARCH, split="test", backbone_seed=0)
        assert {row.eps: row.value for row in found} == {eps: 2.0 * len(of) for eps, of in right.items()}
        assert {row.n for row in found} == {IMAGES}
        assert all(row.entry.startswith("robustness/") for row in found)


def test_the_network_is_chosen_by_clean_accuracy_and_tested_under_attack(attacked: Path) -> None:
    [best] = under(attacked, "0.1", metric="top1", arch=ARCH, eps="best-robust")
    assert (best.chosen["eps"], best.value) == ("0.5", 40.0)
    [difference] = under(attacked, "0.1", metric="top1_difference", arch="best", eps="best-robust")
    assert difference.value == 40.0 - 10.0


def test_each_robust_network_is_compared_with_the_standard_one_on_the_same_images(attacked: Path) -> None:
    for eps in ("0.25", "0.5"):
        [difference] = under(attacked, "0.1", metric="top1_difference", arch=ARCH, eps=eps)
        assert difference.value == 2.0 * (len(WITHSTOOD[eps]) - len(WITHSTOOD["0"]))
        assert (difference.n, difference.ci_kind, difference.norm) == (IMAGES, "images", "l2")
        assert difference.ci_low < difference.value < difference.ci_high
    [same] = under(attacked, "1", metric="top1_difference", arch=ARCH, eps="0.25")
    assert (same.value, same.ci_low <= 0 <= same.ci_high) == (0.0, True)


def test_pairing_makes_the_interval_narrower(attacked: Path) -> None:
    """Images that the standard network gets right the robust one does too: accuracies alone do not say so."""
    [paired] = under(attacked, "0.1", metric="top1_difference", arch=ARCH, eps="0.5")
    [one, other] = (under(attacked, "0.1", metric="top1", arch=ARCH, eps=eps)[0] for eps in ("0.5", "0"))
    alone = np.hypot(one.ci_high - one.ci_low, other.ci_high - other.ci_low)
    assert paired.ci_high - paired.ci_low < alone


def test_several_seeds_give_means_and_intervals_over_seeds(folder: Path) -> None:
    path = collected(folder / "seeds", attacked=True, seeds=(0, 1, 2))
    [mean] = under(path, "0.1", metric="top1", arch=ARCH, eps="0.25", backbone_seed=None)
    assert (mean.value, mean.ci_kind, mean.n) == (80.0, "seeds", 3)
    [difference] = under(path, "0.1", metric="top1_difference", arch=ARCH, eps="0.25")
    assert (difference.value, difference.ci_kind, difference.n) == (70.0, "seeds", 3)


def test_a_choice_on_test_images_has_no_best_robust_under_attack(folder: Path) -> None:
    (folder / "test").mkdir()
    fake = Fake(folder / "test", architectures=(ARCH,), selection="test")
    for eps in CLEAN_VALIDATION:
        key = fake.key("probing", target="coarse", eps=eps, arch=ARCH)
        entry = fake.transfer(80, [], "probing", target="coarse", eps=eps, arch=ARCH)
        fake.attacked(entry, {"0.1": marked(WITHSTOOD[eps])})
        for name in (entry, f"robustness/{entry.replace('/', '_')}_l2"):
            place = folder / "test" / "store" / name
            numbers = json.loads((place / "metrics.json").read_text())
            (place / "metrics.json").write_text(json.dumps([{**one, "selection": "test"} for one in numbers]))
            fake.seal(place)
        assert key["entry"] == entry
    path = fake.collect()
    assert not under(path, "0.1", eps="best-robust")
    assert {row.eps for row in under(path, "0.1", metric="top1_difference")} == {"0.25", "0.5"}
    assert {row.selection for row in under(path, "0.1")} == {"test"}


def test_the_flags_of_a_transfer_are_those_of_its_model(folder: Path) -> None:
    (folder / "flagged").mkdir()
    fake = Fake(folder / "flagged", architectures=(ARCH,))
    entry = fake.transfer(25, 25, target="coarse", arch=ARCH)  # of four classes
    fake.attacked(entry, {"0.1": 10})
    path = fake.collect()
    assert {row.flags for row in under(path, "0.1", backbone_seed=0)} == {"features-at-chance"}
    flags = (folder / "flagged" / "flags.csv").read_text()
    assert "robustness/" not in flags, "an attacked accuracy is no clean one, and no sign that nothing was learned"


def test_numbers_that_contradict_the_images_are_an_error(folder: Path) -> None:
    (folder / "wrong").mkdir()
    fake = Fake(folder / "wrong", architectures=(ARCH,))
    entry = fake.attacked(fake.transfer(80, 80, target="coarse", arch=ARCH), {"0.1": 10})
    place = folder / "wrong" / "store" / entry
    numbers = json.loads((place / "metrics.json").read_text())
    (place / "metrics.json").write_text(json.dumps([{**one, "value": 99.0} for one in numbers]))
    fake.seal(place)
    with pytest.raises(TableError, match=r"metrics.json says test top1 = 99.00, attacked.parquet says"):
        fake.collect()


class TestNothingTakesThemForCleanOnes:
    """An experiment says the same of clean images whether its models were attacked or not."""

    def test_rows(self, clean: Path, attacked: Path) -> None:
        ours = read_results(attacked)
        kept = ours[ours["attack"].isna() | (ours["mode"] == "source")].reset_index(drop=True)
        assert len(kept) < len(ours)
        pd.testing.assert_frame_equal(kept, read_results(clean))

    def test_other_tables(self, clean: Path, attacked: Path) -> None:
        assert (clean.parent / "flags.csv").read_text() == (attacked.parent / "flags.csv").read_text()
        assert (clean.parent / "training.parquet").read_bytes() == (attacked.parent / "training.parquet").read_bytes()

    @pytest.mark.parametrize(
        "name", [name for name, figure in FIGURES.items() if figure.table == "results" and name != "robust_transfer"]
    )
    def test_figures_and_tables(self, clean: Path, attacked: Path, name: str) -> None:
        assert drawn(name, read_results(attacked)).numbers == drawn(name, read_results(clean)).numbers

    def test_summary(self, clean: Path, attacked: Path) -> None:
        ours, theirs = (summary(path).replace(str(path.parent), "") for path in (attacked, clean))
        assert ours == theirs

    def test_claims(self, clean: Path, attacked: Path) -> None:
        ours, theirs = (ledger(Measured(read_results(path)), read_claims()) for path in (attacked, clean))
        about_attacks = ("robustness-transfers-fixed", "robustness-transfers-full")
        assert [one for one in ours if one.name not in about_attacks] == [
            one for one in theirs if one.name not in about_attacks
        ]

    def test_page(self, clean: Path, attacked: Path) -> None:
        ours, theirs = read_results(attacked), read_results(clean)
        assert explorer(ours) == explorer(theirs)
        assert headline_charts(ours) == headline_charts(theirs)
        assert sources(ours) == sources(theirs)

    def test_measured(self, clean: Path, attacked: Path) -> None:
        ours, theirs = measured(read_results(attacked)), measured(read_results(clean))
        pd.testing.assert_frame_equal(ours.reset_index(drop=True), theirs.reset_index(drop=True))

    def test_compared_experiments(self, clean: Path, attacked: Path) -> None:
        found = compare_experiments(attacked, clean)
        assert found.only_first == found.only_second == 0
        assert {number.difference for number in found.numbers} == {0.0}
        assert {number.key[-2] for number in found.numbers} == {""}

    def test_compared_entries(self, attacked: Path) -> None:
        store = attacked.parent / "store" / "robustness"
        first, second = sorted(store.iterdir())[:2]
        with pytest.raises(
            StoreError, match=r"predictions.parquet: not in .*card.json, which lists .*attacked.parquet"
        ):
            compare(first, second)


def test_what_withstood_is_read_image_by_image(attacked: Path) -> None:
    entry = next(iter((attacked.parent / "store" / "robustness").glob("*0.25*")))
    model = json.loads((entry / "metrics.json").read_text())[0]["model"]
    found = read_attacked(open_entry(entry), model)
    assert [json.loads(attack)["eps"] for attack in found] == ["0", "0.1", "1"]
    assert np.flatnonzero(found['{"eps":"0.1","norm":"l2","steps":20}'].correct).tolist() == [*range(40)]
    assert read_attacked(open_entry(entry), "probing/another") == {}


def verdict(path: Path, **where: Any) -> Verdict:
    rule = {"kind": "difference", "better": "robust", "than": "standard"}
    said = {"statement": "It is so.", "where": {"attacked": True, "architectures": "all", **where}, "rule": rule}
    claims = {"robustness": Claim.model_validate(said)}
    [found] = ledger(Measured(read_results(path)), [Family("test", claims)])
    return found


def test_a_claim_about_attacked_targets_is_of_the_smallest_radius(attacked: Path, clean: Path) -> None:
    """There networks differ most; and it is the paired difference of the network chosen by clean accuracy."""
    found = verdict(attacked, mode="fixed-feature")
    assert found.deciding
    assert (found.deciding.effect, found.deciding.paired) == (30.0, True)
    assert verdict(clean, mode="fixed-feature").missing == ["fixed-feature transfer under attack"]


def test_a_claim_about_a_setting_is_of_what_was_trained_on_the_target(folder: Path) -> None:
    """Of three networks, robust ones withstand more where training is standard, and no more where it is adversarial."""
    root = folder / "settings"
    root.mkdir()
    fake = Fake(root, targets=("coarse",), architectures=(ARCH,))
    adversarial = {"attack": "l2 0.25, 2 steps", "normalisation": "source", "setting": "adversarial-full"}
    for eps, withstood in WITHSTOOD.items():
        for variant, right in (({"normalisation": "source"}, withstood), (adversarial, range(30))):
            of = {"target": "coarse", "eps": eps, "arch": ARCH, "variant": variant}
            fake.attacked(fake.transfer(80, 80, "finetuning", **of), {"0": 40, "0.1": marked(right)})
    path, of_mode = fake.collect(), {"mode": "full-network"}
    standard, robust = (verdict(path, setting=f"{one}-full", **of_mode) for one in ("standard", "adversarial"))
    assert standard.deciding
    assert standard.deciding.effect > 0
    assert standard.deciding == verdict(path, **of_mode).deciding
    assert robust.deciding
    assert robust.deciding.effect == 0.0
    assert "paper protocol, adversarial-full, attack: l2 0.25, 2 steps" in robust.protocol
    heads = verdict(path, mode="fixed-feature", setting="adversarial-head")
    assert heads.missing == ["fixed-feature transfer of setting adversarial-head under attack"]


def test_a_probe_is_no_standard_head(attacked: Path) -> None:
    found = verdict(attacked, mode="fixed-feature", setting="standard-head")
    assert found.missing == ["fixed-feature transfer of setting standard-head under attack"]

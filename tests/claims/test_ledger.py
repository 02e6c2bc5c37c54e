"""Verdicts: what the paper's means say, what holds, what fails, what is left open, and what is missing."""

import csv
import json
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from robust_transfer import cli
from robust_transfer.claims.ledger import ON_TEST, THESE_WEIGHTS, Verdict, answer, ledger
from robust_transfer.claims.lookup import Measured
from robust_transfer.claims.published import published_table
from robust_transfer.claims.writing import COLUMNS, SUFFIXES
from robust_transfer.configuration.claims import Claim, Family, read_claims
from robust_transfer.figures.cells import Cells
from robust_transfer.figures.protocols import FIXED_FEATURE
from robust_transfer.tables.experiment_info import ExperimentInfo
from robust_transfer.tables.key import BEST_ARCH
from robust_transfer.tables.results import as_results, read_results
from support.documents import rows as table_rows
from support.fake_entries import Fake
from support.paths import ROOT

Settings = dict[str, Any]
ROBUST = {"kind": "difference", "better": "robust", "than": "standard"}
STANDARD = {"kind": "difference", "better": "standard", "than": "robust"}
FIXED = {"mode": "fixed-feature"}


def claim(rule: Settings, where: Settings | None = None, **of: Any) -> Claim:
    return Claim.model_validate({"statement": "It is so.", "where": where or FIXED, "rule": rule, **of})


def verdicts(results: pd.DataFrame, *claims: Claim) -> list[Verdict]:
    return ledger(Measured(results), [Family("test", {f"claim{i}": one for i, one in enumerate(claims)})])


def effect(verdict: Verdict) -> float:
    """Of the comparison that decides."""
    assert verdict.deciding
    return verdict.deciding.effect


def of(results: pd.DataFrame, rule: Settings, where: Settings | None = None, **more: Any) -> Verdict:
    (verdict,) = verdicts(results, claim(rule, where, **more))
    return verdict


@cache
def published() -> dict[str, Verdict]:
    return {one.name: one for one in ledger(Measured(published_table()), read_claims())}


# Claim by claim, what the paper's numbers say: comparisons that agree, of all, and the effect that decides.
PAPER = {
    "fixed-robust-ahead": (10, 12, 0.56),
    "fixed-robust-ahead-by-architecture": (36, 48, 0.82),
    "fixed-cifar-far-ahead": (2, 2, 14.22),
    "fixed-elsewhere-modestly": (8, 8, 0.02),
    "fixed-standard-ahead": (2, 2, 0.18),
    "full-robust-ahead": (10, 12, 0.35),
    "full-standard-ahead": (2, 2, 0.04),
    "full-robust-ahead-by-architecture": (29, 48, 0.14),
    "full-narrowest-behind": (8, 12, 0.14),
    "full-others-cifar": (12, 12, 0.11),
    "full-others-elsewhere": (29, 30, 2.70),
    "best-eps-cifar": (8, 8, 3.14),
    "best-eps-small": (21, 24, 1.16),
    "best-eps-middle": (12, 12, 0.85),
    "coarse-best-eps": (46, 48, 2.98),
    "coarse-robust-ahead": (48, 48, 2.98),
    "coarse-optimum-moves": (33, 48, 1),
    "width-robust": (21, 24, 0.39),
    "width-standard": (10, 12, 1.23),
    "source-accuracy-predicts": (13, 14, 0.20),
    "linf-behind": (4, 4, 1.03),
    "stylized-robust-ahead": (2, 2, 1.61),
    "stylized-transfer": (2, 2, 0.66),
    "stylized-source-fixed": (24, 24, 3.69),
    "stylized-source-full": (24, 24, 0.56),
}


@pytest.mark.parametrize("name", PAPER)
def test_on_the_published_numbers_the_ledger_says_what_the_paper_says(name: str) -> None:
    verdict = published()[name]
    assert (verdict.outcome, verdict.basis) == ("agrees", "published means")
    agreeing, several, decides = PAPER[name]
    assert (verdict.agreeing, len(verdict.comparisons)) == (agreeing, several)
    assert effect(verdict) == pytest.approx(decides, abs=0.006)
    assert THESE_WEIGHTS in verdict.remarks
    assert np.isnan(verdict.p)


def test_every_claim_of_the_paper_has_a_verdict_there() -> None:
    unpublished = published()["inversion-like-original"]  # the paper shows images, and no number
    assert (unpublished.outcome, unpublished.missing) == ("not measured", ["galleries' inversion_ssim"])
    assert {one.name for one in published().values() if one.family == "paper"} == {*PAPER, unpublished.name}
    assert {one.outcome for one in published().values() if one.family != "paper"} <= {"agrees", "not measured"}


def test_what_the_published_numbers_contradict_disagrees() -> None:
    everywhere = of(published_table(), ROBUST)
    assert (everywhere.outcome, everywhere.agreeing) == ("disagrees", 10)
    assert answer([everywhere]) == ""
    asked = of(published_table(), STANDARD, holds_on="most", answer="standard networks win")
    assert answer([asked]) == "The published means do not agree that standard networks win."


def experiment(
    tmp_path: Path, accuracies: dict[str, float], *, images: int = 400, seeds: Sequence[int] = (0,), **of: Any
) -> pd.DataFrame:
    """Both targets, one architecture, and an accuracy for each eps."""
    fake = Fake(tmp_path, images=images, architectures=("resnet8_w16",), **of)
    for (eps, accuracy), target, seed in product(accuracies.items(), fake.targets, seeds):
        value = accuracy + (seed - np.mean(seeds)) * 0.5
        fake.transfer(value, value, target=target, eps=eps, arch="resnet8_w16", backbone_seed=seed)
    return read_results(fake.collect())


def test_a_large_difference_holds_and_its_opposite_fails(tmp_path: Path) -> None:
    results = experiment(tmp_path, {"0": 50, "0.25": 80})
    good, bad = verdicts(results, claim(ROBUST), claim(STANDARD))
    assert (good.outcome, bad.outcome) == ("holds", "fails")
    assert good.basis == "paired images"
    assert THESE_WEIGHTS in good.remarks
    cells = Cells(results)
    (panel, _) = cells.panels(FIXED_FEATURE)
    headline = cells.comparison(panel, BEST_ARCH).difference
    assert headline
    found = good.comparisons[0]
    assert (found.effect, found.low, found.high, found.n) == (
        headline.value, headline.ci_low, headline.ci_high, headline.n,
    )  # fmt: skip
    assert of(results, {**ROBUST, "by_more_than": 20}).outcome == "holds"
    assert of(results, {**ROBUST, "by_more_than": 29}).outcome == "undecided"
    assert of(results, {**ROBUST, "by_less_than": 20}).outcome == "fails"


def test_one_claim_with_one_comparison_is_decided_exactly_where_the_headline_has_a_star(tmp_path: Path) -> None:
    decided = set()
    for i, robust in enumerate((50, 54, 55, 58)):
        results = experiment(tmp_path / str(i), {"0": 50, "0.25": robust}, images=300)
        cells = Cells(results)
        for panel in cells.panels(FIXED_FEATURE):
            star = cells.comparison(panel, BEST_ARCH).decided
            verdict = of(results, ROBUST, {**FIXED, "targets": [panel.target.name]})
            assert (verdict.outcome == "holds") == star
            decided.add(star)
    assert decided == {True, False}


def test_what_is_undecided_says_how_many_images_would_decide(tmp_path: Path) -> None:
    results = experiment(tmp_path, {"0": 50, "0.25": 52}, images=200)
    verdict = of(results, ROBUST, {**FIXED, "targets": ["coarse"]})
    assert verdict.outcome == "undecided"
    assert verdict.needed is not None
    assert 400 < verdict.needed < 20_000
    more = experiment(tmp_path / "more", {"0": 50, "0.25": 52}, images=3 * verdict.needed)
    assert of(more, ROBUST, {**FIXED, "targets": ["coarse"]}).outcome == "holds"


def test_seeds_speak_of_the_method_and_too_few_are_undecided(tmp_path: Path) -> None:
    three = experiment(tmp_path / "3", {"0": 50, "0.25": 80}, seeds=(0, 1, 2))
    verdict = of(three, ROBUST)
    assert (verdict.outcome, verdict.basis) == ("holds", "seeds")
    assert THESE_WEIGHTS not in verdict.remarks
    two = experiment(tmp_path / "2", {"0": 50, "0.25": 52}, seeds=(0, 1))
    verdict = of(two, ROBUST)
    assert verdict.outcome == "undecided"
    assert verdict.needed is not None
    assert verdict.needed > 2


def test_several_claims_are_adjusted_by_holm(tmp_path: Path) -> None:
    results = experiment(tmp_path, {"0": 50, "0.25": 56.5}, images=300)
    where = {**FIXED, "targets": ["coarse"]}
    alone = of(results, ROBUST, where)
    assert alone.outcome == "holds"
    several = verdicts(results, *[claim(ROBUST, where)] * 50)
    assert all(one.p_adjusted == pytest.approx(min(1, 50 * one.p)) for one in several)
    assert {one.outcome for one in several} == {"undecided"}
    assert "is not as one of 50 claims" in " ".join(several[0].remarks)


@pytest.mark.parametrize(
    ("holds_on", "outcome"), [("each", "fails"), ("most", "fails"), ("some", "holds"), (1, "holds")]
)
def test_on_how_many_targets_it_is_claimed_matters(tmp_path: Path, holds_on: str | int, outcome: str) -> None:
    fake = Fake(tmp_path, images=400, architectures=("resnet8_w16",))
    for target, robust in (("coarse", 80), ("fine", 20)):
        fake.transfer(50, 50, target=target, arch="resnet8_w16")
        fake.transfer(robust, robust, target=target, eps="0.25", arch="resnet8_w16")
    results = read_results(fake.collect())
    assert of(results, ROBUST, holds_on=holds_on).outcome == outcome  # most of two is both
    more = of(results, ROBUST, holds_on=3)
    assert (more.outcome, more.missing) == ("undecided", ["it is claimed on 3 comparisons, and there are 2"])


def test_the_best_eps_is_located_and_scaled_by_the_side_of_images(tmp_path: Path) -> None:
    results = experiment(tmp_path, {"0": 40, "0.1": 50, "0.25": 80, "0.5": 50})
    where = {**FIXED, "architectures": "all"}
    # Images have 32 pixels: 0.25 there is 1.75 at 224.
    assert of(results, {"kind": "best_eps", "at_least": 1, "at_most": 3}, where).outcome == "holds"
    assert of(results, {"kind": "best_eps", "at_least": 3, "at_most": 4}, where).outcome == "fails"
    flat = experiment(tmp_path / "flat", {"0": 40, "0.1": 50, "0.25": 50.5, "0.5": 50})
    assert of(flat, {"kind": "best_eps", "at_least": 1, "at_most": 3}, where).outcome == "undecided"
    outside = of(results, {"kind": "best_eps", "at_least": 50}, where)
    assert outside.outcome == "not measured"
    assert "no network inside the range (Coarse, ResNet-8 w16; Fine, ResNet-8 w16)" in outside.missing


def test_the_optimum_moves_with_granularity(tmp_path: Path) -> None:
    fake = Fake(tmp_path, images=400, architectures=("resnet8_w16",))
    curves = {None: {"0.1": 80, "0.25": 60, "0.5": 40}, 8: {"0.1": 30, "0.25": 45, "0.5": 70}}
    for (view, curve), target in product(curves.items(), fake.targets):
        for eps, accuracy in curve.items():
            variant = {"downscaled": view} if view else {}
            fake.transfer(accuracy, accuracy, target=target, eps=eps, arch="resnet8_w16", variant=variant)
    results = read_results(fake.collect())
    where = {**FIXED, "architectures": "all"}
    up, down = (of(results, {"kind": "optimum", "moves": way}, where) for way in ("up", "down"))
    assert (up.outcome, down.outcome) == ("holds", "fails")
    assert effect(up) == 2
    same = results[results["variant"] == "{}"].assign(variant='{"downscaled":8}')
    again = pd.concat([results[results["variant"] == "{}"], same])
    again.attrs = results.attrs
    assert of(again, {"kind": "optimum", "moves": "up"}, where).outcome == "fails"


def test_trends_along_width_and_eps(tmp_path: Path) -> None:
    widths = ("resnet8_w4", "resnet8_w8", "resnet8_w16")
    fake = Fake(tmp_path, images=400, architectures=widths)
    for target, (arch, base) in product(fake.targets, zip(widths, (30, 45, 60), strict=True)):
        for eps, more in (("0", 0), ("0.1", 12), ("0.25", 24)):
            fake.transfer(base + more, base + more, target=target, eps=eps, arch=arch)
    results = read_results(fake.collect())
    where = {**FIXED, "architectures": "widths"}
    ways = list(product(("each", "overall"), ("up", "not-up", "down"), ("width", "eps")))
    rules = [{"kind": "trend", "along": along, "goes": goes, "steps": steps} for steps, goes, along in ways]
    found = verdicts(results, *(claim(rule, where) for rule in rules))
    assert [one.outcome for one in found] == ["holds" if goes == "up" else "fails" for _, goes, _ in ways]
    assert {len(one.comparisons) for one in found} == {6}
    assert effect(of(results, {"kind": "trend", "along": "width", "goes": "up", "eps": [0]}, where)) == 15
    narrow = experiment(tmp_path / "one", {"0": 40, "0.25": 50})
    verdict = of(narrow, {"kind": "trend", "along": "width", "goes": "up"}, where)
    assert verdict.missing == ["1 width, and a trend needs two (Coarse, ε 0; Coarse, ε 0.25; Fine, ε 0; Fine, ε 0.25)"]


def test_source_accuracy_predicts_within_an_eps_and_not_across(tmp_path: Path) -> None:
    archs = tuple(f"resnet8_w{width}" for width in range(2, 14))
    fake = Fake(tmp_path, targets=("coarse",), architectures=archs, bootstrap=100)
    for i, arch in enumerate(archs):
        for eps, source, transfer in (("0", 60, 30), ("0.25", 40, 50)):
            fake.source(source + i, arch=arch, eps=eps)
            fake.transfer(transfer + i, transfer + i, target="coarse", arch=arch, eps=eps)
    results = read_results(fake.collect())
    verdict = of(results, {"kind": "predicts"})
    assert (verdict.outcome, verdict.basis) == ("holds", "networks")
    assert {one.unit for one in verdict.comparisons} == {"R²"}
    few = results[results["arch"].isin([*archs[:3], BEST_ARCH])]
    few.attrs = results.attrs
    assert "3 networks, and a correlation needs 5" in of(few, {"kind": "predicts"}).missing[0]


def test_flagged_numbers_count_for_neither_side_and_are_named(tmp_path: Path) -> None:
    results = experiment(tmp_path, {"0": 50, "0.25": 80})
    failed = results["target"] == "fine"
    flagged = results.assign(flags=results["flags"].where(~failed, "at-chance"))
    verdict = of(flagged, ROBUST)
    assert [one.target for one in verdict.comparisons] == ["Coarse"]
    assert "failed: Fine (at-chance)" in verdict.remarks[0]
    where = {**FIXED, "architectures": "all"}
    location = of(flagged, {"kind": "best_eps", "at_least": 1, "among": "all"}, where)
    assert [one.target for one in location.comparisons] == ["Coarse"]


def test_a_choice_on_test_images_is_no_verdict(tmp_path: Path) -> None:
    fake = Fake(tmp_path, images=400, architectures=("resnet8_w16",), selection="test")
    for eps, accuracy in {"0": 50, "0.1": 79, "0.25": 80}.items():
        fake.transfer(accuracy, accuracy, target="coarse", eps=eps, arch="resnet8_w16")
    results = read_results(fake.collect())
    results["selection"] = results["selection"].str.replace("validation", "test")
    verdict = of(results, ROBUST)
    assert (verdict.outcome, verdict.agreeing) == ("undecided", 1)
    assert ON_TEST in verdict.remarks


FULL = {"0": 50.0, "0.25": 60.0, "0.5": 70.0}
TABLES: dict[str, tuple[dict[str, float], Settings]] = {
    "a single eps": ({"0": 50.0, "0.25": 80.0}, {}),
    "no robust network": ({"0": 50.0}, {}),
    "no standard network": ({"0.25": 80.0, "0.5": 70.0}, {}),
    "one target": (FULL, {"targets": ("coarse",)}),
    "Linf alone": ({"0": 50.0, "4/255": 80.0}, {"fixed_eps": {"linf": "4/255"}}),
}


@pytest.mark.parametrize("name", TABLES)
def test_a_partial_table_has_a_partial_ledger_that_says_what_is_missing(tmp_path: Path, name: str) -> None:
    accuracies, settings = TABLES[name]
    norm = {"norm": "linf"} if name == "Linf alone" else {}
    fake = Fake(tmp_path, architectures=("resnet8_w16",), **settings)
    for target, (eps, accuracy) in product(fake.targets, accuracies.items()):
        fake.transfer(accuracy, accuracy, target=target, eps=eps, arch="resnet8_w16", **norm)
    found = {one.name: one for one in ledger(Measured(read_results(fake.collect())), read_claims())}
    assert len(found) > 20
    assert all(one.missing for one in found.values() if one.outcome == "not measured")
    headline = found["fixed-robust-ahead"]
    if name.startswith("no "):
        lacks = name.removeprefix("no ").removesuffix(" network")
        assert headline.outcome == "not measured"
        assert headline.missing[0].startswith(f"no {lacks} network (Coarse")
    else:
        assert headline.outcome == "holds"
        assert ("L∞ networks" in headline.protocol) == (name == "Linf alone")
    assert found["full-robust-ahead"].missing == ["full-network transfer"]
    assert found["coarse-best-eps"].missing == ["downscaled images"]
    assert found["fixed-cifar-far-ahead"].missing == ["targets cifar10, cifar100"]


def test_missing_cells_are_named(tmp_path: Path) -> None:
    results = experiment(tmp_path, FULL)
    difference = (results["target"] == "fine") & (results["eps"] == "best-robust")
    partial = results[~difference]
    partial.attrs = results.attrs
    verdict = of(partial, ROBUST)
    assert len(verdict.comparisons) == 1
    assert verdict.missing == ["no robust network (Fine)"]


def test_stylized_images_shape_bias_and_attacks_are_rows_of_their_own(tmp_path: Path) -> None:
    fake = Fake(tmp_path, targets=("coarse",), architectures=("resnet8_w16",), images=400)
    for eps in ("0", "0.25"):
        fake.source(80, eps=eps, arch="resnet8_w16")
        fake.transfer(50, 50, target="coarse", eps=eps, arch="resnet8_w16")
    results = read_results(fake.collect())
    plain = results.astype({"mode": "string", "target": "string"})
    source = plain[(plain["mode"] == "source") & plain["attack"].isna()]

    def like_source(standard: float, robust: float, **columns: str) -> pd.DataFrame:
        value = source["eps"].astype("string").map({"0": standard, "0.25": robust}).astype("float64")
        return source.assign(value=value, ci_low=value - 5, ci_high=value + 5, **columns)

    conflict = {"mode": "cue-conflict", "target": "cue_conflict", "metric": "shape_bias"}
    trained = plain[(plain["arch"] == "resnet8_w16") & (plain["eps"] == "0") & (plain["mode"] == "fixed-feature")]
    added = [
        like_source(40, 70, variant='{"stylized":"phase"}'),
        like_source(30, 60, **conflict),
        like_source(90, 10, variant='{"shape":"square"}', **conflict),
        trained.assign(recipe="texture-robust-stylized", value=20.0, ci_low=16.0, ci_high=24.0),
        trained.assign(recipe="geirhos", value=99.0, ci_low=97.0, ci_high=100.0),
    ]
    robust = {"texture-robust-stylized": "texture-robust, stylized images", "geirhos": "texture-robust, geirhos"}
    every = as_results(pd.concat([*added, plain]), replace(ExperimentInfo.of(results), texture_robust=robust))
    wide = {"architectures": "widths"}
    stylized = of(every, ROBUST, {"mode": "source", "view": "stylized", **wide})
    assert (stylized.outcome, effect(stylized), stylized.basis) == ("holds", 30, "images")
    assert of(every, ROBUST, {"mode": "source", **wide}).outcome == "undecided"
    bias = of(every, {"kind": "trend", "along": "eps", "goes": "up"}, {"mode": "cue-conflict", **wide})
    assert (bias.outcome, effect(bias)) == ("holds", 30)
    than = {**ROBUST, "better": {"eps": 0.25}, "than": {"eps": 0, "recipe": "texture-robust-stylized"}}
    verdict = of(every, than, {**FIXED, **wide})
    assert (verdict.outcome, effect(verdict)) == ("holds", 30)
    imported = of(every, {**than, "than": {"eps": 0, "recipe": "geirhos"}}, {**FIXED, **wide})
    assert (imported.outcome, effect(imported)) == ("fails", -49)
    beside = {"kind": "trend", "along": "eps", "goes": "up"}
    assert effect(of(every, beside, {**FIXED, **wide})) == effect(of(results, beside, {**FIXED, **wide})) == 0
    without = of(results, than, {**FIXED, **wide})
    assert without.missing == ["no ε 0 network of recipe texture-robust-stylized (Coarse, ResNet-8 w16)"]
    assert of(every, ROBUST, {**FIXED, **wide, "attacked": True}).missing == ["fixed-feature transfer under attack"]


def test_numbers_of_galleries_are_compared_over_their_images(tmp_path: Path) -> None:
    fake = Fake(tmp_path, targets=("coarse",), architectures=("resnet8_w16",))
    for eps in ("0", "0.25"):
        fake.source(80, eps=eps, arch="resnet8_w16")
        fake.transfer(50, 50, target="coarse", eps=eps, arch="resnet8_w16")
    results = read_results(fake.collect())
    plain = results.astype({"mode": "string", "target": "string"})
    source = plain[(plain["mode"] == "source") & plain["attack"].isna()]

    def gallery(metric: str, standard: float, robust: float, error: float) -> pd.DataFrame:
        value = source["eps"].astype("string").map({"0": standard, "0.25": robust}).astype("float64")
        made = source.assign(mode="gallery", metric=metric, value=value, ci_kind="images", n=24)
        return made.assign(ci_low=value - error, ci_high=value + error)

    def rebuilt(*numbers: pd.DataFrame) -> Verdict:
        every = as_results(pd.concat([plain, *numbers]), ExperimentInfo.of(results))
        paper = read_claims()[0].claims["inversion-like-original"]
        (verdict,) = verdicts(every, paper)
        return verdict

    other = gallery("inversion_pixels", 50, 10, 1)
    near = rebuilt(other, gallery("inversion_ssim", 20, 70, 5))
    assert (near.outcome, near.basis, effect(near)) == ("holds", "images", 50)
    assert near.deciding
    assert near.deciding.n == 24
    assert near.protocol == "without transfer"
    assert THESE_WEIGHTS in near.remarks
    assert rebuilt(other, gallery("inversion_ssim", 70, 20, 5)).outcome == "fails"
    wide = rebuilt(other, gallery("inversion_ssim", 40, 42, 15))
    assert wide.outcome == "undecided"
    assert wide.needed
    assert wide.needed > 24
    assert rebuilt(other).missing == ["galleries' inversion_ssim"]
    assert rebuilt().missing == ["galleries' inversion_ssim"]


def shuffled(tmp_path: Path, generator: np.random.Generator) -> pd.DataFrame:
    """Six networks on two targets, of which each image is given right and wrong answers in any order."""
    fake = Fake(tmp_path, architectures=("resnet8_w8", "resnet8_w16"), bootstrap=100)
    networks = [(arch, eps) for arch in fake.architectures for eps in ("0", "0.1", "0.25")]
    for target in fake.targets:
        ease = generator.random(fake.images)
        right = {side: generator.random((len(networks), fake.images)) < ease for side in ("test", "validation")}
        for i, (arch, eps) in enumerate(networks):
            fake.transfer(right["test"][i], right["validation"][i], target=target, arch=arch, eps=eps)
    return read_results(fake.collect())


CLAIMS = [
    claim(ROBUST),
    claim(ROBUST, holds_on="some"),
    claim(STANDARD, holds_on="some"),
    claim(ROBUST, {**FIXED, "architectures": "all"}, holds_on="some"),
    claim({"kind": "best_eps", "at_least": 1}, {**FIXED, "architectures": "all"}, holds_on="some"),
    claim({"kind": "trend", "along": "width", "goes": "up"}, {**FIXED, "architectures": "widths"}, holds_on="some"),
    claim({"kind": "trend", "along": "eps", "goes": "up"}, {**FIXED, "architectures": "widths"}, holds_on="some"),
]


@pytest.mark.faults
def test_on_shuffled_results_claims_hold_no_more_often_than_they_may(tmp_path: Path) -> None:
    """The chance of a single `holds` in a file is 5 % at most, and half of it where `fails` is as likely."""
    generator, times = np.random.default_rng(0), 120
    wrong = alone = 0
    for i in range(times):
        results = shuffled(tmp_path / str(i), generator)
        wrong += any(one.outcome in ("holds", "fails") for one in verdicts(results, *CLAIMS))
        alone += of(results, ROBUST, {**FIXED, "targets": ["coarse"]}).outcome == "holds"
    assert wrong <= 14  # 6 expected at 5 %; more has a chance of 0.1 %
    assert alone <= 9  # 3 expected at 2.5 %; more has a chance of 0.1 %


def test_the_files_have_the_documented_columns_and_the_same_bytes_twice(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fake = Fake(tmp_path, architectures=("resnet8_w16",))
    for target, eps in product(fake.targets, ("0", "0.25")):
        fake.transfer(80 if eps != "0" else 50, 80 if eps != "0" else 50, target=target, eps=eps, arch="resnet8_w16")
    table = str(fake.collect())
    for again in ("first", "second"):
        assert cli.main(["claims", table, "--out", str(tmp_path / again / "claims")]) == 0
    first = {path.suffix[1:]: path for path in (tmp_path / "first").iterdir()}
    assert first.keys() == {*SUFFIXES}
    for path in first.values():
        assert path.read_bytes() == (tmp_path / "second" / path.name).read_bytes()
    with first["csv"].open() as file:
        lines = list(csv.DictReader(file))
    documented = [
        name.strip("` ") for row in table_rows(ROOT / "docs/claims.md", "column") for name in row[0].split(",")
    ]
    assert list(lines[0]) == list(COLUMNS) == documented
    content = json.loads(first["json"].read_text())
    assert content["answer"].startswith("It holds that with fixed features the best robust network")
    assert [one["claim"] for one in content["claims"]] == [line["claim"] for line in lines]
    assert len(content["claims"][0]["comparisons"]) == int(lines[0]["comparisons"]) == 2
    assert cli.main(["claims", table]) == 0
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= 100
    assert "holds       fixed-robust-ahead: With fixed features, the best robust network" in printed


def test_the_published_ledger_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["claims", "published"]) == 0
    printed = capsys.readouterr().out
    assert printed.count("\nagrees ") == len(PAPER) + 2  # and those of shape bias
    assert "The published means agree that with fixed features" in printed


def test_an_answer_is_no_stronger_than_its_verdicts(tmp_path: Path) -> None:
    results = experiment(tmp_path, {"0": 50, "0.25": 80})
    holds, fails, missing = verdicts(
        results,
        claim(ROBUST, answer="robust ones win"),
        claim(STANDARD, answer="standard ones win"),
        claim(ROBUST, {"mode": "full-network"}, answer="they win when fine-tuned"),
    )
    assert answer([holds, fails, missing]) == (
        "It holds that robust ones win; it does not hold that standard ones win; it was not measured whether they win "
        "when fine-tuned; these are verdicts on single weights and not on the training method."
    )

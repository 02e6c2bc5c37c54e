"""The table of backbones is what the rows of the results table say of each, and nothing where they say nothing."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
from figures.test_figures import Record, row
from robust_transfer.configuration.figures import PREDICTORS
from robust_transfer.tables.backbones import DETAILS, PROPERTIES, backbone_table, transfers, write_backbones
from robust_transfer.tables.experiment_info import ExperimentInfo, Target
from robust_transfer.tables.key import canonical
from robust_transfer.tables.results import as_results
from robust_transfer.tables.seeds import seed_means
from support.fake_entries import Fake

INFO = ExperimentInfo("made-up", source="objects", source_label="Objects", architectures=("small", "large"))
INFO = replace(INFO, targets=(Target("a", "A", "top1"), Target("b", "B", "mean_per_class")))
BESIDE: Record = {"source": "objects", "protocol": None, "selection": None, "transfer_seed": None}


def on_source(eps: str, value: float, arch: str = "small", **of: Any) -> Record:
    return row("objects", arch, eps, value, **{**BESIDE, "mode": "source", **of})


def attack(eps: str, norm: str = "l2", **of: Any) -> str:
    return canonical({"norm": norm, "eps": eps, "steps": 20, **of})


def to(target: str, eps: str, value: float, **of: Any) -> Record:
    metric = {"a": "top1", "b": "mean_per_class"}[target]
    return row(target, of.pop("arch", "small"), eps, value, source="objects", metric=metric, **of)


def one(found: pd.DataFrame, eps: str, seed: int = 0) -> pd.Series:
    [[_, of_one]] = found[(found["eps"] == eps) & (found["seed"] == seed)].iterrows()
    return of_one


def test_each_property_is_the_number_of_its_row() -> None:
    gallery = {**BESIDE, "mode": "gallery"}
    cues = {**BESIDE, "mode": "cue-conflict"}
    rows = [
        on_source("0", 90), on_source("0.5", 80),
        on_source("0.5", 60, attack=attack("0.5")),
        on_source("0.5", 55, attack=attack("0.5", kind="autoattack")),
        on_source("0.5", 70, attack=attack("0.25")), on_source("0", 20, attack=attack("0.25")),
        on_source("0", 10, attack=attack("1")),  # a radius of one eps alone has no column
        on_source("0", 30, variant=canonical({"stylized": "phase"})),
        on_source("0", 40, variant=canonical({"downscaled": 9})),
        row("cue_conflict", "small", "0", 25, **cues, metric="shape_bias"),
        row("cue_conflict", "small", "0", 99, **cues, metric="shape_bias", variant=canonical({"shape": "cat"})),
        row("cue_conflict", "small", "0", 22, **cues, metric="shape_decisions", variant=canonical({"resized_from": 9})),
        row("objects", "small", "0.5", 12, **gallery, metric="inversion_distance"),
        row("objects", "small", "0.5", 17, **gallery, metric="gradient_low_frequency"),
        to("a", "0", 70, protocol="knn"), to("b", "0", 50, protocol="knn"),
        to("a", "0.5", 75, protocol="knn"),  # one target of two: no mean
    ]  # fmt: skip
    table = as_results(rows, INFO)
    found = backbone_table(table)
    standard, robust = one(found, "0"), one(found, "0.5")
    assert (standard["source_accuracy"], robust["source_accuracy"]) == (90, 80)
    assert robust["robust_accuracy"] == 55  # of two attacks at its own radius the one that leaves less
    assert (standard["robust_accuracy_l2_eps0.25"], robust["robust_accuracy_l2_eps0.25"]) == (20, 70)
    assert (standard["source_accuracy_stylized"], standard["source_accuracy_9px"]) == (30, 40)
    assert (standard["shape_bias"], standard["shape_decisions"]) == (25, 22)
    assert (robust["inversion_distance"], robust["gradient_low_frequency"]) == (12, 17)
    assert standard["knn_accuracy"] == 60
    missing = standard[["robust_accuracy", "inversion_distance"]], robust[["shape_bias", "knn_accuracy"]]
    assert all(part.isna().all() for part in missing)
    assert {*found} - {"backbone", "source", "arch", "recipe", "norm", "eps", "seed", "flags"} == {
        *PROPERTIES, "shape_decisions", "source_accuracy_stylized", "source_accuracy_9px", "robust_accuracy_l2_eps0.25",
    }  # fmt: skip


def test_means_over_seeds_and_chosen_networks_are_no_backbones() -> None:
    rows = as_results([on_source(eps, 90 - seed, backbone_seed=seed) for eps in ("0", "0.5") for seed in (0, 1)], INFO)
    chosen = to("a", "best-robust", 80, backbone_seed=None, transfer_seed=None, eps_value=None)
    found = backbone_table(as_results(pd.concat([rows, seed_means(rows), as_results([chosen], INFO)]), INFO))
    assert found[["eps", "seed", "source_accuracy"]].to_numpy().tolist() == [
        ["0", 0, 90], ["0", 1, 89], ["0.5", 0, 90], ["0.5", 1, 89],
    ]  # fmt: skip


def test_a_transfer_is_the_mean_over_its_seeds_by_the_shown_selection_and_metric() -> None:
    how = {"arch": "small", "eps": "0"}
    rows = [
        *(to("b", "0", value, transfer_seed=seed) for seed, value in enumerate((40, 50))),
        to("b", "0", 99, selection="test"), to("b", "0", 98, split="validation"),
        to("b", "0", 97, attack=attack("0.5")), to("b", "0", 96, variant=canonical({"downscaled": 9})),
        to("b", "0", 95, images_per_class=5), {**to("b", "0", 94), "metric": "top1"},
    ]  # fmt: skip
    [found] = transfers(as_results(rows, INFO)).to_dict("records")
    assert {name: found[name] for name in how} == how
    assert (found["target"], found["value"]) == ("b", 45)


def test_flags_of_all_numbers_of_a_backbone_stand_once() -> None:
    rows = [on_source("0", 9, flags="at-chance"), on_source("0", 5, flags="at-chance,at-edge", attack=attack("0.5"))]
    rows += [on_source("0.5", 9, flags="at-chance", attack=attack("0.5"))]
    found = backbone_table(as_results(rows, INFO))
    assert one(found, "0")["flags"] == "at-chance,at-edge"


def test_every_column_can_be_named_as_a_predictor() -> None:
    assert {*PROPERTIES, *DETAILS, "source_accuracy_stylized"} == {*PREDICTORS}


def test_the_file_has_four_decimals_and_empty_fields(tmp_path: Path) -> None:
    write_backbones(tmp_path / "backbones.csv", as_results([on_source("0", 100 / 3)], INFO))
    header, line = (tmp_path / "backbones.csv").read_text().splitlines()
    assert header == f"backbone,source,arch,recipe,norm,eps,seed,{','.join(PROPERTIES)},flags"
    assert line == "pretraining/x,objects,small,paper,none,0,0,33.3333,,,,,,"


def test_the_results_stage_writes_it_beside_the_results(tmp_path: Path) -> None:
    fake = Fake(tmp_path)
    for eps, accuracy in (("0", 90), ("0.25", 80)):
        fake.source(accuracy, eps=eps)
        fake.transfer(70, 70, target="coarse", eps=eps)
    fake.collect()
    found = pd.read_csv(tmp_path / "backbones.csv")
    assert found["backbone"].tolist() == [f"pretraining/objects_resnet8_w8_{one}_0" for one in ("none_0", "l2_0.25")]
    assert found[["eps", "seed", "source_accuracy"]].to_numpy().tolist() == [[0, 0, 90], [0.25, 0, 80]]
    assert found["robust_accuracy"].isna().tolist() == [True, False]
    assert found["robust_accuracy_l2_eps0.25"].tolist() == [45, 40]

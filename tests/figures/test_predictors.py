"""What predicts transfer: marks are the networks of the table, correlations those of their numbers."""

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from figures.test_figures import drawn, remarks, row
from figures.test_shape_bias import legend, titles
from robust_transfer.figures.predictor_panels import ALL_TARGETS, property_label
from robust_transfer.figures.predictors import MOST_PANELS
from robust_transfer.figures.predictors_table import predictors_table
from robust_transfer.tables.experiment_info import ExperimentInfo, Target
from robust_transfer.tables.key import canonical
from robust_transfer.tables.results import as_results
from scipy import stats
from tables.test_backbones import BESIDE, on_source

NETWORKS = [(arch, eps, seed) for arch in ("small", "large") for eps in ("0", "0.5", "1") for seed in (0, 1)]
SOURCE = dict(zip(NETWORKS, (90, 91, 80, 82, 70, 71, 95, 94, 85, 87, 75, 78), strict=True))
ON = {
    "easy": dict(zip(NETWORKS, (80, 82, 85, 84, 90, 91, 81, 83, 88, 86, 92, 95), strict=True)),
    "hard": dict(zip(NETWORKS, (10, 12, 15, 11, 20, 25, 14, 13, 12, 19, 22, 29), strict=True)),
}
INFO = ExperimentInfo("made-up", source="objects", source_label="Objects", architectures=("small", "large"))
INFO = replace(INFO, targets=tuple(Target(name, name.title(), "top1") for name in ON))


def table(info: ExperimentInfo = INFO, *others: Any, **flags: Any) -> pd.DataFrame:
    rows = [on_source(eps, SOURCE[arch, eps, seed], arch, backbone_seed=seed) for arch, eps, seed in NETWORKS]
    for target, accuracies in ON.items():
        rows += [
            row(target, arch, eps, value, source="objects", backbone_seed=seed, flags=flags.get(f"{arch}{eps}_{seed}"))
            for (arch, eps, seed), value in accuracies.items()
        ]
    return as_results([*rows, *others], info)


def correlations(shown: Any) -> dict[tuple[str, str], dict[str, Any]]:
    return {(one["property"], one["target"]): one for one in shown.numbers if one["series"] == "correlation"}


def test_correlations_are_those_of_the_networks_by_target() -> None:
    drawing = drawn("predictors", table())
    assert [title.partition("\n")[0] for title in titles(drawing)] == ["Easy", "Hard", ALL_TARGETS]
    found = correlations(drawing)
    for target, accuracies in ON.items():
        one = found["source_accuracy", target]
        x, y = [*SOURCE.values()], [accuracies[network] for network in SOURCE]
        assert one["networks"] == 12
        assert one["spearman"] == pytest.approx(stats.spearmanr(x, y).statistic)
        assert one["pearson"] == pytest.approx(stats.pearsonr(x, y).statistic)
        assert one["spearman_low"] < one["spearman"] < one["spearman_high"]
    marks = [one for one in drawing.numbers if one["series"] == "network" and one["target"] == "hard"]
    assert {(m["arch"], m["eps"], m["backbone_seed"]): (m["x"], m["y"]) for m in marks} == {
        network: (SOURCE[network], ON["hard"][network]) for network in NETWORKS
    }


def test_over_all_targets_each_is_centred_and_a_network_counts_once() -> None:
    one = correlations(drawn("predictors", table()))["source_accuracy", ALL_TARGETS]
    centred = np.mean([np.array([*of.values()]) - np.mean([*of.values()]) for of in ON.values()], axis=0)
    assert one["networks"] == 12
    assert one["pearson"] == pytest.approx(np.corrcoef([*SOURCE.values()], centred)[0, 1])


def test_a_network_without_one_of_the_targets_counts_for_the_others_alone() -> None:
    every = table()
    without = every[~((every["target"] == "hard") & (every["eps"] == "1") & (every["arch"] == "small"))]
    without.attrs = every.attrs
    found = correlations(drawn("predictors", without))
    assert [found["source_accuracy", target]["networks"] for target in ("easy", "hard", ALL_TARGETS)] == [12, 10, 10]


def test_what_failed_is_left_out_and_said_so() -> None:
    drawing = drawn("predictors", table(INFO, small1_1="at-chance"))
    found = correlations(drawing)["source_accuracy", "easy"]
    assert (found["networks"], found["left_out"]) == (11, 1)
    assert "1 network left out" in " ".join(remarks(drawing))
    kept = correlations(drawn("predictors", table(INFO, small1_1="at-edge")))["source_accuracy", "easy"]
    assert (kept["networks"], kept["left_out"]) == (12, 0)


def test_too_few_networks_are_said_in_the_cell() -> None:
    cues = {**BESIDE, "mode": "cue-conflict", "metric": "shape_bias"}
    some = [row("cue_conflict", "small", eps, 50 + i, **cues) for i, eps in enumerate(("0", "0.5", "1"))]
    shown = predictors_table(table(INFO, *some))
    frame = shown.tables[0].frame
    assert frame.columns.tolist() == ["Source accuracy (%)", "Shape bias (%)"]
    cell: Any = frame.iloc[0, 1]
    assert (cell.text, cell.detail, cell.faint) == ("needs 2 more networks", "n = 3", True)
    assert str(frame.iloc[0, 0]) == "−0.83 [−0.96, −0.39], n = 12"
    assert [labels[1] for labels in frame.index] == ["Easy", "Hard", ALL_TARGETS]
    named = drawn("predictors", table(replace(INFO, predictors=("shape_bias",)), *some))
    assert any("n = 3: needs 2 more networks" in text.get_text() for text in named.figure.axes[0].texts)
    assert {one["property"] for one in drawn("predictors", table(INFO, *some)).numbers} == {"source_accuracy"}


def test_properties_that_are_named_are_drawn_measured_or_not() -> None:
    drawing = drawn("predictors", table(replace(INFO, predictors=("source_accuracy", "knn_accuracy"))))
    assert {ax.get_xlabel() for ax in drawing.figure.axes} == {"Source accuracy (%)", "k-NN accuracy, mean (%)"}
    assert {one["networks"] for one in correlations(drawing).values()} == {12, 0}


def test_radii_norms_and_sizes_have_labels_of_their_own() -> None:
    assert property_label("robust_accuracy_linf_eps4of255") == "Robust accuracy, L∞ ε 4/255 (%)"
    assert property_label("source_accuracy_9px") == "Accuracy, source at 9 px (%)"
    at = canonical({"norm": "linf", "eps": "4/255", "steps": 20})
    linf = [on_source("4/255", 60 + i, "small", norm="linf", backbone_seed=i) for i in range(2)]
    linf += [row("easy", "small", "4/255", 70 + i, source="objects", norm="linf", backbone_seed=i) for i in range(2)]
    attacked = [on_source(eps, 40, "small", norm=norm, attack=at) for eps, norm in (("0", "none"), ("4/255", "linf"))]
    drawing = drawn("predictors", table(INFO, *linf, *attacked))
    assert {"ε 0", "L2 ε 0.5", "L∞ ε 4/255"} <= {*legend(drawing)}


def test_of_many_targets_only_all_together_are_drawn() -> None:
    names = [f"t{i}" for i in range(MOST_PANELS)]
    info = replace(INFO, targets=tuple(Target(name, name, "top1") for name in names))
    rows = [
        row(name, arch, eps, ON["easy"][arch, eps, seed] - i, source="objects", backbone_seed=seed)
        for i, name in enumerate(names)
        for arch, eps, seed in NETWORKS
    ]
    drawing = drawn("predictors", table(info, *rows))
    assert [title.partition("\n")[0] for title in titles(drawing)] == [ALL_TARGETS]
    assert "predictors_table" in " ".join(remarks(drawing))


def test_without_transfers_or_sources_it_says_so() -> None:
    alone = as_results([on_source("0", 90)], INFO)
    assert drawn("predictors", alone).numbers == []
    assert predictors_table(alone).tables == []
    assert predictors_table(alone).notes == ["Properties of backbones, or their transfer: not measured"]

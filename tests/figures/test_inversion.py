"""The figure of images rebuilt from representations."""

from dataclasses import replace
from typing import Any

import pandas as pd
import pytest
from figures.test_figures import Record, drawn, row
from figures.test_shape_bias import INFO, legend, titles
from robust_transfer.figures.inversion import METRICS, START
from robust_transfer.tables.key import canonical
from robust_transfer.tables.results import as_results
from robust_transfer.tables.seeds import seed_means


def number(metric: str, eps: str, value: float, arch: str = "resnet8_w8", **of: Any) -> Record:
    how = {"source": "objects", "mode": "gallery", "protocol": None, "selection": None, "transfer_seed": None}
    plain = row("objects", arch, eps, value, **how, metric=metric)
    return {**plain, "hyperparameters": canonical({"at_start": of.pop("at_start", 40.0)}), **of}


def records(**of: Any) -> list[Record]:
    values = {"0": 10.0, "0.4": 20.0, "1": 30.0}
    return [number(metric, eps, value, **of) for metric in METRICS for eps, value in values.items()]


def starts(drawing: Any) -> list[float]:
    return [line.get_ydata()[0] for ax in drawing.figure.axes for line in ax.lines if line.get_label() == START]


def test_every_number_of_the_table_is_in_a_panel_of_its_own():
    drawing = drawn("inversion", as_results(records(), INFO))
    assert [title.replace("\n", " ") for title in titles(drawing)] == list(METRICS.values())
    assert len(drawing.numbers) == 4 * 3
    assert {(one["eps"], one["value"]) for one in drawing.numbers} == {("0", 10.0), ("0.4", 20.0), ("1", 30.0)}
    assert starts(drawing) == [40.0] * 4
    assert START in legend(drawing)


def test_a_start_that_differs_among_networks_has_no_line():
    some = [number("inversion_distance", "0", 10), number("inversion_distance", "1", 20, at_start=50.0)]
    drawing = drawn("inversion", as_results(some, INFO))
    assert starts(drawing) == []
    assert START not in legend(drawing)
    assert [one["at_start"] for one in drawing.numbers] == [40.0, 50.0]


def test_means_over_seeds_take_the_place_of_seeds():
    seeds = as_results([one for seed in (0, 1) for one in records(backbone_seed=seed)], INFO)
    drawing = drawn("inversion", as_results(pd.concat([seeds, seed_means(seeds)]), INFO))
    assert len(drawing.numbers) == 4 * 3
    assert {one["ci_kind"] for one in drawing.numbers} == {"seeds"}


def test_negative_similarities_and_a_single_network_are_drawn():
    drawing = drawn("inversion", as_results([number("inversion_ssim", "0", -20, ci_low=-30, ci_high=-10)], INFO))
    [ax] = drawing.figure.axes
    assert ax.get_ylim()[0] < -20 < ax.get_ylim()[1]
    [one] = drawing.numbers
    assert one["value"] == pytest.approx(-20)


def test_texture_robust_networks_are_called_what_the_experiment_calls_them():
    robust = {"texture-robust-both": "texture-robust, stylized + native"}
    rows = [*records(recipe="short"), *records(recipe="texture-robust-both")]
    names = legend(drawn("inversion", as_results(rows, replace(INFO, texture_robust=robust))))
    assert {"ResNet-8 w8", "ResNet-8 w8, texture-robust, stylized + native"} <= {*names}


def test_without_galleries_it_says_so():
    drawing = drawn(
        "inversion", as_results([row("objects", "resnet8_w8", "0", 60, mode="source", protocol=None)], INFO)
    )
    assert drawing.numbers == []

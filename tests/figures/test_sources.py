"""Figures from the published numbers, which stand in them as published, and from ours over them."""

import csv
import importlib
import math
import random
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.text import Text
from robust_transfer import cli
from robust_transfer.figures import style
from robust_transfer.figures.axes import scales
from robust_transfer.figures.beside import TITLE
from robust_transfer.figures.cells import Cells
from robust_transfer.figures.numbers import COLUMNS
from robust_transfer.registry import FIGURES
from robust_transfer.stages import figures as stage
from robust_transfer.tables.experiment_info import ExperimentInfo
from robust_transfer.tables.published import FOLDER, PUBLISHED
from robust_transfer.tables.published_experiment import beside_published, paper, published_results
from robust_transfer.tables.published_results import FILES
from robust_transfer.tables.results import RESULTS, as_results, check_keys, read_results, write_results

OF_PAPER = [name for name, figure in FIGURES.items() if figure.published]
PICTURES = [name for name in OF_PAPER if not FIGURES[name].is_table]
BEST = "best-robust"
TEXTURE = {"texture", "shape_bias"}
"""Figures of numbers that are on other images."""
OTHERS = {*TEXTURE, "few_images"}
"""These, and the figure whose published numbers are not the paper's (tests/figures/test_figures.py)."""
OF_OTHERS = ("training set sizes", "robust fine-tuning")
"""Editions of numbers that are not the paper's."""


def lines_of_files() -> Iterator[dict[str, str]]:
    for name in FILES:
        with (FOLDER / name).open(newline="") as file:
            yield from csv.DictReader(file)


@pytest.fixture(scope="module")
def published() -> dict[tuple[str, ...], set[float]]:
    """Published numbers by mode, target, architecture, norm, eps and size, read from the files alone.

    At eps 0 the standard network that was released, under both norms; those of the L∞ tables under `linf` too.
    """
    found: dict[tuple[str, ...], set[float]] = defaultdict(set)
    for line in lines_of_files():
        if line["edition"] in ("release, single run", *OF_OTHERS) or line["source"] != "imagenet":
            continue
        size = "32" if "downscaled" in line["variant"] else ""
        norms = ["l2", "linf"] if line["norm"] == "none" else [line["norm"]]
        for norm in norms:
            if line["recipe"] == "unreleased" and norm == "l2":
                continue
            key = (line["mode"], line["target"], line["arch"], norm, line["eps"], size)
            found[key].add(float(line["value"]))
    return found


@pytest.fixture(scope="module")
def paper_table() -> pd.DataFrame:
    return published_results()


def drawing(name: str, results: pd.DataFrame) -> Any:
    with matplotlib.rc_context(style.RC):
        return getattr(importlib.import_module(f"robust_transfer.figures.{FIGURES[name].module}"), name)(results)


def data_file(name: str, results: pd.DataFrame, folder: Path) -> list[dict[str, str]]:
    """The CSV that is written beside a figure."""
    module = importlib.import_module(f"robust_transfer.figures.{FIGURES[name].module}")
    path = folder / f"{name}.csv"
    stage._write_numbers(drawing(name, results).numbers, getattr(module, "COLUMNS", COLUMNS), path)
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def key_of(row: dict[str, str], eps: str | None = None) -> tuple[str, ...]:
    place = (row["mode"], row["target"], row["arch"], row["norm"])
    return (*place, row["eps"] if eps is None else eps, row.get("downscaled", ""))


def r_squared(row: dict[str, str], published: dict[tuple[str, ...], set[float]]) -> float:
    """Of the line through all networks of this row, from the files."""
    pairs = [
        (min(published["source", "imagenet", arch, norm, eps, ""]), min(values))
        for (mode, target, arch, norm, eps, size), values in published.items()
        if (mode, target, norm, eps, size) == (row["mode"], row["target"], row["norm"], row["eps"], "")
        and arch != "best"
    ]
    assert len(pairs) == int(row["networks"])
    return float(np.corrcoef(np.array(pairs).T)[0, 1] ** 2) if len(pairs) > 4 else math.nan


@pytest.mark.parametrize("name", [name for name in OF_PAPER if name not in OTHERS])
def test_random_cells_of_each_figure_are_as_published(name, paper_table, published, tmp_path):
    rows = [row for row in data_file(name, paper_table, tmp_path) if row.get("value") or row.get("r2")]
    assert len(rows) >= 14
    assert {row["experiment"] for row in rows} == {PUBLISHED}
    for row in random.Random(name).sample(rows, 60 if len(rows) > 60 else len(rows)):
        if "r2" in row:
            assert float(row["r2"]) == pytest.approx(r_squared(row, published), abs=1e-4)
        elif row["series"] == "difference":
            pair = [published[key_of(row, eps)] for eps in ("0", BEST)]
            expected = {robust - standard for standard in pair[0] for robust in pair[1]}
            assert any(float(row["value"]) == pytest.approx(one, abs=0.005) for one in expected)
        elif row["series"] == "standard level":  # that of the best architecture
            best = published[row["mode"], row["target"], "best", row["norm"], "0", ""]
            assert any(float(row["value"]) == pytest.approx(one, abs=0.005) for one in best)
        else:
            assert any(float(row["value"]) == pytest.approx(one, abs=1e-6) for one in published[key_of(row)]), row
        if row.get("source_value"):
            source = published["source", "imagenet", row["arch"], row["norm"], row["eps"], ""]
            assert any(float(row["source_value"]) == pytest.approx(one, abs=1e-6) for one in source), row
        assert row.get("ci_low", "") in ("", "nan") or "r2" in row


def test_figures_of_the_paper_have_all_that_was_published(paper_table, tmp_path):
    """Every number by eps is in the table by eps, and every best one in a figure by architecture."""
    by_eps = data_file("eps_table", paper_table, tmp_path)
    transfer = paper_table[paper_table["target"].isin([target.name for target in paper().targets])]
    transfer = transfer[(transfer["mode"] != "source") & (transfer["eps"] != BEST) & (transfer["arch"] != "best")]
    assert len(transfer) == 1548
    counted = [row for row in by_eps if row["arch"] != "best"]
    # The released standard networks of the L∞ targets stand under L2, and other architectures' under L∞ too.
    assert {key_of(row) for row in counted} >= {
        (*map(str, (one.mode, one.target, one.arch, "l2" if one.norm == "none" else one.norm, one.eps)), size)
        for one in transfer.itertuples()
        for size in ["32" if "downscaled" in one.variant else ""]
    }


def test_the_table_of_the_paper_is_an_experiment_s(paper_table, tmp_path):
    check_keys(paper_table)
    write_results(tmp_path / "results.parquet", paper_table, paper().as_json())
    again = read_results(tmp_path / "results.parquet")
    assert ExperimentInfo.of(again) == paper()
    assert [target.metric for target in paper().targets if target.name in ("flowers", "food")] == [
        "mean_per_class",
        "top1",
    ]
    metrics = paper_table.groupby("target", observed=True)["metric"].unique()
    for target in paper().targets:
        assert list(metrics[target.name]) == [target.metric], target


@pytest.mark.parametrize("name", [name for name in PICTURES if name not in OTHERS])
def test_published_panels_are_never_empty(name, paper_table):
    figure = drawing(name, paper_table).figure
    for ax in figure.axes:
        assert any(len(line.get_xdata()) for line in ax.lines if line.get_marker() not in (None, "None", "")) or any(
            len(points.get_offsets()) for points in ax.collections
        ), ax.get_title()
    texts = " ".join(text.get_text() for text in figure.findobj(Text))
    assert "nan" not in texts


def reproduction(paper_table: pd.DataFrame, *, noise: float = 1.0, **info: Any) -> pd.DataFrame:
    """An experiment of the paper's cells, with numbers of its own that have intervals."""
    random_numbers = np.random.default_rng(0).normal(0, noise, len(paper_table))
    rows = paper_table.assign(
        experiment="again", value=(paper_table["value"] + random_numbers).clip(0, 99), ci_kind="images"
    )
    rows = RESULTS.frame(rows.assign(ci_low=rows["value"] - 1, ci_high=(rows["value"] + 1).clip(upper=100)))
    return as_results(rows, replace(paper(), experiment="again", drawn_from="both", **info))


@pytest.fixture(scope="module")
def both(paper_table) -> pd.DataFrame:
    """Ours of three targets, beside the published numbers."""
    targets = tuple(target for target in paper().targets if target.name in ("cifar10", "cars", "pets"))
    of_targets = paper_table["target"].isin([*(target.name for target in targets), "imagenet"])
    return beside_published(reproduction(paper_table[of_targets], targets=targets), paper_table)


@pytest.mark.parametrize("name", [name for name in OF_PAPER if name not in {"fixed_robustness", *OTHERS}])
def test_ours_over_published_says_what_they_differ_by(name, both, published, tmp_path):
    rows = data_file(name, both, tmp_path)
    ours = [row for row in rows if row["experiment"] == "again" and row["value"]]
    theirs = [row for row in rows if row["experiment"] == PUBLISHED and row["value"]]
    assert ours
    assert theirs
    assert not [row for row in theirs if row.get("difference")]
    pairs = [row for row in ours if row["difference"]]
    assert len(pairs) >= 0.7 * len(ours)
    for row in random.Random(name).sample(pairs, min(30, len(pairs))):
        assert float(row["difference"]) == pytest.approx(float(row["value"]) - float(row["published"]), abs=2e-4)
        if row["series"] not in ("difference", "standard level"):
            assert any(float(row["published"]) == pytest.approx(one, abs=1e-6) for one in published[key_of(row)])
    if name in PICTURES:
        figure = drawing(name, both).figure
        last = figure.axes[-1]
        assert last.get_title().replace("\n", " ") == TITLE
        dots = sorted(float(x) for line in last.lines if line.get_ls() == "None" for x in line.get_xdata())
        assert dots == pytest.approx(sorted(float(row["difference"]) for row in pairs), abs=1e-4)
        labels = [text.get_text() for legend in figure.legends for text in legend.get_texts()]
        assert "published" in labels


def test_tables_have_columns_or_rows_of_their_own_for_published_numbers(both):
    text = drawing("headline", both).markdown()
    assert "| Standard ours | published | Δ | Best robust ours | published | Δ |" in text
    assert "| 81.31 |" in text
    fits = drawing("fixed_robustness", both).markdown()
    assert "| ε 3 ours | published | Δ |" in fits
    by_eps = drawing("eps_table", both).markdown()
    assert "ResNet-50, published | 79.61 |" in by_eps
    assert "ResNet-50, difference" in by_eps


def test_numbers_of_another_source_or_metric_do_not_stand_beside(paper_table):
    mine = reproduction(paper_table, source="other")
    assert Cells(beside_published(mine, paper_table)).published is None
    drawn = drawing("fixed_feature", beside_published(mine, paper_table))
    assert {one["experiment"] for one in drawn.numbers} == {"again"}
    targets = tuple(replace(target, metric="top1") for target in paper().targets)
    cells = Cells(beside_published(reproduction(paper_table, targets=targets), paper_table))
    assert cells.published is not None
    assert "flowers" not in {target.name for target in cells.published.about.targets}


@pytest.mark.parametrize(
    ("drawn_from", "experiments"),
    [("ours", {"again"}), ("published", {PUBLISHED}), ("both", {"again", PUBLISHED})],
)
def test_the_experiment_says_whose_numbers_are_drawn(drawn_from, experiments, paper_table, tmp_path):
    mine = reproduction(paper_table)
    info = replace(ExperimentInfo.of(mine), drawn_from=drawn_from)
    write_results(tmp_path / "results.parquet", mine, info.as_json())
    stage.draw("headline", tmp_path / "results.parquet", tmp_path / "headline")
    with (tmp_path / "headline.csv").open(newline="") as file:
        assert {row["experiment"] for row in csv.DictReader(file)} == experiments


def test_a_figure_may_have_published_numbers_of_a_form_of_its_own(paper_table, tmp_path, monkeypatch):
    some = paper_table[paper_table["target"].isin(["cars", "imagenet"])]
    monkeypatch.setattr("robust_transfer.figures.headline.published_results", lambda: some, raising=False)
    write_results(tmp_path / "results.parquet", paper_table, paper().as_json())
    stage.draw("headline", tmp_path / "results.parquet", tmp_path / "headline")
    with (tmp_path / "headline.csv").open(newline="") as file:
        assert {row["target"] for row in csv.DictReader(file)} == {"cars"}


def test_the_command_writes_figures_data_and_an_index(tmp_path, monkeypatch, capsys):
    few = {name: FIGURES[name] for name in ("headline", "fixed_robustness")}
    monkeypatch.setattr("robust_transfer.commands.published.FIGURES", few)
    assert cli.main(["published", "--out", str(tmp_path / "p")]) == 0
    assert str(tmp_path / "p" / "index.md") in capsys.readouterr().out
    index = (tmp_path / "p" / "index.md").read_text()
    for name, figure in few.items():
        for suffix in figure.suffixes:
            assert (tmp_path / "p" / "figures" / f"{name}.{suffix}").stat().st_size > 0
            assert f"(figures/{name}.{suffix})" in index
    assert "| CIFAR-10 | 81.31 | 95.53 | 3, WRN-50-4 | +14.22 |" in index
    assert "{{" not in index
    assert len(read_results(tmp_path / "p" / "results.parquet")) > 1700


def test_a_panel_far_wider_than_the_others_has_its_own_scale():
    estimate = Cells(published_results()).source("resnet18", "l2", "0")
    assert estimate is not None

    def spread(low: float, high: float) -> list[Any]:
        return [replace(estimate, value=value) for value in (low, high)]

    assert scales([spread(50, 60), spread(40, 58), spread(70, 71)]) == [18, 18, 18]
    assert scales([spread(50, 60), spread(40, 50), spread(10, 71)]) == [10, 10, 61]
    assert scales([spread(50, 50.1)]) == [5]

"""Figures draw what the table holds, for tables of any shape, legibly, and the same bytes each time."""

import csv
import importlib
import json
import math
import re
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.font_manager import fontManager
from matplotlib.text import Text
from robust_transfer.figures import legends, lettering, style
from robust_transfer.figures.axes import EpsAxis
from robust_transfer.figures.cells import Cells
from robust_transfer.figures.fixed_robustness import linear_fit
from robust_transfer.figures.labels import architecture_label, p_text, rounded_up
from robust_transfer.figures.numbers import COLUMNS
from robust_transfer.figures.protocols import protocol_label
from robust_transfer.registry import FIGURES
from robust_transfer.stages.figures import draw
from robust_transfer.stages.report import COLUMNS as COLUMNS_OF_SUMMARY
from robust_transfer.stages.report import summary
from robust_transfer.store import fingerprint
from robust_transfer.tables.errors import TableError
from robust_transfer.tables.experiment_info import ExperimentInfo, Target
from robust_transfer.tables.key import canonical
from robust_transfer.tables.published_experiment import beside_published, published_few_images
from robust_transfer.tables.published_results import published_rows
from robust_transfer.tables.results import as_results, read_results, write_results
from robust_transfer.tables.seeds import seed_means
from robust_transfer.tables.training import as_training
from support.fake_entries import Fake

PAPER_EPS = ("0", "0.01", "0.03", "0.05", "0.1", "0.25", "0.5", "1", "3", "5")
PAPER_ARCHS = ("resnet18", "resnet50", "wide_resnet50_2", "wide_resnet50_4")
SMALL_EPS = ("0", "0.1", "0.25", "0.5", "1")
SMALL_ARCHS = ("resnet8_w8", "resnet8_w16", "resnet8_w24")


Record = dict[str, Any]


def row(target: str, arch: str, eps: str, value: float, **of: Any) -> Record:
    """A row of a made-up table."""
    robust = eps not in ("0",)
    plain = {
        "experiment": "made-up",
        "source": "imagenet",
        "target": target,
        "arch": arch,
        "recipe": "paper",
        "norm": "l2" if robust else "none",
        "eps": eps,
        "eps_value": None if eps == "best-robust" else float(eps.removesuffix("/255")),
        "backbone_seed": 0,
        "transfer_seed": 0,
        "mode": "fixed-feature",
        "protocol": "frozen",
        "variant": "{}",
        "images_per_class": None,
        "attack": None,
        "split": "test",
        "selection": "validation",
        "metric": "top1",
        "value": value,
        "ci_low": value - 1.5,
        "ci_high": value + 1.5,
        "ci_kind": "images",
        "n": 1000,
        "hyperparameters": canonical({"arch": arch, "eps": eps}),
        "backbone": "pretraining/x",
        "entry": "probing/x",
        "code": "abc",
    }
    return {**plain, **of}


def more(results: pd.DataFrame, *others: pd.DataFrame) -> pd.DataFrame:
    """The rows of several tables of one experiment."""
    return pd.concat([results, *others])


def about(results: pd.DataFrame, **of: Any) -> pd.DataFrame:
    """The same rows of an experiment that is described otherwise."""
    return as_results(results, replace(ExperimentInfo.of(results), **of))


def is_downscaled(results: pd.DataFrame) -> pd.Series:
    return results["variant"].str.contains("downscaled")


def table(targets: int, archs, eps, modes=("fixed-feature", "full-network"), downscaled=32) -> pd.DataFrame:
    """A made-up table with every cell, its chosen rows among them."""
    names, fixed = [f"Target {i + 1}" for i in range(targets)], eps[min(2, len(eps) - 1)]
    rows = []
    for a, arch in enumerate(archs):
        for e, one in enumerate(eps):
            of = {"mode": "source", "protocol": None, "selection": None, "transfer_seed": None}
            rows.append(row("imagenet", arch, one, 70 + 2 * a - e * e / 3, **of))
    for mode in modes:
        for view in (None, downscaled):
            variant = canonical({"downscaled": view} if view else {})
            for t, target in enumerate(names):
                of = {"mode": mode, "variant": variant, "protocol": "frozen" if mode == "fixed-feature" else "paper"}
                values = {
                    (arch, one): 60 + t + 3 * a + 4 * math.sin(e + t)
                    for a, arch in enumerate(archs)
                    for e, one in enumerate(eps)
                }
                rows += [row(target, arch, one, value, **of) for (arch, one), value in values.items()]
                seedless = {**of, "backbone_seed": None, "transfer_seed": None}
                for arch in (*archs, "best"):
                    inside = {key: value for key, value in values.items() if arch in (key[0], "best")}
                    robust = {key: value for key, value in inside.items() if key[1] != "0"}
                    best, standard = (
                        max(robust, key=robust.__getitem__),
                        max(inside[key] for key in inside if key[1] == "0"),
                    )
                    says = canonical({"arch": best[0], "eps": best[1]})
                    chosen = row(target, arch, "best-robust", robust[best], hyperparameters=says, **seedless)
                    rows += [chosen, {**chosen, "metric": "top1_difference", "value": chosen["value"] - standard}]
                    if arch == "best":
                        rows.append(row(target, arch, "0", standard, **seedless))
                        rows.append(row(target, arch, fixed, 61.0, **seedless))
    info = ExperimentInfo(
        experiment="made-up",
        source="imagenet",
        source_label="ImageNet",
        targets=tuple(Target(name, name, "top1") for name in names),
        architectures=tuple(archs),
        widths=tuple(archs),
        fixed_eps={"l2": fixed},
    )
    return as_results(rows, info)


def course(arch: str, eps: str, epochs: int, every: int = 1, **of: Any) -> list[Record]:
    """The epochs of a backbone in a made-up training table, checked every so many of them."""
    rows = []
    for epoch in range(1, epochs + 1):
        checked, done = epoch % every == 0 or epoch == epochs, epoch / epochs
        plain = {
            "entry": f"pretraining/{arch}_{eps}_{of.get('norm')}_{of.get('seed', 0)}",
            "source": "imagenet",
            "arch": arch,
            "recipe": "paper",
            "norm": "none" if eps == "0" else "l2",
            "eps": eps,
            "seed": 0,
            "epoch": epoch,
            "side": 32,
            "loss": 4 - 2 * done,
            "train_accuracy": 5 + 40 * done + len(eps),
            "clean_accuracy": 10 + 50 * done + len(eps) if checked else None,
            "robust_accuracy": 5 + 30 * done + len(eps) if checked and eps != "0" else None,
            "learning_rate": 0.1 / epoch,
            "images_per_second": None,
            "seconds": None,
            "peak_memory_mb": None,
        }
        rows.append({**plain, **of})
    return rows


def few_images(results: pd.DataFrame, sizes=(5, 10, 25), **of: Any) -> pd.DataFrame:
    """The table, and its cells of native images as they are with fewer images."""
    cells = results[(results["mode"] != "source") & ~is_downscaled(results)]
    fewer = [cells.assign(images_per_class=size, value=cells["value"] * size / 30, **of) for size in sizes]
    return more(results, *fewer)


How = tuple[str, dict[str, str]]
FROZEN: How = ("frozen", {})
RELEASED: How = ("paper", {})
KNN: How = ("knn", {})
DEVIATING = [("paper", {"batchnorm": "frozen"}), ("paper", {"normalisation": "source"})]
BOTH = ("paper", {"batchnorm": "frozen", "normalisation": "source"})
WORTH = {"frozen": 3, "drift": -2, "target": -1, "test": 0.5}
"""Points that a protocol is worth: frozen, BatchNorm that drifts, the target's statistics, selection on test."""


def measured(target: str, eps: str, how, selection: str, value: float, **of: Any) -> Record:
    """A fixed-feature number whose value says how it was measured."""
    protocol, variant = how
    value += WORTH["frozen"] if protocol == "frozen" else 0
    value += WORTH["drift"] if protocol == "paper" and "batchnorm" not in variant else 0
    value += WORTH["target"] if protocol == "paper" and "normalisation" not in variant else 0
    value += WORTH["test"] if selection == "test" else 0
    of = {"protocol": protocol, "variant": canonical(variant), "selection": selection, **of}
    return row(target, "resnet50", eps, value, **of)


def by(targets: int, protocols, selections=("validation", "test"), eps=("0", "3"), **of: Any) -> pd.DataFrame:
    """A made-up table of backbones measured by these protocols under these selections."""
    names = [f"Target {i + 1}" for i in range(targets)]
    rows = [
        measured(target, one, how, selection, 50 + 3 * t + (5 + t) * (one != "0"), **of)
        for t, target in enumerate(names)
        for one in eps
        for how in protocols
        for selection in selections
    ]
    info = ExperimentInfo(
        "made-up", targets=tuple(Target(name, name, "top1") for name in names), architectures=("resnet50",)
    )
    return as_results(rows, info)


def curves(archs, eps, epochs: int, *more: list[Record], **of: Any) -> pd.DataFrame:
    """A made-up training table of every network at every eps, and more."""
    rows = [row for arch in archs for one in eps for row in course(arch, one, epochs, **of)]
    info = ExperimentInfo("made-up", architectures=tuple(archs), widths=tuple(archs))
    return as_training([*rows, *(row for rows in more for row in rows)], info)


def drawn(name: str, results: pd.DataFrame, *, laid_out: bool = False) -> Any:
    with matplotlib.rc_context(style.RC):
        drawing = getattr(importlib.import_module(f"robust_transfer.figures.{FIGURES[name].module}"), name)(results)
        if laid_out:
            drawing.figure.draw_without_rendering()
    return drawing


def visible_texts(figure) -> list[Text]:
    """Every text but labels of ticks that lie outside their axis, which matplotlib keeps and does not draw."""
    outside = set()
    for ax in figure.axes:
        for axis in (ax.xaxis, ax.yaxis):
            low, high = sorted(axis.get_view_interval())
            outside |= {
                tick.label1 for tick in axis.get_major_ticks() if not low - 1e-9 <= tick.get_loc() <= high + 1e-9
            }
    return [text for text in figure.findobj(Text) if text.get_text().strip() and text not in outside]


@pytest.fixture(scope="module")
def paper_sized() -> pd.DataFrame:
    return table(12, PAPER_ARCHS, PAPER_EPS)


@pytest.fixture(scope="module")
def paper_curves() -> pd.DataFrame:
    """67 backbones of twelve networks, the first of them with a second seed."""
    more = [course(f"densenet{i}", one, 90, 5) for i in range(161, 169) for one in ("0", "1", "3")]
    seeds = [course("resnet18", one, 90, 5, seed=1) for one in ("0", "1", "3")]
    return curves(PAPER_ARCHS, PAPER_EPS, 90, *more, *seeds, every=5)


@pytest.fixture(scope="module")
def small_curves() -> pd.DataFrame:
    return curves(SMALL_ARCHS, SMALL_EPS, 5)


@pytest.fixture(scope="module")
def small() -> pd.DataFrame:
    return table(4, SMALL_ARCHS, SMALL_EPS, downscaled=12)


@pytest.fixture(scope="module")
def small_few(small) -> pd.DataFrame:
    return few_images(small)


@pytest.fixture(scope="module")
def many_protocols() -> pd.DataFrame:
    """Six targets, two backbones, five protocols and two selections; full-network in four columns."""
    fixed = by(6, [FROZEN, RELEASED, *DEVIATING, BOTH])
    return more(fixed, by(6, [RELEASED, DEVIATING[1]], mode="full-network"))


# full_network is drawn as fixed_feature is; what differs between the others at either size is tried at one of them.
@pytest.mark.parametrize(
    ("name", "size"),
    [(name, "paper_sized") for name in ("fixed_feature", "source_accuracy", "granularity")]
    + [(name, "small") for name in ("fixed_feature", "granularity", "width")]
    + [("training", "paper_curves"), ("training", "small_curves"), ("few_images", "small_few")],
)
def test_nothing_is_clipped_and_no_labels_overlap(name, size, request):
    figure = drawn(name, request.getfixturevalue(size), laid_out=True).figure
    renderer = figure.canvas.get_renderer()
    assert figure.get_figwidth() in (style.COLUMN, style.PAGE)
    page, shown = figure.bbox, visible_texts(figure)
    for text in shown:
        box = text.get_window_extent(renderer)
        assert box.x0 >= page.x0 - 1, text
        assert box.y0 >= page.y0 - 1, text
        assert box.x1 <= page.x1 + 1, text
        assert box.y1 <= page.y1 + 1, text
        assert float(text.get_fontsize()) >= 5
    for ax in figure.axes:
        for axis in (ax.xaxis, ax.yaxis):
            ticks = [label for label in axis.get_ticklabels() if label in shown]
            if ticks and ticks[0].get_rotation() == 0:
                boxes = [label.get_window_extent(renderer) for label in ticks]
                assert not any(a.overlaps(b) for a, b in combinations(boxes, 2)), [t.get_text() for t in ticks]
    # Titles and legends: neither on each other nor on a panel.
    titles = [ax.title.get_window_extent(renderer) for ax in figure.axes if ax.get_title()]
    legends = [legend.get_window_extent(renderer) for legend in figure.legends]
    assert not any(a.overlaps(b) for a, b in combinations(titles + legends, 2))


LABELS = (
    "Cost $5 to $x_{", r"\frac a $$ \alpha & <b> #%~^ {", "_begins so | and | goes on", "汉字数据集 日本語の長い題名",
    "A very long title that nobody would write but somebody does, with more words than three lines of it can hold",
    "Donaudampfschifffahrtsgesellschaftskapitänsmützenabzeichen",
)  # fmt: skip


@pytest.fixture(scope="module")
def labelled() -> pd.DataFrame:
    """Six targets whose labels are what someone may write into a configuration."""
    found = table(6, (*SMALL_ARCHS, "timm_a_network_of_a_very_long_name_in.which_there-are_no_spaces"), SMALL_EPS)
    return about(found, targets=tuple(Target(f"Target {i + 1}", label, "top1") for i, label in enumerate(LABELS)))


@pytest.mark.parametrize("name", ["fixed_feature", "source_accuracy", "granularity", "width"])
@pytest.mark.filterwarnings("ignore:Glyph")
def test_labels_are_drawn_as_they_are_written_and_fit(name, labelled):
    figure = drawn(name, labelled, laid_out=True).figure
    titles = [ax.get_title() for ax in figure.axes]
    assert [title.replace("\n", "").replace(" ", "") for title in titles[:3]] == [
        label.replace(" ", "") for label in LABELS[:3]
    ]
    assert titles[4].startswith("A very long title")
    assert max(title.count("\n") for title in titles) <= 2
    renderer, page = figure.canvas.get_renderer(), figure.bbox
    for text in visible_texts(figure):
        assert not text.get_parse_math()
        box = text.get_window_extent(renderer)
        assert page.x0 - 1 <= box.x0 <= box.x1 <= page.x1 + 1, text
        assert page.y0 - 1 <= box.y0 <= box.y1 <= page.y1 + 1, text
    boxes = [ax.title.get_window_extent(renderer) for ax in figure.axes]
    boxes += [legend.get_window_extent(renderer) for legend in figure.legends]
    assert not any(a.overlaps(b) for a, b in combinations(boxes, 2))


def test_training_curves_of_networks_of_long_names_fit(small_curves):
    long = "timm_a_network_of_a_very_long_name_in.which_there-are_no_spaces_at_all"
    figure = drawn("training", curves((*SMALL_ARCHS, long), SMALL_EPS, 3), laid_out=True).figure
    renderer = figure.canvas.get_renderer()
    names = [ax.yaxis.label.get_window_extent(renderer) for ax in figure.axes if ax.get_ylabel()]
    assert not any(a.overlaps(b) for a, b in combinations(names, 2))


def test_legends_show_what_begins_with_an_underscore():
    with matplotlib.rc_context(style.RC):
        figure = style.figure(style.COLUMN, 1)
        figure.subplots()
        legends.draw(figure, legends.remarks(figure, ["_begins so", "$x$"]))
    assert [text.get_text() for legend in figure.legends for text in legend.get_texts()] == ["_begins so", "$x$"]


class TestLettering:
    def test_lines_fit_and_hold_the_whole_label(self):
        for label in LABELS:
            lines = lettering.wrapped(label, 1.0, 7, most=99).split("\n")
            assert "".join(lines).replace(" ", "") == label.replace(" ", "")
            assert all(lettering.width(line, 7) <= 1 for line in lines)
        assert lettering.wrapped("short", 1.0, 7) == "short"
        assert lettering.wrapped("two\nlines", 1.0, 7) == "two\nlines"
        assert lettering.wrapped("W" * 99, 0.5, 7, most=2).endswith("…")

    def test_letters_that_no_font_has_are_said_once(self, labelled, tmp_path, caplog, recwarn, monkeypatch):
        only = [one for one in fontManager.ttflist if "DejaVu" in one.name]
        monkeypatch.setattr(fontManager, "ttflist", only)
        lettering._covering.cache_clear()
        with matplotlib.rc_context(style.RC):
            drawn("width", labelled).write(tmp_path / "width")
        assert [record.getMessage().startswith("no installed font has the letters") for record in caplog.records] == [
            True
        ]
        assert "fonts-noto-cjk" in caplog.text
        assert not [one for one in recwarn if "Glyph" in str(one.message)]
        lettering._covering.cache_clear()

    def test_a_font_that_has_the_letters_is_taken(self, tmp_path, caplog):
        """Of letters that DejaVu Sans lacks and another font that comes with matplotlib has."""
        known = lettering._characters(lettering._path(lettering.FONT))
        other = next(one for one in fontManager.ttflist if one.name == "STIXGeneral" and one.weight == 400)
        letters = "".join(sorted(lettering._characters(other.fname) - known))[:5]
        assert letters
        with matplotlib.rc_context(style.RC):
            figure = style.figure(1, 1)
            text = figure.text(0, 0, f"a {letters}")
            assert lettering.use_fonts(figure) == []
        families = text.get_fontfamily()
        assert families[0] == lettering.FONT
        assert len(families) > 1
        assert not {*families} & {*lettering.BOXES}


def dots(ax: Any, marker: str = "o") -> list[float]:
    """The values of the large dots of a panel by architecture."""
    return sorted(float(y) for line in ax.lines if line.get_marker() == marker for y in line.get_ydata())


def test_dots_are_where_the_csv_says(small):
    drawing = drawn("fixed_feature", small)
    for panel, ax in zip(ExperimentInfo.of(small).targets, drawing.figure.axes, strict=True):
        of_panel = [n for n in drawing.numbers if n["target"] == panel.name]
        assert dots(ax) == pytest.approx(sorted(n["value"] for n in of_panel if n["series"] != "fixed eps"))
        assert dots(ax, "D") == pytest.approx(sorted(n["value"] for n in of_panel if n["series"] == "fixed eps"))
        assert {n["chosen_eps"] for n in of_panel if n["series"] == "best robust"} <= set(SMALL_EPS[1:])
        ends = [segment for lines in ax.collections for segment in lines.get_segments()]
        assert len(ends) == len(of_panel)
        assert {round(float(high - low), 6) for (_, low), (_, high) in ends} == {3}


def test_points_of_source_accuracy_are_those_of_the_csv(small):
    drawing = drawn("source_accuracy", small)
    for panel, ax in zip(ExperimentInfo.of(small).targets, drawing.figure.axes, strict=True):
        points = sorted(
            (round(float(x), 6), float(y))
            for c in ax.collections
            if len(c.get_facecolor())
            for x, y in c.get_offsets()
            if (x, y) != (0, 0)
        )
        numbers = [n for n in drawing.numbers if n["target"] == panel.name]
        transfer = sorted((round(n["source_value"], 6), n["value"]) for n in numbers if n["series"] == "transfer")
        assert len(points) == len(SMALL_ARCHS) * len(SMALL_EPS)
        for i in (0, 1):
            assert [point[i] for point in points] == pytest.approx([number[i] for number in transfer])
        level = [
            line.get_ydata()[0]
            for line in ax.lines
            if len(set(line.get_xdata())) == 2 and set(line.get_xdata()) == {0, 1}
        ]
        assert level == pytest.approx([n["value"] for n in numbers if n["series"] == "standard level"])


@pytest.mark.parametrize(("name", "lines"), [("width", len(SMALL_EPS)), ("granularity", 2 * 2 * len(SMALL_ARCHS))])
def test_curves_are_those_of_the_csv(name, lines, small):
    drawing = drawn(name, small)
    for panel, ax in zip(ExperimentInfo.of(small).targets, drawing.figure.axes, strict=True):
        curves = [line for line in ax.lines if line.get_marker() in style.MARKERS and line.get_markersize() < 6]
        assert len(curves) == lines
        values = sorted(float(y) for line in curves for y in line.get_ydata())
        assert values == pytest.approx(sorted(n["value"] for n in drawing.numbers if n["target"] == panel.name))


def test_headline_holds_every_number_of_its_csv(small):
    drawing = drawn("headline", small)
    assert len(drawing.numbers) == 2 * 4 * 4
    for one in drawing.numbers:
        for text in (drawing.markdown(), drawing.html(), drawing.latex().replace("$-$", "−")):
            assert f"{one['value']:.1f}" in text.replace("−", "-")


def test_headline_bolds_the_better_and_stars_the_difference_where_it_is_decided():
    results = table(2, ("resnet18",), ("0", "1", "3"), modes=("fixed-feature",))
    first, best = results["target"] == "Target 1", results["arch"] == "best"
    is_difference = results["metric"] == "top1_difference"
    columns = ["value", "ci_low", "ci_high"]
    results.loc[best & is_difference & first, columns] = 10.0, 8.0, 12.0
    results.loc[best & is_difference & ~first, columns] = -10.0, -21.0, 1.0
    for eps, value in {"best-robust": 80.0, "0": 70.0}.items():
        accuracy = best & ~is_difference & (results["eps"] == eps)
        results.loc[accuracy & first, "value"] = value
        results.loc[accuracy & ~first, "value"] = 150 - value
    text = drawn("headline", results).markdown()
    first, second = (next(line for line in text.splitlines() if line.startswith(f"| Target {i}")) for i in (1, 2))
    cells, others = ([cell.strip() for cell in line.strip("|").split("|")] for line in (first, second))
    assert cells[1].startswith("70.0")
    assert cells[2].startswith("**80.0")
    assert cells[5] == "+10.0 [+8.0, +12.0]\\*"
    assert others[1].startswith("80.0")
    assert others[2].startswith("70.0")
    assert others[5] == "−10.0 [−21.0, +1.0]"
    results.loc[best & is_difference & (results["target"] == "Target 2"), columns] = -10.0, -21.0, -1.0
    assert "| **80.0" in next(line for line in drawn("headline", results).markdown().splitlines() if "Target 2" in line)


def test_fixed_robustness_fits_a_line_or_says_what_it_lacks():
    archs = ("a", "b", "c", "d", "e")
    rows = []
    for i, arch in enumerate(archs):
        rows.append(row("imagenet", arch, "1", 50 + 5 * i, mode="source", selection=None))
        rows.append(row("t", arch, "1", 80 - 2 * i))
        if i < 4:
            rows.append(row("imagenet", arch, "3", 40 + i, mode="source", selection=None))
            rows.append(row("t", arch, "3", 60 + i * i))
    results = as_results(rows, ExperimentInfo("x", targets=(Target("t", "T", "top1"),), architectures=archs))
    cells = Cells(results)
    (panel,) = cells.panels("fixed-feature")
    full = linear_fit(cells, panel, "1")
    assert (full.networks, full.r2, full.slope) == (5, pytest.approx(1), pytest.approx(-0.4))
    assert linear_fit(cells, panel, "3").r2 is None
    text = drawn("fixed_robustness", results).markdown()
    assert "1.00 (−) [1.00, 1.00], n = 5, r −1.00 to −1.00" in text
    assert "needs 1 more network n = 4 " in text


def test_an_r2_that_one_network_makes_shows_it_and_its_interval():
    source, transfer = (97.0, 97.5, 98.0, 98.5, 99.0, 10.0), (81.0, 80.8, 80.2, 80.1, 79.5, 25.0)
    archs, rows = tuple("abcdef"), []
    for arch, x, y in zip(archs, source, transfer, strict=True):
        rows.append(row("imagenet", arch, "0.1", x, mode="source", selection=None))
        rows.append(row("t", arch, "0.1", y))
    results = as_results(rows, ExperimentInfo("x", targets=(Target("t", "T", "top1"),), architectures=archs))
    drawing = drawn("fixed_robustness", results)
    assert "1.00 [0.98, 1.00], n = 6, r −0.98 to +1.00" in drawing.markdown()
    (number,) = drawing.numbers
    assert number["r_without_one_low"] < -0.9 < 0.9 < number["r_without_one_high"]
    assert number["ci_low"] < number["r2"] < number["ci_high"]


def test_networks_without_seeds_as_published_ones_are_networks():
    rows = published_rows()
    archs = tuple(dict.fromkeys(rows.loc[rows["mode"] == "source", "arch"]))
    targets = tuple(Target(name, name, "top1") for name in ("cifar10", "cifar100"))
    info = ExperimentInfo("published", targets=targets, architectures=archs, selection="test")
    drawing = drawn("fixed_robustness", as_results(rows, info))
    assert {one["networks"] for one in drawing.numbers if one["eps"] == "1" and one["norm"] == "l2"} == {4}
    assert any(one["networks"] > 4 and one["r2"] is not None for one in drawing.numbers)
    with_seed = rows.assign(backbone_seed=0)
    assert drawn("fixed_robustness", as_results(with_seed, info)).numbers == drawing.numbers


def test_seeds_count_as_networks_and_pair_with_their_own_source_accuracy():
    rows = []
    for seed in range(5):
        rows.append(row("imagenet", "a", "1", 50 + seed, mode="source", selection=None, backbone_seed=seed))
        rows.append(row("t", "a", "1", 60 + 3 * seed, backbone_seed=seed))
    rows.append(row("t", "a", "1", 64.5, backbone_seed=None, transfer_seed=None))
    cells = Cells(as_results(rows, ExperimentInfo("x", targets=(Target("t", "T", "top1"),), architectures=("a",))))
    (panel,) = cells.panels("fixed-feature")
    found = linear_fit(cells, panel, "1")
    assert (found.networks, found.architectures, found.slope) == (5, 1, pytest.approx(3))


def only_robust(results: pd.DataFrame) -> pd.DataFrame:
    return results[(results["norm"] != "none") & ~results["metric"].str.endswith("_difference")]


def one_cell(results: pd.DataFrame) -> pd.DataFrame:
    return results[(results["target"] == "Target 2") & (results["eps"] == "0.25")]


def without_robust(results: pd.DataFrame) -> pd.DataFrame:
    return results[results["norm"] == "none"]


def half(results: pd.DataFrame) -> pd.DataFrame:
    """Every other row, so that cells are missing everywhere."""
    return results[np.random.default_rng(0).random(len(results)) < 0.5]


def linf(results: pd.DataFrame) -> pd.DataFrame:
    """The same networks, trained under the other norm."""
    renamed = {eps: f"{16 * float(eps):g}/255" for eps in results["eps"].astype("string") if eps[0] in "123456789"}
    chosen = [
        re.sub(r'(?<="eps":")[^"]+', lambda eps: renamed.get(eps[0], eps[0]), text)
        for text in results["hyperparameters"]
    ]
    rows = results.assign(
        norm=results["norm"].astype("string").replace("l2", "linf"),
        eps=results["eps"].astype("string").replace(renamed),
        hyperparameters=chosen,
    )
    return as_results(rows, replace(ExperimentInfo.of(results), fixed_eps={"linf": "16/255"}))


ODD = {
    "empty": lambda: table(2, SMALL_ARCHS, SMALL_EPS).head(0),
    "one of everything": lambda: table(1, ("resnet18",), ("0", "1", "3"), modes=("fixed-feature",)),
    "full-network only": lambda: table(2, SMALL_ARCHS, SMALL_EPS, modes=("full-network",)),
    "no standard networks": lambda: only_robust(table(2, SMALL_ARCHS, SMALL_EPS)),
    "no robust networks": lambda: without_robust(table(2, SMALL_ARCHS[:2], ("0", "1", "3"))),
    "one cell": lambda: one_cell(table(2, SMALL_ARCHS, SMALL_EPS)),
    "missing cells": lambda: half(table(2, SMALL_ARCHS[:2], ("0", "1", "3"))),
    "a single eps": lambda: table(1, SMALL_ARCHS[:2], ("0", "1")),
    "L∞ alone": lambda: linf(table(1, SMALL_ARCHS[:2], ("0", "1", "3"))),
    "ten networks": lambda: table(3, tuple(f"densenet{i}" for i in range(161, 171)), ("0", "1", "3")),
}


@pytest.mark.parametrize("shape", ODD)
@pytest.mark.parametrize("name", [name for name, figure in FIGURES.items() if figure.table == "results"])
def test_odd_tables_still_draw(name, shape):
    drawing = drawn(name, ODD[shape](), laid_out=shape == "one of everything" and not FIGURES[name].is_table)
    is_table = FIGURES[name].is_table
    texts = drawing.markdown() if is_table else " ".join(text.get_text() for text in visible_texts(drawing.figure))
    assert texts.strip()
    if not any(one.get("value", one.get("r2", one.get("spearman"))) for one in drawing.numbers):
        assert any(words in texts for words in ("not measured", "needs", "lacks", "two widths", "second norm"))


@pytest.mark.parametrize("shape", ODD)
def test_odd_tables_are_summed_up(shape, tmp_path):
    odd = ODD[shape]()
    write_results(tmp_path / "results.parquet", odd, odd.attrs["experiment"])
    text = summary(tmp_path / "results.parquet")
    assert "nan" not in text
    assert max(map(len, text.splitlines())) <= max(COLUMNS_OF_SUMMARY, len(str(tmp_path)) + 40)


def test_what_was_not_measured_is_named_in_its_place():
    results = table(2, SMALL_ARCHS, SMALL_EPS)
    keep = (results["target"] == "Target 1") | (results["arch"] != "resnet8_w24")
    drawing = drawn("fixed_feature", results[keep])
    words = [[text.get_text() for text in ax.texts].count("not\nmeasured") for ax in drawing.figure.axes]
    assert words == [0, 1]
    assert not drawing.figure.legends[-1].get_texts()[0].get_text().startswith("not measured")
    missing = [one for one in drawing.numbers if one["value"] is None]
    assert {(one["target"], one["arch"]) for one in missing} == {("Target 2", "resnet8_w24")}


@pytest.mark.parametrize("name", ["fixed_feature", "source_accuracy", "width", "granularity"])
def test_intervals_of_a_panel_are_of_one_kind_and_named(name):
    results = table(2, SMALL_ARCHS, SMALL_EPS)
    alone = "intervals over test images, of these weights alone"
    assert alone in " ".join(remarks(drawn(name, results)))
    by_seed = results["arch"].eq("resnet8_w16") & results["mode"].ne("source") & results["backbone_seed"].notna()
    others = [results[by_seed].assign(backbone_seed=seed, value=results["value"] + seed) for seed in (1, 2)]
    several = more(results, *others, seed_means(more(results[by_seed], *others)))
    drawing = drawn(name, as_results(several, ExperimentInfo.of(results)))
    by_kind = {kind: {one["arch"] for one in drawing.numbers if one["ci_kind"] == kind} for kind in ("seeds", "")}
    assert by_kind["seeds"] == {"resnet8_w16"}
    assert "resnet8_w8" in by_kind[""]
    assert not [one for one in drawing.numbers if one["ci_kind"] == "images" and one["series"] != "standard level"]
    assert "intervals over seeds, none for networks of one seed" in remarks(drawing)
    assert alone not in " ".join(remarks(drawing))


def test_networks_measured_nowhere_are_named_above_the_panels():
    results = table(2, SMALL_ARCHS, SMALL_EPS)
    keep = (results["arch"] != "resnet8_w24") | (results["mode"] != "full-network")
    drawing = drawn("full_network", results[keep])
    assert remarks(drawing)[-1] == "not measured: ResNet-8 w24"
    assert len(drawing.figure.axes[0].get_xticks()) == 2
    assert {one["arch"] for one in drawing.numbers if one["value"] is None} == {"resnet8_w24"}


def test_a_panel_without_downscaled_images_says_so():
    results = table(2, SMALL_ARCHS, SMALL_EPS)
    keep = (results["target"] == "Target 1") | ~is_downscaled(results)
    axes = drawn("granularity", results[keep]).figure.axes
    assert [[text.get_text() for text in ax.texts] for ax in axes] == [[], ["32 px: not measured"]]


def test_several_norms_have_panels_that_say_so():
    results = table(1, SMALL_ARCHS, SMALL_EPS, modes=("fixed-feature",))
    l2 = results[(results["norm"] == "l2") & results["eps_value"].notna()]
    other = l2.assign(norm="linf", eps=[f"{4 * float(eps):g}/255" for eps in l2["eps"]])
    norms = drawn("granularity", more(results, other))
    assert [ax.get_title() for ax in norms.figure.axes] == ["Target 1, L2", "Target 1, L∞"]


def by_the_paper(results: pd.DataFrame) -> pd.DataFrame:
    """The table's fixed-feature numbers by the paper's protocol, a point lower."""
    fixed = results[results["mode"] == "fixed-feature"]
    return fixed.assign(protocol="paper", value=fixed["value"] - 1)


def remarks(drawing: Any) -> list[str]:
    return [text.get_text() for text in drawing.figure.legends[-1].get_texts()]


@pytest.mark.parametrize("name", ["fixed_feature", "source_accuracy", "width", "granularity"])
def test_of_several_protocols_figures_show_the_one_asked_for_and_say_which(name):
    results = table(2, SMALL_ARCHS, SMALL_EPS)
    paper = by_the_paper(results)
    variants = [canonical({**json.loads(variant), "batchnorm": "frozen"}) for variant in paper["variant"]]
    deviating = paper.assign(variant=variants)
    several = more(deviating, paper, results)
    frozen = drawn(name, several)
    assert "measured by the frozen protocol" in remarks(frozen)
    assert frozen.numbers == drawn(name, results).numbers
    asked = drawn(name, about(several, protocol="paper"))
    assert "measured by the paper protocol" in remarks(asked)
    assert {one["deviations"] for one in asked.numbers} == {"{}"}
    only = about(more(deviating, results), protocol="paper")
    assert "measured by the paper protocol, batchnorm: frozen" in remarks(drawn(name, only))
    assert not any("measured by" in one for one in remarks(drawn(name, results)))


def test_tables_show_the_same_protocol_and_name_the_others():
    results = table(2, SMALL_ARCHS, SMALL_EPS)
    several = more(results, by_the_paper(results))
    text = drawn("headline", several).markdown()
    assert text.count("**Fixed-feature") == 1
    assert "Fixed-feature was measured in other ways too: paper protocol. The figure protocol_gap" in text
    assert "Full-network was measured" not in text
    assert drawn("headline", several).numbers == drawn("headline", results).numbers
    assert drawn("fixed_robustness", several).markdown() == drawn("fixed_robustness", results).markdown()


def test_detail_is_shown_by_the_protocol_it_was_measured_by():
    results = table(1, SMALL_ARCHS, SMALL_EPS, modes=("fixed-feature",))
    drawing = drawn("granularity", more(results[~is_downscaled(results)], by_the_paper(results)))
    assert {one["protocol"] for one in drawing.numbers} == {"paper"}
    assert "measured by the paper protocol" in remarks(drawing)


def test_what_a_choice_on_test_images_is_worth_stands_beside_it():
    results = table(1, SMALL_ARCHS, SMALL_EPS, modes=("fixed-feature",))
    best = results["eps"].eq("best-robust") & results["arch"].eq("best")
    choice = results[results["mode"] != "source"].assign(selection="test", value=results["value"] + 1)
    choice.loc[best, ["ci_low", "ci_high"]], choice.loc[best, "ci_kind"] = np.nan, ""
    unseen = choice.loc[best & results["metric"].eq("top1_difference")].assign(
        metric="top1_difference_out_of_bag", value=2.5, ci_low=-1.0, ci_high=6.0, ci_kind="images"
    )
    native = unseen[~is_downscaled(unseen)]
    assert len(native) == 1
    both = more(results, choice, unseen)
    assert "Unseen" not in drawn("headline", as_results(both, ExperimentInfo.of(results))).markdown()
    on_test = drawn("headline", about(both, selection="test")).markdown()
    assert "Unseen" in on_test
    assert "+2.5" in on_test
    assert "[−1.0, +6.0]" in on_test
    assert "nan" not in on_test
    gap = drawn("protocol_gap", as_results(both, ExperimentInfo.of(results))).markdown()
    assert "the same, unseen" in gap
    row = next(line for line in gap.splitlines() if "+2.5" in line)
    validation = results.loc[best & results["metric"].eq("top1_difference") & ~is_downscaled(results), "value"]
    assert f"+{validation.iloc[0]:.1f}" in row
    assert f"+{validation.iloc[0] + 1:.1f}" in row


def test_numbers_chosen_on_test_stay_out_where_validation_chose():
    results = table(1, SMALL_ARCHS, SMALL_EPS, modes=("fixed-feature",))
    cheating = results[results["mode"] != "source"].assign(selection="test", value=99.0)
    assert not any(n["value"] == 99 for n in drawn("headline", more(results, cheating)).numbers)
    alone = drawn("headline", cheating)
    assert "chosen on test" in alone.markdown()


def test_the_first_selection_of_the_experiment_is_shown_and_test_images_are_named():
    results = table(1, SMALL_ARCHS, SMALL_EPS, modes=("fixed-feature",))
    on_test = results[results["mode"] != "source"].assign(selection="test", value=99.0)
    both = about(more(results, on_test), selection="test")
    for name in ("fixed_feature", "source_accuracy", "width", "granularity"):
        drawing = drawn(name, both)
        assert {one["value"] for one in drawing.numbers} == {99}, name
        assert "hyperparameters chosen on test images" in remarks(drawing), name
    assert "chosen on test" in drawn("fixed_robustness", both).markdown()


def test_eps_axis_sets_0_apart_and_labels_what_fits():
    axis = EpsAxis(PAPER_EPS, "l2")
    places = [axis.positions[eps] for eps in PAPER_EPS]
    assert places == sorted(places)
    assert places[1] - places[0] > places[2] - places[1]
    assert axis.positions["1"] - axis.positions["0.1"] == pytest.approx(1)
    narrow = axis._fitting({eps: eps for eps in PAPER_EPS}, 0.4)
    assert {"0", "5"} <= narrow < set(PAPER_EPS)
    assert axis._fitting({eps: eps for eps in PAPER_EPS}, 4) == set(PAPER_EPS)
    assert EpsAxis(("0", "1/255", "4/255"), "linf").label() == "ε of pretraining (L∞, in 1/255)"


def test_a_point_is_as_high_in_every_panel_but_where_one_needs_a_scale_of_its_own():
    results = table(3, SMALL_ARCHS, SMALL_EPS)
    spans = [np.ptp(ax.get_ylim()) for ax in drawn("fixed_feature", results).figure.axes]
    assert max(spans) == pytest.approx(min(spans))
    last, standard = results["target"] == "Target 3", results["eps"] == "0"
    columns = ["value", "ci_low", "ci_high"]
    results.loc[last & standard & ~results["metric"].str.endswith("difference"), columns] = 5.0, 4.0, 6.0
    drawing = drawn("fixed_feature", results)
    one, other, own = (np.ptp(ax.get_ylim()) for ax in drawing.figure.axes)
    assert one == pytest.approx(other)
    assert own > 2 * one
    said = [[text.get_text() for text in ax.texts].count("own scale") for ax in drawing.figure.axes]
    assert said == [0, 0, 1]
    assert "all panels span the same number of points, but for those with a scale of their own" in remarks(drawing)


def test_the_y_label_that_panels_share_stands_beside_their_middle(tmp_path: Path) -> None:
    figure = drawn("fixed_feature", table(2, SMALL_ARCHS, SMALL_EPS)).figure
    style.save(figure, tmp_path / "saved")
    (label,) = (text for text in figure.texts if text.get_text() == "Fixed-feature accuracy (%)")
    places = [ax.get_position() for ax in figure.axes]
    bottom, top = min(place.y0 for place in places), max(place.y1 for place in places)
    assert label.get_position()[1] == pytest.approx((bottom + top) / 2)
    assert (bottom + top) / 2 < 0.45  # the legend stands above


def test_the_difference_of_a_pair_stands_above_it_with_what_was_chosen():
    results = table(2, ("resnet18", "resnet50"), ("0", "1", "3"), modes=("fixed-feature",))
    difference = results["metric"].eq("top1_difference") & ~is_downscaled(results)
    first = difference & results["target"].eq("Target 1")
    results.loc[difference, ["value", "ci_low", "ci_high"]] = -2.5, -4.0, 1.0
    results.loc[first, ["value", "ci_low", "ci_high"]] = 1.7, 0.4, 3.0
    chosen = {
        (one["target"], one["arch"]): one["chosen_eps"]
        for one in drawn("fixed_feature", results).numbers
        if one["chosen_eps"]
    }
    axes = drawn("fixed_feature", results).figure.axes
    texts = [[text.get_text() for text in ax.texts] for ax in axes]
    assert texts[0] == [f"+1.7*\nε {chosen['Target 1', arch]}" for arch in ("resnet18", "resnet50")]
    assert texts[1] == [f"−2.5\nε {chosen['Target 2', arch]}" for arch in ("resnet18", "resnet50")]


def test_points_of_few_images_are_those_of_the_csv(small_few):
    drawing = drawn("few_images", small_few)
    for panel, ax in zip(ExperimentInfo.of(small_few).targets, drawing.figure.axes, strict=True):
        curves = [line for line in ax.lines if line.get_marker() in style.MARKERS]
        values = sorted(float(y) for line in curves for y in line.get_ydata())
        assert values == pytest.approx(sorted(n["value"] for n in drawing.numbers if n["target"] == panel.name))
    assert {one["mode"] for one in drawing.numbers} == {"fixed-feature"}
    assert [one["images_per_class"] for one in drawing.numbers[:4]] == [5, 10, 25, "all"]
    labels = [tick.get_text() for tick in drawing.figure.axes[-1].get_xticklabels()]
    assert labels == ["5", "10", "25", "all"]


def test_few_images_are_means_over_subsets_with_the_interval_over_these():
    results = table(1, ("resnet8_w16",), ("0", "0.5", "1"), modes=("fixed-feature",))
    once = few_images(results, sizes=(5,))
    few = once[once["images_per_class"].notna() & once["transfer_seed"].notna()]
    draws = pd.concat([few.assign(transfer_seed=seed, value=20 + 3.0 * seed) for seed in range(5)])
    together = as_results(more(results, draws, seed_means(draws)), ExperimentInfo.of(results))
    drawing = drawn("few_images", together)
    five, everything = (
        next(one for one in drawing.numbers if one["images_per_class"] == size and one["eps"] == "0.5")
        for size in (5, "all")
    )
    assert (five["value"], five["subsets"], five["ci_kind"], five["n"]) == (26, 5, "seeds", 5)
    images = float((draws["ci_high"] - draws["ci_low"]).mean()) / 2  # all subsets are tested on the same images
    # The variance of the five is 22.5.
    assert five["ci_high"] - 26 == pytest.approx(np.hypot(2.776 * 22.5**0.5 / 5**0.5, images), rel=1e-3)
    assert (everything["subsets"], everything["ci_kind"]) == (None, "")  # no interval of another kind beside them
    assert np.isnan(everything["ci_low"])
    said = " ".join(remarks(drawing))
    assert "few images: means over 5 subsets of the training images, intervals over subsets" in said
    alone = " ".join(remarks(drawn("few_images", once)))
    assert "one subset of the training images, intervals over test images, which hide how much subsets differ" in alone


def test_images_counted_in_total_have_panels_of_their_own():
    results = table(2, ("resnet8_w16",), ("0", "0.5"), modes=("fixed-feature",))
    in_total = few_images(results, sizes=(30, 60))
    counted = in_total["images_per_class"].notna()
    in_total = in_total.assign(training_images=in_total["images_per_class"])[counted].assign(images_per_class=None)
    in_total = as_results(in_total, ExperimentInfo.of(results))
    alone = drawn("few_images", more(results, in_total))
    assert [one["training_images"] for one in alone.numbers[:3]] == [30, 60, "all"]
    assert {one["images_per_class"] for one in alone.numbers} == {None}
    assert alone.figure.get_supxlabel() == "Training images in total"
    both = drawn("few_images", more(few_images(results, sizes=(5,)), in_total))
    titles = [ax.get_title().replace("\n", " ") for ax in both.figure.axes]
    assert titles == [f"Target {i}, images {how}" for how in ("of each class", "in total") for i in (1, 2)]
    ticks = [[tick.get_text() for tick in ax.get_xticklabels()] for ax in both.figure.axes]
    assert ticks == [["5", "all"]] * 2 + [["30", "60", "all"]] * 2
    assert both.figure.get_supxlabel() == "Training images of each class or in total"


def test_published_numbers_from_as_many_images_stand_behind_ours():
    results = table(1, ("resnet50",), ("0", "3"), modes=("full-network",))
    names = {"target": "cifar10", "source": "imagenet", "metric": "top1"}
    info = ExperimentInfo.of(results)
    info = replace(info, source="imagenet", targets=(Target("cifar10", "CIFAR-10", "top1"),))
    ours = results[results["target"] == "Target 1"].astype({"target": "object"}).assign(**names)
    sized = [ours.assign(training_images=size, value=40.0 + size / 100) for size in (100, 150)]
    rows = as_results(pd.concat([ours, *sized]), info)
    drawing = drawn("few_images", beside_published(rows, published_few_images()))
    found = {(one["experiment"], one["eps"], one["training_images"]): one for one in drawing.numbers}
    theirs = {key[1:]: one["value"] for key, one in found.items() if key[0] == "published"}
    assert theirs == {("0", 100): 48.493, ("3", 100): 51.891, ("0", "all"): 95.36, ("3", "all"): 95.86}
    mine = found[info.experiment, "3", 100]
    assert mine["published"] == 51.891
    assert mine["difference"] == pytest.approx(41 - 51.891)
    assert found[info.experiment, "3", 150]["published"] is None
    labels = [text.get_text() for text in drawing.figure.findobj(Text)]
    assert "published" in labels


def test_few_images_draws_the_networks_it_has_and_names_what_is_not_there():
    results = table(2, SMALL_ARCHS, SMALL_EPS)
    fewer = few_images(results)
    one = (fewer["mode"] == "full-network") & (fewer["arch"] == "resnet8_w16") & (fewer["target"] == "Target 1")
    drawing = drawn("few_images", fewer[fewer["images_per_class"].isna() | one])
    assert {one["mode"] for one in drawing.numbers} == {"full-network"}
    assert {(one["target"], one["arch"]) for one in drawing.numbers} == {("Target 1", "resnet8_w16")}
    assert [ax.get_title() for ax in drawing.figure.axes] == ["Target 1"]
    said = [text.get_text() for legend in drawing.figure.legends for text in legend.get_texts()]
    assert "not measured: Target 2" in said
    assert drawn("headline", fewer).numbers == drawn("headline", results).numbers
    on_test = drawn("few_images", few_images(results, selection="test"))
    assert [text.get_text() for text in on_test.figure.axes[0].texts] == ["Transfer from few images: not measured"]


def gaps(drawing: Any, mode="fixed-feature") -> dict[tuple[str, str], tuple[float, ...]]:
    """(mean, least, most, n) by what is taken from what, and of which backbones."""
    return {
        (one["series"], one["backbones"]): tuple(round(one[name], 6) for name in ("value", "least", "most", "n"))
        for one in drawing.numbers
        if one["mode"] == mode and "backbones" in one
    }


def test_gaps_are_those_of_numbers_that_differ_in_nothing_else(many_protocols):
    found = gaps(drawn("protocol_gap", many_protocols))
    expected = {
        "chosen on test less on validation, frozen protocol": 0.5,
        "chosen on test less on validation, paper protocol": 0.5,
        "paper as released less frozen protocol": -6,
        "paper with both deviations less frozen protocol": -3,
        "BatchNorm drifting less frozen": -2,
        "target less source normalisation": -1,
    }
    for name, worth in expected.items():
        for kind in ("standard", "robust"):
            assert found.pop((name, kind)) == (worth, worth, worth, 6)
        assert found.pop((name, "robust less standard")) == (0, 0, 0, 6)
    assert not found
    full = gaps(drawn("protocol_gap", many_protocols), "full-network")
    assert {name for name, _ in full} == {"chosen on test less on validation", "target less source normalisation"}


def test_a_gap_that_favours_robust_networks_is_seen_as_their_difference():
    results = by(3, [FROZEN, RELEASED], selections=("validation",))
    results.loc[(results["eps"] == "3") & (results["protocol"] == "paper"), "value"] += 4
    drawing = drawn("protocol_gap", results)
    name = "paper as released less frozen protocol"
    assert gaps(drawing) == {
        (name, "standard"): (-6, -6, -6, 3),
        (name, "robust"): (-2, -2, -2, 3),
        (name, "robust less standard"): (4, 4, 4, 3),
    }
    assert f"| {name} | −6.0 [−6.0, −6.0] (3) | −2.0 [−2.0, −2.0] (3) | +4.0 [+4.0, +4.0] (3) |" in drawing.markdown()
    assert "chosen on test" not in drawing.markdown()


def test_neighbours_have_a_column_and_a_gap_of_their_own() -> None:
    drawing = drawn("protocol_gap", by(2, [KNN, BOTH, RELEASED, FROZEN], selections=("validation",)))
    header = [cell.strip() for cell in drawing.markdown().splitlines()[0].strip("|").split("|")]
    assert header[2:] == ["frozen", "paper, as released", "paper, both", "nearest neighbours"]
    found = gaps(drawing)
    assert {name: worth for (name, kind), worth in found.items() if kind == "standard"} == {
        "knn less frozen protocol": (-3, -3, -3, 2),
        "paper as released less frozen protocol": (-6, -6, -6, 2),
        "paper with both deviations less frozen protocol": (-3, -3, -3, 2),
    }
    alone = drawn("protocol_gap", by(2, [KNN, FROZEN], selections=("validation",)))
    assert "Paper, as released" not in alone.markdown()


@pytest.mark.parametrize(
    ("measured_by", "shown"), [([KNN, RELEASED, FROZEN], "frozen"), ([KNN, RELEASED], "paper"), ([KNN], "knn")]
)
def test_figures_show_neighbours_only_where_nothing_else_is(measured_by: list[How], shown: str) -> None:
    protocol = Cells(by(1, measured_by)).shown("fixed-feature")
    assert protocol is not None
    assert protocol.name == shown
    assert protocol_label(protocol) == f"Fixed-feature ({shown} protocol)"


def test_every_accuracy_of_the_gap_stands_in_its_protocol_and_selection(many_protocols):
    drawing = drawn("protocol_gap", many_protocols)
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in drawing.markdown().splitlines()]
    fixed = lines[: lines.index([""])]
    assert fixed[0][:5] == ["Fixed-feature", "", "chosen on", "frozen", "paper, as released"]
    assert fixed[2][:3] == ["Target 1", "standard", "validation"]
    assert [cell.split(" [")[0] for cell in fixed[2][3:]] == ["53.0", "47.0", "49.0", "48.0", "50.0"]
    assert [cell.split(" [")[0] for cell in fixed[3][3:]] == ["53.5", "47.5", "49.5", "48.5", "50.5"]
    assert fixed[4][:3] == ["", "robust, ε 3", "validation"]
    assert "| Target 1 | standard | 47.0 [45.5, 48.5] | 47.5 [46.0, 49.0] | 48.0" in drawing.markdown()  # full-network
    assert len([one for one in drawing.numbers if one["series"] == "accuracy"]) == len(many_protocols)


def test_only_backbones_measured_by_several_protocols_have_lines_but_all_selections_count():
    several, single = by(2, [FROZEN, RELEASED]), by(2, [FROZEN], eps=("0.5", "1"))
    drawing = drawn("protocol_gap", more(several, single))
    assert "ε 3" in drawing.markdown()
    assert "ε 0.5" not in drawing.markdown()
    assert gaps(drawing)["chosen on test less on validation, frozen protocol", "robust"][-1] == 6
    alone = drawn("protocol_gap", single)
    assert "| Target 1 | robust, ε 0.5 |" in alone.markdown()
    assert "Paper, as released" not in alone.markdown()
    assert gaps(alone) == {("chosen on test less on validation", "robust"): (0.5, 0.5, 0.5, 4)}
    once = drawn("protocol_gap", by(2, [FROZEN], selections=("validation",)))
    assert not once.numbers
    assert "not measured" in once.markdown()


def test_protocols_are_compared_on_the_seed_that_all_of_them_have():
    frozen, paper = by(1, [FROZEN], ("validation",)), by(1, [RELEASED], ("validation",))
    seeds = [frozen.assign(transfer_seed=seed, value=frozen["value"] + 10) for seed in (1, 2)]
    means = frozen.assign(transfer_seed=None, value=frozen["value"] + 7, entry=None)
    drawing = drawn("protocol_gap", more(means, *seeds, frozen, paper))
    assert gaps(drawing)["paper as released less frozen protocol", "standard"] == (-6, -6, -6, 1)
    said = "on 2 of 2 lines the first seed that all ways share stands alone"
    assert said in drawing.markdown()
    by_one_protocol = by(1, [FROZEN], eps=("0.5", "1"))  # gaps of selections count it, and the table has no line of it
    assert said in drawn("protocol_gap", more(means, *seeds, frozen, paper, by_one_protocol)).markdown()
    even = [one.assign(protocol="paper") for one in (means, *seeds, frozen)]
    drawing = drawn("protocol_gap", more(means, *seeds, frozen, *even))
    assert {one["value"] for one in drawing.numbers if one["series"] == "accuracy"} == {*means["value"]}
    assert "stands alone" not in drawing.markdown()


def test_more_lines_than_a_page_holds_are_counted():
    drawing = drawn("protocol_gap", by(30, [FROZEN, RELEASED]))
    assert "Fixed-feature: 12 more backbones in protocol_gap.csv." in drawing.markdown()
    assert "| Target 24 |" in drawing.markdown()
    assert "| Target 25 |" not in drawing.markdown()
    assert len([one for one in drawing.numbers if one["series"] == "accuracy"]) == 240


def without_checks(table: pd.DataFrame, arch: str) -> pd.DataFrame:
    """The table as it is where a network's entries were made before anything was checked."""
    old = table.copy()
    old.loc[old["arch"] == arch, ["side", "clean_accuracy", "robust_accuracy"]] = None
    return old


def test_training_curves_are_those_of_the_csv(small_curves):
    drawing = drawn("training", small_curves)
    measures = ("loss", "train_accuracy", "clean_accuracy", "robust_accuracy")
    axes = drawing.figure.axes
    assert len(axes) == len(SMALL_ARCHS) * len(measures)
    colours = style.eps_colours(SMALL_EPS)
    for place, ax in enumerate(axes):
        arch, measure = SMALL_ARCHS[place // 4], measures[place % 4]
        shown = {matplotlib.colors.to_hex(line.get_color()): line.get_xydata().tolist() for line in ax.lines}
        listed: dict[str, list[Any]] = {}
        for one in drawing.numbers:
            if (one["arch"], one["series"]) == (arch, measure):
                colour = matplotlib.colors.to_hex(colours[one["eps"]])
                listed.setdefault(colour, []).append([one["epoch"], one["value"]])
        assert shown == listed
        assert len(shown) == len(SMALL_EPS) - (measure == "robust_accuracy")


def test_training_curves_share_their_scales(small_curves):
    axes = drawn("training", small_curves).figure.axes
    assert len({ax.get_ylim() for i, ax in enumerate(axes) if i % 4}) == 1
    assert len({ax.get_ylim() for i, ax in enumerate(axes) if not i % 4}) == 1
    assert len({ax.get_xlim() for ax in axes}) == 1


def test_epochs_that_were_not_checked_are_bridged():
    axes = drawn("training", curves(("resnet18",), ("0", "1"), 7, every=3)).figure.axes
    assert [line.get_xdata().tolist() for line in axes[2].lines] == [[3, 6, 7]] * 2


def test_a_single_epoch_is_a_dot_and_has_no_schedule():
    drawing = drawn("training", curves(("resnet18",), ("0", "1"), 1), laid_out=True)
    assert {len(line.get_xdata()) for ax in drawing.figure.axes for line in ax.lines} == {1}
    assert {line.get_marker() for ax in drawing.figure.axes for line in ax.lines} == {"o"}
    assert "learning_rate" not in {one["series"] for one in drawing.numbers}
    assert not drawing.figure.axes[0].collections


def test_old_entries_draw_what_they_recorded(small_curves):
    some = drawn("training", without_checks(small_curves, "resnet8_w16"))
    words = [[text.get_text() for text in ax.texts] for ax in some.figure.axes]
    assert words == [[]] * 6 + [["not measured"]] * 2 + [[]] * 4
    every = without_checks(curves(("resnet18",), ("0", "1"), 5), "resnet18")
    drawing = drawn("training", every, laid_out=True)
    assert len(drawing.figure.axes) == 2
    assert "check sample: not measured" in [text.get_text() for text in drawing.figure.legends[-1].get_texts()]


def test_of_many_networks_those_with_most_backbones_are_drawn_and_the_others_named(paper_curves):
    drawing = drawn("training", paper_curves)
    labels = [ax.get_ylabel() for ax in drawing.figure.axes if ax.get_ylabel()]
    assert labels == [architecture_label(f) for f in (*PAPER_ARCHS, *(f"densenet{i}" for i in range(161, 165)))]
    note = [text.get_text() for legend in drawing.figure.legends for text in legend.get_texts()]
    assert "in training.parquet, not drawn: DenseNet-165, DenseNet-166, DenseNet-167, 1 more" in note
    assert "thin lines: single seeds" in note
    assert {one["arch"] for one in drawing.numbers}.isdisjoint({f"densenet{i}" for i in range(165, 169)})


def test_norms_have_rows_of_their_own_beside_the_same_standard_network():
    table = curves(("resnet18",), ("0", "1"), 3, course("resnet18", "4/255", 3, norm="linf"))
    drawing = drawn("training", table)
    labels = [ax.get_ylabel() for ax in drawing.figure.axes if ax.get_ylabel()]
    assert labels == ["ResNet-18\nL2", "ResNet-18\nL∞"]
    assert [len(ax.lines) for ax in drawing.figure.axes] == [2, 2, 2, 1] * 2
    keys = [(one["entry"], one["epoch"], one["series"]) for one in drawing.numbers]
    assert len(set(keys)) == len(keys)


def test_a_learning_rate_that_differs_between_backbones_is_not_shaded():
    shaded = drawn("training", curves(("resnet18",), ("0", "1"), 3))
    assert len(shaded.figure.axes[0].collections) == 1
    assert "learning rate, up to 0.1" in [text.get_text() for text in shaded.figure.legends[-1].get_texts()]
    other = drawn("training", curves(("resnet18",), ("0",), 3, course("resnet18", "1", 3, learning_rate=0.3)))
    assert not other.figure.axes[0].collections


ODD_CURVES = {
    "empty": lambda: curves((), (), 0),
    "one backbone": lambda: curves(("resnet18",), ("1",), 2),
    "standard networks only": lambda: curves(("resnet18",), ("0",), 2),
    "a loss that is no number": lambda: curves(("resnet18",), ("0", "1"), 3, loss=math.nan),
    "nothing right": lambda: curves(
        *(("resnet18",), ("0", "1"), 3), train_accuracy=0.0, clean_accuracy=0.0, robust_accuracy=0.0
    ),
    "of unequal length": lambda: curves(("resnet18",), ("0",), 9, course("resnet18", "1", 2)),
}


@pytest.mark.parametrize("shape", ODD_CURVES)
def test_odd_trainings_still_draw(shape):
    drawing = drawn("training", ODD_CURVES[shape](), laid_out=True)
    texts = " ".join(text.get_text() for text in visible_texts(drawing.figure))
    assert ("not measured" in texts) == (shape in ("empty", "a loss that is no number"))
    assert bool(drawing.numbers) == (shape != "empty")


@pytest.fixture(scope="module")
def collected(tmp_path_factory) -> Path:
    """A table that went through the results stage, with two seeds of one network."""
    fake = Fake(tmp_path_factory.mktemp("collected"), bootstrap=100)
    for eps, accuracy in (("0", 30), ("0.25", 70), ("1", 60)):
        for seed in (0, 1):
            fake.source(90 - 20 * float(eps), eps=eps, backbone_seed=seed)
            for target in fake.targets:
                fake.transfer(accuracy + seed, accuracy + seed, target=target, eps=eps, backbone_seed=seed)
        fake.transfer(accuracy, accuracy, "finetuning", target="coarse", eps=eps)
    return fake.collect()


@pytest.mark.parametrize("name", ["headline", "fixed_feature", "source_accuracy", "training"])
def test_files_are_written_and_the_same_bytes_twice(name, collected, tmp_path):
    for again in ("first", "second"):
        draw(name, collected.with_name(f"{FIGURES[name].table}.parquet"), tmp_path / again / name)
    kinds = {"html", "tex", "md", "csv"} if name == "headline" else {"svg", "pdf", "png", "csv"}
    assert {path.suffix[1:] for path in (tmp_path / "first").iterdir()} == kinds == {*FIGURES[name].suffixes}
    for path in (tmp_path / "first").iterdir():
        assert path.read_bytes() == (tmp_path / "second" / path.name).read_bytes(), path.name
    with open(tmp_path / "first" / f"{name}.csv") as file:
        numbers = list(csv.DictReader(file))
    assert numbers
    assert {number.get("target") for number in numbers} <= {"coarse", "fine", None}


@pytest.fixture(scope="module")
def source_alone(tmp_path_factory):
    """The tables of an experiment that only evaluates a network on the source: most figures have nothing to show."""
    fake = Fake(tmp_path_factory.mktemp("source_alone"))
    fake.source(90)
    return fake.collect()


@pytest.mark.parametrize("name", FIGURES)
def test_the_csv_has_one_header_with_numbers_and_without(name, collected, source_alone, tmp_path):
    module = importlib.import_module(f"robust_transfer.figures.{FIGURES[name].module}")
    found = {}
    for where, results in {"full": collected, "empty": source_alone}.items():
        draw(name, results.with_name(f"{FIGURES[name].table}.parquet"), tmp_path / where / name)
        found[where] = pd.read_csv(tmp_path / where / f"{name}.csv")
    assert list(found["empty"].columns) == list(found["full"].columns) == list(getattr(module, "COLUMNS", COLUMNS))
    assert found["empty"].empty or name == "training"


def test_no_colour_is_behind_a_text():
    texts = ["report", *(f"figures/{name}" for name, figure in FIGURES.items() if figure.is_table)]
    assert len(texts) > 3
    for name in texts:
        assert "figures.style" not in fingerprint.modules(name), name
    assert "figures.style" in fingerprint.modules("figures/width")


def test_seeds_are_small_dots_beside_their_mean(collected):
    drawing = drawn("fixed_feature", read_results(collected))
    first = [one for one in drawing.numbers if one["target"] == "coarse"]
    assert first[0]["value"] == pytest.approx(30.5)
    dots = [line for line in drawing.figure.axes[0].lines if line.get_marker() == "."]
    assert sorted(dots[0].get_ydata()) == pytest.approx([30, 31])


def test_an_unknown_figure_is_an_error_that_names_those_there_are(collected, tmp_path):
    with pytest.raises(TableError, match="figure pie: no such figure; there are headline, fixed_feature"):
        draw("pie", collected, tmp_path / "pie")


def test_every_module_here_is_in_the_fingerprint_of_some_figure_or_of_the_summary():
    made = [*(f"figures/{figure}" for figure in FIGURES), "report"]
    covered = {module for name in made for module in fingerprint.modules(name)}
    folder = fingerprint.ROOT / "figures"
    assert {f"figures.{path.stem}" for path in folder.glob("*.py") if path.stem != "__init__"} <= covered


def test_metadata_of_the_table_reaches_the_figure(collected):
    info = ExperimentInfo.of(read_results(collected))
    assert info.fixed_eps == {"l2": "0.25"}
    assert [target.label for target in info.targets] == ["Coarse", "Fine"]


def test_an_older_table_shows_what_was_chosen_on_validation(tmp_path):
    fake = Fake(tmp_path, selection="test", protocol="paper")
    described = json.loads(fake.write().read_text())
    asked = ExperimentInfo.from_json(described)
    assert (asked.selection, asked.protocol) == ("test", "paper")
    older = ExperimentInfo.from_json(
        {name: value for name, value in described.items() if name not in ("selection", "protocol")}
    )
    assert (older.selection, older.protocol) == ("validation", None)


class TestPublished:
    """The paper's own numbers, which have no intervals, and Linf ones for two targets alone."""

    TARGETS = ("aircraft", "cifar10", "flowers", "cifar100")

    @pytest.fixture
    def published(self):
        targets = tuple(
            Target(name, name, "mean_per_class" if name in ("aircraft", "flowers") else "top1") for name in self.TARGETS
        )
        info = ExperimentInfo(
            "published", source="imagenet", source_label="ImageNet", targets=targets, selection="test",
            protocol="paper", architectures=("resnet18", "resnet50", "wide_resnet50_2", "wide_resnet50_4"),
        )  # fmt: skip
        rows = published_rows()
        return as_results(rows[rows["source"] == "imagenet"], info)

    @pytest.mark.parametrize("name", ["fixed_feature", "full_network", "source_accuracy", "width", "granularity"])
    def test_they_are_drawn(self, published, name):
        assert "nan" not in str([text.get_text() for text in drawn(name, published).figure.findobj(Text)])

    def test_the_headline_has_no_brackets_without_an_interval(self, published):
        text = drawn("headline", published).markdown()
        assert "95.5" in text
        assert "[" not in text.partition("Test accuracy")[0]

    def test_a_norm_has_panels_where_it_was_measured(self, published):
        panels = [panel.label for panel in Cells(published).panels("fixed-feature")]
        assert panels == ["aircraft, L2", "cifar10, L2", "cifar10, L∞", "flowers, L2", "cifar100, L2", "cifar100, L∞"]


def test_p_values_and_numbers_that_would_decide_are_rounded():
    assert [p_text(p) for p in (1.0, 0.0345, 0.0001, 0.00009, 0.0)] == ["1", "0.035", "0.0001", "< 0.0001", "< 0.0001"]
    assert [rounded_up(number) for number in (5, 99, 101, 8314)] == [5, 99, 110, 8400]

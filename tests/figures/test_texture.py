"""Figure 8: the published numbers cell by cell, and texture-robust networks that count as neither side elsewhere."""

import csv
from dataclasses import replace

import matplotlib
import numpy as np
import pandas as pd
import pytest
from robust_transfer.figures import style
from robust_transfer.figures.beside import TITLE
from robust_transfer.figures.by_architecture import full_network
from robust_transfer.figures.cells import Cells
from robust_transfer.figures.texture import texture
from robust_transfer.tables.experiment_info import ExperimentInfo
from robust_transfer.tables.key import BEST_ROBUST, canonical
from robust_transfer.tables.measured import measured
from robust_transfer.tables.published import FOLDER, PUBLISHED
from robust_transfer.tables.published_experiment import beside_published
from robust_transfer.tables.published_texture import published_texture
from robust_transfer.tables.results import RESULTS, as_results

ON_STYLIZED = canonical({"stylized": "adain"})
ROBUST = "texture-robust-stylized"


@pytest.fixture(scope="module")
def published() -> pd.DataFrame:
    return published_texture()


@pytest.fixture(autouse=True)
def look():
    with matplotlib.rc_context(style.RC):
        yield


def about(results: pd.DataFrame, **of) -> pd.DataFrame:
    return as_results(results, replace(ExperimentInfo.of(results), **of))


def test_every_published_number_is_drawn_once_where_it_belongs(published):
    with open(FOLDER / "stylized.csv", newline="") as file:
        expected = {}
        for row in csv.DictReader(file):
            on_it, from_it = row["target"] == "stylized_imagenet", row["source"] == "stylized_imagenet"
            series = "texture-robust" if from_it else "standard" if row["eps"] == "0" else "best robust"
            if on_it:
                series = "tested, no training" if row["mode"] == "source" else "full-network transfer"
            target = "imagenet" if on_it else row["target"]
            key = (target, row["mode"], row["arch"], row["eps"], ROBUST if from_it else None, series)
            assert key not in expected
            expected[key] = float(row["value"])
    drawn = texture(published).numbers
    found = {
        tuple(one[name] for name in ("target", "mode", "arch", "eps", "recipe", "series")): one["value"]
        for one in drawn
    }
    assert len(drawn) == len(found) == len(expected) == 164
    assert found == expected


def test_dots_and_points_are_as_high_as_the_numbers(published):
    axes = texture(published).figure.axes
    heights = [
        float(np.asarray(line.get_ydata())[0]) for ax in axes[2:] for line in ax.lines if line.get_marker() == "o"
    ]
    points = [
        value
        for ax in axes[:2]
        for line in ax.lines
        if str(line.get_marker()) in "os"
        for value in np.asarray(line.get_ydata())
    ]
    tested = published["variant"] == ON_STYLIZED
    np.testing.assert_allclose(sorted(heights), sorted(published.loc[~tested, "value"]))
    np.testing.assert_allclose(sorted(points), sorted(published.loc[tested, "value"]))


def test_what_is_missing_is_said(published):
    on_source = published["target"] == "imagenet"
    without = {
        "stylized images of the source: not measured": published[~on_source],
        "texture-robust networks on targets: not measured": published[on_source],
    }
    for says, rows in without.items():
        drawing = texture(about(rows))
        texts = " ".join(text.get_text() for legend in drawing.figure.legends for text in legend.get_texts())
        assert says in " ".join(texts.split())
        assert len(drawing.numbers) == len(rows[rows["target"].astype("string") != "imagenet"]) or on_source.any()
    nothing = texture(about(published[on_source].iloc[:0]))
    assert not nothing.numbers
    assert "not measured" in nothing.figure.axes[0].texts[0].get_text()


def test_a_texture_robust_network_is_a_line_beside_the_curve(published):
    tested = published[(published["variant"] == ON_STYLIZED) & (published["arch"] == "resnet18")]
    robust = tested[(tested["eps"] == "0") & (tested["mode"] == "source")].assign(recipe=ROBUST, value=42.0)
    drawing = texture(about(pd.concat([tested, robust])))
    assert [one["value"] for one in drawing.numbers if one["recipe"] == ROBUST] == [42.0]
    levels = [line.get_ydata() for line in drawing.figure.axes[0].lines if line.get_color() == "#d55e00"]
    np.testing.assert_array_equal(levels, [[42.0, 42.0]])


def ours(rows: pd.DataFrame, **of) -> pd.DataFrame:
    """An experiment of these published cells, half a point better in each, with the published numbers beside it."""
    own = rows.assign(experiment="again", value=rows["value"] + 0.5, ci_kind="images")
    own = RESULTS.frame(own.assign(ci_low=own["value"] - 1, ci_high=own["value"] + 1))
    info = replace(ExperimentInfo.of(published_texture()), experiment="again", **of)
    return beside_published(as_results(own, info), published_texture())


def texts(drawing) -> list[str]:
    return [text.get_text() for legend in drawing.figure.legends for text in legend.get_texts()]


def test_published_numbers_stand_behind_ours_and_a_panel_says_what_they_differ_by(published):
    drawing = texture(ours(published, on_stylized_imagenet=(ROBUST,)))
    mine, theirs = ([one for one in drawing.numbers if (one["experiment"] == PUBLISHED) is of] for of in (False, True))
    assert len(mine) == len(theirs) == 164
    assert {round(float(str(one["difference"])), 6) for one in mine} == {0.5}
    assert not any("difference" in one for one in theirs)
    *panels, last = drawing.figure.axes
    assert last.get_title() == TITLE
    assert [label.get_text() for label in last.get_yticklabels()][:2] == ["Stylized ImageNet", "Aircraft"]
    assert sum(line.get_marker() == "o" for line in last.lines) == 164
    hollow = [
        y
        for ax in panels
        for line in ax.lines
        if line.get_marker() in ("o", "s") and line.get_markerfacecolor() == "white"
        for y in np.asarray(line.get_ydata())
    ]
    np.testing.assert_allclose(sorted(hollow), sorted(published["value"]))
    assert {"published", "texture-robust, Stylized ImageNet"} <= {*texts(drawing)}


def test_an_imported_network_of_stylized_imagenet_stands_over_the_published_one(published):
    rows = published.assign(recipe=published["recipe"].mask(published["recipe"] == ROBUST, "sin"))
    named = {"texture_robust": {"sin": "texture-robust, sin"}}
    over = texture(ours(rows, on_stylized_imagenet=("sin",), **named))
    assert all(one["difference"] is not None for one in over.numbers if one["experiment"] == "again")
    beside = texture(ours(rows, **named))
    robust = [one for one in beside.numbers if one["series"] == "texture-robust"]
    assert {(one["experiment"], one["recipe"], one.get("difference")) for one in robust} == {
        ("again", "sin", None),
        (PUBLISHED, ROBUST, None),
    }
    assert "texture-robust, Stylized ImageNet (published)" in texts(beside)
    assert "texture-robust, Stylized ImageNet (published)" not in texts(over)


def test_published_numbers_on_stylized_images_stand_behind_those_of_the_same_method_alone(published):
    phase = canonical({"stylized": "phase"})
    drawing = texture(ours(published.assign(variant=published["variant"].mask(published["variant"] != "{}", phase))))
    assert not [one for one in drawing.numbers if one["experiment"] == PUBLISHED and one["target"] == "imagenet"]
    assert [one for one in drawing.numbers if one["experiment"] == PUBLISHED]
    assert "not drawn: theirs were stylized by AdaIN" in " ".join(texts(drawing))


def test_of_our_own_cells_alone_published_ones_are_drawn(published):
    small = published[(published["arch"] == "resnet18") & published["target"].isin(["imagenet", "pets"])]
    small = small[small["eps"].isin(["0", "3", BEST_ROBUST])]
    targets = tuple(one for one in ExperimentInfo.of(published).targets if one.name == "pets")
    theirs = [one for one in texture(ours(small, targets=targets)).numbers if one["experiment"] == PUBLISHED]
    assert {one["arch"] for one in theirs} == {"resnet18"}
    assert {one["target"] for one in theirs} == {"imagenet", "pets"}
    assert {one["eps"] for one in theirs} == {"0", "3", BEST_ROBUST}


class TestNeitherSide:
    """Texture-robust networks and stylized images leave all else as it is."""

    def without(self, published) -> pd.DataFrame:
        plain = (published["recipe"] != ROBUST) & (published["variant"] == "{}")
        return about(published[plain])

    def test_other_figures_take_them_for_neither_standard_nor_robust(self, published):
        with_them, without = full_network(published), full_network(self.without(published))
        assert pd.DataFrame(with_them.numbers).equals(pd.DataFrame(without.numbers))
        assert len(with_them.numbers) > 20

    def test_cells_of_other_figures_are_the_same(self, published):
        every, plain = Cells(published), Cells(self.without(published))
        for mode in ("fixed-feature", "full-network"):
            assert every.protocols(mode) == plain.protocols(mode)
            assert every.others(mode) == ""
            for panel in every.panels(mode):
                for arch in ("resnet18", "resnet50"):
                    for eps in ("0", BEST_ROBUST):  # repr, since an interval that is not there is NaN
                        assert repr(every.cell(panel, arch, eps)) == repr(plain.cell(panel, arch, eps)) != "None"
        assert every.source("resnet50", "l2", "0") is None  # ImageNet itself is in another file

    def test_they_are_there_for_those_who_ask(self, published):
        panel = Cells(published).panels("fixed-feature")[0]
        robust = Cells(published, recipe=ROBUST).cell(panel, "resnet50", "0")
        assert robust is not None
        assert robust.value == 32.34
        tested = Cells(published, stylized=True).source("resnet50", "l2", "1")
        assert tested is not None
        assert tested.value == 11.08

    def test_asked_for_one_number_each_a_table_gives_no_texture_robust_network(self, published):
        plain = measured(published, mode="fixed-feature", eps="0")
        assert ROBUST not in set(plain["recipe"])
        assert set(measured(published, mode="fixed-feature", eps="0", recipe=ROBUST)["recipe"]) == {ROBUST}

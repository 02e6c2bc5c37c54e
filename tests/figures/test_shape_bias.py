"""The figure of shape bias: ours over eps and by class, and published numbers as a layer."""

from dataclasses import replace
from itertools import combinations
from typing import Any

import pandas as pd
import pytest
from figures.test_figures import Record, drawn, row, visible_texts
from robust_transfer.figures import style
from robust_transfer.tables.experiment_info import ExperimentInfo
from robust_transfer.tables.key import canonical
from robust_transfer.tables.published_results import published_rows
from robust_transfer.tables.results import as_results
from robust_transfer.tables.seeds import seed_means

CLASSES = tuple(f"object {i}" for i in range(1, 17))
INFO = ExperimentInfo(experiment="made-up", source="objects", architectures=("resnet8_w8", "resnet8_w16"))


def bias(arch: str, eps: str, value: float, shape: str = "", **of: Any) -> Record:
    how = {"source": "objects", "mode": "cue-conflict", "protocol": None, "selection": None, "transfer_seed": None}
    variant = {"shape": shape} if shape else {}
    variant |= {"resized_from": of.pop("side")} if "side" in of else {}
    plain = row("cue_conflict", arch, eps, value, **how, metric="shape_bias", variant=canonical(variant))
    return {**plain, "hyperparameters": "{}", **of}


def records(archs=("resnet8_w16",), eps=("0", "0.4", "1"), classes=CLASSES, **of: Any) -> list[Record]:
    shapes = ("", *classes)
    return [
        bias(arch, one, 10 + 20 * e + a + 2 * shapes.index(shape), shape, **of)
        for a, arch in enumerate(archs)
        for e, one in enumerate(eps)
        for shape in shapes
    ]


def table(*parts: list[Record]) -> pd.DataFrame:
    return as_results([one for part in parts for one in part], INFO)


def with_published(results: pd.DataFrame) -> pd.DataFrame:
    return as_results(pd.concat([results, published_rows()]), ExperimentInfo.of(results))


def titles(drawing: Any) -> list[str]:
    return [ax.get_title() for ax in drawing.figure.axes]


def legend(drawing: Any) -> list[str]:
    return [text.get_text() for one in drawing.figure.legends for text in one.get_texts()]


def test_every_number_of_the_table_is_in_the_figure():
    drawing = drawn("shape_bias", table(records()))
    assert titles(drawing) == ["By ε (L2)", "By class of the shape"]
    assert len(drawing.numbers) == 3 * 17
    assert {(one["eps"], one["value"]) for one in drawing.numbers if one["shape"] is None} == {
        ("0", 10.0),
        ("0.4", 30.0),
        ("1", 50.0),
    }
    [line] = [
        line for line in drawing.figure.axes[0].lines if len(line.get_xdata()) == 2 and line.get_marker() != "None"
    ]
    assert list(line.get_ydata()) == [30.0, 50.0]
    marks = [line for line in drawing.figure.axes[1].lines if line.get_marker() == "o"]
    assert len(marks) == 3 * 16


def test_means_over_seeds_are_shown_with_their_intervals_and_others_with_none():
    seeds = [records(backbone_seed=seed, classes=()) for seed in (0, 1)]
    found = table(*seeds, records(eps=("4",), classes=()))
    drawing = drawn("shape_bias", as_results(pd.concat([found, seed_means(found)]), INFO))
    assert {one["eps"]: one["ci_kind"] for one in drawing.numbers} == {
        "0": "seeds",
        "0.4": "seeds",
        "1": "seeds",
        "4": "",
    }
    assert "intervals over seeds, none for networks of one seed" in legend(drawing)


def test_published_numbers_are_drawn_where_the_table_has_them_cell_by_cell():
    drawing = drawn("shape_bias", with_published(table(records())))
    assert titles(drawing) == ["By ε (L2)", "By ε (L∞)", "By class of the shape"]
    found = {
        (one["norm"], one["recipe"], one["eps"]): one["value"]
        for one in drawing.numbers
        if one["series"] == "published"
    }
    released = {
        "l2": "20.73 21.66 23.79 23.63 27.78 33.88 40.85 48.45 64.75 69.50",
        "linf": "20.73 36.80 45.18 54.14 62.32 71.95",
    }
    for norm, values in released.items():
        drawn_here = [value for (where, recipe, _), value in found.items() if (where, recipe) == (norm, "released")]
        assert [round(float(value), 2) for value in drawn_here] == [float(value) for value in values.split()]
        levels = {"torchvision": 21.46, "sin": 81.39, "sin-and-in": 34.56, "sin-and-in-then-in": 20.41, "people": 95.87}
        for recipe, value in levels.items():
            assert found[norm, recipe, "0"] == pytest.approx(value, abs=0.0051)
    lines = [line for line in drawing.figure.axes[0].lines if line.get_marker() in "os" and line.get_mfc() == "white"]
    assert sorted(len(line.get_xdata()) for line in lines) == [1, 9]
    names = legend(drawing)
    assert "ResNet-50, SIN+IN→IN (published)" in names
    assert "people" in names


def test_published_numbers_alone_make_a_figure():
    drawing = drawn("shape_bias", as_results(published_rows(), INFO))
    assert titles(drawing) == ["By ε (L2)", "By ε (L∞)"]
    assert {one["series"] for one in drawing.numbers} == {"published"}
    assert len(drawing.numbers) == 10 + 6 + 2 * 5


def test_a_standard_network_of_another_recipe_is_a_level():
    drawing = drawn("shape_bias", table(records(classes=()), [bias("resnet8_w16", "0", 77.0, recipe="SIN")]))
    assert "ResNet-8 w16, SIN" in legend(drawing)
    assert [line for line in drawing.figure.axes[0].lines if set(line.get_ydata()) == {77.0}]


LABELS = {
    "texture-robust-stylized": "texture-robust, stylized images",
    "texture-robust-both": "texture-robust, stylized + native",
    "geirhos": "texture-robust, geirhos",
}


def test_texture_robust_networks_are_called_what_the_experiment_calls_them():
    levels = [bias("resnet8_w16", "0", 30.0 + 20 * i, recipe=recipe) for i, recipe in enumerate(LABELS)]
    ours = as_results([*records(recipe="short"), *levels], replace(INFO, texture_robust=LABELS))
    drawing = drawn("shape_bias", with_published(ours))
    names = [name for name in legend(drawing) if name.startswith("ResNet-8")]
    assert sorted(names) == sorted(["ResNet-8 w16", *(f"ResNet-8 w16, {label}" for label in LABELS.values())])
    assert titles(drawing)[-1].replace("\n", " ") == "By class of the shape, ResNet-8 w16"
    two = as_results([*records(classes=()), *records(classes=(), recipe="short")], INFO)
    assert {"ResNet-8 w16, paper", "ResNet-8 w16, short"} <= {*legend(drawn("shape_bias", two))}


def test_every_level_has_a_colour_of_its_own():
    levels = [bias("resnet8_w16", "0", 30.0 + 20 * i, recipe=recipe) for i, recipe in enumerate(LABELS)]
    ours = as_results([*records(classes=()), *levels], replace(INFO, texture_robust=LABELS))
    ax = drawn("shape_bias", with_published(ours)).figure.axes[0]
    across = [line.get_color() for line in ax.lines if list(line.get_xdata()) == [0, 1]]
    assert len(across) == len({*across}) == 3 + 5


def test_standard_networks_alone_are_points():
    drawing = drawn("shape_bias", table(records(("resnet8_w8", "resnet8_w16"), eps=("0",), classes=())))
    points = [line for line in drawing.figure.axes[0].lines if line.get_marker() in "os"]
    assert sorted(y for line in points for y in line.get_ydata()) == [10.0, 11.0]


def test_failed_networks_bear_a_dagger_and_are_left_out_by_class():
    failed = records(eps=("4",), flags="cues-at-chance")
    drawing = drawn("shape_bias", table(records(), failed))
    assert "†" in [text.get_text() for text in drawing.figure.axes[0].texts]
    assert {one["eps"] for one in drawing.numbers if one["shape"]} == {"0", "0.4", "1"}


def test_resized_images_are_named():
    drawing = drawn("shape_bias", with_published(table(records(side=112))))
    assert any("images of 112 pixels were resized" in text for text in legend(drawing))
    assert not any("resized" in text for text in legend(drawn("shape_bias", with_published(table(records())))))


def test_without_shape_biases_the_figure_says_so():
    drawing = drawn("shape_bias", table([row("coarse", "resnet8_w16", "0", 50.0)]))
    assert "not measured" in " ".join(text.get_text() for text in visible_texts(drawing.figure))
    assert drawing.numbers == []


@pytest.mark.parametrize("published", [False, True])
def test_nothing_is_clipped_and_no_labels_overlap(published):
    found = table(records(("resnet8_w8", "resnet8_w16"), side=112))
    figure = drawn("shape_bias", with_published(found) if published else found, laid_out=True).figure
    renderer, page, shown = figure.canvas.get_renderer(), figure.bbox, visible_texts(figure)
    assert figure.get_figwidth() == style.PAGE
    for text in shown:
        box = text.get_window_extent(renderer)
        assert page.x0 - 1 <= box.x0 <= box.x1 <= page.x1 + 1, text
        assert page.y0 - 1 <= box.y0 <= box.y1 <= page.y1 + 1, text
    for ax in figure.axes:
        for axis in (ax.xaxis, ax.yaxis):
            boxes = [label.get_window_extent(renderer) for label in axis.get_ticklabels() if label in shown]
            assert not any(a.overlaps(b) for a, b in combinations(boxes, 2)), ax.get_title()
    over = [ax.title.get_window_extent(renderer) for ax in figure.axes]
    over += [one.get_window_extent(renderer) for one in figure.legends]
    assert not any(a.overlaps(b) for a, b in combinations(over, 2))

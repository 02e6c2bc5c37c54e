"""Imported networks beside what was published for them."""

import csv
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from robust_transfer.configuration.figures import Figures
from robust_transfer.figures.cells import Cells
from robust_transfer.figures.imported import imported
from robust_transfer.figures.tables import Tables
from robust_transfer.stages.figures import draw
from robust_transfer.tables.experiment_info import ExperimentInfo
from robust_transfer.tables.published import RELEASED
from robust_transfer.tables.published_results import published_rows
from robust_transfer.tables.results import as_results, write_results
from support import tables

Record = dict[str, Any]
RELEASED_ROWS = tuple(
    vars(row) for row in tables.rows(published_rows(), mode="source", recipe=RELEASED, target="imagenet")
)
ARCHITECTURES = tuple(dict.fromkeys(row["arch"] for row in RELEASED_ROWS))


def measured(row: Record, off: float = 0.0, n: int = 50000, **of: Any) -> Record:
    """What we might have measured for a network: so many points off the published number."""
    value = row["value"] + off
    half = 196 * (value / 100 * (1 - value / 100) / n) ** 0.5
    name = f"imagenet_{row['arch']}_{row['norm']}_{row['eps'].replace('/', 'of')}"
    ours = {"experiment": "paper", "value": value, "ci_low": value - half, "ci_high": value + half, "ci_kind": "images"}
    ours |= {"n": n, "backbone_seed": 0, "backbone": f"importing/{name}", "entry": f"evaluation/{name}"}
    return {**row, **ours, **of}


def network(arch: str, eps: str, norm: str = "l2") -> Record:
    """The published number of one network."""
    of = [row for row in RELEASED_ROWS if (row["arch"], row["eps"]) == (arch, eps)]
    return next(row for row in of if eps == "0" or row["norm"] == norm)


def table(rows: Any, **of: Any) -> pd.DataFrame:
    about = ExperimentInfo(
        "paper", source="imagenet", source_label="ImageNet", architectures=ARCHITECTURES, released=(RELEASED,)
    )
    return as_results(rows, replace(about, **of))


def drawn(rows: Any, **of: Any) -> Tables:
    return imported(table(rows, **of))


def lines(drawing: Tables) -> list[list[str]]:
    """The cells of every line of the tables, without their headings."""
    found = [line for line in drawing.markdown().splitlines() if line.startswith("| ") and not line.startswith("| ε")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in found]


@pytest.fixture(scope="module")
def all_of_them() -> list[Record]:
    """The 67, a fifth of a point apart from what was published, upward and downward in turn."""
    return [measured(row, 0.2 * (-1) ** i) for i, row in enumerate(RELEASED_ROWS)]


def test_every_released_network_stands_beside_its_published_number(all_of_them: list[Record]) -> None:
    drawing = drawn(all_of_them)
    assert len(drawing.numbers) == 67
    cells = [tuple(line[i : i + 3]) for line in lines(drawing) for i in range(1, len(line), 3)]
    expected = {
        (
            f"{ours['value']:.2f} [{ours['ci_low']:.2f}, {ours['ci_high']:.2f}]",
            f"{row['value']:.2f}",
            "−0.20" if i % 2 else "+0.20",
        )
        for i, (ours, row) in enumerate(zip(all_of_them, RELEASED_ROWS, strict=True))
    }
    assert set(cells) == expected
    assert len(cells) == 67
    assert "67 networks: Δ is 0.00 on average, from −0.20 to +0.20; none marked." in drawing.markdown()


def test_networks_stand_side_by_side_those_of_most_eps_first_and_linf_below(all_of_them: list[Record]) -> None:
    headings = [line for line in drawn(all_of_them).markdown().splitlines() if line.startswith("| ε")]
    networks = [re.findall(r"\| ([\w-]+) ours", heading) for heading in headings]
    assert networks == [
        ["ResNet-18", "ResNet-50", "WRN-50-2", "WRN-50-4"],
        ["DenseNet-161", "MNASNet", "MobileNet-v2"],
        ["ResNeXt-50", "ShuffleNet-v2", "VGG-16-BN"],
        ["ResNet-18", "ResNet-50", "WRN-50-2"],
    ]
    assert [heading.split("|")[1].strip() for heading in headings] == ["ε, L2"] * 3 + ["ε, L∞"]


def test_a_cell_is_one_network_and_an_eps_that_was_not_imported_is_a_dash() -> None:
    rows = [measured(network(*one)) for one in (("resnet50", "3"), ("resnet18", "0"), ("resnet18", "3"))]
    drawing = drawn([*rows, measured(network("resnet18", "4/255", "linf"))])
    zero, three, four = lines(drawing)
    assert (zero[0], zero[2], zero[4:]) == ("0", "69.79", ["–", "–", ""])
    assert (three[0], three[2], three[5]) == ("3", "53.12", "62.83")
    assert (four[0], four[2], len(four)) == ("4/255", "52.49", 4)


@pytest.mark.parametrize(
    ("off", "images", "marked"),
    [(-1.2, 50000, True), (0.7, 50000, True), (0.45, 50000, False), (2.0, 500, False), (-9.0, 500, True)],
)
def test_what_is_apart_by_more_than_half_a_point_and_noise_is_marked(off: float, images: int, marked: bool) -> None:
    drawing = drawn([measured(network("resnet18", "3"), off, images), measured(network("resnet18", "0"))])
    standard, robust = lines(drawing)
    assert robust[3].endswith("\\*") == marked
    assert standard[3] == "0.00"
    assert [one["flag"] for one in drawing.numbers] == ["unlike-published" if marked else None, None]
    assert f"; {'1' if marked else 'none'} marked." in drawing.markdown()
    assert any(cell.starred for table in drawing.tables for cell in table.frame.to_numpy().ravel()) == marked


def test_only_clean_test_accuracy_of_imported_backbones_on_the_source_counts() -> None:
    one = measured(network("resnet18", "3"))
    decoys = [
        one | {"backbone": "pretraining/imagenet_resnet18_l2_eps3_seed0", "recipe": "paper"},
        one | {"backbone": None, "backbone_seed": None},
        one | {"attack": '{"eps":"3"}'},
        one | {"metric": "mean_per_class"},
        one | {"split": "validation"},
        one | {"target": "stylized_imagenet"},
        one | {"mode": "fixed-feature", "target": "pets"},
        measured(network("resnet18", "3"), arch="resnet34"),  # nothing was published for it
    ]
    assert len(drawn([*decoys, one]).numbers) == 1
    assert not drawn(decoys).numbers


def test_numbers_of_the_csv_are_ours_the_published_one_and_their_difference() -> None:
    (one,) = drawn([measured(network("resnet50", "8/255", "linf"), -0.25, 1000)]).numbers
    assert list(one)[:9] == ["arch", "norm", "eps", "value", "ci_low", "ci_high", "n", "published", "difference"]
    assert (one["arch"], one["norm"], one["eps"], one["n"]) == ("resnet50", "linf", "8/255", 1000)
    assert (one["value"], one["published"], one["difference"]) == pytest.approx((54.28, 54.53, -0.25))
    assert one["ci_low"] < one["value"] < one["ci_high"]  # type: ignore[operator]


def test_other_weights_of_the_same_architectures_are_not_held_against_the_released_ones() -> None:
    ours = measured(network("resnet50", "0"))
    torchvision = ours | {"recipe": "torchvision", "value": 80.8, "backbone": "importing/imagenet_resnet50_torchvision"}
    drawing = drawn([torchvision, ours])
    assert [one["recipe"] for one in drawing.numbers] == ["released"]
    assert "Not compared, since other networks than these were published: torchvision." in drawing.markdown()
    renamed = drawn([ours | {"recipe": "authors"}], released=("authors",))
    assert len(renamed.numbers) == 1
    assert "Not compared" not in renamed.markdown()
    assert not drawn([ours | {"recipe": "authors"}], released=()).numbers


def test_several_seeds_and_recipes_of_one_network_are_told_apart() -> None:
    ours = measured(network("resnet50", "0"), recipe="mine")
    drawing = drawn([ours, ours | {"backbone_seed": 1}, ours | {"recipe": "theirs"}], released=("mine", "theirs"))
    heading = drawing.markdown().splitlines()[0]
    assert re.findall(r"ResNet-50[^|]*", heading) == [
        f"ResNet-50, {name} ours " for name in ("mine, seed 0", "mine, seed 1", "theirs, seed 0")
    ]


@pytest.mark.parametrize(
    ("rows", "of", "says"),
    [
        ([], {}, "no imported backbones: not measured"),
        ([], {"dropped": ("ImageNet",)}, "no imported backbones: not measured, without images of ImageNet"),
        (
            [measured(network("resnet18", "3"), arch="resnet34")],
            {},
            "published accuracies of the imported backbones: not measured",
        ),
    ],
)
def test_where_nothing_can_be_compared_the_figure_says_why(rows: list[Record], of: dict[str, Any], says: str) -> None:
    drawing = drawn(rows, **of)
    assert drawing.notes == [says]
    assert drawing.tables == []
    assert drawing.markdown() == f"{says}\n"
    assert drawing.numbers == []


def test_files_are_written_and_the_same_bytes_twice(all_of_them: list[Record], tmp_path: Path) -> None:
    described = {"experiment": "paper", "source": {"name": "imagenet", "label": "ImageNet"}, "targets": []}
    write_results(
        tmp_path / "results.parquet",
        table(all_of_them[:9]),
        described | {"architectures": ARCHITECTURES, "released": [RELEASED]},
    )
    for again in ("first", "second"):
        draw("imported", tmp_path / "results.parquet", tmp_path / again / "imported")
    files = sorted((tmp_path / "first").iterdir())
    assert [path.suffix for path in files] == [".csv", ".html", ".md", ".tex"]
    assert all(path.read_bytes() == (tmp_path / "second" / path.name).read_bytes() for path in files)
    with open(files[0]) as file:
        numbers = list(csv.DictReader(file))
    assert sum(float(one["difference"]) for one in numbers) == pytest.approx(0.2, abs=1e-3)
    assert files[2].read_text().count("| 0.25 |") == 1


def test_it_is_drawn_where_a_configuration_asks_for_it() -> None:
    assert "imported" not in Figures().draw
    assert Figures(draw=("imported",)).draw == ("imported",)


def test_source_accuracy_is_what_was_measured_on_the_source() -> None:
    on_source = measured(network("resnet18", "3"))
    elsewhere = on_source | {"target": "stylized_imagenet", "value": 9.0}
    for rows in ([elsewhere, on_source], [on_source, elsewhere]):
        found = Cells(table(rows)).source("resnet18", "l2", "3")
        assert found is not None
        assert (found.value, found.ci_low, found.n) == (on_source["value"], on_source["ci_low"], 50000)
    assert Cells(table([elsewhere])).source("resnet18", "l2", "3") is None

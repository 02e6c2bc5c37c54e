"""Imported networks beside what was published for them, and the report's text where backbones are imported."""

import csv
import html
import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib
import pytest
from docutils.core import publish_parts
from jinja2 import Environment
from matplotlib.text import Text
from robust_transfer.configuration.figures import Figures
from robust_transfer.configuration.load import load
from robust_transfer.dag.grid import plan
from robust_transfer.dag.wiring import Wiring
from robust_transfer.figures import style
from robust_transfer.figures.cells import Cells
from robust_transfer.figures.drawing import Drawing
from robust_transfer.figures.imported import imported
from robust_transfer.stages.figures import draw
from robust_transfer.tables.published import RELEASED, published_rows
from robust_transfer.tables.results import ExperimentInfo, Results, Row, write
from support.paths import ROOT

RELEASED_ROWS = tuple(
    row for row in published_rows() if row.mode == "source" and row.recipe == RELEASED and row.target == "imagenet"
)
ARCHITECTURES = tuple(dict.fromkeys(row.arch for row in RELEASED_ROWS))


def measured(row: Row, off: float = 0.0, n: int = 50000, **of: Any) -> Row:
    """What we might have measured for a network: so many points off the published number."""
    value = row.value + off
    half = 196 * (value / 100 * (1 - value / 100) / n) ** 0.5
    name = f"imagenet_{row.arch}_{row.norm}_{row.eps.replace('/', 'of')}"
    plain = replace(row, experiment="paper", value=value, ci_low=value - half, ci_high=value + half, ci_kind="images")
    plain = replace(plain, n=n, backbone_seed=0, backbone=f"importing/{name}", entry=f"evaluation/{name}")
    return replace(plain, **of)


def network(arch: str, eps: str, norm: str = "l2") -> Row:
    """The published number of one network."""
    return next(row for row in RELEASED_ROWS if (row.arch, row.eps) == (arch, eps) and (eps == "0" or row.norm == norm))


def table(rows: Any, **of: Any) -> Results:
    about = ExperimentInfo(
        "paper", source="imagenet", source_label="ImageNet", architectures=ARCHITECTURES, released=(RELEASED,)
    )
    return Results(replace(about, **of), tuple(rows))


def drawn(rows: Any, **of: Any) -> Drawing:
    with matplotlib.rc_context(style.RC):
        return imported(table(rows, **of))


def lines(drawing: Drawing) -> list[list[str]]:
    """The cells of every line of the tables, without their headings."""
    found = [
        line for line in str(drawing.markdown).splitlines() if line.startswith("| ") and not line.startswith("| ε")
    ]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in found]


@pytest.fixture(scope="module")
def all_of_them() -> list[Row]:
    """The 67, a fifth of a point apart from what was published, upward and downward in turn."""
    return [measured(row, 0.2 * (-1) ** i) for i, row in enumerate(RELEASED_ROWS)]


def test_every_released_network_stands_beside_its_published_number(all_of_them: list[Row]) -> None:
    drawing = drawn(all_of_them)
    assert len(drawing.numbers) == 67
    cells = [tuple(line[i : i + 3]) for line in lines(drawing) for i in range(1, len(line), 3)]
    expected = {
        (f"{ours.value:.2f} [{ours.ci_low:.2f}, {ours.ci_high:.2f}]", f"{row.value:.2f}", "−0.20" if i % 2 else "+0.20")
        for i, (ours, row) in enumerate(zip(all_of_them, RELEASED_ROWS, strict=True))
    }
    assert set(cells) == expected
    assert len(cells) == 67
    assert "67 networks: Δ is 0.00 on average, from −0.20 to +0.20; none marked." in str(drawing.markdown)


def test_networks_stand_side_by_side_those_of_most_eps_first_and_linf_below(all_of_them: list[Row]) -> None:
    headings = [line for line in str(drawn(all_of_them).markdown).splitlines() if line.startswith("| ε")]
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
    assert f"; {'1' if marked else 'none'} marked." in str(drawing.markdown)
    assert any(text.get_text() == "*" for text in drawing.figure.findobj(Text)) == marked


def test_only_clean_test_accuracy_of_imported_backbones_on_the_source_counts() -> None:
    one = measured(network("resnet18", "3"))
    decoys = [
        replace(one, backbone="pretraining/imagenet_resnet18_l2_eps3_seed0", recipe="paper"),
        replace(one, backbone=None, backbone_seed=None),
        replace(one, attack='{"eps":"3"}'),
        replace(one, metric="mean_per_class"),
        replace(one, split="validation"),
        replace(one, target="stylized_imagenet"),
        replace(one, mode="fixed-feature", target="pets"),
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
    torchvision = replace(ours, recipe="torchvision", value=80.8, backbone="importing/imagenet_resnet50_torchvision")
    drawing = drawn([torchvision, ours])
    assert [one["recipe"] for one in drawing.numbers] == ["released"]
    assert "Not compared, since other networks than these were published: torchvision." in str(drawing.markdown)
    renamed = drawn([replace(ours, recipe="authors")], released=("authors",))
    assert len(renamed.numbers) == 1
    assert "Not compared" not in str(renamed.markdown)
    assert not drawn([replace(ours, recipe="authors")], released=()).numbers


def test_several_seeds_and_recipes_of_one_network_are_told_apart() -> None:
    ours = measured(network("resnet50", "0"), recipe="mine")
    drawing = drawn([ours, replace(ours, backbone_seed=1), replace(ours, recipe="theirs")], released=("mine", "theirs"))
    heading = str(drawing.markdown).splitlines()[0]
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
def test_where_nothing_can_be_compared_the_figure_says_why(rows: list[Row], of: dict[str, Any], says: str) -> None:
    drawing = drawn(rows, **of)
    assert says in [text.get_text() for text in drawing.figure.findobj(Text)]
    assert drawing.markdown == f"{says}\n"
    assert drawing.numbers == []


@pytest.mark.parametrize("rows_n", [1, 2, 67])
def test_the_table_fits_its_page_and_its_columns_do_not_touch(rows_n: int) -> None:
    rows = [measured(row, -9.5) for row in RELEASED_ROWS]  # all are marked
    figure = drawn(rows[:rows_n]).figure
    assert figure.get_figwidth() == (style.PAGE if rows_n == 67 else style.COLUMN)
    assert figure.get_figheight() < 8
    renderer, page = figure.canvas.get_renderer(), figure.bbox  # type: ignore[attr-defined]
    boxes: dict[float, list[Any]] = {}
    for text in figure.findobj(Text):
        if text.get_text().strip():
            box = text.get_window_extent(renderer)
            assert page.x0 - 1 <= box.x0 <= box.x1 <= page.x1 + 1, text
            assert page.y0 - 1 <= box.y0 <= box.y1 <= page.y1 + 1, text
            assert float(text.get_fontsize()) >= 6
            boxes.setdefault(round(text.get_position()[1], 4), []).append(box)
    for line in boxes.values():
        for left, right in pairwise(sorted(line, key=lambda box: box.x0)):
            assert left.x1 <= right.x0 + 2


def test_files_are_written_and_the_same_bytes_twice(all_of_them: list[Row], tmp_path: Path) -> None:
    described = {"experiment": "paper", "source": {"name": "imagenet", "label": "ImageNet"}, "targets": []}
    write(
        tmp_path / "results.parquet",
        all_of_them[:9],
        described | {"architectures": ARCHITECTURES, "released": [RELEASED]},
    )
    for again in ("first", "second"):
        draw("imported", tmp_path / "results.parquet", tmp_path / again / "imported")
    files = sorted((tmp_path / "first").iterdir())
    assert [path.suffix for path in files] == [".csv", ".md", ".pdf", ".png", ".svg"]
    assert all(path.read_bytes() == (tmp_path / "second" / path.name).read_bytes() for path in files)
    with open(files[0]) as file:
        numbers = list(csv.DictReader(file))
    assert sum(float(one["difference"]) for one in numbers) == pytest.approx(0.2, abs=1e-3)
    assert files[1].read_text().count("| 0.25 |") == 1


def test_it_is_drawn_where_a_configuration_asks_for_it() -> None:
    assert "imported" not in Figures().draw
    assert Figures(draw=("imported",)).draw == ("imported",)


def test_source_accuracy_is_what_was_measured_on_the_source() -> None:
    on_source = measured(network("resnet18", "3"))
    elsewhere = replace(on_source, target="stylized_imagenet", value=9.0)
    for rows in ([elsewhere, on_source], [on_source, elsewhere]):
        assert Cells(table(rows)).source("resnet18", "l2", "3") == on_source
    assert Cells(table([elsewhere])).source("resnet18", "l2", "3") is None


def described(*names: str, without: tuple[str, ...] = (), **options: Any) -> str:
    """The report's text for experiments laid over the default one, as Snakemake renders it, in one line."""
    paths = [ROOT / "config.yaml", *(ROOT / "experiments" / f"{name}.yaml" for name in names)]
    environment = Environment(trim_blocks=True, lstrip_blocks=True)

    class Snakemake:
        """As much of Snakemake's object as the text sees."""

        config = Wiring(plan(load(paths, options), without=without)).configuration

    text = (ROOT / "workflow" / "report" / "workflow.rst").read_text()
    rendered = environment.from_string(text).render(snakemake=Snakemake)
    body = publish_parts(rendered, writer="html", settings_overrides={"report_level": 1})["html_body"]
    assert "system-message" not in body, body
    found = " ".join(html.unescape(re.sub(r"<[^>]+>", "", body)).split())
    for wrong in ("None", "{", " .", " ,", "..", ",,", " ;", "()"):
        assert wrong not in found, found
    return found


SMALL: dict[str, object] = {"widths": [], "fixed_eps": None}


def test_the_default_experiment_says_that_it_trains() -> None:
    text = described()
    assert "resnet8_w16, resnet8_w8, resnet8_w12 and resnet14_w8 are trained on Objects at 32 × 32 pixels" in text
    assert "for 5 epochs in batches of 32. " in text
    assert "0.03, 0.1, 0.5 and 1 in the L2 norm. A network of ε 0 is a standard one" in text
    assert "A robust network sees, at every step of its training, images that projected gradient descent of 2" in text
    assert "test images: clean, and attacked by projected gradient descent of 10 steps. While a network" in text
    assert "with each of the learning rates 1, 0.1 and 0.01. BatchNorm's statistics drift" in text
    assert "5, 10 or 25 training images of each class" in text
    assert "imported" not in text.lower()
    assert "unless a column says otherwise" not in text
    assert "Left out" not in text


def test_real_images_and_protocols_over_them_are_described_as_they_are() -> None:
    tiny = described("tiny-imagenet")
    assert "by the paper's protocol" not in tiny
    assert "on Tiny-ImageNet at 32 × 32 pixels, for 8 epochs in batches of 64." in tiny
    gap = described("tiny-imagenet", "protocol-gap")
    assert "resnet8_w16 is trained on Tiny-ImageNet" in gap
    assert "0.1, 0.25 and 0.5 in the L2 norm" in gap
    assert "if any, unless a column says otherwise." in gap
    assert "Full-network" not in gap
    assert "Every choice is also made on test images, as the paper did; figures show what validation" in gap


def test_the_papers_networks_are_imported_and_evaluated_on_clean_images() -> None:
    text = described("paper")
    says = "imported from published weights (released: the networks that the paper's authors trained and released)."
    assert f"shufflenet_v2_x1_0 and vgg16_bn are {says}" in text
    assert "Imported networks see images of 224 × 224 pixels." in text
    assert "3 and 5 in the L2 norm, and 0.5/255, 1/255, 2/255, 4/255 and 8/255 in the L∞ norm." in text
    assert "A robust network was trained on images perturbed within that ball, by those who published it." in text
    assert "is its accuracy on the source's test images: it is evaluated on clean images alone." in text
    assert "some are evaluated on the source alone" in text
    assert "multinomial logistic regression" not in text  # no part of it measures by the frozen protocol
    assert "As in the paper, the learning rate, and" in text
    for word in ("epochs", "batches", "attacked", "While a network trains", "training images is measured"):
        assert word not in text, word


def test_from_scratch_the_same_networks_are_trained() -> None:
    text = described("paper-from-scratch")
    assert "vgg16_bn are trained on ImageNet at 224 × 224 pixels, for 90 epochs in batches of 512." in text
    assert "imported" not in text.lower()
    assert "While a network trains" in text


def test_what_was_left_out_is_named_and_is_no_target() -> None:
    text = described("paper", without=("birdsnap", "sun397"))
    assert "Left out, since their images were not there: Birdsnap, SUN397. Transfer." in text
    assert "Food and Pets. Not every" in text
    assert text.count("Birdsnap") == text.count("SUN397") == 1
    no_source = described("paper", without=("imagenet",))
    assert "not there: the source, ImageNet, so that no accuracy on it was measured." in no_source
    assert "evaluated on" not in no_source
    both = described("paper", without=("birdsnap", "imagenet"))
    assert "not there: Birdsnap; and the source, ImageNet, so that" in both


def test_trained_and_imported_backbones_stand_side_by_side() -> None:
    weights = {
        "tv": {"kind": "torchvision", "weights": "IMAGENET1K_V2"},
        "sin": {"kind": "stylized-imagenet", "trained_on": "sin-and-in"},
        "ours": {"kind": "files", "path": "nets/{architecture}.pt"},
        "hub": {"kind": "timm"},
    }
    grid = [
        {"architectures": ["resnet18"], "eps": [0, 3], "backbones": "trained"},
        {"architectures": ["resnet50", "vgg16_bn"], "eps": [0], "backbones": "tv"},
        {"architectures": ["resnet50"], "eps": [0], "backbones": "sin"},
        {"architectures": ["timm_resnet26"], "eps": [0], "backbones": "hub"},
    ]
    text = described("paper", weights=weights, grid=grid, figures=SMALL)
    assert "resnet18 is trained on ImageNet at 224 × 224 pixels" in text
    assert (
        "resnet50 and vgg16_bn are imported from published weights (tv: torchvision's own, IMAGENET1K_V2); resnet50 is "
        "imported from published weights (sin: those that Geirhos et al. (2019) trained on Stylized-ImageNet and "
        "ImageNet); timm_resnet26 is imported from published weights (hub: timm's own). Imported networks"
    ) in text
    assert "descent of 3 steps has perturbed within that ball. What" in text  # none of the imported ones is robust
    assert "While a network trains" in text
    grid[1:] = [{"architectures": ["resnet50"], "eps": [0, 1], "backbones": "ours"}]
    weights["ours"]["path"] = "nets/robust.pt"
    text = described("paper", weights=weights, grid=grid, figures=SMALL)
    assert "imported from published weights (ours: checkpoints from nets/robust.pt)." in text
    assert "within that ball; imported ones were trained on perturbed images by those who published them." in text


def test_networks_that_are_only_evaluated_need_no_account_of_transfer() -> None:
    grid = [{"architectures": ["resnet18"], "eps": [0], "modes": []}]
    text = described("paper", grid=grid, figures=SMALL)
    assert "Nothing is transferred: networks are evaluated on the source alone." in text
    assert "All are standard networks (ε 0)." in text
    for word in ("Choice.", "targets are", "Fixed-feature", "chooses anew", "robust network"):
        assert word not in text, word


def test_settings_of_transfer_are_those_of_the_experiment() -> None:
    grid = [{"architectures": ["resnet18"], "eps": [0, 3], "protocols": ["paper"], "modes": ["fixed-feature"]}]
    heads = {"learning_rates": [0.05], "batchnorm": "frozen", "normalisation": "source"}
    text = described("paper", grid=grid, heads=heads, figures=SMALL, targets=["pets"], evaluation={"eps": [1]})
    assert "The target is Pets." in text
    assert "with a learning rate of 0.05. BatchNorm's statistics stay those of pretraining" in text
    assert "images are normalised as in pretraining." in text
    assert "clean, and attacked by projected gradient descent of 20 steps." in text
    layered = described(features={"layer": "layer3"})
    assert "activations in layer layer3." in layered

"""The paper's published numbers: all there, once each, in the schema of our table, and saying what the paper says."""

import csv
import functools
import json
import math
from collections import Counter

import pytest
from robust_transfer.architectures import check_architecture
from robust_transfer.configuration.eps import canonical_eps, eps_value
from robust_transfer.figures.cells import Cells
from robust_transfer.figures.few_images import few_images, published_results
from robust_transfer.tables.experiment_info import ExperimentInfo, Target
from robust_transfer.tables.key import BEST_ARCH, BEST_ROBUST, canonical
from robust_transfer.tables.published import FOLDER, RELEASED, PublishedError, published_accuracy
from robust_transfer.tables.published_results import (
    EDITIONS,
    FEW_IMAGES,
    FILES,
    MARKS,
    UNRELEASED,
    published_rows,
    read_published,
)
from robust_transfer.tables.results import RESULTS, as_results, check_keys
from support import tables
from support.tables import Row

PAPER_EPS = ("0", "0.01", "0.03", "0.05", "0.1", "0.25", "0.5", "1", "3", "5")
SHAPE_BIAS_L2 = (20.73, 21.66, 23.79, 23.63, 27.78, 33.88, 40.85, 48.45, 64.75, 69.50)
SHAPE_BIAS_LINF = (36.80, 45.18, 54.14, 62.32, 71.95)
RESNETS = ("resnet18", "resnet50", "wide_resnet50_2", "wide_resnet50_4")
OTHERS = ("densenet161", "mnasnet1_0", "mobilenet_v2", "resnext50_32x4d", "shufflenet_v2_x1_0", "vgg16_bn")
FIXED, FULL, CONFLICT = "fixed-feature", "full-network", "cue-conflict"
TABLES, HEADLINE, FIGURE_8, RELEASE, SINGLE, BIASES, PEOPLE, SIZES, ROBUST = EDITIONS
METRICS = {
    "aircraft": "mean_per_class",
    "birdsnap": "top1",
    "cifar10": "top1",
    "cifar100": "top1",
    "caltech101": "mean_per_class",
    "caltech256": "mean_per_class",
    "cars": "top1",
    "dtd": "top1",
    "flowers": "mean_per_class",
    "food": "top1",
    "pets": "mean_per_class",
    "sun397": "top1",
}


def lines(name: str) -> list[dict[str, str]]:
    with (FOLDER / name).open(newline="") as file:
        return list(csv.DictReader(file))


@functools.cache
def of_edition(edition: str | None) -> list[Row]:
    return tables.rows(published_rows(edition=edition))


def rows(edition: str | None = None, **where: object) -> list[Row]:
    """Rows of an edition whose columns are so."""
    return [row for row in of_edition(edition) if all(getattr(row, name) == value for name, value in where.items())]


def value(edition: str | None, mode: str, target: str, arch: str, eps: str, **where: object) -> float:
    """The one number there."""
    (row,) = rows(edition, mode=mode, target=target, arch=arch, eps=eps, **where)
    return float(row.value)


def by_eps(mode: str, target: str, arch: str, variant: str = "{}") -> dict[str, float]:
    """Accuracy of one L2 line of the submission's tables, by eps."""
    found = rows(mode=mode, target=target, arch=arch, variant=variant, recipe=RELEASED)
    return {row.eps: row.value for row in found if row.norm != "linf" and row.eps != BEST_ROBUST}


def best_robust(mode: str, target: str, arch: str) -> float:
    return max(number for eps, number in by_eps(mode, target, arch).items() if eps != "0")


def test_every_number_of_the_paper_is_there():
    assert {name: len(lines(name)) for name in FILES} == {
        "imagenet.csv": 67,
        "imagenet_unreleased.csv": 3,
        "transfer.csv": 1548,
        "headline.csv": 240,
        "stylized.csv": 164,
        "single_runs.csv": 96,
        "shape_bias.csv": 20,  # not the paper's, as those below
        "few_images.csv": 240,
        "robust_finetuning.csv": 8,
    }
    assert sorted(path.name for path in FOLDER.glob("*.csv")) == sorted(FILES)
    assert len(read_published()) == 2118 + 20 + 240 + 8


def test_the_tables_by_eps_are_complete():
    """Per line of each table: WRN-50-4, and WRN-50-2 downscaled, were trained for eps 0, 1 and 3 alone."""
    transfer = rows(TABLES, source="imagenet", mode=FIXED) + rows(TABLES, source="imagenet", mode=FULL)
    standard_linf = [row for row in transfer if row.recipe == UNRELEASED]
    linf = [row for row in transfer if row.norm == "linf"] + standard_linf
    l2 = [row for row in transfer if row not in linf]
    assert (len(linf), len(l2)) == (48, 1500)
    assert Counter(row.variant for row in l2) == {"{}": 876, '{"downscaled":32}': 624}
    expected: dict[tuple[str, ...], tuple[str, ...]] = {}
    for mode in (FIXED, FULL):
        for target in METRICS:
            for arch in RESNETS:
                few = ("0", "1", "3")
                expected[mode, target, arch, "{}"] = few if arch == "wide_resnet50_4" else PAPER_EPS
                expected[mode, target, arch, '{"downscaled":32}'] = few if arch.startswith("wide") else PAPER_EPS
    for target in ("cifar10", "cifar100", "caltech101", "caltech256", "cars", "flowers", "pets"):
        for arch in OTHERS:
            expected[FULL, target, arch, "{}"] = ("0", "3")
    cells = Counter((row.mode, row.target, row.arch, row.variant, row.eps) for row in l2)
    assert cells == {(*line, eps): 1 for line, found in expected.items() for eps in found}
    assert Counter((row.mode, row.target, row.arch) for row in linf) == {
        (mode, target, arch): 6
        for mode in (FIXED, FULL)
        for target in ("cifar10", "cifar100")
        for arch in ("resnet18", "resnet50")
    }
    assert {row.eps for row in linf} == {"0", "0.5/255", "1/255", "2/255", "4/255", "8/255"}


def test_the_other_files_are_complete():
    assert Counter((row.norm, row.arch) for row in rows(RELEASE)) == (
        {("none", arch): 1 for arch in (*RESNETS, *OTHERS)}
        | {("l2", arch): 9 for arch in RESNETS}
        | {("l2", arch): 1 for arch in OTHERS}
        | {("linf", arch): 5 for arch in RESNETS[:3]}
    )
    pairs = [(mode, target, arch) for mode in (FIXED, FULL) for target in METRICS for arch in RESNETS]
    best = [(mode, target, BEST_ARCH) for mode in (FIXED, FULL) for target in METRICS]
    assert Counter((row.mode, row.target, row.arch, row.eps) for row in rows(HEADLINE)) == {
        (*pair, eps): 1 for pair in pairs + best for eps in ("0", BEST_ROBUST)
    }
    assert Counter((row.mode, row.target, row.arch) for row in rows(SINGLE)) == dict.fromkeys(pairs, 1)
    texture = rows(FIGURE_8, target="stylized_imagenet")
    assert Counter((row.mode, row.arch, row.eps) for row in texture) == {
        (mode, arch, eps): 1
        for mode in ("source", FULL)
        for arch in RESNETS[:2]
        for eps in ("0", "0.25", "0.5", "1", "3")
    }
    bars = [row for row in rows(FIGURE_8) if row not in texture]
    assert Counter((row.mode, row.target, row.arch, row.source, row.eps) for row in bars) == {
        (*pair, *network): 1
        for pair in pairs
        if pair[2] in RESNETS[:2]
        for network in (("stylized_imagenet", "0"), ("imagenet", "0"), ("imagenet", BEST_ROBUST))
    }


def test_columns_are_those_of_our_table():
    for name in FILES:
        header, *rest = (FOLDER / name).read_bytes().decode().split("\n")
        more = {"training_images"} if name == FEW_IMAGES else set()
        columns = [column for column in RESULTS.columns if column not in RESULTS.added or column in more]
        assert header.split(",") == [*columns, *MARKS]
        assert rest[-1] == "", name
        assert "\r" not in header + "".join(rest), name


def test_rows_fit_the_schema_and_are_spelled_as_ours():
    for row in tables.rows(read_published()):
        assert row.experiment == "published"
        assert row.split == "test"
        assert 0 < row.value < 100
        others = {"imagenet": "top1", "stylized_imagenet": "top1", "cue_conflict": "shape_bias"}
        others |= dict.fromkeys(("svhn", "fmnist", "kmnist", "mnist"), "top1")
        assert row.metric == ("top1" if row.edition == ROBUST else (METRICS | others)[row.target])
        assert row.mode in ("source", FIXED, FULL, CONFLICT)
        untransferred = row.mode in ("source", CONFLICT)
        assert (row.protocol, row.selection) == ((None, None) if untransferred else ("paper", "test"))
        assert canonical(json.loads(row.variant)) == row.variant
        assert canonical(row.chosen) == row.hyperparameters
        assert math.isnan(row.ci_low)
        assert math.isnan(row.ci_high)
        if row.arch not in (BEST_ARCH, "people"):
            check_architecture(row.arch)
        if row.eps == BEST_ROBUST:
            assert row.eps_value is None
            assert row.norm == "l2"
        else:
            assert row.eps == canonical_eps(row.eps)
            assert row.eps_value == eps_value(row.eps)
            assert row.norm == ("none" if row.eps == "0" else "linf" if "/" in row.eps else "l2")
        assert row.provenance.partition(": ")[0] == row.edition.partition(",")[0]
    table = published_rows()
    for column in ("backbone_seed", "transfer_seed", "images_per_class", "attack", "backbone", "entry", "code"):
        assert table[column].isna().all(), column
    assert table[["n", "value"]].notna().all(axis=None)


def test_an_edition_has_one_number_a_cell_and_figures_one_to_draw():
    for edition in (*EDITIONS, None):
        assert rows(edition), edition
        check_keys(published_rows(edition=edition))
    assert sum(len(rows(edition)) for edition in EDITIONS) == len(read_published())
    recipes = [row.recipe if row.mode == CONFLICT else None for row in rows()]  # which their figure tells apart
    places = Counter(
        (row.target, row.mode, row.protocol, row.variant, row.norm, row.arch, row.eps, recipe)
        for row, recipe in zip(rows(), recipes, strict=True)
    )
    assert set(places.values()) == {1}
    numbers = read_published()
    assert not numbers.loc[numbers["recipe"] == UNRELEASED, "default"].any()
    assert not numbers.loc[numbers["edition"] == SINGLE, "default"].any()
    with pytest.raises(ValueError, match=r"edition = 'relaese'.*'release'"):
        published_rows(edition="relaese")


def test_numbers_of_others_are_not_drawn_beside_ours_by_default():
    numbers = read_published()
    assert not numbers.loc[numbers["edition"].isin([SIZES, ROBUST]), "default"].any()


def test_training_set_sizes_are_complete():
    """Ten sizes of each target, of which the largest is all there is, and four networks."""
    sizes = [100 * 2**i for i in range(9)]
    found = Counter((row.target, row.norm, row.eps, row.training_images) for row in rows(SIZES))
    networks = (("none", "0"), ("l2", "3"), ("linf", "4/255"), ("linf", "8/255"))
    targets = ("cifar10", "cifar100", "fmnist", "kmnist", "mnist", "svhn")
    assert found == {
        (target, *network, size): 1 for target in targets for network in networks for size in (*sizes, None)
    }
    by_hand = {
        ("cifar10", "0", 100): 48.493,
        ("cifar100", "3", 1600): 45.643,
        ("svhn", "8/255", 25600): 94.0834,
        ("mnist", "4/255", None): 99.34,
        ("kmnist", "3", 200): 62.974,
    }
    for (target, eps, size), expected in by_hand.items():
        assert value(SIZES, FULL, target, "resnet50", eps, training_images=size) == expected


def test_robust_fine_tuning_is_clean_and_under_autoattack():
    expected = {"flowers": (82.86, 47.91, 74.51, 32.75), "caltech101": (87.59, 61.74, 81.38, 34.49)}
    for target, numbers in expected.items():
        found = rows(ROBUST, target=target)
        assert tuple(row.value for row in found) == numbers
        attacks = [row.attack and json.loads(row.attack) for row in found]
        assert attacks == [None, {"eps": "8/255", "kind": "autoattack", "norm": "linf"}] * 2


def test_the_sizes_of_a_target_grow_to_all_images_in_their_figure():
    drawing = few_images(published_results())
    curve = [one for one in drawing.numbers if (one["target"], one["eps"], one["norm"]) == ("svhn", "3", "l2")]
    assert [one["training_images"] for one in curve] == [*(100 * 2**i for i in range(9)), "all"]
    assert len(drawing.numbers) == 240 + 60  # standard networks stand with L2 networks and with L∞ ones


@pytest.mark.parametrize(
    ("mode", "eps", "numbers"),
    [
        (FIXED, BEST_ROBUST, "43.38 49.19 95.53 81.08 92.32 83.34 48.74 70.22 91.26 65.95 91.85 55.74"),
        (FIXED, "0", "38.69 48.35 81.31 60.14 90.12 82.78 44.63 70.09 91.90 65.79 91.83 55.92"),
        (FULL, BEST_ROBUST, "86.08 76.06 98.68 89.04 95.29 87.31 91.48 75.94 97.21 88.99 94.24 64.74"),
        (FULL, "0", "86.57 75.71 97.63 85.99 94.75 86.55 91.52 75.80 97.04 88.64 94.20 63.72"),
    ],
)
def test_the_headline_is_the_papers(mode, eps, numbers):
    assert [value(None, mode, target, BEST_ARCH, eps) for target in METRICS] == [float(one) for one in numbers.split()]


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ((TABLES, FIXED, "pets", "resnet50", "0", '{"downscaled":32}'), 53.98),
        ((TABLES, FIXED, "pets", "resnet50", "1", '{"downscaled":32}'), 70.16),
        ((TABLES, FIXED, "sun397", "resnet50", "0", '{"downscaled":32}'), 23.62),
        ((TABLES, FIXED, "sun397", "resnet50", "3", '{"downscaled":32}'), 33.90),
        ((TABLES, FIXED, "cifar10", "resnet50", "8/255", "{}"), 93.68),
        ((TABLES, FIXED, "cifar100", "resnet50", "4/255", "{}"), 77.17),
        ((TABLES, FIXED, "cifar10", "resnet18", "4/255", "{}"), 90.56),
        ((TABLES, FULL, "cifar100", "resnet18", "2/255", "{}"), 83.98),
        ((TABLES, FULL, "caltech101", "mobilenet_v2", "3", "{}"), 89.02),
        ((TABLES, FULL, "caltech101", "mobilenet_v2", "0", "{}"), 88.91),
        ((TABLES, FULL, "aircraft", "resnet18", "0", "{}"), 80.70),
        ((FIGURE_8, "source", "stylized_imagenet", "resnet50", "1", "{}"), 11.08),
        ((FIGURE_8, FULL, "stylized_imagenet", "resnet18", "0.25", "{}"), 49.34),
        ((SINGLE, FIXED, "cifar10", "wide_resnet50_4", "3", "{}"), 95.57),
        ((RELEASE, "source", "imagenet", "wide_resnet50_4", "5", "{}"), 65.20),
    ],
)
def test_numbers_read_by_hand(where, expected):
    edition, mode, target, arch, eps, variant = where
    assert value(edition, mode, target, arch, eps, variant=variant) == expected


def test_standard_networks_of_the_linf_tables_are_kept_apart():
    of = {"mode": FIXED, "target": "cifar10", "arch": "resnet50", "eps": "0", "variant": "{}"}
    assert [row.value for row in rows(None, **of)] == [79.61]
    assert {row.recipe: row.value for row in rows(TABLES, **of)} == {RELEASED: 79.61, UNRELEASED: 78.16}
    assert value(TABLES, "source", "imagenet", "resnet50", "0") == 75.60


def test_networks_trained_on_stylized_images_are_their_source():
    of = {"target": "pets", "arch": "resnet50", "eps": "0", "source": "stylized_imagenet"}
    assert value(FIGURE_8, FIXED, **of) == 84.53
    assert value(FIGURE_8, FULL, **of) == 89.31


def test_the_headline_is_the_tables_maximum():
    """To 0.01: both were rounded from means over runs, which are not published."""
    for row in rows(HEADLINE):
        archs = RESNETS if row.arch == BEST_ARCH else (row.arch,)
        robust = row.eps == BEST_ROBUST
        lines = {arch: by_eps(row.mode, row.target, arch) for arch in archs}
        found = max(number for line in lines.values() for eps, number in line.items() if (eps != "0") == robust)
        assert row.value == pytest.approx(found, abs=0.0101)
        if row.chosen:
            assert lines[row.chosen["arch"]][row.chosen["eps"]] == found
            assert (row.chosen["eps"] != "0") == robust
    assert all(row.chosen for row in rows(None) if row.eps == BEST_ROBUST or row.arch == BEST_ARCH)


def test_the_bars_of_figure_8_are_those_of_the_headline():
    """Which is how far what was read from vector figures can be trusted."""
    bars = [row for row in rows(FIGURE_8, source="imagenet") if row.target != "stylized_imagenet"]
    assert len(bars) == 96
    for row in bars:
        assert row.value == pytest.approx(value(HEADLINE, row.mode, row.target, row.arch, row.eps), abs=0.0101)


def test_single_runs_lie_above_the_means():
    """As runs picked on test images do. WRN-50-4 was trained for most eps after the submission."""
    above = {}
    for row in rows(SINGLE):
        line = by_eps(row.mode, row.target, row.arch)
        if row.eps in line:
            above[row.mode, row.target, row.arch] = row.value - line[row.eps]
        else:
            assert row.arch == "wide_resnet50_4"
    assert len(above) == 78
    assert min(above.values()) > -0.0051
    assert max(above.values()) == pytest.approx(0.76, abs=0.005)
    assert max(above, key=above.__getitem__) == (FULL, "dtd", "resnet50")


def test_downscaled_cifar_is_the_best_single_run():
    for target, arch in (("cifar10", "resnet18"), ("cifar10", "resnet50"), ("cifar100", "resnet50")):
        (run,) = rows(SINGLE, mode=FIXED, target=target, arch=arch)
        downscaled = by_eps(FIXED, target, arch, '{"downscaled":32}')
        assert downscaled[run.eps] == pytest.approx(run.value, abs=0.0051)
        assert downscaled[run.eps] > by_eps(FIXED, target, arch)[run.eps]


def test_single_runs_on_aircraft_are_whole_numbers_of_images_for_three_networks():
    """So they are top-1 accuracies, where a mean per class was meant; those of WRN-50-4 are not."""
    for row in rows(SINGLE, target="aircraft"):
        correct = row.value * row.n / 100
        assert (abs(correct - round(correct)) < 0.001) == (row.arch != "wide_resnet50_4"), row


def test_hyperparameters_of_single_runs():
    runs = rows(SINGLE)
    rates = Counter((row.mode, row.chosen["learning_rate"]) for row in runs)
    assert rates == {(FIXED, 0.01): 47, (FIXED, 0.001): 1, (FULL, 0.001): 34, (FULL, 0.01): 14}
    for row in runs:
        others = {name: number for name, number in row.chosen.items() if name != "learning_rate"}
        assert others == {"batch_size": 64, "epochs": 150, "step_epochs": 50, "weight_decay": 0.0005}


@pytest.mark.parametrize(("mode", "ahead", "of_resnet18"), [(FIXED, 36, 9), (FULL, 29, 4)])
def test_robust_is_ahead_in_as_many_cells_as_claimed(mode, ahead, of_resnet18):
    cells = [(target, arch) for target in METRICS for arch in RESNETS]
    won = [cell for cell in cells if best_robust(mode, *cell) > by_eps(mode, *cell)["0"]]
    assert len(won) == ahead
    assert sum(arch == "resnet18" for _, arch in won) == of_resnet18


def test_robust_is_ahead_on_ten_targets_of_twelve():
    for mode, behind in ((FIXED, {"flowers", "sun397"}), (FULL, {"aircraft", "cars"})):
        of = {target: value(None, mode, target, BEST_ARCH, BEST_ROBUST) for target in METRICS}
        assert {target for target in METRICS if of[target] < value(None, mode, target, BEST_ARCH, "0")} == behind


def test_best_l2_is_ahead_of_best_linf_when_features_are_fixed():
    for target in ("cifar10", "cifar100"):
        for arch in RESNETS[:2]:
            linf = max(row.value for row in rows(mode=FIXED, target=target, arch=arch, norm="linf"))
            assert best_robust(FIXED, target, arch) > linf


def test_other_architectures_gain_from_robustness_on_the_cifars_alone():
    won = {
        (row.target, row.arch)
        for row in rows(mode=FULL, eps="3")
        if row.arch in OTHERS and row.value > value(None, FULL, row.target, row.arch, "0")
    }
    assert won == {(target, arch) for target in ("cifar10", "cifar100") for arch in OTHERS} | {
        ("caltech101", "mobilenet_v2")
    }


def test_robust_networks_are_ahead_on_texture():
    for mode in ("source", FULL):
        for arch in RESNETS[:2]:
            found = {row.eps: row.value for row in rows(mode=mode, arch=arch, target="stylized_imagenet")}
            assert all(found[eps] > found["0"] for eps in ("0.25", "0.5", "1", "3"))
    for row in rows(FIGURE_8, source="stylized_imagenet"):
        assert row.value < value(HEADLINE, row.mode, row.target, row.arch, BEST_ROBUST)


def test_accuracy_of_released_networks():
    assert published_accuracy("resnet50", "l2", "3") == 62.83
    assert published_accuracy("resnet50", "linf", "4/255") == 63.86
    assert published_accuracy("densenet161", "l2", "3") == 66.98
    assert published_accuracy("resnet18", "l2", "0") == published_accuracy("resnet18", None, "0") == 69.79
    assert published_accuracy("wide_resnet50_4", "linf", "4/255") is None
    assert published_accuracy("densenet161", "l2", "1") is None
    assert published_accuracy("resnet101", "l2", "0") is None
    for row in rows(RELEASE):
        assert published_accuracy(row.arch, row.norm, row.eps) == row.value


def test_figures_find_the_published_numbers():
    targets = tuple(Target(name, name, metric) for name, metric in METRICS.items())
    about = ExperimentInfo("published", source="imagenet", targets=targets, architectures=RESNETS, selection="test")
    cells = Cells(as_results(published_rows(), about))
    assert cells.norms() == ["l2", "linf"]
    (panel,) = (one for one in cells.panels(FIXED) if (one.target.name, one.norm) == ("cifar10", "l2"))
    comparison = cells.comparison(panel, BEST_ARCH)
    assert comparison.standard
    assert comparison.robust
    assert (comparison.standard.value, comparison.robust.value, comparison.ahead) == (81.31, 95.53, "robust")
    assert math.isnan(comparison.robust.ci_low)
    found = [cells.cell(panel, "resnet50", "3", downscaled=32), cells.cell(panel, "resnet50", "0")]
    assert [row and row.value for row in found] == [94.81, 79.61]
    found = [cells.source("resnet50", "l2", eps) for eps in ("3", "0")]
    assert [row and row.value for row in found] == [62.83, 75.80]
    assert cells.views(panel.protocol) == [None, 32]


@pytest.fixture
def copy(tmp_path):
    """The published files, to be damaged."""
    for name in FILES:
        (tmp_path / name).write_bytes((FOLDER / name).read_bytes())
    return tmp_path


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("top1,69.79,", "top1,169.79,", r"imagenet\.csv:2: value = 169.79: .* 0 to 100"),
        ("top1,69.79,", "top1,-1,", r"imagenet\.csv:2: value = -1: "),
        ("top1,69.79,", "top1,nan,", r"imagenet\.csv:2: value = nan: "),
        ("top1,69.79,", "top1,,", r"imagenet\.csv:2: value = '': expected is a number"),
        ("top1,69.79,", "top1,70%,", r"imagenet\.csv:2: value = '70%': expected is a number"),
        (",50000,", ",50000.0,", r"imagenet\.csv:2: n = '50000\.0': expected is a whole number"),
        (",50000,", ",,", r"imagenet\.csv:2: n = '': expected is a whole number"),
        ("published,imagenet", "published,", r"imagenet\.csv:2: source = '': expected is a text"),
        ("source,,{},", "source,,downscaled,", r"imagenet\.csv:2: variant = 'downscaled': .*JSON"),
        ("source,,{},", "source,,[],", r"imagenet\.csv:2: variant = '\[\]': .*JSON"),
        (",release,yes,", ",released,yes,", r"imagenet\.csv:2: edition = 'released': editions are .*'release'"),
        (",release,yes,", ",release,true,", r"imagenet\.csv:2: default = 'true': expected is yes or no"),
        (",release,yes,", ',"release,yes",', r"imagenet\.csv:2: 29 fields under 30 columns"),
        ("l2,0.01,0.01,", "none,0,0.0,", r"imagenet\.csv:3: a second number .*\(release\) of .*imagenet\.csv:2;"),
        (",metric,", ",accuracy,", r"imagenet\.csv:1: no column metric"),
    ],
)
def test_a_wrong_number_is_an_error_that_says_where(copy, old, new, message):
    text = (copy / "imagenet.csv").read_text()
    assert old in text
    (copy / "imagenet.csv").write_text(text.replace(old, new, 1))
    with pytest.raises(PublishedError, match=message):
        read_published(copy)


def test_one_cell_in_two_files_is_an_error(copy):
    (copy / "single_runs.csv").write_bytes((copy / "headline.csv").read_bytes())
    with pytest.raises(PublishedError, match=r"single_runs\.csv:2: a second number .* of .*headline\.csv:2;"):
        published_rows(folder=copy)


def test_a_missing_or_empty_file_is_an_error(copy):
    (copy / "headline.csv").write_text("")
    with pytest.raises(PublishedError, match=r"headline\.csv:1: no column experiment, source"):
        read_published(copy)
    (copy / "headline.csv").unlink()
    with pytest.raises(PublishedError, match=r"headline\.csv: no such file.*git checkout"):
        read_published(copy)


def test_shape_biases_are_those_of_the_bias_study_and_of_people():
    """As they were read by hand from its raw data, in percent to two decimals."""
    found = {(row.recipe, row.eps): round(row.value, 2) for row in rows(BIASES)}
    assert found == {
        **{("released", eps): value for eps, value in zip(PAPER_EPS, SHAPE_BIAS_L2, strict=True)},
        **{
            ("released", f"{eps}/255"): value
            for eps, value in zip(("0.5", "1", "2", "4", "8"), SHAPE_BIAS_LINF, strict=True)
        },
        ("torchvision", "0"): 21.46,
        ("sin", "0"): 81.39,
        ("sin-and-in", "0"): 34.56,
        ("sin-and-in-then-in", "0"): 20.41,
    }
    (people,) = rows(PEOPLE)
    assert people.value == pytest.approx(100 * 9236 / (9236 + 398), abs=5e-5)  # decisions of ten people, pooled
    assert {row.target for row in rows(BIASES)} == {people.target} == {"cue_conflict"}


def test_the_licence_of_others_numbers_lies_beside_them():
    stated = (FOLDER / "shape_bias.csv.license").read_text()
    assert "SPDX-License-Identifier: CC-BY-SA-4.0" in stated
    assert "Paul Gavrikov and Janis Keuper" in stated
    assert "shape_bias.csv.license" in (FOLDER / "README.md").read_text()

"""The figure of transferred models under attack: which lines there are, what is marked, and what its CSV says."""

import json
from itertools import combinations
from typing import Any

import pandas as pd
import pytest
from figures.test_figures import Record, drawn, row, visible_texts
from matplotlib.colors import to_hex
from robust_transfer.figures import style
from robust_transfer.figures.protocols import Protocol, distinctions, shared_details
from robust_transfer.figures.robust_transfer import COLOURS, COLUMNS
from robust_transfer.tables.experiment_info import ExperimentInfo, Target
from robust_transfer.tables.key import canonical
from robust_transfer.tables.results import as_results
from robust_transfer.tables.seeds import seed_means

ARCH, TARGETS, EPS = "resnet8_w16", ("Birds", "Cars"), ("0", "0.25", "1")
INFO = ExperimentInfo(
    "made-up", source="imagenet", targets=tuple(Target(name, name, "top1") for name in TARGETS), architectures=(ARCH,)
)


def attack(radius: str, **of: Any) -> str:
    kind = {"kind": "none"} if radius == "0" else {"steps": 10}
    return canonical({"norm": "l2", "eps": radius, "precision": "fp32", **kind, **of})


def records(radii: tuple[str, ...] = ("0", "0.5"), seed: int = 0, norm: str = "l2", **of: Any) -> list[Record]:
    """Accuracies on clean images, which no line shows, and under attacks; robust networks gain in the first target."""
    found = []
    for t, target in enumerate(TARGETS):
        for e, eps in enumerate(EPS):
            plain = {"norm": norm if eps != "0" else "none", "backbone_seed": seed, **of}
            found.append(row(target, ARCH, eps, 99.0, **plain))
            for r, radius in enumerate(radii):
                under = {**plain, "attack": attack(radius, norm=norm), "n": 200}
                value = 60 - 20 * r + 5 * e * (t == 0) + seed
                found.append(row(target, ARCH, eps, value, **under))
                if eps != "0" and not seed:
                    difference = {**under, "metric": "top1_difference", "backbone_seed": None, "transfer_seed": None}
                    found.append(row(target, ARCH, eps, 5 * e * (t == 0), **difference))
    return found


def table(*parts: list[Record]) -> pd.DataFrame:
    return as_results([one for part in parts for one in part], INFO)


def titles(drawing: Any) -> list[str]:
    return [ax.get_title() for ax in drawing.figure.axes]


def legend(drawing: Any) -> list[str]:
    return [text.get_text() for one in drawing.figure.legends for text in one.get_texts()]


def test_a_panel_for_each_target_and_a_line_for_each_attack() -> None:
    drawing = drawn("robust_transfer", table(records()))
    assert titles(drawing) == ["Birds", "Cars"]
    assert [(one["target"], one["series"], one["eps"], one["value"]) for one in drawing.numbers] == [
        *(("Birds", "clean", eps, 60 + 5 * e) for e, eps in enumerate(EPS)),
        *(("Birds", "PGD-10", eps, 40 + 5 * e) for e, eps in enumerate(EPS)),
        *(("Cars", series, eps, value) for series, value in (("clean", 60), ("PGD-10", 40)) for eps in EPS),
    ]
    assert [one["difference"] for one in drawing.numbers][:6] == [None, 5.0, 10.0] * 2
    assert {tuple(one) for one in drawing.numbers} == {COLUMNS}
    said = legend(drawing)
    assert said[:2] == ["clean", "PGD-10, L2 ε 0.5"]
    assert any("on 200 test images of each target" in text for text in said)
    assert any("intervals over test images, of these weights alone" in text for text in said)


def test_what_is_no_different_from_the_standard_network_is_hollow() -> None:
    drawing = drawn("robust_transfer", table(records()))
    marks = [[line for line in ax.lines if line.get_marker() == "o"] for ax in drawing.figure.axes]
    hollow = [
        sum(len(line.get_xdata()) for line in of_panel if to_hex(line.get_markerfacecolor()) == "#ffffff")
        for of_panel in marks
    ]
    assert hollow == [0, 4]  # of the second target both robust networks, clean and attacked


def test_autoattack_is_dashed_in_the_colour_of_its_radius() -> None:
    stronger = [
        {**one, "attack": attack("0.5", kind="autoattack", steps=None), "value": one["value"] - 5}
        for one in records()
        if one["attack"] == attack("0.5")
    ]
    drawing = drawn("robust_transfer", table(records(), stronger))
    assert [one["series"] for one in drawing.numbers[:9:3]] == ["clean", "PGD-10", "AutoAttack"]
    assert legend(drawing)[:3] == ["clean", "PGD-10, L2 ε 0.5", "AutoAttack, L2 ε 0.5"]
    dashed = {to_hex(line.get_color()) for line in drawing.figure.axes[0].lines if line.get_linestyle() == "--"}
    assert dashed == {COLOURS[0]}


def test_several_seeds_are_means_with_their_dots() -> None:
    rows = table(*(records(seed=seed) for seed in range(3)))
    drawing = drawn("robust_transfer", as_results(pd.concat([rows, seed_means(rows[rows.metric == "top1"])]), INFO))
    assert {(one["value"], one["ci_kind"], one["n"]) for one in drawing.numbers if one["target"] == "Cars"} == {
        (61.0, "seeds", 3), (41.0, "seeds", 3),
    }  # fmt: skip
    dots = [line for line in drawing.figure.axes[0].lines if line.get_marker() == "." and len(line.get_xdata()) == 3]
    assert len(dots) == 2 * len(EPS)
    assert any("on 200 test images" in text for text in legend(drawing))
    assert "intervals over seeds" in legend(drawing)


def test_every_way_of_transferring_has_a_row_that_says_so() -> None:
    full = records(mode="full-network", protocol="paper", variant='{"normalisation":"source"}')
    drawing = drawn("robust_transfer", table(records(), full))
    assert titles(drawing) == ["Birds", "Cars"] * 2
    assert [ax.get_ylabel() for ax in drawing.figure.axes] == ["Fixed-feature (%)", "", "Full-network (%)", ""]
    heads = records(protocol="paper", variant='{"batchnorm":"frozen","normalisation":"source"}')
    drawing = drawn("robust_transfer", table(records(), heads, full))
    ways = [" ".join(title.split()) for title in titles(drawing)[::2]]
    assert ways == ["Birds: frozen protocol", "Birds: paper protocol", "Birds"]
    assert "Fixed-feature, paper protocol: batchnorm: frozen, normalisation: source" in legend(drawing)


ATTACK = "l2 0.25, 2 steps"


def test_settings_are_told_apart_by_their_names_and_what_they_share_is_said_once() -> None:
    heads = {"batchnorm": "frozen", "normalisation": "source"}
    adversarial = {"attack": ATTACK, **heads, "setting": "adversarial-head"}
    ways = [records(protocol="paper", variant=canonical(one)) for one in (heads, adversarial)]
    whole = [{}, {"attack": ATTACK, "setting": "adversarial-full"}]
    ways += [records(mode="full-network", protocol="paper", variant=canonical(one)) for one in whole]
    drawing = drawn("robust_transfer", table(records(), *ways))
    settings = ["standard-head", "adversarial-head", "standard-full", "adversarial-full"]
    assert titles(drawing)[::2] == ["Birds: frozen protocol", *(f"Birds: {one}" for one in settings)]
    said = " ".join(" ".join(legend(drawing)).split())
    assert (
        f"Fixed-feature, paper protocol: batchnorm: frozen, normalisation: source, adversarial under: {ATTACK}" in said
    )
    assert f"Full-network, paper protocol: adversarial under: {ATTACK}" in said
    assert json.loads(str(drawing.numbers[-1]["deviations"])) == whole[1]


def test_settings_under_several_attacks_or_batchnorms_say_which() -> None:
    def way(attack: str, batchnorm: str) -> Protocol:
        variant = {"attack": attack, "batchnorm": batchnorm, "setting": "adversarial-head"}
        return Protocol("fixed-feature", "paper", canonical(variant))

    ways = [way("l2 0.25, 2 steps", "train"), way("l2 0.5, 2 steps", "train"), way("l2 0.5, 2 steps", "frozen")]
    assert list(distinctions(ways).values()) == [
        "adversarial-head, attack: l2 0.25, 2 steps, batchnorm: train",
        "adversarial-head, attack: l2 0.5, 2 steps, batchnorm: train",
        "adversarial-head, attack: l2 0.5, 2 steps, batchnorm: frozen",
    ]
    assert shared_details(ways) == []


def test_rows_of_other_eps_have_labels_of_their_own() -> None:
    full = [one for one in records(mode="full-network", protocol="paper") if one["eps"] != "1"]
    labels = [
        [text.get_text() for text in ax.get_xticklabels()]
        for ax in drawn("robust_transfer", table(records(), full)).figure.axes
    ]
    assert labels == [["0", "0.25", "1"]] * 2 + [["0", "0.25"]] * 2
    alike = drawn("robust_transfer", table(records(), records(mode="full-network", protocol="paper"))).figure.axes
    assert [bool(ax.get_xticklabels()[0].get_text()) for ax in alike] == [False, False, True, True]


def test_norms_have_panels_of_their_own_with_attacks_in_their_norm() -> None:
    linf = records(norm="linf", radii=("0", "0.5"))
    drawing = drawn("robust_transfer", table(records(), linf))
    assert titles(drawing) == ["Birds, L2", "Birds, L∞", "Cars, L2", "Cars, L∞"]
    assert {(one["norm"], one["series"]) for one in drawing.numbers} == {
        (norm, series) for norm in ("l2", "linf") for series in ("clean", "PGD-10")
    }


@pytest.mark.parametrize("radii", [("0", "0.5"), ("0", "0.1", "0.25", "0.5", "1")])
def test_no_text_covers_another(radii: tuple[str, ...]) -> None:
    heads = records(radii, protocol="paper", variant='{"batchnorm":"frozen","normalisation":"source"}')
    full = records(radii, mode="full-network", protocol="paper")
    drawing = drawn("robust_transfer", table(records(radii), heads, full), laid_out=True)
    renderer = drawing.figure.canvas.get_renderer()
    boxes = [text.get_window_extent(renderer) for text in visible_texts(drawing.figure)]
    width, height = drawing.figure.get_size_inches() * drawing.figure.dpi
    assert all(box.x0 >= -1 and box.y0 >= -1 and box.x1 <= width + 1 and box.y1 <= height + 1 for box in boxes)
    sides = [ax.yaxis.label.get_window_extent(renderer) for ax in drawing.figure.axes if ax.get_ylabel()]
    assert not any(one.overlaps(other) for one, other in combinations(sides, 2))
    above = [ax.title.get_window_extent(renderer) for ax in drawing.figure.axes]
    above += [legend.get_window_extent(renderer) for legend in drawing.figure.legends]
    assert not any(one.overlaps(other) for one, other in combinations(above, 2))
    assert drawing.figure.get_figwidth() <= style.PAGE


def test_where_nothing_was_attacked_it_says_so() -> None:
    clean = [one for one in records() if one["attack"] is None]
    drawing = drawn("robust_transfer", table(clean))
    assert drawing.numbers == []
    assert [text.get_text() for ax in drawing.figure.axes for text in ax.texts] == [
        "Transferred models under attack: not measured"
    ]

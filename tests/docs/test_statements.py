"""Sentences about measured numbers say what the tables beside them say."""

import math
import re
from itertools import pairwise
from statistics import fmean
from typing import Any

from robust_transfer.claims.ledger import THESE_WEIGHTS, ledger
from robust_transfer.claims.lookup import Measured
from robust_transfer.configuration.claims import read_claims
from robust_transfer.configuration.load import load
from robust_transfer.configuration.training import RECIPES, Attack, Evaluation
from robust_transfer.tables.experiment_info import ExperimentInfo, Target
from robust_transfer.tables.key import canonical
from robust_transfer.tables.results import DIFFERENCE, SCHEMA, as_results
from support.documents import prose
from support.paths import ROOT

RESULTS = prose(ROOT / "docs/results.md")
WORDS = " ".join(RESULTS.split())
METHOD = " ".join(prose(ROOT / "docs/method.md").split())


def table(heading: str) -> list[list[str]]:
    """The cells of the table whose head is this line, without head and rule."""
    lines = RESULTS[RESULTS.index(heading) :].split("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]


def number(text: str) -> float:
    return float(text.replace("−", "-"))


def test_real_images_on_a_laptop_are_decided_as_the_table_says() -> None:
    ends = [
        [number(end) for end in re.findall(r"\[(\S+), (\S+)\]", row[-1])[0]]
        for row in table("| target | mode | standard | best robust (eps) | difference |")
    ]
    standard, robust = sum(high < 0 for _, high in ends), sum(low > 0 for low, _ in ends)
    assert (
        f"the standard network is ahead on {standard} of the {len(ends)} lines with an interval that excludes 0, the "
        f"best robust one on none, and {len(ends) - standard - robust} are undecided"
    ) in WORDS
    assert not robust


def test_the_ledger_says_of_real_images_what_is_written_beside_the_table() -> None:
    rows, targets = list[dict[str, Any]](), dict[str, Target]()
    for target, mode, standard, robust, difference in table(
        "| target | mode | standard | best robust (eps) | difference |"
    ):
        low, high = (number(end) for end in re.findall(r"\[(\S+), (\S+)\]", difference)[0])
        targets[target] = Target(target, target, "top1")
        for eps, metric, text in (
            ("0", "", standard),
            ("best-robust", "", robust),
            ("best-robust", DIFFERENCE, difference),
        ):
            ends = {"ci_low": low, "ci_high": high} if metric else {"ci_low": math.nan, "ci_high": math.nan}
            rows.append(
                dict.fromkeys(SCHEMA.names)
                | {"experiment": "real", "source": "real", "target": target, "arch": "best", "recipe": "short"}
                | {"norm": "none" if eps == "0" else "l2", "eps": eps, "eps_value": 0.0 if eps == "0" else math.nan}
                | {"mode": mode, "protocol": "paper", "variant": "{}", "split": "test", "selection": "validation"}
                | {"metric": f"top1{metric}", "value": number(text.split()[0]), "ci_kind": "images", "n": 1}
                | {"hyperparameters": '{"eps":"0.1","arch":"resnet8_w16"}', **ends}
            )
    info = ExperimentInfo("real", source="real", targets=tuple(targets.values()), architectures=("resnet8_w16",))
    found = {one.name: one for one in ledger(Measured(as_results(rows, info)), read_claims())}
    fixed, full = found["fixed-robust-ahead"], found["full-robust-ahead"]
    # By this table alone, with fewer claims to allow for, that of fixed features would fail.
    assert (fixed.outcome, full.outcome) == ("fails", "undecided")
    assert fixed.agreeing == full.agreeing
    assert f"either is undecided, where it is ahead on {fixed.agreeing} of {len(fixed.comparisons)} targets" in WORDS
    assert {THESE_WEIGHTS} <= {*fixed.remarks} & {*full.remarks}


def test_the_default_experiments_differences_are_those_of_its_accuracies() -> None:
    rows = table("| target | mode | standard | best robust (eps) | best robust less standard |")
    assert len(rows) == 6
    experiment = load([ROOT / "config.yaml"])
    for target, mode, *cells in rows:
        standard, robust, difference = (number(cell.split()[0]) for cell in cells)
        assert abs(robust - standard - difference) < 0.16, (target, mode)
        for cell in cells:
            low, high = (number(end) for end in re.findall(r"\[(\S+), (\S+)\]", cell)[0])
            assert low < number(cell.split()[0]) < high or high == 100.0, (target, mode)
        eps = re.findall(r"\((\S+)\)", cells[1])[0]
        assert any(eps in part.eps and mode in part.modes for part in experiment.grid)
    textures = rows[-1]
    seeds = [number(one) for one in re.findall(r"the robust seeds have (\S+), (\S+) and (\S+?)\. ", WORDS + " ")[0]]
    assert abs(sum(seeds) / 3 - number(textures[3].split()[0])) < 0.06


Difference = tuple[float, float, float, str]
"""A difference, the ends of its interval, and its mark: a star, a dagger or nothing."""


def difference(cell: str) -> Difference:
    """What a cell such as `−5.7 [−7.2, −4.2]*` says; its star is what its interval asks for."""
    found = re.fullmatch(r"(\S+) \[(\S+), (\S+)\]([*†]?)", cell)
    assert found, cell
    value, low, high = (number(found[i]) for i in (1, 2, 3))
    assert low < value < high
    assert found[4] == "†" or (found[4] == "*") == (low > 0 or high < 0), cell
    return value, low, high, found[4]


def mean_gap(lines: list[list[str]], *ways: tuple[int, int]) -> float:
    """Mean over the lines of the accuracy one way less another, a mean over pairs of which neither is marked †."""
    found = [
        [
            number(line[2 + one]) - number(line[2 + other])
            for one, other in ways
            if "†" not in line[2 + one] + line[2 + other]
        ]
        for line in lines
    ]
    return fmean(fmean(of_line) for of_line in found)


def test_protocols_differ_as_the_table_says() -> None:
    lines = table("| target | eps | frozen | paper, as released |")
    accuracies = [[number(cell.removesuffix("†")) for cell in row[2:]] for row in lines]
    pairs = [(standard, robust) for (standard, robust) in list(pairwise(accuracies))[::2]]
    differences = [[difference(cell) for cell in row[1:]] for row in table("| robust less standard | frozen |")]
    # By the frozen protocol they are means over seeds, of which the table of accuracies has one.
    for i, ((standard, robust), of_target) in enumerate(zip(pairs, differences, strict=True)):
        for way, (value, low, high, mark) in enumerate(of_target):
            measured = robust[way] - standard[way]
            assert low < measured < high
            assert way == 0 or abs(measured - value) < 0.11, (i, way)
            # The flags of a difference are those of both sides.
            assert (mark == "†") == ("†" in lines[2 * i][2 + way] + lines[2 * i + 1][2 + way])
    frozen = [row[0] for row in differences]
    assert f"all five targets (by {-max(frozen)[0]:.1f} to {-min(frozen)[0]:.1f} points), on four with" in WORDS
    assert [mark for *_, mark in frozen] == ["*", "*", "", "*", "*"]
    assert "on Flowers-17 it is undecided, for the robust network's three seeds have 65.3, 57.4 and 64.7" in WORDS
    assert abs((65.3 + 57.4 + 64.7) / 3 - (68.5 + 67.4 + 68.5) / 3 - frozen[2][0]) < 0.11
    assert pairs[2][1][0] == 65.3
    released = [row[1] for row in differences]
    ahead = sorted(value for value, *_ in released if value > 0)
    assert f"As released the robust one is ahead on four (by {ahead[0]:.1f} to {ahead[-1]:.1f}), on CIFAR-10" in WORDS
    assert len(ahead) == 4
    assert [mark for *_, mark in released] == ["*", "*", "", "", "*"]
    assert f"and the standard one on traffic signs, by {-released[-1][0]:.1f}, with an interval" in WORDS
    papers = [one for row in differences for one in row[1:] if one[3] != "†"]
    starred = [value for value, *_, mark in papers if mark]
    for_standard = [value for value in starred if value < 0]
    assert for_standard == [value for value, *_, mark in differences[-1][1:] if mark == "*"]
    assert (
        f"Of the {len(papers)} differences by the paper's protocol, with and without its peculiarities, that are not "
        f"marked †, {len(starred)} exclude 0, {len(starred) - len(for_standard)} for the robust network and "
        f"{len(for_standard)}, both on traffic signs, for the standard one, and {len(papers) - len(starred)} are "
        "undecided"
    ) in WORDS
    failed = [(line[1], cell) for line in lines for cell in line if "†" in cell]
    assert failed == [("0", "11.5†")]
    assert "of one the loss is not enough (`refit-below-validation`)" in WORDS
    assert f"right on {failed[0][1].removesuffix('†')} % of the test images" in WORDS
    assert f"Of the {4 * len(lines)} choices of a learning rate" in WORDS
    assert f"(at eps 0 probes on {accuracies[-2][0]} and" in WORDS
    most = max(row[0] - row[1] for row in accuracies)
    assert f"differ by up to {most:.0f} points on small networks" in METHOD
    costs = [mean_gap(of, (0, 4)) for of in (lines[::2], lines[1::2])]
    assert f"costs the standard network {costs[0]:.1f} points and the robust one {costs[1]:.1f}" in WORDS
    norms = [mean_gap(of, (3, 1), (4, 2)) for of in (lines[::2], lines[1::2])]
    said = re.findall(r"Normalising by the target's statistics costs (\S+) and (\S+);", WORDS)[0]
    assert all(abs(number(cost) - norm) < 0.06 for cost, norm in zip(said, norms, strict=True))  # of rounded cells
    for of in (lines[::2], lines[1::2]):
        drifts = [mean_gap([line], (1, 2), (3, 4)) for line in of]
        assert min(drifts) < 0 < max(drifts)


def test_differences_from_few_images_are_counted_as_the_table_says() -> None:
    rows = [row[1:] for row in table("| best robust less standard | 5 | 10 | 25 | all |")]
    found = [[difference(cell) for cell in column if cell != "–"] for column in zip(*rows, strict=True)]
    every = [one for column in found for one in column]
    standard, ahead = sum(one[0] < 0 for one in every), sum(one[0] > 0 for one in every)
    starred = [sum(one[3] == "*" for one in column) for column in found]
    assert all(one[0] < 0 for one in every if one[3])
    assert (
        f"The standard network is ahead on {standard} of the {len(every)}, on {sum(starred)} with an interval that "
        f"excludes 0 ({starred[3]} of them from all images, {starred[1]} from 10 of each class, {starred[2]} from 25 "
        f"and none from 5), the robust one on {ahead}, and {len(every) - sum(starred)} are undecided"
    ) in WORDS
    assert not starred[0]
    ahead_of_all = sum(one[0] > 0 for one in found[3])
    assert f"the best robust network being ahead on {ahead_of_all} of {len(found[3])} targets" in WORDS


SETTINGS = "| target | setting | clean, standard | clean, robust | difference | attacked, standard | attacked, robust |"
WEAKER = "| robust less standard, attacked within 0.1 | CIFAR-10 | Flowers-17 | Traffic signs |"


def interval(cell: str) -> tuple[float, float, float]:
    """A value and the ends of its interval."""
    value, low, high = (number(text) for text in re.findall(r"[+−]?[0-9.]+", cell.removesuffix(" †"))[:3])
    return value, low, high


def settings() -> dict[str, list[list[tuple[float, float, float]]]]:
    """By setting and target: standard, robust and difference, first on clean images and then attacked."""
    found: dict[str, list[list[tuple[float, float, float]]]] = {}
    for _, setting, *cells in table(SETTINGS):
        found.setdefault(setting, []).append([interval(cell) for cell in cells])
    return found


def span(values: list[float]) -> str:
    return f"{min(values):.1f} to {max(values):.1f}"


def together(values: list[float], sign: str = "") -> str:
    first, second, third = (f"{value:{sign}.1f}".replace("-", "−") for value in values)
    return f"{first}, {second} and {third}"


def test_the_table_of_settings_is_consistent() -> None:
    found = settings()
    assert [len(of) for of in found.values()] == [3] * 5
    for cells in (cells for of in found.values() for cells in of):
        assert all(low < value < high for value, low, high in cells)
        for standard, robust, difference in (cells[:3], cells[3:]):
            assert abs(robust[0] - standard[0] - difference[0]) < 0.11
    assert not [row for row in (*table(SETTINGS), *table(WEAKER)) if "†" in "".join(row)]


def test_robustness_on_targets_is_as_the_table_says() -> None:
    found = settings()
    standard, robust = ({way: [cells[i][0] for cells in of] for way, of in found.items()} for i in (3, 4))
    fixed = [cells for way in ("probe", "standard-head", "adversarial-head") for cells in found[way]]
    assert all(cells[5][1] > 0 for cells in fixed)
    assert f"with every probe and head, by {span([cells[5][0] for cells in fixed])} points, and no interval" in WORDS
    keeps = span(standard["probe"] + standard["standard-head"])
    assert f"keeps {keeps} % with a probe or a standard head" in WORDS
    before, after = together(standard["standard-head"]), together(standard["adversarial-head"])
    assert f"from {before} to {after} %, and not to the {together(robust['standard-head'])} of" in WORDS
    moves = [after - before for before, after in zip(robust["standard-head"], robust["adversarial-head"], strict=True)]
    assert f"On the robust network it changes that by {together(moves, '+')} points" in WORDS
    whole = found["standard-full"]
    assert all(cells[5][1] > 0 > cells[2][2] for cells in whole)
    assert f"by {span([cells[5][0] for cells in whole])} points, and is behind" in WORDS
    assert f"images, by {span([-cells[2][0] for cells in whole])}. Whether" in WORDS
    cifar, *others = zip(robust["standard-full"], robust["probe"], strict=True)
    assert f"{cifar[0]:.1f} of {cifar[1]:.1f} % on CIFAR-10" in WORDS
    assert all(trained > probed for trained, probed in others)


def test_adversarial_training_of_whole_networks_is_as_the_table_says() -> None:
    found = settings()
    for target, of_target in enumerate(zip(*found.values(), strict=True)):
        highest = max(max(cells[3][0], cells[4][0]) for cells in of_target)
        trained = found["adversarial-full"][target]
        assert highest == max(trained[3][0], trained[4][0])
        heads = (cells for way in ("probe", "standard-head", "adversarial-head") for cells in [found[way][target]])
        assert min(trained[3][0], trained[4][0]) > max(max(cells[3][0], cells[4][0]) for cells in heads)
    ends = [cells[5] for cells in found["adversarial-full"]]
    low, high = min(ends)[0], max(ends)[0]
    assert f"are {low:+.1f} to {high:+.1f} points, and each interval".replace("-", "−") in WORDS
    assert all(low < 0 < high for _, low, high in ends)
    flowers = found["adversarial-full"][1][4][0], found["standard-full"][1][4][0]
    assert f"({flowers[0]:.1f} and {flowers[1]:.1f})" in WORDS
    pairs = zip(found["standard-full"], found["adversarial-full"], strict=True)
    costs = [clean[i][0] - adversarial[i][0] for clean, adversarial in pairs for i in (0, 1)]
    assert f"It costs {span(costs)} points of clean accuracy" in WORDS
    fixed = [cells for way in ("probe", "standard-head", "adversarial-head") for cells in found[way]]
    assert f"on {sum(cells[2][0] < 0 for cells in fixed)} of {len(fixed)} lines and more robust on all" in WORDS


def test_the_ledger_says_of_robustness_on_targets_what_is_written_beside_the_table() -> None:
    names = ("CIFAR-10", "Flowers-17", "Traffic signs")
    ways = {
        "probe": ("fixed-feature", "frozen", {}),
        "standard-head": ("fixed-feature", "paper", {}),
        "adversarial-head": ("fixed-feature", "paper", {"attack": "l2 0.25", "setting": "adversarial-head"}),
        "standard-full": ("full-network", "paper", {}),
        "adversarial-full": ("full-network", "paper", {"attack": "l2 0.25", "setting": "adversarial-full"}),
    }
    rows = list[dict[str, Any]]()
    for way, *cells in table(WEAKER):
        mode, protocol, variant = ways[way]
        for target, cell in zip(names, cells, strict=True):
            difference, low, high = interval(cell)
            n = 340 if target == "Flowers-17" else 500
            for eps, metric, value in (
                ("0", "", 30.0),
                ("best-robust", "", 30 + difference),
                ("best-robust", DIFFERENCE, difference),
            ):
                rows.append(
                    dict.fromkeys(SCHEMA.names)
                    | {"experiment": "real", "source": "real", "target": target, "arch": "resnet8_w16"}
                    | {"recipe": "short", "norm": "none" if eps == "0" else "l2", "eps": eps, "n": n}
                    | {"eps_value": 0.0 if eps == "0" else math.nan, "mode": mode, "protocol": protocol}
                    | {"variant": canonical(variant), "split": "test", "selection": "validation"}
                    | {"attack": canonical({"eps": "0.1", "norm": "l2", "steps": 10}), "metric": f"top1{metric}"}
                    | {"value": value, "ci_low": low if metric else value - 1, "ci_high": high if metric else value + 1}
                    | {"ci_kind": "images", "flags": "refit-below-validation" if "†" in cell else ""}
                    | {"hyperparameters": '{"eps":"0.25","arch":"resnet8_w16"}'}
                )
    architectures = ("resnet8_w16",)
    info = ExperimentInfo(
        "real", source="real", targets=tuple(Target(name, name, "top1") for name in names),
        architectures=architectures, widths=architectures,
    )  # fmt: skip
    found = {one.name: one for one in ledger(Measured(as_results(rows, info)), read_claims())}
    said = table(
        "| claim | verdict | on | effect that decides | n | p, adjusted |\n|---|---|---|---|---|---|\n| `robustness"
    )
    assert len(said) == 3
    for name, outcome, on, effect, images, p in said:
        verdict = found[name.strip("`")]
        assert verdict.outcome == outcome
        assert on == f"{verdict.agreeing} of {len(verdict.comparisons)} targets"
        assert p == "< 0.0001"
        assert verdict.p_adjusted < 1e-4
        assert verdict.deciding
        if "fixed" not in name:  # there the robust network is the one that validation chose
            assert interval(effect) == (verdict.deciding.effect, verdict.deciding.low, verdict.deciding.high)
            assert images == f"{verdict.deciding.n} images"


def test_attacks_have_the_steps_that_documents_say() -> None:
    def pgd(attack: Attack) -> str:
        start = "a random start" if attack.random_start else "the image"
        return f"{attack.steps} steps of {attack.step_size:g} ε from {start}"

    stated = Evaluation.model_validate({"attack": {"use_best": True}}).attack
    assert f"no `evaluation.attack` is stated, PGD takes {pgd(Evaluation().attack)}" in METHOD
    assert f"one that is stated has {stated.steps} steps from the image unless" in METHOD
    assert not stated.random_start
    assert f"The default experiment takes {pgd(load([ROOT / 'config.yaml']).evaluation.attack)}" in METHOD
    for recipe in RECIPES.values():
        assert f"PGD-{recipe['attack']['steps']}" in METHOD
    named = {int(steps) for path in ROOT.glob("*.md") for steps in re.findall(r"PGD-(\d+)", path.read_text())}
    assert named <= {recipe["attack"]["steps"] for recipe in RECIPES.values()}

"""`why`: the same jobs as Snakemake plans, after every kind of edit, and the reason in words."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from robust_transfer.configuration.load import load
from robust_transfer.dag.availability import planned
from robust_transfer.dag.wiring import Wiring
from robust_transfer.store.finished import FINISHED
from support import finished_stores
from support.checkouts import Checkout, edit, extend
from support.dry_runs import outcomes
from support.small_experiments import part, small

SMALL = small([part([0, 0.5], ["fixed-feature", "full-network"])], draw=["headline", "full_network"])
COLLECTED = {"results": 1, "claims": 1, "figure_headline": 1, "figure_full_network": 1, "report": 1, "page": 1}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    folder = tmp_path_factory.mktemp("checkout")
    checkout = Checkout(folder, SMALL)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        finished_stores.finish(wiring_of(checkout))
    return checkout


@pytest.fixture
def checkout(finished: Checkout, tmp_path: Path) -> Checkout:
    """The finished experiment once more."""
    return finished.copy(tmp_path / "checkout")


def wiring_of(checkout: Checkout, overlay: str = "experiment.yaml") -> Wiring:
    """Of the experiment, with paths below the working directory."""
    return Wiring(planned(load([checkout.folder / overlay])))


def both(checkout: Checkout, overlay: str = "experiment.yaml") -> tuple[dict[str, int], dict[str, int], str]:
    """Jobs by rule that Snakemake plans, those that `why` says, and all that it says; by one process."""
    calls = [("snakemake", ["-n", "--configfile", overlay]), ("robust_transfer", ["why", "--configfile", overlay])]
    (status, dry_run), (said_status, said) = outcomes(calls, checkout.folder)
    assert (status, said_status) == (0, 0), dry_run + said
    table = dry_run.partition("Job stats:")[2].partition("total")[0]
    jobs = {rule: int(count) for rule, count in re.findall(r"^(\w+)\s+(\d+)\s*$", table, re.M) if rule != "all"}
    told = said.splitlines()[-1]
    counts = re.findall(r"(\w+) (\d+)(?:, |$)", told.partition(": ")[2])
    return jobs, {rule: int(count) for rule, count in counts}, said


def nothing(checkout: Checkout) -> str:
    return "experiment.yaml"


def another_eps(checkout: Checkout) -> str:
    grid = [{"architectures": ["resnet8_w4"], "eps": [0, 0.3], "modes": ["fixed-feature", "full-network"]}]
    return checkout.overlay("o.yaml", grid=grid, figures={"fixed_eps": 0.3})


def more_epochs(checkout: Checkout) -> str:
    return checkout.overlay("o.yaml", pretraining={"training": {"epochs": 2, "batch_size": 32}})


def another_seed(checkout: Checkout) -> str:
    grid = [{"architectures": ["resnet8_w4"], "eps": [0, 0.5], "transfer_seeds": [1], "modes": ["fixed-feature"]}]
    return checkout.overlay("o.yaml", grid=grid)


def other_strengths(checkout: Checkout) -> str:
    return checkout.overlay("o.yaml", probing={"strengths": [0.1, 0.01]})


def another_title(checkout: Checkout) -> str:
    return checkout.overlay("o.yaml", title="Another")


def edited_attack(checkout: Checkout) -> str:
    edit(checkout.package / "attacks.py", "def pgd(", "ANOTHER = 1\n\n\ndef pgd(")
    return "experiment.yaml"


def edited_solver(checkout: Checkout) -> str:
    extend(checkout.package / "statistics" / "lbfgs.py")
    return "experiment.yaml"


def edited_figure(checkout: Checkout) -> str:
    extend(checkout.package / "figures" / "html.py")
    return "experiment.yaml"


def edited_table(checkout: Checkout) -> str:
    extend(checkout.package / "tables" / "seeds.py")
    return "experiment.yaml"


def lost_output(checkout: Checkout) -> str:
    found = sorted((checkout.folder / "store" / "probing").glob("*/strengths.csv"))
    found[0].unlink()
    return "experiment.yaml"


def lost_entry(checkout: Checkout) -> str:
    shutil.rmtree(sorted((checkout.folder / "store" / "features").iterdir())[0])
    return "experiment.yaml"


def lost_figure(checkout: Checkout) -> str:
    (checkout.folder / "results" / "small" / "figures" / "headline.tex").unlink()
    return "experiment.yaml"


def other_input(checkout: Checkout) -> str:
    """A backbone that was made anew, to other weights, which nothing below it was made from."""
    path = sorted((checkout.folder / "store" / "pretraining").iterdir())[0]
    for folder in (path, path / FINISHED):
        card = json.loads((folder / "card.json").read_text())
        card["facts"] = {"parameters": 7}
        (folder / "card.json").unlink()
        (folder / "card.json").write_text(json.dumps(card))
    return "experiment.yaml"


MADE_FROM_ONE = {"evaluation": 1, "features": 1, "probing": 1, "finetuning": 1}
OF_TWO = {name: 2 * number for name, number in MADE_FROM_ONE.items()}
EDITS = [
    (nothing, {}, ["nothing would run again"]),
    (
        another_eps,
        {"pretraining": 1, **MADE_FROM_ONE, **COLLECTED},
        [
            r'pretraining: 1 of 2 \(objects_.*\) to be made: eps: "0.*" → "0.3" \(from objects_',
            r"it is made from is to be made \(backbone\)\n",
        ],
    ),
    (
        more_epochs,
        {"pretraining": 2, **OF_TWO, **COLLECTED},
        [
            "pretraining: 2 of 2 to be made: training.epochs: 1 → 2 ",
            r"features: 2 of 2 to be made: what it is made from is to be made \(backbone\)\n",
        ],
    ),
    (
        another_seed,
        {"probing": 2, **COLLECTED},
        [r"probing: 2 of 2 to be made: seed: 0 → 1 \(from objects_.*_on_coarse_seed0-", "results: .*what is measured"],
    ),
    (
        other_strengths,
        {"probing": 2, **COLLECTED},
        [r"probing: 2 of 2 to be made: strengths: \[.*… → \[0.1, 0.01\] \(from objects_"],
    ),
    (another_title, COLLECTED, [r"results: made again: the experiment is another \(title\)\n"]),
    (
        edited_attack,
        {"evaluation": 2, **COLLECTED},
        [
            r"evaluation: 2 of 2 made again: changed code: attacks \(ANOTHER is new\)\n",
            r"pretraining: 2 kept, though made by other code: attacks \(ANOTHER is new\); `store renew`",
        ],
    ),
    (
        edited_solver,
        {"probing": 2, **COLLECTED},
        [r"probing: 2 of 2 made again: changed code: statistics.lbfgs \(SOMETHING is new\)\n"],
    ),
    (
        edited_figure,
        {"figure_headline": 1, "claims": 1},
        [
            rf"{product}: made again: changed code: figures.html \(SOMETHING is new\)\n"
            for product in ("figure_headline", "claims")
        ],
    ),
    (edited_table, COLLECTED, [r"results: made again: changed code: tables.seeds \(SOMETHING is new\)\n"]),
    (
        lost_output,
        {"probing": 1, **COLLECTED},
        [r"probing: 1 of 2 \(objects_.*\) published again, not computed: strengths.csv missing, finished before\n"],
    ),
    (
        lost_entry,
        {"features": 1, "probing": 1, **COLLECTED},
        [r"features: 1 of 2 \(.*\) to be made: the store does not h"],
    ),
    (lost_figure, {"figure_headline": 1}, [r"figure_headline: to be made: figures/headline.tex missing\n"]),
    (
        other_input,
        {**MADE_FROM_ONE, **COLLECTED},
        [
            r"features: 1 of 2 .* made again: what it was made from gives something else by now \(backbone\)",
            r"probing: 1 of 2 .* made again if what it is made from turns out another \(features\)\n",
        ],
    ),
]


SHORT = {nothing, more_epochs, edited_attack, lost_output, other_input}
"""The others run with the tests of faults, for their length."""
CASES = [
    pytest.param(*edited, id=edited[0].__name__, marks=[] if edited[0] in SHORT else pytest.mark.faults)
    for edited in EDITS
]


@pytest.mark.parametrize(("change", "jobs", "words"), CASES)
def test_it_says_what_snakemake_plans_and_why(
    change: Callable[[Checkout], str], jobs: dict[str, int], words: list[str], checkout: Checkout
) -> None:
    plan, told, said = both(checkout, change(checkout))
    assert plan == told == jobs, said
    for pattern in words:
        assert re.search(pattern, said), f"{pattern} is not in\n{said}"


def test_a_target_is_explained_with_what_it_is_made_from(checkout: Checkout) -> None:
    overlay = more_epochs(checkout)
    (made,) = [one for one in wiring_of(checkout, overlay).grid.stage("probing") if "_eps0.5_" in one]
    calls = [
        ("robust_transfer", ["why", target, "--configfile", overlay])
        for target in (f"store/probing/{made}/metrics.json", f"probing/{made}", "features", "figure_headline", "what")
    ]
    of_file, of_entry, of_stage, of_figure, of_nothing = outcomes(calls, checkout.folder)
    assert of_file == of_entry
    lines = of_entry[1].splitlines()
    assert [len(line) - len(line.lstrip()) for line in lines] == [0, 2, 4]
    assert lines[0] == f"probing/{made}: to be made: what it is made from is to be made (features)"
    assert "training.epochs: 1 → 2 (from objects_resnet8_w4_l2_eps0.5_seed0-" in lines[2]
    assert of_stage[1].splitlines()[-1] == "4 jobs would run: pretraining 2, features 2"
    assert "figure_headline 1" in of_figure[1]
    assert "figure_full_network" not in of_figure[1]
    assert of_nothing[0] == 1
    assert "what: not of experiment small; `why` takes an entry" in of_nothing[1]


def test_without_a_record_of_definitions_modules_are_named(checkout: Checkout) -> None:
    shutil.rmtree(checkout.folder / "store" / ".code")
    _, _, said = both(checkout, edited_solver(checkout))
    assert "probing: 2 of 2 made again: changed code: statistics.lbfgs\n" in said


def test_strict_refuses_to_plan_where_expensive_code_changed(checkout: Checkout) -> None:
    edited_attack(checkout)
    strict = checkout.overlay("strict.yaml", running={"strict": True})
    calls = [("snakemake", ["-n", "--configfile", "experiment.yaml", "--config", "running={strict: true}"])]
    calls += [("snakemake", ["-n", "--configfile", strict]), ("snakemake", ["-n", "--configfile", "experiment.yaml"])]
    by_option, by_key, kept = outcomes(calls, checkout.folder)
    for status, said in (by_option, by_key):
        assert status == 1
        assert "pretraining: kept 2 of 2 entries made by other code (changed since: attacks)" in said
        assert "running.strict = true: renew these entries, or set it to false" in said
    assert kept[0] == 0

"""Every wrong configuration of the table ends `snakemake -n` before any work: one message, no traceback."""

import re
from pathlib import Path

import pytest
import yaml
from support.checkouts import Checkout
from support.dry_runs import Call, Outcome, outcomes
from support.mistakes import MISTAKES, OF_THE_GRID, TEXTS, UNREADABLE, from_files, grid

OVERLAYS = [*MISTAKES, *OF_THE_GRID]
FILE = "mine.yaml"


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    return Checkout(tmp_path_factory.mktemp("checkout"), "extends: default\n")


def written(checkout: Checkout, table: str, contents: list[bytes | None]) -> list[Path]:
    """A file for each content, in a folder of its own; none where the content is None."""
    files = [checkout.folder / table / str(i) / FILE for i in range(len(contents))]
    for file, content in zip(files, contents, strict=True):
        file.parent.mkdir(parents=True)
        if content is not None:
            file.write_bytes(content)
    return files


def dry_runs(checkout: Checkout, files: list[Path]) -> dict[str, Outcome]:
    calls: list[Call] = [("snakemake", ["-n", "--configfile", str(file)]) for file in files]
    return dict(zip([str(file) for file in files], outcomes(calls, checkout.folder), strict=True))


def message_of(outcome: Outcome) -> list[str]:
    """The lines that the run wrote beside where in the Snakefile it stopped."""
    status, text = outcome
    assert status == 1, text
    assert "Traceback" not in text
    said = re.search(r"^WorkflowError in file .*Snakefile\", line \d+:\n(.*?)\n  File ", text, re.M | re.S)
    assert said, text
    return said[1].splitlines()


def nothing_was_made(checkout: Checkout) -> bool:
    return not (checkout.folder / "store").exists() and not (checkout.folder / "results").exists()


@pytest.fixture(scope="module")
def overlays(checkout: Checkout) -> list[tuple[Path, Outcome]]:
    contents = [yaml.safe_dump({"extends": "default"} | over).encode() for over, _ in OVERLAYS]
    return [
        (Path(file), ended) for file, ended in dry_runs(checkout, written(checkout, "overlays", [*contents])).items()
    ]


@pytest.fixture(scope="module")
def texts(checkout: Checkout) -> list[tuple[Path, Outcome]]:
    contents = [
        (text if "extends" in text else f"extends: default\n{text}").replace("{folder}", str(i)).encode()
        for i, (text, _) in enumerate(TEXTS)
    ]
    return [(Path(file), ended) for file, ended in dry_runs(checkout, written(checkout, "texts", [*contents])).items()]


@pytest.fixture(scope="module")
def unreadable(checkout: Checkout) -> list[tuple[Path, Outcome, Outcome]]:
    """Outcomes of `snakemake -n`, and of `check`."""
    files = written(checkout, "unreadable", [content for content, _ in UNREADABLE])
    calls: list[Call] = [("robust_transfer", ["check", "--configfile", str(file)]) for file in files]
    checks = outcomes(calls, checkout.folder)
    return list(zip(files, dry_runs(checkout, files).values(), checks, strict=True))


def test_the_table_is_large() -> None:
    assert len(OVERLAYS) + len(TEXTS) + len(UNREADABLE) > 200


@pytest.mark.parametrize("i", range(len(OVERLAYS)), ids=lambda i: str(OVERLAYS[i][0])[:60])
def test_a_wrong_setting_ends_the_dry_run_with_one_message(
    checkout: Checkout, overlays: list[tuple[Path, Outcome]], i: int
) -> None:
    file, ended = overlays[i]
    [message] = message_of(ended)
    assert message.startswith(f"{file}: "), message
    for word in OVERLAYS[i][1]:
        assert word in message
    assert nothing_was_made(checkout)


@pytest.mark.parametrize("i", range(len(TEXTS)), ids=lambda i: TEXTS[i][0].strip()[:60])
def test_a_wrong_text_ends_the_dry_run_with_one_message(
    checkout: Checkout, texts: list[tuple[Path, Outcome]], i: int
) -> None:
    file, ended = texts[i]
    [message] = message_of(ended)
    assert str(file.parent.name) in message.partition(": ")[0], message
    for word in TEXTS[i][1]:
        assert word in message
    assert nothing_was_made(checkout)


@pytest.mark.parametrize("i", range(len(UNREADABLE)), ids=lambda i: repr(UNREADABLE[i][0])[:60])
def test_what_snakemake_cannot_read_is_worded_by_the_check(
    checkout: Checkout, unreadable: list[tuple[Path, Outcome, Outcome]], i: int
) -> None:
    file, run, (status, text) = unreadable[i]
    assert run[0] == status == 1, run[1] + text
    [message] = text.splitlines()
    assert message.startswith(f"ConfigurationError: {file}: ")
    for word in UNREADABLE[i][1]:
        assert word in message
    assert nothing_was_made(checkout)


def test_the_default_experiment_is_read_by_us_first(tmp_path: Path) -> None:
    checkout = Checkout(tmp_path, "extends: default\n")
    file = tmp_path / "config.yaml"
    file.write_text("title: a: b\n")
    [run] = outcomes([("snakemake", ["-n"])], tmp_path)
    assert message_of(run)[0].startswith(f"{file}: not YAML: line 1")
    assert nothing_was_made(checkout)


def test_a_value_of_the_command_line_is_called_so(checkout: Checkout) -> None:
    given = ["-n", "--configfile", "experiment.yaml", "--config"]
    runs = outcomes([("snakemake", [*given, "source=nothing"]), ("snakemake", [*given, "seeds=3"])], checkout.folder)
    assert message_of(runs[0])[0].startswith("--config: source = nothing: no such dataset")
    assert message_of(runs[1])[0].startswith("--config: seeds = 3: unknown key; it belongs in grid[…].seeds")


ABSENT = [
    (
        {"datasets": {"coarse": {"origin": {"kind": "folder", "path": "no/where"}}}},
        ["datasets.coarse.origin.path = no/where: no such folder", "put or link the images there"],
    ),
    ({"datasets": {"coarse": {"origin": {"kind": "catalogue", "dataset": "flowers"}}}}, ["datasets.coarse.origin"]),
    (from_files("net.pt"), ["weights/net.pt"]),
]


def test_what_is_not_on_this_machine_ends_a_run_before_its_first_job(tmp_path: Path) -> None:
    """A dry run goes on without images that can be fetched, and ends where a stated path has nothing."""
    checkout = Checkout(tmp_path, "extends: default\n")
    small = {"extends": "default", "targets": ["coarse"], **grid(eps=[0], modes=["fixed-feature"])}
    files = written(checkout, "absent", [yaml.safe_dump(small | over).encode() for over, _ in ABSENT])
    given = [["--cores", "1", "--configfile", str(file)] for file in files]
    planned = outcomes([("snakemake", ["-n", *one]) for one in given], tmp_path)
    assert [status for status, _ in planned] == [1, 0, 1]
    run = outcomes([("snakemake", one) for one in given], tmp_path)
    for (_, words), (_, before), (status, text) in zip(ABSENT, planned, run, strict=True):
        assert status == 1
        assert words[0] in before
        for word in words:
            assert word in text
        assert "Traceback" not in text
    assert not [*checkout.folder.rglob("card.json"), *checkout.folder.glob("store/*/*/*.log")]

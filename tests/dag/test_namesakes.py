"""Two files with one experiment's name: said where both describe one, and never to those who edit or move a file."""

import json
from pathlib import Path

import pytest
from robust_transfer.configuration.load import load
from robust_transfer.dag.namesakes import leftover_notices, namesake_notices, remember
from robust_transfer.store.entry import sha256
from robust_transfer.store.made import write_made

MINE = "extends: default\nexperiment: mine\n"


@pytest.fixture
def first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of an experiment that has run."""
    monkeypatch.chdir(tmp_path)
    first = tmp_path / "first.yaml"
    first.write_text(MINE)
    remember(Path("results/mine"), [first])
    return first


def notices(*files: Path) -> list[str]:
    experiment = load(files)
    return namesake_notices(experiment, Path("results") / experiment.experiment, files)


def test_a_copy_that_kept_the_name_is_told(first: Path) -> None:
    second = first.with_name("second.yaml")
    second.write_text(f"{MINE}figures: {{bootstrap: 200}}\n")
    [line] = notices(second)
    for word in ("experiment = mine", "results/mine was made from first.yaml", "second.yaml", "write another name"):
        assert word in line
    remember(Path("results/mine"), [second])
    assert notices(second) == []
    assert "was made from second.yaml" in notices(first)[0]


def test_a_file_that_extends_another_and_kept_its_name_is_told(first: Path) -> None:
    second = first.with_name("second.yaml")
    second.write_text("extends: first.yaml\nfigures: {bootstrap: 200}\n")
    assert len(notices(second)) == 1
    second.write_text("extends: first.yaml\nexperiment: other\nfigures: {bootstrap: 200}\n")
    assert notices(second) == []


def test_whoever_edits_moves_or_renames_is_told_nothing(first: Path) -> None:
    first.write_text(f"{MINE}figures: {{bootstrap: 300}}\n")
    assert notices(first) == []  # edited
    same = first.with_name("same.yaml")
    same.write_text(f"{MINE}figures: {{bootstrap: 300}}\nrunning: {{workers: 1}}\n")
    assert notices(same) == []  # says the same
    moved = first.with_name("moved.yaml")
    first.rename(moved)
    moved.write_text(f"{MINE}figures: {{bootstrap: 400}}\n")
    assert notices(moved) == []  # moved and edited
    first.write_text(MINE.replace("mine", "another"))
    assert notices(moved) == []  # the other got a name of its own
    first.write_text("title: a: b\n")
    assert notices(moved) == []  # the other is no experiment
    (Path("results/mine") / ".made" / "configuration.json").write_text("[]")
    assert notices(moved) == []


def test_the_record_names_files_from_the_working_directory(first: Path, tmp_path: Path) -> None:
    """A copied checkout has its own files in its record."""
    record = Path("results/mine/.made/configuration.json")
    assert json.loads(record.read_text()) == {"files": ["first.yaml"]}
    remember(Path("results/mine"), [Path("/elsewhere/x.yaml")])
    assert json.loads(record.read_text()) == {"files": ["/elsewhere/x.yaml"]}


def test_figures_of_an_earlier_run_with_other_numbers_are_named(tmp_path: Path) -> None:
    table, figure = tmp_path / "results.parquet", tmp_path / "figures" / "width.png"
    figure.parent.mkdir()
    table.write_text("numbers")
    figure.write_text("drawn")
    write_made(tmp_path, "figure_width", {"code": "x", "table": sha256(table)}, [figure])
    assert leftover_notices(tmp_path, ["headline"], is_stale=False) == []  # of the same numbers
    assert leftover_notices(tmp_path, ["width"], is_stale=True) == []  # drawn anew
    [line] = leftover_notices(tmp_path, ["headline"], is_stale=True)
    assert line.startswith(f"{figure.parent}: width: left from an earlier run")
    table.write_text("other numbers")
    assert len(leftover_notices(tmp_path, ["headline"], is_stale=False)) == 1
    figure.unlink()
    assert leftover_notices(tmp_path, ["headline"], is_stale=False) == []

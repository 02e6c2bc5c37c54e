"""Documents are true: links lead somewhere, commands parse, configurations are valid, code runs, lists are whole."""

import re
import shlex
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pandas as pd
import pytest
import robust_transfer
import yaml
from robust_transfer.cli import _parser
from robust_transfer.configuration.load import load
from robust_transfer.registry import ALL_STAGES, FIGURES
from robust_transfer.tables.flags import FLAGS
from robust_transfer.tables.results import KEY, SCHEMA
from support.documents import DOCUMENTS, Block, anchors, blocks, prose, rows
from support.fake_entries import Fake
from support.paths import ROOT

DOCS = ROOT / "docs"
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")


def name(value: object) -> str:
    return str(value.relative_to(ROOT)) if isinstance(value, Path) else str(value)


def commands() -> list[str]:
    """Every line of a bash block, without its comment; lines that a backslash continues are one."""
    found = [block.text.replace("\\\n", " ") for document in DOCUMENTS for block in blocks(document, "bash")]
    return [line for text in found for line in text.splitlines() if line.strip()]


def of_document(*words: str) -> list[Block]:
    return [block for document in DOCUMENTS for block in blocks(document, *words)]


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_links_lead_somewhere(document: Path) -> None:
    for target in LINK.findall(prose(document)):
        if target.startswith(("https://", "http://")):
            continue
        path, _, anchor = target.partition("#")
        there = (document.parent / path).resolve() if path else document
        assert there.exists(), target
        assert not anchor or anchor in anchors(there), target


@pytest.mark.parametrize(
    "command", [line for line in commands() if "python -m robust_transfer" in line], ids=lambda line: line.strip()[:70]
)
def test_commands_parse(command: str) -> None:
    words = shlex.split(command.replace("<", "").replace(">", ""), comments=True)
    arguments = words[words.index("robust_transfer") + 1 :]
    assert _parser().parse_args(arguments).run


def test_make_has_the_targets_that_documents_name() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    named = {word for line in commands() for word in re.findall(r"^make ([a-z-]+)", line)}
    assert named - targets == set()
    assert {"demo", "plan"} <= named


def test_figures_that_documents_draw_exist() -> None:
    named = {word for line in commands() for word in re.findall(r"\bfigure_([a-z_]+)", line)}
    assert named
    assert named <= {*FIGURES}


@pytest.mark.parametrize("block", of_document("yaml", "experiment"), ids=lambda block: name(block.document))
def test_configurations_are_valid(block: Block, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(block.text)
    assert load([tmp_path / "mine.yaml"]).experiment == yaml.safe_load(block.text)["experiment"]


@pytest.mark.parametrize("block", of_document("python", "plot"), ids=lambda block: name(block.document))
def test_plots_are_drawn(block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = Fake(tmp_path / "results" / "shapes")
    fake.root.mkdir(parents=True)
    for eps in ("0", "0.25", "1"):
        for target in fake.targets:
            fake.transfer(60, 50, target=target, eps=eps, arch="resnet8_w16")
    fake.collect()
    monkeypatch.chdir(tmp_path)
    if not hasattr(robust_transfer, "read_results"):
        monkeypatch.setattr(robust_transfer, "read_results", pd.read_parquet, raising=False)
    found: dict[str, Any] = {}
    with mpl.rc_context({"backend": "agg"}):
        exec(compile(block.text, str(block.document), "exec"), found)
    curves = found["curves"]
    assert list(curves.index) == [0, 0.25, 1]
    assert list(curves.columns) == ["coarse", "fine"]
    assert curves.notna().all(axis=None)
    assert (tmp_path / "curves.png").stat().st_size > 1000


def test_the_readme_is_short_and_lists_every_figure() -> None:
    readme = ROOT / "README.md"
    assert len(readme.read_text().splitlines()) <= 130
    listed = {cells[0].strip("`"): cells[1].replace("–", "") for cells in rows(readme, "figure")}
    assert listed == {figure.name: figure.paper for figure in FIGURES.values()}


def test_pictures_are_small() -> None:
    pictures = [path for path in (DOCS / "images").iterdir() if path.is_file()]
    assert pictures
    for path in pictures:
        assert path.stat().st_size < 200_000, path
        assert any(path.name in document.read_text() for document in DOCUMENTS), f"{path} is shown nowhere"


def test_the_architecture_lists_every_stage_and_its_kind() -> None:
    listed = {
        stage.strip("` "): cells[2]
        for cells in rows(DOCS / "architecture.md", "stage")
        for stage in cells[0].split(",")
    }
    assert listed == {stage.name: stage.kind for stage in ALL_STAGES.values()}


def test_the_columns_of_the_results_table_are_all_described() -> None:
    described = [
        (column.strip("` "), cells[1] == "yes")
        for cells in rows(DOCS / "results.md", "column")
        for column in cells[0].split(",")
    ]
    assert described == [(column, column in KEY) for column in SCHEMA.names]


def test_every_flag_is_described() -> None:
    counts = {"fails": "marked †, counts for neither side", "warns": "counts", "costs": "counts"}
    described = [tuple(cells) for cells in rows(DOCS / "method.md", "flag")]
    assert described == [(f"`{name}`", counts[one.effect], one.means, one.fix) for name, one in FLAGS.items()]


@pytest.mark.parametrize("document", [*DOCUMENTS, *(ROOT / "workflow/robust_transfer").rglob("*.py")], ids=name)
def test_files_that_are_named_exist(document: Path) -> None:
    """Files of the repository, from its top, from the package or from where they are named."""
    text = prose(document) if document.suffix == ".md" else document.read_text()
    for named in re.findall(r"`([\w./-]+/[\w.-]+\.(?:py|smk|rst|md|csv))`", text):
        places = (ROOT, ROOT / "workflow/robust_transfer", ROOT / "workflow", document.parent)
        generated = named.startswith(("results/", "store/", "data/"))
        assert generated or any((place / named).exists() for place in places), named


def test_documents_name_no_machine() -> None:
    for document in DOCUMENTS:
        assert not re.findall(r"(?<![\w.])/(?:tmp|work|root|home)/", document.read_text()), document

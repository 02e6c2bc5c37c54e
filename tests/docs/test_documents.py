"""Documents are true: links lead somewhere, commands parse, configurations are valid, code runs, lists are whole."""

import importlib
import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pandas as pd
import pytest
import yaml
from robust_transfer.cli import _parser
from robust_transfer.configuration.load import load
from robust_transfer.networks.build import build
from robust_transfer.registry import ALL_STAGES, FIGURES
from robust_transfer.tables.flags import FLAGS
from robust_transfer.tables.results import KEY, SCHEMA
from support.backbones import stored_backbone
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


OURS = re.compile(r"(?:\S*/)?robust-transfer (?=[a-z])|python -m robust_transfer ")
INLINE = [said for document in DOCUMENTS for said in re.findall(r"`([^`\n]*)`", prose(document)) if OURS.match(said)]
WHOLE = [said for said in INLINE if "…" not in said and len(said.split()) > 1]


@pytest.mark.parametrize(
    "command", [line for line in [*commands(), *WHOLE] if OURS.search(line)], ids=lambda line: line.strip()[:70]
)
def test_commands_parse(command: str) -> None:
    words = shlex.split(command.replace("<", "").replace(">", ""), comments=True)
    ours = next(i for i, word in enumerate(words) if word.endswith(("robust-transfer", "robust_transfer")))
    arguments = words[ours + 1 :]
    arguments += {"compare": ["one", "another"]}.get(" ".join(arguments), [])  # named in prose without its arguments
    assert _parser().parse_args(arguments).run


def test_the_command_that_documents_name_is_installed() -> None:
    (command,) = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"].items()
    assert command == ("robust-transfer", "robust_transfer.cli:main")
    assert callable(getattr(importlib.import_module("robust_transfer.cli"), "main"))  # noqa: B009
    documents = "".join(document.read_text() for document in DOCUMENTS)
    assert "PYTHONPATH" not in documents  # nobody has to set it


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
    stated = yaml.safe_load(block.text)
    assert load([tmp_path / "mine.yaml"]).experiment == stated.get("experiment", stated["extends"])


@pytest.fixture
def shapes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The working directory has what looks like the default experiment's results."""
    fake = Fake(tmp_path / "results" / "shapes", architectures=("resnet8_w16",))
    fake.root.mkdir(parents=True)
    for eps in ("0", "0.25", "1"):
        for target in fake.targets:
            for seed in (0, 1):
                fake.transfer(60 + seed, 50, target=target, eps=eps, backbone_seed=seed)
                fake.transfer(40, 40, target=target, eps=eps, backbone_seed=seed, images_per_class=10)
                fake.transfer(30, 30, target=target, eps=eps, backbone_seed=seed, variant={"downscaled": 9})
    fake.collect()
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("block", of_document("python", "numbers"), ids=lambda block: name(block.document))
def test_numbers_are_found_as_documents_say(block: Block, shapes: None) -> None:
    found: dict[str, Any] = {}
    exec(compile(block.text, str(block.document), "exec"), found)
    assert found["accuracy"] == 60.5
    assert len(found["rows"].query("target == 'coarse' and eps_value == 0.25 and `mode` == 'fixed-feature'")) > 20
    assert list(found["few"]["value"]) == [40, 40, 40]


@pytest.mark.parametrize("block", of_document("python", "backbone"), ids=lambda block: name(block.document))
def test_networks_are_loaded_as_documents_say(block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = stored_backbone(tmp_path, build("resnet8_w16", 12), input_size=24)
    (named,) = re.findall(r'load_backbone\("([^"]+)"\)', block.text)
    monkeypatch.chdir(tmp_path)
    Path(named).parent.mkdir(parents=True, exist_ok=True)
    Path(named).symlink_to(entry.path)
    found: dict[str, Any] = {}
    exec(compile(block.text, str(block.document), "exec"), found)
    assert found["logits"].shape == (8, 12)
    assert found["features"].shape == (8, 64)


def test_columns_that_pandas_has_a_name_for_are_documented() -> None:
    clashing = {column for column in SCHEMA.names if hasattr(pd.DataFrame, column)}
    assert clashing == {"mode", "flags"}
    assert all(f"`rows.{column}`" in (DOCS / "results.md").read_text() for column in clashing)


@pytest.mark.parametrize("block", of_document("python", "plot"), ids=lambda block: name(block.document))
def test_plots_are_drawn(block: Block, tmp_path: Path, shapes: None) -> None:
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
    table = rows(readme, "figure")
    listed = {name.strip("`"): cells[1].replace("–", "") for cells in table for name in cells[0].split(", ")}
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

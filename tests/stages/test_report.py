"""The terminal summary says what the table says, and the report's captions render for every experiment."""

import re
from html import unescape
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
from docutils.core import publish_parts
from jinja2 import Environment
from robust_transfer.configuration.experiment import Experiment
from robust_transfer.configuration.load import load
from robust_transfer.dag.grid import plan
from robust_transfer.dag.methods import made_by
from robust_transfer.dag.wiring import Wiring
from robust_transfer.registry import FIGURES
from robust_transfer.stages.report import COLUMNS, _short, summary
from robust_transfer.tables.training import FLAG_COLUMNS, write_flags
from support.fake_entries import Fake
from support.paths import ROOT

CAPTIONS = ROOT / "workflow" / "report"
MINIMAL = {
    "experiment": "tiny",
    "input_size": 32,
    "datasets": {name: {"origin": {"kind": "folder", "path": name}} for name in "ab"},
    "source": "a",
    "targets": ["b"],
    "grid": [{"architectures": ["resnet18"], "eps": [0, 3]}],
}


def both_modes(root: Path, **of: Any) -> Fake:
    """Robust ahead on coarse, standard on fine, both decidedly; full-network level."""
    fake = Fake(root, **of)
    for stage, accuracies in (
        ("probing", {"coarse": (20, 90), "fine": (70, 30)}),
        ("finetuning", {"coarse": (80, 80)}),
    ):
        for target, (standard, robust) in accuracies.items():
            right = [standard > i / 2 for i in range(fake.images)]
            better = [robust > i / 2 for i in range(fake.images)]
            fake.transfer(right, right, stage, target=target)
            fake.transfer(better, better, stage, target=target, eps="0.25")
    return fake


def test_summary_counts_who_is_ahead_and_says_when_standard_wins(tmp_path):
    text = " ".join(summary(both_modes(tmp_path).collect()).split())
    assert "Fixed-feature: best robust ahead on 1 of 2 targets, standard on 1." in text
    assert "The interval excludes 0 for robust on Coarse; for standard on Fine." in text
    assert "Full-network: best robust ahead on 0 of 1 targets, standard on 0, level on 1." in text
    assert "No interval excludes 0." in text


def test_summary_shows_every_number_of_the_headline(tmp_path):
    text = summary(both_modes(tmp_path).collect(), report=Path("somewhere/report.html"))
    coarse = next(line for line in text.splitlines() if line.startswith("  Coarse"))
    assert coarse.split()[:6] == ["Coarse", "20.0", "90.0", "(0.25,", "ResNet-8", "w8)"]
    assert "+70.0 [" in coarse
    assert coarse.endswith("]*")
    assert str(tmp_path / "figures") in text
    assert "somewhere/report.html" in text


def test_summary_prints_title_and_notice_and_keeps_its_width(tmp_path):
    notice = "This world was constructed. " * 8
    labels = {"coarse": "A target whose name is far longer than any column could ever be", "fine": "Fine"}
    text = summary(both_modes(tmp_path, title="Shapes", notice=notice, labels=labels).collect())
    assert text.startswith("Shapes\n\nThis world was constructed.")
    assert max(len(line) for line in text.splitlines() if str(tmp_path) not in line) <= COLUMNS


def test_summary_says_what_was_not_measured(tmp_path):
    fake = Fake(tmp_path)
    fake.transfer(50, 50, target="coarse", eps="0.25")
    text = summary(fake.collect())
    assert "Full-network: not measured." in text
    assert "standard and robust were not both measured" in text


def test_summary_shows_one_way_of_measuring_and_names_the_others(tmp_path):
    fake = both_modes(tmp_path, protocol="paper")
    for variant in ({}, {"batchnorm": "frozen"}, {"batchnorm": "frozen", "normalisation": "source"}):
        fake.transfer(60, 60, target="coarse", eps="0.25", protocol="paper", variant=variant)
    text = summary(fake.collect())
    assert [line for line in text.splitlines() if line.startswith("Fixed-feature (")] == [
        "Fixed-feature (paper protocol)"
    ]
    others = (
        "frozen protocol; paper protocol, batchnorm: frozen; paper protocol, batchnorm: frozen, normalisation: source"
    )
    assert f"Fixed-feature was measured in other ways too: {others}. See protocol_gap." in " ".join(text.split())
    assert max(len(line) for line in text.splitlines() if str(tmp_path) not in line) <= COLUMNS


def flagged(root: Path, flags: list[tuple[str, str, str, str]]) -> list[str]:
    """The lines of a summary that tell of flags."""
    fake = Fake(root)
    fake.transfer(50, 50, target="coarse")
    results = fake.collect()
    write_flags(root / "flags.csv", pd.DataFrame(flags, columns=FLAG_COLUMNS))
    text = summary(results, root / "flags.csv")
    return next((part.splitlines() for part in text.split("\n\n") if part.startswith("What looks wrong")), [])


def test_summary_lists_flags_by_backbone_without_the_mend(tmp_path):
    name = "objects_resnet8_w16_l2_eps0.5_seed0"
    heading, *lines = flagged(
        tmp_path,
        [
            (f"pretraining/{name}-0123456789", "pretraining", "collapsed-robustness", "fell to 2.0 %; mend it"),
            ("pretraining/other-0123456789", "pretraining", "loader-bound", "800 of 1000 images/s; wait"),
            (f"evaluation/{name}-9876543210", "evaluation", "at-chance", "accuracy is 10.0 %; train longer"),
        ],
    )
    assert heading == f"What looks wrong, 3 flags; what to do: {tmp_path / 'flags.csv'}"
    assert lines == [
        f"  {name}",
        "    collapsed-robustness: fell to 2.0 %",
        "    at-chance: accuracy is 10.0 %",
        "  other",
        "    loader-bound: 800 of 1000 images/s",
    ]


def test_summary_lists_at_most_ten_lines_of_flags_and_counts_the_others(tmp_path):
    entries = [f"pretraining/objects_resnet8_w16_l2_eps{i}_seed0-0123456789" for i in range(67)]
    _, *lines = flagged(tmp_path, [(entry, "pretraining", "loader-bound", "wait " * 30) for entry in entries])
    assert len(lines) == 11
    assert lines[-1] == "  and 62 more in flags.csv"
    assert max(map(len, lines)) == COLUMNS
    assert lines[1].endswith("…")
    odd = [(entries[0], "pretraining", "loader-bound", "wait")] + [
        (entry, "pretraining", "loader-bound", "wait") for entry in entries[:5]
    ]
    _, *lines = flagged(tmp_path / "odd", odd)
    assert lines[-1] == "  and 1 more in flags.csv"
    assert lines[-2].startswith("    loader-bound")  # no name stands there without its flag


def test_summary_says_nothing_of_flags_where_there_are_none(tmp_path):
    assert flagged(tmp_path, []) == []


@pytest.mark.parametrize(
    ("label", "short"),
    [
        ("Flowers", "Flowers"),
        ("x" * 40, "x" * 29 + "…"),
        ("a " + "汉" * 40, "a " + "汉" * 27 + "…"),
        ("a label of many words that is longer", "a label of many words that is…"),
    ],
)
def test_long_labels_are_cut_and_never_away(label, short):
    assert _short(label) == short


def test_the_caption_that_names_the_source_takes_its_label_literally():
    experiment = load([])
    label = "a |b| *c `d` e_ <f> {{ g }}"
    datasets = {**experiment.datasets}
    datasets[experiment.source] = datasets[experiment.source].model_copy(update={"label": label})
    configuration = Wiring(plan(experiment.model_copy(update={"datasets": datasets}))).configuration
    caption = Environment().from_string((CAPTIONS / "source_accuracy.rst").read_text())
    text = caption.render(snakemake=SimpleNamespace(config=configuration))
    body = publish_parts(text, writer="html", settings_overrides={"report_level": 1})["html_body"]
    assert "system-message" not in body
    assert label in " ".join(unescape(re.sub(r"<[^>]+>", "", body)).split())


EXPERIMENTS = {path.stem: path for path in sorted((ROOT / "experiments").glob("*.yaml"))}


@pytest.mark.parametrize("name", ["minimal", "default", *EXPERIMENTS])
def test_captions_render_for_every_experiment(name):
    """Of one that states no defaults, of the default one, and of all that come with the software."""
    files = [EXPERIMENTS[name]] if name in EXPERIMENTS else []
    experiment = Experiment.model_validate(MINIMAL) if name == "minimal" else load(files)
    configuration = Wiring(plan(experiment)).configuration
    environment = Environment(trim_blocks=True, lstrip_blocks=True)

    class Snakemake:
        """As much of Snakemake's object as the texts see."""

        config = configuration

    for figure in ("workflow", "flags", *FIGURES):
        text = environment.from_string((CAPTIONS / f"{figure}.rst").read_text()).render(snakemake=Snakemake)
        html = publish_parts(text, writer="html", settings_overrides={"report_level": 1})["html_body"]
        assert "system-message" not in html, (figure, html)
        assert "{{" not in html
    described = environment.from_string((CAPTIONS / "workflow.rst").read_text()).render(snakemake=Snakemake)
    assert described.split() == [*configuration["methods"].split(), *configuration["made_by"].split()]
    assert ("Read this first" in described) == bool(configuration["notice"])
    assert all(arch in described for part in configuration["grid"] for arch in part["architectures"])


@pytest.mark.parametrize("commit", ["0123abcd-dirty", ""])
def test_the_report_names_the_software(commit: str) -> None:
    text = made_by({"version": "9.8.7", **({"commit": commit} if commit else {})})
    assert "written by robust-transfer 9.8.7" in text
    assert f"``{commit}``" in text if commit else "commit" not in text

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
from robust_transfer.figures.cells import Cells
from robust_transfer.figures.headline import headline
from robust_transfer.figures.plain_text import shortened
from robust_transfer.registry import FIGURES
from robust_transfer.stages.report import COLUMNS, summary
from robust_transfer.tables.results import read_results
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


def flagged(root: Path, flags: list[tuple[str, str, str, str]], fake: Fake | None = None) -> list[str]:
    """The lines of a summary that tell of flags."""
    fake = fake or Fake(root)
    fake.transfer(50, 50, target="coarse", eps="1")
    results = fake.collect()
    write_flags(root / "flags.csv", pd.DataFrame(flags, columns=FLAG_COLUMNS))
    text = summary(results, root / "flags.csv")
    return next((part.splitlines() for part in text.split("\n\n") if part.startswith("What looks wrong")), [])


def test_summary_has_one_line_for_each_flag_and_dataset_without_the_fix(tmp_path):
    fake = Fake(tmp_path)
    probes = [fake.transfer(50, 50, target=name, eps=eps) for name in ("coarse", "fine") for eps in ("0", "0.25")]
    chance = [(one, "probing", "features-at-chance", f"accuracy is {10 + i} %; look") for i, one in enumerate(probes)]
    name = "objects_resnet8_w16_l2_eps0.5_seed0"
    others = [
        (f"pretraining/{name}-0123456789", "pretraining", "loader-bound", "800 of 1000 images/s; wait"),
        (f"evaluation/{name}-9876543210", "evaluation", "at-chance", "accuracy is 10.0 %; train longer"),
    ]
    heading, *lines = flagged(tmp_path, [*others[:1], *chance[:3], *others[1:], chance[3]], fake)
    assert heading == f"What looks wrong, 6 flags; what to do: {tmp_path / 'flags.csv'}"
    assert lines == [
        f"  at-chance, {name}: accuracy is 10.0 %",  # what does not count comes first
        "  features-at-chance, 2 entries on Coarse: e.g. accuracy is 10 %",
        "  features-at-chance, 2 entries on Fine: e.g. accuracy is 12 %",
        f"  loader-bound, {name}: 800 of 1000 images/s",
    ]
    assert len(pd.read_csv(tmp_path / "flags.csv")) == 6


def test_summary_lists_at_most_ten_lines_of_flags_and_counts_the_others(tmp_path):
    entries = [f"pretraining/objects_resnet8_w16_l2_eps{i}_seed0-0123456789" for i in range(67)]
    _, line = flagged(tmp_path, [(entry, "pretraining", "loader-bound", "wait " * 30) for entry in entries])
    assert line.startswith("  loader-bound, 67 entries: e.g. wait")
    assert len(line) == COLUMNS
    assert line.endswith("…")
    names = [f"flag-{i:02}" for i in range(12)]
    _, *lines = flagged(tmp_path / "many", [(entries[0], "pretraining", name, "wait") for name in [*names, names[11]]])
    assert len(lines) == 10
    assert lines[-1] == "  and 3 more of 3 kinds in flags.csv"
    _, *lines = flagged(tmp_path / "ten", [(entries[0], "pretraining", name, "wait") for name in names[:10]])
    assert lines[-1].startswith("  flag-09, objects")


def test_with_two_norms_each_target_counts_once_in_each(tmp_path):
    fake = Fake(tmp_path, architectures=("resnet8_w8",))
    for target in fake.targets:
        fake.transfer(50, 50, target=target, eps="0")
        fake.transfer(90, 90, target=target, eps="0.25")
        fake.transfer(20, 20, target=target, eps="4/255", norm="linf")
    text = " ".join(summary(fake.collect()).split())
    assert "Fixed-feature, L2: best robust ahead on 2 of 2 targets, standard on 0." in text
    assert "Fixed-feature, L∞: best robust ahead on 0 of 2 targets, standard on 2." in text
    assert "of 4" not in text


def test_of_few_images_alone_the_most_are_shown_and_said(tmp_path):
    fake = both_modes(tmp_path)
    fake.entries = [one | {"images_per_class": 10} for one in fake.entries if one["stage"] == "probing"]
    fake.transfer(30, 30, target="coarse", eps="0.25", images_per_class=5)
    text = summary(fake.collect())
    assert "Fixed-feature (frozen protocol, images per class: 10)" in text.splitlines()
    assert "best robust ahead on 1 of 2 targets" in text
    assert "Fixed-feature: not measured" not in text
    results = read_results(tmp_path / "results.parquet")
    assert "images per class: 10" in headline(results).markdown()
    assert Cells(results).remarks(Cells(results).shown("fixed-feature")) == [
        "measured by the frozen protocol, images per class: 10"
    ]


def test_of_one_network_the_summary_says_what_there_is(tmp_path):
    fake = Fake(tmp_path)
    fake.transfer(50, 50, target="coarse", eps="0")
    text = " ".join(summary(fake.collect()).split())
    assert "not both measured on any target; standard networks on 1 of 2 targets." in text


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
    assert shortened(label) == short


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

    for figure in ("workflow", "flags", "claims", *FIGURES):
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

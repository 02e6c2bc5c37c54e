"""The terminal summary says what the table says, and the report's captions render for every experiment."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from docutils.core import publish_parts
from jinja2 import Environment
from robust_transfer.registry import FIGURES
from robust_transfer.stages.report import COLUMNS, summary
from robust_transfer.tables.training import FlagRow, write_flags
from support.fake_entries import Fake
from support.paths import ROOT

CAPTIONS = ROOT / "workflow" / "report"
MINIMAL = {
    "experiment": "tiny",
    "input_size": 32,
    "datasets": {"a": {"origin": {"kind": "folder"}}, "b": {"origin": {"kind": "folder"}}},
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


def flagged(root: Path, flags: list[FlagRow]) -> list[str]:
    """The lines of a summary that tell of flags."""
    fake = Fake(root)
    fake.transfer(50, 50, target="coarse")
    results = fake.collect()
    write_flags(root / "flags.csv", flags)
    text = summary(results, root / "flags.csv")
    return next((part.splitlines() for part in text.split("\n\n") if part.startswith("What looks wrong")), [])


def test_summary_lists_flags_by_backbone_without_the_mend(tmp_path):
    name = "objects_resnet8_w16_l2_eps0.5_seed0"
    heading, *lines = flagged(
        tmp_path,
        [
            FlagRow(f"pretraining/{name}-0123456789", "pretraining", "collapsed-robustness", "fell to 2.0 %; mend it"),
            FlagRow("pretraining/other-0123456789", "pretraining", "loader-bound", "800 of 1000 images/s; wait"),
            FlagRow(f"evaluation/{name}-9876543210", "evaluation", "at-chance", "accuracy is 10.0 %; train longer"),
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
    _, *lines = flagged(tmp_path, [FlagRow(entry, "pretraining", "loader-bound", "wait " * 30) for entry in entries])
    assert len(lines) == 11
    assert lines[-1] == "  and 62 more in flags.csv"
    assert max(map(len, lines)) == COLUMNS
    assert lines[1].endswith("…")
    odd = [FlagRow(entries[0], "pretraining", "loader-bound", "wait")] + [
        FlagRow(entry, "pretraining", "loader-bound", "wait") for entry in entries[:5]
    ]
    _, *lines = flagged(tmp_path / "odd", odd)
    assert lines[-1] == "  and 1 more in flags.csv"
    assert lines[-2].startswith("    loader-bound")  # no name stands there without its flag


def test_summary_says_nothing_of_flags_where_there_are_none(tmp_path):
    assert flagged(tmp_path, []) == []


def configurations() -> dict[str, dict[str, Any]]:
    """The default experiment, every other one laid over it as Snakemake does, and one that states no defaults."""

    def over(base: Any, overlay: Any) -> Any:
        if not isinstance(base, dict) or not isinstance(overlay, dict):
            return overlay
        return {**base, **{key: over(base.get(key), value) for key, value in overlay.items()}}

    default = yaml.safe_load((ROOT / "config.yaml").read_text()) if (ROOT / "config.yaml").exists() else MINIMAL
    found = {"minimal": MINIMAL, "default": default}
    for path in sorted((ROOT / "experiments").glob("*.yaml")):
        found[path.stem] = over(default, yaml.safe_load(path.read_text()))
    return found


@pytest.mark.parametrize("name", configurations())
def test_captions_render_for_every_experiment(name):
    environment = Environment(trim_blocks=True, lstrip_blocks=True)

    class Snakemake:
        """As much of Snakemake's object as the description of a workflow sees."""

        config: dict[str, Any] = configurations()[name]

    config = Snakemake.config
    for figure in ("workflow", "flags", *FIGURES):
        text = environment.from_string((CAPTIONS / f"{figure}.rst").read_text()).render(snakemake=Snakemake)
        html = publish_parts(text, writer="html", settings_overrides={"report_level": 1})["html_body"]
        assert "system-message" not in html, (figure, html)
        assert "{{" not in html
    described = environment.from_string((CAPTIONS / "workflow.rst").read_text()).render(snakemake=Snakemake)
    assert ("Read this first" in described) == bool(config.get("notice"))
    assert all(arch in described for part in config["grid"] for arch in part["architectures"])

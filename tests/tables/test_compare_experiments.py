"""Comparing two experiments: what differs in configuration, and which numbers differ beyond noise."""

import csv
import json

import numpy as np
import pytest
from robust_transfer import cli
from robust_transfer.configuration.differences import differing
from robust_transfer.configuration.load import load
from robust_transfer.tables.compare_experiments import KEY, compare_experiments
from support.fake_entries import Fake
from support.paths import ROOT


def experiment(folder, better: float, **of):
    """Two targets at three eps; eps 0.25 is so much better on coarse, and noise apart the rest is alike."""
    folder.mkdir()
    fake = Fake(folder, architectures=("resnet8_w16",), images=400, **of)
    generator = np.random.default_rng(len(folder.name))
    ease = np.random.default_rng(0).random(fake.images)
    for target in fake.targets:
        for eps in ("0", "0.25", "0.5"):
            more = better if (target, eps) == ("coarse", "0.25") else 0
            right = ease + 0.2 * generator.random(fake.images) < 0.5 + more
            fake.transfer(right, right, target=target, eps=eps, arch="resnet8_w16")
    return fake.collect()


def test_numbers_that_differ_beyond_noise_are_found_and_no_others(tmp_path):
    found = compare_experiments(experiment(tmp_path / "one", 0.2), experiment(tmp_path / "other", 0))
    assert len(found.numbers) == 6
    assert all(one.paired and not one.same_entry for one in found.numbers)
    (differs,) = [one for one in found.numbers if one.differs]
    where = dict(zip(KEY, differs.key, strict=True))
    assert (where["target"], where["eps"]) == ("coarse", "0.25")
    assert differs.difference == pytest.approx(20, abs=5)
    assert differs.ci_low < differs.difference < differs.ci_high
    assert differs.ci_high - differs.ci_low < 12  # unpaired it would be 14 wide
    assert (found.only_first, found.only_second) == (0, 0)


def test_of_the_same_entries_there_is_one_number(tmp_path):
    table = experiment(tmp_path / "one", 0.2)
    found = compare_experiments(table, table)
    assert all(one.same_entry and not one.differs for one in found.numbers)


def test_without_predictions_or_on_other_images_the_difference_is_unpaired(tmp_path):
    one, other = experiment(tmp_path / "one", 0.2), experiment(tmp_path / "other", 0)
    paired = compare_experiments(one, other)
    for path in (tmp_path / "other" / "store").glob("probing/*/predictions.parquet"):
        path.unlink()
    unpaired = compare_experiments(one, other)
    assert not any(number.paired for number in unpaired.numbers)
    widths = [[number.ci_high - number.ci_low for number in found.numbers] for found in (paired, unpaired)]
    assert sum(widths[0]) < sum(widths[1])
    assert [one.difference for one in paired.numbers] == pytest.approx([one.difference for one in unpaired.numbers])


def test_the_terminal_and_the_csv_say_the_same(tmp_path, capsys):
    one, other = experiment(tmp_path / "one", 0.2), experiment(tmp_path / "other", 0)
    assert cli.main(["compare", str(one), str(other), "--out", str(tmp_path / "all.csv")]) == 0
    printed = capsys.readouterr().out
    assert (
        "Numbers: 6 of both, 0 of A alone, 0 of B alone. 0 are of the same entries, 6 are compared, and 1 diff"
        in printed
    )
    assert "  coarse, resnet8_w16 l2 eps 0.25, fixed-feature frozen: " in printed
    assert "Configuration: not known" in printed
    with (tmp_path / "all.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 6
    assert [row["eps"] for row in rows if row["differs"] == "True"] == ["0.25"]


def test_settings_that_differ_are_listed(tmp_path, capsys):
    default = load([ROOT / "config.yaml"])
    (tmp_path / "mine.yaml").write_text("extends: default\nexperiment: mine\nprobing: {strengths: [0.1, 0.01]}\n")
    mine = load([tmp_path / "mine.yaml"])
    ((key, one, other),) = list(differing(default, mine))
    assert (key, other) == ("probing.strengths", "[0.1, 0.01]")
    assert one.startswith("[")
    assert not list(differing(default, default))
    table = experiment(tmp_path / "one", 0)
    (tmp_path / "one" / ".made").mkdir(exist_ok=True)
    (tmp_path / "one" / ".made" / "configuration.json").write_text(json.dumps({"files": [str(tmp_path / "mine.yaml")]}))
    results = table.rename(tmp_path / "one" / "results.parquet")
    assert cli.main(["compare", str(results.parent), str(results.parent)]) == 0
    assert "Configuration: nothing differs." in capsys.readouterr().out


def test_an_experiment_that_is_not_there_is_an_error_that_names_those_there_are(tmp_path, monkeypatch, caplog):
    (tmp_path / "results").mkdir()
    experiment(tmp_path / "results" / "shapes", 0).rename(tmp_path / "results" / "shapes" / "results.parquet")
    monkeypatch.chdir(tmp_path)
    assert cli.main(["compare", "shapes", "shape"]) == 1
    assert "shape: no results at results/shape/results.parquet (did you mean shapes?)" in caplog.text

"""`measured` finds the number that figures show, and one for each question."""

import json
from dataclasses import replace
from typing import Any

import pandas as pd
import pytest
from robust_transfer.figures.cells import Cells
from robust_transfer.tables.errors import TableError
from robust_transfer.tables.experiment_info import ExperimentInfo
from robust_transfer.tables.measured import measured
from robust_transfer.tables.results import as_results, read_results
from support.fake_entries import Fake, number

FEW = '{"images_per_class":10}'


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """Two targets in both modes, two seeds of pretraining, three of transfer, few images, a view, two protocols."""
    fake = Fake(tmp_path_factory.mktemp("measured"), architectures=("resnet8_w8",), metric="mean_per_class")
    for i, (eps, target, seed) in enumerate((e, t, s) for e in ("0", "0.25") for t in fake.targets for s in (0, 1)):
        at: dict[str, Any] = {"eps": eps, "target": target, "backbone_seed": seed}
        for transfer_seed in (0, 1, 2):
            fake.transfer(50 + i, 40, transfer_seed=transfer_seed, **at)
        fake.transfer(30 + i, 30, images_per_class=10, **at)
        fake.transfer(25 + i, 25, variant={"downscaled": 9}, **at)
        fake.transfer(45 + i, 45, protocol="paper", **at)
        fake.transfer(60 + i, 60, "finetuning", **at)
        fake.transfer(61 + i, 60, "finetuning", variant={"normalisation": "source", "batchnorm": "frozen"}, **at)
        if target == "coarse":
            fake.source(80 + i, eps=eps, backbone_seed=seed)
    return read_results(fake.collect())


def test_every_cell_of_figures_is_one_row(rows):
    cells = Cells(rows)
    for mode in ("fixed-feature", "full-network"):
        for panel in cells.panels(mode):
            for eps in cells.eps():
                found = measured(rows, target=panel.target.name, eps=eps, mode=mode)
                shown = cells.cell(panel, "resnet8_w8", eps)
                assert shown is not None
                assert (found["value"].item(), found["n"].item()) == (shown.value, shown.n)
                assert len(rows.query("target == @panel.target.name and eps == @eps and `mode` == @mode")) > 10


def test_without_conditions_there_is_one_row_for_each_network_target_and_mode(rows):
    found = measured(rows)
    assert not found.duplicated(["arch", "eps", "target", "mode"]).any()
    assert len(found) == 2 * (2 * 2 + 1)  # eps, targets by two modes and the source
    assert found.attrs == rows.attrs


def test_adversarial_training_on_the_target_is_shown_only_where_there_is_no_other(tmp_path):
    """Neither figures nor `measured` take it for standard training, however much that deviates otherwise; nor do
    attacked validation images, by which hyperparameters were chosen, pass for clean ones."""
    standard = {"normalisation": "source", "batchnorm": "frozen", "trainable": "head"}
    adversarial = {"setting": "adversarial-full", "attack": "l2 0.5, 3 steps"}
    for variants, expected in (((standard, adversarial), standard), ((adversarial,), adversarial)):
        fake = Fake(tmp_path / str(len(variants)), architectures=("resnet8_w8",), metric="top1")
        for variant, eps in ((variant, eps) for variant in variants for eps in ("0", "0.25")):
            entry = fake.transfer(
                60 if variant is standard else 40, 50, "finetuning", target="coarse", eps=eps, variant=variant
            )
            path = fake.root / "store" / entry / "metrics.json"
            under = {"split": "validation", "selection": "validation", "attack": {"norm": "l2", "eps": "0.5"}}
            path.write_text(json.dumps([*json.loads(path.read_text()), number(10.0, 50, **under)]))
            fake.seal(path.parent)
        rows = read_results(fake.collect())
        attacked = rows[rows["attack"].notna()]
        assert (len(attacked), {*attacked["value"]}) == (2 * len(variants), {10.0})
        assert not rows["flags"].fillna("").str.contains("refit-below-validation").any()
        shown = Cells(rows).shown("full-network")
        assert shown is not None
        assert json.loads(shown.deviations) == expected
        found = measured(rows, mode="full-network")
        assert [json.loads(text) for text in found["variant"].unique()] == [expected]
        said = Cells(rows).remarks(shown)
        assert any("attack: l2 0.5, 3 steps" in one for one in said) == (expected is adversarial)


def test_what_is_stated_counts(rows):
    at = {"target": "coarse", "mode": "fixed-feature"}
    assert list(measured(rows, eps=[0, 0.25], **at)["eps"]) == ["0", "0.25"]
    assert measured(rows, eps=0.25, images_per_class=10, **at)["images_per_class"].item() == 10
    assert len(measured(rows, eps=0.25, backbone_seed=1, transfer_seed=[0, 1], **at)) == 2
    assert measured(rows, eps=0, protocol="paper", **at)["protocol"].item() == "paper"
    assert measured(rows, eps=0, variant='{"downscaled":9}', **at)["variant"].item() == '{"downscaled":9}'
    assert measured(rows, eps="best-robust", arch="best", **at)["value"].item() > 0
    assert measured(rows, eps=0, metric="top1", split="validation", **at)["split"].item() == "validation"
    assert measured(rows, mode="source", eps=0)["metric"].item() == "top1"
    assert measured(rows, mode="source", eps=0, attack=None)["attack"].isna().all()


def test_of_a_target_that_no_number_from_all_images_is_of_the_most_images_count(rows):
    of_fine = (rows["target"] == "fine") & rows["images_per_class"].isna()
    fewer = as_results(rows[~of_fine], ExperimentInfo.of(rows))
    found = measured(fewer, mode="fixed-feature", eps="0").set_index("target")["images_per_class"]
    assert found["fine"] == 10
    assert pd.isna(found["coarse"])
    cells = Cells(fewer)
    [panel] = [one for one in cells.panels("fixed-feature") if one.target.name == "fine"]
    shown = cells.cell(replace(panel, protocol=replace(panel.protocol, deviations=FEW)), "resnet8_w8", "0")
    assert shown
    assert measured(fewer, target="fine", mode="fixed-feature", eps="0")["value"].item() == shown.value


def test_what_is_not_there_is_named(rows):
    with pytest.raises(TableError, match="targett: no such column; did you mean target"):
        measured(rows, targett="coarse")
    with pytest.raises(TableError, match=r"target = corse: no such row; did you mean coarse\? there are"):
        measured(rows, target="corse")
    with pytest.raises(TableError, match=r"eps = 3: no such row; there are 0\.0, 0\.25"):
        measured(rows, eps=3)

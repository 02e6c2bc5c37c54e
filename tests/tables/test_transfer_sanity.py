"""Flags of transfers are raised by what they are for, not by near misses, and follow the numbers made of them."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest
from robust_transfer.figures.cells import Cells
from robust_transfer.figures.headline import headline
from robust_transfer.figures.protocols import FULL_NETWORK
from robust_transfer.stages.report import summary
from robust_transfer.tables.flags import FLAGS, failures, joined
from robust_transfer.tables.results import read_results
from robust_transfer.tables.training import read_flags
from robust_transfer.tables.transfer_sanity import LastLosses, edge_flags, refit_flags
from support.fake_entries import Fake, number, trained

PURPOSES = ("search", "final")


def refit(**of) -> list[str]:
    said = {"test": 43.3, "images": 1000, "validation": 76.0, "held": 200, "classes": 5, **of}
    return [flag.flag for flag in refit_flags(**said)]


def test_a_refit_that_fell_is_flagged():
    assert refit() == ["refit-below-validation"]
    assert refit(test=15.2, validation=100.0, classes=10) == ["refit-below-validation"]


@pytest.mark.parametrize(
    "of",
    [
        {"test": 90.0},  # more than validation
        {"test": 66.0},  # a shift of ten points is less than a quarter of what was above guessing
        {"held": 10},  # noise: one image is ten points
        {"test": 20.5, "validation": 25.0},  # a quarter, but noise
    ],
)
def test_near_misses_of_a_refit_that_fell(of):
    assert refit(**of) == []


def test_the_message_of_a_refit_names_both_accuracies_and_their_images():
    (flag,) = refit_flags(test=43.3, images=1000, validation=76.0, held=200, classes=5)
    assert "43.3 % of 1000 test images are right, and 76.0 % of 200 validation images were" in flag.message


@pytest.mark.parametrize(
    ("search", "final", "raised"),
    [
        (0.62, 1.21, "refit"),  # diverged: of ln 5 = 1.609
        (0.62, 0.73, "refit"),  # more than a tenth of 1.609 - 0.62 above
        (0.62, 0.71, "test"),  # less
        (0.62, 0.40, "test"),
        (1.80, 1.79, "test"),  # perturbed images: worse than guessing, and no worse than before
        (1.80, 1.81, "refit"),
        (0.62, float("nan"), "refit"),
    ],
)
def test_a_refit_that_trained_as_well_as_the_search_run_shows_a_shift_of_the_images(search, final, raised):
    assert refit(losses=LastLosses(search, final)) == [f"{raised}-below-validation"]
    assert refit(test=66.0, losses=LastLosses(search, final)) == []


def test_what_was_not_trained_again_cannot_have_diverged():
    assert refit(trained_again=False) == ["test-below-validation"]


def test_the_message_names_both_losses_where_they_are_known():
    (flag,) = refit_flags(
        test=43.3, images=1000, validation=76.0, held=200, classes=5, losses=LastLosses(search=0.62, refit=1.21)
    )
    assert "(last losses: 1.210, and 0.620 of the search run)" in flag.message


@pytest.mark.parametrize(
    ("value", "tried", "accuracy", "last", "end"),
    [
        (0.3, (1.0, 0.3), 76.0, None, "smallest of 2"),
        (10, (1e-8, 0.1, 10), 80.0, None, "largest of 3"),
        (0.1, (0.01, 0.1, 1.0), 76.0, None, ""),  # inside
        (0.1, (0.1,), 76.0, None, ""),  # nothing was chosen
        (0.1, (0.1, 0.1), 76.0, None, ""),
        (0.3, (1.0, 0.3), 100.0, None, ""),  # nothing is better
        (1, (1, 5, 20), 76.0, 1, ""),  # there is no smaller number of neighbours
        (20, (1, 5, 20), 76.0, 1, "largest of 3"),
    ],
)
def test_edges_of_grids(value, tried, accuracy, last, end):
    flags = edge_flags("learning_rate", value, tried, accuracy, last=last)
    assert [flag.flag for flag in flags] == ["at-edge"] * bool(end)
    assert all(f"the best learning rate, {value:g}, is the {end} tried" in flag.message for flag in flags)


def test_flags_of_several_numbers_are_each_named_once_and_failures_first():
    assert joined(["at-edge", "", "at-chance,at-edge", None]) == "at-chance,at-edge"
    assert joined(["", pd.NA]) == ""
    assert joined([None, pd.NA]) is None
    assert failures("at-chance,at-edge") == ("at-chance",)
    assert failures("") == failures(None) == ()
    effects = [meaning.effect for meaning in FLAGS.values()]
    assert effects == sorted(effects, key=["fails", "warns", "costs"].index)


def failing(root) -> Fake:
    """Of one backbone and one transfer that failed: full-network coarse at chance, fixed-feature from eps 4 at all."""
    fake = Fake(root)
    for eps, coarse, fine in (("0", 60, 60), ("0.25", 26, 80), ("4", 20, 20)):
        fake.transfer(coarse, 90 if eps == "0.25" else coarse, "finetuning", target="coarse", eps=eps)
        fake.transfer(fine, fine, "finetuning", target="fine", eps=eps)
        fake.transfer(70, 70, target="coarse", eps=eps, transfer_seed=0)
        fake.transfer(72, 72, target="coarse", eps=eps, transfer_seed=1)
        fake.source(60, eps=eps)
    loss = [{"epoch": 1, "loss": 1.35, "train_accuracy": 27.0, "learning_rate": 0.1}]
    slow = {"flag": "loader-bound", "message": "800 of 1000"}
    fake.backbone(loss, eps="4", slow=(slow,))
    fake.backbone(trained(3), eps="0.25", flags=({"flag": "at-chance", "message": "x"},), arch="resnet8_w16")
    return fake


def test_numbers_carry_the_flags_of_what_they_are_made_of(tmp_path):
    fake = failing(tmp_path)
    table = read_results(fake.collect()).assign(flags=lambda rows: rows["flags"].astype("object"))
    assert table["flags"].notna().all()
    of = table.groupby(["mode", "target", "eps"], observed=True)["flags"].agg(set)
    assert of["fixed-feature", "coarse", "4"] == {"loss-near-chance"}  # the backbone's, in means over seeds too
    assert of["source", "objects", "4"] == {"loss-near-chance"}
    assert of["fixed-feature", "coarse", "0.25"] == {""}
    # Rows at a fixed eps that are differences to standard networks carry both sides' flags.
    assert of["full-network", "coarse", "0.25"] == {"at-chance,refit-below-validation"}
    assert of["full-network", "coarse", "0"] == of["full-network", "fine", "best-robust"] == {""}
    assert of["full-network", "coarse", "best-robust"] == {"at-chance,refit-below-validation"}
    raised = read_flags(tmp_path / "flags.csv")
    assert {"loss-near-chance", "at-chance", "refit-below-validation", "loader-bound"} <= {*raised["flag"]}


def test_what_failed_is_marked_and_counts_for_neither_side(tmp_path):
    results = failing(tmp_path).collect()
    text = " ".join(summary(results, tmp_path / "flags.csv").split())
    assert "Full-network: best robust ahead on 1 of 1 targets, standard on 0." in text
    assert "Left out (†), 1 of 2 targets: Coarse; flags: at-chance 1, refit-below-validation 1." in text
    assert "60.0 26.0† (0.25, ResNet-8 w8)" in text
    assert "]† " in text
    assert "†: a training or transfer behind it failed" in text
    cells = Cells(read_results(results))
    coarse, fine = (cells.comparison(panel, "best") for panel in cells.panels(FULL_NETWORK))
    assert (coarse.failed, coarse.ahead, coarse.decided) == (("at-chance", "refit-below-validation"), "", False)
    assert (fine.failed, fine.ahead) == ((), "robust")
    table = headline(read_results(results))
    assert "26.0 [" in table.markdown()
    assert "]†" in table.markdown()
    assert r"\rlap{\dag{}}" in table.latex()
    assert '<span class="star">†</span>' in table.html()
    assert any(note.startswith("†") for note in table.notes)
    assert {one["flags"] for one in table.numbers} >= {None, "at-chance,refit-below-validation"}


@pytest.mark.parametrize(("stage", "raised"), [("probing", "test"), ("finetuning", "refit")])
def test_only_what_can_fail_to_train_has_failed_where_test_images_differ(tmp_path, stage, raised):
    """A convex problem has no second training that could have gone wrong."""
    fake = Fake(tmp_path)
    fake.transfer(40, 80, stage, target="coarse")
    table = read_results(fake.collect()).assign(flags=lambda rows: rows["flags"].astype("object"))
    assert {*table["flags"]} == {f"{raised}-below-validation"}
    assert failures(table["flags"].iloc[0]) == (("refit-below-validation",) if stage == "finetuning" else ())


def test_a_table_without_failures_bears_no_dagger(tmp_path):
    fake = Fake(tmp_path)
    fake.transfer(50, 50, target="coarse")
    fake.transfer(60, 60, target="coarse", eps="0.25")
    results = fake.collect()
    assert "†" not in summary(results, tmp_path / "flags.csv") + headline(read_results(results)).markdown()


def test_a_table_of_an_earlier_version_is_read_with_unknown_flags(tmp_path):
    fake = Fake(tmp_path)
    fake.transfer(50, 50, target="coarse")
    path = fake.collect()
    old = pq.read_table(path).drop_columns("flags")
    pq.write_table(old, path)
    table = read_results(path)
    assert table["flags"].isna().all()
    assert len(table) == old.num_rows
    assert Cells(table).about.experiment == "fake"


def test_edges_and_losses_are_read_from_entries(tmp_path):
    """A fine-tuning of two rates, and a selection of three heads."""
    fake = Fake(tmp_path)
    tuned = tmp_path / "store" / fake.transfer(60, 60, "finetuning", target="coarse")
    described = {"stage": "finetuning", "settings": {"learning_rates": [1.0, 0.3]}, "inputs": {}}
    (tuned / "entry.json").write_text(json.dumps(described))
    rows = json.loads((tuned / "metrics.json").read_text())
    (tuned / "metrics.json").write_text(
        json.dumps([{**row, "hyperparameters": {"learning_rate": 0.3}} for row in rows])
    )
    (tuned / "epochs.csv").write_text("epoch,loss\n1,1.39\n2,1.38\n")
    fake.seal(tuned)
    read = read_results(fake.collect())
    assert {*read.loc[read["entry"].notna(), "flags"]} == {"loss-near-chance,at-edge"}


def test_what_was_reported_of_a_training_that_diverged_has_failed(tmp_path):
    """Of a fine-tuning, and of a selection by its final run. A candidate that was not chosen is no matter."""
    fake, facts = Fake(tmp_path), {"diverged": [{"learning_rate": 1.0, "step": 3}]}

    def tuned(target: str, rate: float, **of: Any) -> Path:
        path: Path = tmp_path / "store" / fake.transfer(50, 50, "finetuning", target=target, **of)
        rows = json.loads((path / "metrics.json").read_text())
        rows = [{**row, "hyperparameters": {"learning_rate": rate}} for row in rows]
        (path / "metrics.json").write_text(json.dumps(rows))
        fake.seal(path, facts if rate == 1.0 else {})
        return path

    tuned("coarse", 1.0)
    finals = {f"final{i}": tuned("fine", rate, transfer_seed=i + 1) for i, rate in enumerate((1.0, 0.3))}
    for rate, seed in ((1.0, 3), (0.3, 4)):
        selected = tuned("fine", rate, transfer_seed=seed)
        fake.seal(selected)
        inputs = {role: f"finetuning/{path.name}" for role, path in finals.items()}
        described = {"stage": "selecting", "settings": {}, "inputs": inputs}
        (selected / "entry.json").write_text(json.dumps(described))
        (selected / "runs.csv").write_text("learning_rate\n1.0\n0.3\n")
        fake.seal(selected)
    read = read_results(fake.collect())
    by_entry = read[read["entry"].notna()].groupby(["target", "transfer_seed"], observed=True)["flags"]
    flags = {cell: {*of} for cell, of in by_entry}
    assert flags["coarse", 0] == flags["fine", 1] == flags["fine", 3] == {"loss-not-finite"}
    assert flags["fine", 2] == {""}
    assert flags["fine", 4] == {"at-edge"}
    assert failures("loss-not-finite") == ("loss-not-finite",)
    said = read_flags(tmp_path / "flags.csv").query("flag == 'loss-not-finite'")["message"]
    assert {*said.str.partition(";")[0]} == {"training diverged at learning rate 1.0"}


def train_again(fake: Fake, tested: str, losses: dict[str, float | None], described: dict[str, Any]) -> None:
    """Make the finished full-network transfer `tested` one of a search and a refit with these last losses.

    `losses` are of `search` and `refit`; None: not recorded. A `search` that is missing is not in the store.
    """
    store = fake.root / "store"
    rows = json.loads((store / tested / "metrics.json").read_text())
    search = store / "finetuning/search"
    at = {"search": search, "refit": store / tested}
    for name, loss in losses.items():
        at[name].mkdir(exist_ok=True)
        (at[name] / "metrics.json").write_text(json.dumps(rows))
        if loss is not None:
            (at[name] / "epochs.csv").write_text(f"epoch,loss\n1,1.2\n2,{loss}\n")
        settings = {"purpose": name, "learning_rates": [0.3]}
        inputs = {"search0": "finetuning/search"} if name == "refit" else {}
        entry = {"stage": "finetuning", "settings": settings, "inputs": inputs} | described
        (at[name] / "entry.json").write_text(json.dumps(entry))
        fake.seal(at[name])


@pytest.mark.parametrize(
    ("losses", "described", "raised"),
    [
        ({"search": 0.4, "refit": 0.42}, {}, "test"),
        ({"search": 0.4, "refit": 1.1}, {}, "refit"),
        ({"search": None, "refit": 0.4}, {}, "refit"),
        ({"search": 0.4, "refit": None}, {}, "refit"),
        ({"refit": 0.4}, {}, "refit"),  # the search run was removed from the store
        ({"refit": 0.4}, {"settings": {"purpose": "fixed"}}, "test"),  # it is the training that was validated
    ],
)
def test_losses_of_both_trainings_tell_a_shift_from_a_refit_that_diverged(tmp_path, losses, described, raised):
    fake = Fake(tmp_path)
    train_again(fake, fake.transfer(40, 80, "finetuning", target="coarse"), losses, described)
    table = read_results(fake.collect())
    assert {*table["flags"].astype("object")} == {f"{raised}-below-validation"}
    assert ("†" in summary(tmp_path / "results.parquet", tmp_path / "flags.csv")) == (raised == "refit")


@pytest.mark.parametrize(
    ("last_losses", "tested", "raised"),
    [
        ((0.5, 0.52), (40, 44), "test"),  # all heads fell
        ((0.5, 1.1), (40, 44), "refit"),  # the best head trained worse
        ((0.5, 0.52), (40, 70), "refit"),  # the other head did not fall: the loss is not that of the chosen one
    ],
)
def test_of_linear_heads_the_loss_is_that_of_the_best(tmp_path, last_losses, tested, raised):
    """Two heads, of which the first was chosen at 80 % of the validation images."""
    fake = Fake(tmp_path)
    chosen = fake.transfer(tested[0], 80, "finetuning", target="coarse", mode="fixed-feature")
    store = tmp_path / "store"
    at_rate = [{"learning_rate": rate, "weight_decay": 0.0} for rate in (1.0, 0.1)]
    for purpose, loss, accuracies in zip(PURPOSES, last_losses, ((80, 75), tested), strict=True):
        split = "test" if purpose == "final" else "validation"
        heads = [
            number(accuracy, 200, split=split, metric=metric, selection=None, hyperparameters=of) | {"run": run}
            for run, (accuracy, of) in enumerate(zip(accuracies, at_rate, strict=True))
            for metric in ("top1", "mean_per_class")
        ]
        path = store / f"linear_heads/{purpose}"
        path.mkdir(parents=True)
        (path / "metrics.json").write_text(json.dumps(heads))
        (path / "epochs.csv").write_text(f"epoch,loss\n1,{loss}\n")
        (path / "entry.json").write_text(json.dumps({"stage": "linear_heads", "settings": {}, "inputs": {}}))
        fake.seal(path, {"classes": ["a", "b", "c", "d"]})
    selected = {"stage": "selecting", "settings": {}, "inputs": {f"{one}0": f"linear_heads/{one}" for one in PURPOSES}}
    (store / chosen / "entry.json").write_text(json.dumps(selected))
    (store / chosen / "runs.csv").write_text("learning_rate,weight_decay\n1.0,0.0\n0.1,0.0\n10,0.0\n")
    rows = json.loads((store / chosen / "metrics.json").read_text())
    (store / chosen / "metrics.json").write_text(json.dumps([row | {"hyperparameters": at_rate[0]} for row in rows]))
    fake.seal(store / chosen)
    table = read_results(fake.collect())
    assert {*table["flags"].astype("object")} == {f"{raised}-below-validation"}

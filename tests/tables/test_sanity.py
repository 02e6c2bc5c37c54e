"""Each sanity flag is raised by what it is for, and not by a near miss."""

import math
import os
from dataclasses import dataclass
from types import SimpleNamespace

import pytest
from robust_transfer.dag.engine import Engine
from robust_transfer.dag.wiring import wire
from robust_transfer.tables.flags import FLAGS, Flag
from robust_transfer.tables.sanity import (
    at_chance,
    eps_flags,
    evaluation_flags,
    loader_flags,
    loss_flags,
    published_flags,
    training_flags,
)


@dataclass(frozen=True)
class Epoch:
    """One row of a training."""

    epoch: int
    loss: float = 1.0
    train_accuracy: float = 50.0
    clean_accuracy: float | None = None
    robust_accuracy: float | None = None


def names(flags: list[Flag]) -> list[str]:
    return [flag.flag for flag in flags]


def of(epochs: list[Epoch], **settings) -> list[Flag]:
    return training_flags(epochs, **{"classes": 10, "norm": "l2", "eps": 0.5, "input_size": 32, **settings})


def course(robust: list[float | None], train: list[float] | None = None) -> list[Epoch]:
    """Epochs with these accuracies on the check sample and under training's attack; clean accuracy is high."""
    trained = train or [40.0 + i for i in range(len(robust))]
    return [
        Epoch(i + 1, train_accuracy=t, clean_accuracy=80.0, robust_accuracy=r)
        for i, (r, t) in enumerate(zip(robust, trained, strict=True))
    ]


def test_a_sound_training_has_none():
    assert of(course([20, 30, 41, 40])) == []
    assert of([], eps=0.5) == []


def test_robustness_that_collapses_while_training_goes_well_is_flagged_with_both_values():
    (flag,) = of(course([20, 41.2, 2], train=[40, 50, 70]))
    assert flag.flag == "collapsed-robustness"
    assert "from 41.2 % (epoch 2) to 2.0 % (epoch 3);" in flag.message
    assert "attack.steps" in flag.message


def test_a_collapse_that_was_overcome_says_how_it_ended():
    (flag,) = of(course([40, 15, 1, None, 38]))
    assert "to 1.0 % (epoch 3) and ended at 38.0 %" in flag.message


@pytest.mark.parametrize(
    "epochs",
    [
        course([40, 20.5, 21]),  # more than half is left
        course([40, 4], train=[60, 50]),  # training's own accuracy falls too: something else went wrong
        course([2.0, 0.4]),  # of 512 images, ten and two
        course([None, 40, None, None]),
        course([1, 2, 40]),  # a low beginning is no fall
    ],
    ids=["half", "training falls", "noise", "unchecked", "rise"],
)
def test_near_misses_of_a_collapse(epochs):
    assert of(epochs) == []


def test_fewer_images_need_a_deeper_fall():
    fall = course([12, 4])
    assert names(of(fall, sample=512)) == ["collapsed-robustness"]
    assert of(fall, sample=100) == []


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_loss_that_is_no_number_is_flagged_with_its_first_epoch(loss):
    flags = of([Epoch(1), Epoch(2, loss=loss), Epoch(3, loss=loss)])
    assert names(flags) == ["loss-not-finite"]
    assert f"epoch 2 is {loss}" in flags[0].message
    assert names(of([Epoch(1, loss=1e9)])) == ["loss-near-chance"]


def test_accuracy_that_guessing_gives_is_flagged():
    # 10 % of 512 images has a deviation of 1.33 points.
    assert names(of([Epoch(1, clean_accuracy=13.9)])) == ["at-chance"]
    assert of([Epoch(1, clean_accuracy=14.1)]) == []
    assert names(of([Epoch(1, clean_accuracy=14.1)], sample=100)) == ["at-chance"]
    assert names(of([Epoch(1, clean_accuracy=2.0)])) == ["at-chance"]  # worse than guessing is no better


def test_chance_is_told_by_images_enough_and_the_message_says_how_many():
    (flag,) = at_chance(10.1, 10, 1000, "test")
    assert flag.message.startswith(
        "accuracy on 1000 test images is 10.1 % [8.4, 12.1], and guessing among 10 classes gives 10.0 %"
    )
    assert at_chance(16.0, 21, 18, "test") == []  # its interval reaches to 38 %
    assert names(at_chance(16.0, 21, 18 * 50, "test")) == []
    assert names(at_chance(6.0, 21, 18 * 50, "test")) == ["at-chance"]
    assert names(at_chance(0.2, 1000, 512, "training")) == ["at-chance"]


def losses(*values: float) -> list[Epoch]:
    return [Epoch(i + 1, loss=value) for i, value in enumerate(values)]


@pytest.mark.parametrize(
    ("course", "classes", "expected"),
    [
        # The curves of trainings and fine-tunings of small networks, by a one-cycle schedule of five epochs.
        ((3.096, 3.016, 2.999, 2.973, 2.909), 20, ["loss-near-chance"]),  # L2 eps 1: right on 26 % of clean images
        ((2.534, 2.360, 2.312, 2.294, 2.277), 10, ["loss-near-chance"]),
        ((3.046, 3.012, 2.975, 2.573, 1.756), 20, ["still-learning"]),  # right on 58 %
        ((3.078, 2.995, 2.838, 1.993, 0.898), 20, []),  # L2 eps 0.5: right on 98 %
        ((2.452, 2.288, 1.722, 1.012, 0.516), 10, []),
        ((3.034, 2.812, 2.086, 0.525, 0.149), 20, []),
        ((1.578, 1.542, 0.844, 0.673, 0.565), 5, []),
        ((2.745, 2.284, 2.250, 2.077, 1.936), 10, []),  # 0.84 of ln 10: some learning, and no steep end
        ((2.0,), 10, []),
        ((3.0,), 1, []),
        ((math.nan,), 10, []),  # has a flag of its own
    ],
)
def test_losses_of_real_trainings(course, classes, expected):
    assert names(loss_flags(losses(*course), classes)) == expected


def test_the_edges_of_what_the_loss_says():
    guessing = math.log(10)
    assert names(loss_flags(losses(0.91 * guessing), 10)) == ["loss-near-chance"]
    assert loss_flags(losses(0.89 * guessing), 10) == []
    assert names(loss_flags(losses(0.46 * guessing, 0.35 * guessing), 10)) == ["still-learning"]
    assert loss_flags(losses(0.44 * guessing, 0.35 * guessing), 10) == []  # falls less than a tenth
    assert loss_flags(losses(0.9 * guessing, 0.33 * guessing), 10) == []  # less than a third is left
    long = [2.0 - 0.01 * epoch for epoch in range(100)]  # 0.1 in the last ten epochs
    assert loss_flags(losses(*long), 10) == []
    (flag,) = loss_flags(losses(*(2.0 - 0.02 * epoch for epoch in range(20)), 1.0), 10)
    assert "fell from 1.640 to 1.000 in the last 2 epochs of 21" in flag.message


def test_a_training_says_what_its_loss_says():
    assert names(of([Epoch(1, loss=2.2, clean_accuracy=60.0)])) == ["loss-near-chance"]
    assert of([Epoch(1, loss=1.5, clean_accuracy=60.0)]) == []


def test_the_last_checked_accuracy_counts_and_training_accuracy_only_where_nothing_was_checked():
    assert of([Epoch(1, clean_accuracy=10.0), Epoch(2, clean_accuracy=60.0), Epoch(3, train_accuracy=10.0)]) == []
    assert names(of([Epoch(1, clean_accuracy=60.0), Epoch(2, clean_accuracy=10.0)])) == ["at-chance"]
    assert names(of([Epoch(1, train_accuracy=10.0)])) == ["at-chance"]


@pytest.mark.parametrize(
    ("norm", "eps", "side"),
    [("l2", 2.8, 32), ("l2", 20, 224), ("linf", "33/255", 224), ("linf", 0.5, 32), ("l2", 2.5, 16)],
)
def test_implausible_eps(norm, eps, side):
    (flag,) = eps_flags(norm, eps, side)
    assert flag.flag == "eps-implausible"
    assert f"eps {eps} ({norm}) at {side} px" in flag.message


@pytest.mark.parametrize(
    ("norm", "eps", "side"),
    [("l2", 2.7, 32), ("l2", 5, 224), ("linf", "32/255", 224), ("linf", 32 / 255, 32), (None, 0, 32), ("l2", "0", 32)],
)
def test_plausible_eps(norm, eps, side):
    assert eps_flags(norm, eps, side) == []


def test_the_message_names_the_budget_a_pixel():
    assert "by 0.0902 of its range (23/255), more than 0.05;" in eps_flags("l2", 5, 32)[0].message
    assert "by 0.2 of its range (51/255), more than 0.125;" in eps_flags("linf", "51/255", 32)[0].message
    assert names(of([Epoch(1, clean_accuracy=60)], eps=5.0)) == ["eps-implausible"]


@pytest.mark.parametrize(("main", "lines"), [(True, 1), (False, 0)])
def test_planning_warns_once_of_each_implausible_eps(main, lines, capsys, monkeypatch):
    monkeypatch.setattr(os, "environ", dict(os.environ))
    parts = [{"architectures": [arch], "eps": [0, 0.5, 3]} for arch in ("resnet8_w8", "resnet8_w16")]
    wire(
        [],
        {"grid": parts, "figures": {"widths": []}},
        Engine(SimpleNamespace(is_main_process=main, output_settings=SimpleNamespace(dryrun=False)), str),
    )
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("grid: ")]
    assert len(said) == lines
    assert all(line.startswith("grid: eps 3 (l2) at 24 px lets every pixel move by 0.0722") for line in said)


def test_a_loader_that_the_network_waits_for():
    (flag,) = loader_flags(800, 1000)
    assert flag.flag == "loader-bound"
    assert "800 images/s, of 1000" in flag.message
    assert loader_flags(950, 1000) == []
    assert loader_flags(2000, 1000) == []
    assert loader_flags(None, 1000) == loader_flags(800, None) == []


def evaluated(**of) -> list[str]:
    sound = {"classes": 10, "images": 1000, "clean": 70.0, "robust": 40.0, "train_robust": 50.0}
    return names(evaluation_flags(**{**sound, **of}))


def test_evaluations():
    assert evaluated() == []
    assert evaluated(clean=12.0) == ["at-chance"]
    assert evaluated(clean=13.5) == []
    assert evaluated(robust=20.0) == ["robust-overfitting"]
    assert evaluated(robust=26.0) == []
    assert evaluated(robust=0.5, train_robust=2.0, sample=64) == []  # of 64 images, one
    assert evaluated(robust=None) == evaluated(train_robust=None) == []


def test_an_accuracy_unlike_the_published_one():
    assert published_flags(75.8, 50_000, None) == []
    assert published_flags(75.4, 50_000, 75.8) == []  # decoders differ by tenths
    assert names(published_flags(75.2, 50_000, 75.8)) == ["unlike-published"]
    assert published_flags(72.0, 1000, 75.8) == []  # noise, on so few images
    assert names(published_flags(71.0, 1000, 75.8)) == ["unlike-published"]


def test_flags_are_documented_and_messages_hold_the_mend():
    assert all(meaning.means and meaning.fix for meaning in FLAGS.values())
    (flag,) = loader_flags(1, 1000)
    assert flag.as_json() == {"flag": "loader-bound", "message": flag.message}
    assert flag.message.endswith(FLAGS["loader-bound"].fix)

"""Linear heads and fine-tuning that are killed at any moment and restarted end with the same files."""

import random
from typing import Any

import pytest
import torch
from robust_transfer.configuration.transfer import FinetuningSettings, LinearHeadsSettings
from robust_transfer.networks.build import build
from robust_transfer.stages import finetuning, linear_heads
from robust_transfer.store.entry import open_entry
from support.backbones import stored_backbone
from support.kills import (
    assert_same_outputs,
    finish,
    kill_at,
    kill_until_done,
    kills_until,
    moment_in_training,
    said,
    start,
)
from support.prepared_datasets import encoded_squares, new_entry, prepared, write_parquet

RUN = {
    "linear_heads": linear_heads.run,
    "finetuning": finetuning.run,
    "adversarial": finetuning.run,  # the moments of AdamW, where eps stands, and what is frozen: all must be in a state
    "diverging": finetuning.run,  # when it is noticed differs from run to run, and what is written of it must not
}
TRAINING = {"epochs": 3, "batch_size": 8, "augmentation": "crop-flip", "precision": "bf16"}
ADVERSARY = {"eps": "0.5", "steps": 2, "random_start": True, "ramp_start": 0.2, "ramp_end": 0.8}
DIVERGES = 300.0
"""A learning rate at which the loss is no longer finite in the second epoch."""
COMMON: dict[str, Any] = {"learning_rates": [0.1], "preprocessing": {"resize_ratio": 1.0}, "training": TRAINING}


def settings(stage):
    if stage == "linear_heads":  # BatchNorm that drifts, heads that share a pass: all of it must be in a state
        grid = {"learning_rates": [0.1, 0.01], "weight_decays": [5e-4], "head_seeds": [0, 1]}
        given = COMMON | {"purpose": "final", **grid, "batchnorm": "drift", "normalisation": None}
        return LinearHeadsSettings.model_validate(given).model_dump(mode="json")
    given = COMMON | {"purpose": "search"}
    if stage == "adversarial":
        given["training"] = TRAINING | {"optimiser": "adamw", "schedule": "cosine"}
        given |= {"attack": ADVERSARY, "trainable": {"last_blocks": 2}, "batchnorm": "frozen", "learning_rates": [0.01]}
    if stage == "diverging":
        given |= {"learning_rates": [DIVERGES], "keep_weights": True}
    return FinetuningSettings.model_validate(given).model_dump(mode="json")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    root = tmp_path_factory.mktemp("transfer")
    torch.set_num_threads(1)
    for seed, (split, n) in enumerate({"train": 72, "test": 30}.items()):
        write_parquet(root / "data" / f"{split}.parquet", *encoded_squares(n, seed=seed))
    dataset = prepared(root, {"kind": "parquet", "path": str(root / "data")})
    return {"backbone": stored_backbone(root, build("resnet8_w4", 3), classes=[*"abc"]), "dataset": dataset}


def entry_of(inputs, what):
    stage = "linear_heads" if what == "linear_heads" else "finetuning"
    return new_entry(inputs["dataset"].path.parents[2], stage, settings(what), **inputs)


@pytest.fixture(scope="module", params=RUN)
def what(request):
    return request.param


@pytest.fixture(scope="module")
def uninterrupted(what, inputs):
    entry = entry_of(inputs, what)
    RUN[what](entry, threads=1, device="cpu")
    return open_entry(entry.path)


def test_killed_at_random_it_ends_with_the_same_files(inputs, what, uninterrupted):
    entry = entry_of(inputs, what)
    assert kill_until_done(entry, moment_in_training, random.Random(3), most=4) >= 2
    assert_same_outputs(entry, uninterrupted)
    assert "going on at step" in said(entry)


def test_the_step_of_divergence_is_that_of_the_first_loss_that_was_not_finite(inputs, what, uninterrupted):
    if what == "diverging":
        [diverged] = uninterrupted.facts()["diverged"]
        assert diverged["learning_rate"] == DIVERGES
        assert 7 < diverged["step"] <= 14  # of seven steps in an epoch
        assert len((uninterrupted.path / "epochs.csv").read_text().splitlines()) == 2  # the header, and one epoch
    else:
        assert "diverged" not in uninterrupted.facts()


@pytest.mark.faults
def test_fifty_kills_change_no_bit(inputs, what, uninterrupted, capsys):
    draws = random.Random(4)
    kills, runs = kills_until(50, lambda: entry_of(inputs, what), uninterrupted, moment_in_training, draws)
    with capsys.disabled():
        print(f"\n{kills} kills in {runs} runs of {what}: 0 bits changed")


def test_a_killed_run_leaves_nothing_that_looks_finished(inputs, what, uninterrupted):
    entry = entry_of(inputs, what)
    assert kill_at(start(entry), moment_in_training(entry, random.Random(5), "save"))
    left = {path.name for path in entry.path.iterdir()}
    assert not left & {"card.json", "metrics.json", "predictions.parquet", "epochs.csv", "timing.json"}
    finish(entry)
    assert_same_outputs(entry, uninterrupted)

"""Heads and fine-tuning, killed anywhere and started again, end with the same files."""

import json
import random

import pytest
import torch
from resuming.test_interruption import ended, kill_at, killed_until_done, start
from robust_transfer.configuration.transfer import FinetuningSettings, LinearHeadsSettings
from robust_transfer.networks.backbones import save_weights
from robust_transfer.networks.build import build
from robust_transfer.stages import finetuning, linear_heads
from robust_transfer.store.entry import open_entry, read_json
from support.prepared_datasets import encoded_squares, new_entry, prepared, write_parquet

SIDE = 16
RUN = {"linear_heads": linear_heads.run, "finetuning": finetuning.run}
TRAINING = {"epochs": 3, "batch_size": 8, "augmentation": "crop-flip", "precision": "bf16"}
COMMON = {"learning_rates": [0.1], "preprocessing": {"resize_ratio": 1.0}}


def settings(stage):
    if stage == "linear_heads":  # BatchNorm that drifts, heads that share a pass: all of it must be in a state
        of = {"purpose": "final", "weight_decays": [5e-4], "batchnorm": "drift", "normalisation": None}
        of |= COMMON | {"learning_rates": [0.1, 0.01], "head_seeds": [0, 1], "training": TRAINING}
        return LinearHeadsSettings.model_validate(of).model_dump(mode="json")
    of = COMMON | {"purpose": "search", "training": TRAINING}
    return FinetuningSettings.model_validate(of).model_dump(mode="json")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    root = tmp_path_factory.mktemp("transfer")
    torch.set_num_threads(1)
    for seed, (split, n) in enumerate({"train": 72, "test": 30}.items()):
        write_parquet(root / "data" / f"{split}.parquet", *encoded_squares(n, seed=seed))
    dataset = prepared(root, {"kind": "parquet", "path": str(root / "data")})
    backbone = new_entry(root, "pretraining", {})
    facts = {"architecture": "resnet8_w4", "classes": [*"abc"], "input_size": SIDE, "norm": None, "eps": "0"}
    with backbone.writing() as draft:
        save_weights(draft.file("weights.safetensors"), build("resnet8_w4", 3), facts)
        draft.facts = facts
    return {"backbone": open_entry(backbone.path), "dataset": dataset}


def entry_of(inputs, stage):
    return new_entry(inputs["dataset"].path.parents[2], stage, settings(stage), **inputs)


@pytest.fixture(scope="module", params=["linear_heads", "finetuning"])
def uninterrupted(request, inputs):
    entry = entry_of(inputs, request.param)
    RUN[request.param](entry, threads=1, device="cpu")
    return open_entry(entry.path)


def same_outputs(entry, expected):
    cards = [read_json(path / "card.json") for path in (entry.path, expected.path)]
    assert cards[0]["files"] == cards[1]["files"]
    assert cards[0]["facts"] == cards[1]["facts"]


def test_killed_at_random_it_ends_with_the_same_files(inputs, uninterrupted):
    entry, draws = entry_of(inputs, uninterrupted.stage), random.Random(3)
    assert killed_until_done(entry, draws, most=4) >= 2
    same_outputs(entry, uninterrupted)
    assert "going on at step" in (entry.path / "test.log").read_text()


@pytest.mark.faults
def test_fifty_kills_change_no_bit(inputs, uninterrupted, capsys):
    kills, runs, draws = 0, 0, random.Random(4)
    while kills < 50:
        entry = entry_of(inputs, uninterrupted.stage)
        kills += killed_until_done(entry, draws)
        runs += 1
        same_outputs(entry, uninterrupted)
    with capsys.disabled():
        print(f"\n{kills} kills in {runs} runs of {uninterrupted.stage}: 0 bits changed")


def test_a_killed_run_leaves_nothing_that_looks_finished(inputs, uninterrupted):
    entry = entry_of(inputs, uninterrupted.stage)
    pid = start(entry, log=entry.path / "test.log", running=json.dumps({"save_seconds": 0}))
    assert kill_at(entry, pid, "save", random.Random(5))
    left = {path.name for path in entry.path.iterdir()}
    assert not left & {"card.json", "metrics.json", "predictions.parquet", "epochs.csv", "timing.json"}
    assert ended(start(entry)) == 0
    same_outputs(entry, uninterrupted)

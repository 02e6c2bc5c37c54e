"""Transferred models: the network and the head that a transfer ended with, as one network again.

A probe is fitted anew, at the strength that was chosen, to the images that its entry was fitted to: that takes a
fraction of a second, and no entry need keep its weights. Fine-tuned networks and linear heads are read from the weights
that their entries keep where they are asked to (`keep_weights`).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from robust_transfer.configuration.training import Precision
from robust_transfer.configuration.transfer import (
    FeaturesSettings,
    FinetuningSettings,
    LinearHeadsSettings,
    ProbingSettings,
)
from robust_transfer.networks.backbones import WEIGHTS, load_backbone, read_weights
from robust_transfer.networks.build import Network, build
from robust_transfer.networks.probe_head import linear_head, probe_head
from robust_transfer.store.entry import Entry, StoreError
from robust_transfer.store.runs import runs_in
from robust_transfer.training.class_probe import regression
from robust_transfer.training.fixed_features import together, training_parts


@dataclass(frozen=True)
class Transferred:
    """A model that classifies a target's images, and what it is made from."""

    network: Network
    """On the CPU, in eval mode; images float [N, 3, S, S] in [0, 1] to logits [N, classes], normalisation inside."""
    backbone: Entry
    dataset: Entry
    """Images that it was transferred to."""
    classes: tuple[str, ...]
    """Of the dataset, in the order of the outputs."""
    input_size: int
    """S, in pixels."""
    resize_ratio: float
    """How images are made squares of S pixels (`datasets/resident.py`)."""
    precision: Precision
    """At which it was measured."""
    hyperparameters: dict[str, Any]
    """As tables have them."""
    is_diverged: bool = False
    """Its training diverged: its head is zero, and it guesses."""


def load_transferred(entry: Entry, selection: str = "validation") -> Transferred:
    """The model behind the test accuracy of a finished transfer: of probing, finetuning, or selecting.

    `selection` is where its hyperparameters were chosen. Of linear heads with several head seeds it is the first.
    Raises StoreError for an entry that holds no such model, or that kept no weights.
    """
    if entry.stage == "probing":
        return _probed(entry, selection)
    chosen = _chosen(entry, selection)
    final = _final(entry, chosen) if entry.stage == "selecting" else entry
    return _finetuned(final, chosen) if final.stage == "finetuning" else _headed(final, chosen)


def _chosen(entry: Entry, selection: str) -> dict[str, Any]:
    """The hyperparameters of the model that `selection` chose."""
    if entry.stage not in ("finetuning", "selecting"):
        kinds = "a probing, finetuning or selecting entry"
        why = {"knn": "nearest neighbours are no network", "linear_heads": "the model is the one that selecting chose"}
        raise StoreError(f"{entry.path}: holds no transferred model, {why.get(entry.stage, f'name {kinds}')}")
    rows = json.loads(entry.file("metrics.json").read_text())
    for row in rows:
        if row["split"] == "test" and row["selection"] in (selection, None):
            chosen: dict[str, Any] = row["hyperparameters"]
            return chosen
    found = ", ".join(sorted({str(row["selection"]) for row in rows if row["split"] == "test"})) or "none"
    raise StoreError(f"{entry.path}: no test accuracy with hyperparameters chosen on {selection} (there are: {found})")


def _final(entry: Entry, chosen: dict[str, Any]) -> Entry:
    """The final run of a selecting entry that has these hyperparameters."""
    for role in entry.inputs:
        if role.startswith("final"):
            final = entry.input(role)
            if any(run.hyperparameters == chosen for run in runs_in(final)):
                return final
    raise StoreError(f"{entry.path}: no final run has {chosen}; write the entries again")


def _probed(entry: Entry, selection: str) -> Transferred:
    settings, stored = ProbingSettings.model_validate(entry.settings), entry.input("features")
    of_features = FeaturesSettings.model_validate(stored.settings)
    if of_features.layer:
        raise StoreError(f"{entry.path}: a probe on features of layer {of_features.layer} is no head of its network")
    strengths = entry.facts()["lambda"]
    if selection not in strengths:
        raise StoreError(f"{entry.path}: no strength was chosen on {selection}, but on {', '.join(strengths)}")
    fit = next(regression(together(*training_parts(stored, settings)), settings).path([strengths[selection]]))
    backbone, classes = stored.input("backbone"), tuple(stored.facts()["classes"])
    network = load_backbone(backbone)
    network.head = probe_head(fit, len(classes))
    return Transferred(
        network.eval(),
        backbone,
        stored.input("dataset"),
        classes,
        int(stored.facts()["input_size"]),
        of_features.preprocessing.resize_ratio,
        of_features.precision,
        {"lambda": strengths[selection]},
    )


def _finetuned(entry: Entry, chosen: dict[str, Any]) -> Transferred:
    settings = FinetuningSettings.model_validate(entry.settings)
    _check_kept(entry)
    return _of_training(entry, load_backbone(entry), settings, chosen)


def _headed(entry: Entry, chosen: dict[str, Any]) -> Transferred:
    """One of the heads that were trained side by side, on its network."""
    settings = LinearHeadsSettings.model_validate(entry.settings)
    _check_kept(entry)
    number = next(run.number for run in runs_in(entry) if run.hyperparameters == chosen)
    state, facts = read_weights(entry.file(WEIGHTS))
    place = number * len(settings.head_seeds)
    head = linear_head(state.pop("head.weight")[place], state.pop("head.bias")[place])
    network = build(facts["architecture"], len(facts["classes"]), input_size=facts["input_size"])
    _take(network, state)
    network.head = head
    return _of_training(entry, network.eval(), settings, chosen)


def _of_training(
    entry: Entry, network: Network, settings: FinetuningSettings | LinearHeadsSettings, chosen: dict[str, Any]
) -> Transferred:
    facts = entry.facts()
    return Transferred(
        network,
        entry.input("backbone"),
        entry.input("dataset"),
        tuple(facts["classes"]),
        int(facts["input_size"]),
        settings.preprocessing.resize_ratio,
        settings.training.precision,
        chosen,
        any(run.is_diverged for run in runs_in(entry) if run.hyperparameters == chosen),
    )


def _check_kept(entry: Entry) -> None:
    if WEIGHTS not in entry.card()["files"]:
        raise StoreError(
            f"{entry.path}: its weights were not kept; set robustness: true in the part of the grid that transfers it, "
            "and run the experiment again"
        )


def _take(network: Network, state: dict[str, Tensor]) -> None:
    """Copy all parameters and buffers but the head's."""
    for name, tensor in network.state_dict().items():
        if not name.startswith("head."):
            with torch.no_grad():
                tensor.copy_(state[name])

"""Importing: a backbone from published weights.

    python -m robust_transfer importing store/importing/<entry>

Reads a checkpoint below the folder of weights (`running.weights`; `--weights` by hand), or downloads it where that is
allowed. Nothing in it is executed (`weights/pickles.py`). Writes `weights.safetensors`, the same file that
pretraining writes; the card says where the weights are from, with the checkpoint's checksum, and what it held besides.
The largest of the released networks, wide_resnet50_4 with its optimiser's state (1.8 GB), takes 22 s and 3.4 GB of
memory on one core of an AMD EPYC.
"""

from __future__ import annotations

import logging
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from robust_transfer.configuration.catalogue.imagenet import imagenet_classes
from robust_transfer.configuration.catalogue.models import Preprocessing
from robust_transfer.configuration.running import running
from robust_transfer.configuration.weights import (
    AresWeights,
    FileWeights,
    ImportingSettings,
    ReleasedWeights,
    RobustBenchWeights,
    published_model,
)
from robust_transfer.networks.backbones import WEIGHTS, save_weights
from robust_transfer.store.entry import Entry
from robust_transfer.store.originals import record, write_record
from robust_transfer.tables.published import published_accuracy
from robust_transfer.weights.checkpoints import load_published
from robust_transfer.weights.files import located
from robust_transfer.weights.outputs import class_names
from robust_transfer.weights.pickles import shown
from robust_transfer.weights.preprocessing import normalise_by, published_preprocessing
from robust_transfer.weights.state_dicts import WHOLE, listed

BY_NAME = (RobustBenchWeights, AresWeights)
IMAGENET = len(imagenet_classes())

log = logging.getLogger("robust_transfer")


def run(entry: Entry, *, threads: int, device: str) -> None:
    """Import the backbone that `entry` describes. Raises WeightsError or CheckpointError."""
    settings = ImportingSettings.model_validate(entry.settings)
    torch.set_num_threads(threads)
    with entry.writing() as draft:
        path, file = located(settings, running().weights_folder, downloads=running().downloads)
        originals = record(path, lambda name: True)
        model = published_model(settings.weights) if isinstance(settings.weights, BY_NAME) else None
        classes_n = model.classes if model else None if isinstance(settings.weights, FileWeights) else IMAGENET
        key = settings.weights.key if isinstance(settings.weights, FileWeights) else None
        imported = load_published(path, settings.architecture, classes_n, input_size=settings.input_size, key=key)
        network = imported.network
        preprocessing = published_preprocessing(settings)
        if preprocessing and not imported.facts["normalisation"]:
            normalise_by(network, preprocessing)
        facts: dict[str, Any] = {
            "architecture": settings.architecture,
            "classes": class_names(network.classes),
            "input_size": settings.input_size,
            "norm": settings.norm,
            "eps": settings.eps,
            "precision": "fp32",
        }
        save_weights(draft.file(WEIGHTS), network, facts)
        draft.facts = facts | {
            "parameters": network.parameters_n,
            "imported": {"kind": settings.weights.kind, "file": file.path, "from": file.address}
            | imported.facts
            | ({"preprocessing": _told(preprocessing, settings.input_size)} if preprocessing else {}),
            "licence": file.licence,
        }
        if isinstance(settings.weights, ReleasedWeights):
            known = published_accuracy(settings.architecture, settings.norm, settings.eps)
            draft.facts |= {} if known is None else {"published_top1": known}
        if model and model.top1 is not None:
            draft.facts |= {"published_top1": model.top1}
        draft.timing.update(device="cpu", threads=threads)
    write_record(entry.path, originals)
    _report(entry.name, path, draft.facts)


def _told(preprocessing: Preprocessing, input_size: int) -> dict[str, Any]:
    """For the card: how images were prepared where the network is from, and what of that is not done here."""
    return asdict(preprocessing) | {
        "resize_ratio": preprocessing.resize_ratio,
        "not_honoured": preprocessing.not_honoured(input_size),
    }


def _report(name: str, path: Path, facts: dict[str, Any]) -> None:
    log.info("%s: %s parameters from %s", name, f"{facts['parameters']:,}", path)
    told = facts["imported"]
    where = "all of the file" if told["key"] == WHOLE else f"the weights at {shown(told['key'])}"
    log.info(
        "%s: taken are %s%s%s%s", name, where,
        ", a moving average" * told["averaged"],
        f", names without {shown(told['wrapper'])}" * bool(told["wrapper"]),
        f"; not {', '.join(told['others'])}" * bool(told["others"]),
    )  # fmt: skip
    if not told["normalisation"] and told["kind"] == "files":
        log.info("%s: the file has no normalisation: ImageNet's mean and std are taken", name)
    if told["interpolated"]:
        log.info("%s: interpolated to images of %s px: %s", name, facts["input_size"], listed(told["interpolated"], 3))
    if (how := told.get("preprocessing")) and how["not_honoured"]:
        log.warning("%s: published for %s", name, "; ".join(how["not_honoured"]))
    if how and how["resize_ratio"]:
        log.info("%s: published with preprocessing.resize_ratio %.4f", name, how["resize_ratio"])
    if met := told["globals_met"]:
        log.info("%s: it also names, and nothing of it was executed: %s", name, ", ".join(met))

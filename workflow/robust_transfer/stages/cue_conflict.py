"""Cue conflict: whether a backbone decides by shape or by texture, where the two are of different classes.

    python -m robust_transfer cue_conflict store/cue_conflict/<entry>

Reads its inputs `backbone` and `conflicts`, and where a probe decides `features0`, …, the backbone's features of images
without a conflict; for a checkpoint of the user's `source` too, whose classes its outputs stand for. Images whose two
classes agree are left out. Writes `metrics.json`: the shape bias, which is the share of decisions for the shape among
those for the shape or the texture, over all images and by the shape's class; and the shares of all images that were
decided for either. Writes `decisions.csv`, one row per image.

Images of the network's input size go in as they are; others are resized to it on their short side, never cropped
further than to a square, and card and table say so. On one core of an Intel Xeon a job on 900 images of 24 pixels
takes 3.5 s, of which torch's import takes 3.
"""

from __future__ import annotations

import csv
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from robust_transfer.configuration.conflicts import CueConflictSettings
from robust_transfer.configuration.training import Precision
from robust_transfer.datasets.arrow import open_split
from robust_transfer.datasets.resident import square_blocks
from robust_transfer.loading.augmentation import as_images
from robust_transfer.machine.devices import autocast, prepare
from robust_transfer.networks.backbones import load_backbone
from robust_transfer.networks.layers import activations, layer_named
from robust_transfer.statistics.shape_bias import Decisions, by_shape, count, decide, pairs
from robust_transfer.store.entry import Entry, StoreError
from robust_transfer.tables.sanity import conflict_flags
from robust_transfer.training.class_probe import ClassProbe, fit_probe
from robust_transfer.training.inference import BATCH
from robust_transfer.weights.cue_outputs import outputs_by_class
from robust_transfer.weights.outputs import other_classes, outputs_for

DECISIONS = "decisions.csv"
Integers = NDArray[np.int64]
Read = Callable[[Tensor], Tensor]
"""Images float [N, 3, S, S] in [0, 1] to scores or features [N, D]."""

log = logging.getLogger("robust_transfer")


def run(entry: Entry, *, threads: int, device: str) -> None:
    """Have the backbone that `entry` names decide on the conflict images."""
    settings = CueConflictSettings.model_validate(entry.settings)
    backbone, conflicts = entry.input("backbone"), entry.input("conflicts")
    with entry.writing() as draft:
        facts, about = backbone.facts(), conflicts.facts()
        precision: Precision = (entry.input("features0").settings if settings.probe else facts)["precision"]
        on = prepare(device, threads, precision)
        classes = list(settings.classes or about["cues"])
        shapes, textures, rows = _shown(conflicts, about["cues"], classes)
        size = int(facts["input_size"])
        network = load_backbone(backbone).to(on).to(memory_format=torch.channels_last)
        if settings.probe:
            stored = [entry.input(f"features{i}") for i in range(len(settings.probe))]
            assert settings.probing is not None
            probe = fit_probe(stored, settings.probe, classes, settings.probing, settings.seed)
            how = stored[0].settings
            layer = layer_named(network, how["layer"], size) if how.get("layer") else None
            features = _outputs(conflicts, rows, size, activations(network, layer), precision, on, threads=threads)
            decisions = probe.predict(features.astype(how["dtype"]))
            decider = _probe_facts(probe)
        else:
            outputs = _outputs_of(backbone, _names_of_outputs(entry, backbone), classes)
            decisions = decide(
                _outputs(conflicts, rows, size, network.logits, precision, on, threads=threads),
                [outputs[name] for name in classes],
            )
            decider = {"outputs": sum(map(len, outputs.values()))}
        counted, variant = count(shapes, textures, decisions), _resized(about["sides"], size)
        draft.write_json(
            "metrics.json",
            [
                *_rows_of(counted, settings, variant, decider, whole=True),
                *(
                    row
                    for label, of_class in by_shape(shapes, textures, decisions).items()
                    for row in _rows_of(of_class, settings, {**variant, "shape": classes[label]}, decider, whole=False)
                ),
            ],
        )
        _write_decisions(draft.file(DECISIONS), rows, (shapes, textures, decisions), classes)
        agreeing = shapes == textures
        draft.facts = {
            "backbone": backbone.name,
            "classes": classes,
            "images": counted.images,
            "shape": counted.shape,
            "texture": counted.texture,
            "neither": counted.neither,
            "agreeing": {"images": int(agreeing.sum()), "right": int((decisions == shapes)[agreeing].sum())},
            "sides": {"images": about["sides"], "network": size},
            "resized": bool(variant),
            "decided_by": decider,
            "flags": [flag.as_json() for flag in conflict_flags(counted.decided, counted.images, len(classes))],
        }
        draft.timing.update(images=len(rows), device=device, threads=threads)
    _report(counted, draft.facts)


def _shown(conflicts: Entry, cues: Sequence[str], classes: Sequence[str]) -> tuple[Integers, Integers, Integers]:
    """Shape and texture of each image whose two classes are among `classes`, by their numbers there, and its row."""
    number = np.array([classes.index(name) if name in classes else -1 for name in cues])
    shapes, textures = (number[labels] for labels in pairs(open_split(conflicts, "test").labels, len(cues)))
    rows = np.flatnonzero((shapes >= 0) & (textures >= 0))
    if not (shapes[rows] != textures[rows]).any():
        raise StoreError(f"{conflicts.path}: no image shows a conflict of two of {', '.join(classes)}; name others")
    return shapes[rows], textures[rows], rows


def _outputs(
    conflicts: Entry,
    rows: Integers,
    size: int,
    read: Read,
    precision: Precision,
    on: torch.device,
    *,
    threads: int,
) -> NDArray[np.float32]:
    """What a network makes of some of the images, float32 [N, D]."""
    found = []
    for _, squares in square_blocks(open_split(conflicts, "test"), size, 1.0, indices=rows, threads=threads):
        for pixels in torch.split(torch.from_numpy(squares), BATCH):
            with torch.inference_mode(), autocast(precision, on):
                found.append(read(as_images(pixels.to(on))).float().cpu().numpy())
    outputs: NDArray[np.float32] = np.concatenate(found)
    return outputs


def _names_of_outputs(entry: Entry, backbone: Entry) -> list[str]:
    """What the outputs stand for: of a checkpoint whose outputs have numbers, the source's classes."""
    known: list[str] = backbone.facts()["classes"]
    if "source" not in entry.inputs:
        return known
    source = entry.input("source")
    classes: list[str] = source.facts()["classes"]
    outputs = outputs_for(known, classes, imported=True)
    if outputs is None:
        raise StoreError(other_classes(str(backbone.path), len(known), str(source.path), len(classes)))
    named = dict(zip(outputs, classes, strict=True))
    return [named.get(output, name) for output, name in enumerate(known)]


def _outputs_of(backbone: Entry, known: Sequence[str], classes: Sequence[str]) -> dict[str, list[int]]:
    outputs = outputs_by_class(known, classes)
    if lacks := [name for name in classes if name not in outputs]:
        raise StoreError(
            f"{backbone.path}: none of its {len(known)} outputs stands for {', '.join(lacks)}; name a probe in "
            "cue_conflict.probe, or the classes that count in cue_conflict.classes"
        )
    return outputs


def _resized(sides: Sequence[int], size: int) -> dict[str, Any]:
    """What the table says of images that the network did not see as they are: their least side in pixels."""
    return {} if list(sides) == [size] else {"resized_from": min(sides)}


def _probe_facts(probe: ClassProbe) -> dict[str, Any]:
    return {"lambda": probe.fit.strength, "probe_accuracy": round(probe.accuracy, 2), "probe_images": probe.images}


def _rows_of(
    counted: Decisions, settings: CueConflictSettings, variant: dict[str, Any], decider: dict[str, Any], *, whole: bool
) -> list[dict[str, Any]]:
    """Rows of the results table: the shape bias, unless nothing was decided, and for all images both shares."""
    shared = {"split": "test", "selection": None, "attack": None, "variant": variant, "hyperparameters": decider}
    rows = []
    bias = counted.shape_bias
    if bias is not None:
        low, high = counted.interval(settings.resamples, settings.seed)
        of_decided = {"value": bias, "n": counted.decided, "interval": [low, high]}
        rows.append({"metric": "shape_bias", **of_decided, **shared})
    if whole:
        shares = {"shape_decisions": counted.shape, "texture_decisions": counted.texture}
        for metric, number in shares.items():
            of_all = {"value": counted.share(number), "n": counted.images, "effective_n": counted.images}
            rows.append({"metric": metric, **of_all, **shared})
    return rows


def _write_decisions(path: Path, rows: Integers, labels: Sequence[Integers], classes: Sequence[str]) -> None:
    """One row per image: its number in the prepared set, and by name the classes of shape, texture and decision."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["image", "shape", "texture", "decision"])
        for row, *of_image in zip(rows.tolist(), *labels, strict=True):
            writer.writerow([row, *(classes[label] for label in of_image)])


def _report(counted: Decisions, facts: dict[str, Any]) -> None:
    bias = "none" if counted.shape_bias is None else f"{counted.shape_bias:.1f} %"
    log.info(
        "shape bias %s: of %d conflicting images %d decided for the shape, %d for the texture; %d of %d agreeing right",
        bias, counted.images, counted.shape, counted.texture, facts["agreeing"]["right"], facts["agreeing"]["images"],
    )  # fmt: skip
    if facts["resized"]:
        log.warning(
            "images have sides of %s pixels and the network sees %d: its shape bias is not comparable in value with "
            "one of images as they are",
            " and ".join(map(str, facts["sides"]["images"])), facts["sides"]["network"],
        )  # fmt: skip
    for flag in facts["flags"]:
        log.warning("%s: %s", flag["flag"], flag["message"])

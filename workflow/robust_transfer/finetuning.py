"""Finetuning: full-network transfer, every parameter trained from the backbone's and the head afresh.

    python -m robust_transfer finetuning store/finetuning/<entry>

A search run trains at one learning rate on the training images less the validation ones and measures validation
accuracy. A refit takes the learning rate of the best search run, trains on all training images and measures test
accuracy; it repeats the chosen run's validation rows beside it. Both write `metrics.json`, `predictions.parquet` and
`epochs.csv`; weights are not kept. Images are normalised as the backbone was trained, not by the target's statistics
as the paper's code did. Speed is that of pretraining without an attack.
"""

from __future__ import annotations

import json
import logging
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray

from robust_transfer.configuration.running import running
from robust_transfer.configuration.transfer import FinetuningSettings
from robust_transfer.datasets.arrow import entry_splits, open_split
from robust_transfer.datasets.resident import square_images
from robust_transfer.datasets.splits import validation_mask
from robust_transfer.devices import prepare
from robust_transfer.inference import predict, predictions_table, write_predictions
from robust_transfer.loading import Part, open_loader
from robust_transfer.metrics import measurements
from robust_transfer.networks.backbones import load_backbone
from robust_transfer.networks.build import Network
from robust_transfer.progress import Epoch, cost, write_epochs
from robust_transfer.states import states_of
from robust_transfer.store import Entry, StoreError
from robust_transfer.training import fit

log = logging.getLogger("robust_transfer")


@dataclass(frozen=True)
class Chosen:
    """The learning rate of a refit, and what its search run measured on validation images."""

    learning_rate: float
    rows: list[dict[str, Any]]
    predictions: pa.Table


def run(entry: Entry, *, threads: int, device: str) -> None:
    """Train and measure as `entry` describes."""
    settings = FinetuningSettings.model_validate(entry.settings)
    on = prepare(device, threads)
    backbone, dataset = entry.input("backbone"), entry.input("dataset")
    with entry.writing() as draft:
        chosen = choose(entry, settings) if settings.purpose == "refit" else None
        rate = chosen.learning_rate if chosen else settings.learning_rates[0]
        trained_on, measured_on = parts(dataset, settings)
        input_size = int(backbone.facts()["input_size"])
        network = load_backbone(backbone)
        network.replace_head(len(measured_on.split.classes), seed=settings.seed)
        epochs, resumed = _fit(entry, network.to(on), trained_on, settings, input_size, rate, threads, device)
        found = _predict(network, measured_on, settings, input_size, threads)
        split = "validation" if settings.purpose == "search" else "test"
        rows = measurements(
            measured_on.labels,
            found,
            network.classes,
            split=split,
            selection="validation" if chosen else None,
            hyperparameters={"learning_rate": rate},
        )
        log.info("%s accuracy %.1f %%", split, rows[0]["value"])
        tables = [predictions_table(split, measured_on.indices, measured_on.labels, found)]
        draft.write_json("metrics.json", rows + (chosen.rows if chosen else []))
        write_predictions(draft.file("predictions.parquet"), tables + ([chosen.predictions] if chosen else []))
        write_epochs(draft.file("epochs.csv"), epochs)
        draft.facts = {"backbone": backbone.name, "dataset": dataset.name, "learning_rate": rate}
        if resumed:
            draft.facts["resumed"] = resumed
        draft.timing.update(cost(epochs, None), device=device, threads=threads)


def parts(dataset: Entry, settings: FinetuningSettings) -> tuple[list[Part], Part]:
    """What a run trains on, and what it measures on.

    Validation images are the dataset's official ones where it has some, else `validation_fraction` of its training
    images, the same for every run of one seed. A refit trains on them too.
    """
    train = _whole(dataset, "train")
    official = _whole(dataset, "validation") if "validation" in entry_splits(dataset) else None
    if settings.purpose == "refit":
        return [train, official] if official else [train], _whole(dataset, "test")
    if official:
        return [train], official
    mask = validation_mask(train.labels, settings.validation_fraction, settings.seed)
    return [Part(train.split, np.flatnonzero(~mask))], Part(train.split, np.flatnonzero(mask))


def choose(entry: Entry, settings: FinetuningSettings) -> Chosen:
    """The search run of `entry` with the highest validation accuracy; of equal ones, the smallest learning rate.

    Raises StoreError if the searches are not those of the settings' learning rates.
    """
    found = []
    for number, rate in enumerate(settings.learning_rates):
        search = entry.input(f"search{number}")
        searched = FinetuningSettings.model_validate(search.settings)
        if searched.purpose != "search" or searched.learning_rates != (rate,):
            raise StoreError(
                f"{entry.path}: input search{number} is {search.path}, a {searched.purpose} at learning rates "
                f"{searched.learning_rates} where a search at {rate} is expected; write the entries again"
            )
        rows = json.loads(search.file("metrics.json").read_text())
        value = next(row["value"] for row in rows if row["metric"] == settings.metric)
        found.append((-value, rate, search, rows))
    _, rate, search, rows = min(found, key=lambda item: item[:2])
    values = ", ".join(f"{-item[0]:.1f} % at {item[1]:g}" for item in found)
    log.info("validation %s by learning rate: %s", settings.metric, values)
    rows = [row | {"selection": "validation"} for row in rows]
    return Chosen(rate, rows, pq.read_table(search.file("predictions.parquet")))


def _whole(dataset: Entry, name: str) -> Part:
    split = open_split(dataset, name)
    return Part(split, np.arange(len(split)))


def _fit(
    entry: Entry,
    network: Network,
    trained_on: list[Part],
    settings: FinetuningSettings,
    input_size: int,
    rate: float,
    threads: int,
    device: str,
) -> tuple[list[Epoch], list[dict[str, Any]]]:
    """What the epochs came to, and what a state that was taken up differed in."""
    with ExitStack() as stack:
        loader = stack.enter_context(
            closing(
                open_loader(
                    trained_on,
                    settings.training,
                    input_size=input_size,
                    resize_ratio=settings.preprocessing.resize_ratio,
                    seed=settings.seed,
                    device=network.head.weight.device,
                    threads=threads,
                    running=running(),
                )
            )
        )
        log.info("%d images of %d classes at learning rate %g", len(loader.labels), network.classes, rate)
        states = stack.enter_context(states_of(entry, device=device, threads=threads))
        epochs = fit(
            network,
            loader,
            settings.training,
            input_size=input_size,
            seed=settings.seed,
            learning_rate=rate,
            states=states,
        )
        return epochs, states.resumed


def _predict(
    network: Network, measured_on: Part, settings: FinetuningSettings, input_size: int, threads: int
) -> NDArray[np.int64]:
    ratio = settings.preprocessing.resize_ratio
    squares = square_images(measured_on.split, input_size, ratio, threads=threads)
    pixels = torch.from_numpy(squares[measured_on.indices])
    return predict(network, pixels.to(network.head.weight.device), settings.training.precision)

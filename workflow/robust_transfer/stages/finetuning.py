"""Finetuning: full-network transfer, every parameter trained from the backbone's and the head afresh.

    python -m robust_transfer finetuning store/finetuning/<entry>

A search run trains at one learning rate on the training images less the validation ones and measures validation
accuracy. A refit takes the learning rate of the best search run, trains on all training images and measures test
accuracy; it repeats the chosen run's validation rows beside it. A final run does so at a rate that it is given: where
rates are chosen on test images, there is one for each. Where there is one rate, a fixed run is all: it trains as a
search does and measures validation accuracy, which still chooses between networks, and test accuracy. All write
`metrics.json`, `predictions.parquet` and `epochs.csv`, and with `keep_weights` the network as `weights.safetensors`,
which `networks.backbones.load_backbone` reads.

The head starts at random, or with `head: probe` at the probe of the frozen protocol, fitted to the run's own training
images (linear probing, then fine-tuning: Kumar et al. 2022). `trainable` and `batchnorm` say what stays frozen. With
`attack` training is adversarial, by the adversary of pretraining; with `chosen_under` a search run is measured under
that attack too, and a refit chooses by it. Speed is that of pretraining under the same attack.

Where the loss is no longer finite, training stops, the card says since which step (`diverged`), and a head of zeros is
measured, which guesses. A search run that diverged is chosen only where all did.
"""

from __future__ import annotations

import logging

from robust_transfer.configuration.transfer import FinetuningSettings
from robust_transfer.machine.devices import prepare
from robust_transfer.networks.freezing import freeze
from robust_transfer.statistics.metrics import measurements
from robust_transfer.store.entry import Entry, StoreError
from robust_transfer.store.predictions import PREDICTIONS, predictions_table, write_predictions
from robust_transfer.store.runs import Run, best, runs_in
from robust_transfer.training.divergence import guess
from robust_transfer.training.probe_solution import start_at_probe
from robust_transfer.training.progress import cost, write_epochs
from robust_transfer.training.transfer import (
    attacked_rows,
    diverged_facts,
    keep_network,
    load_network,
    parts,
    predicted,
    test_images,
    train,
)  # fmt: skip

log = logging.getLogger("robust_transfer")


def run(entry: Entry, *, threads: int, device: str) -> None:
    """Train and measure as `entry` describes."""
    settings = FinetuningSettings.model_validate(entry.settings)
    on = prepare(device, threads, settings.training.precision)
    backbone, dataset = entry.input("backbone"), entry.input("dataset")
    with entry.writing() as draft:
        chosen = choose(entry, settings) if settings.purpose == "refit" else None
        rate = chosen.hyperparameters["learning_rate"] if chosen else settings.learning_rates[0]
        trained_on, measured_on = parts(dataset, settings)
        network, input_size = load_network(backbone, settings.normalisation)
        network.replace_head(len(measured_on.split.classes), seed=settings.seed)
        if settings.head == "probe":
            start_at_probe(network, entry, settings)
        freeze(network, settings.trainable, settings.batchnorm)
        trained = train(
            entry, network.to(on), trained_on, settings,
            input_size=input_size, learning_rate=rate, threads=threads, device=device,
        )  # fmt: skip
        if trained.is_lost:
            network, _ = load_network(backbone, settings.normalisation)
            network.replace_head(len(measured_on.split.classes), seed=settings.seed)
            guess(network.to(on))
        fixed = settings.purpose == "fixed"
        measured = {"validation" if settings.purpose in ("search", "fixed") else "test": measured_on}
        rows, tables = [], []
        for split, images in (measured | ({"test": test_images(dataset)} if fixed else {})).items():
            found = predicted(network, images, settings, input_size=input_size, threads=threads)
            rows += measurements(
                images.labels,
                found,
                network.classes,
                split=split,
                selection="validation" if chosen or fixed else None,
                hyperparameters={"learning_rate": rate},
            )
            log.info("%s accuracy %.1f %%", split, rows[-2]["value"])
            tables.append(predictions_table(split, images.indices, images.labels, found))
            rows += attacked_rows(
                network, [network.head], images, found[None], settings, {"learning_rate": rate},
                input_size=input_size, threads=threads,
            )  # fmt: skip
        draft.write_json("metrics.json", rows + (chosen.rows_chosen_on("validation") if chosen else []))
        write_predictions(draft.file(PREDICTIONS), tables + ([chosen.predictions()] if chosen else []))
        write_epochs(draft.file("epochs.csv"), trained.epochs)
        draft.facts = {"backbone": backbone.name, "dataset": dataset.name, "learning_rate": rate}
        draft.facts |= diverged_facts(
            [{"learning_rate": rate, "step": step} for step in trained.diverged_at if step],
            is_candidate=settings.purpose in ("search", "final"),
        )
        if settings.keep_weights:
            keep_network(draft, network, measured_on.split.classes, input_size)
        if trained.resumed:
            draft.facts["resumed"] = trained.resumed
        draft.timing.update(cost(trained.epochs, None), device=device, threads=threads)


def choose(entry: Entry, settings: FinetuningSettings) -> Run:
    """The search run of `entry` with the highest validation accuracy, under the settings' attack if they have one.

    Of equal ones, that of the smallest learning rate; one that diverged only where all did.

    Raises StoreError if the searches are not those of the settings' learning rates.
    """
    runs: list[Run] = []
    for number, rate in enumerate(settings.learning_rates):
        search = entry.input(f"search{number}")
        searched = FinetuningSettings.model_validate(search.settings)
        if searched.purpose != "search" or searched.learning_rates != (rate,):
            raise StoreError(
                f"{entry.path}: input search{number} is {search.path}, a {searched.purpose} at learning rates "
                f"{searched.learning_rates} where a search at {rate} is expected; write the entries again"
            )
        runs += runs_in(search)
    radii = settings.chosen_under.eps if settings.chosen_under else ()
    values = ", ".join(
        f"{'diverged' if run.is_diverged else f'{run.accuracy(settings.metric, radii):.1f} %'} at "
        f"{run.hyperparameters['learning_rate']:g}"
        for run in runs
    )
    log.info("validation %s by learning rate%s: %s", settings.metric, " under attack" * bool(radii), values)
    return best(runs, settings.metric, radii)

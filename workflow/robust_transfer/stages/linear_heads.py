"""Linear heads: fixed-feature transfer by the paper's protocol, as its released code measured it.

    python -m robust_transfer linear_heads store/linear_heads/<entry>

Linear heads are trained by SGD on augmented images, on a network whose weights are frozen. By default BatchNorm stays
in train mode, so that its running statistics drift to the target, and images are normalised by the target's statistics
(Salman et al. 2020, released code). Every learning rate, weight decay and head seed has a head of its own; all share
each forward pass, and none touches another: losses are summed, and every head has its own momentum.

A search run trains on the training images less the validation ones and measures validation accuracy; a final run trains
on all of them and measures test accuracy. Both write `metrics.json` and `predictions.parquet`, for every learning rate
and weight decay (`run` numbers them), and `epochs.csv`; `selecting` picks one. With `keep_weights` the
network and all heads are kept as `weights.safetensors`: `head.weight` [H, K, D] of H heads, run by run.

With `attack` training is adversarial, by the adversary of pretraining. Each head then sees images of its own, so that a
run has one. With `chosen_under` a search run measures every head under that attack too.

A head whose loss is no longer finite is set to zeros, so that it guesses, and the card says since which step
(`diverged`); it is chosen only where all heads diverged.
"""

from __future__ import annotations

import itertools
import logging
from typing import Any

import torch
from torch import Tensor

from robust_transfer import randomness
from robust_transfer.configuration.transfer import LinearHeadsSettings
from robust_transfer.machine.devices import prepare
from robust_transfer.networks.build import Network
from robust_transfer.networks.parallel_heads import put_heads
from robust_transfer.networks.probe_head import linear_head
from robust_transfer.statistics.metrics import measurements
from robust_transfer.store.entry import Entry
from robust_transfer.store.predictions import predictions_table, write_predictions
from robust_transfer.training.divergence import guess
from robust_transfer.training.progress import cost, write_epochs
from robust_transfer.training.sgd import ParallelSGD
from robust_transfer.training.transfer import (
    attacked_rows,
    diverged_facts,
    keep_network,
    load_network,
    parts,
    predicted,
    train,
)

log = logging.getLogger("robust_transfer")

Hyperparameters = tuple[float, float]
"""Learning rate and weight decay."""


def run(entry: Entry, *, threads: int, device: str) -> None:
    """Train and measure the heads that `entry` describes."""
    settings = LinearHeadsSettings.model_validate(entry.settings)
    on = prepare(device, threads, settings.training.precision)
    backbone, dataset = entry.input("backbone"), entry.input("dataset")
    tried = list(itertools.product(settings.learning_rates, settings.weight_decays))
    with entry.writing() as draft:
        trained_on, measured_on = parts(dataset, settings)
        network, input_size = load_network(backbone, settings.normalisation)
        n_classes = len(measured_on.split.classes)
        optimiser = put_on(network.to(on), n_classes, tried, settings)
        trained = train(
            entry, network, trained_on, settings,
            input_size=input_size, learning_rate=max(settings.learning_rates), optimiser=optimiser,
            threads=threads, device=device,
        )  # fmt: skip
        if trained.is_lost:  # BatchNorm's statistics have drifted until the moment when that was noticed
            network, _ = load_network(backbone, settings.normalisation)
            put_on(network.to(on), n_classes, tried, settings)
        guess(network, [step is not None for step in trained.diverged_at])
        found = predicted(network, measured_on, settings, input_size=input_size, threads=threads)
        by_run = found.T.reshape(len(tried), len(settings.head_seeds), -1)
        split = "validation" if settings.purpose == "search" else "test"
        rows = [
            row | {"run": number}
            for number, hyperparameters in enumerate(tried)
            for row in measurements(
                measured_on.labels, by_run[number], n_classes,
                split=split, hyperparameters=named(hyperparameters, settings),
            )
        ]  # fmt: skip
        heads = [linear_head(*one) for one in zip(*map(Tensor.detach, network.head.parameters()), strict=True)]
        for number, hyperparameters in enumerate(tried):
            of_run = heads[number * len(settings.head_seeds) :][: len(settings.head_seeds)]
            attacked = attacked_rows(
                network, of_run, measured_on, by_run[number], settings, named(hyperparameters, settings),
                input_size=input_size, threads=threads,
            )  # fmt: skip
            rows += [row | {"run": number} for row in attacked]
        draft.write_json("metrics.json", rows)
        write_predictions(
            draft.file("predictions.parquet"),
            [
                predictions_table(
                    split, measured_on.indices, measured_on.labels, predictions, run=number, head_seed=head_seed
                )
                for number, of_run in enumerate(by_run)
                for head_seed, predictions in zip(settings.head_seeds, of_run, strict=True)
            ],
        )
        write_epochs(draft.file("epochs.csv"), trained.epochs)
        draft.facts = {"backbone": backbone.name, "dataset": dataset.name, "heads": len(found.T)}
        draft.facts |= diverged_facts(_diverged(trained.diverged_at, tried), is_candidate=True)
        if settings.keep_weights:
            keep_network(draft, network, measured_on.split.classes, input_size)
        if trained.resumed:
            draft.facts["resumed"] = trained.resumed
        draft.timing.update(cost(trained.epochs, None), device=device, threads=threads)
    clean = rows[: 2 * len(tried) : 2]
    values = [f"{row['value']:.1f} % at {row['hyperparameters']['learning_rate']:g}" for row in clean]
    log.info("%s accuracy by learning rate: %s", split, ", ".join(values))


def put_on(
    network: Network, n_classes: int, tried: list[Hyperparameters], settings: LinearHeadsSettings
) -> ParallelSGD:
    """Put a head for each of these hyperparameters and each head seed on `network`; gives what trains them.

    Head seeds vary fastest. Its `step` takes the largest of the learning rates, times the schedule.
    """
    seeds = [randomness.key(settings.seed, randomness.HEAD, seed) for seed in settings.head_seeds]
    put_heads(network, n_classes, seeds * len(tried), drifting=settings.batchnorm == "drift")
    device = network.head.weight.device
    rates, decays = torch.tensor(tried, dtype=torch.float64, device=device).repeat_interleave(len(seeds), 0).unbind(1)
    return ParallelSGD(
        network.head.parameters(),
        rates=rates / max(settings.learning_rates),
        weight_decays=decays,
        momentum=settings.training.momentum,
        nesterov=settings.training.nesterov,
    )


def named(hyperparameters: Hyperparameters, settings: LinearHeadsSettings) -> dict[str, Any]:
    """Hyperparameters as tables have them; head seeds only where there are several."""
    rate, decay = hyperparameters
    seeds = {"head_seeds": list(settings.head_seeds)} if len(settings.head_seeds) > 1 else {}
    return {"learning_rate": rate, "weight_decay": decay, **seeds}


def _diverged(diverged_at: list[int | None], tried: list[Hyperparameters]) -> list[dict[str, Any]]:
    """The hyperparameters of which a head diverged, each with the first step at which one did."""
    per_run = len(diverged_at) // len(tried)
    found = []
    for number, (rate, decay) in enumerate(tried):
        if steps := [step for step in diverged_at[number * per_run :][:per_run] if step]:
            found.append({"learning_rate": rate, "weight_decay": decay, "step": min(steps)})
    return found

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
from robust_transfer.training.progress import cost, write_epochs
from robust_transfer.training.sgd import ParallelSGD
from robust_transfer.training.transfer import attacked_rows, keep_network, load_network, parts, predicted, train

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
        epochs, resumed = train(
            entry, network, trained_on, settings,
            input_size=input_size, learning_rate=max(settings.learning_rates), optimiser=optimiser,
            threads=threads, device=device,
        )  # fmt: skip
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
        diverged = _diverged(network, tried, settings)
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
        write_epochs(draft.file("epochs.csv"), epochs)
        draft.facts = {"backbone": backbone.name, "dataset": dataset.name, "heads": len(found.T)}
        if diverged:
            log.warning(
                "diverged, and predict at random: heads at learning rate %s", ", ".join(f"{r:g}" for r in diverged)
            )
            draft.facts["diverged"] = diverged
        if settings.keep_weights:
            keep_network(draft, network, measured_on.split.classes, input_size)
        if resumed:
            draft.facts["resumed"] = resumed
        draft.timing.update(cost(epochs, None), device=device, threads=threads)
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


def _diverged(network: Network, tried: list[Hyperparameters], settings: LinearHeadsSettings) -> list[float]:
    """The learning rates of heads whose weights are not finite."""
    finite = network.head.weight.detach().flatten(1).isfinite().all(1).reshape(len(tried), -1).all(1).tolist()
    return sorted({rate for (rate, _), fine in zip(tried, finite, strict=True) if not fine})

"""Where fine-tuning starts with `head: probe`: the frozen protocol's solution on the images that a run trains on.

Its strength is the one that the probe's entry chose; it is fitted anew, in a fraction of a second, so that no entry
need keep its weights, and a search run's head has not seen the validation images that it is measured on.
"""

from __future__ import annotations

import torch

from robust_transfer.configuration.transfer import FinetuningSettings, ProbingSettings
from robust_transfer.networks.build import Network
from robust_transfer.networks.probe_head import probe_head
from robust_transfer.statistics.logistic_regression import Fit
from robust_transfer.store.entry import Entry
from robust_transfer.training.class_probe import regression
from robust_transfer.training.fixed_features import together, training_parts


@torch.no_grad()
def start_at_probe(network: Network, entry: Entry, settings: FinetuningSettings) -> None:
    """Give the head of a network, which has the target's classes, the probe's solution, standardisation folded in."""
    start = probe_head(fitted_probe(entry, settings), network.classes)
    network.head.weight.copy_(start.weight)
    network.head.bias.copy_(start.bias)


def fitted_probe(entry: Entry, settings: FinetuningSettings) -> Fit:
    """The solution on the images that the run trains on, of its inputs `probe` and `features`."""
    chosen = entry.input("probe")
    strengths: dict[str, float] = chosen.facts()["lambda"]
    of_run = {
        name: getattr(settings, name) for name in ("validation_fraction", "images_per_class", "training_images", "seed")
    }
    probing = ProbingSettings.model_validate(chosen.settings).model_copy(update=of_run)
    train, held = training_parts(entry.input("features"), probing)
    fitted_to = train if settings.purpose in ("search", "fixed") else together(train, held)
    return next(regression(fitted_to, probing).path([strengths.get("validation") or next(iter(strengths.values()))]))

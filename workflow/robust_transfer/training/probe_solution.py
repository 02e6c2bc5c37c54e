"""Where fine-tuning starts with `head: probe`: the frozen protocol's solution on the images that a run trains on.

Its strength is the one that the probe's entry chose; it is fitted anew, in a fraction of a second, so that no entry
need keep its weights, and a search run's head has not seen the validation images that it is measured on.
"""

from __future__ import annotations

from robust_transfer.configuration.transfer import FinetuningSettings, ProbingSettings
from robust_transfer.networks.probe_head import FullPrecisionLinear, probe_head
from robust_transfer.statistics.logistic_regression import Fit
from robust_transfer.store.entry import Entry
from robust_transfer.training.class_probe import regression
from robust_transfer.training.fixed_features import together, training_parts


def fitted_head(entry: Entry, settings: FinetuningSettings) -> FullPrecisionLinear:
    """The head that a fine-tuning entry starts from, on the CPU: the probe with its standardisation folded in."""
    return probe_head(fitted_probe(entry, settings), len(entry.input("features").facts()["classes"]))


def fitted_probe(entry: Entry, settings: FinetuningSettings) -> Fit:
    """The solution on the images that the run trains on, of its inputs `probe` and `features`."""
    chosen = entry.input("probe")
    strengths: dict[str, float] = chosen.facts()["lambda"]
    of_run = {name: getattr(settings, name) for name in ("validation_fraction", "images_per_class", "seed")}
    probing = ProbingSettings.model_validate(chosen.settings).model_copy(update=of_run)
    train, held = training_parts(entry.input("features"), probing)
    fitted_to = train if settings.purpose in ("search", "fixed") else together(train, held)
    return next(regression(fitted_to, probing).path([strengths.get("validation") or next(iter(strengths.values()))]))

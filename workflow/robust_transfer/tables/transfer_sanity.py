"""Sanity flags of transfers: pure functions on the numbers that a transfer left behind."""

from __future__ import annotations

import math
from collections.abc import Collection

from robust_transfer.tables.flags import Flag, flag
from robust_transfer.tables.sanity import DEVIATIONS, deviation

LOST = 0.25
"""Share of validation accuracy above guessing that a refit must have lost to be flagged, beside sampling noise: test
images differ from validation images, which are drawn from the training ones, by some points on many datasets, and the
best of several validation accuracies was also lucky."""


def refit_flags(
    *, test: float, images: int, validation: float, held: int, classes: int, name: str = "refit-below-validation"
) -> list[Flag]:
    """The flag `name`, from test accuracy over `images` and the validation accuracy over `held` that chose.

    Both in percent; the network or the head was fitted again in between.
    """
    lost = validation - test
    noise = DEVIATIONS * math.hypot(deviation(test, images), deviation(validation, held))
    if lost <= noise or lost <= LOST * (validation - 100 / classes):
        return []
    says = f"{test:.1f} % of {images} test images are right, and {validation:.1f} % of {held} validation images were"
    return [flag(name, says)]


def edge_flags(
    name: str, value: float, tried: Collection[float], accuracy: float, *, last: float | None = None
) -> list[Flag]:
    """`at-edge`, for the value that was chosen of those that were tried, by an accuracy in percent.

    `name` is the hyperparameter's; `last` a value that nothing lies beyond. An accuracy of 100 raises none: nothing
    that lies beyond is better.
    """
    if len(set(tried)) < 2 or value not in (min(tried), max(tried)) or value == last or accuracy >= 100:
        return []
    end = "smallest" if value == min(tried) else "largest"
    says = f"the best {name.replace('_', ' ')}, {value:g}, is the {end} of {len(set(tried))} tried"
    return [flag("at-edge", f"{says} (chosen at {accuracy:.1f} %)")]

"""Sanity flags of transfers: pure functions on the numbers that a transfer left behind."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass

from robust_transfer.tables.flags import Flag, flag
from robust_transfer.tables.sanity import DEVIATIONS, deviation

LOST = 0.25
"""Share of validation accuracy above guessing that a refit must have lost to be flagged, beside sampling noise: test
images differ from validation images, which are drawn from the training ones, by some points on many datasets, and the
best of several validation accuracies was also lucky."""
WORSE = 0.1
"""Share of what the chosen search run's loss had fallen below that of guessing, ln K, by which a refit may end above it
and count as trained no worse: it takes as many epochs over more images. Of 67 refits of linear heads and of networks on
real images 66 ended less than 0.051 of it above, and one 0.32, of heads that had learned little. A refit whose own
training costs it `LOST` of its accuracy should lose more than this."""


@dataclass(frozen=True)
class LastLosses:
    """Losses of the last epochs of two trainings with the same hyperparameters."""

    search: float
    """On the training images less the validation ones: by its validation accuracy these hyperparameters were chosen."""
    refit: float
    """On all of them: its test accuracy is what is reported."""

    def trained_alike(self, classes: int) -> bool:
        """Whether the refit ended no worse than the search run; not where a loss is not a number."""
        return self.refit - self.search <= WORSE * max(0.0, math.log(classes) - self.search)


def fell(*, to: float, images: int, before: float, held: int, classes: int) -> bool:
    """Whether an accuracy over `images` is lower than one over `held`, both in percent, by more than sampling noise and
    by more than `LOST` of what that had above guessing."""
    lost = before - to
    noise = DEVIATIONS * math.hypot(deviation(to, images), deviation(before, held))
    return lost > noise and lost > LOST * (before - 100 / classes)


def refit_flags(
    *,
    test: float,
    images: int,
    validation: float,
    held: int,
    classes: int,
    trained_again: bool = True,
    losses: LastLosses | None = None,
) -> list[Flag]:
    """What a test accuracy far below the validation accuracy that chose says, over so many images, both in percent.

    Args:
        test: Accuracy over `images` test images.
        images: How many.
        validation: Accuracy over `held` validation images.
        held: How many.
        classes: How many classes there are.
        trained_again: Whether there was a second training in between that could go wrong.
        losses: Of both trainings, where they are known. Those that ended alike tell that test images differ.

    Returns:
        `refit-below-validation`; `test-below-validation` where the second training is known to have gone as the first.
    """
    if not fell(to=test, images=images, before=validation, held=held, classes=classes):
        return []
    says = f"{test:.1f} % of {images} test images are right, and {validation:.1f} % of {held} validation images were"
    if not trained_again:
        return [flag("test-below-validation", says)]
    if losses is None:
        return [flag("refit-below-validation", says)]
    says += f" (last losses: {losses.refit:.3f}, and {losses.search:.3f} of the search run)"
    alike = losses.trained_alike(classes)
    return [flag("test-below-validation" if alike else "refit-below-validation", says)]


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

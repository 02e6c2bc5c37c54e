"""Shape bias: of the decisions for an image's shape class or its texture class, the share for the shape.

Geirhos et al. (2019), "ImageNet-trained CNNs are biased towards texture". NumPy only: short jobs import this module.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.integer[Any]]

Floats = NDArray[np.floating[Any]]


def decide(scores: Floats, outputs: Sequence[Sequence[int]]) -> NDArray[np.int64]:
    """The class that each image is decided for, int64 [N].

    Args:
        scores: A network's logits [N, C].
        outputs: For each class the outputs that stand for it.

    A class is worth the mean of the softmax probabilities of its outputs, over all C, and not their sum, which would
    favour classes of many outputs. Of equal classes the first is decided for. Geirhos et al. do so, with the mean as
    the authors recommend since; their first report took the largest probability.
    """
    exponents = np.asarray(scores, np.float64)
    exponents = np.exp(exponents - exponents.max(axis=1, keepdims=True))
    probabilities = exponents / exponents.sum(axis=1, keepdims=True)
    means = np.stack([probabilities[:, list(of_class)].mean(axis=1) for of_class in outputs], axis=1)
    found: NDArray[np.int64] = means.argmax(axis=1)
    return found


@dataclass(frozen=True)
class Decisions:
    """How many images of a conflict were decided for which cue."""

    shape: int
    texture: int
    neither: int

    @property
    def images(self) -> int:
        """All of them."""
        return self.shape + self.texture + self.neither

    @property
    def decided(self) -> int:
        """For the shape or the texture class."""
        return self.shape + self.texture

    @property
    def shape_bias(self) -> float | None:
        """Percent of `decided` for the shape; None where there are none."""
        return 100 * self.shape / self.decided if self.decided else None

    def share(self, count: int) -> float:
        """So many images in percent of all."""
        return 100 * count / self.images

    def interval(self, resamples: int, seed: int) -> tuple[float, float]:
        """Ends of the 95 % interval of `shape_bias`, in percent: percentiles of the bootstrap over images.

        Images are drawn with replacement, so that the number of decisions varies too; what a sample of them comes to
        depends on its three counts alone, which are multinomial. Where all decisions are for one cue no sample varies,
        and the interval is the exact one of a binomial share. Raises ValueError where nothing was decided.
        """
        if not self.decided:
            raise ValueError("no image was decided for its shape or its texture class: there is no shape bias")
        if not (self.shape and self.texture):
            from robust_transfer.statistics.intervals import exact_interval  # scipy, which is seldom needed

            return exact_interval(100.0 * bool(self.shape), self.decided)
        random = np.random.default_rng([seed, self.images, self.shape, self.texture])
        shares = np.array([self.shape, self.texture, self.neither]) / self.images
        shape, texture, _ = random.multinomial(self.images, shares, resamples).T
        drawn = (shape + texture) > 0
        biases = 100 * shape[drawn] / (shape + texture)[drawn]
        low, high = np.percentile(biases, (2.5, 97.5))
        return float(low), float(high)


def pairs(labels: NDArray[np.int64], classes: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Shape and texture class by number, two int64 [N], of labels that are shape × classes + texture."""
    return labels // classes, labels % classes


def count(shapes: Integers, textures: Integers, decisions: Integers) -> Decisions:
    """Count the decisions on images that show a conflict; those whose two classes agree are left out.

    All three are classes by number, [N].
    """
    conflict = shapes != textures
    shape, texture = decisions == shapes, decisions == textures
    return Decisions(
        int((conflict & shape).sum()), int((conflict & texture).sum()), int((conflict & ~shape & ~texture).sum())
    )


def by_shape(shapes: Integers, textures: Integers, decisions: Integers) -> dict[int, Decisions]:
    """The decisions on the images of each shape class, by its number; classes without a conflict are left out."""
    found = {}
    for one in np.unique(shapes):
        of_class = shapes == one
        counted = count(shapes[of_class], textures[of_class], decisions[of_class])
        if counted.images:
            found[int(one)] = counted
    return found

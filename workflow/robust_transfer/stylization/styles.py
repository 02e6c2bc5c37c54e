"""Which style an image gets: a function of (seed, split, image), the same in every order of work and on any machine."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from robust_transfer import randomness
from robust_transfer.datasets.arrow import SPLITS, Images, Split
from robust_transfer.datasets.errors import DatasetError
from robust_transfer.datasets.resident import square_images

Numbers = NDArray[np.int64]


def chosen(seed: int, split: str, images: Numbers, styles: int, *, own: bool = False) -> Numbers:
    """The number of the style of each image, int64 [n], drawn uniformly from so many, with replacement.

    Args:
        seed: Seed of the choice.
        split: Name of the split that images are in.
        images: Their numbers in it, int64 [n].
        styles: How many styles there are.
        own: Styles are the images of this split, of which each gets another than itself.
    """
    numbers = torch.from_numpy(images)
    uniform = randomness.per_image(seed, randomness.STYLE, SPLITS.index(split), numbers, 1)[:, 0].numpy()
    if own:
        return (images + 1 + (uniform * (styles - 1)).astype(np.int64)) % styles
    return (uniform * styles).astype(np.int64)


class Styles:
    """The style images of a dataset, those that are large enough."""

    def __init__(self, split: Split, side: int, *, least: int) -> None:
        """Look at the sizes of all of them.

        Args:
            split: Where they are.
            side: Side of the squares that they are given as, in pixels.
            least: Images with a smaller short side are dropped. Raises DatasetError where fewer than two are left.
        """
        self._split, self._side = split, side
        if split.shape is None:
            large = [i for i in range(len(split)) if min(split.size(i)) >= least]
        else:
            large = list(range(len(split))) if min(split.shape) >= least else []
        self._kept = np.array(large, np.int64)
        self.dropped = len(split) - len(large)
        """How many are too small."""
        if len(large) < 2:
            small = f", and {self.dropped} whose short side is below {least} pixels" if self.dropped else ""
            raise DatasetError(
                f"{split.entry.name}: {len(large)} style images{small}; styles are drawn from two or more"
            )

    def __len__(self) -> int:
        return len(self._kept)

    def images(self, numbers: Numbers | Sequence[int], threads: int = 1) -> Images:
        """Style images by number, their centre squares brought to `side`: uint8 [n, side, side, 3]."""
        return square_images(self._split, self._side, 1.0, indices=self._kept[np.asarray(numbers)], threads=threads)

"""Sources: the images of a training, numbered consecutively, and how each is read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from robust_transfer import randomness
from robust_transfer.configuration.training import Recipe
from robust_transfer.datasets.arrow import Images, Split
from robust_transfer.datasets.resident import square_images
from robust_transfer.loading.augmentation import CROP_NUMBERS, Augmenter, as_images, random_crop, squares_as

Numbers = NDArray[np.int64]


def moved(groups: Sequence[Tensor], device: torch.device) -> Sequence[Tensor]:
    """The same tensors on a device, by one copy: one for each would wait for a GPU as often."""
    if device.type == "cpu" or not groups:
        return groups
    return torch.split(torch.cat(list(groups)).to(device), [len(group) for group in groups])


@dataclass(frozen=True)
class Subset:
    """Some images of a stored split."""

    split: Split
    indices: Numbers
    """Rows of the split's file, ascending."""

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def labels(self) -> NDArray[np.int64]:
        """int64 [N]."""
        return self.split.labels[self.indices]

    def squares(self, positions: Numbers, side: int, resize_ratio: float, threads: int = 1) -> Images:
        """The images at these positions of the subset, without augmentation: uint8 [n, side, side, 3]."""
        return square_images(self.split, side, resize_ratio, indices=self.indices[positions], threads=threads)


@dataclass(frozen=True)
class Source:
    """The images of several subsets, numbered consecutively, and how they are augmented."""

    parts: tuple[Subset, ...]
    recipe: Recipe
    input_size: int
    resize_ratio: float
    seed: int

    def __len__(self) -> int:
        return sum(len(part) for part in self.parts)

    @property
    def side(self) -> int:
        """Side of the square images that augmentation starts from."""
        return squares_as(self.recipe.augmentation, self.input_size, self.resize_ratio)[0]

    def augmenter(self, pixels: Tensor) -> Augmenter:
        """An Augmenter of all images, or of some."""
        return Augmenter(pixels, self.recipe.augmentation, self.input_size, self.seed)

    def labels(self, device: torch.device) -> Tensor:
        """int64 [N]."""
        return torch.from_numpy(np.concatenate([part.labels for part in self.parts])).to(device)

    def unaugmented(self, numbers: Tensor, size: int, device: torch.device, threads: int) -> Tensor:
        """As in Loader."""
        return as_images(torch.from_numpy(self._squares(numbers.numpy(), size, self.resize_ratio, threads)).to(device))

    def read(self, epoch: int, size: int, numbers: Numbers) -> Images:
        """Images as workers return them: uint8 [n, side, side, 3].

        For `resized-crop-flip` these are the crops of an epoch at `size`, else square images to augment on the device.
        """
        if self.recipe.augmentation == "resized-crop-flip":
            return self._crops(epoch, size, numbers)
        return self._squares(numbers, *squares_as(self.recipe.augmentation, self.input_size, self.resize_ratio))

    def _squares(self, numbers: Numbers, side: int, resize_ratio: float, threads: int = 1) -> Images:
        squares = np.empty((len(numbers), side, side, 3), np.uint8)
        for part, positions, here in self._located(numbers):
            squares[here] = part.squares(positions, side, resize_ratio, threads)
        return squares

    def _crops(self, epoch: int, size: int, numbers: Numbers) -> Images:
        crops = np.empty((len(numbers), size, size, 3), np.uint8)
        drawn = randomness.per_image(
            self.seed, randomness.AUGMENTATION, epoch, torch.from_numpy(numbers), CROP_NUMBERS
        ).tolist()
        for part, positions, here in self._located(numbers):
            for position, place in zip(positions, here, strict=True):
                crops[place] = random_crop(part.split.picture(int(part.indices[position])), drawn[place], size)
        return crops

    def _located(self, numbers: Numbers) -> Iterator[tuple[Subset, Numbers, Numbers]]:
        """(subset, positions in it, positions in `numbers`) of each subset that has some of the images."""
        ends = list(accumulate(len(part) for part in self.parts))
        for part, end in zip(self.parts, ends, strict=True):
            here = np.flatnonzero((numbers >= end - len(part)) & (numbers < end))
            if len(here):
                yield part, numbers[here] - (end - len(part)), here

"""Choose images class by class: a validation split taken from train, and limits on how many images are used.

Choices are functions of labels and seed, and nested: a smaller share or limit chooses a subset of a larger one.
Random numbers are raw Philox output, which numpy promises never to change (NEP 19).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# Purposes of the random numbers, so that choices under one seed are independent of each other.
VALIDATION, LIMIT, TEST, FEW, FEW_IN_TOTAL = 1, 2, 3, 4, 5


def validation_mask(
    labels: NDArray[np.int64], fraction: float, seed: int, *, purpose: int = VALIDATION
) -> NDArray[np.bool_]:
    """Which images to set aside: bool [N], about `fraction` of each class.

    Of a class with n images it takes `fraction`·n, rounded to nearest, but at least 1 and at most n - 1, so that
    every class keeps a training image; of a class with a single image none is set aside. Labels are int64 [N],
    0 < fraction < 1.
    """
    if not 0 < fraction < 1:
        raise ValueError(f"fraction = {fraction}: the share to set aside is between 0 and 1")
    rank, size = _ranks(labels, seed, purpose)
    wanted = np.floor(fraction * size + 0.5)
    mask: NDArray[np.bool_] = rank < np.minimum(np.maximum(wanted, 1), size - 1)
    return mask


def balanced_subset(labels: NDArray[np.int64], limit: int, seed: int) -> NDArray[np.int64]:
    """Indices of at most `limit` images, int64, ascending, spread over the classes as evenly as they allow.

    Classes differ by at most one image, except for those with fewer; which classes get one more is random.
    Raises ValueError for a limit that cannot give every class one image.
    """
    classes = np.unique(labels)
    if limit < len(classes):
        raise ValueError(
            f"{limit} images cannot hold one of each of {len(classes)} classes; use {len(classes)} or more"
        )
    rank, _ = _ranks(labels, seed, LIMIT)
    turn = np.empty(len(classes), np.int64)  # the position of each class within a round of one image per class
    turn[np.argsort(_random(len(classes), seed, LIMIT), kind="stable")] = np.arange(len(classes))
    order = np.lexsort((turn[np.searchsorted(classes, labels)], rank))
    return np.sort(order[:limit])


def few_mask(labels: NDArray[np.int64], images: int, seed: int) -> NDArray[np.bool_]:
    """Which images to use for `images` per class: bool [N]; all of a class that has no more.

    Those for a smaller number are among those for a larger one. Labels are int64 [N]. Raises ValueError where no class
    has so many: that would be all images under another name.
    """
    rank, size = _ranks(labels, seed, FEW)
    if images > size.max(initial=0):
        raise ValueError(
            f"images_per_class = {images}: no class has more than {size.max(initial=0)} training images; write that "
            "many at most, or `all`"
        )
    mask: NDArray[np.bool_] = rank < images
    return mask


def few_in_total_mask(labels: NDArray[np.int64], images: int, seed: int) -> NDArray[np.bool_]:
    """Which images to use for `images` of all classes together: bool [N], drawn from all of them alike.

    Those for a smaller number are among those for a larger one. A class may have none. Labels are int64 [N]. Raises
    ValueError where there are not so many.
    """
    if images > len(labels):
        raise ValueError(
            f"training_images = {images}: there are {len(labels)} training images; write that many at most"
        )
    mask = np.zeros(len(labels), np.bool_)
    mask[np.argsort(_random(len(labels), seed, FEW_IN_TOTAL), kind="stable")[:images]] = True
    return mask


def few_images(
    labels: NDArray[np.int64], per_class: int | None, total: int | None, seed: int
) -> NDArray[np.int64] | None:
    """The images of a limited training set, int64, ascending; None where neither limit is given.

    Raises ValueError as `few_mask` and `few_in_total_mask` do.
    """
    if per_class:
        return np.flatnonzero(few_mask(labels, per_class, seed))
    return np.flatnonzero(few_in_total_mask(labels, total, seed)) if total else None


def _ranks(labels: NDArray[np.int64], seed: int, purpose: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Of each image its random rank within its class (0, 1, …), and the number of images in that class."""
    _, inverse, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    by_class = np.lexsort((_random(len(labels), seed, purpose), inverse))
    rank = np.empty(len(labels), np.int64)
    rank[by_class] = np.arange(len(labels)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return rank, sizes[inverse]


def _random(count: int, seed: int, purpose: int) -> NDArray[np.uint64]:
    key = np.array([seed % 2**64, purpose], np.uint64)  # as a list, numpy would pass large seeds through floats
    return np.random.Philox(key=key).random_raw(count)

"""Augmentation as a function of (seed, epoch, image number).

`resized-crop-flip` crops each image at its stored size, on the CPU (`random_crop`). The other kinds start from square
images of one size and run in batches on their device (`Augmenter`). Colours are changed in batches for all (`Colours`).
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from robust_transfer import randomness
from robust_transfer.configuration.training import Augmentation, Recipe
from robust_transfer.datasets.arrow import Images, Split
from robust_transfer.datasets.resident import square_images

AREA, RATIO, TRIES = (0.08, 1.0), (3 / 4, 4 / 3), 10
"""Of resized crops: share of the area, width over height, and attempts, as in torchvision's RandomResizedCrop."""
CROP_NUMBERS = 1 + 4 * TRIES
"""Random numbers that `random_crop` takes: one for the flip, then area, ratio, top and left of each attempt."""

GREY = (0.2989, 0.587, 0.114)
"""Weights of red, green and blue in a grey level (ITU-R BT.601), as in torchvision."""
ORDERS = tuple(itertools.permutations(range(3)))
"""Orders in which brightness (0), contrast (1) and saturation (2) can be changed."""
# Principal components of ImageNet's colours (Krizhevsky et al. 2012), with the numbers of `Lighting` in the robustness
# library (Engstrom et al. 2019). COMPONENTS has one row each for red, green and blue.
DEVIATIONS = (0.2175, 0.0188, 0.0045)
COMPONENTS = ((-0.5675, 0.7192, 0.4009), (-0.5808, -0.0045, -0.8140), (-0.5836, -0.6948, 0.4203))


def squares_as(augmentation: Augmentation, input_size: int, resize_ratio: float) -> tuple[int, float]:
    """Side and resize ratio of the square images that an Augmenter takes.

    For `square-resized-crop-flip` that is the whole centre square at twice the input's side, since parts of it are
    enlarged; otherwise what the network sees in evaluation, at the input's side.
    """
    return (2 * input_size, 1.0) if augmentation == "square-resized-crop-flip" else (input_size, resize_ratio)


def resident_images(
    split: Split,
    augmentation: Augmentation,
    input_size: int,
    resize_ratio: float,
    *,
    indices: NDArray[np.int64] | None = None,
    threads: int = 1,
) -> Tensor:
    """Decode images of a split as an Augmenter takes them: uint8 [N, side, side, 3].

    Args:
        split: Stored images.
        augmentation: Kind of the Augmenter.
        input_size: Side of the network's input, pixels.
        resize_ratio: Side of the resized image over that of its centre crop.
        indices: Rows of the split, int64 [N]; None takes all.
        threads: Threads that decode.
    """
    side, ratio = squares_as(augmentation, input_size, resize_ratio)
    return torch.from_numpy(square_images(split, side, ratio, indices=indices, threads=threads))


class Augmenter:
    """Augmented batches of images held in memory."""

    def __init__(self, pixels: Tensor, augmentation: Augmentation, input_size: int, seed: int) -> None:
        """Pad the images, where crops may reach beyond them.

        Args:
            pixels: uint8 [N, side, side, 3] from `resident_images`, on the device that batches are to be on.
            augmentation: Any kind but `resized-crop-flip`, which raises ValueError.
            input_size: Side of the network's input, pixels.
            seed: Seed of the augmentation.
        """
        if augmentation == "resized-crop-flip":
            raise ValueError("augmentation resized-crop-flip crops images as they are stored, not squares in memory")
        self._pixels, self._kind, self._size, self._seed = pixels, augmentation, input_size, seed
        # An eighth of the side, as 4 pixels at 32 (He et al. 2016). Padded once, so that a crop is plain indexing.
        self._pad = round(input_size / 8) if augmentation == "crop-flip" else 0
        if self._pad:
            n, side = len(pixels), input_size + 2 * self._pad
            self._pixels = pixels.new_zeros(n, side, side, 3)
            self._pixels[:, self._pad : -self._pad, self._pad : -self._pad] = pixels

    def batch(self, indices: Tensor, epoch: int, *, numbers: Tensor | None = None, size: int | None = None) -> Tensor:
        """Augmented images, float32 [B, 3, size, size] in [0, 1], channels last.

        Args:
            indices: Rows of `pixels`, int64 [B].
            epoch: Epoch, counted from 0.
            numbers: Numbers of the images, int64 [B], which their randomness depends on; by default `indices`.
            size: Side, at most the input's, which is the default; a smaller one is reached by antialiased bilinear
                interpolation.
        """
        size = size or self._size
        if self._kind == "none":
            return resized(as_images(self._pixels[indices]), size)
        named = indices if numbers is None else numbers
        drawn = randomness.per_image(self._seed, randomness.AUGMENTATION, epoch, named, 6)
        flip = drawn[:, 0] < 0.5
        if self._kind == "square-resized-crop-flip":
            return _resized_crops(self._pixels[indices], drawn, flip, size)
        top, left = (drawn[:, 1:3] * (2 * self._pad + 1)).long().unbind(1)
        span = torch.arange(self._size, device=indices.device)
        columns = torch.where(flip[:, None], self._size - 1 - span, span) + left[:, None]
        rows = span + top[:, None]
        images = as_images(self._pixels[indices[:, None, None], rows[:, :, None], columns[:, None, :]])
        return resized(images, size)


class Colours:
    """Colour augmentation of batches: colour jitter, then lighting, as far as the recipe has them."""

    def __init__(self, recipe: Recipe, seed: int) -> None:
        self._jitter, self._lighting, self._seed = recipe.colour_jitter, recipe.lighting, seed

    def changed(self, images: Tensor, numbers: Tensor, epoch: int) -> Tensor:
        """Images with colours changed, float32 [B, 3, H, W] in [0, 1].

        Args:
            images: float32 [B, 3, H, W] in [0, 1].
            numbers: Numbers of the images, int64 [B].
            epoch: Epoch, counted from 0.
        """
        if self._jitter:
            drawn = randomness.per_image(self._seed, randomness.COLOUR, epoch, numbers, 4)
            factors = 1 + self._jitter * (2 * drawn[:, :3] - 1)
            images = jittered(images, factors, (drawn[:, 3] * len(ORDERS)).long())
        if self._lighting:
            drawn = randomness.per_image(self._seed, randomness.LIGHTING, epoch, numbers, 4)
            images = with_lighting(images, self._lighting * randomness.normal(drawn)[:, :3])
        return images


def as_images(pixels: Tensor) -> Tensor:
    """uint8 [B, H, W, 3] to float32 [B, 3, H, W] in [0, 1], channels last."""
    return pixels.permute(0, 3, 1, 2).to(torch.float32).div_(255)


def resized(images: Tensor, size: int) -> Tensor:
    """float32 [B, 3, H, W] in [0, 1] to [B, 3, size, size] by antialiased bilinear interpolation, channels last."""
    if images.shape[2:] == (size, size):
        return images
    smaller = F.interpolate(images, (size, size), mode="bilinear", antialias=True, align_corners=False)
    return smaller.clamp_(0, 1).contiguous(memory_format=torch.channels_last)


def jittered(images: Tensor, factors: Tensor, orders: Tensor) -> Tensor:
    """Images [B, 3, H, W] in [0, 1] with brightness, contrast and saturation times `factors` (float [B, 3]).

    `orders` (int64 [B]) is the index in ORDERS of the order of each image's changes. Each change blends the image with
    black, its mean grey level or its grey version, and clamps to [0, 1], as in torchvision's ColorJitter.
    """
    images = images.contiguous()  # one channel after the other takes about half the time on a CPU
    for change in _constant(ORDERS, torch.int64, images.device)[orders].unbind(1):
        factor = factors.gather(1, change[:, None]).to(images.dtype).view(-1, 1, 1, 1)
        change = change.view(-1, 1, 1, 1)
        red, green, blue = torch.split(images, 1, dim=1)
        grey = (red * GREY[0]).add_(green, alpha=GREY[1]).add_(blue, alpha=GREY[2])
        mean = grey.mean((2, 3), keepdim=True)
        other = grey.mul_((1 - factor) * (change == 2)).add_(mean * ((1 - factor) * (change == 1)))
        images = torch.addcmul(other, images, factor).clamp_(0, 1)
    return images.contiguous(memory_format=torch.channels_last)


def with_lighting(images: Tensor, amounts: Tensor) -> Tensor:
    """Images [B, 3, H, W] in [0, 1] shifted along the principal colours of ImageNet, then clamped.

    `amounts` (float [B, 3]) are in units of these components' standard deviations.
    """
    scaled = amounts * _constant(DEVIATIONS, amounts.dtype, amounts.device)
    shifts = scaled @ _constant(COMPONENTS, amounts.dtype, amounts.device).T
    return (images + shifts.to(images.dtype)[:, :, None, None]).clamp_(0, 1)


@functools.cache
def _constant(values: tuple[Any, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Numbers as a tensor on a device, copied there once: each copy would wait for a GPU."""
    return torch.tensor(values, dtype=dtype, device=device)


def random_crop(picture: Image.Image, numbers: Sequence[float], size: int) -> Images:
    """A random crop of an image, flipped or not, resized to `size`: uint8 RGB [size, size, 3].

    It is cropped before it is resized, as in torchvision, so that pixels outside the crop have no influence.
    `numbers` are CROP_NUMBERS random numbers in [0, 1).
    """
    top, left, height, width = crop_box(picture.height, picture.width, numbers[1:])
    crop = picture.crop((left, top, left + width, top + height))
    pixels = np.asarray(crop.resize((size, size), Image.Resampling.BILINEAR))
    return pixels[:, ::-1] if numbers[0] < 0.5 else pixels


def crop_box(height: int, width: int, numbers: Sequence[float]) -> tuple[int, int, int, int]:
    """(top, left, height, width) in pixels of a random crop, as torchvision's RandomResizedCrop draws it.

    `numbers` are random numbers in [0, 1): area, ratio, top and left of each attempt. If no attempt fits into the
    image, the crop is the largest centred one whose ratio is within RATIO.
    """
    low, high = math.log(RATIO[0]), math.log(RATIO[1])
    for first in range(0, len(numbers), 4):
        area, ratio, top, left = numbers[first : first + 4]
        area = height * width * (AREA[0] + (AREA[1] - AREA[0]) * area)
        ratio = math.exp(low + (high - low) * ratio)
        wide, tall = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < wide <= width and 0 < tall <= height:
            return int(top * (height - tall + 1)), int(left * (width - wide + 1)), tall, wide
    wide, tall = min(width, round(height * RATIO[1])), min(height, round(width / RATIO[0]))
    return (height - tall) // 2, (width - wide) // 2, tall, wide


def _resized_crops(pixels: Tensor, numbers: Tensor, flip: Tensor, size: int) -> Tensor:
    """A random crop of each square image, resized by antialiased bilinear interpolation as two matrix products."""
    side = pixels.shape[1]
    area = side**2 * (AREA[0] + (AREA[1] - AREA[0]) * numbers[:, 1])
    ratio = torch.exp(math.log(RATIO[0]) + (math.log(RATIO[1]) - math.log(RATIO[0])) * numbers[:, 2])
    # A crop wider or higher than the square is cut to its side, where torchvision would draw again up to ten times.
    width, height = (area * ratio).sqrt().clamp_max(side), (area / ratio).sqrt().clamp_max(side)
    left, top = numbers[:, 3] * (side - width), numbers[:, 4] * (side - height)
    across = _resizing(left, width, side, size)
    across = torch.where(flip[:, None, None], across.flip(1), across)
    images = torch.einsum("bih,bhwc->biwc", _resizing(top, height, side, size), pixels.to(torch.float32).div_(255))
    images = torch.einsum("bjw,biwc->bijc", across, images).clamp_(0, 1).permute(0, 3, 1, 2)
    return images.contiguous(memory_format=torch.channels_last)


def _resizing(start: Tensor, length: Tensor, side: int, size: int) -> Tensor:
    """Matrices [B, size, side] that resample the stretch [start, start + length) of `side` pixels to `size` pixels."""
    scale = (length / size)[:, None, None]
    centres = start[:, None, None] + (torch.arange(size, device=start.device)[:, None] + 0.5) * scale
    distance = (torch.arange(side, device=start.device) + 0.5 - centres).abs()
    weights = (1 - distance / scale.clamp_min(1)).clamp_min(0)
    return (weights / weights.sum(2, keepdim=True)).to(torch.float32)

"""The images of a split as squares at the network's input size: all at once, some, or block by block."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from robust_transfer.datasets.arrow import Images, Split

BLOCK = 2048
"""Images in memory at a time, where not all are needed at once: 0.3 GB at 224 pixels."""


def square_images(
    split: Split,
    input_size: int,
    resize_ratio: float,
    *,
    indices: NDArray[np.int64] | None = None,
    threads: int = 1,
) -> Images:
    """The images of a split, or those at `indices`, as squares: uint8 RGB [N, input_size, input_size, 3].

    The short side is resized to round(input_size · resize_ratio), enlarged where it is smaller, by antialiased bilinear
    interpolation; the centre is cropped. The same pixels as torchvision's `Resize` and `CenterCrop` on Pillow images.
    Raises StoreError if an image was altered or cannot be decoded.
    """
    if resize_ratio < 1:
        raise ValueError(f"resize_ratio = {resize_ratio}: below 1 the crop would be larger than the image")
    short = round(input_size * resize_ratio)
    squares = np.empty((len(split) if indices is None else len(indices), input_size, input_size, 3), np.uint8)
    if split.shape is not None and min(split.shape) == short:
        top, left = crop_origin(split.shape, input_size)
        window = np.s_[top : top + input_size, left : left + input_size]
        if indices is not None:
            for position, index in enumerate(indices):
                squares[position] = split.image(int(index))[window]
            return squares
        start = 0
        for stack in split.stacks():
            squares[start : start + len(stack)] = stack[:, *window]
            start += len(stack)
        return squares

    def place(position: int) -> None:
        index = position if indices is None else int(indices[position])
        squares[position] = square(split.picture(index), input_size, short)

    if threads == 1:
        for position in range(len(squares)):
            place(position)
    else:  # Pillow releases the GIL while it decodes and resizes
        with ThreadPoolExecutor(threads) as pool:
            for _ in pool.map(place, range(len(squares))):
                pass
    return squares


def square_blocks(
    split: Split, input_size: int, resize_ratio: float, *, indices: NDArray[np.int64] | None = None, threads: int = 1
) -> Iterator[tuple[slice, Images]]:
    """`square_images` in blocks, each with its positions: at 224 pixels ImageNet's 50,000 test images are 7.5 GB."""
    rows = np.arange(len(split)) if indices is None else indices
    for start in range(0, len(rows), BLOCK):
        here = slice(start, min(start + BLOCK, len(rows)))
        yield here, square_images(split, input_size, resize_ratio, indices=rows[here], threads=threads)


def square(picture: Image.Image, input_size: int, short: int) -> Images:
    """One image, short side resized to `short`, then cropped in the centre: uint8 [input_size, input_size, 3]."""
    size = resized_shape(picture.height, picture.width, short)
    top, left = crop_origin(size, input_size)
    if size != (picture.height, picture.width):
        picture = picture.resize((size[1], size[0]), Image.Resampling.BILINEAR)
    return np.asarray(picture.crop((left, top, left + input_size, top + input_size)))


def resized_shape(height: int, width: int, short: int) -> tuple[int, int]:
    """(height, width) once the short side is `short` pixels; the long side is rounded down, as torchvision does."""
    if height <= width:
        return short, int(short * width / height)
    return int(short * height / width), short


def crop_origin(size: tuple[int, int], input_size: int) -> tuple[int, int]:
    """(top, left) of the centre crop; halves are rounded to even, as torchvision does."""
    return round((size[0] - input_size) / 2), round((size[1] - input_size) / 2)

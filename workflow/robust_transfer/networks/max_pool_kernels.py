"""Kernels of `max_pool`, in Triton, which comes with torch for GPUs; to be imported only where they run."""

# mypy: disable-error-code="no-untyped-def,untyped-decorator,import-untyped"

import triton
import triton.language as tl


@triton.jit
def forward(
    x, y, places, height, width, rows, columns, channels, total,
    SIDE: tl.constexpr, STRIDE: tl.constexpr, PADDING: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Outputs and their places, of BLOCK values in the order batch, row, column, channel."""
    output = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = output < total
    channel, position = output % channels, output // channels
    column, row = position % columns, position // columns % rows
    image = position // columns // rows
    largest = tl.full((BLOCK,), float("-inf"), tl.float32)
    place = tl.full((BLOCK,), -1, tl.int32)
    for down in tl.static_range(SIDE):
        for right in tl.static_range(SIDE):
            i, j = row * STRIDE - PADDING + down, column * STRIDE - PADDING + right
            present = inside & (i >= 0) & (i < height) & (j >= 0) & (j < width)
            value = tl.load(x + ((image * height + i) * width + j) * channels + channel, mask=present, other=0)
            value = value.to(tl.float32)
            larger = present & ((value > largest) | (value != value) | (place < 0))
            largest = tl.where(larger, value, largest)
            place = tl.where(larger, down * SIDE + right, place)
    tl.store(y + output, largest.to(y.dtype.element_ty), mask=inside)
    tl.store(places + output, place.to(tl.uint8), mask=inside)


@triton.jit
def backward(
    gradient, places, spread, height, width, rows, columns, channels, total,
    SIDE: tl.constexpr, STRIDE: tl.constexpr, PADDING: tl.constexpr, REACH: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Sums of the gradients of outputs whose largest value a pixel is, of BLOCK values in the same order."""
    pixel = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = pixel < total
    channel, position = pixel % channels, pixel // channels
    j, i = position % width, position // width % height
    image = position // width // height
    summed = tl.zeros((BLOCK,), tl.float32)
    for up in tl.static_range(REACH):
        for left in tl.static_range(REACH):
            row = (i + PADDING) // STRIDE - (REACH - 1 - up)
            column = (j + PADDING) // STRIDE - (REACH - 1 - left)
            down, right = i + PADDING - row * STRIDE, j + PADDING - column * STRIDE
            covers = inside & (row >= 0) & (row < rows) & (column >= 0) & (column < columns)
            covers = covers & (down < SIDE) & (right < SIDE)
            output = ((image * rows + row) * columns + column) * channels + channel
            place = tl.load(places + output, mask=covers, other=255).to(tl.int32)
            given = tl.load(gradient + output, mask=covers, other=0).to(tl.float32)
            summed += tl.where(covers & (place == down * SIDE + right), given, 0.0)
    tl.store(spread + pixel, summed.to(spread.dtype.element_ty), mask=inside)

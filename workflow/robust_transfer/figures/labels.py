"""What figures, tables and the summary call architectures, and how they write numbers."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from robust_transfer.figures.estimates import Estimate

_KNOWN = {
    "wide_resnet50_2": "WRN-50-2",
    "wide_resnet50_4": "WRN-50-4",
    "wide_resnet101_2": "WRN-101-2",
    "resnext50_32x4d": "ResNeXt-50",
    "mnasnet1_0": "MNASNet",
    "mobilenet_v2": "MobileNet-v2",
    "shufflenet_v2_x1_0": "ShuffleNet-v2",
    "vgg16_bn": "VGG-16-BN",
    "best": "best",
}


def architecture_label(name: str) -> str:
    """An architecture as papers write it: `ResNet-50`, `WRN-50-2`; `ResNet-8 w16` has 8 layers, the first 16 wide."""
    if name in _KNOWN:
        return _KNOWN[name]
    if small := re.fullmatch(r"resnet(\d+)_w(\d+)", name):
        return f"ResNet-{small[1]} w{small[2]}"
    if plain := re.fullmatch(r"(resnet|densenet|vgg)(\d+)", name):
        return {"resnet": "ResNet", "densenet": "DenseNet", "vgg": "VGG"}[plain[1]] + f"-{plain[2]}"
    return name


def difference_text(row: Estimate) -> str:
    """A paired difference in percentage points with its interval, if it has one."""
    return f"{signed(row.value)} {signed_interval(row)}".rstrip()


def signed_interval(row: Estimate) -> str:
    """The interval of a difference in percentage points; empty where it has none."""
    return "" if math.isnan(row.ci_low) else f"[{signed(row.ci_low)}, {signed(row.ci_high)}]"


def signed(number: float, decimals: int = 1) -> str:
    """A number, such as percentage points, with its sign; what is 0 at these decimals has none."""
    text = f"{number:+.{decimals}f}"
    return text.replace("-", "−") if text[1:].strip("0.") else text[1:]

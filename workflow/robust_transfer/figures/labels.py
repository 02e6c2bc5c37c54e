"""What figures, tables and the summary call architectures, and how they write numbers."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
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
    if name.endswith("_cifar"):
        return f"{architecture_label(name.removesuffix('_cifar'))} (CIFAR)"
    if plain := re.fullmatch(r"(resnet|densenet|vgg)(\d+)", name):
        return {"resnet": "ResNet", "densenet": "DenseNet", "vgg": "VGG"}[plain[1]] + f"-{plain[2]}"
    return name


def network_label(
    architecture: str, recipe: str, texture_robust: Mapping[str, str], *, with_recipe: bool = False
) -> str:
    """An architecture, and what the experiment calls a texture-robust recipe; another recipe only `with_recipe`."""
    said = texture_robust.get(recipe, recipe if with_recipe else "")
    return ", ".join(filter(None, (architecture_label(architecture), said)))


def p_text(p: float) -> str:
    """A p-value to two digits; what is below 0.0001 is said to be so."""
    return f"{p:.2g}" if p >= 1e-4 else "< 0.0001"


def rounded_up(number: int) -> int:
    """To two digits, upwards, as how many seeds or images would decide is known no better."""
    unit = int(10 ** max(0, len(str(number)) - 2))
    return -(-number // unit) * unit


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

"""Which architectures exist. Needs no torch, so that a configuration can be checked before any job starts."""

from __future__ import annotations

import difflib
import re

SMALL_RESNET = re.compile(r"resnet(\d+)_w(\d+)")

# torchvision's classification networks whose last layer is linear (the squeezenets' is a convolution), and
# wide_resnet50_4, which the paper adds to them. A test holds this equal to what the installed torchvision offers.
_CATALOGUE = """
    alexnet convnext_base convnext_large convnext_small convnext_tiny densenet121 densenet161 densenet169 densenet201
    efficientnet_b0 efficientnet_b1 efficientnet_b2 efficientnet_b3 efficientnet_b4 efficientnet_b5 efficientnet_b6
    efficientnet_b7 efficientnet_v2_l efficientnet_v2_m efficientnet_v2_s googlenet inception_v3 maxvit_t mnasnet0_5
    mnasnet0_75 mnasnet1_0 mnasnet1_3 mobilenet_v2 mobilenet_v3_large mobilenet_v3_small regnet_x_16gf regnet_x_1_6gf
    regnet_x_32gf regnet_x_3_2gf regnet_x_400mf regnet_x_800mf regnet_x_8gf regnet_y_128gf regnet_y_16gf
    regnet_y_1_6gf regnet_y_32gf regnet_y_3_2gf regnet_y_400mf regnet_y_800mf regnet_y_8gf resnet101 resnet152 resnet18
    resnet34 resnet50 resnext101_32x8d resnext101_64x4d resnext50_32x4d shufflenet_v2_x0_5 shufflenet_v2_x1_0
    shufflenet_v2_x1_5 shufflenet_v2_x2_0 swin_b swin_s swin_t swin_v2_b swin_v2_s swin_v2_t vgg11 vgg11_bn vgg13
    vgg13_bn vgg16 vgg16_bn vgg19 vgg19_bn vit_b_16 vit_b_32 vit_h_14 vit_l_16 vit_l_32 wide_resnet101_2
    wide_resnet50_2 wide_resnet50_4
"""
CATALOGUE = tuple(_CATALOGUE.split())


def small_resnet(architecture: str) -> tuple[int, int] | None:
    """Depth and width of a small CIFAR-style ResNet such as `resnet8_w16`; None if the name is not of that form."""
    match = SMALL_RESNET.fullmatch(architecture)
    return (int(match[1]), int(match[2])) if match else None


def check_architecture(architecture: str) -> None:
    """Raise ValueError, with a near name and all that exist, for an architecture that cannot be built."""
    if small := small_resnet(architecture):
        depth, width = small
        if depth < 8 or depth % 6 != 2:
            near = " or ".join(f"resnet{6 * n + 2}_w{width}" for n in _near_blocks(depth))
            raise ValueError(f"{architecture}: a small ResNet has 6n + 2 layers (8, 14, 20, …); did you mean {near}?")
        if width < 1:
            raise ValueError(f"{architecture}: a width is at least 1; did you mean resnet{depth}_w16?")
        return
    if architecture not in CATALOGUE:
        near = ", ".join(difflib.get_close_matches(architecture, [*CATALOGUE, "resnet8_w16", "resnet20_w16"], n=3))
        raise ValueError(
            f"{architecture}: no such architecture{f'; did you mean {near}?' if near else '.'} There are small ResNets "
            f"by depth 6n + 2 and width (resnet8_w16, resnet20_w32, …), and {', '.join(CATALOGUE)}"
        )


def _near_blocks(depth: int) -> list[int]:
    below = max((depth - 2) // 6, 1)
    return [below, below + 1]

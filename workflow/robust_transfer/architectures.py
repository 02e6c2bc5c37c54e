"""Which architectures exist. Needs no torch, so that a configuration can be checked before any job starts."""

from __future__ import annotations

import difflib
import functools
import importlib.util
import re
from pathlib import Path

TIMM = "timm_"
"""What the names of timm's networks begin with here."""
SMALL_RESNET = re.compile(r"resnet(\d+)_w(\d+)")
WIDE_RESNET = re.compile(r"wrn(\d+)_(\d+)(_swish)?")
LONGEST = 100
"""Characters of a name; timm's are shorter, and the names of entries hold one."""
DEEPEST, WIDEST = 1202, 1024
"""Layers of the deepest ResNet of He et al. (2016), and a width at which the last layers have 4096 channels."""

# torchvision's classification networks whose last layer is linear (the squeezenets' is a convolution), and
# wide_resnet50_4, which the paper adds to them.
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
CIFAR = "_cifar"
"""What the names of ResNets for small images end with."""
CIFAR_RESNETS = ("resnet18_cifar", "resnet34_cifar", "resnet50_cifar")
"""torchvision's ResNets with a stem for images of about 32 pixels: a 3×3 convolution at stride 1, and no pooling."""
CATALOGUE = (*_CATALOGUE.split(), *CIFAR_RESNETS)
"""Architectures with a name of their own; a test holds all but `wide_resnet50_4` and CIFAR_RESNETS equal to what the
installed torchvision offers."""


def small_resnet(architecture: str) -> tuple[int, int] | None:
    """Depth and width of a small CIFAR-style ResNet such as `resnet8_w16`; None if the name is not of that form."""
    match = SMALL_RESNET.fullmatch(architecture)
    return (int(match[1]), int(match[2])) if match else None


def wide_resnet(architecture: str) -> tuple[int, int, bool] | None:
    """Depth, width and whether it has swish, of a Wide ResNet such as `wrn28_10` or `wrn28_10_swish`; None if the name
    is not of that form."""
    match = WIDE_RESNET.fullmatch(architecture)
    return (int(match[1]), int(match[2]), bool(match[3])) if match else None


def timm_name(architecture: str) -> str | None:
    """timm's own name of `timm_resnet10t`, which is `resnet10t`; None if it is not of that form."""
    return architecture.removeprefix(TIMM) if architecture.startswith(TIMM) else None


@functools.cache
def timm_catalogue() -> tuple[str, ...]:
    """What timm calls its networks, with tags of weights (`resnet10t.c3_in1k`) too; empty where it is not installed.

    Read from timm's files, since importing it imports torch (50 ms, where the import takes 7 s of processor time). A
    test holds the names equal to what timm itself lists.
    """
    found = importlib.util.find_spec("timm")
    if found is None or found.origin is None:
        return ()
    text = "\n".join(path.read_text() for path in Path(found.origin).parent.glob("models/*.py"))
    names = set(re.findall(r"^@register_model\n(?:@.*\n)*def (\w+)\(", text, re.MULTILINE))
    tagged = {name for name in re.findall(r"""['"](\w+\.[\w-]+)['"]\s*:""", text) if name.partition(".")[0] in names}
    return tuple(sorted(names | tagged))


def check_architecture(architecture: str) -> None:
    """Raise ValueError, with a near name and all that exist, for an architecture that cannot be built."""
    if len(architecture) > LONGEST:
        raise ValueError(f"no such architecture: no name of one has more than {LONGEST} characters")
    if name := timm_name(architecture):
        _check_timm(architecture, name)
        return
    if small := small_resnet(architecture):
        depth, width = small
        if architecture != f"resnet{depth}_w{width}":
            raise ValueError(f"{architecture}: zeros before a number make another name; write resnet{depth}_w{width}")
        if depth > DEEPEST or width > WIDEST:
            raise ValueError(f"{architecture}: a small ResNet has at most {DEEPEST} layers and width {WIDEST}")
        if depth < 8 or depth % 6 != 2:
            near = " or ".join(f"resnet{6 * n + 2}_w{width}" for n in _near_blocks(depth))
            raise ValueError(f"{architecture}: a small ResNet has 6n + 2 layers (8, 14, 20, …); did you mean {near}?")
        if width < 1:
            raise ValueError(f"{architecture}: a width is at least 1; did you mean resnet{depth}_w16?")
        return
    if wide := wide_resnet(architecture):
        _check_wide_resnet(architecture, *wide)
        return
    if architecture not in CATALOGUE:
        near = ", ".join(
            difflib.get_close_matches(architecture, [*CATALOGUE, "resnet8_w16", "resnet20_w16", "wrn28_10"], n=3)
        )
        if near:
            raise ValueError(f"{architecture}: no such architecture; did you mean {near}?")
        raise ValueError(
            f"{architecture}: no such architecture. There are small ResNets by depth 6n + 2 and width (resnet8_w16, "
            f"resnet20_w32, …), Wide ResNets by depth 6n + 4 and width (wrn28_10, wrn28_10_swish, …), and "
            f"{', '.join(_families())}, as torchvision calls its own; "
            f"with timm installed, all of its own as {TIMM}<name>"
        )


def _families() -> list[str]:
    """torchvision's names by what they begin with: `alexnet`, `convnext_…`."""
    grouped: dict[str, list[str]] = {}
    for name in CATALOGUE:
        grouped.setdefault(re.split(r"[_\d]", name)[0], []).append(name)
    return [names[0] if len(names) == 1 else f"{family}…" for family, names in grouped.items()]


def _check_wide_resnet(architecture: str, depth: int, width: int, swish: bool) -> None:
    plain = f"wrn{depth}_{width}{'_swish' * swish}"
    if architecture != plain:
        raise ValueError(f"{architecture}: zeros before a number make another name; write {plain}")
    if depth > DEEPEST or not 1 <= width <= WIDEST // 16:
        raise ValueError(
            f"{architecture}: a Wide ResNet has at most {DEEPEST} layers and a width of 1 to {WIDEST // 16}"
        )
    if depth < 10 or depth % 6 != 4:
        raise ValueError(f"{architecture}: a Wide ResNet has 6n + 4 layers (10, 16, 22, 28, 34, 40, …)")


def _check_timm(architecture: str, name: str) -> None:
    names = timm_catalogue()
    if not names:
        raise ValueError(f"{architecture}: the library timm is not installed: run `make setup EXTRAS=timm`")
    if name not in names:
        near = ", ".join(TIMM + other for other in difflib.get_close_matches(name, names, n=3))
        raise ValueError(
            f"{architecture}: timm has no network {name}{f'; did you mean {near}?' if near else '.'} "
            "All are in timm.list_models()"
        )


def _near_blocks(depth: int) -> list[int]:
    below = max((depth - 2) // 6, 1)
    return [below, below + 1]

"""State dicts as other programs lay them out, by the names and in the shapes that networks have here.

Names are those of the programs' files. What depends on the size of images, position embeddings and tables of relative
positions, is interpolated by the library that the network is from, as that does itself for another size.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from robust_transfer.architectures import timm_name, wide_resnet
from robust_transfer.configuration.sides import PATCHES
from robust_transfer.networks.build import Network

POSITIONS = "encoder.pos_embedding"
"""Position embeddings of torchvision's ViTs [1, 1 + patches, D], the class token's first."""

# Wide ResNets: those of TRADES and most others, and those of Gowal et al. (2020) and what followed them.
_BLOCK = re.compile(r"(?:block([123])\.layer|layer\.([012])\.block)\.(\d+)\.(.+)")
_IN_BLOCKS = {
    "bn1": "norm1", "bn2": "norm2", "convShortcut": "shortcut",
    "batchnorm_0": "norm1", "batchnorm_1": "norm2", "conv_0": "conv1", "conv_1": "conv2",
}  # fmt: skip
_AROUND_BLOCKS = {
    "conv1": "stem", "bn1": "norm", "fc": "head",
    "init_conv": "stem", "batchnorm": "norm", "logits": "head",
}  # fmt: skip
_PATCHES = "patch_embed.proj.weight"
_BY_PLACE = re.compile(r"pos_embed|relative_position")  # others change their shape where timm calls a layer otherwise
_UNUSED = "sub_block1."  # a stage that TRADES builds, saves, and does not use


def by_todays_names(state: Mapping[str, Tensor], network: Network) -> tuple[dict[str, Tensor], list[str]]:
    """A state dict by the names of the network's library today, and which weights were interpolated.

    A state dict that is of another network comes back as it is, or in part: comparing it with the network tells.
    """
    if any(name.startswith("body.") for name in state):
        return dict(state), []
    if found := wide_resnet(network.architecture):
        depth, _, _ = found
        return _wide_resnet(state, (depth - 4) // 6), []
    if network.architecture in PATCHES:
        renamed = _torchvision_vit(state, network)
    elif timm_name(network.architecture):
        renamed = _timm(state, network)
    else:
        return dict(state), []
    resized = [
        f"{name} from {_sizes(state[name])} to {_sizes(one)}"
        for name, one in renamed.items()
        if name in state and one.shape != state[name].shape and _BY_PLACE.search(name)
    ]
    return renamed, resized


def _wide_resnet(state: Mapping[str, Tensor], blocks_of_stage: int) -> dict[str, Tensor]:
    renamed = {}
    for name, tensor in state.items():
        if name.startswith(_UNUSED):
            continue
        if inside := _BLOCK.fullmatch(name):
            stage = int(inside[1]) - 1 if inside[1] else int(inside[2])
            layer, dot, rest = inside[4].partition(".")
            block = stage * blocks_of_stage + int(inside[3])
            renamed[f"blocks.{block}.{_IN_BLOCKS.get(layer, layer)}{dot}{rest}"] = tensor
        else:
            layer, dot, rest = name.partition(".")
            renamed[_AROUND_BLOCKS.get(layer, layer) + dot + rest] = tensor
    return renamed


def _torchvision_vit(state: Mapping[str, Tensor], network: Network) -> dict[str, Tensor]:
    from torchvision.models.vision_transformer import interpolate_embeddings

    body: Any = network.body
    ours, theirs = body.encoder.pos_embedding, state.get(POSITIONS)
    if theirs is None or theirs.ndim != 3 or theirs.shape == ours.shape or theirs.shape[::2] != ours.shape[::2]:
        return dict(state)
    if theirs.shape[1] - 1 != int((theirs.shape[1] - 1) ** 0.5) ** 2 or theirs.shape[1] < 2:
        return dict(state)
    # In float32, since CPUs lack bicubic interpolation of others.
    wanted = {**state, POSITIONS: theirs.float()}
    return dict(interpolate_embeddings(body.image_size, body.patch_size, wanted))


def _timm(state: Mapping[str, Tensor], network: Network) -> dict[str, Tensor]:
    """By timm's own function for files of older versions and of other sizes, where the network's module has one."""
    body: Any = network.body
    converted = getattr(sys.modules[type(body).__module__], "checkpoint_filter_fn", None)
    patches = [one[_PATCHES].shape for one in (state, body.state_dict()) if _PATCHES in one]
    if converted is None or len({*patches}) > 1:  # of other patches it would make patches of ours
        return dict(state)
    try:
        found: dict[str, Tensor] = dict(converted(dict(state), body))
    except (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError):
        return dict(state)  # of another network: comparing says what differs
    return found if all(isinstance(one, Tensor) for one in found.values()) else dict(state)


def _sizes(tensor: Tensor) -> str:
    return "×".join(map(str, tensor.shape))

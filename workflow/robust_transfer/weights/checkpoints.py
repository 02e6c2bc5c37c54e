"""Networks from published checkpoints: those of the paper's authors, of torchvision and timm, and any state dict.

The released checkpoints were written by the robustness library: a dict {model, optimizer, schedule, epoch, …} whose
`model` has the weights under `module.model.` (or `module.model.model.`, for architectures that are not the library's
own), the normalisation under `module.normalizer.`, and a second copy of all under `module.attacker.`. Older files, and
those of Geirhos et al. (2019) for Stylized-ImageNet, have `state_dict` in place of `model`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from robust_transfer.architectures import CIFAR_RESNETS, small_resnet, timm_name, wide_resnet
from robust_transfer.networks.build import Network, build
from robust_transfer.store.entry import sha256
from robust_transfer.weights.layouts import by_todays_names
from robust_transfer.weights.pickles import Checkpoint, CheckpointError, read_checkpoint, shown
from robust_transfer.weights.state_dicts import Unwrapped, find_state, listed, unwrapped

ACCURACIES = ("nat_prec1", "adv_prec1", "best_prec1")
GLOBALS = 50
"""Names of functions and classes in a file that its card lists at most; genuine files have a dozen."""
PAPERS = (
    "resnet18", "resnet50", "wide_resnet50_2", "wide_resnet50_4", "densenet161", "mnasnet1_0", "mobilenet_v2",
    "resnext50_32x4d", "shufflenet_v2_x1_0", "vgg16_bn",
)  # fmt: skip
"""Architectures of the released checkpoints, of which an error suggests the one that fits a file."""

# Auxiliary heads of torchvision's training, which our networks are built without.
_AUXILIARY = {"googlenet": ("aux1.", "aux2."), "inception_v3": ("AuxLogits.",)}
_COUNTER = "num_batches_tracked"  # a buffer of BatchNorm since torch 0.4.1, of no effect here
_DOTTED = re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12])\.")  # names in DenseNets up to torchvision 0.2.0


_CIFAR_NAMES = re.compile(r"\b(?:linear|shortcut)\b")
"""Names in the CIFAR ResNets of the library robustness, and of others that have them from kuangliu/pytorch-cifar."""


@dataclass(frozen=True)
class Imported:
    """A network from a checkpoint."""

    network: Network
    """On the CPU, in eval mode, in float32."""
    facts: dict[str, Any]
    """JSON values: the file's format, size, checksum, and the epoch and accuracies recorded in it."""


def load_published(
    path: Path, architecture: str, classes: int | None, *, input_size: int, key: str | None = None
) -> Imported:
    """The network of a checkpoint file; nothing in the file is executed.

    The file must have exactly the weights of `architecture`, by torchvision's, timm's or this package's names, in any
    floating dtype of two bytes or more; BatchNorm's counters may be missing. `classes` is the number of outputs; None
    is that of the file. `key` says which weights where the file has several (`find_state`). A normalisation in the file
    becomes the network's, else ImageNet's stays: what torchvision offers as googlenet and inception_v3, and others for
    some networks, was trained with another. Position embeddings are interpolated to `input_size`. Needs memory for the
    file, or twice the network.

    Raises CheckpointError, which names what is missing, unexpected, of another shape or not finite, and ValueError for
    an architecture that does not exist.
    """
    checkpoint = read_checkpoint(path)
    found = find_state(checkpoint, path, key)
    facts = _facts(checkpoint, path) | {"key": found.key, "averaged": found.averaged, "others": list(found.others)}
    del checkpoint  # and with it the optimiser's state, as large as the network
    plain = unwrapped(found.state, path)
    del found
    with torch.device("cpu"):
        network = build(architecture, classes or 1, input_size=input_size)
    state, facts["interpolated"] = by_todays_names(plain.state, network)
    weights = _by_our_names(state, network)
    if classes is None:
        _fit_head(network, weights.get("head.weight"), path)
    normalisation = _normalisation(plain, path)
    if normalisation:
        weights |= {"normalise.mean": normalisation[0], "normalise.std": normalisation[1]}
    _fill(network, weights, plain.state, path, classes_known=classes is not None)
    facts["wrapper"] = plain.wrapper
    facts["averaged"] = facts["averaged"] or plain.averaged
    facts["normalisation"] = (
        None
        if not normalisation
        else {name: tensor.flatten().tolist() for name, tensor in zip(("mean", "std"), normalisation, strict=True)}
    )
    return Imported(network.eval(), facts)


def _fit_head(network: Network, head: Tensor | None, path: Path) -> None:
    """Give the network as many outputs as the file's head has, if that is one of this architecture."""
    if head is None or head.ndim != 2 or head.shape[1] != network.head.in_features:
        return  # `_fill` says what is wrong with it; a number of classes taken from it could ask for any memory
    if not len(head):
        raise CheckpointError(f"{path}: its head.weight is {list(head.shape)}: a network of no classes")
    network.replace_head(len(head))


def _by_our_names(state: dict[str, Tensor], network: Network) -> dict[str, Tensor]:
    """Rename the weights to those of our Network: `head.…` for the last layer, `body.…` for the others."""
    if small_resnet(network.architecture) or any(name.startswith("body.") for name in state):
        return state
    if network.architecture in CIFAR_RESNETS:
        state = {_CIFAR_NAMES.sub(_torchvisions, name): tensor for name, tensor in state.items()}
    head = head_path(network) + "."
    left_out = _AUXILIARY.get(network.architecture, ())
    renamed = {}
    for name, tensor in state.items():
        if name.startswith(head):
            renamed["head." + name.removeprefix(head)] = tensor
        elif not name.startswith(left_out):
            renamed["body." + _DOTTED.sub(r"\1\2.", name)] = tensor
    return renamed


def _torchvisions(found: re.Match[str]) -> str:
    return {"linear": "fc", "shortcut": "downsample"}[found[0]]


def head_path(network: Network) -> str:
    """The name of a network's last layer in its own library: `fc`, `classifier.6`, `head.fc`, …; `head` in ours.

    Raises ValueError for a network of timm that has no such layer, or two.
    """
    if small_resnet(network.architecture) or wide_resnet(network.architecture):
        return "head"
    if name := timm_name(network.architecture):
        import timm

        head: object = getattr(timm.get_pretrained_cfg(name), "classifier", None)
        if not isinstance(head, str):
            raise ValueError(f"{network.architecture}: timm has {head!r} as its last layer, where one is needed")
        return head
    paths: list[str] = [path for path, layer in network.body.named_modules() if isinstance(layer, nn.Identity)]
    return paths[-1]  # which build put in its place


def _fill(
    network: Network, weights: dict[str, Tensor], state: dict[str, Tensor], path: Path, *, classes_known: bool
) -> None:
    """Copy `weights` into the network; `state` has them by their names in the file, for a suggestion on errors."""
    expected = network.state_dict()
    given = weights.keys() | {n for n in expected if n.startswith("normalise.") or n.endswith(_COUNTER)}
    differing = [
        [f"{name} is missing" for name in expected if name not in given],
        [f"{shown(name)} is unexpected" for name in weights if name not in expected],
        [text for name in expected if name in weights for text in _difference(name, weights[name], expected[name])],
    ]
    if any(differing):
        of = f" with {network.classes} classes" * classes_known
        what = f"not the weights of {network.architecture}{of}"
        kinds = "; ".join(listed(of_kind, 3) for of_kind in differing if of_kind)
        raise CheckpointError(f"{path}: {what}: {kinds}{_suggestion(network, weights, state)}")
    for name, tensor in expected.items():  # load_state_dict of MNASNets requires a version that files do not have
        if name in weights:
            _refuse_impossible(name, weights[name], path)
            tensor.copy_(weights[name])
            if not tensor.isfinite().all():
                raise CheckpointError(
                    f"{path}: {name} has values that {tensor.dtype} cannot hold".replace("torch.", "")
                )
        elif name.endswith(_COUNTER):
            tensor.zero_()


def _difference(name: str, theirs: Tensor, ours: Tensor) -> list[str]:
    """What is wrong with a weight's shape or dtype: a text, or none."""
    dtype = str(theirs.dtype).removeprefix("torch.")
    if theirs.shape != ours.shape:
        return [f"{name} is {list(theirs.shape)} where the network has {list(ours.shape)}"]
    if theirs.dtype.is_floating_point != ours.dtype.is_floating_point:
        return [f"{name} is {dtype} where the network has {str(ours.dtype).removeprefix('torch.')}"]
    if theirs.dtype.is_floating_point and theirs.dtype.itemsize < 2:
        return [f"{name} is {dtype}, of quantised weights whose scales are elsewhere: save them as float32 or bfloat16"]
    return []


def _refuse_impossible(name: str, tensor: Tensor, path: Path) -> None:
    """Raise CheckpointError for values that no network has: not finite, or a negative variance."""
    finite = tensor.isfinite()
    if not finite.all():
        wrong = tensor[~finite].flatten()
        raise CheckpointError(
            f"{path}: {name} has {len(wrong)} values of {tensor.numel()} that are not finite ({wrong[0].item()}): its "
            "training diverged, or the file was damaged; take an earlier checkpoint, or fetch it again"
        )
    if name.endswith("running_var") and (tensor < 0).any():
        raise CheckpointError(
            f"{path}: {name} has {int((tensor < 0).sum())} negative values of {tensor.numel()} "
            f"({tensor.min().item():.3g}), and it is a variance: the file was damaged or altered; fetch it again"
        )


def _suggestion(network: Network, weights: dict[str, Tensor], state: dict[str, Tensor]) -> str:
    """The end of an error's message: the number of classes or the architecture that fits the file, if any."""
    head = weights.get("head.weight")
    fits = _body(weights) == _body(network.state_dict())
    if fits and head is not None and head.ndim == 2 and 0 < len(head) != network.classes:
        return f". The network in the file has {len(head)} classes, not {network.classes}"
    if fits:
        return ""
    for architecture in PAPERS:
        with torch.device("meta"):
            other = build(architecture, 1)
        if _body(_by_our_names(state, other)) == _body(other.state_dict()):
            return f". They would fit {architecture}"
    return ""


def _body(state: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """Shapes of all weights but normalisation, counters and head, by which architectures are told apart."""
    return {
        name: tuple(tensor.shape)
        for name, tensor in state.items()
        if not name.startswith(("normalise.", "head.")) and not name.endswith(_COUNTER)
    }


def _normalisation(plain: Unwrapped, path: Path) -> tuple[Tensor, Tensor] | None:
    """Mean and std as float32 [1, 3, 1, 1]; None where the file has none."""
    if plain.mean is None or plain.std is None:
        return None
    for name, tensor in (("mean", plain.mean), ("std", plain.std)):
        if (
            tensor.numel() != 3
            or tensor.dtype.is_complex
            or not tensor.isfinite().all()
            or (name == "std" and not (tensor > 0).all())
        ):
            raise CheckpointError(
                f"{path}: its normalisation has a {name} of shape {list(tensor.shape)} that is not three finite "
                f"{'positive ' * (name == 'std')}numbers"
            )
    if not ((plain.mean >= 0) & (plain.mean <= 1)).all():
        mean = ", ".join(f"{value:g}" for value in plain.mean.flatten().tolist())
        raise CheckpointError(
            f"{path}: its normalisation has the mean {mean}, where images are in [0, 1]; divide its mean and std by "
            "255 if its images were in 0 to 255"
        )
    return plain.mean.reshape(1, 3, 1, 1).float(), plain.std.reshape(1, 3, 1, 1).float()


def _facts(checkpoint: Checkpoint, path: Path) -> dict[str, Any]:
    content = checkpoint.content if isinstance(checkpoint.content, dict) else {}
    epoch, met = _number(content.get("epoch")), list(checkpoint.globals_met)
    return {
        "format": checkpoint.format,
        "bytes": path.stat().st_size,
        "sha256": sha256(path),
        "globals_met": met[:GLOBALS] + [f"and {len(met) - GLOBALS} more"] * (len(met) > GLOBALS),
        "epoch": None if epoch is None else int(epoch),
        **{name: _number(content.get(name)) for name in ACCURACIES},
    }


def _number(value: Any) -> float | None:
    """A finite number, also of a tensor that holds one; None for anything else."""
    if isinstance(value, Tensor) and value.numel() == 1 and not value.dtype.is_complex:
        value = value.item()
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None

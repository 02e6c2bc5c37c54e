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

from robust_transfer.architectures import small_resnet, timm_name
from robust_transfer.networks.build import Network, build
from robust_transfer.store.entry import sha256
from robust_transfer.weights.pickles import Checkpoint, CheckpointError, Placeholder, read_checkpoint

STATE_KEYS = ("model", "state_dict")
ACCURACIES = ("nat_prec1", "adv_prec1", "best_prec1")
PAPERS = (
    "resnet18", "resnet50", "wide_resnet50_2", "wide_resnet50_4", "densenet161", "mnasnet1_0", "mobilenet_v2",
    "resnext50_32x4d", "shufflenet_v2_x1_0", "vgg16_bn",
)  # fmt: skip
"""Architectures of the released checkpoints, of which an error suggests the one that fits a file."""

_MEANS, _STDS = (("normalizer.new_mean", "normalise.mean"), ("normalizer.new_std", "normalise.std"))
# Auxiliary heads of torchvision's training, which our networks are built without.
_AUXILIARY = {"googlenet": ("aux1.", "aux2."), "inception_v3": ("AuxLogits.",)}
_COUNTER = "num_batches_tracked"  # a buffer of BatchNorm since torch 0.4.1, of no effect here
_DOTTED = re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12])\.")  # names in DenseNets up to torchvision 0.2.0


@dataclass(frozen=True)
class Unwrapped:
    """A state dict by its network's own names, without the prefixes of the modules that wrapped it in training."""

    state: dict[str, Tensor]
    wrapper: str
    """The prefix that was removed: `module.model.`, …"""
    mean: Tensor | None
    std: Tensor | None


@dataclass(frozen=True)
class Imported:
    """A network from a checkpoint."""

    network: Network
    """On the CPU, in eval mode, in float32."""
    facts: dict[str, Any]
    """JSON values: the file's format, size, checksum, and the epoch and accuracies recorded in it."""


def load_published(path: Path, architecture: str, classes: int | None, *, input_size: int) -> Imported:
    """The network of a checkpoint file; nothing in the file is executed.

    The file must have exactly the weights of `architecture`, by torchvision's, timm's or this package's names, in any
    floating dtype; BatchNorm's counters may be missing. `classes` is the number of outputs; None is that of the file.
    A normalisation in the file becomes the network's, else ImageNet's stays: what torchvision offers as googlenet and
    inception_v3, and timm for some networks, was trained with another. Needs memory for the file, or twice the network.

    Raises CheckpointError, which names what is missing, unexpected or of another shape, and ValueError for an
    architecture that does not exist.
    """
    checkpoint = read_checkpoint(path)
    state, key = find_state(checkpoint, path)
    facts = _facts(checkpoint, path) | {"key": key}
    del checkpoint  # and with it the optimiser's state, as large as the network
    plain = unwrapped(state, path)
    del state
    with torch.device("cpu"):
        network = build(architecture, classes or 1, input_size=input_size)
    weights = _by_our_names(plain.state, network)
    head = weights.get("head.weight")
    if classes is None and head is not None and head.ndim == 2:
        network.replace_head(len(head))
    normalisation = _normalisation(plain, path)
    if normalisation:
        weights |= {"normalise.mean": normalisation[0], "normalise.std": normalisation[1]}
    _fill(network, weights, plain.state, path)
    facts["wrapper"] = plain.wrapper
    facts["normalisation"] = (
        None
        if not normalisation
        else {name: tensor.flatten().tolist() for name, tensor in zip(("mean", "std"), normalisation, strict=True)}
    )
    return Imported(network.eval(), facts)


def find_state(checkpoint: Checkpoint, path: Path) -> tuple[dict[str, Tensor], str]:
    """The state dict in a file's content, and its key: `model`, `state_dict`, or `file` if it is all of the content.

    Raises CheckpointError if there is none, or if it holds anything but tensors; other keys are ignored.
    """
    content = checkpoint.content
    if isinstance(content, Placeholder):
        raise CheckpointError(f"{path}: {_object(content.name)}")
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: holds a {type(content).__name__}, where a dict of weights is needed")
    for key in STATE_KEYS:
        state = content.get(key)
        if isinstance(state, Placeholder):
            raise CheckpointError(f"{path}: {key!r} {_object(state.name)}")
        if isinstance(state, dict):
            return _tensors(state, f"{path}: {key!r}"), key
    if not any(isinstance(value, Tensor) for value in content.values()):
        raise CheckpointError(
            f"{path}: no weights in it: neither {' nor '.join(map(repr, STATE_KEYS))} nor tensors by name, but "
            f"{_listed([ascii(key) for key in content]) or 'nothing'}"
        )
    return _tensors(content, f"{path}:"), "file"


def _tensors(state: Mapping[Any, Any], where: str) -> dict[str, Tensor]:
    for name, value in state.items():
        if isinstance(name, Placeholder) or isinstance(value, Placeholder):
            culprit = name if isinstance(name, Placeholder) else value
            raise CheckpointError(
                f"{where} has {culprit.name} among its weights ({ascii(name)[:80]}), which is not executed; save a "
                "state_dict() of tensors alone"
            )
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise CheckpointError(f"{where} has a {type(value).__name__} named {ascii(name)[:80]} among its weights")
    return dict(state)


def _object(name: str) -> str:
    return f"is an object of {name}, which is not executed; save its state_dict() instead of the whole network"


def unwrapped(state: Mapping[str, Tensor], path: Path) -> Unwrapped:
    """Remove the prefixes `module.` and `model.` (once or twice), and the second copy of the weights under `attacker.`.

    Mean and std [3, 1, 1] are those of a `normalizer`, if there is one.
    """
    weights, wrapper = dict(state), ""
    weights, wrapper = _without("module.", weights, wrapper, path)
    weights = {name: tensor for name, tensor in weights.items() if not name.startswith("attacker.")}
    means = [weights.pop(name) for name in _MEANS if name in weights]
    stds = [weights.pop(name) for name in _STDS if name in weights]
    for _ in range(2):
        weights, wrapper = _without("model.", weights, wrapper, path)
    return Unwrapped(weights, wrapper, *(tensors[0] if tensors else None for tensors in (means, stds)))


def _without(prefix: str, state: dict[str, Tensor], wrapper: str, path: Path) -> tuple[dict[str, Tensor], str]:
    if not any(name.startswith(prefix) for name in state):
        return state, wrapper
    renamed = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
    if len(renamed) != len(state):
        raise CheckpointError(
            f"{path}: has weights both as {prefix}<name> and as <name>; which of them to use is unclear"
        )
    return renamed, wrapper + prefix


def _by_our_names(state: dict[str, Tensor], network: Network) -> dict[str, Tensor]:
    """Rename the weights to those of our Network: `head.…` for the last layer, `body.…` for the others."""
    if small_resnet(network.architecture) or any(name.startswith("body.") for name in state):
        return state
    head = head_path(network) + "."
    left_out = _AUXILIARY.get(network.architecture, ())
    renamed = {}
    for name, tensor in state.items():
        if name.startswith(head):
            renamed["head." + name.removeprefix(head)] = tensor
        elif not name.startswith(left_out):
            renamed["body." + _DOTTED.sub(r"\1\2.", name)] = tensor
    return renamed


def head_path(network: Network) -> str:
    """The name of a network's last layer in its own library: `fc`, `classifier.6`, `head.fc`, …; `head` in ours.

    Raises ValueError for a network of timm that has no such layer, or two.
    """
    if small_resnet(network.architecture):
        return "head"
    if name := timm_name(network.architecture):
        import timm

        head: object = getattr(timm.get_pretrained_cfg(name), "classifier", None)
        if not isinstance(head, str):
            raise ValueError(f"{network.architecture}: timm has {head!r} as its last layer, where one is needed")
        return head
    paths: list[str] = [path for path, layer in network.body.named_modules() if isinstance(layer, nn.Identity)]
    return paths[-1]  # which build put in its place


def _fill(network: Network, weights: dict[str, Tensor], state: dict[str, Tensor], path: Path) -> None:
    """Copy `weights` into the network; `state` has them by their names in the file, for a suggestion on errors."""
    expected = network.state_dict()
    given = weights.keys() | {n for n in expected if n.startswith("normalise.") or n.endswith(_COUNTER)}
    differing = [f"{name} is missing" for name in expected if name not in given]
    differing += [f"{name} is unexpected" for name in weights if name not in expected]
    for name in weights.keys() & expected.keys():
        theirs, ours = weights[name], expected[name]
        if theirs.shape != ours.shape:
            differing.append(f"{name} is {list(theirs.shape)} where the network has {list(ours.shape)}")
        elif theirs.dtype.is_floating_point != ours.dtype.is_floating_point:
            differing.append(f"{name} is {theirs.dtype} where the network has {ours.dtype}".replace("torch.", ""))
    if differing:
        what = f"not the weights of {network.architecture} with {network.classes} classes"
        raise CheckpointError(f"{path}: {what}: {_listed(differing)}{_suggestion(network, weights, state)}")
    for name, tensor in expected.items():  # load_state_dict of MNASNets requires a version that files do not have
        if name in weights:
            tensor.copy_(weights[name])
        elif name.endswith(_COUNTER):
            tensor.zero_()


def _suggestion(network: Network, weights: dict[str, Tensor], state: dict[str, Tensor]) -> str:
    """The end of an error's message: the number of classes or the architecture that fits the file, if any."""
    head = weights.get("head.weight")
    if head is not None and _body(weights) == _body(network.state_dict()):
        return f". The network in the file has {len(head)} classes, not {network.classes}"
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
        if tensor.numel() != 3 or not tensor.isfinite().all() or (name == "std" and not (tensor > 0).all()):
            raise CheckpointError(
                f"{path}: its normalisation has a {name} of shape {list(tensor.shape)} that is not three finite "
                f"{'positive ' * (name == 'std')}numbers"
            )
    return plain.mean.reshape(1, 3, 1, 1).float(), plain.std.reshape(1, 3, 1, 1).float()


def _facts(checkpoint: Checkpoint, path: Path) -> dict[str, Any]:
    content = checkpoint.content if isinstance(checkpoint.content, dict) else {}
    epoch = _number(content.get("epoch"))
    return {
        "format": checkpoint.format,
        "bytes": path.stat().st_size,
        "sha256": sha256(path),
        "globals_met": list(checkpoint.globals_met),
        "epoch": None if epoch is None else int(epoch),
        **{name: _number(content.get(name)) for name in ACCURACIES},
    }


def _number(value: Any) -> float | None:
    """A finite number, also of a tensor that holds one; None for anything else."""
    if isinstance(value, Tensor) and value.numel() == 1 and not value.dtype.is_complex:
        value = value.item()
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _listed(what: list[str]) -> str:
    return "; ".join(what[:5]) + (f"; and {len(what) - 5} more" if len(what) > 5 else "")

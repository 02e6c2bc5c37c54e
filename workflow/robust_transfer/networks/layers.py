"""Layers by name: what a network computes on its way to the features, averaged over places to a vector for each image.

    python -m robust_transfer layers resnet18 --input-size 64

Any named part of a network's body is a layer if it gives, for each image, a vector [C], a map [C, H, W] or, as Swin
transformers have it, [H, W, C], or tokens [T, C], a class token among them. Means are taken over H and W, or over T. Of
a part that is used several times, as ReLUs in residual blocks are, the last time counts.

Which axis of a map is the channels' is read off its shape, since images are squares. Where a map has as many channels
as it has rows, twice the image tells: channels stay as many.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from robust_transfer.networks.build import Network, build

Activations = Callable[[Tensor], Tensor]
"""Images float [N, 3, S, S] in [0, 1] to float32 [N, D]."""

_PROBE = 3  # images with which shapes are found out


class LayerError(ValueError):
    """A layer that a network does not have, or images that it cannot take; the message names what there is."""


@dataclass(frozen=True)
class Layer:
    """A named part of a network's body."""

    name: str
    dimension: int
    """Numbers it gives for an image, once averaged."""
    places: tuple[int, ...]
    """Axes of its output that are averaged over."""
    calls: int
    """How often a forward pass uses it."""


@dataclass
class _Output:
    shape: tuple[int, ...] | None
    """None for what is not a tensor."""
    calls: int


def outline(architecture: str, input_size: int) -> Network:
    """A network in eval mode that has shapes and no numbers, and so takes neither memory nor time."""
    try:
        with torch.device("meta"):
            return build(architecture, 2, input_size=input_size).eval()
    except NotImplementedError:  # RegNets compute their widths by tensors, so these need numbers
        return build(architecture, 2).eval()


def layers(network: Network, input_size: int) -> dict[str, Layer]:
    """The layers of a network in eval mode, by name, in the order in which a forward pass first leaves them.

    Raises LayerError if the network cannot take images of that size.
    """
    try:
        outputs = _outputs(network, input_size)
    except (RuntimeError, ValueError, AssertionError) as error:
        reason = str(error).partition("\n")[0]
        raise LayerError(f"{network.architecture} cannot take images of {input_size} px: {reason}") from error
    try:
        larger = _outputs(network, 2 * input_size) if any(_unclear(output.shape) for output in outputs.values()) else {}
    except (RuntimeError, ValueError, AssertionError):  # it is built for one size
        larger = {}
    found = {}
    for name, output in outputs.items():
        places = _places(output.shape, larger[name].shape if name in larger else None)
        if output.shape is not None and places is not None:
            [dimension] = [n for axis, n in enumerate(output.shape) if axis and axis not in places]
            found[name] = Layer(name, dimension, places, output.calls)
    return found


def layer_named(network: Network, name: str, input_size: int) -> Layer:
    """One layer; raises LayerError, with near names, if there is none of that name."""
    known = layers(network, input_size)
    if name in known:
        return known[name]
    which = f"features.layer = {name}: {network.architecture} at {input_size} px has"
    near = ", ".join(difflib.get_close_matches(name, known, n=3))
    what = "that, but no output of it that is one for each image" if _has(network, name) else "no such layer"
    raise LayerError(
        f"{which} {what}{f'; did you mean {near}?' if near else '.'} `python -m robust_transfer layers "
        f"{network.architecture} --input-size {input_size}` lists all {len(known)}"
    )


def check_layer(architecture: str, input_size: int, layer: str | None) -> None:
    """Raise LayerError if a network cannot take images of that size, or has no layer of that name."""
    network = outline(architecture, input_size)
    if layer is None:
        layers(network, input_size)
    else:
        layer_named(network, layer, input_size)


def activations(network: Network, layer: Layer | None) -> Activations:
    """What gives a layer's activations, or with None what the head sees. The network is in eval mode."""
    return _Reader(network, layer) if layer else lambda images: network.features(images).float()


class _Reader:
    """Runs a network as far as a layer. What comes after it may write into its output, and is not needed."""

    def __init__(self, network: Network, layer: Layer) -> None:
        self._network, self._layer, self._used = network, layer, 0
        network.body.get_submodule(layer.name).register_forward_hook(self._leave)

    def __call__(self, images: Tensor) -> Tensor:
        self._used = 0
        try:
            self._network.features(images)
        except _Reached as reached:
            return reached.activations
        raise LayerError(f"{self._network.architecture}: {self._layer.name} was used {self._used} times, not as before")

    def _leave(self, module: nn.Module, inputs: Any, output: Tensor) -> None:
        self._used += 1
        if self._used == self._layer.calls:
            raise _Reached(output.float().mean(self._layer.places) if self._layer.places else output.float())


class _Reached(Exception):  # noqa: N818, it is no error
    def __init__(self, activations: Tensor) -> None:
        super().__init__()
        self.activations = activations


def _outputs(network: Network, side: int) -> dict[str, _Output]:
    found: dict[str, _Output] = {}

    def seen(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def see(module: nn.Module, inputs: Any, output: Any) -> None:
            before = found.get(name)
            shape = tuple(output.shape) if isinstance(output, Tensor) else None
            found[name] = _Output(shape, before.calls + 1 if before else 1)

        return see

    hooks = [module.register_forward_hook(seen(name)) for name, module in network.body.named_modules() if name]
    try:
        with torch.no_grad():
            network.features(torch.zeros(_PROBE, 3, side, side, device=network.head.weight.device))
    finally:
        for hook in hooks:
            hook.remove()
    return found


def _unclear(shape: tuple[int, ...] | None) -> bool:
    return shape is not None and len(shape) == 4 and len(set(shape[1:])) == 1


def _places(shape: tuple[int, ...] | None, larger: tuple[int, ...] | None) -> tuple[int, ...] | None:
    """The axes to average over; None for what is not an output for each image, or cannot be told."""
    if shape is None or shape[:1] != (_PROBE,):
        return None
    if len(shape) in (2, 3):
        return (1,)[: len(shape) - 2]
    if len(shape) != 4:
        return None
    told = larger if _unclear(shape) and larger else shape
    if told[2] == told[3] and (told[1] != told[2] or told[1] == 1):
        return (2, 3)
    return (1, 2) if told[1] == told[2] != told[3] else None


def _has(network: Network, name: str) -> bool:
    return name in dict(network.body.named_modules())

"""Layers by name: the outputs of a network's modules, averaged over positions to one vector per image.

    python -m robust_transfer layers resnet18 --input-size 64

Any named module of a network's body is a layer if its output has, for each image, a vector [C], a map [C, H, W] or, in
Swin transformers, [H, W, C], or tokens [T, C], the class token included. Means are taken over H and W, or over T. For a
module that is called several times, as ReLUs in residual blocks are, the last call counts.

The channel axis of a map is recognised by its size, since images are squares. Where a map has as many channels as rows,
the network is also run at twice the input size, which leaves the number of channels unchanged.
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

_PROBE = 3  # images in the batch by which shapes are determined: a size that other axes rarely have


class LayerError(ValueError):
    """A network lacks the layer, or cannot take images of the size; the message names its layers."""


@dataclass(frozen=True)
class Layer:
    """A named module of a network's body."""

    name: str
    dimension: int
    """Length of an image's vector, once averaged."""
    places: tuple[int, ...]
    """Axes of its output that are averaged over."""
    calls: int
    """How often a forward pass calls it."""


@dataclass
class _Output:
    shape: tuple[int, ...] | None
    """None for what is not a tensor."""
    calls: int


def outline(architecture: str, input_size: int) -> Network:
    """A network in eval mode on the meta device: shapes without values, which take neither memory nor time."""
    try:
        with torch.device("meta"):
            return build(architecture, 2, input_size=input_size).eval()
    except NotImplementedError:  # RegNets compute their widths by tensors, which need values
        return build(architecture, 2).eval()


def layers(network: Network, input_size: int) -> dict[str, Layer]:
    """The layers of a network in eval mode, by name, in the order in which a forward pass first completes them.

    Raises LayerError if the network cannot take images of that size.
    """
    try:
        outputs = _outputs(network, input_size)
    except (RuntimeError, ValueError, AssertionError) as error:
        reason = str(error).partition("\n")[0]
        raise LayerError(f"{network.architecture} cannot take images of {input_size} px: {reason}") from error
    try:
        larger = _outputs(network, 2 * input_size) if any(_unclear(output.shape) for output in outputs.values()) else {}
    except (RuntimeError, ValueError, AssertionError):  # the network is built for one size
        larger = {}
    known = {}
    for name, output in outputs.items():
        places = _places(output.shape, larger[name].shape if name in larger else None)
        if output.shape is not None and places is not None:
            [dimension] = [n for axis, n in enumerate(output.shape) if axis and axis not in places]
            known[name] = Layer(name, dimension, places, output.calls)
    return known


def layer_named(network: Network, name: str, input_size: int) -> Layer:
    """One layer; raises LayerError, with near names, if there is none of that name."""
    known = layers(network, input_size)
    if name in known:
        return known[name]
    which = f"features.layer = {name}: {network.architecture} at {input_size} px has"
    near = ", ".join(difflib.get_close_matches(name, known, n=3))
    what = "that, but no output of it that is one for each image" if _has(network, name) else "no such layer"
    raise LayerError(
        f"{which} {what}{f'; did you mean {near}?' if near else '.'} `robust-transfer layers "
        f"{network.architecture} --input-size {input_size}` lists all {len(known)}"
    )


def check_layer(architecture: str, input_size: int, layer: str | None) -> None:
    """Raise LayerError if a network cannot take images of that size, or has no layer of that name."""
    try:
        network = outline(architecture, input_size)
    except ValueError as error:
        raise LayerError(str(error)) from error
    if layer is None:
        layers(network, input_size)
    else:
        layer_named(network, layer, input_size)


def activations(network: Network, layer: Layer | None) -> Activations:
    """Maps images to a layer's activations, or with None to the head's input; for a network in eval mode."""
    return _Reader(network, layer) if layer else lambda images: network.features(images).float()


class _Reader:
    """Runs a network up to a layer. Later modules are not needed, and may overwrite its output."""

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
    outputs: dict[str, _Output] = {}

    def seen(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def see(module: nn.Module, inputs: Any, output: Any) -> None:
            before = outputs.get(name)
            shape = tuple(output.shape) if isinstance(output, Tensor) else None
            outputs[name] = _Output(shape, before.calls + 1 if before else 1)

        return see

    hooks = [module.register_forward_hook(seen(name)) for name, module in network.body.named_modules() if name]
    try:
        with torch.no_grad():
            network.features(torch.zeros(_PROBE, 3, side, side, device=network.head.weight.device))
    finally:
        for hook in hooks:
            hook.remove()
    return outputs


def _unclear(shape: tuple[int, ...] | None) -> bool:
    return shape is not None and len(shape) == 4 and len(set(shape[1:])) == 1


def _places(shape: tuple[int, ...] | None, larger: tuple[int, ...] | None) -> tuple[int, ...] | None:
    """The axes to average over; None where an output is not one per image, or its channel axis is unknown."""
    if shape is None or shape[:1] != (_PROBE,):
        return None
    if len(shape) in (2, 3):
        return (1,)[: len(shape) - 2]
    if len(shape) != 4:
        return None
    clear = larger if _unclear(shape) and larger else shape
    if clear[2] == clear[3] and (clear[1] != clear[2] or clear[1] == 1):
        return (2, 3)
    return (1, 2) if clear[1] == clear[2] != clear[3] else None


def _has(network: Network, name: str) -> bool:
    return name in dict(network.body.named_modules())

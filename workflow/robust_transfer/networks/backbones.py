"""Weights of backbones: safetensors files that describe themselves and are checked when they are loaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from robust_transfer.networks.build import Network, build
from robust_transfer.store.entry import Entry, StoreError, open_entry, write_bytes

WEIGHTS = "weights.safetensors"
_KEY = "backbone"  # one key: with several, safetensors writes them in an order that changes from run to run


def save_weights(path: Path, network: Network, facts: dict[str, Any]) -> None:
    """Write all parameters and buffers in their own dtype, and `facts` (JSON values) as metadata.

    `facts` has at least architecture, classes (names, in the order of the outputs) and input_size. Equal weights and
    facts give the same file, bit for bit.
    """
    from safetensors.torch import save

    state = {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}
    write_bytes(path, save(state, {_KEY: json.dumps(facts, sort_keys=True, ensure_ascii=False)}))


def read_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors by name, and the facts written with them; raises StoreError if there are none."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if _KEY not in metadata:
                raise StoreError(f"{path}: no {_KEY!r} in its metadata; it was not written by this software")
            facts: dict[str, Any] = json.loads(metadata[_KEY])
            return {name: file.get_tensor(name) for name in file.keys()}, facts  # noqa: SIM118
    except SafetensorError as error:
        raise StoreError(f"{path}: not a readable safetensors file ({error})") from None


def load_backbone(entry: Entry | str | Path) -> Network:
    """The trained network of a finished backbone entry, or of that in a folder: on the CPU, in eval mode, in float32.

    It maps images float [N, 3, H, W] in [0, 1] to logits [N, classes], and by its method `features` to the head's input
    [N, D]; the normalisation is part of it. The folder is `store/pretraining/<entry>` or `store/importing/<entry>`.
    Raises StoreError, naming what differs, if the file is not the one its card describes, or if architecture, classes
    or shapes of the weights are not those of the network that the card names.
    """
    if not isinstance(entry, Entry):
        entry = open_entry(Path(entry))
    path, card = entry.file(WEIGHTS), entry.facts()
    state, facts = read_weights(path)
    for fact in ("architecture", "classes", "input_size"):
        if facts[fact] != card[fact]:
            raise StoreError(f"{path}: {fact} {_short(facts[fact])} where the card says {_short(card[fact])}")
    with torch.device("cpu"):
        network = build(card["architecture"], len(card["classes"]), input_size=card["input_size"])
    expected = network.state_dict()
    differing = [
        f"{name} is {_shape(state.get(name))} where {card['architecture']} has {_shape(expected.get(name))}"
        for name in sorted(state.keys() | expected.keys())
        if _shape(state.get(name)) != _shape(expected.get(name))
    ]
    if differing:
        more = f", and {len(differing) - 5} more" if len(differing) > 5 else ""
        raise StoreError(f"{path}: {'; '.join(differing[:5])}{more}")
    for name, tensor in expected.items():  # load_state_dict of MNASNets requires a version that files do not have
        tensor.copy_(state[name])
    return network.eval()


def _shape(tensor: Tensor | None) -> str:
    return "missing" if tensor is None else f"{tensor.dtype} {list(tensor.shape)}".removeprefix("torch.")


def _short(value: Any) -> str:
    text = f"{len(value)} names: {', '.join(map(str, value))}" if isinstance(value, list) else str(value)
    return text if len(text) <= 80 else text[:77] + "…"

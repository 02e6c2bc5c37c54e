"""Backbones in a store, made from networks at hand instead of by pretraining."""

from pathlib import Path
from typing import Any

from robust_transfer.networks.backbones import save_weights
from robust_transfer.networks.build import Network
from robust_transfer.store.entry import Entry, open_entry

from support.prepared_datasets import new_entry


def stored_backbone(root: Path, network: Network, **facts: Any) -> Entry:
    """A finished pretraining entry with a network's weights.

    Args:
        root: Folder of the store.
        network: Whose weights it has.
        facts: What its card says beside the architecture: by default classes "0", "1", ... as many as the network has
            outputs, an input size of 16 pixels, and standard training (no norm, eps 0).
    """
    entry = new_entry(root, "pretraining", {})
    write_backbone(entry, network, **facts)
    return open_entry(entry.path)


def write_backbone(entry: Entry, network: Network, **facts: Any) -> None:
    """Write, or overwrite, the outputs of a pretraining entry as `stored_backbone` does."""
    facts = {
        "architecture": network.architecture,
        "classes": [str(number) for number in range(network.classes)],
        "input_size": 16,
        "norm": None,
        "eps": "0",
        **facts,
    }
    with entry.writing() as draft:
        save_weights(draft.file("weights.safetensors"), network, facts)
        draft.facts = facts

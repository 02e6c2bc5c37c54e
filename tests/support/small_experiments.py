"""The experiment that tests of the workflow run: a network of a few weights, on tens of generated images."""

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

ARCHITECTURE = "resnet8_w4"


def part(eps: Sequence[float], modes: Sequence[str] = ("fixed-feature",), **more: object) -> dict[str, object]:
    """A part of its grid."""
    return {"architectures": [ARCHITECTURE], "eps": list(eps), "modes": list(modes), **more}


def small(
    grid: Sequence[Mapping[str, object]], *, train: int = 64, draw: Sequence[str] = ("headline",), **sections: object
) -> str:
    """The experiment as YAML.

    Args:
        grid: Its parts.
        train: Training images of the source.
        draw: Its figures.
        sections: More sections of the configuration, or others.
    """
    origins = {"objects": {"train": train, "test": 40}, "coarse": {"train": 40, "test": 40}}
    settings: dict[str, Any] = {
        "extends": "default",
        "experiment": "small",
        "datasets": {name: {"origin": {"kind": "shapes", "task": name, **of}} for name, of in origins.items()},
        "targets": ["coarse"],
        "cue_conflict": None,
        "grid": list(map(dict, grid)),
        "pretraining": {"training": {"epochs": 1, "batch_size": 32}, "attack": {"steps": 1}},
        "evaluation": {"eps": [0.5], "attack": {"steps": 1}},
        "finetuning": {"learning_rates": [0.01], "training": {"epochs": 1, "batch_size": 32}},
        "figures": {"fixed_eps": 0.5, "widths": [], "bootstrap": 100, "draw": list(draw)},
    }
    return yaml.safe_dump(settings | sections)

"""An experiment with every stage that computes on a GPU, as small as it can be."""

from typing import Any

from robust_transfer.registry import STAGES

ATTACK = {"steps": 2, "random_start": True}
TRAINING = {"epochs": 1, "batch_size": 32, "precision": "bf16"}
ROBUST = {"architectures": ["resnet8_w4"], "eps": [0.5]}
EXPERIMENT: dict[str, Any] = {
    "experiment": "emulated",
    "input_size": 16,
    "datasets": {
        "objects": {
            "origin": {"kind": "shapes", "task": "objects", "train": 128, "test": 40, "side": 16, "classes": 12}
        },
        "coarse": {"origin": {"kind": "shapes", "task": "coarse", "train": 64, "test": 40, "side": 16}},
        "again": {"origin": {"kind": "shapes", "task": "coarse", "train": 10, "test": 20, "side": 16}},
    },
    "source": "objects",
    "targets": ["coarse"],
    "grid": [
        {**ROBUST, "modes": ["fixed-feature"], "protocols": ["frozen", "paper"], "gallery": True, "robustness": True},
        {**ROBUST, "modes": ["full-network"], "source_views": ["stylized"]},
    ],
    "pretraining": {"training": TRAINING | {"batchnorm_group": 16, "average_decay": 0.5}, "attack": ATTACK},
    "stylizing": {"method": "phase"},
    "evaluation": {"eps": [0.5], "attack": ATTACK},
    "cue_conflict": {"images": {"kind": "shapes", "images": 40}},
    "gallery": {
        "images": 8,
        "inversion": {"steps": 5, "step_size": 0.1},
        "visualisation": {"steps": 5, "step_size": 0.1},
    },
    "features": {"precision": "bf16"},
    "linear_heads": {"learning_rates": [0.1], "training": TRAINING},
    "finetuning": {"learning_rates": [0.01], "training": TRAINING},
    "robustness": {"eps": [0.5], "images": 20},
    "also_test_on": {"coarse": [{"dataset": "again"}]},
    "figures": {"draw": ["headline"]},
}
"""All stages on a network of a few weights and tens of images of 16 pixels."""
ON_GPU = [name for name, stage in STAGES.items() if stage.uses_gpu]

"""What a step of adversarial training may launch on a GPU and wait for, counted on emulated CUDA.

Small networks are bound by launches, each of which takes the host some microseconds, and a copy that blocks lets the
GPU run out of work. The numbers are those of the locked versions of torch and torchvision. Whoever brings one down
lowers its budget; whoever raises one says why.
"""

import json
from typing import Any

import pytest
from robust_transfer.configuration.running import VARIABLE
from support.emulation import needs_emulation, output, start

pytestmark = needs_emulation

CASES: dict[str, dict[str, Any]] = {
    "resnet18 at 32 px, bf16, images held on the GPU": {
        "architecture": "resnet18",
        "side": 32,
        "recipe": {"batch_size": 4, "precision": "bf16", "augmentation": "crop-flip"},
        "attack": {"steps": 3},
    },
    "resnet50 at 224 px, fp32, two groups, images read as needed": {
        "architecture": "resnet50",
        "side": 224,
        "recipe": {"batch_size": 4, "batchnorm_group": 2, "precision": "fp32", "augmentation": "resized-crop-flip"},
        "attack": {"steps": 3, "use_best": True},
    },
}
RESNET18, RESNET50 = CASES


@pytest.mark.parametrize(
    ("case", "graphs", "launches", "recorded", "blocking"),
    [(RESNET18, True, 694, 63, 0), pytest.param(RESNET50, False, 3040, 3040, 0, marks=pytest.mark.faults)],
)
def test_a_step_stays_within_its_budget(case: str, graphs: bool, launches: int, recorded: int, blocking: int) -> None:
    told = {VARIABLE: json.dumps({"cuda_graphs": graphs})}
    counted = json.loads(output(start("-m", "emulated_cuda.steps", json.dumps(CASES[case]), variables=told)))
    assert sum(counted["blocking"].values()) == blocking, counted["blocking"]
    assert sum(counted["launches"].values()) == launches, counted["launches"]
    assert sum(counted["recorded"].values()) == recorded, counted["recorded"]

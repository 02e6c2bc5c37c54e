"""The emulation itself: what it refuses, and what it counts."""

import json

import pytest
from support.emulation import needs_emulation, output, start

pytestmark = needs_emulation

CODE = """
import json
import torch
from emulated_cuda.operators import DeviceMismatchError, Emulation

def refused(call, error):
    try:
        call()
    except error as said:
        return str(said)
    return ""

found = {}
with Emulation() as emulated:
    x = torch.arange(6.0).reshape(2, 3)
    pinned, gpu, other = x.pin_memory(), x.to("cuda"), x.to("cuda:1")
    found["devices"] = [refused(lambda: gpu + one, DeviceMismatchError) for one in (x, other)]
    found["sum"] = (gpu @ gpu.T + torch.tensor(1.0)).tolist()

    def blocked(call):
        before = emulated.blocking.total()
        call()
        return emulated.blocking.total() - before

    found["blocking"] = {
        "to the GPU": blocked(lambda: x.to("cuda")),
        "to the GPU, not pinned": blocked(lambda: x.to("cuda", non_blocking=True)),
        "to the GPU, pinned": blocked(lambda: pinned.to("cuda", non_blocking=True)),
        "into a tensor, pinned": blocked(lambda: gpu.copy_(pinned, non_blocking=True)),
        "to the host": blocked(lambda: gpu.cpu()),
        "a list of numbers": blocked(lambda: torch.tensor([1.0, 2.0], device="cuda")),
        "a number": blocked(lambda: float(gpu.sum())),
        "indices of the host": blocked(lambda: gpu[torch.tensor([1])]),
        "a mask": blocked(lambda: gpu[gpu > 2]),
        "nothing": blocked(lambda: (gpu * 2).relu().sum()),
    }
found["native"] = refused(lambda: gpu + 1, RuntimeError)
found["launches"] = {name: emulated.launches[f"aten.{name}"] for name in ("mm.default", "relu.default", "t.default")}
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def found() -> dict[str, object]:
    counted: dict[str, object] = json.loads(output(start("-c", CODE, gpus=2)))
    return counted


def test_results_are_the_cpus(found: dict[str, object]) -> None:
    assert found["sum"] == [[6.0, 15.0], [15.0, 51.0]]


def test_tensors_on_two_devices_are_refused(found: dict[str, list[str]]) -> None:
    for said in found["devices"]:
        assert "Expected all tensors to be on the same device" in said


def test_an_operator_that_is_not_emulated_is_an_error(found: dict[str, str]) -> None:
    assert "emulated CUDA runs no kernels" in found["native"]


def test_what_blocks_is_counted(found: dict[str, dict[str, int]]) -> None:
    assert found["blocking"] == {
        "to the GPU": 1,
        "to the GPU, not pinned": 1,
        "to the GPU, pinned": 0,
        "into a tensor, pinned": 0,
        "to the host": 1,
        "a list of numbers": 1,
        "a number": 1,
        "indices of the host": 1,
        "a mask": 1,
        "nothing": 0,
    }


def test_views_are_no_launches(found: dict[str, dict[str, int]]) -> None:
    assert found["launches"] == {"mm.default": 1, "relu.default": 1, "t.default": 0}

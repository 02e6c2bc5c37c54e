"""Device settings on the CPU: threads, names, precision and peak memory."""

import platform
import sys
from pathlib import Path

import pytest
import torch
from robust_transfer.machine.devices import autocast, device_name, peak_memory_mb, prepare


@pytest.fixture(autouse=True)
def same_threads():
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def test_prepare_sets_the_number_of_threads_and_returns_the_device():
    assert prepare("cpu", 2, "fp32") == torch.device("cpu")
    assert torch.get_num_threads() == 2
    prepare("cpu", 1, "fp32")
    assert torch.get_num_threads() == 1


@pytest.fixture
def gpu_settings():
    products, convolutions = torch.backends.cuda.matmul, torch.backends.cudnn
    before = products.allow_tf32, convolutions.allow_tf32, convolutions.benchmark
    yield
    products.allow_tf32, convolutions.allow_tf32, convolutions.benchmark = before


@pytest.mark.usefixtures("gpu_settings")
@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16"])
def test_a_gpu_may_use_tf32_under_that_precision_alone_from_the_first_batch_on(precision):
    """Not first under autocast: images are augmented before, in float32."""
    is_allowed = precision == "tf32"
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = not is_allowed
    prepare("cuda", 1, precision)
    assert (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32) == (is_allowed, is_allowed)


def test_a_processor_is_named_by_its_architecture():
    assert device_name("cpu") == f"cpu {platform.machine()}"


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_matrix_products_are_computed_in_the_precision_that_was_asked_for(precision, dtype):
    with autocast(precision, torch.device("cpu")):
        assert (torch.ones(2, 3) @ torch.ones(3, 2)).dtype == dtype


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_peak_memory_is_in_mebibytes():
    peak = peak_memory_mb(torch.device("cpu"))
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    assert peak == pytest.approx(int(status["VmHWM"].split()[0]) / 1024, rel=0.02)

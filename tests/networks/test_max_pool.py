"""Max pooling by the project's own kernels: on the CPU by Triton's interpreter, beside torch's."""

import importlib.util
import logging

import pytest
import torch
import torch.nn.functional as F
from robust_transfer.networks import max_pool
from robust_transfer.networks.build import build
from robust_transfer.networks.max_pool import MaxPool2d, replace_max_pools
from support.processes import output
from torch import nn

CASES = [
    ((2, 3, 9, 11), (3, 2, 1)),
    ((1, 4, 13, 10), (2, 2, 0)),
    ((2, 5, 8, 8), (3, 1, 1)),
    ((1, 2, 17, 17), (5, 3, 2)),
]
"""Shapes, and side, stride and padding of windows."""


def maps(shape: tuple[int, ...], seed: int = 0) -> torch.Tensor:
    """With many values that are equal, and one that is not a number."""
    x = (3 * torch.randn(shape, generator=torch.Generator().manual_seed(seed))).round()
    x[0, 0, 2, 2] = torch.nan
    return x.contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(("shape", "window"), CASES)
def test_the_operators_are_torchs_pooling(shape: tuple[int, ...], window: tuple[int, int, int]) -> None:
    """The CPU's, which emulated CUDA uses."""
    x = maps(shape).requires_grad_(True)
    expected = F.max_pool2d(x, *window)
    given = torch.randn_like(expected)
    y, places = torch.ops.robust_transfer.max_pool(x.detach(), *window)
    spread = torch.ops.robust_transfer.max_pool_backward(given, places, *shape[2:], *window)
    assert torch.equal(y.nan_to_num(9), expected.nan_to_num(9))
    assert torch.equal(spread, torch.autograd.grad(expected, x, given)[0])


@pytest.mark.skipif(not importlib.util.find_spec("triton"), reason="needs Triton, which comes with torch for GPUs")
def test_the_kernels_are_the_operators() -> None:
    code = """
        import torch
        from networks.test_max_pool import CASES, maps
        from robust_transfer.networks import max_pool
        for shape, window in CASES:
            for dtype in (torch.float32, torch.bfloat16):
                x = maps(shape).to(dtype)
                y, places = max_pool._pool(x, *window)
                expected, expected_places = max_pool._pool_by_torch(x, *window)
                assert torch.equal(y.nan_to_num(9), expected.nan_to_num(9)), (shape, window)
                assert torch.equal(places, expected_places), (shape, window)
                given = torch.randn(y.shape).to(dtype).contiguous(memory_format=torch.channels_last)
                spread = max_pool._spread(given, places, *shape[2:], *window)
                by_torch = max_pool._spread_by_torch(given, places, *shape[2:], *window)
                if dtype == torch.float32:
                    assert torch.equal(spread, by_torch)
                else:  # torch rounds after every addition to a pixel
                    torch.testing.assert_close(spread, by_torch, rtol=0.02, atol=0.1)
        print("checked")
    """
    assert output(code, variables={"TRITON_INTERPRET": "1"}) == "checked\n"


def test_the_function_has_the_operators_gradient() -> None:
    x = maps((2, 4, 8, 8)).requires_grad_(True)
    y = max_pool._Pool.apply(x, 3, 2, 1)
    given = torch.randn_like(y)
    expected = torch.autograd.grad(F.max_pool2d(x, 3, 2, 1), x, given)[0]
    assert torch.equal(torch.autograd.grad(y, x, given)[0], expected)


def test_torchvisions_pooling_is_replaced_where_it_is_plain() -> None:
    resnet = build("resnet18", 3)
    assert [type(module) for module in resnet.modules() if isinstance(module, nn.MaxPool2d)] == [MaxPool2d]
    network = nn.Sequential(nn.MaxPool2d(3, 2, ceil_mode=True), nn.MaxPool2d(2, dilation=2), nn.MaxPool2d((2, 3)))
    replace_max_pools(network)
    assert {type(module) for module in network} == {nn.MaxPool2d}


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here, and tests/cuda runs the kernels on it")
def test_where_the_kernels_do_not_run_the_log_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    """As without a C compiler, which Triton needs; here it is the GPU that is missing."""
    max_pool.kernels_run.cache_clear()
    with caplog.at_level(logging.WARNING, "robust_transfer"):
        assert not max_pool.kernels_run()
        assert not max_pool.kernels_run()
    assert caplog.text.count("max pooling by torch's kernels, which are slower: Triton's did not run (") == 1
    max_pool.kernels_run.cache_clear()


def test_on_the_cpu_it_is_torchs() -> None:
    x = maps((2, 4, 8, 8)).nan_to_num()
    assert torch.equal(MaxPool2d(3, 2, 1)(x), F.max_pool2d(x, 3, 2, 1))

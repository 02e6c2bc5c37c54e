"""Every operator on CUDA tensors, run by the CPU's kernels over the same memory, and counted.

`runtime.c` has torch believe that there is a GPU, whose memory is the host's. Within `Emulation` an operator on CUDA
tensors is called on CPU tensors that share their memory, and what it returns becomes a CUDA tensor again. Results are
the CPU's, bit for bit; devices, autograd, autocast and copies are CUDA's.

What it counts:

- launches: operators that compute on the GPU. A call of a `_foreach_` operator counts once, as a GPU runs it as a few.
- blocking: what makes the program wait for the GPU, by operator and source line: a copy between host and GPU, unless it
  is told not to block and the host's side is pinned; a number or a size that the host asks for.

CUDA graphs are emulated by `graphs`.

It does not see: memory that runs out, races between streams, NCCL, and which kernels cuDNN would pick.
"""

from __future__ import annotations

import ctypes
import functools
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from emulated_cuda.graphs import Recording
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

aten = torch.ops.aten
WITHOUT_KERNEL = {
    *(aten.empty.memory_format, aten.empty_strided.default, aten.empty_like.default),
    *(aten.new_empty.default, aten.new_empty_strided.default, aten.resize_.default, aten.set_.source_Storage),
    *(aten.detach.default, aten.lift_fresh.default, aten.record_stream.default),
    *(aten.is_pinned.default, aten._pin_memory.default),
}
"""Operators on memory and its bookkeeping, which torch does itself as if on a GPU."""
COPIES = {aten.copy_.default, aten._to_copy.default, aten._foreach_copy_.default}
ASKING = {
    *(aten._local_scalar_dense.default, aten.equal.default, aten.is_nonzero.default),
    *(aten.nonzero.default, aten.masked_select.default, aten._unique2.default, aten.bincount.default),
}
"""Operators for which the host waits: they return a number, or a tensor whose size depends on values."""
INDEXING = {
    *(aten.index.Tensor, aten._unsafe_index.Tensor),
    *(aten.index_put.default, aten.index_put_.default, aten._index_put_impl_.default),
}
"""Operators that take indices from the host, and copy them; a mask they count first."""
OURS = ("robust_transfer", "benchmarks", "emulated_cuda")
"""Folders whose lines are named as the source of what blocks."""


class DeviceMismatchError(RuntimeError):
    """An operator got tensors on different devices, which CUDA refuses."""


class Emulation(TorchDispatchMode):  # type: ignore[no-untyped-call]  # of its __init_subclass__
    """Within the block operators on CUDA tensors are run by the CPU, and counted."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.launches: Counter[str] = Counter()
        """By operator."""
        self.blocking: Counter[str] = Counter()
        """By operator and the line of ours that called it."""
        self.recording: Recording | None = None
        """The CUDA graph that is being recorded."""
        self._waits = ctypes.c_long.in_dll(ctypes.CDLL(None), "emulated_waits")
        self._waited = self._waits.value

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """There is nothing to compile, and torch's compiler takes 3 to 5 s of CPU time to import."""
        return False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if self._waits.value > self._waited:
            self.blocking[f"torch {_line()}"] += self._waits.value - self._waited
            self._waited = self._waits.value
        given = dict(kwargs or {})
        tensors = [leaf for leaf in tree_leaves((args, given)) if isinstance(leaf, Tensor)]
        on_gpu = [tensor for tensor in tensors if tensor.is_cuda]
        asked = _device(given.get("device"))
        if not on_gpu and not (asked and asked.type == "cuda"):
            return func(*args, **given)
        if _is_composite(func):
            with self:  # made of other operators, also on a GPU
                result = func.decompose(*args, **given)
            if result is not NotImplemented:
                return result
        if func in WITHOUT_KERNEL or _is_view(func):
            return func(*args, **given)
        _check_devices(func, tensors)
        self.launches[str(func)] += 1
        if _blocks(func, tensors, _waits_not(func, args, given), asked):
            self.blocking[f"{func} {_line()}"] += 1
        on = asked or on_gpu[0].device

        def call() -> Any:
            return _by_cpu(func, args, given, asked)

        if self.recording is None:
            return _as_returned(func, call(), args, given, on)
        self.recording.keep([_host(one) for one in _all_written(func, args, given)])
        returned = _as_returned(func, call(), args, given, on)
        results = [leaf for leaf in tree_leaves(returned) if isinstance(leaf, Tensor)]
        self.recording.add(call, results, [_host(one) for one in results])
        return returned


def _by_cpu(func: Any, args: Sequence[Any], kwargs: dict[str, Any], asked: torch.device | None) -> Any:
    changed = dict(kwargs)
    if asked:
        changed["device"] = torch.device("cpu")
    if asked and asked.type == "cuda" and changed.get("pin_memory"):
        changed["pin_memory"] = False
    if "non_blocking" in changed:
        changed["non_blocking"] = False
    if func is aten.copy_.default:
        args = args[:2]
    args, changed = tree_map_only(Tensor, _host, (list(args), changed))
    return BY_OTHERS.get(func, func)(*args, **changed)


def _host(tensor: Tensor) -> Tensor:
    """A CPU tensor over a CUDA tensor's memory; others as they are."""
    if not tensor.is_cuda:
        return tensor
    storage = tensor.untyped_storage()
    if not tensor.numel():
        return torch.empty_strided(tensor.size(), tensor.stride(), dtype=tensor.dtype)
    memory = (ctypes.c_char * storage.nbytes()).from_address(storage.data_ptr())
    whole = torch.frombuffer(memory, dtype=tensor.dtype, count=storage.nbytes() // tensor.element_size())
    found = whole.as_strided(tensor.size(), tensor.stride(), tensor.storage_offset())
    return found.conj() if tensor.is_conj() else found


def _on_gpu(tensor: Tensor, device: torch.device) -> Tensor:
    """A CUDA tensor with the values and the layout of a CPU tensor."""
    found = torch.empty_strided(tensor.size(), tensor.stride(), dtype=tensor.dtype, device=device)
    _host(found).copy_(tensor)
    return found


def _as_returned(func: Any, result: Any, args: Sequence[Any], kwargs: dict[str, Any], device: torch.device) -> Any:
    """What the operator returns: arguments that it wrote to are themselves, and all else is new, on the device."""
    returns = func._schema.returns
    results = result if len(returns) > 1 else (result,)
    found = []
    for one, returned in zip(results, returns, strict=False):  # none where an operator returns nothing
        if returned.alias_info is not None and returned.alias_info.is_write:
            found.append(_written(func, returned.alias_info.before_set, args, kwargs))
        elif device.type == "cuda":
            found.append(tree_map_only(Tensor, lambda tensor: _on_gpu(tensor, device), one))
        else:
            found.append(tree_map_only(Tensor, Tensor.clone, one))  # from the GPU: of memory of its own
    return tuple(found) if len(returns) > 1 else found[0] if found else None


def _written(func: Any, names: set[str], args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """The argument of these names in the operator's schema, such as the `a` of `Tensor(a!) self`."""
    for place, argument in enumerate(func._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.before_set & names:
            return args[place] if place < len(args) else kwargs[argument.name]
    raise AssertionError(f"{func}: returns what it was not given")


def _all_written(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Tensor]:
    """The tensors that an operator writes to; a BatchNorm's schema does not say that it updates running statistics."""
    written = list(args[3:5]) if func in (aten.cudnn_batch_norm.default, aten.native_batch_norm.default) else []
    for place, argument in enumerate(func._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            written += tree_leaves(args[place] if place < len(args) else kwargs.get(argument.name))
    return [one for one in written if isinstance(one, Tensor)]


def _device(asked: Any) -> torch.device | None:
    """The device that an operator is asked to return a tensor on."""
    if asked is None:
        return None
    device = torch.device(asked)
    return torch.device("cuda", torch.cuda.current_device()) if device == torch.device("cuda") else device


@functools.cache
def _is_composite(func: Any) -> bool:
    return bool(torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), "CompositeImplicitAutograd"))


@functools.cache
def _is_view(func: Any) -> bool:
    returns = func._schema.returns
    return bool(returns) and all(one.alias_info is not None and not one.alias_info.is_write for one in returns)


def _check_devices(func: Any, tensors: Sequence[Tensor]) -> None:
    """Refuse what CUDA refuses: tensors on two devices, but for copies, numbers (0-dimensional) and indices."""
    if func in COPIES:
        return
    indices = tensors[1:] if func in INDEXING else []
    devices = {
        tensor.device
        for tensor in tensors
        if tensor.is_cuda or (tensor.dim() and not any(tensor is index for index in indices))
    }
    if len(devices) > 1:
        on = ", ".join(f"{list(tensor.shape)} on {tensor.device}" for tensor in tensors)
        raise DeviceMismatchError(f"{func}: Expected all tensors to be on the same device, but got {on}")


def _waits_not(func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> bool:
    """Whether a copy is told not to block."""
    places = {argument.name: place for place, argument in enumerate(func._schema.arguments)}
    place = places.get("non_blocking", len(args))
    return bool(args[place] if place < len(args) else kwargs.get("non_blocking"))


def _blocks(func: Any, tensors: Sequence[Tensor], waits_not: bool, asked: torch.device | None) -> bool:
    if func in ASKING:
        return True
    if func in INDEXING:
        return any((not one.is_cuda and one.dim()) or one.dtype in (torch.bool, torch.uint8) for one in tensors[1:])
    if func not in COPIES:
        return False
    host = [tensor for tensor in tensors if not tensor.is_cuda]
    if not host:  # between GPUs, or to the host, which then takes pinned memory if it is not to wait
        return asked is not None and asked.type == "cpu" and not waits_not
    return not waits_not or not all(tensor.is_pinned() for tensor in host)


def _line() -> str:
    """The innermost line of ours that is being executed; none in a backward pass, which has its own threads."""
    frame: FrameType | None = sys._getframe(1)
    while frame:
        path = Path(frame.f_code.co_filename)
        if any(folder in path.parts for folder in OURS) and path != Path(__file__):
            return f"{path.name}:{frame.f_lineno}"
        frame = frame.f_back
    return "of a backward pass"


def _batchnorm(
    x: Tensor, weight: Tensor, bias: Any, mean: Any, variance: Any, training: bool, momentum: float, eps: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    found = aten.native_batch_norm(x, weight, bias, mean, variance, training, momentum, eps)
    return *found, torch.empty(0, dtype=torch.uint8)


def _batchnorm_backward(
    x: Tensor, gradient: Tensor, weight: Tensor, mean: Any, variance: Any, own_mean: Any, own_variance: Any,
    eps: float, reserved: Tensor,
) -> Any:  # fmt: skip
    return aten.native_batch_norm_backward(
        gradient, x, weight, mean, variance, own_mean, own_variance, True, eps, [True] * 3
    )


def _convolution_relu(x: Tensor, weight: Tensor, *rest: Any) -> Any:
    return aten.relu(aten.conv2d(x, weight, *rest))


def _convolution_add_relu(x: Tensor, weight: Tensor, other: Tensor, alpha: float, *rest: Any) -> Any:
    assert alpha == 1
    return aten.relu(aten.conv2d(x, weight, *rest).add_(other))


BY_OTHERS: dict[Any, Callable[..., Any]] = {
    aten.cudnn_batch_norm.default: _batchnorm,
    aten.cudnn_batch_norm_backward.default: _batchnorm_backward,
    aten.cudnn_convolution_relu.default: _convolution_relu,
    aten.cudnn_convolution_add_relu.default: _convolution_add_relu,
}
"""Operators that the CPU does not have, by what computes the same."""

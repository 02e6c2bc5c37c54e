"""The values in the pickles of checkpoints, and the only functions that these may call.

The functions here replace those of the same name that torch.save writes into a file: they create dicts, sets, numbers
and tensors, and check their arguments. Everything else that a pickle names is a Placeholder.
"""

from __future__ import annotations

import math
import struct
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor


class CheckpointError(ValueError):
    """A file is not a usable checkpoint; the message names it, what is wrong, and the fix."""


@contextmanager
def damage(path: Path, what: str) -> Iterator[None]:
    """Turn errors that a malformed file causes into a CheckpointError."""
    try:
        yield
    except CheckpointError:
        raise
    except (
        ValueError, TypeError, LookupError, ArithmeticError, AttributeError, AssertionError, RuntimeError, EOFError,
        struct.error, zipfile.BadZipFile, OSError,
    ) as error:  # fmt: skip
        reason = shown(f"{type(error).__name__}: {error}")
        raise CheckpointError(f"{path}: {what} is cut short or damaged ({reason}); fetch the file again") from None


def shown(text: str) -> str:
    """A string from a file, fit for a message: printable and short."""
    return text[:120] if text[:120].isprintable() else ascii(text[:120])


def refuse_big_endian(path: Path, little: bool) -> None:
    """Raise CheckpointError unless a file says that it is little-endian, as everything here takes it to be."""
    if not little:
        raise CheckpointError(f"{path}: written on a big-endian machine; load it there and save it as safetensors")


# Values


@dataclass(frozen=True, eq=False, slots=True)
class Placeholder:
    """Takes the place of an object that a pickle names and that is not created: the name, without any behaviour."""

    name: str


@dataclass(frozen=True, eq=False, slots=True)
class Elements(Placeholder):
    """A type of storage, or a dtype."""

    dtype: torch.dtype


@dataclass(frozen=True, eq=False, slots=True)
class Storage(Placeholder):
    """The data of tensors, or a part of it: uint8 [bytes], and the dtype that its name says."""

    dtype: torch.dtype
    raw: Tensor


@dataclass(frozen=True, eq=False, slots=True)
class Number(Placeholder):
    """A NumPy dtype of one number."""

    layout: str


@dataclass(frozen=True, eq=False, slots=True)
class Known(Placeholder):
    """A function of CALLS, by the name that the file has for it."""

    call: Callable[..., Any]


class Storages:
    """The tensors' data by key: taken when a pickle names it, filled at once (zip) or after the pickle (stream)."""

    def __init__(self, path: Path, size: int) -> None:
        self.known: dict[str, tuple[torch.dtype, int, Tensor]] = {}
        self.fill: Callable[[str, Tensor], None] | None = None
        self.size = size
        self._path, self._left = path, size

    def get(self, key: str, dtype: torch.dtype, numel: int) -> Tensor:
        """The bytes, uint8 [numel · itemsize], of a storage that a pickle names."""
        if key in self.known:
            if self.known[key][:2] != (dtype, numel):
                raise CheckpointError(f"{self._path}: storage {shown(key)!r} is named with two sizes or types")
            return self.known[key][2]
        size = numel * dtype.itemsize
        if not 0 <= size <= self._left:
            raise CheckpointError(
                f"{self._path}: storage {shown(key)!r} claims {size} bytes of a file of {self.size}; "
                "it is cut short or altered: fetch it again"
            )
        self._left -= size
        raw = torch.empty(size, dtype=torch.uint8)
        self.known[key] = (dtype, numel, raw)
        if self.fill:
            self.fill(key, raw)
        return raw


_STORAGES = {
    "Double": torch.float64, "Float": torch.float32, "Half": torch.float16, "BFloat16": torch.bfloat16,
    "Long": torch.int64, "Int": torch.int32, "Short": torch.int16, "Char": torch.int8, "Byte": torch.uint8,
    "Bool": torch.bool, "ComplexDouble": torch.complex128, "ComplexFloat": torch.complex64,
}  # fmt: skip
ELEMENTS = {
    **{f"{module}.{name}Storage": dtype for module in ("torch", "torch.cuda") for name, dtype in _STORAGES.items()},
    **{str(dtype): dtype for dtype in (*_STORAGES.values(), torch.uint16, torch.uint32, torch.uint64)},
    "torch.storage.UntypedStorage": torch.uint8,
}
"""Types of storage, and dtypes, by the names that files have for them."""


def as_key(value: Any) -> Any:
    """A value as a key: any but simple ones becomes a Placeholder, since nested tuples can take for ever to hash.

    So do numbers from 2⁶⁰ up and tuples of numbers: a file can choose many that have one hash, each of which a dict
    compares with all before it. Hashes of text are different in every process.
    """
    if isinstance(value, (str, bytes, float, type(None), Placeholder)):
        return value
    if isinstance(value, int) and value.bit_length() <= 60:
        return value
    if isinstance(value, tuple) and len(value) <= 16 and all(isinstance(part, str | bytes) for part in value):
        return value
    return Placeholder(f"a {type(value).__name__} as a key")


def put(into: dict[Any, Any], items: list[Any]) -> dict[Any, Any]:
    """Fill a dict from alternating keys and values, as they are on the stack; returns it."""
    for i in range(0, len(items), 2):
        dict.__setitem__(into, as_key(items[i]), items[i + 1])
    return into


# The functions that pickles may call, in place of those of the same name


class Caller(Protocol):
    """The pickle machine, as far as the functions here need it."""

    path: Path
    storages: Storages

    def spend(self, steps: int) -> None:
        """Count steps of work for the file; raises CheckpointError when they are too many."""


def _mapping(machine: Caller, given: Any = None, *_: Any) -> Any:
    """collections.OrderedDict and its kin, as a dict."""
    if isinstance(given, dict):
        return given
    mapping: dict[Any, Any] = {}
    for name, value in given if isinstance(given, list | tuple) else ():
        machine.spend(1)
        put(mapping, [name, value])
    return mapping


def _set(machine: Caller, given: Any = ()) -> set[Any]:
    machine.spend(len(given))
    return {as_key(value) for value in given}


def _first(machine: Caller, given: Any, *_: Any) -> Any:
    """torch.Size of a tuple, or a parameter of its tensor."""
    return given


def _tensor(machine: Caller, storage: Any, offset: Any, size: Any, stride: Any) -> Any:
    return _view(machine, storage, getattr(storage, "dtype", None), offset, size, stride)


def _tensor_v2(
    machine: Caller, storage: Any, offset: Any, size: Any, stride: Any, _grad: Any, _hooks: Any, metadata: Any = None
) -> Any:
    if metadata:  # conjugate or negative views, whose numbers are not those stored
        return Placeholder("torch._utils._rebuild_tensor_v2 with metadata")
    return _view(machine, storage, getattr(storage, "dtype", None), offset, size, stride)


def _tensor_v3(
    machine: Caller,
    storage: Any,
    offset: Any,
    size: Any,
    stride: Any,
    _grad: Any,
    _hooks: Any,
    dtype: Any,
    *rest: Any,
) -> Any:
    if any(rest):
        return Placeholder("torch._utils._rebuild_tensor_v3 with metadata")
    if not isinstance(dtype, Elements):  # float8 and other types that are not read
        return Placeholder(f"a tensor of {getattr(dtype, 'name', '?')}")
    return _view(machine, storage, dtype.dtype, offset, size, stride)


def _view(machine: Caller, storage: Any, dtype: Any, offset: Any, size: Any, stride: Any) -> Any:
    """A tensor within its storage, after checking that it is: as_strided does not check its sizes and strides."""
    if not isinstance(storage, Storage):
        return Placeholder(f"a tensor of {storage.name}")
    if not (isinstance(size, tuple | list) and isinstance(stride, tuple | list) and len(size) == len(stride) <= 64):
        raise CheckpointError(f"{machine.path}: a tensor has a shape that is none; the file was altered")
    elements = storage.raw[: storage.raw.numel() // dtype.itemsize * dtype.itemsize].view(dtype)
    numbers = (offset, *size, *stride)
    if not all(type(n) is int and 0 <= n < 2**48 for n in numbers):
        raise CheckpointError(f"{machine.path}: a tensor has a size, stride or offset that is none; it was altered")
    numel = math.prod(size)
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if numel and (last >= elements.numel() or numel * dtype.itemsize > machine.storages.size):
        raise CheckpointError(
            f"{machine.path}: a tensor of shape {list(size)} reaches to element {last} of a storage of "
            f"{elements.numel()}; the file was altered: fetch it again"
        )
    return elements.as_strided(size, stride, elements.storage_offset() + offset) if numel else elements.new_empty(size)


_LAYOUTS = {
    "f2": "<e", "f4": "<f", "f8": "<d", "i1": "<b", "i2": "<h", "i4": "<i", "i8": "<q",
    "u1": "<B", "u2": "<H", "u4": "<I", "u8": "<Q", "b1": "<?",
}  # fmt: skip


def _number_type(machine: Caller, code: Any, *_: Any) -> Placeholder:
    known = isinstance(code, str) and code in _LAYOUTS
    return Number(f"numpy {code}", _LAYOUTS[code]) if known else Placeholder("numpy.dtype")


def _number(machine: Caller, kind: Any, raw: Any = None) -> Any:
    """A NumPy scalar as Python's number; anything else than a number stays a Placeholder."""
    if isinstance(kind, Number) and isinstance(raw, bytes) and len(raw) == struct.calcsize(kind.layout):
        return struct.unpack(kind.layout, raw)[0]
    return Placeholder("numpy scalar")


def _encode(machine: Caller, text: Any, encoding: Any = None) -> Any:
    """Bytes, as protocol 2 writes them: of NumPy's scalars, so that long ones are of no use here."""
    short = isinstance(text, str) and len(text) <= 64 and encoding in ("latin1", "latin-1")
    return text.encode("latin-1") if short else Placeholder("_codecs.encode")


def _foreign_object(machine: Caller, kind: Any, *_: Any) -> Placeholder:
    return Placeholder(kind.name)


CALLS: dict[str, Callable[..., Any]] = {
    **{f"collections.{name}": _mapping for name in ("OrderedDict", "defaultdict", "Counter")},
    **{f"{module}.{name}": _set for module in ("builtins", "__builtin__") for name in ("set", "frozenset")},
    **{f"{module}.dict": _mapping for module in ("builtins", "__builtin__")},
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor_v2,
    "torch._utils._rebuild_tensor_v3": _tensor_v3,
    "torch._utils._rebuild_parameter": _first,
    "torch._utils._rebuild_parameter_with_state": _first,
    "torch.Size": _first,
    "torch.device": _first,
    "numpy.dtype": _number_type,
    "numpy.core.multiarray.scalar": _number,
    "numpy._core.multiarray.scalar": _number,
    "_codecs.encode": _encode,
    "copyreg._reconstructor": _foreign_object,
    "copy_reg._reconstructor": _foreign_object,
}
"""Everything that is ever called for a file, by the names in files."""

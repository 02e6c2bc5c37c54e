"""Checkpoint files from elsewhere, read without running anything that is in them.

A pickle is a program, and `torch.load` of an old checkpoint runs it. Here the standard library's `pickletools` reads
the opcodes, and a machine of our own carries them out, that builds dicts, lists, tuples, numbers, strings and tensors.
It imports nothing and calls nothing but the dozen functions in this file: every other name becomes a Placeholder, and
so does whatever is called, made or filled through it. pickle.Unpickler is not used, even with find_class overridden: it
calls methods of what lies on its stack, and takes the memory that an opcode asks for (64 GiB for one memo index).

Both formats of torch.save are read, the zip since torch 1.6 and the stream before, and safetensors.
"""

from __future__ import annotations

import io
import math
import os
import pickletools
import struct
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

import torch
from torch import Tensor

PICKLE_BYTES = 64 * 2**20
"""Longest pickle that is read, without the tensors' data; that of a DenseNet-161 with its optimiser has 0.3 MB."""
STEPS = 1_000_000
"""Opcodes, and elements copied by them, carried out for one file; a DenseNet-161 with its optimiser takes 54,000.
An opcode of a few bytes can make an object of a kilobyte, so that the length alone is no bound on memory."""
MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001  # of the stream format
_CHUNK = 16 * 2**20


class CheckpointError(ValueError):
    """A file is no checkpoint that can be used; the message names it, what is wrong, and the mend."""


@dataclass(frozen=True, eq=False, slots=True)
class Placeholder:
    """What stands where a pickle has something foreign: its name, and nothing that could act."""

    name: str


@dataclass(frozen=True, eq=False, repr=False, slots=True)
class Checkpoint:
    """What a file holds."""

    content: Any
    """Dicts, lists, tuples, sets, numbers, strings, bytes, tensors on the CPU, and Placeholders."""
    globals_met: tuple[str, ...]
    """Names of the functions and classes that the file wanted called and that were not, sorted."""
    format: Literal["zip", "legacy", "safetensors"]


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a file of torch.save (either format, any pickle module) or of safetensors; nothing in it is executed.

    Tensors keep their dtype and share storage as they did; together they take no more memory than the file has bytes,
    and what else is in it less than a gigabyte, whatever the file says. Raises CheckpointError for a file that is
    something else, is cut short or altered, was written on a big-endian machine, or claims more than it has.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file; give the path of a checkpoint file")
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        head = file.read(512)
        file.seek(0)
        if _is_safetensors(head, size):
            return Checkpoint(_read_safetensors(path), (), "safetensors")
        _refuse_others(path, head)
        storages = _Storages(path, size)
        machine = _Machine(path, storages)
        if head.startswith(b"PK\x03\x04"):
            return Checkpoint(_read_zip(path, file, machine, storages), machine.foreign, "zip")
        return Checkpoint(_read_stream(path, file, machine, storages), machine.foreign, "legacy")


# What kind of file


def _is_safetensors(head: bytes, size: int) -> bool:
    return head[8:9] == b"{" and 2 <= int.from_bytes(head[:8], "little") <= size - 8


def _refuse_others(path: Path, head: bytes) -> None:
    text = head.lstrip().lower()
    if not head:
        raise CheckpointError(f"{path}: an empty file; the download failed: fetch it again")
    if text.startswith((b"<!doctype html", b"<html")):
        raise CheckpointError(f"{path}: is an HTML page, not a checkpoint; the download failed: fetch it again")
    if text.startswith((b"<", b"{")):
        kind = "XML" if text.startswith(b"<") else "JSON"
        raise CheckpointError(f"{path}: is {kind}, not a checkpoint; a server's error, it may be: fetch it again")
    if text.startswith(b"version https://git-lfs"):
        raise CheckpointError(
            f"{path}: a Git LFS pointer, which only names the file; run `git lfs pull` where it was cloned, or "
            "download the file itself"
        )
    if head[257:262] == b"ustar":
        raise CheckpointError(
            f"{path}: a tar archive. If it is torch's own format of before 2017, load it with torch and save it "
            "again; if checkpoints are packed in it, unpack it"
        )
    if head.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd")):
        raise CheckpointError(f"{path}: a compressed file; unpack it first")
    if path.suffix == ".safetensors":
        raise CheckpointError(f"{path}: not a safetensors file, or its header is cut short: fetch it again")
    if not head.startswith((b"PK\x03\x04", b"\x80")):
        raise CheckpointError(
            f"{path}: not a checkpoint: it begins with {head[:16]!r}, which neither torch.save nor safetensors writes"
        )


@contextmanager
def _damage(path: Path, what: str) -> Iterator[None]:
    """Whatever a malformed file makes of our own code becomes a CheckpointError."""
    try:
        yield
    except CheckpointError:
        raise
    except (
        ValueError, TypeError, LookupError, ArithmeticError, AttributeError, AssertionError, RuntimeError, EOFError,
        struct.error, zipfile.BadZipFile, OSError,
    ) as error:  # fmt: skip
        reason = _shown(f"{type(error).__name__}: {error}")
        raise CheckpointError(f"{path}: {what} is cut short or damaged ({reason}); fetch the file again") from None


def _shown(text: str) -> str:
    """A string from a file, fit for a message: printable and short."""
    return text[:120] if text[:120].isprintable() else ascii(text[:120])


# The three formats


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path}: the safetensors file is cut short or damaged ({error}); fetch it again"
        ) from None


def _read_zip(path: Path, file: IO[bytes], machine: _Machine, storages: _Storages) -> Any:
    with _damage(path, "the zip"), zipfile.ZipFile(file) as archive:
        members = {member.filename: member for member in archive.infolist()}
        pickles = [name for name in members if name.count("/") == 1 and name.endswith("/data.pkl")]
        if len(pickles) != 1 or len(members) != len(archive.infolist()):
            raise CheckpointError(f"{path}: a zip that torch.save did not write; unpack it if checkpoints are in it")
        folder = pickles[0].removesuffix("data.pkl")
        if folder + "constants.pkl" in members:
            raise CheckpointError(f"{path}: a TorchScript archive; save the network's state_dict() with torch.save")
        for member in members.values():  # as torch writes them; a compressed one can claim any size
            if member.compress_type != zipfile.ZIP_STORED or member.compress_size != member.file_size:
                raise CheckpointError(
                    f"{path}: its part {_shown(member.filename)!r} is compressed, which torch.save never does; "
                    "unpack and save it again with torch"
                )
        if folder + "byteorder" in members:
            _refuse_big_endian(path, archive.read(folder + "byteorder") != b"big")
        if members[pickles[0]].file_size > PICKLE_BYTES:
            raise CheckpointError(f"{path}: its pickle has more than {PICKLE_BYTES} bytes; it is no checkpoint")

        def fill(key: str, raw: Tensor) -> None:
            name = f"{folder}data/{key}"
            if name not in members:
                raise CheckpointError(f"{path}: storage {_shown(key)!r} is missing from the zip; fetch it again")
            if members[name].file_size != raw.numel():
                raise CheckpointError(
                    f"{path}: storage {_shown(key)!r} has {members[name].file_size} bytes where the pickle says "
                    f"{raw.numel()}; the file was altered: fetch it again"
                )
            with archive.open(name) as member:
                _read_into(path, member, key, raw)

        storages.fill = fill
        content = machine.load(io.BytesIO(archive.read(pickles[0])), "its pickle")
    return content


def _read_stream(path: Path, file: IO[bytes], machine: _Machine, storages: _Storages) -> Any:
    if not _is(MAGIC, machine.load(file, "its header")):
        raise CheckpointError(f"{path}: a pickle, but not one of torch.save; save the state_dict with torch.save")
    if not _is(PROTOCOL, machine.load(file, "its header")):
        raise CheckpointError(f"{path}: not torch's protocol {PROTOCOL}, the only one known; save it again with torch")
    system = machine.load(file, "its header")
    _refuse_big_endian(path, isinstance(system, dict) and system.get("little_endian") is True)
    content = machine.load(file, "its pickle")
    keys = machine.load(file, "the list of its storages")
    if not isinstance(keys, list) or {*map(_key, keys)} != storages.known.keys():
        raise CheckpointError(f"{path}: lists other storages than its tensors use; it was altered: fetch it again")
    for key in keys:
        numel, raw = storages.known[key][1:]
        with _damage(path, f"storage {_shown(key)!r}"):
            count = int.from_bytes(file.read(8), "little", signed=True)
            if count != numel:
                raise CheckpointError(
                    f"{path}: storage {_shown(key)!r} has {count} elements where the pickle says {numel}; "
                    "the file is cut short or altered: fetch it again"
                )
            _read_into(path, file, key, raw)
    return content


def _is(number: int, value: Any) -> bool:
    return type(value) is int and value == number


def _refuse_big_endian(path: Path, little: bool) -> None:
    if not little:
        raise CheckpointError(f"{path}: written on a big-endian machine; load it there and save it as safetensors")


def _read_into(path: Path, file: IO[bytes], key: str, raw: Tensor) -> None:
    """Fill uint8 [n] from where the file stands, without a second copy of it."""
    array: Any = raw.numpy()
    target, done = memoryview(array), 0
    while done < len(target):
        part = file.read(min(_CHUNK, len(target) - done))
        if not part:
            raise CheckpointError(
                f"{path}: ends after {done} of the {len(target)} bytes of storage {_shown(key)!r}; the file is cut "
                "short: fetch it again"
            )
        target[done : done + len(part)] = part
        done += len(part)


class _Storages:
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
                raise CheckpointError(f"{self._path}: storage {_shown(key)!r} is named with two sizes or types")
            return self.known[key][2]
        size = numel * dtype.itemsize
        if not 0 <= size <= self._left:
            raise CheckpointError(
                f"{self._path}: storage {_shown(key)!r} claims {size} bytes of a file of {self.size}; "
                "it is cut short or altered: fetch it again"
            )
        self._left -= size
        raw = torch.empty(size, dtype=torch.uint8)
        self.known[key] = (dtype, numel, raw)
        if self.fill:
            self.fill(key, raw)
        return raw


# The machine


@dataclass(frozen=True, eq=False, slots=True)
class _Elements(Placeholder):
    """A type of storage, or a dtype."""

    dtype: torch.dtype


@dataclass(frozen=True, eq=False, slots=True)
class _Storage(Placeholder):
    dtype: torch.dtype
    raw: Tensor


@dataclass(frozen=True, eq=False, slots=True)
class _Number(Placeholder):
    """A NumPy dtype of one number."""

    layout: str


@dataclass(frozen=True, eq=False, slots=True)
class _Known(Placeholder):
    call: Callable[..., Any]


_STORAGES = {
    "Double": torch.float64, "Float": torch.float32, "Half": torch.float16, "BFloat16": torch.bfloat16,
    "Long": torch.int64, "Int": torch.int32, "Short": torch.int16, "Char": torch.int8, "Byte": torch.uint8,
    "Bool": torch.bool, "ComplexDouble": torch.complex128, "ComplexFloat": torch.complex64,
}  # fmt: skip
_ELEMENTS = {
    **{f"{module}.{name}Storage": dtype for module in ("torch", "torch.cuda") for name, dtype in _STORAGES.items()},
    **{str(dtype): dtype for dtype in (*_STORAGES.values(), torch.uint16, torch.uint32, torch.uint64)},
    "torch.storage.UntypedStorage": torch.uint8,
}
_LITERALS = {
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT",
    "STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8",
    "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8",
}  # fmt: skip
_NOTHING = ("FRAME", "STOP", "READONLY_BUFFER")
_FRESH: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "EMPTY_DICT": dict,
    "EMPTY_SET": set,
    "NEXT_BUFFER": lambda: Placeholder("a buffer outside the file"),
}


class _Machine:
    """Carries out the opcodes of one file's pickles."""

    def __init__(self, path: Path, storages: _Storages) -> None:
        self.path = path
        self.storages = storages
        self._foreign: set[str] = set()
        self._left = STEPS

    @property
    def foreign(self) -> tuple[str, ...]:
        """Names met that stand for something foreign, sorted."""
        return tuple(sorted(self._foreign))

    def load(self, file: IO[bytes], what: str) -> Any:
        """The value of the pickle that begins where `file` stands, which is left at the pickle's end."""
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}
        with _damage(self.path, what):
            source: Any = _Bounded(self.path, file)
            for opcode, argument, _ in pickletools.genops(source):
                self.spend(1)
                self._step(opcode.name, argument)
            value = self._stack.pop()
        return value

    def spend(self, steps: int) -> None:
        """Count work done for the file; raises CheckpointError when it is more than any checkpoint asks for."""
        self._left -= steps
        if self._left < 0:
            raise CheckpointError(f"{self.path}: its pickle takes over {STEPS} steps, which no checkpoint does")

    def _step(self, name: str, argument: Any) -> None:
        stack = self._stack
        if name in _LITERALS:
            long = isinstance(argument, int) and argument.bit_length() > 128  # slow as a key, a million times over
            stack.append(Placeholder("a number of more than 128 bits") if long else argument)
        elif name in _FRESH:
            stack.append(_FRESH[name]())
        elif name in ("BINPUT", "LONG_BINPUT", "PUT"):
            self._memo[argument] = stack[-1]
        elif name == "MEMOIZE":
            self._memo[len(self._memo)] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET", "GET"):
            stack.append(self._memo[argument])
        elif name == "MARK":
            self._marks.append(len(stack))
        elif name == "DUP":
            stack.append(stack[-1])
        elif name == "POP_MARK" or (name == "POP" and self._marks and self._marks[-1] == len(stack)):
            self._since_mark()
        elif name == "POP":
            stack.pop()
        elif name == "PROTO":
            if argument > 5:
                raise CheckpointError(f"{self.path}: pickle protocol {argument}; up to 5 is known")
        elif name not in _NOTHING and not self._fill(name) and not self._call(name, argument):
            raise CheckpointError(f"{self.path}: opcode {name} is not known here")

    def _fill(self, name: str) -> bool:
        """Carry out an opcode that makes or fills a container; False if it is none."""
        stack = self._stack
        if name in ("TUPLE1", "TUPLE2", "TUPLE3"):
            n = int(name[-1])
            items = tuple(stack[-n:])
            del stack[-n:]
            stack.append(items)
        elif name in ("TUPLE", "LIST", "DICT", "FROZENSET"):
            found = self._since_mark()
            makers: dict[str, Callable[[], Any]] = {
                "TUPLE": lambda: tuple(found),
                "LIST": lambda: found,
                "DICT": lambda: _put({}, found),
                "FROZENSET": lambda: frozenset(map(_key, found)),
            }
            stack.append(makers[name]())
        elif name in ("APPEND", "APPENDS", "ADDITEMS"):
            found = self._since_mark() if name != "APPEND" else [stack.pop()]
            if isinstance(stack[-1], set):
                stack[-1].update(map(_key, found))
            elif not isinstance(stack[-1], Placeholder):
                list.extend(stack[-1], found)
        elif name in ("SETITEM", "SETITEMS"):
            found = self._since_mark() if name == "SETITEMS" else [stack.pop(-2), stack.pop()]
            if not isinstance(stack[-1], Placeholder):
                _put(stack[-1], found)
        else:
            return False
        return True

    def _call(self, name: str, argument: Any) -> bool:
        """Carry out an opcode that in a real unpickler imports or calls something; False if it is none."""
        stack = self._stack
        if name == "GLOBAL":
            stack.append(self._global(*argument.split(" ", 1)))
        elif name == "STACK_GLOBAL":
            stack.append(self._global(stack.pop(-2), stack.pop()))
        elif name in ("EXT1", "EXT2", "EXT4"):
            stack.append(self._unknown(f"copyreg extension {argument}"))
        elif name in ("REDUCE", "NEWOBJ"):
            arguments = stack.pop()
            stack.append(self._result(stack.pop(), arguments))
        elif name == "NEWOBJ_EX":
            keywords, arguments, called = stack.pop(), stack.pop(), stack.pop()
            stack.append(Placeholder(called.name) if keywords else self._result(called, arguments))
        elif name == "INST":
            stack.append(self._result(self._global(*argument.split(" ", 1)), tuple(self._since_mark())))
        elif name == "OBJ":
            called, *given = self._since_mark()
            stack.append(self._result(called, tuple(given)))
        elif name == "BUILD":  # an OrderedDict's _metadata, the state of something foreign: let go either way
            state = stack.pop()
            if isinstance(stack[-1], _Number) and state[1] == ">":
                _refuse_big_endian(self.path, False)
        elif name == "PERSID":
            stack.append(Placeholder("a persistent id in text"))
        elif name == "BINPERSID":
            stack.append(self._persistent(stack.pop()))
        else:
            return False
        return True

    def _since_mark(self) -> list[Any]:
        start = self._marks.pop()
        found = self._stack[start:]
        del self._stack[start:]
        return found

    def _global(self, module: Any, name: Any) -> Placeholder:
        full = f"{module}.{name}" if isinstance(module, str) and isinstance(name, str) else "?"
        if full in _CALLS:
            return _Known(full, _CALLS[full])
        if full in _ELEMENTS:
            return _Elements(full, _ELEMENTS[full])
        return self._unknown(full)

    def _unknown(self, name: str) -> Placeholder:
        self._foreign.add(_shown(name))
        return Placeholder(_shown(name))

    def _result(self, called: Any, arguments: Any) -> Any:
        if isinstance(called, _Known) and isinstance(arguments, tuple) and len(arguments) <= 16:
            return called.call(self, *arguments)
        if isinstance(called, Placeholder):
            return Placeholder(called.name)
        raise CheckpointError(f"{self.path}: its pickle calls a {type(called).__name__}; the file was altered")

    def _persistent(self, identity: Any) -> Placeholder:
        match identity:
            case ("storage", _Elements(name, dtype), str(key), _, int(numel), *view):
                raw = self.storages.get(key, dtype, numel)
                if view and view[0] is not None:  # of a storage within another, up to torch 0.4: key, offset, length
                    _, start, length = view[0]
                    if not (0 <= start <= start + length <= numel):
                        raise CheckpointError(f"{self.path}: a view reaches outside storage {_shown(key)!r}")
                    raw = raw[start * dtype.itemsize : (start + length) * dtype.itemsize]
                return _Storage(name, dtype, raw)
            case ("storage", Placeholder(name), *_):
                raise CheckpointError(f"{self.path}: has a {name}, which cannot be read; save it as ordinary tensors")
            case ("module", Placeholder(name), *_):  # a class of a whole pickled network, with its source text
                return Placeholder(name)
        return Placeholder("a persistent id")


class _Bounded:
    """As much of a file as a pickle may have."""

    def __init__(self, path: Path, file: IO[bytes]) -> None:
        self._path, self._file, self._left = path, file, PICKLE_BYTES

    def read(self, n: int) -> bytes:
        """The next n bytes; raises CheckpointError before it takes memory for more than a pickle may have."""
        self._spend(n)
        return self._file.read(n)

    def readline(self) -> bytes:
        """The rest of a line, within the same bound."""
        line = self._file.readline(self._left + 1)
        self._spend(len(line))
        return line

    def _spend(self, n: int) -> None:
        self._left -= n
        if self._left < 0:
            raise CheckpointError(
                f"{self._path}: its pickle claims more than {PICKLE_BYTES} bytes; it is damaged, or no checkpoint"
            )


def _key(value: Any) -> Any:
    """A value as a key: what is not simple becomes inert, since the hash of nested tuples takes time without end."""
    simple = (str, bytes, int, float, type(None), Placeholder)
    if isinstance(value, simple):
        return value
    if isinstance(value, tuple) and len(value) <= 16 and all(isinstance(part, simple) for part in value):
        return value
    return Placeholder(f"a {type(value).__name__} as a key")


def _put(into: dict[Any, Any], items: list[Any]) -> dict[Any, Any]:
    for i in range(0, len(items), 2):
        dict.__setitem__(into, _key(items[i]), items[i + 1])
    return into


# The functions that pickles may call: these, in place of those of the same name


def _mapping(machine: _Machine, given: Any = None, *_: Any) -> Any:
    """collections.OrderedDict and its kin, as a dict."""
    if isinstance(given, dict):
        return given
    found: dict[Any, Any] = {}
    for name, value in given if isinstance(given, list | tuple) else ():
        machine.spend(1)
        _put(found, [name, value])
    return found


def _set(machine: _Machine, given: Any = ()) -> set[Any]:
    machine.spend(len(given))
    return {_key(value) for value in given}


def _first(machine: _Machine, given: Any, *_: Any) -> Any:
    """torch.Size of a tuple, or a parameter of its tensor."""
    return given


def _tensor(machine: _Machine, storage: Any, offset: Any, size: Any, stride: Any) -> Any:
    return _view(machine, storage, getattr(storage, "dtype", None), offset, size, stride)


def _tensor_v2(
    machine: _Machine, storage: Any, offset: Any, size: Any, stride: Any, _grad: Any, _hooks: Any, metadata: Any = None
) -> Any:
    if metadata:  # conjugate or negative views, whose numbers are not those stored
        return Placeholder("torch._utils._rebuild_tensor_v2 with metadata")
    return _view(machine, storage, getattr(storage, "dtype", None), offset, size, stride)


def _tensor_v3(
    machine: _Machine,
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
    return _view(machine, storage, dtype.dtype, offset, size, stride)


def _view(machine: _Machine, storage: Any, dtype: Any, offset: Any, size: Any, stride: Any) -> Any:
    """A tensor within its storage, after checking that it is: as_strided by itself would believe sizes and strides."""
    if not isinstance(storage, _Storage):
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


def _number_type(machine: _Machine, code: Any, *_: Any) -> Placeholder:
    known = isinstance(code, str) and code in _LAYOUTS
    return _Number(f"numpy {code}", _LAYOUTS[code]) if known else Placeholder("numpy.dtype")


def _number(machine: _Machine, kind: Any, raw: Any = None) -> Any:
    """A NumPy scalar as Python's number; anything else than a number stays a Placeholder."""
    if isinstance(kind, _Number) and isinstance(raw, bytes) and len(raw) == struct.calcsize(kind.layout):
        return struct.unpack(kind.layout, raw)[0]
    return Placeholder("numpy scalar")


def _encode(machine: _Machine, text: Any, encoding: Any = None) -> Any:
    """Bytes, as protocol 2 writes them: of NumPy's scalars, so that long ones are of no use here."""
    short = isinstance(text, str) and len(text) <= 64 and encoding in ("latin1", "latin-1")
    return text.encode("latin-1") if short else Placeholder("_codecs.encode")


def _foreign_object(machine: _Machine, kind: Any, *_: Any) -> Placeholder:
    return Placeholder(kind.name)


_CALLS: dict[str, Callable[..., Any]] = {
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

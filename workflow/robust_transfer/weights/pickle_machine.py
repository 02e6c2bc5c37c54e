"""A pickle machine that executes the opcodes of a checkpoint's pickles, and can do nothing else.

A pickle is a program for a stack machine. Here `pickletools` decodes its opcodes, and each is executed on a stack of
dicts, lists, tuples, numbers, strings and tensors. Nothing is imported, and nothing is called but the dozen functions
of `pickle_values`: every other name becomes a Placeholder, and so does the result of calling it. pickle.Unpickler is
not used, even with find_class overridden: it calls methods of the objects on its stack, and allocates the memory that
an opcode requests (64 GiB for one memo index).
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from robust_transfer.weights.pickle_values import (
    CALLS,
    ELEMENTS,
    CheckpointError,
    Elements,
    Known,
    Number,
    Placeholder,
    Storage,
    Storages,
    as_key,
    damage,
    put,
    refuse_big_endian,
    shown,
)

PICKLE_BYTES = 64 * 2**20
"""The longest pickle that is read, without the tensors' data; that of a DenseNet-161 with its optimiser has 0.3 MB."""
STEPS = 1_000_000
"""The most opcodes, and elements copied by them, executed for one file; a DenseNet-161 with its optimiser takes 54,000.
An opcode of a few bytes can create an object of a kilobyte, so that the length alone does not bound the memory."""

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


class Machine:
    """Executes the opcodes of one file's pickles."""

    def __init__(self, path: Path, storages: Storages) -> None:
        self.path = path
        self.storages = storages
        self._foreign: set[str] = set()
        self._left = STEPS

    @property
    def foreign(self) -> tuple[str, ...]:
        """Names of functions and classes that were met and not called, sorted."""
        return tuple(sorted(self._foreign))

    def load(self, file: IO[bytes], what: str) -> Any:
        """The value of the pickle at the file's current position, which is moved to the pickle's end."""
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}
        with damage(self.path, what):
            source: Any = _Bounded(self.path, file)
            for opcode, argument, _ in pickletools.genops(source):
                self.spend(1)
                self._step(opcode.name, argument)
            value = self._stack.pop()
        return value

    def spend(self, steps: int) -> None:
        """Count steps of work for the file; raises CheckpointError when they exceed STEPS."""
        self._left -= steps
        if self._left < 0:
            raise CheckpointError(f"{self.path}: its pickle takes over {STEPS} steps, which no checkpoint does")

    def _step(self, name: str, argument: Any) -> None:
        stack = self._stack
        if name in _LITERALS:
            long = isinstance(argument, int) and argument.bit_length() > 128  # slow to hash, a million times
            stack.append(Placeholder("a number of more than 128 bits") if long else argument)
        elif name in _FRESH:
            stack.append(_FRESH[name]())
        elif name in ("BINPUT", "LONG_BINPUT", "PUT"):
            if argument >= 2**32:  # PUT has it in decimals, so that a file could choose many of one hash
                raise CheckpointError(f"{self.path}: its pickle has a memo index of {argument.bit_length()} bits")
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
        """Execute an opcode that creates or fills a container; False if it is another."""
        stack = self._stack
        if name in ("TUPLE1", "TUPLE2", "TUPLE3"):
            n = int(name[-1])
            stack[-n:] = [tuple(stack[-n:])]
        elif name in ("TUPLE", "LIST", "DICT", "FROZENSET"):
            items = self._since_mark()
            makers: dict[str, Callable[[], Any]] = {
                "TUPLE": lambda: tuple(items),
                "LIST": lambda: items,
                "DICT": lambda: put({}, items),
                "FROZENSET": lambda: frozenset(map(as_key, items)),
            }
            stack.append(makers[name]())
        elif name in ("APPEND", "APPENDS", "ADDITEMS"):
            items = self._since_mark() if name != "APPEND" else [stack.pop()]
            if isinstance(stack[-1], set):
                stack[-1].update(map(as_key, items))
            elif not isinstance(stack[-1], Placeholder):
                list.extend(stack[-1], items)
        elif name in ("SETITEM", "SETITEMS"):
            items = self._since_mark() if name == "SETITEMS" else [stack.pop(-2), stack.pop()]
            if not isinstance(stack[-1], Placeholder):
                put(stack[-1], items)
        else:
            return False
        return True

    def _call(self, name: str, argument: Any) -> bool:
        """Execute an opcode for which an unpickler imports or calls something; False if it is another."""
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
        elif name == "BUILD":  # an OrderedDict's _metadata, or the state of a Placeholder: dropped
            state = stack.pop()
            if isinstance(stack[-1], Number) and state[1] == ">":
                refuse_big_endian(self.path, False)
        elif name == "PERSID":
            stack.append(Placeholder("a persistent id in text"))
        elif name == "BINPERSID":
            stack.append(self._persistent(stack.pop()))
        else:
            return False
        return True

    def _since_mark(self) -> list[Any]:
        start = self._marks.pop()
        items = self._stack[start:]
        del self._stack[start:]
        return items

    def _global(self, module: Any, name: Any) -> Placeholder:
        full = f"{module}.{name}" if isinstance(module, str) and isinstance(name, str) else "?"
        if full in CALLS:
            return Known(full, CALLS[full])
        if full in ELEMENTS:
            return Elements(full, ELEMENTS[full])
        return self._unknown(full)

    def _unknown(self, name: str) -> Placeholder:
        self._foreign.add(shown(name))
        return Placeholder(shown(name))

    def _result(self, called: Any, arguments: Any) -> Any:
        if isinstance(called, Known) and isinstance(arguments, tuple) and len(arguments) <= 16:
            return called.call(self, *arguments)
        if isinstance(called, Placeholder):
            return Placeholder(called.name)
        raise CheckpointError(f"{self.path}: its pickle calls a {type(called).__name__}; the file was altered")

    def _persistent(self, identity: Any) -> Placeholder:
        match identity:
            case ("storage", Elements(name, dtype), str(key), _, int(numel), *view):
                raw = self.storages.get(key, dtype, numel)
                if view and view[0] is not None:  # of a storage within another, up to torch 0.4: key, offset, length
                    _, start, length = view[0]
                    if not (0 <= start <= start + length <= numel):
                        raise CheckpointError(f"{self.path}: a view reaches outside storage {shown(key)!r}")
                    raw = raw[start * dtype.itemsize : (start + length) * dtype.itemsize]
                return Storage(name, dtype, raw)
            case ("storage", Placeholder(name), *_):
                raise CheckpointError(f"{self.path}: has a {name}, which cannot be read; save it as ordinary tensors")
            case ("module", Placeholder(name), *_):  # a class of a whole pickled network, with its source text
                return Placeholder(name)
        return Placeholder("a persistent id")


class _Bounded:
    """A file of which no more can be read than a pickle may have."""

    def __init__(self, path: Path, file: IO[bytes]) -> None:
        self._path, self._file, self._left = path, file, PICKLE_BYTES

    def read(self, n: int) -> bytes:
        """The next n bytes; raises CheckpointError before memory is taken for more than a pickle may have."""
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
                f"{self._path}: its pickle claims more than {PICKLE_BYTES} bytes; it is damaged, or not a checkpoint"
            )

"""Makers of checkpoint files: genuine ones, as the libraries write them, and hostile ones, byte by byte."""

import io
import os
import pickle
import struct
import subprocess
import sys
import types
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import pytest
import torch
from torch import nn

MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001  # of the stream format, from torch/serialization.py
Module = TypeVar("Module", bound=nn.Module)
Storages = Iterable[tuple[str, int, bytes]]
"""Key, count of numbers that the file states, bytes that it holds."""


def with_statistics(network: Module, seed: int = 0) -> Module:
    """Fill weights and statistics as some training would, with small numbers, no two alike; return it in eval mode."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in network.state_dict().items():
        if tensor.dtype.is_floating_point and not name.startswith("normalise.") and "new_" not in name:
            low, high = (0.5, 1.5) if name.endswith("running_var") else (-0.1, 0.1)
            tensor.uniform_(low, high, generator=generator)
    return network.eval()


def robustness() -> list[Any]:
    """Modules `model_utils` and `datasets` of the library that trained the released networks, or skip the test.

    The library imports a module that torchvision no longer has; here it gets a substitute.
    """
    missing = types.ModuleType("torchvision.models.utils")
    missing.__dict__["load_state_dict_from_url"] = torch.hub.load_state_dict_from_url
    with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
        warnings.simplefilter("ignore")
        patch.setitem(sys.modules, missing.__name__, missing)
        reason = "not installed: make setup EXTRAS=peers"
        return [pytest.importorskip(f"robustness.{name}", reason=reason) for name in ("model_utils", "datasets")]


def trained_by_robustness(architecture: str | nn.Module, parallel: bool = True, dataset: str = "ImageNet") -> Any:
    """An untrained network in the wrapping that the library trains it in.

    `architecture` is a name that the library knows, or a network, which it wraps once more.
    """
    library, datasets = robustness()
    own = not isinstance(architecture, str)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nn.Module, "cuda", lambda module, *_, **__: module)  # it calls this whatever the device
        images = getattr(datasets, dataset)("/nowhere")
        model, _ = library.make_and_restore_model(
            arch=architecture, dataset=images, parallel=parallel, add_custom_forward=own
        )
    return with_statistics(model)


def save_as_released(
    path: Path, state: dict[str, Any], *, key: str = "model", stream: bool = True, protocol: int = 2, **more: Any
) -> Path:
    """As the library's train.py saves: through dill, with a schedule of functions, and the optimiser beside it."""
    dill = pytest.importorskip("dill")

    class Decay:  # dill saves it by value, with its code, since nothing could import it
        def __init__(self, every: int):
            self.every = every

        def __call__(self, epoch: int) -> Any:
            return 0.1 ** (epoch // self.every)

    closure = {"every": 30}
    content = {
        key: state,
        "optimizer": {"state": {0: {"momentum_buffer": torch.ones(3)}}, "param_groups": [{"lr": 0.1, "params": [0]}]},
        "schedule": {"lr_lambdas": [lambda epoch: 0.1 ** (epoch // closure["every"])], "kind": Decay, "of": Decay(30)},
        "epoch": 90,
        "amp": None,
        **more,
    }
    torch.save(content, path, pickle_module=dill, pickle_protocol=protocol, _use_new_zipfile_serialization=not stream)
    return path


class Stored:
    """A storage as a pickle names it."""

    def __init__(self, key: str, numel: Any, *, kind: Any = torch.FloatStorage, view: Any = None):
        self.identity = ("storage", kind, key, "cpu", numel, view)


class Viewed:
    """A tensor of any size, stride and offset of a storage."""

    def __init__(self, storage: Stored, size: Any, stride: Any, offset: Any = 0):
        hooks: OrderedDict[int, Any] = OrderedDict()
        self._arguments = (storage, offset, size, stride, False, hooks)

    def __reduce__(self) -> tuple[Callable[..., object], tuple[Any, ...]]:
        return torch._utils._rebuild_tensor_v2, self._arguments


class _Pickler(pickle.Pickler):
    def persistent_id(self, obj: object) -> Any:
        return obj.identity if isinstance(obj, Stored) else None


def pickled(content: object, protocol: int = 2) -> bytes:
    """A pickle in which a `Stored` is a persistent id, as `torch.save` writes storages."""
    file = io.BytesIO()
    _Pickler(file, protocol).dump(content)
    return file.getvalue()


def write_stream(
    path: Path,
    content: object,
    storages: Storages = (),
    *,
    little: bool = True,
    magic: int = MAGIC,
    protocol: int = PROTOCOL,
    keys: list[str] | None = None,
) -> Path:
    """Write a file in the stream format, from before torch 1.6.

    Args:
        path: Where it goes.
        content: An object to pickle, or the bytes of a pickle.
        storages: What follows the pickle.
        little: What the file says of its byte order.
        magic, protocol: What it begins with.
        keys: Keys of storages that it lists; those of `storages` unless given.
    """
    storages = list(storages)
    system = {"protocol_version": protocol, "little_endian": little, "type_sizes": {"short": 2, "int": 4, "long": 4}}
    parts = [pickle.dumps(value, 2) for value in (magic, protocol, system)]
    parts.append(content if isinstance(content, bytes) else pickled(content))
    parts.append(pickle.dumps([key for key, _, _ in storages] if keys is None else keys, 2))
    parts += [struct.pack("<q", count) + raw for _, count, raw in storages]
    path.write_bytes(b"".join(parts))
    return path


def write_zip(
    path: Path,
    content: object,
    storages: Storages = (),
    *,
    compression: int = zipfile.ZIP_STORED,
    byteorder: bytes = b"little",
    more: Iterable[tuple[str, bytes]] = (),
) -> Path:
    """Write a file in the zip format, with members `more` (name, bytes) beside the usual ones."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("archive/data.pkl", content if isinstance(content, bytes) else pickled(content))
        archive.writestr("archive/byteorder", byteorder)
        for key, _, raw in storages:
            archive.writestr(f"archive/data/{key}", raw)
        for name, raw in more:
            archive.writestr(name, raw)
    return path


class _Call:
    """Its pickle calls a function when it is read."""

    def __init__(self, function: Callable[..., object], *arguments: object):
        self._call = (function, arguments)

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self._call


def hostile_pickles(canary: Path | str) -> dict[str, bytes]:
    """Pickles by name, each of which makes the file `canary` when Python's own unpickler reads it.

    Two import the module `side_effects`, which `write_side_effects` writes; one needs `posix.system` as extension 240
    of copyreg.
    """
    command = f"touch {canary}".encode()
    text = b"X" + struct.pack("<I", len(command)) + command
    return {
        "reduce": pickle.dumps(_Call(os.system, command.decode()), 2),
        "reduce in a dict": pickle.dumps({"model": {"fc.weight": _Call(os.system, command.decode())}}, 4),
        "eval": pickle.dumps(_Call(eval, f"open({str(canary)!r}, 'w').close()"), 3),
        "exec": pickle.dumps([_Call(exec, f"open({str(canary)!r}, 'w').close()")], 5),
        "subprocess": pickle.dumps(_Call(subprocess.call, ["touch", str(canary)]), 4),
        "getattr of an import": b"cbuiltins\ngetattr\n(cimportlib\nimport_module\n(S'os'\ntRS'system'\ntR(%stR." % text,
        "stack global": b"\x80\x04\x8c\x02os\x8c\x06system\x93" + text + b"\x85R.",
        "inst": b"(" + text + b"ios\nsystem\n.",
        "obj": b"(cos\nsystem\n" + text + b"o.",
        "extension": b"\x80\x02\x82\xf0" + text + b"\x85R.",
        "argument of a known function": b"ccollections\nOrderedDict\n(cos\nsystem\n(" + text + b"tRtR.",
        "key": b"}cos\nsystem\n(" + text + b"tRNs.",
        "state": b"ccollections\nOrderedDict\n)R(cos\nsystem\n(" + text + b"tRtb.",
        "import": b"cside_effects\nThing\n.",
        "new, filled": b"\x80\x04cside_effects\nThing\n)}\x92K\x01a(K\x01K\x02e(K\x01K\x02uK\x01b.",
    }


def write_side_effects(folder: Path, canary: Path) -> None:
    """Write a module that makes the file `canary` when it is imported."""
    (folder / "side_effects.py").write_text(
        f"open({str(canary)!r}, 'w').close()\n\n\nclass Thing(dict):\n    append = lambda self, value: None\n"
    )

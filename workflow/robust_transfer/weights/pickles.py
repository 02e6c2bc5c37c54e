"""Read checkpoint files of unknown origin without executing anything in them.

A pickle is a program, and `torch.load` of an old checkpoint runs it. Here a pickle machine of our own
(`pickle_machine`) executes its opcodes. It builds dicts, lists, tuples, numbers, strings and tensors, and calls nothing
that a file names. `torch.load(weights_only=True)` will not do: it refuses a file that names any other function, as the
learning-rate schedule does that the robustness library saves, requests the memory that a file claims, and a file of 500
bytes can keep it busy for ever (a dict key of nested tuples: 7 s at 28 levels, twice that for each more; torch 2.15).

Both formats of torch.save are read, the zip since torch 1.6 and the stream before, and safetensors.
"""

from __future__ import annotations

import io
import os
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

from torch import Tensor

from robust_transfer.datasets.fetching.archive_formats import unread_format
from robust_transfer.datasets.fetching.web_pages import HEAD, disguise
from robust_transfer.weights.pickle_machine import PICKLE_BYTES, Machine
from robust_transfer.weights.pickle_values import (
    CheckpointError,
    Placeholder,
    Storages,
    as_key,
    damage,
    refuse_big_endian,
    shown,
)

__all__ = ["Checkpoint", "CheckpointError", "Placeholder", "read_checkpoint", "shown"]

MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001  # of the stream format
SUFFIXES = (".pt", ".pth", ".ckpt", ".tar", ".bin", ".safetensors")
_CHUNK = 16 * 2**20  # bytes read at a time


@dataclass(frozen=True, eq=False, repr=False, slots=True)
class Checkpoint:
    """The content of a file."""

    content: Any
    """Dicts, lists, tuples, sets, numbers, strings, bytes, tensors on the CPU, and Placeholders."""
    globals_met: tuple[str, ...]
    """Names of the functions and classes that the file refers to and that were not called, sorted."""
    format: Literal["zip", "legacy", "safetensors"]


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a file of torch.save (either format, any pickle module) or of safetensors; nothing in it is executed.

    Tensors keep their dtype and share storage as they did. Together they take no more memory than the file has bytes,
    and the rest of its content less than a gigabyte, whatever the file claims. Raises CheckpointError for a file that
    is something else, is cut short or altered, was written on a big-endian machine, or claims more than it has.
    """
    if path.is_dir():
        raise CheckpointError(
            f"{path}: no such file: it is a folder; give the path of the checkpoint file{_files_in(path)}"
        )
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file; give the path of a checkpoint file")
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        head = file.read(HEAD)
        file.seek(0)
        if _is_safetensors(head, size):
            return Checkpoint(_read_safetensors(path), (), "safetensors")
        _refuse_others(path, head)
        storages = Storages(path, size)
        machine = Machine(path, storages)
        if head.startswith(b"PK\x03\x04"):
            return Checkpoint(_read_zip(path, file, machine, storages), machine.foreign, "zip")
        return Checkpoint(_read_stream(path, file, machine, storages), machine.foreign, "legacy")


# What kind of file


def _is_safetensors(head: bytes, size: int) -> bool:
    return head[8:9] == b"{" and 2 <= int.from_bytes(head[:8], "little") <= size - 8


def _refuse_others(path: Path, head: bytes) -> None:
    if not head:
        raise CheckpointError(f"{path}: an empty file; the download failed: fetch it again")
    page = disguise(head)
    if page == "a Git LFS pointer":
        raise CheckpointError(
            f"{path}: a Git LFS pointer, which only names the file; run `git lfs pull` where it was cloned, or "
            "download the file itself"
        )
    if page:
        raise CheckpointError(f"{path}: is {page}, not a checkpoint; the download failed: fetch it again")
    if head[257:262] == b"ustar":
        raise CheckpointError(
            f"{path}: a tar archive. If it is torch's own format of before 2017, load it with torch and save it "
            "again; if checkpoints are packed in it, unpack it"
        )
    if head.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ")):
        raise CheckpointError(f"{path}: a compressed file; unpack it first")
    if unread := unread_format(head, path.name):
        raise CheckpointError(f"{path}: {unread[0]}; unpack it first ({unread[1].partition(' |')[0]})")
    if path.suffix == ".safetensors":
        raise CheckpointError(f"{path}: not a safetensors file, or its header is cut short: fetch it again")
    if not head.startswith((b"PK\x03\x04", b"\x80")):
        raise CheckpointError(
            f"{path}: not a checkpoint: it begins with {head[:16]!r}, which neither torch.save nor safetensors writes"
        )


def _files_in(folder: Path) -> str:
    """The end of a message: files in a folder that may be meant."""
    names = sorted(path.name for path in folder.iterdir() if path.suffix in SUFFIXES)
    return f" in it: {', '.join(map(shown, names[:5]))}{', …' * (len(names) > 5)}" if names else ""


# The three formats


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path}: the safetensors file is cut short or damaged ({shown(str(error))}); fetch it again"
        ) from None


def _read_zip(path: Path, file: IO[bytes], machine: Machine, storages: Storages) -> Any:
    with damage(path, "the zip"), zipfile.ZipFile(file) as archive:
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
                    f"{path}: its part {shown(member.filename)!r} is compressed, which torch.save never does; "
                    "unpack and save it again with torch"
                )
        if folder + "byteorder" in members:
            refuse_big_endian(path, archive.read(folder + "byteorder") != b"big")
        if members[pickles[0]].file_size > PICKLE_BYTES:
            raise CheckpointError(f"{path}: its pickle has more than {PICKLE_BYTES} bytes; it is not a checkpoint")

        def fill(key: str, raw: Tensor) -> None:
            name = f"{folder}data/{key}"
            if name not in members:
                raise CheckpointError(f"{path}: storage {shown(key)!r} is missing from the zip; fetch it again")
            if members[name].file_size != raw.numel():
                raise CheckpointError(
                    f"{path}: storage {shown(key)!r} has {members[name].file_size} bytes where the pickle says "
                    f"{raw.numel()}; the file was altered: fetch it again"
                )
            with archive.open(name) as member:
                _read_into(path, member, key, raw)

        storages.fill = fill
        content = machine.load(io.BytesIO(archive.read(pickles[0])), "its pickle")
    return content


def _read_stream(path: Path, file: IO[bytes], machine: Machine, storages: Storages) -> Any:
    if not _is(MAGIC, machine.load(file, "its header")):
        raise CheckpointError(f"{path}: a pickle, but not one of torch.save; save the state_dict with torch.save")
    if not _is(PROTOCOL, machine.load(file, "its header")):
        raise CheckpointError(f"{path}: not torch's protocol {PROTOCOL}, the only one known; save it again with torch")
    system = machine.load(file, "its header")
    refuse_big_endian(path, isinstance(system, dict) and system.get("little_endian") is True)
    content = machine.load(file, "its pickle")
    keys = machine.load(file, "the list of its storages")
    if not isinstance(keys, list) or {*map(as_key, keys)} != storages.known.keys():
        raise CheckpointError(f"{path}: lists other storages than its tensors use; it was altered: fetch it again")
    for key in keys:
        numel, raw = storages.known[key][1:]
        with damage(path, f"storage {shown(key)!r}"):
            count = int.from_bytes(file.read(8), "little", signed=True)
            if count != numel:
                raise CheckpointError(
                    f"{path}: storage {shown(key)!r} has {count} elements where the pickle says {numel}; "
                    "the file is cut short or altered: fetch it again"
                )
            _read_into(path, file, key, raw)
    return content


def _is(number: int, value: Any) -> bool:
    return type(value) is int and value == number


def _read_into(path: Path, file: IO[bytes], key: str, raw: Tensor) -> None:
    """Fill uint8 [n] from the file's current position, without a second copy of it."""
    array: Any = raw.numpy()
    target, done = memoryview(array), 0
    while done < len(target):
        part = file.read(min(_CHUNK, len(target) - done))
        if not part:
            raise CheckpointError(
                f"{path}: ends after {done} of the {len(target)} bytes of storage {shown(key)!r}; the file is cut "
                "short: fetch it again"
            )
        target[done : done + len(part)] = part
        done += len(part)

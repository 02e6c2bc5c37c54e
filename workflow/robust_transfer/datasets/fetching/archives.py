"""Unpack published archives: nothing leaves the folder, nothing swells without bound, and all of it comes or none.

What members an archive has and which are refused is in `archive_members`, how they are written in `archive_writer`.

An archive is unpacked into `.<its name>.unpacking` in the folder where its content is to lie. Once whole, that is
renamed to `.<its name>.moving`, and each of its names is moved to its place; `.<its name>.unpacked` then says that it
was done.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from robust_transfer.datasets.errors import DatasetError
from robust_transfer.datasets.fetching.archive_members import (
    Limit,
    Member,
    limit_of,
    members_of,
    parts_of,
    reading,
    refusal,
    tar_members,
)
from robust_transfer.datasets.fetching.archive_writer import UnpackingProgress, Writer, check_free
from robust_transfer.datasets.fetching.disk import CHUNK, exclusively, make_folder, not_written, read_object
from robust_transfer.datasets.fetching.web_pages import HEAD, disguise
from robust_transfer.store.entry import StoreError, read_json, write_json

CONTENT, STAMP = "content", "stamp.json"

log = logging.getLogger("robust_transfer")


def unpack(archive: Path, folder: Path, *, limit_bytes: int | None = None, keep: Sequence[str] = ("*",)) -> None:
    """Unpack an archive into a folder, which is made; returns at once if that was done before.

    Archives within it stay as they are. `keep` has patterns of the paths wanted, as in `images/*` (`*` matches `/`
    too). Two members of one name are refused, also where they differ in case and the file system does not tell them
    apart. The archive may be removed afterwards. Raises DatasetError, and then nothing of it lies in the folder.

    `limit_bytes`: most bytes to write; by default 20 times the archive's size and 1 GB.
    """
    names = _Names(archive, folder)
    if _done(names, keep):
        return
    _check_archive(archive)
    make_folder(folder)
    with exclusively(names.lock, f"unpacking {archive}"):
        if _done(names, keep):
            return
        identity = _identity(archive, keep)
        if names.moving.exists() and not (names.moving / STAMP).exists():
            shutil.rmtree(names.moving)  # of a process that was stopped after its last move
        if not names.moving.exists():
            start = time.monotonic()
            with _drafted(names.draft) as draft:
                writer = Writer(archive, draft / CONTENT, limit_of(archive, limit_bytes), folder, keep)
                _write_all(archive, writer)
                write_json(draft / STAMP, {**identity, "names": _listed(writer.root)})
                os.sync()  # or a power cut could leave empty files under final names
                draft.rename(names.moving)
            log.info("%s: %d files in %.0f s", archive, writer.files, time.monotonic() - start)
        _move(names, identity)


def unpack_class_archives(archive: Path, folder: Path, *, limit_bytes: int | None = None) -> None:
    """Unpack a tar of one tar per class, such as ILSVRC2012_img_train.tar, into `folder/<class>/`.

    The inner archives are not written out. A class's folder appears when it is whole, and one that is there is passed
    over, so an interrupted call goes on. Safety, limit and errors are those of `unpack`; after an error, the classes
    before it are there.
    """
    names = _Names(archive, folder)
    if _done(names, ("*",)):
        return
    _check_archive(archive)
    make_folder(folder)
    with exclusively(names.lock, f"unpacking {archive}"):
        if _done(names, ("*",)):
            return
        limit, progress = limit_of(archive, limit_bytes), UnpackingProgress(archive.name)
        classes: set[str] = set()
        with reading(archive):
            for member in members_of(archive, limit):
                if member.kind == "folder" and not parts_of(member.name, archive):
                    continue
                name = _class_of(member, archive)
                if name in classes:
                    raise refusal(archive, member.name, "is there twice")
                classes.add(name)
                if not (folder / name).exists():
                    _unpack_class(archive, member, folder / name, limit)
                progress.tell(f"{len(classes)} classes", limit.written)
        if not classes:
            raise DatasetError(f"{archive}: holds no class archives; expected are tars named <class>.tar")
        _write_json(names.stamp, {**_identity(archive, ("*",)), "names": sorted(classes)})
    log.info("%s: %d classes in %s", archive, len(classes), folder)


class _Names:
    """Where the traces of unpacking an archive into a folder lie."""

    def __init__(self, archive: Path, folder: Path):
        self.archive, self.folder = archive, folder
        self.draft = folder / f".{archive.name}.unpacking"
        self.moving = folder / f".{archive.name}.moving"
        self.stamp = folder / f".{archive.name}.unpacked"
        self.lock = folder / f".{archive.name}.unpacking.lock"


def _done(names: _Names, keep: Sequence[str]) -> bool:
    """Whether this archive was unpacked here, and so; raises DatasetError where another one was, or otherwise."""
    stamp = read_object(names.stamp)
    if not stamp or not set(stamp.get("names", ("",))) <= set(_listed(names.folder)):
        return False  # never, or its content was moved away
    now = _identity(names.archive, keep) if names.archive.exists() else {"keep": list(keep)}
    if stamp != {**stamp, **now}:
        raise DatasetError(
            f"{names.folder}: holds what {names.archive.name} was when it was unpacked there; it has changed since, or "
            f"other parts of it are wanted; move what came of it away, and {names.stamp}, to have it unpacked anew"
        )
    return True


def _identity(archive: Path, keep: Sequence[str]) -> dict[str, Any]:
    """What tells an archive from a changed one: size, and both ends, where formats have names and checksums.

    A time would change with every copy, and a checksum of 138 GB takes minutes whenever a dataset is opened.
    """
    size = archive.stat().st_size
    with open(archive, "rb") as file:
        digest = hashlib.sha256(file.read(CHUNK))
        file.seek(max(0, size - CHUNK))
        digest.update(file.read(CHUNK))
    return {"archive": archive.name, "bytes": size, "ends_sha256": digest.hexdigest(), "keep": list(keep)}


def _check_archive(archive: Path) -> None:
    if not archive.is_file():
        state = "not a file" if archive.exists() else "no such file"
        raise DatasetError(f"{archive}: {state}; put the archive there")
    try:
        with open(archive, "rb") as file:
            head = file.read(HEAD)
    except OSError as error:
        raise DatasetError(f"{archive}: cannot be read ({error.strerror}); allow it") from error
    if not head or (page := disguise(head)):
        raise DatasetError(f"{archive}: {page if head else 'empty'}, not an archive; fetch it again")


def _move(names: _Names, identity: dict[str, Any]) -> None:
    """Move what is whole to its place, going on where an earlier process was stopped at it."""
    stamp = read_json(names.moving / STAMP)
    if stamp != {**stamp, **identity}:
        raise DatasetError(
            f"{names.moving}: left by unpacking another {names.archive.name}, stopped midway; remove it, and move away "
            f"what of {', '.join(stamp['names'][:5])} lies beside it"
        )
    content = names.moving / CONTENT
    for name in _listed(content):
        check_free(names.archive, names.folder, name)
        (content / name).rename(names.folder / name)
    (names.moving / STAMP).replace(names.stamp)
    shutil.rmtree(names.moving)


def _listed(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@contextmanager
def _drafted(draft: Path) -> Iterator[Path]:
    """An empty folder to write into, which is gone afterwards if it is still there."""
    try:
        if draft.exists():
            shutil.rmtree(draft)  # of a process that was killed
        draft.mkdir()
    except OSError as error:
        raise not_written(draft, 0, error) from error
    try:
        yield draft
    except StoreError as error:
        raise DatasetError(str(error)) from error
    except OSError as error:
        raise not_written(draft, 0, error) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _write_all(archive: Path, writer: Writer) -> None:
    with reading(archive):
        for member in members_of(archive, writer.limit):
            writer.add(member)
    writer.finish()


def _class_of(member: Member, archive: Path) -> str:
    parts = parts_of(member.name, archive)
    name = parts[-1].removesuffix(".tar") if parts else ""
    if member.kind != "file" or len(parts) != 1 or name in ("", parts[0]) or name.startswith("."):
        raise refusal(archive, member.name, "is not the tar of a class, <class>.tar")
    return name


def _unpack_class(archive: Path, member: Member, folder: Path, limit: Limit) -> None:
    inner = archive / member.name  # for messages: the archive, and the one in it
    with (
        _drafted(folder.with_name(f".{folder.name}.unpacking")) as draft,
        member.content() as source,
        reading(inner),
    ):
        writer = Writer(inner, draft / folder.name, limit, None, ("*",))
        for found in tar_members(source, inner, "not a tar", seekable=False):
            writer.add(found)
        writer.finish()
        os.sync()  # or a power cut could leave empty files in a finished folder
        writer.root.rename(folder)


def _write_json(path: Path, value: Any) -> None:
    try:
        write_json(path, value)
    except StoreError as error:
        raise DatasetError(str(error)) from error

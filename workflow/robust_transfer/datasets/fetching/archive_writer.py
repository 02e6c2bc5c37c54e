"""Write an archive's members below a new folder.

Folders, regular files with ordinary permissions, and last of all links to members of the archive, so that no file is
written through a link. `__MACOSX` and its content are left out.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from typing import IO

from robust_transfer.datasets.errors import DatasetError
from robust_transfer.datasets.fetching.archive_members import Limit, Member, parts_of, refusal
from robust_transfer.datasets.fetching.disk import CHUNK, Progress, not_written, printable

LONGEST_TARGET = 4096  # bytes of a link's target, PATH_MAX of Linux; one byte more is refused when it is made


class Writer:
    """Writes members below a new folder: regular files first, links when `finish` is called."""

    def __init__(self, archive: Path, root: Path, limit: Limit, folder: Path | None, keep: Sequence[str]):
        self.archive, self.root, self.limit, self.keep = archive, root, limit, keep
        self.folder = folder  # for the content, to see early whether a name is taken
        self.files = 0
        self._links: list[tuple[Member, tuple[str, ...], str]] = []
        self._folders: set[tuple[str, ...]] = {()}
        self._progress = Progress(archive.name)
        root.mkdir()

    def add(self, member: Member) -> None:
        """Write one member; raises DatasetError where it is not to be trusted, is there twice, or cannot be written."""
        parts = parts_of(member.name, self.archive)
        self.limit.count(members=1)
        if not parts and member.kind != "folder":
            raise refusal(self.archive, member.name, "has no name")
        if parts[:1] == ("__MACOSX",) or not any(fnmatchcase("/".join(parts), pattern) for pattern in self.keep):
            return
        if self.folder and (len(parts) == 1 or parts[:1] not in self._folders):
            check_free(self.archive, self.folder, parts[0])
        if member.kind == "folder":
            self._make_folder(parts, member)
            return
        self._make_folder(parts[:-1], member)
        if member.kind == "file":
            self._write(member, self.root.joinpath(*parts))
            self.files += 1
            self._progress.report(self.limit.written, f"{self.files} files unpacked, ")
        else:
            self._links.append((member, parts, self._target(member)))

    def finish(self) -> None:
        """Make the links, once all that they can point to is there."""
        for kind, make in (("hardlink", self._make_hardlink), ("symlink", self._make_symlink)):
            for member, parts, target in self._links:
                if member.kind == kind:
                    make(member, parts, target)
        top = self.root.resolve()
        for member, parts, _ in self._links:
            try:
                inside = top in self.root.joinpath(*parts).resolve(strict=True).parents
            except (OSError, RuntimeError):  # to nothing, or in a circle
                inside = False
            if not inside:
                raise refusal(self.archive, member.name, "is a link to nothing in the archive")
        if not self.files:
            raise DatasetError(
                f"{self.archive}: no file in it matches {', '.join(self.keep)}; fetch it again, or correct keep"
            )

    def _make_folder(self, parts: tuple[str, ...], member: Member) -> None:
        if parts in self._folders:
            return
        self._make_folder(parts[:-1], member)
        self.limit.count(members=1)
        with self._writing(member, self.root.joinpath(*parts)) as path:
            path.mkdir()
        self._folders.add(parts)

    def _write(self, member: Member, path: Path) -> None:
        with member.content() as source:
            with self._writing(member, path):
                file = _created(path)
            with file:
                while chunk := source.read(CHUNK):
                    self.limit.count(written=len(chunk))
                    with self._writing(member, path, len(chunk)):
                        file.write(chunk)
                        file.flush()

    def _target(self, member: Member) -> str:
        """Where a link points, or raises DatasetError. Of `..` only leading ones are known to lead where they say."""
        target = member.target
        if target is None:
            with member.content() as source:
                target = os.fsdecode(source.read(LONGEST_TARGET + 1))
        if not target:
            raise refusal(self.archive, member.name, "is a link to nothing, since its target is empty")
        above = len(parts_of(member.name, self.archive)) - 1 if member.kind == "symlink" else 0
        rest = target
        while above and rest.startswith("../"):
            above, rest = above - 1, rest[3:].lstrip("/")
        if above and rest == "..":
            rest = ""
        try:
            parts_of(rest, self.archive)
        except DatasetError:
            raise refusal(self.archive, member.name, f"is a link out of the folder, to '{printable(target)}'") from None
        return target

    def _make_hardlink(self, member: Member, parts: tuple[str, ...], target: str) -> None:
        source = self.root.joinpath(*parts_of(target, self.archive))
        if not source.is_file():
            raise refusal(self.archive, member.name, "is a link to nothing in the archive")
        with self._writing(member, self.root.joinpath(*parts)) as path:
            path.hardlink_to(source)
        self.files += 1

    def _make_symlink(self, member: Member, parts: tuple[str, ...], target: str) -> None:
        with self._writing(member, self.root.joinpath(*parts)) as path:
            path.symlink_to(target)

    @contextmanager
    def _writing(self, member: Member, path: Path, size: int = 0) -> Iterator[Path]:
        """Turn an error in writing into a DatasetError that names the member."""
        try:
            yield path
        except (FileExistsError, NotADirectoryError):
            raise refusal(self.archive, member.name, "is there twice") from None
        except OSError as error:
            raise DatasetError(
                f"{self.archive}: its member '{printable(member.name)}': {not_written(path, size, error)}"
            ) from error


def _created(path: Path) -> IO[bytes]:
    return open(path, "xb")


def check_free(archive: Path, folder: Path, name: str) -> None:
    """Raise DatasetError where that name is taken in the folder."""
    if os.path.lexists(folder / name):
        there = printable(str(folder / name), 1000)
        raise DatasetError(
            f"{archive}: holds '{printable(name)}', and {there} is there already; move it away, or unpack this archive "
            "into a folder of its own"
        )

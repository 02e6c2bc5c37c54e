"""A file that has not come whole yet: `.<name>.part`, and in `.<name>.part.json` what the server said of the whole.

The two outlive the process, so that another can go on, and what is read again then is hashed again. A part of which
nothing says what file it is of is begun anew.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

from robust_transfer.datasets.errors import DatasetError
from robust_transfer.datasets.fetching.disk import CHUNK, not_written, opened, read_object
from robust_transfer.datasets.fetching.remote_files import RemoteFile
from robust_transfer.datasets.fetching.web_pages import HEAD
from robust_transfer.store.entry import StoreError, write_json


class PartialFile:
    """What has come of a file so far, its checksums, and what the server said of the file it began to send."""

    def __init__(self, file: RemoteFile, target: Path):
        self.path = target.with_name(f".{target.name}.part")
        self.resumed = False
        self._kinds = ("sha256", *file.checksums)
        self._described = target.with_name(f".{target.name}.part.json")
        self._file = opened(self.path)
        self.server: dict[str, Any] = read_object(self._described)
        self._forget()
        known = self.server.get("etag") or self.server.get("last_modified") or file.checksums
        if not known or self.server.get("url") != file.url:  # what is there may be of another file
            self.begin({})
            return
        self._file.seek(0)
        while chunk := self._file.read(CHUNK):
            self._count(chunk)
        self.resumed = self.size > 0

    def range(self) -> dict[str, str]:
        """Headers that ask for the rest, if the file is still the one begun; a weak tag cannot be asked for."""
        if not self.size:
            return {}
        tag, modified = self.server.get("etag"), self.server.get("last_modified")
        same = tag if tag and not tag.startswith("W/") else modified
        return {"Range": f"bytes={self.size}-", **({"If-Range": same} if same else {})}

    def begin(self, server: dict[str, Any]) -> None:
        """Start over, with a file that the server so describes."""
        try:
            self._file.truncate(0)
        except OSError as error:
            raise not_written(self.path, 0, error) from error
        self.resumed, self.server = False, server
        self._forget()
        try:
            write_json(self._described, server)
        except StoreError as error:
            raise DatasetError(str(error)) from error

    def append(self, chunk: bytes) -> None:
        """Write what came next, and count it; raises DatasetError where the disk does not take it."""
        try:
            self._file.write(chunk)
            self._file.flush()
        except OSError as error:
            raise not_written(self.path, len(chunk), error) from error
        self._count(chunk)

    def head(self) -> bytes:
        """Its first bytes, enough for `disguise`."""
        self._file.seek(0)
        return self._file.read(HEAD)

    def checksums(self) -> dict[str, str]:
        """Of all that has come, in hexadecimal digits by kind: sha256, and those that are expected."""
        return {kind: found.hexdigest() for kind, found in self._hashes.items()}

    def publish(self, target: Path) -> None:
        """Give the file its name, once it lies on the disk."""
        try:
            os.fsync(self._file.fileno())
            self.path.replace(target)
            self._described.unlink(missing_ok=True)
            folder = os.open(target.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as error:
            raise not_written(target, self.size, error) from error

    def remove(self) -> None:
        """Leave nothing of it."""
        self.path.unlink(missing_ok=True)
        self._described.unlink(missing_ok=True)

    def close(self) -> None:
        """Leave what has come for a later attempt."""
        self._file.close()

    def _forget(self) -> None:
        self.size = 0
        self._hashes = {kind: hashlib.new(kind, usedforsecurity=False) for kind in self._kinds}

    def _count(self, chunk: bytes) -> None:
        self.size += len(chunk)
        for found in self._hashes.values():
            found.update(chunk)

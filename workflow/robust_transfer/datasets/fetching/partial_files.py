"""A download in progress: `.<name>.part`, and in `.<name>.part.json` what the server said of the whole file.

Both outlive the process, so that another can resume. A partial file is started over where nothing says which file it is
a part of.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from robust_transfer.datasets.errors import DatasetError
from robust_transfer.datasets.fetching.disk import not_written, opened, read_object
from robust_transfer.datasets.fetching.remote_files import RemoteFile
from robust_transfer.store.entry import StoreError, write_json


class PartialFile:
    """The bytes of a file that have been downloaded so far, and what the server said of the file."""

    def __init__(self, file: RemoteFile, target: Path):
        self.path = target.with_name(f".{target.name}.part")
        self._described = target.with_name(f".{target.name}.part.json")
        self._file = opened(self.path)
        self.server: dict[str, Any] = read_object(self._described)
        """`url`, `etag`, `last_modified` and `bytes`; empty where they are not known."""
        known = self.server.get("etag") or self.server.get("last_modified") or file.checksums
        if not known or self.server.get("url") != file.url:  # its bytes may be of another file
            self.restart({})
        self.size = self.path.stat().st_size
        self.resumed = self.size > 0
        """Whether its bytes come from more than one response."""

    def range(self) -> dict[str, str]:
        """Headers that request the rest, if the server still has the same file; a weak tag cannot be asked for."""
        if not self.size:
            return {}
        tag, modified = self.server.get("etag"), self.server.get("last_modified")
        same = tag if tag and not tag.startswith("W/") else modified
        return {"Range": f"bytes={self.size}-", **({"If-Range": same} if same else {})}

    def restart(self, server: dict[str, Any]) -> None:
        """Remove all bytes; what follows is of the file that the server describes so."""
        try:
            self._file.truncate(0)
            write_json(self._described, server)
        except OSError as error:
            raise not_written(self.path, 0, error) from error
        except StoreError as error:
            raise DatasetError(str(error)) from error
        self.size, self.resumed, self.server = 0, False, server

    def append(self, chunk: bytes) -> None:
        """Write the bytes that follow; raises DatasetError where the disk refuses them."""
        try:
            self._file.write(chunk)
            self._file.flush()
        except OSError as error:
            raise not_written(self.path, len(chunk), error) from error
        self.size += len(chunk)

    def publish(self, target: Path) -> None:
        """Give the file its name, once its bytes are on the disk."""
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
        """Remove it from the disk."""
        self.path.unlink(missing_ok=True)
        self._described.unlink(missing_ok=True)

    def close(self) -> None:
        """Leave it for a later attempt."""
        self._file.close()

"""Download a published file completely and verified, or not at all.

Why not a library: archives here are of gigabytes, on hosts that drop connections. pooch 1.9 deletes what it has when an
attempt or the process ends, checks neither the free space nor what kind of file comes, and two processes fetch the
same file twice; huggingface_hub 2.4 resumes within one process, downloads anew in the next, and only warns of a full
disk. Neither remembers which file a partial download is of, so neither can tell that the file has changed since.

Here a file is downloaded to `.<name>.part`, beside `.<name>.part.json` with what the server said of it. A later
attempt, in this process or another, resumes there where the server allows it and still has the same file. Size and
checksums are verified before the file gets its name, and `.<name>.verified` records that they were. What looks like a
web page, an error message or a Git LFS pointer is refused even where no checksum is known.

Proxies are those of the environment (https_proxy, no_proxy). Per gigabyte, SHA-256 takes 2.5 s and MD5 5 s (one
busy core of an AMD EPYC).
"""

from __future__ import annotations

import logging
import re
import shutil
import ssl
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from http.client import HTTPException
from itertools import chain
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import Request, build_opener

from robust_transfer import quantities
from robust_transfer.datasets.errors import DatasetError
from robust_transfer.datasets.fetching.disk import CHUNK, Progress, exclusively, make_folder
from robust_transfer.datasets.fetching.partial_files import PartialFile
from robust_transfer.datasets.fetching.remote_files import RemoteFile, examine, remember, verify
from robust_transfer.datasets.fetching.web_pages import HEAD, MAY_HOLD, disguise

__all__ = ["RemoteFile", "fetch"]

PAUSES = (2.0, 10.0, 30.0, 60.0)
"""Seconds before each new attempt, counted anew whenever the partial file has grown: together long enough for a router
to restart, short enough that a job does not wait for a server that is down for the day."""
TIMEOUT = 60.0
"""Seconds without a byte after which a connection counts as lost; twice what pooch allows, for hosts that are busy."""
LONGEST_PAUSE = 600.0
"""Seconds; a server that asks for a longer pause with Retry-After is asked again after this one."""
TEMPORARY = (408, 425, 429, 500, 502, 503, 504)
"""Status codes of errors that may be gone a little later."""

log = logging.getLogger("robust_transfer")


def fetch(file: RemoteFile, folder: Path, *, timeout: float = TIMEOUT, pauses: Sequence[float] = PAUSES) -> Path:
    """Return the file's path in `folder`, after downloading it if it is not there; creates the folder.

    A file that is there is verified (once, while its size and time stay the same) and never replaced. Lost connections
    and temporary errors of the server are followed by a new attempt after each of `pauses` (seconds); `timeout` is in
    seconds without a byte. A second process that wants the same file waits for the first. Raises DatasetError, and
    then there is no file.
    """
    target = folder / file.name
    if not target.exists():  # a finished file needs no lock, so the folder may be read-only
        make_folder(folder)
        with exclusively(folder / f".{file.name}.part.lock", file.url):
            if not target.exists():
                _Download(file, target, timeout).run(pauses)
    verify(file, target)
    return target


class _AttemptError(Exception):
    """An attempt failed, and another may succeed."""

    def __init__(self, reason: str, pause: float = 0.0):
        super().__init__(reason)
        self.pause = pause  # seconds that the server asks for


class _Download:
    """The download of one file."""

    def __init__(self, file: RemoteFile, target: Path, timeout: float):
        self.file, self.target, self.timeout = file, target, timeout
        self.reached = False  # whether the server has answered in this process
        self.by_hand = f"download it in a browser and put it at {target}"

    def run(self, pauses: Sequence[float]) -> None:
        """Download, verify, give the file its name. A file assembled from several answers that is wrong is downloaded
        once more from its beginning."""
        start = time.monotonic()
        with closing(PartialFile(self.file, self.target)) as part:
            if not (self.file.checksums and part.size == self.file.bytes and not examine(self.file, part.path)[0]):
                self._complete(part, pauses)
            difference, checksums = examine(self.file, part.path, "sha256")
            if difference and part.resumed:
                log.warning("%s: assembled from several answers, and %s", self.file.url, difference)
                part.restart({})
                self._complete(part, pauses)
                difference, checksums = examine(self.file, part.path, "sha256")
            if difference:
                part.remove()
                raise DatasetError(
                    f"{self.file.url}: what was downloaded {difference}, and was removed; try again, and if that "
                    "happens again, the file at this address has changed: correct what is expected, or put the right "
                    f"file at {self.target}"
                )
            part.publish(self.target)
            size = self.target.stat().st_size
        remember(self.target, checksums)
        log.info("%s: %s in %s", self.target, quantities.size(size), quantities.duration(time.monotonic() - start))
        if not self.file.checksums:
            log.info("%s: no checksum is known of it; its sha256 is %s", self.target, checksums["sha256"])

    def _complete(self, part: PartialFile, pauses: Sequence[float]) -> None:
        """Attempt until the server has sent everything; raises DatasetError where another attempt is of no use."""
        largest, waits = part.size, iter(pauses)
        while True:
            try:
                self._attempt(part)
                return
            except _AttemptError as error:
                if part.size > largest:
                    largest, waits = part.size, iter(pauses)
                pause = next(waits, None)
                if pause is None:
                    raise DatasetError(
                        f"{self.file.url}: given up ({error}) with {part.size:,} bytes downloaded, which are kept; "
                        f"run it again later to resume, or {self.by_hand}"
                    ) from error
                pause = max(pause, min(error.pause, LONGEST_PAUSE))
                log.warning("%s: %s; trying again in %.0f s", self.file.url, error, pause)
                time.sleep(pause)

    def _attempt(self, part: PartialFile) -> None:
        """Request what is missing and append it."""
        headers = {"User-Agent": "robust-transfer", "Accept-Encoding": "identity", **part.range()}
        try:
            response = build_opener().open(Request(self.file.url, headers=headers), timeout=self.timeout)
        except HTTPError as error:
            with error:
                self.reached = True
                return self._refused(error, part)
        except (OSError, HTTPException) as error:
            raise self._unanswered(error) from error
        with response:
            self.reached = True
            total = self._begin(response, part)
            chunks = _chunks(response)
            first = next(chunks, b"")
            if part.size == 0 and (page := disguise(first, self.file.name)):
                raise self._page(page, part)
            self._check_size(total, part)
            progress = Progress(self.file.name, part.size, total)
            for chunk in chain([first], chunks):
                part.append(chunk)
                progress.report(part.size)
                if part.size > (self.file.bytes or part.size):
                    break  # longer than expected, which the examination reports
        if total is not None and part.size < total:
            raise _AttemptError(f"the connection was lost after {part.size:,} of {total:,} bytes")

    def _begin(self, response: Any, part: PartialFile) -> int | None:
        """Prepare the partial file for the body of a response; the size of the whole file, if the server gives it."""
        headers = response.headers
        if headers.get_content_type() == "text/html" and not self.file.name.lower().endswith(MAY_HOLD["an HTML page"]):
            raise self._page("an HTML page", part)
        if urlsplit(self.file.url).scheme == "https" != urlsplit(response.url).scheme and not self.file.checksums:
            raise DatasetError(
                f"{self.file.url}: redirects to {response.url}, without encryption, where anyone on the way can change "
                f"the file, and no checksum is known; give its checksum, or {self.by_hand}"
            )
        length = headers.get("Content-Length", "")
        server: dict[str, Any] = {
            "url": self.file.url,
            "etag": headers.get("ETag"),
            "last_modified": headers.get("Last-Modified"),
            "bytes": int(length) if length.isdecimal() else None,
        }
        if getattr(response, "status", None) != 206:  # the whole file, whatever was requested; file: has no status
            part.restart(server)
            total: int | None = server["bytes"]
            return total
        place = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", headers.get("Content-Range", ""))
        server["bytes"] = int(place[2]) if place and place[2] != "*" else None
        changed = [key for key, value in server.items() if value and part.server.get(key) and value != part.server[key]]
        if not place or int(place[1]) != part.size or changed:
            part.restart({})
            raise _AttemptError("the server sent a part of another file, so the download starts over")
        part.resumed = True
        total = server["bytes"] or part.server.get("bytes")
        return total

    def _refused(self, error: HTTPError, part: PartialFile) -> None:
        """Handle an error status; returns where it says that the partial file is complete."""
        status = f"the server answers {error.code} {error.reason}"
        if error.code == 416 and part.size:
            if error.headers.get("Content-Range", "").strip() == f"bytes */{part.size}":
                part.resumed = True
                return
            part.restart({})
            raise _AttemptError("the partial file is longer than the server's, so the download starts over")
        if error.code in TEMPORARY:
            pause = error.headers.get("Retry-After", "")
            raise _AttemptError(status, float(pause) if pause.isdecimal() else 0.0)
        raise DatasetError(f"{self.file.url}: {status}; correct the address, or {self.by_hand}")

    def _unanswered(self, error: Exception) -> Exception:
        """What to raise where no response came: a DatasetError if the server has never answered and will not."""
        reason = error.reason if isinstance(error, URLError) else error
        lost = isinstance(reason, ConnectionError) and not isinstance(reason, ConnectionRefusedError)
        if isinstance(reason, ssl.SSLCertVerificationError):
            return DatasetError(f"{self.file.url}: its certificate is not trusted ({reason}); {self.by_hand}")
        if isinstance(error, URLError) and not self.reached and not lost:
            return DatasetError(
                f"{self.file.url}: could not be reached ({reason}); check the connection, or put the file at "
                f"{self.target} by other means"
            )
        return _AttemptError(f"could not be reached ({reason or type(reason).__name__})")

    def _check_size(self, total: int | None, part: PartialFile) -> None:
        """Raise DatasetError before the body is downloaded, where it is not the expected file or does not fit."""
        if total is None:
            return
        if self.file.bytes not in (None, total):
            part.remove()
            raise DatasetError(
                f"{self.file.url}: the server has {total:,} bytes where {self.file.bytes:,} are expected, so the file "
                f"has changed; correct what is expected, or put the right file at {self.target}"
            )
        free = shutil.disk_usage(self.target.parent).free
        if total - part.size > free:
            raise DatasetError(
                f"{self.target}: {total - part.size:,} bytes are missing and {free:,} bytes are free; make room there "
                "or choose another folder"
            )

    def _page(self, page: str, part: PartialFile) -> DatasetError:
        if not part.size:
            part.remove()
        return DatasetError(
            f"{self.file.url}: the server sends {page} instead of {self.file.name}, to ask for a confirmation or a "
            f"login or to say that the file is gone; {self.by_hand}"
        )


def _chunks(response: Any) -> Iterator[bytes]:
    """The body of a response; the first chunk is long enough for `disguise`, unless it is all."""
    try:
        chunk = response.read(HEAD)
        while chunk:
            yield chunk
            chunk = response.read1(CHUNK)
    except (OSError, HTTPException) as error:
        raise _AttemptError(f"the connection was lost ({error or type(error).__name__})") from error

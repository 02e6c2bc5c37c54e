"""Fetch a published file whole and as expected, or not at all.

A file comes into `.<name>.part`, with what the server said of it in `.<name>.part.json`; a later attempt, also of
another process, goes on from there where the server allows it and still has the same file. Size and checksums are
verified before the file gets its name, and `.<name>.verified` remembers that they were. What looks like a web page, an
error message or a Git LFS pointer is refused even where no checksum is known.

Proxies are those of the environment (https_proxy, no_proxy). Checksums cost about a second a gigabyte.
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

from robust_transfer.datasets.errors import DatasetError
from robust_transfer.datasets.fetching.disk import CHUNK, PROGRESS_SECONDS, exclusively, make_folder
from robust_transfer.datasets.fetching.partial_files import PartialFile
from robust_transfer.datasets.fetching.remote_files import RemoteFile, remember, verify
from robust_transfer.datasets.fetching.web_pages import HEAD, MAY_HOLD, disguise

__all__ = ["RemoteFile", "fetch"]

PAUSES = (2.0, 10.0, 30.0, 60.0)
"""Seconds before each new attempt; counted anew whenever more of the file has come than ever before."""
TIMEOUT = 60.0  # seconds without a byte
LONGEST_PAUSE = 600.0  # seconds; what a server asks for with Retry-After is followed up to this
PASSING = (408, 425, 429, 500, 502, 503, 504)
"""Status codes that may be gone a little later."""

log = logging.getLogger("robust_transfer")


def fetch(file: RemoteFile, folder: Path, *, timeout: float = TIMEOUT, pauses: Sequence[float] = PAUSES) -> Path:
    """Return the file's path in `folder`, after fetching it if it is not there; makes the folder.

    A file that is there is checked (once, while its size and time stay) and never replaced. Interrupted downloads and
    passing errors of the server are tried again after `pauses` seconds; `timeout` is in seconds without a byte. A
    second process that wants the same file waits for the first. Raises DatasetError, and then there is no file.
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
    """An attempt ended early, and another may do better."""

    def __init__(self, reason: str, pause: float = 0.0):
        super().__init__(reason)
        self.pause = pause  # seconds that the server asks for


class _Download:
    """One file on its way to its place."""

    def __init__(self, file: RemoteFile, target: Path, timeout: float):
        self.file, self.target, self.timeout = file, target, timeout
        self.reached = False  # has the server answered, this time?
        self.by_hand = f"fetch it by hand, in a browser, and put it at {target}"

    def run(self, pauses: Sequence[float]) -> None:
        """Fetch, verify, publish. A download that was pieced together and is wrong is fetched once more, in one go."""
        with closing(PartialFile(self.file, self.target)) as part:
            start = time.monotonic()
            self._complete(part, pauses)
            if part.resumed and self._wrong(part):
                log.warning("%s: what was pieced together is not the file (%s)", self.file.url, self._wrong(part))
                part.begin({})
                self._complete(part, pauses)
            if wrong := self._wrong(part):
                part.remove()
                raise DatasetError(
                    f"{self.file.url}: came as {wrong}, and was removed; try again, and if it comes so again, "
                    f"the file behind this address has changed: correct what is expected, or put the right file at "
                    f"{self.target}"
                )
            part.publish(self.target)
            remember(self.target, part.checksums())
        log.info("%s: %s in %.0f s", self.target, _size(part.size), time.monotonic() - start)
        if not self.file.checksums:
            log.info("%s: no checksum is known of it; its sha256 is %s", self.target, part.checksums()["sha256"])

    def _wrong(self, part: PartialFile) -> str:
        """How what has come is not the file; empty where it is."""
        if not part.size and self.file.bytes != 0:
            return "nothing at all"
        return disguise(part.head(), self.file.name) or self.file.differences(part.size, part.checksums())

    def _complete(self, part: PartialFile, pauses: Sequence[float]) -> None:
        """Attempt until all has come; raises DatasetError when it is no use."""
        best, waits = part.size, iter(pauses)
        if self.file.checksums and part.size == self.file.bytes and not self._wrong(part):
            return  # stopped between the last byte and the new name
        while True:
            try:
                self._attempt(part)
                return
            except _AttemptError as error:
                if part.size > best:
                    best, waits = part.size, iter(pauses)
                pause = next(waits, None)
                if pause is None:
                    raise DatasetError(
                        f"{self.file.url}: given up ({error}) with {part.size:,} bytes fetched, which are kept; "
                        f"run it again later to go on, or {self.by_hand}"
                    ) from error
                pause = max(pause, min(error.pause, LONGEST_PAUSE))
                log.warning("%s: %s; trying again in %.0f s", self.file.url, error, pause)
                time.sleep(pause)

    def _attempt(self, part: PartialFile) -> None:
        """Ask for what is missing and append it."""
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
            chunks = self._chunks(response)
            first = next(chunks, b"")
            if part.size == 0 and (page := disguise(first, self.file.name)):
                raise self._page(page, part)
            self._check_size(total, part)
            progress = _Progress(self.file.name, part.size, total)
            for chunk in chain([first], chunks):
                part.append(chunk)
                progress.tell(part.size)
                if part.size > (self.file.bytes or part.size):
                    break  # longer than it may be; told when verified
        if total is not None and part.size < total:
            raise _AttemptError(f"the connection was lost after {part.size:,} of {total:,} bytes")

    def _begin(self, response: Any, part: PartialFile) -> int | None:
        """Make the part ready for the body of an answer; how many bytes the file has in all, if the server says so."""
        headers = response.headers
        if headers.get_content_type() == "text/html" and not self.file.name.lower().endswith(MAY_HOLD["an HTML page"]):
            raise self._page("an HTML page", part)
        if urlsplit(self.file.url).scheme == "https" != urlsplit(response.url).scheme and not self.file.checksums:
            raise DatasetError(
                f"{self.file.url}: leads to {response.url}, which anyone between can change, and no checksum is known; "
                f"give its checksum, or {self.by_hand}"
            )
        length = headers.get("Content-Length", "")
        server: dict[str, Any] = {
            "url": self.file.url,
            "etag": headers.get("ETag"),
            "last_modified": headers.get("Last-Modified"),
            "bytes": int(length) if length.isdecimal() else None,
        }
        if getattr(response, "status", None) != 206:  # all of it, whatever was asked for; `file` has no status
            part.begin(server)
            return int(length) if length.isdecimal() else None
        place = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", headers.get("Content-Range", ""))
        server["bytes"] = int(place[2]) if place and place[2] != "*" else None
        changed = [key for key, value in server.items() if value and part.server.get(key) and value != part.server[key]]
        if not place or int(place[1]) != part.size or changed:
            part.begin({})
            raise _AttemptError("the rest that came is not of the file begun, so it is fetched anew")
        part.resumed = True
        total: int | None = server["bytes"] or part.server.get("bytes")
        return total

    def _refused(self, error: HTTPError, part: PartialFile) -> None:
        """Deal with a status that is an error; returns where it means that all has come."""
        status = f"the server answers {error.code} {error.reason}"
        if error.code == 416 and part.size:
            if error.headers.get("Content-Range", "").strip() == f"bytes */{part.size}":
                part.resumed = True
                return
            part.begin({})
            raise _AttemptError("more has come than the server has, so it is fetched anew")
        if error.code in PASSING:
            pause = error.headers.get("Retry-After", "")
            raise _AttemptError(status, float(pause) if pause.isdecimal() else 0.0)
        raise DatasetError(f"{self.file.url}: {status}; correct the address, or {self.by_hand}")

    def _unanswered(self, error: Exception) -> Exception:
        """What to raise where no answer came: an end, where nothing has come since the start and nothing would."""
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

    def _chunks(self, response: Any) -> Iterator[bytes]:
        """The body as it comes; the first chunk is long enough to tell what it is, unless it is all."""
        held = b""
        while True:
            try:
                chunk = response.read1(CHUNK)
            except (OSError, HTTPException) as error:
                if held:
                    yield held
                raise _AttemptError(f"the connection was lost ({error or type(error).__name__})") from error
            if not chunk:
                break
            held += chunk
            if len(held) >= HEAD:
                yield held
                held = b""
        yield held

    def _check_size(self, total: int | None, part: PartialFile) -> None:
        """Raise DatasetError before the body is fetched, where it cannot be the file, or cannot be held."""
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
                f"{self.target}: {total - part.size:,} bytes are to come and {free:,} bytes are free; make room there "
                "or choose another folder"
            )

    def _page(self, page: str, part: PartialFile) -> DatasetError:
        if not part.size:
            part.remove()
        return DatasetError(
            f"{self.file.url}: the server sends {page} instead of {self.file.name}: to confirm, to log in or to say "
            f"that it is gone; {self.by_hand}"
        )


class _Progress:
    """A line in the log every few seconds."""

    def __init__(self, name: str, size: int, total: int | None):
        self.name, self.total = name, total
        self.start, self.first = time.monotonic(), size
        self.last_logged = self.start

    def tell(self, size: int) -> None:
        now = time.monotonic()
        if now - self.last_logged < PROGRESS_SECONDS:
            return
        self.last_logged, rate = now, (size - self.first) / max(now - self.start, 1e-9)
        done = f"{_size(size)} of {_size(self.total)}" if self.total else _size(size)
        left = f", {(self.total - size) / max(rate, 1.0):.0f} s left" if self.total else ""
        log.info("%s: %s, %.1f MB/s%s", self.name, done, rate / 1e6, left)


def _size(count: int) -> str:
    return f"{count / 1e6:,.1f} MB"

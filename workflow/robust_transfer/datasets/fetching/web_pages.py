"""Recognise what a server sends in place of a file: a web page, an error message or a Git LFS pointer.

Servers send such a page with status 200 when a file is gone, when it takes a login or a confirmation, or behind a
hotel's network; saved under the file's name it would pass for an archive or for weights.
"""

from __future__ import annotations

import codecs
import re
from typing import Literal

HEAD = 4096
"""Bytes at the beginning of a file that `disguise` wants: room for a comment in front of a page's first tag."""

Disguise = Literal["an HTML page", "an XML message", "a JSON message", "a Git LFS pointer"]

MAY_HOLD: dict[Disguise, tuple[str, ...]] = {
    "an HTML page": (".html", ".htm", ".xhtml"),
    "an XML message": (".xml", ".svg", ".html", ".htm", ".xhtml"),
    "a JSON message": (".json", ".jsonl", ".ndjson", ".geojson", ".ipynb"),
    "a Git LFS pointer": (),
}
"""Suffixes of names under which each is the file that was asked for."""

# The byte order marks of UTF-8, UTF-32 and UTF-16, and the encodings that they announce; UTF-32's begins as UTF-16's.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_PRECEDING = re.compile(r"\s*(?:<!--.*?-->\s*|<\?.*?\?>\s*)*", re.DOTALL)
"""What may stand before the first tag: white space, comments, an XML declaration and processing instructions."""
_HTML = re.compile(
    r"<!doctype\s+html\b|<(?:html|head|body|title|meta|link|script|style|iframe|h1|div|font|table|center|a|b|br|p)"
    r"(?=[\s/>]|$)|<!--"
)
"""The beginnings that browsers take for HTML (MIME Sniffing, section 7.1, https://mimesniff.spec.whatwg.org), with
title's companions `meta`, `link` and `center`; `<!--` opens a comment that is longer than what was read."""


def disguise(head: bytes, name: str = "") -> Disguise | None:
    """What was sent in place of the file of that name, judging by its first HEAD bytes; None if it looks right.

    A page that is asked for by its name, such as `index.html`, is no disguise.
    """
    kind = _kind(_text(head))
    return None if kind is None or name.lower().endswith(MAY_HOLD[kind]) else kind


def _text(head: bytes) -> str:
    """The beginning as text in lower case, without byte order mark and leading white space."""
    head = head.lstrip(b" \t\r\n\f")
    for mark, encoding in _MARKS:
        if head.startswith(mark):
            return head.decode(encoding, "replace").lstrip("\ufeff \t\r\n\f").lower()  # some servers add a second
    return head.decode("latin-1").lower()


def _kind(text: str) -> Disguise | None:
    if text.startswith("version https://git-lfs"):
        return "a Git LFS pointer"
    if re.match(r'\{\s*"', text):
        return "a JSON message"
    if not text.startswith("<"):
        return None
    first_tag = text[_PRECEDING.match(text).end() :]  # type: ignore[union-attr]  # it matches the empty string too
    if _HTML.match(first_tag):
        return "an HTML page"
    return "an XML message" if text.startswith("<?xml") or first_tag.startswith(("<!doctype", "<error")) else None

"""Files within the page, as addresses that hold all of their content."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from pathlib import Path

TYPES = {
    "svg": "image/svg+xml",
    "png": "image/png",
    "jpg": "image/jpeg",
    "pdf": "application/pdf",
    "csv": "text/csv",
    "tex": "application/x-tex",
    "md": "text/markdown",
    "html": "text/html",
    "json": "application/json",
    "yaml": "application/yaml",
}


@dataclass(frozen=True)
class Download:
    """A file in the page itself."""

    name: str
    label: str
    uri: str

    @classmethod
    def of(cls, path: Path, content: bytes | None = None) -> Download:
        """The file at a path, or this content under its name."""
        content = path.read_bytes() if content is None else content
        label = {"tex": "LaTeX", "md": "Markdown"}.get(path.suffix[1:], path.suffix[1:].upper())
        return cls(path.name, label, data_uri(path.suffix[1:], content))


def data_uri(suffix: str, content: bytes) -> str:
    """The content as an address."""
    return f"data:{TYPES[suffix]};base64,{base64.b64encode(content).decode()}"

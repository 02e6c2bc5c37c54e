"""What was found out about modules' texts, kept beside Python's own byte code: no job parses what another has parsed.

It is a function of the text and of the code that finds it out, so both digests are the key and nothing can be out of
date. As with byte code, a folder that cannot be written costs time and nothing else.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

LARGEST = 2**20
"""Bytes; a file that has grown beyond begins anew."""


class Remembered:
    """Results by text, in `__pycache__` of the module that asks."""

    def __init__(self, module: Path, depends_on: Iterable[Path]) -> None:
        """Read what is known; `depends_on` are the files whose code finds it out."""
        code = hashlib.sha256(b"\0".join(path.read_bytes() for path in depends_on)).hexdigest()[:16]
        self._path = module.parent / "__pycache__" / f"{module.stem}.{sys.implementation.cache_tag}-{code}.json"
        self._known: dict[str, Any] = {}
        self._is_new = False
        with contextlib.suppress(OSError, ValueError):
            if self._path.stat().st_size <= LARGEST:
                found = json.loads(self._path.read_text())
                self._known = found if isinstance(found, dict) else {}

    def of(self, path: Path, find_out: Callable[[], Any]) -> Any:
        """What is known of a file's text, JSON values; else what `find_out` returns."""
        key = hashlib.sha256(path.read_bytes()).hexdigest()
        if key not in self._known:
            self._known[key] = find_out()
            self._is_new = True
        return self._known[key]

    def save(self) -> None:
        """Write what was found out, in one piece, where that can be and Python may write byte code."""
        if not self._is_new or sys.dont_write_bytecode:
            return
        self._is_new = False
        draft = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        with contextlib.suppress(OSError):
            self._path.parent.mkdir(exist_ok=True)
            draft.write_text(json.dumps(self._known))
            draft.replace(self._path)

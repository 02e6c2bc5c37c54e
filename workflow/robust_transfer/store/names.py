"""Finished entries by parts of their names, so that nobody has to type a hash."""

from __future__ import annotations

import re
from pathlib import Path

from robust_transfer.store.entry import StoreError, finished
from robust_transfer.store.finished import entry_name
from robust_transfer.store.upkeep import MOVED_ASIDE, entries_in

SHOWN = 6
"""So many entries are named where words fit several."""


def named_entry(words: str, store: Path, *, holding: str) -> Path:
    """The folder of the one finished entry that has the file `holding` and that these words name.

    `words` is the folder itself, or words with spaces between them, all of which are in `<stage>/<name>-<hash>`. A word
    is whole between two of `_`, `-` and `/`: `eps0` is not in `eps0.4`, and `eps0_seed0` is in `eps0_seed0_on_coarse`.
    Raises StoreError, saying which entries there are, if the words name none or several.
    """
    if Path(words).is_dir():
        return Path(words)
    sought = [re.compile(rf"(?:^|[/_-]){re.escape(word)}(?:$|[/_-])") for word in words.split()]
    there = [
        path
        for path in entries_in([store])
        if (path / holding).exists() and finished(path) and not MOVED_ASIDE.search(path.name)
    ]
    found = [path for path in there if all(word.search(entry_name(path)) for word in sought)]
    if len(found) == 1 and sought:
        return found[0]
    if not found:
        raise StoreError(
            f"{words}: neither a folder nor the name of a finished entry with {holding}; {store} has {len(there)} of "
            f"them{_listed(there)}"
        )
    raise StoreError(
        f"{words}: {len(found)} entries of {store} are named so; add a word of one of them{_listed(found)}"
    )


def _listed(paths: list[Path]) -> str:
    lines = [f"\n  {entry_name(path)}" for path in paths[:SHOWN]]
    return "".join(
        [*(lines and [":"]), *lines, *([f"\n  and {len(paths) - SHOWN} more"] if len(paths) > SHOWN else [])]
    )

"""What an entry keeps for good: `.finished`, a folder with everything the job that made the entry has published.

Snakemake deletes declared outputs: before it runs a job again, after a job that failed, and where it finds a marker of
an interrupted run. It does not know of this folder. Outputs are published from it as hard links, which take no space,
or as copies where the file system has no links. So a job that starts on a finished entry publishes it again, in no
time, instead of computing it.

The folder appears by one rename of the draft, with `card.json` and `timing.json` inside.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

CARD, TIMING = "card.json", "timing.json"
DRAFT, FINISHED = ".draft", ".finished"
_REPLACED = ".finished.replaced"


def entry_name(path: Path) -> str:
    """Name of the entry at `path`, as inputs and tables have it: `probing/<name>-<hash>`."""
    return f"{path.parent.name}/{path.name}"


def read_card(path: Path) -> dict[str, Any] | None:
    """The card of the entry at `path`: the published one, else the kept one; None if there is neither."""
    return _card(path / CARD) or kept_card(path)


def card_and_checksum(path: Path) -> tuple[dict[str, Any] | None, str | None]:
    """What `read_card` reads, and the SHA-256 of the published card or, if there is none, of the kept one."""
    for file in (path / CARD, path / FINISHED / CARD):
        try:
            text = file.read_bytes()
        except FileNotFoundError:
            continue
        return _parsed(text) or kept_card(path), hashlib.sha256(text).hexdigest()
    return None, None


def kept_card(path: Path) -> dict[str, Any] | None:
    """The card in `.finished` of the entry at `path`; None if there is none."""
    return _card(path / FINISHED / CARD)


def content(card: Mapping[str, Any]) -> str:
    """Twelve hexadecimal digits over what an entry gives to those made from it: its files' checksums and its facts.

    Not over the code and the versions behind it: made anew to the same bytes, an entry is the same.
    """
    given = json.dumps({"files": card["files"], "facts": card["facts"]}, sort_keys=True)
    return hashlib.sha256(given.encode()).hexdigest()[:12]


def contents(store: Path, inputs: Mapping[str, str]) -> dict[str, str]:
    """By role, the content of the entries (as paths below the store) that an entry is made from and that are made."""
    cards = {role: read_card(store / entry) for role, entry in inputs.items()}
    return {role: content(card) for role, card in cards.items() if card}


def same_inputs(card: Mapping[str, Any], now: Mapping[str, str]) -> bool:
    """Whether an entry was made from inputs of this content; True for a card that does not say."""
    before = card.get("inputs", {})
    return all(before[role] == one for role, one in now.items() if role in before)


def missing_outputs(path: Path, card: Mapping[str, Any]) -> list[str]:
    """Names of published outputs that the card lists and that are not there."""
    with os.scandir(path) as found:  # one call for all: plans ask this of thousands of entries
        there = {one.name for one in found if one.is_file()}
    return [name for name in (CARD, TIMING, *card["files"]) if name not in there]


def damaged(folder: Path, card: Mapping[str, Any]) -> list[str]:
    """Names of files in `folder` that are missing or not as the card describes. Reads all of them."""
    return [name for name, recorded in card["files"].items() if not _is_as_recorded(folder / name, recorded)]


def keep(path: Path, draft: Path, aside: bool) -> None:
    """Make a complete draft, which holds its card, the entry's `.finished`.

    What was there before is lost, or with `aside`, if it differs, becomes a folder beside the entry.
    """
    kept, before, now = path / FINISHED, kept_card(path), _card(draft / CARD)
    if kept.exists():
        aside = aside and before is not None and now is not None and content(before) != content(now)
        replaced = free_name(path) if aside else path / _REPLACED
        kept.rename(replaced)
        if aside:
            shutil.copy2(path / "entry.json", replaced)
    draft.rename(kept)
    flush(path)
    shutil.rmtree(path / _REPLACED, ignore_errors=True)


def recover(path: Path) -> None:
    """Finish what a job was killed over in `keep`: a draft with a card is complete."""
    if not (path / FINISHED).exists() and _card(path / DRAFT / CARD):
        (path / DRAFT).rename(path / FINISHED)


def publish(path: Path) -> None:
    """Link the files of `.finished` into the entry, the card last: an entry with a card is whole."""
    kept = path / FINISHED
    names = sorted(one.name for one in kept.iterdir() if one.name != CARD)
    shown = [name for name in (*names, CARD) if _is_same(kept / name, path / name)]
    if len(shown) == len(names) + 1:
        return
    (path / CARD).unlink(missing_ok=True)
    for name in (*names, CARD):
        if name not in shown or name == CARD:
            _link(kept / name, path / name)
    flush(path)


def keep_published(path: Path) -> None:
    """Give an entry that was made before there was `.finished` that folder."""
    card = _card(path / CARD)
    if card is None or (path / FINISHED).exists() or missing_outputs(path, card):
        return
    draft = path / f"{FINISHED}.{os.getpid()}"
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir()
    for name in (TIMING, *card["files"], CARD):
        _link(path / name, draft / name)
    draft.rename(path / FINISHED)


def free_name(path: Path) -> Path:
    """A folder beside the entry that is not there yet, to move what it replaces to: `<entry>.old1`, `.old2`, …"""
    number = 1
    while (free := path.with_name(f"{path.name}.old{number}")).exists():
        number += 1
    return free


def flush(path: Path) -> None:
    """Have a file, or the names in a folder, written to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256(path: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _card(path: Path) -> dict[str, Any] | None:
    try:
        return _parsed(path.read_bytes())
    except FileNotFoundError:
        return None


def _parsed(text: bytes) -> dict[str, Any] | None:
    try:
        card = json.loads(text)
    except ValueError:
        return None
    return card if isinstance(card, dict) and {"files", "facts"} <= card.keys() else None


def _is_as_recorded(path: Path, recorded: Mapping[str, Any]) -> bool:
    return path.exists() and path.stat().st_size == recorded["bytes"] and sha256(path) == recorded["sha256"]


def _is_same(one: Path, other: Path) -> bool:
    return other.exists() and one.samefile(other)


def _link(source: Path, target: Path) -> None:
    """Make `target` a hard link of `source`, or a copy where that cannot be, in one piece."""
    draft = target.with_name(f".{target.name}.{os.getpid()}")
    draft.unlink(missing_ok=True)
    try:
        draft.hardlink_to(source)
    except OSError:
        shutil.copy2(source, draft)
        flush(draft)
    draft.replace(target)

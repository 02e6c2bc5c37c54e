"""Markdown documents as tests read them: fenced blocks, headings, links."""

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from support.paths import ROOT

DOCUMENTS = tuple(
    sorted(
        [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), ROOT / "benchmarks/README.md", ROOT / "published/README.md"]
    )
)


@dataclass(frozen=True)
class Block:
    """A fenced block: the words after its opening fence, and what is in it."""

    document: Path
    words: tuple[str, ...]
    text: str


def blocks(document: Path, *words: str) -> list[Block]:
    """The fenced blocks of a document whose opening fence says these words, and perhaps more."""
    found = re.findall(r"^```([^\n]*)\n(.*?)^```$", document.read_text(), re.M | re.S)
    every = [Block(document, tuple(head.split()), text) for head, text in found]
    return [block for block in every if block.words[: len(words)] == words]


def prose(document: Path) -> str:
    """A document without its fenced blocks."""
    return re.sub(r"^```.*?^```$", "", document.read_text(), flags=re.M | re.S)


def anchors(document: Path) -> set[str]:
    """The anchors of a document's headings, as GitHub makes them."""
    counts: Counter[str] = Counter()
    found = set()
    for heading in re.findall(r"^#+ +(.+?) *$", prose(document), re.M):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        slug = "".join(c for c in plain.lower() if c.isalnum() or c in "-_ ").replace(" ", "-")
        found.add(f"{slug}-{counts[slug]}" if counts[slug] else slug)
        counts[slug] += 1
    return found


def rows(document: Path, first: str) -> list[list[str]]:
    """The cells of the table whose head begins with the cell `first`, without head and rule."""
    for table in re.findall(r"(?:^\|.*\n)+", prose(document), re.M):
        lines = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in table.splitlines()]
        if lines[0][0] == first:
            return lines[2:]
    raise AssertionError(f"{document}: no table whose head begins with {first}")

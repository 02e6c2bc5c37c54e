"""What of an experiment is to be made again, found out from what is recorded beside it and nothing else.

Snakemake's own metadata may be lost, or of another checkout, and its markers and times may tell of interrupted runs
and copied files rather than of what changed. So an input that stays as it is is `ancient`, and what does not is found
here: an entry's card says what code made it and from what, and so do the records of tables and figures
(`store/made.py`).

An entry of a cheap stage is stale if the code of its stage means something else by now. Any entry is stale if what it
was made from is something else by now, or if files of it are missing. What is made from a stale entry is made again
too, since only then is known whether the entry has changed: where it has not, the job publishes what was finished.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from robust_transfer.dag.about import about
from robust_transfer.dag.experiment_file import describe
from robust_transfer.dag.grid import Grid, PlannedEntry
from robust_transfer.registry import COLLECTED, FIGURES, STAGES
from robust_transfer.store.entry import CARD, sha256
from robust_transfer.store.fingerprint import changed_modules, fingerprint, module_fingerprints
from robust_transfer.store.finished import card_and_checksum, content, kept_card, missing_outputs
from robust_transfer.store.made import code_of, digest, digest_of_cards, digest_of_claims, made, page_made_from

NAMED = 5
"""Modules that a line names at most."""


@dataclass(frozen=True)
class Reason:
    """Why an entry is to be made again."""

    kind: Literal["new", "outputs", "inputs", "code", "follows"]
    """Not there; files are missing; made from something else; by other code; what it is made from is made again."""
    modules: frozenset[str] = frozenset()
    """Those that differ."""
    names: tuple[str, ...] = ()
    """Of the files that are missing, or the roles of the inputs that are something else or are made again."""


@dataclass(frozen=True)
class Product:
    """Tables, a figure or the summary, to be made again."""

    before: Mapping[str, str] | None
    """What they were made from, as `store/made.py` records it; None without a record, or if files are not as it has."""
    now: Mapping[str, str]
    """What they are to be made from; the checksum of a table that is itself made again is empty."""

    @property
    def other_code(self) -> bool:
        """Whether their code has changed."""
        return self.before is not None and self.before["code"] != self.now["code"]


class Stale:
    """What of a grid's entries and products is not as it should be, by id and by name."""

    def __init__(self, grid: Grid, store: Path, results: Path) -> None:
        self._grid, self._store, self._results = grid, store, results
        self._contents: dict[str, str | None] = {}  # by id, of entries that stay as they are
        self._checksums: dict[str, str | None] = {}  # by id, of cards
        self.kept: dict[str, set[str]] = {}  # by id of expensive entries that other code made: its modules
        self.entries: dict[str, Reason] = {}
        for entry in grid.entries.values():
            if reason := self._reason(entry):
                self.entries[entry.id] = reason
        self.products = dict(self._stale_products())

    def files(self) -> list[str]:
        """A declared output of every job that is to run again."""
        shown = {f"figure_{name}": f"figures/{name}.{figure.suffixes[0]}" for name, figure in FIGURES.items()}
        shown |= COLLECTED
        cards = [self._store / entry / CARD for entry in self.entries]
        return [str(file) for file in (*cards, *(self._results / shown[product] for product in self.products))]

    def notices(self) -> list[str]:
        """One line for each stage with entries that are made again, or kept although other code made them."""
        return [*self.kept_notices(), *self._again_notices()]

    def _reason(self, entry: PlannedEntry) -> Reason | None:
        path, stage = self._store / entry.id, STAGES[entry.stage]
        card, self._checksums[entry.id] = card_and_checksum(path)
        if card is None:
            return Reason("new")
        made_from = {role: self._contents.get(one.id) for role, one in entry.inputs.items()}
        before = card.get("inputs", {})
        if other := tuple(role for role, now in made_from.items() if now and before.get(role, now) != now):
            return Reason("inputs", names=other)
        if card.get("code") != fingerprint(entry.stage):
            modules = module_fingerprints(entry.stage)
            changed = changed_modules(card.get("modules", modules), modules)
            if not stage.expensive:
                return Reason("code", frozenset(changed))
            if changed:
                self.kept[entry.id] = changed
        if again := tuple(role for role, now in made_from.items() if now is None):
            return Reason("follows", names=again)
        if missing := missing_outputs(path, card):
            return Reason("outputs" if kept_card(path) else "new", names=tuple(missing))
        self._contents[entry.id] = content(card)
        return None

    def _stale_products(self) -> Iterator[tuple[str, Product]]:
        """Tables, figures and summary, and of each what it was made from and is to be made from."""
        entries = digest_of_cards(self._store, self._grid.entries, self._checksums)
        now = {"code": fingerprint("results"), "experiment": digest(describe(self._grid)), "entries": entries}
        before = made(self._results, "results")
        if stale := bool(self.entries) or before != now:
            yield "results", Product(before, now)
        drawn = {f"figure_{name}": FIGURES[name] for name in self._grid.experiment.figures.draw}
        reads = {name: {"table": f"{figure.table}.parquet"} for name, figure in drawn.items()}
        reads["claims"] = {"results": "results.parquet"}
        reads["report"] = {"results": "results.parquet", "flags": "flags.csv"}
        changed = stale
        for product, files in reads.items():
            now = {"code": fingerprint(code_of(product))}
            now |= {name: "" if stale else sha256(self._results / file) for name, file in files.items()}
            now |= {"claims": digest_of_claims()} if product == "claims" else {}
            if (before := made(self._results, product)) != now:
                changed = True
                yield product, Product(before, now)
        now = page_made_from(self._results, about(self._grid), self._checksums) | ({"files": ""} if changed else {})
        if (before := made(self._results, "page")) != now:
            yield "page", Product(before, now)

    def _by_stage(self, stage: str, *kinds: str) -> list[Reason]:
        return [one for entry, one in self.entries.items() if entry.startswith(f"{stage}/") and one.kind in kinds]

    def _again_notices(self) -> Iterator[str]:
        for name, stage in STAGES.items():
            of = f"of {len(self._grid.stage(name))}"
            if found := self._by_stage(name, "code"):
                yield f"{name}: {len(found)} {of} made again (changed since: {named(*(one.modules for one in found))})"
            if found := self._by_stage(name, "inputs"):
                yield f"{name}: {len(found)} {of} made again (what they were made from is not what it was)"
            if found := self._by_stage(name, "outputs"):
                yield f"{name}: {len(found)} {of} published again (files are missing; they were finished)"
            if stage.expensive and (found := self._by_stage(name, "follows")):
                yield f"{name}: {len(found)} {of} made again if what they are made from turns out another"
        if changed := [product for product, one in self.products.items() if one.other_code]:
            yield f"tables and figures: {len(changed)} made again, since their code has changed: {listed(changed)}"

    def kept_notices(self) -> Iterator[str]:
        """One line for each stage with entries that are kept although other code made them."""
        for name in STAGES:
            if found := [modules for entry, modules in self.kept.items() if entry.startswith(f"{name}/")]:
                yield (
                    f"{name}: kept {len(found)} of {len(self._grid.stage(name))} entries made by other code "
                    f"(changed since: {named(*found)}); to make one anew: robust-transfer store renew "
                    f"{self._store / name}/<entry>"
                )


def named(*modules: frozenset[str] | set[str]) -> str:
    """Names of modules, a few where there are many."""
    return listed(sorted(frozenset().union(*modules)))


def listed(names: list[str]) -> str:
    """Names, a few where there are many."""
    more = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {more} more" if more > 0 else "")

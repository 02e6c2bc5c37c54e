"""The command `why`: what would run again, and for which reason in words.

    robust-transfer why --configfile experiments/mine.yaml
    robust-transfer why store/probing/<entry>
    robust-transfer why figure_width

What would run is what `dag/stale.py` finds, from which Snakemake plans too: both say the same. What is explained here
is why: which setting went from which value to which, which code changed, which input gives something else, which file
is missing.
"""

from __future__ import annotations

import functools
import json
from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path

from robust_transfer.configuration.load import ConfigurationError
from robust_transfer.dag.experiment_file import describe
from robust_transfer.dag.grid import PlannedEntry
from robust_transfer.dag.nearest import Store
from robust_transfer.dag.stale import Product, Reason
from robust_transfer.dag.wiring import Wiring
from robust_transfer.registry import STAGES
from robust_transfer.store.definitions import CODE, changed_code
from robust_transfer.store.entry import STATE
from robust_transfer.store.fingerprint import module_fingerprints
from robust_transfer.store.finished import free_name, read_card
from robust_transfer.store.made import CODE as MADE_CODE
from robust_transfer.store.made import MADE, code_of, made_by_modules
from robust_transfer.store.upkeep import holder

INDENT = "  "
READ = ("table", "results", "flags", "claims", "files", "sheets", "layout")
"""What a figure, the ledger, the summary or the page is made of, as `store/made.py` records it."""


def why(wiring: Wiring, target: str | None = None) -> list[str]:
    """Lines that say what would run, and why; for a target only what it needs.

    A target is an entry, by its path or its name below the store, a stage, or one of `results`, `claims`,
    `report`, `page`, `figure_<name>`. Raises ConfigurationError for anything else.
    """
    return _Why(wiring).lines(target)


class _Why:
    def __init__(self, wiring: Wiring) -> None:
        self._grid, self._store, self._results = wiring.grid, wiring.store, wiring.results
        self._stale, self._wiring, self._finished = wiring.stale, wiring, Store(wiring.store)

    def lines(self, target: str | None) -> list[str]:
        figures = (f"figure_{name}" for name in self._grid.experiment.figures.draw)
        products = ["results", "claims", *figures, "report", "page"]
        if target is None or target == "all":
            return self._overview(self._grid.entries, products)
        if target in products:
            return self._overview(self._grid.entries, ["results", *([target] if target != "results" else [])])
        if target in STAGES:
            return self._overview(self._upstream(self._grid.stage(target).values()), ())
        return list(self._of_entry(self._entry(target, products), 0))

    def _entry(self, target: str, products: Collection[str]) -> PlannedEntry:
        """The entry that a name or a path, also of a file in the entry, means."""
        for entry in (target, *self._below_store(Path(target))):
            if entry in self._grid.entries:
                return self._grid.entries[entry]
        raise ConfigurationError(
            f"{target}: not of experiment {self._grid.experiment.experiment}; `why` takes an entry "
            f"(`robust-transfer entries` lists them), a stage ({', '.join(STAGES)}) or one of {', '.join(products)}"
        )

    def _below_store(self, path: Path) -> Iterator[str]:
        path, store = path.absolute(), self._store.absolute()
        if path.is_relative_to(store):
            yield "/".join(path.relative_to(store).parts[:2])

    def _upstream(self, entries: Collection[PlannedEntry]) -> dict[str, PlannedEntry]:
        found: dict[str, PlannedEntry] = {}
        waiting = list(entries)
        while waiting:
            entry = waiting.pop()
            if entry.id not in found:
                found[entry.id] = entry
                waiting += entry.inputs.values()
        return found

    def _overview(self, entries: Collection[str], products: Collection[str]) -> list[str]:
        again = [entry for entry in self._stale.entries if entry in entries]
        made = [product for product in products if product in self._stale.products]
        lines = [*self._by_reason(again), *(f"{one}: {self._why_made(one)}" for one in made)]
        jobs = Counter(entry.partition("/")[0] for entry in again) | Counter(made)
        count = ", ".join(f"{name} {number}" for name, number in jobs.items())
        total = (
            f"{jobs.total()} job{'s' if jobs.total() > 1 else ''} would run: {count}"
            if jobs
            else "nothing would run again"
        )
        return [*lines, *self._kept(entries), total]

    def _by_reason(self, again: Collection[str]) -> Iterator[str]:
        """One line for each stage and reason."""
        of_stage = Counter(entry.stage for entry in self._grid.entries.values())
        groups: dict[tuple[str, str], list[tuple[str, str]]] = {}
        for entry in again:
            reason, example = self._reason(self._grid.entries[entry])
            groups.setdefault((entry.partition("/")[0], reason), []).append((entry, example))
        for (stage, reason), found in groups.items():
            example = next((one for _, one in found if one), "")
            which = f" ({found[0][0].partition('/')[2]})" if len(found) < of_stage[stage] else ""
            yield f"{stage}: {len(found)} of {of_stage[stage]}{which} {reason}{example}"

    def _of_entry(self, entry: PlannedEntry, depth: int) -> Iterator[str]:
        """An entry's reason, and below it those of what it is made from."""
        if entry.id not in self._stale.entries:
            kept = next(iter(self._kept([entry.id])), "")
            yield f"{entry.id}: stays as it is"
            yield from [f"{INDENT}{kept}"] if kept else []
            return
        yield f"{INDENT * depth}{entry.id}: {''.join(self._reason(entry))}"
        for one in dict.fromkeys(entry.inputs.values()):
            if one.id in self._stale.entries:
                yield from self._of_entry(one, depth + 1)

    def _reason(self, entry: PlannedEntry) -> tuple[str, str]:
        """Why an entry is to be made again, and of which finished entry that can be told."""
        reason = self._stale.entries[entry.id]
        if reason.kind == "new":
            return self._new(entry, reason)
        if reason.kind == "outputs":
            return f"published again, not computed: {', '.join(reason.names)} missing, finished before", ""
        if reason.kind == "inputs":
            return f"made again: what it was made from gives something else by now ({_listed(reason.names)})", ""
        if reason.kind == "code":
            return f"made again: changed code: {self._code(entry)}", ""
        return f"made again if what it is made from turns out another ({_listed(reason.names)})", ""

    def _new(self, entry: PlannedEntry, reason: Reason) -> tuple[str, str]:
        path = self._store / entry.id
        made_first = sorted({role.rstrip("0123456789") for role, one in entry.inputs.items() if self._is_new(one)})
        why = [f"what it is made from is to be made ({_listed(made_first)})"] if made_first else []
        if reason.names:
            return f"to be made: {', '.join(reason.names)} missing, and nothing was kept", ""
        if writer := holder(path):
            return f"to be made: {writer} is writing it", ""
        if (path / STATE).exists():
            return "to be made: under way, goes on from the state that was saved", ""
        if free_name(path).name != f"{path.name}.old1":
            return f"to be made: the one before was moved aside, to {path.name}.old*", ""
        nearest = self._finished.nearest(entry)
        if nearest is None or (nearest.entry.name != entry.name and (made_first or not nearest.settings)):
            return f"to be made: {' and '.join(why) or 'the store does not have it'}", ""
        if not made_first and nearest.inputs:
            why.append(f"what it is made from is another ({_listed(nearest.inputs)})")
        told = ", ".join([*nearest.settings, *why]) or "no finished one has its hash"
        return f"to be made: {told}", f" (from {nearest.entry.folder})" if nearest.settings else ""

    def _is_new(self, entry: PlannedEntry) -> bool:
        return entry.id in self._stale.entries and self._stale.entries[entry.id].kind == "new"

    def _kept(self, entries: Collection[str]) -> Iterator[str]:
        """Expensive entries that other code made, and those whose originals are others by now."""
        groups: dict[tuple[str, str], int] = Counter()
        for entry in self._stale.kept:
            if entry in entries:
                groups[entry.partition("/")[0], self._code(self._grid.entries[entry])] += 1
        for (stage, code), number in groups.items():
            yield f"{stage}: {number} kept, though made by other code: {code}; `store renew` has one made anew"
        yield from (line for line in self._wiring.original_notices if line.partition(":")[0] in entries)

    def _code(self, entry: PlannedEntry) -> str:
        card = read_card(self._store / entry.id) or {}
        return self._named_code(entry.stage, json.dumps(card.get("modules"), sort_keys=True))

    @functools.cache  # noqa: B019, this object lives as long as the command
    def _named_code(self, code: str, before: str) -> str:
        modules = json.loads(before)
        folders = (self._store / CODE, self._results / MADE / MADE_CODE)
        changed = changed_code(modules, module_fingerprints(code), folders) if modules else []
        return ", ".join(changed) or "which module is not recorded"

    def _why_made(self, product: str) -> str:
        """Why tables, a figure or the summary are made again."""
        found = self._stale.products[product]
        if found.before is None:
            return f"to be made: {self._files_missing(product)}"
        reasons = list(self._product_reasons(product, found))
        return f"made again: {' and '.join(reasons)}"

    def _product_reasons(self, product: str, found: Product) -> Iterator[str]:
        before, now = found.before or {}, found.now
        if found.other_code:
            modules = json.dumps(made_by_modules(self._results, product), sort_keys=True)
            yield f"changed code: {self._named_code(code_of(product), modules)}"
        if before.get("experiment") != now.get("experiment"):
            yield f"the experiment is another ({', '.join(self._experiment_keys()) or 'see experiment.json'})"
        if product == "results" and (self._stale.entries or before.get("entries") != now.get("entries")):
            yield "entries it collects are " + ("made again" if self._stale.entries else "others")
        if others := [name for name in READ if name in now and before.get(name) != now[name]]:
            yield "what it is drawn from is " + ("made again" if not now[others[0]] else "another")
        if before.get("about") != now.get("about"):
            yield "settings or texts that it shows are others"

    def _files_missing(self, product: str) -> str:
        record = self._results / MADE / f"{product}.json"
        try:
            files = list(json.loads(record.read_text())["files"])
        except (OSError, ValueError, KeyError, TypeError):
            return "not made yet"
        missing = [name for name in files if not (self._results / name).exists()]
        return f"{', '.join(missing)} missing" if missing else f"{', '.join(files)}: not as it was written"

    def _experiment_keys(self) -> list[str]:
        """Keys of the experiment file that say something else than before."""
        try:
            before = json.loads((self._results / "experiment.json").read_text())
        except (OSError, ValueError):
            return []
        now = json.loads(json.dumps(describe(self._grid)))
        told = {"entries": "what is measured", "costs": "its entries"}
        return [told.get(key, key) for key in now if before.get(key) != now[key]]


def _listed(names: Collection[str]) -> str:
    """`backbone, dataset`; runs in numbered roles by their one name."""
    return ", ".join(dict.fromkeys(name.rstrip("0123456789") for name in names))

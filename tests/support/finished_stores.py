"""An experiment whose entries and tables are all made, in a second: by the store itself, with the text of their names.

Planning sees what it sees of a real one: every declared file, cards with checksums, fingerprints of today's code.
"""

import re
from collections.abc import Mapping
from pathlib import Path

from robust_transfer.claims.writing import SUFFIXES
from robust_transfer.dag.about import about
from robust_transfer.dag.experiment_file import describe
from robust_transfer.dag.wiring import Wiring
from robust_transfer.registry import FIGURES
from robust_transfer.store.entry import open_entry, sha256
from robust_transfer.store.fingerprint import fingerprint
from robust_transfer.store.made import digest, digest_of_cards, digest_of_claims, page_made_from, write_made

from support.paths import ROOT

TABLES = ("results.parquet", "timings.parquet", "training.parquet", "flags.csv", "backbones.csv")


def outputs(stage: str) -> list[str]:
    """What a stage's rule declares, less the card and the timing, which the store writes."""
    text = (ROOT / "rules" / f"{stage}.smk").read_text().partition("output:")[2].partition("log:")[0]
    return [name for name in re.findall(r'"\{entry\}" / "([^"]+)"', text) if name not in ("card.json", "timing.json")]


def finish(wiring: Wiring) -> None:
    """Make all of an experiment."""
    wiring.write_entries()
    for entry in wiring.grid.entries:
        make(wiring, entry)
    collect(wiring)


def make(wiring: Wiring, entry: str, content: str = "") -> None:
    """Make one entry."""
    with open_entry(wiring.store / entry).writing() as draft:
        for name in outputs(entry.partition("/")[0]):
            draft.file(name).write_text(content or f"{name} of {entry}")


def collect(wiring: Wiring) -> None:
    """Make tables, figures and the summary."""
    results, grid = wiring.results, wiring.grid
    made_from = {"code": fingerprint("results"), "experiment": digest(describe(grid))}
    _write(results, "results", made_from | {"entries": digest_of_cards(wiring.store, grid.entries)}, *TABLES)
    for name in grid.experiment.figures.draw:
        table = sha256(results / f"{FIGURES[name].table}.parquet")
        files = [f"figures/{name}.{suffix}" for suffix in FIGURES[name].suffixes]
        _write(results, f"figure_{name}", {"code": fingerprint(f"figures/{name}"), "table": table}, *files)
    made_from = {"code": fingerprint("claims"), "results": sha256(results / TABLES[0]), "claims": digest_of_claims()}
    _write(results, "claims", made_from, *(f"claims.{suffix}" for suffix in SUFFIXES))
    made_from = {"code": fingerprint("report"), "results": sha256(results / TABLES[0])}
    _write(results, "report", made_from | {"flags": sha256(results / TABLES[3])}, "summary.txt")
    _write(results, "page", page_made_from(results, about(grid)), "index.html")


def _write(results: Path, product: str, made_from: Mapping[str, str], *names: str) -> None:
    for name in names:
        (results / name).parent.mkdir(parents=True, exist_ok=True)
        (results / name).write_text(name)
    write_made(results, product, made_from, [results / name for name in names])

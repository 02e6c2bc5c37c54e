"""What the files of one experiment were made from: `results/<experiment>/.made/<product>.json`.

A product is what one job makes: the tables (`results`), a figure (`figure_width`), the summary (`report`). Its record
holds the fingerprint of the code, digests of what was read, and checksums of the files. It is written last.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from robust_transfer.configuration.claims import claim_files
from robust_transfer.registry import FIGURES
from robust_transfer.store.definitions import record_definitions
from robust_transfer.store.entry import CARD, write_json
from robust_transfer.store.fingerprint import fingerprint, module_fingerprints
from robust_transfer.store.finished import FINISHED, damaged, sha256

MADE = ".made"
CODE = "code"
"""Folder in `.made` with what modules defined when a product was made."""


def digest(described: Any) -> str:
    """Twelve hexadecimal digits that change when the description, JSON values, does."""
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()[:12]


def digest_of_cards(store: Path, entries: Iterable[str], known: Mapping[str, str | None] | None = None) -> str:
    """Twelve hexadecimal digits that change when the card of one of these entries does, or comes or goes.

    `known` has the SHA-256 of cards that have been read just now, None for those that are not there.
    """
    found = {}
    for entry in entries:
        if known and entry in known:
            found[entry] = known[entry]
            continue
        published, kept = store / entry / CARD, store / entry / FINISHED / CARD
        card = published if published.exists() else kept
        found[entry] = sha256(card) if card.exists() else None
    return digest(found)


def digest_of_files(folder: Path, names: Iterable[str]) -> str:
    """Twelve hexadecimal digits that change when one of these files in a folder does, or comes or goes."""
    paths = {name: folder / name for name in names}
    return digest({name: sha256(path) if path.exists() else None for name, path in paths.items()})


def page_reads(figures: Iterable[str]) -> list[str]:
    """Files of the results folder that the page shows, beside `about.json`."""
    tables = [
        "results.parquet",
        "training.parquet",
        "timings.parquet",
        "backbones.csv",
        "flags.csv",
        "claims.json",
        "claims.csv",
    ]
    return [*tables, *(f"figures/{name}.{suffix}" for name in figures for suffix in FIGURES[name].suffixes)]


def digest_of_layout() -> str:
    """Twelve hexadecimal digits that change when the page's template, style or script does."""
    return digest_of_files(Path(__file__).parents[1] / "page", ("page.html.j2", "page.css", "page.js"))


def page_made_from(
    folder: Path, described: Mapping[str, Any], known: Mapping[str, str | None] | None = None
) -> dict[str, str]:
    """What the page in a results folder is made from; `described` is its `about.json`, `known` as for cards above."""
    made_from = {"code": fingerprint("page"), "about": digest(described), "layout": digest_of_layout()}
    if sheets := [entry for kind in ("galleries", "stylized") for entry in described.get(kind, {}).get("entries", ())]:
        made_from["sheets"] = digest_of_cards(Path(described["configuration"]["store"]), sheets, known)
    return made_from | {"files": digest_of_files(folder, page_reads(described.get("figures", ())))}


def digest_of_claims() -> str:
    """Twelve hexadecimal digits that change when a file of claims does, or comes or goes."""
    return digest({file.name: sha256(file) for file in claim_files()})


def write_made(folder: Path, product: str, made_from: Mapping[str, str], files: Iterable[Path]) -> None:
    """Record in the results folder `folder` what a product's files were made from."""
    described = {
        str(file.relative_to(folder)): {"bytes": file.stat().st_size, "sha256": sha256(file)} for file in files
    }
    (folder / MADE).mkdir(exist_ok=True)
    code = code_of(product)
    record_definitions(folder / MADE / CODE, code)
    record = {"made_from": dict(made_from), "modules": module_fingerprints(code), "files": described}
    write_json(folder / MADE / f"{product}.json", record)


def code_of(product: str) -> str:
    """The name by which `fingerprint` knows the code behind a product: `figures/width` for `figure_width`."""
    figure = product.removeprefix("figure_")
    return f"figures/{figure}" if figure in FIGURES and figure != product else product


def made_by_modules(folder: Path, product: str) -> dict[str, str] | None:
    """Fingerprint of each module that a product was made by; None if that is not recorded."""
    try:
        modules = json.loads((folder / MADE / f"{product}.json").read_text())["modules"]
        return {str(name): str(one) for name, one in modules.items()}
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
        return None


def made(folder: Path, product: str) -> dict[str, str] | None:
    """What a product was made from; None if there is no record, or a file is missing or not as recorded."""
    try:
        record = json.loads((folder / MADE / f"{product}.json").read_text())
        found = {str(name): str(value) for name, value in record["made_from"].items()}
        return None if damaged(folder, record) else found
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
        return None

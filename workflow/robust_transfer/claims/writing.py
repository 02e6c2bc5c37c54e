"""The files of the ledger: CSV and JSON for programs, and a table in LaTeX, HTML and Markdown.

`docs/claims.md` says what the columns are.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from robust_transfer.claims.ledger import Verdict, answer
from robust_transfer.claims.words import effect_text, needed_text, place, reasons
from robust_transfer.figures import html, latex, markdown
from robust_transfer.figures.labels import p_text
from robust_transfer.figures.tables import Cell, Table, TableRow

SUFFIXES = ("csv", "json", "html", "tex", "md")
COLUMNS = (
    "experiment", "family", "claim", "statement", "paper", "published", "level", "verdict", "protocol", "basis",
    "effect", "unit", "ci_low", "ci_high", "n", "n_of", "target", "arch", "eps", "comparisons", "required", "agreeing",
    "p", "p_adjusted", "needed", "remarks", "missing",
)  # fmt: skip
CAPTION = "Verdicts on claims"
NOTE = (
    "Effect: of the comparison that decides, positive where it speaks for the claim, with its 95 % interval. On: how "
    "many comparisons agree with the claim by their values, of all; in brackets on how many it is claimed. p: "
    "two-sided, adjusted by Holm's method for all claims of a file."
)
Record = dict[str, Any]


def records(experiment: str, verdicts: Sequence[Verdict]) -> list[Record]:
    """The ledger as plain values, a record with `COLUMNS` for each claim; None where there is nothing."""
    return [_record(experiment, one) for one in verdicts]


def _record(experiment: str, verdict: Verdict) -> Record:
    claim, one = verdict.claim, verdict.deciding
    return {
        "experiment": experiment,
        "family": verdict.family,
        "claim": verdict.name,
        "statement": claim.statement,
        "paper": claim.paper or None,
        "published": claim.published or None,
        "level": verdict.level,
        "verdict": verdict.outcome,
        "protocol": verdict.protocol or None,
        "basis": verdict.basis or None,
        "effect": one and one.effect,
        "unit": one and one.unit,
        "ci_low": one and _number(one.low),
        "ci_high": one and _number(one.high),
        "n": one and one.n,
        "n_of": one and (one.kind or None),
        "target": one and one.target,
        "arch": one and (one.arch or None),
        "eps": one and (one.eps or None),
        "comparisons": len(verdict.comparisons),
        "required": verdict.required,
        "agreeing": verdict.agreeing,
        "p": _number(verdict.p),
        "p_adjusted": _number(verdict.p_adjusted),
        "needed": verdict.needed,
        "remarks": " ".join(verdict.remarks) or None,
        "missing": reasons(verdict) or None,
    }


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value


def write(stem: Path, experiment: str, verdicts: Sequence[Verdict]) -> None:
    """Write `stem`.csv, .json, .html, .tex and .md; the same verdicts give the same bytes."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    texts = {
        "json": _json(experiment, verdicts),
        "html": html.document(*_tables(verdicts, named=False)),
        "tex": latex.document(*_tables(verdicts, named=True)),
        "md": markdown.document(*_tables(verdicts, named=False)),
    }
    for suffix, text in texts.items():
        stem.with_name(f"{stem.name}.{suffix}").write_text(text, encoding="utf-8")
    with stem.with_name(f"{stem.name}.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        for record in records(experiment, verdicts):
            writer.writerow({name: _text(value) for name, value in record.items()})


def _text(value: object) -> object:
    return f"{value:.6g}" if isinstance(value, float) else value


def _json(experiment: str, verdicts: Sequence[Verdict]) -> str:
    """The answer, and each claim with all its comparisons."""
    described = [
        {**record, "comparisons": [_comparison(asdict(one)) for one in verdict.comparisons]}
        for record, verdict in zip(records(experiment, verdicts), verdicts, strict=True)
    ]
    content = {"experiment": experiment, "answer": answer(verdicts), "claims": described}
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def _comparison(fields: Record) -> Record:
    return {name: None if isinstance(value, float) and math.isnan(value) else value for name, value in fields.items()}


def _tables(verdicts: Sequence[Verdict], *, named: bool) -> tuple[list[Table], list[str]]:
    """The table of claims that could be tested, and notes; `named`: by name, with the statements below."""
    measured = [one for one in verdicts if one.comparisons]
    rows = [TableRow((one.name if named else one.claim.statement,), _cells(one)) for one in measured]
    columns = ["Verdict", "On", "Effect", "Basis", "n", "p", "Would decide"]
    tables = [Table.of(rows, ["Claim"], columns, CAPTION)] if rows else []
    notes = [*[answer(verdicts)] * bool(answer(verdicts)), NOTE]
    notes += [f"{one.name}: {one.claim.statement}" for one in measured if named]
    remarks: dict[str, list[str]] = {}
    for one in measured:
        for remark in one.remarks:
            remarks.setdefault(remark, []).append(one.name)
    notes += [f"{remark} ({', '.join(names)})" for remark, names in remarks.items()]
    notes += [f"Not measured: {one.name}: {reasons(one)}." for one in verdicts if not one.comparisons]
    return tables, notes


def _cells(verdict: Verdict) -> list[Cell]:
    one, decided = verdict.deciding, verdict.outcome in ("holds", "fails")
    p = "" if math.isnan(verdict.p_adjusted) else p_text(verdict.p_adjusted)
    return [
        Cell(verdict.outcome, bold=decided),
        Cell(f"{verdict.agreeing} of {len(verdict.comparisons)} ({verdict.required})"),
        Cell(effect_text(verdict), place(one) if one and len(verdict.comparisons) > 1 else ""),
        Cell(verdict.basis),
        Cell(str(one.n) if one and one.kind else ""),
        Cell(p),
        Cell(needed_text(verdict).removeprefix("about ").removesuffix(" would decide")),
    ]

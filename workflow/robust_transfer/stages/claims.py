"""Stage claims: a verdict on every claim, from the results table.

    python -m robust_transfer claims results/<name>/results.parquet --out results/<name>/claims

Reads the table and the files of `claims/`; writes the ledger as .csv, .json, .html, .tex and .md. The command alone,
`robust-transfer claims <experiment>` or `robust-transfer claims published`, prints it. It takes 4 s on one core of an
AMD EPYC, 2 of them imports.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from robust_transfer.claims.ledger import Verdict, ledger
from robust_transfer.claims.lookup import Measured
from robust_transfer.claims.published import published_table
from robust_transfer.claims.words import ledger_text
from robust_transfer.claims.writing import write
from robust_transfer.configuration.claims import read_claims
from robust_transfer.tables.experiment_info import ExperimentInfo
from robust_transfer.tables.published import PUBLISHED
from robust_transfer.tables.results import read_results


def claims_text(table: str | Path, files: Sequence[Path] = ()) -> str:
    """The ledger of a results table, or of `published`, as text; `files` of claims in place of those in `claims/`.

    Raises TableError as `read_results` does, ConfigurationError for a mistake in a file of claims.
    """
    about, verdicts = _verdicts(table, files)
    return ledger_text(about.title or about.experiment, about.notice, verdicts)


def write_claims(table: str | Path, stem: Path, files: Sequence[Path] = ()) -> None:
    """Write the ledger of a results table, or of `published`, to `stem` with each suffix. Raises as `claims_text`."""
    about, verdicts = _verdicts(table, files)
    write(stem, about.experiment, verdicts)


def _verdicts(table: str | Path, files: Sequence[Path]) -> tuple[ExperimentInfo, list[Verdict]]:
    families = read_claims(files)
    measured = Measured(published_table() if str(table) == PUBLISHED else read_results(table))
    return measured.about, ledger(measured, families)

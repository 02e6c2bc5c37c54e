"""The command `claims`: a verdict on every claim, from an experiment's results or the published numbers."""

from __future__ import annotations

import argparse
from pathlib import Path

from robust_transfer.commands.experiments import FORMS, results_table
from robust_transfer.commands.options import Commands, add_log
from robust_transfer.registry import ALL_STAGES


def add_claims_command(commands: Commands) -> None:
    """Add `claims`."""
    claims = commands.add_parser("claims", help=ALL_STAGES["claims"].summary)
    claims.add_argument("experiment", help=f"an experiment that has been run, by {FORMS}; or `published`")
    claims.add_argument(
        "--claims", type=Path, nargs="+", default=[], metavar="FILE", help="files of claims (default: those of claims/)"
    )
    claims.add_argument(
        "--out",
        type=Path,
        help="path without suffix; .csv, .json, .html, .tex, .md are added (default: the terminal)",
    )
    add_log(claims)
    claims.set_defaults(run=_run_claims)


def _run_claims(args: argparse.Namespace) -> None:
    from robust_transfer.claims.writing import SUFFIXES
    from robust_transfer.stages.claims import claims_text, write_claims
    from robust_transfer.store.entry import sha256
    from robust_transfer.store.fingerprint import fingerprint
    from robust_transfer.store.made import digest_of_claims, write_made
    from robust_transfer.tables.published import PUBLISHED

    is_published = args.experiment == PUBLISHED
    table = PUBLISHED if is_published else results_table(args.experiment)
    if not args.out:
        print(claims_text(table, args.claims), end="")
        return
    # Asked first: the code and the claims may change while the job runs.
    made_from = {"code": fingerprint("claims"), "claims": digest_of_claims()}
    made_from |= {} if is_published else {"results": sha256(Path(table))}
    write_claims(table, args.out, args.claims)
    if not is_published and not args.claims and args.out == Path(table).parent / "claims":  # as a run writes it
        write_made(args.out.parent, "claims", made_from, [args.out.with_name(f"claims.{one}") for one in SUFFIXES])

"""The command `store`: have entries made anew, check files."""

from __future__ import annotations

import argparse
from pathlib import Path

from robust_transfer.commands.options import Commands


def add_store_command(commands: Commands) -> None:
    """Add `store renew` and `store verify`."""
    store = commands.add_parser("store", help="have entries of the store made anew, or check its files")
    actions = store.add_subparsers(metavar="action", required=True)
    renew = actions.add_parser("renew", help="move entries aside, so that the next run makes them anew")
    renew.add_argument(
        "entries", nargs="+", metavar="entry", help="its folder, or in quotes parts of its name that no other has"
    )
    renew.add_argument("--store", type=Path, default=Path("store"), help="where to look for names (default: store)")
    renew.set_defaults(run=_run_renew)
    verify = actions.add_parser("verify", help="read every file and compare it with the checksum in its card")
    verify.add_argument("paths", type=Path, nargs="*", help="stores or entries (default: store)")
    verify.set_defaults(run=_run_verify)


def _run_renew(args: argparse.Namespace) -> None:
    from robust_transfer.store.entry import CARD
    from robust_transfer.store.names import named_entry
    from robust_transfer.store.upkeep import renew

    for path in [named_entry(words, args.store, holding=CARD) for words in args.entries]:
        print(f"{path}: moved to {renew(path)}; the next run makes it anew")


def _run_verify(args: argparse.Namespace) -> int:
    from robust_transfer.store.entry import finished
    from robust_transfer.store.upkeep import entries_in, faults

    entries = list(entries_in(args.paths or [Path("store")]))
    found = [line for entry in entries for line in faults(entry)]
    for line in found:
        print(line)
    made = sum(finished(entry) for entry in entries)
    print(f"{len(entries)} entries, {made} of them finished: {len(found) or 'no'} faults")
    return 1 if found else 0

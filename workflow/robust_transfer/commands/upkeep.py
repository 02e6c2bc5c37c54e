"""The command `store`: look at entries, check them, have them made anew, remove them, take them to another store."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from robust_transfer import quantities
from robust_transfer.commands.options import Commands, add_configfile, positive

STORE = Path("store")
NAMED = "its folder, or in quotes parts of its name that no other has"


def add_store_command(commands: Commands) -> None:
    """Add `store list`, `unused`, `verify`, `renew`, `remove`, `export` and `adopt`."""
    store = commands.add_parser("store", help="look at entries of the store, check, renew, remove, export, adopt them")
    actions = store.add_subparsers(metavar="action", required=True)
    _looking(actions)
    renew = actions.add_parser("renew", help="move entries aside, so that the next run makes them anew")
    renew.add_argument("entries", nargs="+", metavar="entry", help=NAMED)
    _add_store(renew)
    renew.set_defaults(run=_run_renew)
    remove = actions.add_parser(
        "remove", help="say what removing entries would free, and what having them back would cost; with --yes do it"
    )
    remove.add_argument("entries", nargs="+", metavar="entry", help=NAMED)
    _add_store(remove)
    remove.add_argument("--yes", action="store_true", help="remove them")
    remove.set_defaults(run=_run_remove)
    _packing(actions)


def _looking(actions: Commands) -> None:
    listing = actions.add_parser("list", help="list entries with their sizes, ages and states, by stage")
    listing.add_argument("paths", type=Path, nargs="*", help="stores or entries (default: store)")
    listing.add_argument("--sort", choices=("size", "age", "name"), default="size", help="within a stage")
    listing.add_argument("--totals", action="store_true", help="the totals alone")
    listing.set_defaults(run=_run_list)
    unused = actions.add_parser("unused", help="list the entries that no experiment of these files refers to")
    unused.add_argument(
        "configurations", type=Path, nargs="+", metavar="folder", help="folders of configuration files, or such files"
    )
    _add_store(unused)
    unused.add_argument("--paths", action="store_true", help="print paths alone, for `store remove`")
    unused.set_defaults(run=_run_unused)
    verify = actions.add_parser("verify", help="read every file and compare it with the checksum in its card")
    verify.add_argument("paths", type=Path, nargs="*", help="stores or entries (default: store)")
    verify.add_argument("--threads", type=positive, default=os.cpu_count() or 1, help="entries read at once")
    verify.set_defaults(run=_run_verify)


def _packing(actions: Commands) -> None:
    export = actions.add_parser("export", help="pack finished entries into a folder or archive, for another store")
    export.add_argument("to", type=Path, help="what to write: a folder, or an archive if named .tar or .tar.gz")
    export.add_argument("entries", nargs="*", metavar="entry", help=f"{NAMED} (default: all that is finished)")
    add_configfile(export)
    export.add_argument("--results", action="store_true", help="with --configfile: its tables and figures too")
    _add_store(export)
    export.set_defaults(run=_run_export)
    adopt = actions.add_parser("adopt", help="take in what another store has exported: all of it, or nothing")
    adopt.add_argument("source", type=Path, help="the folder or archive")
    _add_store(adopt)
    adopt.add_argument("--results", type=Path, default=Path("results"), help="folder of results (default: results)")
    adopt.add_argument("--without-results", action="store_true", help="take the entries alone")
    adopt.set_defaults(run=_run_adopt)


def _add_store(action: argparse.ArgumentParser) -> None:
    action.add_argument("--store", type=Path, default=STORE, help="the store (default: store)")


def _run_list(args: argparse.Namespace) -> None:
    from robust_transfer.store.inventory import listed, table
    from robust_transfer.store.upkeep import entries_in

    for line in table(map(listed, entries_in(args.paths or [STORE])), args.sort, args.totals):
        print(line)


def _run_unused(args: argparse.Namespace) -> None:
    from robust_transfer.configuration.load import DEFAULT
    from robust_transfer.dag.unused import configurations, unused
    from robust_transfer.store.inventory import listed, table

    files = configurations(args.configurations)
    found = unused(args.store, files)
    if args.paths:
        print("\n".join(map(str, found)))
        return
    for line in table(map(listed, found)):
        print(line)
    print(f"no experiment of {len(files)} refers to these: {', '.join(map(str, files))}")
    if DEFAULT.resolve() not in [file.resolve() for file in files]:
        print(f"{DEFAULT} is not among them: name it too if its entries are to stay")


def _run_renew(args: argparse.Namespace) -> None:
    from robust_transfer.store.entry import CARD
    from robust_transfer.store.names import named_entry
    from robust_transfer.store.upkeep import renew

    for path in [named_entry(words, args.store, holding=CARD) for words in args.entries]:
        print(f"{path}: moved to {renew(path)}; the next run makes it anew")


def _run_verify(args: argparse.Namespace) -> int:
    from robust_transfer.store.entry import finished
    from robust_transfer.store.upkeep import entries_in
    from robust_transfer.store.verifying import verify

    entries = list(entries_in(args.paths or [STORE]))
    found = verify(entries, args.threads)
    for line in found:
        print(line)
    made = sum(finished(entry) for entry in entries)
    print(f"{len(entries)} entries, {made} of them finished: {len(found) or 'no'} faults")
    return 1 if found else 0


def _run_remove(args: argparse.Namespace) -> None:
    from robust_transfer.store.removal import planned_removals, remove, summed_up

    removals = planned_removals(_named(args.entries, args.store))
    for one in removals:
        print(one)
    for one in removals if args.yes else ():
        remove(one.entry.path)
    done = "removed" if args.yes else "nothing was removed; --yes removes"
    print(f"{done}: {summed_up(removals)}")


def _run_export(args: argparse.Namespace) -> None:
    from robust_transfer.store.finished import read_card
    from robust_transfer.store.packing import export
    from robust_transfer.store.upkeep import MOVED_ASIDE, entries_in

    results = None
    if args.configfile:
        wanted, results = _of_experiment(args.configfile)
    elif args.entries:
        wanted = _named(args.entries, args.store)
    else:
        wanted = [path for path in entries_in([args.store]) if not MOVED_ASIDE.search(path.name)]
    entries = wanted if args.entries else [path for path in wanted if read_card(path)]
    manifest = export(entries, args.to, results if args.results else None)
    size = sum(one["bytes"] for one in manifest["files"].values())
    left = len(wanted) - len(entries)
    print(
        f"{args.to}: {len(entries)} entries, {quantities.size(size)}" + (f"; {left} are not finished" if left else "")
    )
    print(f"to take them in elsewhere: robust-transfer store adopt {args.to}")


def _of_experiment(files: Sequence[Path]) -> tuple[list[Path], Path]:
    """Folders of an experiment's entries, and that of its results."""
    from robust_transfer.configuration.load import load
    from robust_transfer.dag.availability import planned

    grid = planned(load(files))
    experiment = grid.experiment
    return [Path(experiment.store) / entry for entry in grid.entries], Path(experiment.results) / experiment.experiment


def _run_adopt(args: argparse.Namespace) -> None:
    from robust_transfer.store.adopting import adopt

    adopted = adopt(args.source, args.store, None if args.without_results else args.results)
    for name in adopted.other:
        print(f"{name}: {args.store} has it finished with other content; kept as it is")
    told = [f"{len(adopted.new)} entries adopted", f"{len(adopted.same)} were there"]
    print(", ".join([*told, *([f"{adopted.results} too"] if adopted.results else [])]))


def _named(words: Sequence[str], store: Path) -> list[Path]:
    from robust_transfer.store.entry import CARD
    from robust_transfer.store.names import named_entry

    return [named_entry(one, store, holding=CARD) for one in words]

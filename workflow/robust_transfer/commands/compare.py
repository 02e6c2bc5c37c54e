"""The command `compare`: two experiments, or two finished transfers."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from robust_transfer.commands.experiments import FORMS, configuration_of, is_experiment, results_table
from robust_transfer.commands.options import Commands

if TYPE_CHECKING:
    from robust_transfer.tables.compare_experiments import ExperimentComparison, NumberDifference

SHOWN = 40
"""Numbers that differ, and settings, that the terminal shows at most."""


def add_compare_command(commands: Commands) -> None:
    """Add `compare`."""
    compare = commands.add_parser(
        "compare",
        help="compare two experiments, or two finished transfers, paired over the images that both were tested on",
    )
    compare.add_argument(
        "first",
        help=f"an experiment that has been run, by {FORMS}; or an entry with predictions: its folder, or parts of its "
        "name that no other has, such as 'probing resnet8_w16_l2_eps0.4_seed0 on_coarse_seed0'",
    )
    compare.add_argument("second", help="another experiment; or another entry, tested on the same images")
    compare.add_argument("--out", type=Path, help="of experiments: CSV file to write, one row per number of both")
    compare.add_argument("--store", type=Path, default=Path("store"), help="where to look for entries (default: store)")
    compare.add_argument(
        "--selection",
        choices=("validation", "test"),
        default="validation",
        help="of entries: where the hyperparameters behind both were chosen (default: validation)",
    )
    compare.set_defaults(run=_run_compare)


def _run_compare(args: argparse.Namespace) -> None:
    if is_experiment(args.first) or is_experiment(args.second):
        _run_compare_experiments(args)
        return
    from robust_transfer.store.names import named_entry
    from robust_transfer.store.predictions import PREDICTIONS
    from robust_transfer.tables.compare import compare

    first, second = (named_entry(words, args.store, holding=PREDICTIONS) for words in (args.first, args.second))
    print(compare(first, second, selection=args.selection))


def _run_compare_experiments(args: argparse.Namespace) -> None:
    from robust_transfer.tables.compare_experiments import compare_experiments, write_comparison

    tables = [results_table(named) for named in (args.first, args.second)]
    found = compare_experiments(*tables)
    print("\n".join([f"A {tables[0]}", f"B {tables[1]}", "", *_settings(args, tables), "", *_numbers(found)]))
    if args.out:
        write_comparison(args.out, found)
        print(f"\nall numbers  {args.out}")


def _settings(args: argparse.Namespace, tables: list[Path]) -> list[str]:
    """What differs in the configurations, as their files say now."""
    from robust_transfer.configuration.differences import differing

    experiments = [
        configuration_of(named, table) for named, table in zip((args.first, args.second), tables, strict=True)
    ]
    first, second = experiments
    if first is None or second is None:
        return ["Configuration: not known; name the configuration files in place of the results to compare it."]
    lines = [f"  {key}: {one} | {other}" for key, one, other in differing(first, second)]
    return ["Configuration, A | B:", *_cut(lines)] if lines else ["Configuration: nothing differs."]


def _numbers(found: ExperimentComparison) -> list[str]:
    numbers = found.numbers
    same = sum(one.same_entry for one in numbers)
    tested = [one for one in numbers if one.ci_kind]
    differing = sorted((one for one in tested if one.differs), key=lambda one: one.p)
    lines = [
        f"Numbers: {len(numbers)} of both, {found.only_first} of A alone, {found.only_second} of B alone. {same} are "
        f"of the same entries, {len(tested)} are compared, and {len(differing)} differ beyond noise (5 %, Holm)."
    ]
    if differing:
        lines += ["", "A less B, in percentage points [95 %]:", *_cut([_line(one) for one in differing])]
    return lines


def _line(one: NumberDifference) -> str:
    from robust_transfer.tables.compare_experiments import KEY

    of = dict(zip(KEY, one.key, strict=True))
    network = " ".join(filter(None, (of["arch"], of["norm"] if of["eps"] != "0" else "", f"eps {of['eps']}")))
    how = " ".join(filter(None, (of["mode"], of["protocol"], of["variant"] if of["variant"] != "{}" else "")))
    more = " attacked" if of["attack"] else ""
    more += f" {of['images_per_class']} per class" if of["images_per_class"] and not more else ""
    more += f" {of['training_images']} images" if of["training_images"] and not more else ""
    basis = ("paired, " if one.paired else "") + f"n = {one.n} {one.ci_kind}"
    return (
        f"  {of['target']}, {network}, {how}{more}: {one.first:.1f} - {one.second:.1f} = {one.difference:+.1f} "
        f"[{one.ci_low:+.1f}, {one.ci_high:+.1f}], {basis}"
    )


def _cut(lines: list[str]) -> list[str]:
    return [*lines[:SHOWN], *[f"  and {len(lines) - SHOWN} more"] * (len(lines) > SHOWN)]

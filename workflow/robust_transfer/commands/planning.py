"""Commands that say what there is and what would run: they plan and look, and compute nothing."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from robust_transfer.commands.options import Commands, add_configfile, device, positive

if TYPE_CHECKING:
    from robust_transfer.dag.wiring import Wiring


def add_planning_commands(commands: Commands) -> None:
    """Add `entries`, `why`, `plan`, `layers`, `catalogue`, `check`, `where` and `schema`."""
    entries = commands.add_parser(
        "entries", help="list the entries of an experiment; with --write make them ready to run"
    )
    add_configfile(entries)
    entries.add_argument("--write", action="store_true", help="write the entry.json files, so that stages run by hand")
    entries.set_defaults(run=_run_entries)

    why = commands.add_parser("why", help="say what would run again, and for which reason")
    why.add_argument("target", nargs="?", help="an entry, a stage or a figure (figure_width); default: everything")
    add_configfile(why)
    why.set_defaults(run=_run_why)

    _plan_command(commands)

    layers = commands.add_parser(
        "layers", help="list the layers of an architecture that features can be taken from, with their dimension"
    )
    layers.add_argument("architecture", help="resnet18, resnet8_w16, …; with timm installed timm_resnet10t, …")
    layers.add_argument("--input-size", type=positive, default=224, help="side of the images, pixels (default: 224)")
    layers.set_defaults(run=_run_layers)

    catalogue = commands.add_parser(
        "catalogue", help="list the datasets of the catalogue, and which are on this machine"
    )
    catalogue.add_argument("dataset", nargs="?", help="one of them, to see its splits, licence and where to get it")
    catalogue.add_argument("--data", type=Path, default=Path("data"), help="folder of originals (default: data)")
    catalogue.set_defaults(run=_run_catalogue)

    check = commands.add_parser("check", help="say what is wrong with a configuration, in the file's own lines")
    add_configfile(check)
    check.set_defaults(run=_run_check)

    where = commands.add_parser("where", help="say where the results of an experiment lie")
    add_configfile(where)
    where.set_defaults(run=_run_where)

    schema = commands.add_parser(
        "schema", help="write the JSON schema of configuration files and docs/configuration.md"
    )
    schema.set_defaults(run=_run_schema)


def _plan_command(commands: Commands) -> None:
    plan = commands.add_parser(
        "plan", help="say what an experiment will take before it runs: jobs, images, FLOPs, disk, hours, price"
    )
    add_configfile(plan)
    plan.add_argument("--gpu", nargs="+", default=[], help="GPUs by name, such as A100: hours on one of each")
    plan.add_argument("--price", nargs="+", type=float, default=[], help="what an hour of each costs, in that order")
    plan.add_argument("--currency", default="$", help="what prices are in (default: $)")
    plan.add_argument("--calibrate", action="store_true", help="measure this machine first, for a minute or two")
    plan.add_argument("--calibration", type=Path, help="file to keep the measurements in, or to read them from")
    plan.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="what to measure")
    plan.add_argument("--cores", type=positive, help="jobs side by side on this machine (default: its cores)")
    plan.add_argument("--json", action="store_true", help="print JSON instead of a table")
    plan.set_defaults(run=_run_plan)


def _wiring(files: Sequence[Path]) -> Wiring:
    from robust_transfer.configuration.load import load
    from robust_transfer.dag.availability import planned
    from robust_transfer.dag.wiring import Wiring

    return Wiring(planned(load(files)), files=files)


def _run_entries(args: argparse.Namespace) -> None:
    from robust_transfer.store.entry import finished

    wiring = _wiring(args.configfile)
    if args.write:
        wiring.write_entries()
    for entry in wiring.grid.entries:
        state = "made" if finished(wiring.store / entry) else "to make"
        print(f"{state:8} {wiring.store / entry}")


def _run_why(args: argparse.Namespace) -> None:
    from robust_transfer.dag.why import why

    print("\n".join(why(_wiring(args.configfile), args.target)))


def _run_check(args: argparse.Namespace) -> None:
    wiring = _wiring(args.configfile)
    for line in wiring.notices():
        print(line)
    experiment, entries = wiring.grid.experiment, wiring.grid.entries
    print(f"experiment {experiment.experiment}: no mistake found; {len(entries)} entries, results in {wiring.results}")


def _run_plan(args: argparse.Namespace) -> None:
    from robust_transfer.planning.command import run_plan

    print(
        run_plan(
            args.configfile,
            gpus=args.gpu,
            prices=args.price,
            currency=args.currency,
            calibrate=args.calibrate,
            calibration=args.calibration,
            device=device(args.device if args.calibrate else "cpu"),
            cores=args.cores,
            in_json=args.json,
        )
    )


def _run_layers(args: argparse.Namespace) -> None:
    from robust_transfer.networks.layers import layers, outline

    for layer in layers(outline(args.architecture, args.input_size), args.input_size).values():
        print(f"{layer.name:48} {layer.dimension:6}")


def _run_catalogue(args: argparse.Namespace) -> None:
    from robust_transfer.datasets.listing import describe_dataset, overview

    print(describe_dataset(args.dataset, args.data) if args.dataset else overview(args.data))


def _run_where(args: argparse.Namespace) -> None:
    print(_wiring(args.configfile).results)


def _run_schema(args: argparse.Namespace) -> None:
    from robust_transfer.configuration import documentation, schema

    for generated in (schema, documentation):
        generated.PATH.parent.mkdir(exist_ok=True)
        generated.PATH.write_text(generated.text())
        print(generated.PATH)

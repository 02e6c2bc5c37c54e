"""The command line: one subcommand a stage, each usable without Snakemake.

Modules of stages are imported when their command runs, so that no command pays for another's imports.
"""

from __future__ import annotations

import argparse
import importlib
import logging
import os
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from robust_transfer import __version__
from robust_transfer.configuration.running import VARIABLE, Running, running
from robust_transfer.interruption import EXIT_CODE, Interrupted
from robust_transfer.launch import launch, leads
from robust_transfer.stages import STAGES

if TYPE_CHECKING:
    from robust_transfer.wiring import Wiring

DEFAULT_CONFIGURATION = Path(__file__).parents[2] / "config.yaml"

DESCRIPTION = """\
Do adversarially robust models transfer better? The stages of the experiment, one command each.

`snakemake` runs them all in order; here each runs by hand on one entry of the store, a folder that holds an
`entry.json` with its settings. `entries --write` writes those files; then, for instance:

  export PYTHONPATH=workflow
  python -m robust_transfer entries --write
  python -m robust_transfer datasets store/datasets/<entry>
  python -m robust_transfer pretraining store/pretraining/<entry> --threads 2
"""

STAGE_HELP = {
    "datasets": (
        "prepare a dataset: decode, check, limit and store its images",
        "Reads the origin named in entry.json (a folder, parquet files, a torchvision class, the built-in generator)\n"
        "and writes train.arrow, test.arrow and, where the origin has one, validation.arrow.",
    ),
    "granularity": (
        "derive a dataset with less detail: its images downscaled",
        "Reads the dataset that entry.json names and writes the same images with a smaller short side, losslessly.",
    ),
    "importing": (
        "import a backbone from published weights",
        "Reads a checkpoint below the folder of weights, or downloads it where that is allowed; nothing in it is\n"
        "executed. Writes weights.safetensors.",
    ),
    "pretraining": (
        "train a backbone on the source, adversarially unless its eps is 0",
        "Reads the source dataset; writes weights.safetensors and epochs.csv, a row an epoch.",
    ),
    "evaluation": (
        "measure a backbone on the source's test images, clean and attacked",
        "Reads a backbone and its source; writes metrics.json: accuracy on clean images and under PGD at each eps.",
    ),
    "features": (
        "extract a dataset's features from a frozen backbone",
        "Reads a backbone and a dataset; writes the activations before the head, or of the layer that entry.json\n"
        "names, as train.arrow, test.arrow, ….",
    ),
    "probing": (
        "fit the frozen protocol's linear probe, all strengths at once",
        "Reads features; chooses a strength on validation images, refits on all training images, tests once;\n"
        "writes metrics.json and predictions.parquet.",
    ),
    "heads": (
        "train linear heads on a frozen network by the paper's protocol, the whole grid at once",
        "Reads a backbone and a dataset. A search run measures validation accuracy; a final run trains on all\n"
        "training images and tests; writes metrics.json, predictions.parquet and epochs.csv.",
    ),
    "finetuning": (
        "fine-tune a whole network on a target",
        "Reads a backbone and a dataset. A search run trains with one learning rate and measures validation accuracy;\n"
        "a refit takes the best search's rate, trains on all training images and tests; a final run does so at a\n"
        "rate it is given; writes metrics.json, predictions.parquet and epochs.csv.",
    ),
    "choosing": (
        "choose the best of runs that differ in hyperparameters, on validation or on test images",
        "Reads runs of heads or finetuning; writes metrics.json, predictions.parquet and runs.csv.",
    ),
}


INTERRUPTIBLE = ("pretraining", "features", "heads", "finetuning")
"""Stages that save how far they are and go on from there."""
TEAMS = ("pretraining",)
"""Stages that several processes can share."""
ORIGINALS = {"datasets": "data", "importing": "weights"}
"""Stages that read files from outside the store, and the setting under `running` that says where these lie."""
RESUMING = f"""
It can be stopped at any time. SIGTERM, SIGUSR1 and Ctrl-C save its state and exit with code {EXIT_CODE}; the same
command then goes on from there, to the same bits. Killed outright, it goes on from the last state saved."""


class UsageError(ValueError):
    """The command line asks for something that cannot be done; the message says what to write instead."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; 0 when it did its work, 1 with a message when it could not, 75 when it was asked to leave."""
    args = _parser().parse_args(arguments)
    args.given = sys.argv[1:] if arguments is None else list(arguments)
    _start_log(getattr(args, "log", None), getattr(args, "entry", None))
    log = logging.getLogger("robust_transfer")
    try:
        return int(args.run(args) or 0)
    except Interrupted as left:
        log.warning("%s", left)
        return EXIT_CODE
    except (ValueError, RuntimeError, OSError) as error:
        log.error("%s: %s", type(error).__name__, error, exc_info=not _is_ours(error))
        return 1


def _is_ours(error: BaseException) -> bool:
    """Errors raised by this package are worded for the user, who needs no traceback; others are a developer's."""
    frame = error.__traceback__
    while frame and frame.tb_next:
        frame = frame.tb_next
    return frame is not None and Path(__file__).parent in Path(frame.tb_frame.f_code.co_filename).parents


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m robust_transfer", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--version", action="version", version=f"robust-transfer {__version__}")
    commands = parser.add_subparsers(metavar="command", required=True)
    for stage in STAGES:
        _stage_command(commands, stage)
    _results_commands(commands)
    _planning_commands(commands)
    return parser


def _stage_command(commands: argparse._SubParsersAction[argparse.ArgumentParser], stage: str) -> None:
    summary, description = STAGE_HELP[stage]
    command = commands.add_parser(
        stage,
        help=summary,
        description=f"{summary[0].upper()}{summary[1:]}.\n\n{description}{RESUMING * (stage in INTERRUPTIBLE)}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument("entry", type=Path, help=f"folder of the entry, store/{stage}/<name>-<hash>, with entry.json")
    command.add_argument("--threads", type=_positive, default=1, help="processor threads to use (default: 1)")
    command.add_argument(
        "--device", choices=("auto", "cpu", "cuda"), default="auto", help="auto takes a GPU if there is one"
    )
    _add_log(command)
    if stage in INTERRUPTIBLE:
        _add_interruption(command, dear=STAGES[stage].dear)
    if stage in ORIGINALS:
        setting = ORIGINALS[stage]
        command.add_argument(f"--{setting}", dest="originals", help=f"folder of originals (default: {setting})")
        command.add_argument("--downloads", action="store_true", help="download what is missing there")
    if stage in TEAMS:
        command.add_argument(
            "--processes", type=int, default=1, help="processes that share the training, a GPU each (default: 1)"
        )
    command.set_defaults(run=_run_stage, stage=stage, processes=1, stop_before=None, other_code=False)
    command.set_defaults(originals=None, downloads=False)


def _results_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    results = commands.add_parser("results", help="collect the measured numbers of an experiment in one table")
    results.add_argument("experiment", type=Path, help="results/<experiment>/experiment.json")
    results.add_argument("--results", type=Path, required=True, help="parquet file to write: a row a number")
    results.add_argument("--timings", type=Path, required=True, help="parquet file to write: a row an entry")
    results.add_argument("--training", type=Path, required=True, help="parquet file to write: a row an epoch")
    results.add_argument("--flags", type=Path, required=True, help="CSV file to write: what looks wrong, a row a flag")
    _add_log(results)
    results.set_defaults(run=_run_results)

    figures = commands.add_parser("figures", help="draw one figure or table from the results table")
    figures.add_argument("figure", help="headline, fixed_feature, full_network, source_accuracy, …")
    figures.add_argument("table", type=Path, help="results/<experiment>/results.parquet (training: training.parquet)")
    figures.add_argument(
        "--out", type=Path, required=True, help="path without suffix; .svg, .pdf, .png, .csv are added"
    )
    _add_log(figures)
    figures.set_defaults(run=_run_figures)

    compare = commands.add_parser(
        "compare", help="compare two finished transfers, paired over the images that both were tested on"
    )
    compare.add_argument("first", type=Path, help="an entry with predictions, such as store/probing/<name>-<hash>")
    compare.add_argument("second", type=Path, help="another, tested on the same images")
    compare.add_argument(
        "--selection",
        choices=("validation", "test"),
        default="validation",
        help="where the hyperparameters behind both were chosen (default: validation)",
    )
    compare.set_defaults(run=_run_compare)

    report = commands.add_parser("report", help="sum an experiment up in plain text")
    report.add_argument("results", type=Path, help="results/<experiment>/results.parquet")
    report.add_argument("--flags", type=Path, help="flags.csv beside it, to list what looks wrong")
    report.add_argument("--out", type=Path, help="file to write (default: the terminal)")
    _add_log(report)
    report.set_defaults(run=_run_report)


def _planning_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    entries = commands.add_parser(
        "entries", help="list the entries of an experiment; with --write make them ready to run"
    )
    _add_configfile(entries)
    entries.add_argument("--write", action="store_true", help="write the entry.json files, so that stages run by hand")
    entries.set_defaults(run=_run_entries)

    _plan_command(commands)

    layers = commands.add_parser(
        "layers", help="list the layers of an architecture that features can be taken from, with their dimension"
    )
    layers.add_argument("architecture", help="resnet18, resnet8_w16, …; with timm installed timm_resnet10t, …")
    layers.add_argument("--input-size", type=_positive, default=224, help="side of the images, pixels (default: 224)")
    layers.set_defaults(run=_run_layers)

    catalogue = commands.add_parser(
        "catalogue", help="list the datasets of the catalogue, and which are on this machine"
    )
    catalogue.add_argument("dataset", nargs="?", help="one of them, to see its splits, licence and where to get it")
    catalogue.add_argument("--data", type=Path, default=Path("data"), help="folder of originals (default: data)")
    catalogue.set_defaults(run=_run_catalogue)

    where = commands.add_parser("where", help="say where the results of an experiment lie")
    _add_configfile(where)
    where.set_defaults(run=_run_where)

    schema = commands.add_parser("schema", help="write the JSON schema of configuration files beside the models")
    schema.set_defaults(run=_run_schema)


def _plan_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    plan = commands.add_parser(
        "plan", help="say what an experiment will take before it runs: jobs, images, FLOPs, disk, hours, price"
    )
    _add_configfile(plan)
    plan.add_argument("--gpu", nargs="+", default=[], help="GPUs by name, such as A100: hours on one of each")
    plan.add_argument("--price", nargs="+", type=float, default=[], help="what an hour of each costs, in that order")
    plan.add_argument("--currency", default="$", help="what prices are in (default: $)")
    plan.add_argument("--calibrate", action="store_true", help="measure this machine first, for a minute or two")
    plan.add_argument("--calibration", type=Path, help="file to keep the measurements in, or to read them from")
    plan.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="what to measure")
    plan.add_argument("--cores", type=_positive, help="jobs side by side on this machine (default: its cores)")
    plan.add_argument("--json", action="store_true", help="print JSON instead of a table")
    plan.set_defaults(run=_run_plan)


def _add_configfile(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--configfile",
        type=Path,
        nargs="+",
        default=[],
        help="files with what differs from config.yaml, later ones over earlier ones",
    )


def _add_log(command: argparse.ArgumentParser) -> None:
    command.add_argument("--log", type=Path, help="file to append messages to, beside the terminal")


def _add_interruption(command: argparse.ArgumentParser, dear: bool) -> None:
    command.add_argument(
        "--stop-before",
        type=_time,
        metavar="TIME",
        help="save and leave at this time, such as 2030-01-31T08:00 (a scheduler's limit)",
    )
    if dear:  # a cheap stage starts over instead
        command.add_argument(
            "--other-code", action="store_true", help="go on from a state that other code saved; the card will say so"
        )


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value}: at least 1")
    return value


def _time(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text}: not a time; write it as 2030-01-31T08:00") from None


def _start_log(path: Path | None, entry: Path | None) -> None:
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stderr)]
    name = f"{entry.parent.name} {entry.name.rpartition('-')[0] or entry.name}: " if entry else ""
    handlers[0].setFormatter(logging.Formatter(f"{name}%(message)s"))
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        handlers.append(logging.FileHandler(path))
        handlers[1].setFormatter(logging.Formatter("%(asctime)s  %(message)s", "%Y-%m-%d %H:%M:%S"))
    # Of several processes on one training the first speaks.
    logging.basicConfig(level=logging.INFO if leads() else logging.WARNING, handlers=handlers)


def _run_stage(args: argparse.Namespace) -> int:
    for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[variable] = str(args.threads)
    from robust_transfer.store import open_entry

    entry = open_entry(args.entry)
    if entry.stage != args.stage:
        raise UsageError(
            f"{args.entry}: an entry of stage {entry.stage}; run `python -m robust_transfer {entry.stage}`"
        )
    stated = {"stop_before": args.stop_before, "other_code": args.other_code or None}
    stated |= {ORIGINALS.get(args.stage, ""): args.originals, "downloads": args.downloads or None}
    settings = Running.model_validate(running().model_dump() | {k: v for k, v in stated.items() if v is not None})
    os.environ[VARIABLE] = settings.model_dump_json()
    if args.processes > 1 and "WORLD_SIZE" not in os.environ:
        return launch(args.processes, args.given)
    importlib.import_module(STAGES[args.stage].module).run(entry, threads=args.threads, device=_device(args.device))
    return 0


def _device(asked: str) -> str:
    """`cuda` if asked for or, for `auto`, if the NVIDIA driver shows a device; found out without importing torch."""
    if asked != "auto":
        return asked
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible in ("", "-1") or not Path("/proc/driver/nvidia/gpus").exists():
        return "cpu"
    return "cuda"


def _run_results(args: argparse.Namespace) -> None:
    from robust_transfer.results import collect
    from robust_transfer.store import read_json

    store = Path(read_json(args.experiment)["store"])
    collect(
        args.experiment,
        store,
        results=args.results,
        timings=args.timings,
        training=args.training,
        flags=args.flags,
    )


def _run_figures(args: argparse.Namespace) -> None:
    from robust_transfer.figures.draw import draw

    draw(args.figure, args.table, args.out)


def _run_compare(args: argparse.Namespace) -> None:
    from robust_transfer.compare import compare

    print(compare(args.first, args.second, selection=args.selection))


def _run_report(args: argparse.Namespace) -> None:
    from robust_transfer.report import summary
    from robust_transfer.store import write_text

    text = summary(args.results, args.flags)
    if args.out:
        write_text(args.out, text)
    else:
        print(text)


def _wiring(overlays: Sequence[Path]) -> Wiring:
    from robust_transfer.availability import planned
    from robust_transfer.configuration.load import load
    from robust_transfer.wiring import Wiring

    return Wiring(planned(load([DEFAULT_CONFIGURATION, *overlays])))


def _run_entries(args: argparse.Namespace) -> None:
    from robust_transfer.store import finished

    wiring = _wiring(args.configfile)
    if args.write:
        wiring.write_entries()
    for entry in wiring.grid.entries:
        state = "made" if finished(wiring.store / entry) else "to make"
        print(f"{state:8} {wiring.store / entry}")


def _run_plan(args: argparse.Namespace) -> None:
    from robust_transfer.planning.command import run_plan

    print(
        run_plan(
            [DEFAULT_CONFIGURATION, *args.configfile],
            gpus=args.gpu,
            prices=args.price,
            currency=args.currency,
            calibrate=args.calibrate,
            calibration=args.calibration,
            device=_device(args.device),
            cores=args.cores,
            in_json=args.json,
        )
    )


def _run_layers(args: argparse.Namespace) -> None:
    from robust_transfer.networks.layers import layers, outline

    for layer in layers(outline(args.architecture, args.input_size), args.input_size).values():
        print(f"{layer.name:48} {layer.dimension:6}")


def _run_catalogue(args: argparse.Namespace) -> None:
    from robust_transfer.datasets.listing import describe, overview

    print(describe(args.dataset, args.data) if args.dataset else overview(args.data))


def _run_where(args: argparse.Namespace) -> None:
    print(_wiring(args.configfile).results)


def _run_schema(args: argparse.Namespace) -> None:
    from robust_transfer.configuration import schema

    schema.PATH.write_text(schema.text())
    print(schema.PATH)

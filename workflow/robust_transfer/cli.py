"""The command line: one subcommand per stage, each usable without Snakemake.

Modules of stages are imported when their command runs, so that no command pays for another's imports.
"""

from __future__ import annotations

import argparse
import faulthandler
import importlib
import json
import logging
import os
import re
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from datetime import datetime
from opcode import opmap
from pathlib import Path
from typing import TYPE_CHECKING

from robust_transfer import __version__
from robust_transfer.configuration.running import VARIABLE, Running, running
from robust_transfer.machine.cards import driver_fault, visible
from robust_transfer.machine.launch import LAUNCHED, Machines, is_main, join_step, launch
from robust_transfer.registry import ALL_STAGES, FIGURES, STAGES, Stage
from robust_transfer.resuming.interruption import EXIT_CODE, Interrupted, Interruption
from robust_transfer.store.entry import GPU, EntryInUseError

if TYPE_CHECKING:
    from robust_transfer.dag.wiring import Wiring
    from robust_transfer.store.entry import Entry

DESCRIPTION = """\
Do adversarially robust models transfer better? The stages of the experiment, one command each.

`snakemake` runs them all in order; here each runs by hand on one entry of the store, a folder that holds an
`entry.json` with its settings. `entries --write` writes those files; then, for instance:

  export PYTHONPATH=workflow
  python -m robust_transfer entries --write
  python -m robust_transfer datasets store/datasets/<entry>
  python -m robust_transfer pretraining store/pretraining/<entry> --threads 2
"""

log = logging.getLogger("robust_transfer")

RESUMING = f"""
It can be stopped at any time. SIGTERM, SIGUSR1, SIGHUP and Ctrl-C save its state and exit with code {EXIT_CODE}; the
same command then goes on from there, to the same bits. Killed outright, it goes on from the last state saved."""

DISK_ERRORS = {
    "No space left on device": "the disk is full",
    "Disk quota exceeded": "the disk quota is used up",
    "Read-only file system": "the file system cannot be written",
    "Permission denied": "no permission",
}
"""What the operating system says in errors of any library, and what that means."""


class UsageError(ValueError):
    """The command line asks for something that cannot be done; the message says what to write instead."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; 0 when it did its work, 1 with a message when it could not, 75 when it was asked to leave."""
    args = _parser().parse_args(arguments)
    args.given = sys.argv[1:] if arguments is None else list(arguments)
    try:
        _start_log(getattr(args, "log", None), getattr(args, "entry", None))
        return int(args.run(args) or 0)
    except Interrupted as left:
        log.warning("%s", left)
        return EXIT_CODE
    except Exception as error:
        if place := _place(error):
            log.error("%s: %s", place, error)
            return 1
        ours = isinstance(error, (ValueError, RuntimeError, OSError)) and _is_ours(error)
        log.error("%s: %s", type(error).__name__, error, exc_info=not ours)
        return 1
    except KeyboardInterrupt:
        log.error("interrupted")
        return 128 + signal.SIGINT  # as a shell reports it


def _place(error: BaseException | None) -> str:
    """What is wrong with the disk, if that is what libraries say in their own errors and words; else empty."""
    text = str(error)
    return next((told for said, told in DISK_ERRORS.items() if said in text), "")


def _is_ours(error: BaseException) -> bool:
    """Errors raised by this package are worded for the user, who needs no traceback; others are a developer's.

    An error of compiled code (torch, numpy) ends in a line of this package too, but not in one that raises.
    """
    entry = error.__traceback__
    while entry and entry.tb_next:
        entry = entry.tb_next
    if entry is None or Path(__file__).parent not in Path(entry.tb_frame.f_code.co_filename).parents:
        return False
    raises = entry.tb_frame.f_code.co_code[entry.tb_lasti] == opmap["RAISE_VARARGS"]
    return raises or isinstance(error, OSError)  # which names its file


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m robust_transfer", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--version", action="version", version=f"robust-transfer {__version__}")
    commands = parser.add_subparsers(metavar="command", required=True)
    for stage in STAGES.values():
        _stage_command(commands, stage)
    _results_commands(commands)
    _planning_commands(commands)
    return parser


def _stage_command(commands: argparse._SubParsersAction[argparse.ArgumentParser], stage: Stage) -> None:
    heading = f"{stage.summary[0].upper()}{stage.summary[1:]}."
    command = commands.add_parser(
        stage.name,
        help=stage.summary,
        description=f"{heading}\n\n{stage.description}{RESUMING * stage.interruptible}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument(
        "entry", type=Path, help=f"folder of the entry, store/{stage.name}/<name>-<hash>, with entry.json"
    )
    command.add_argument("--threads", type=_positive, default=1, help="processor threads to use (default: 1)")
    command.add_argument(
        "--device", choices=("auto", "cpu", "cuda"), default="auto", help="auto takes a GPU if there is one"
    )
    _add_log(command)
    if stage.interruptible:
        _add_interruption(command, expensive=stage.expensive)
    if stage.originals:
        command.add_argument(
            f"--{stage.originals}", dest="originals", help=f"folder of originals (default: {stage.originals})"
        )
        command.add_argument("--downloads", action="store_true", help="download what is missing there")
    if stage.multiprocess:
        command.add_argument(
            "--processes", type=int, default=1, help="processes that share the training, a GPU each (default: 1)"
        )
        command.add_argument("--machines", type=_positive, default=1, help="machines that do the same (default: 1)")
        command.add_argument("--machine", type=int, default=0, help="number of this one, from 0")
        command.add_argument("--meet", metavar="HOST:PORT", help="where they meet: a free port of machine 0")
    command.set_defaults(run=_run_stage, stage=stage.name, processes=1, machines=1, stop_before=None, other_code=False)
    command.set_defaults(originals=None, downloads=False)


def _results_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    results = commands.add_parser("results", help=ALL_STAGES["results"].summary)
    results.add_argument("experiment", type=Path, help="results/<experiment>/experiment.json")
    results.add_argument("--results", type=Path, required=True, help="parquet file to write: one row per number")
    results.add_argument("--timings", type=Path, required=True, help="parquet file to write: one row per entry")
    results.add_argument("--training", type=Path, required=True, help="parquet file to write: one row per epoch")
    results.add_argument(
        "--flags", type=Path, required=True, help="CSV file to write: what looks wrong, one row per flag"
    )
    _add_log(results)
    results.set_defaults(run=_run_results)

    figures = commands.add_parser("figures", help=ALL_STAGES["figures"].summary)
    figures.add_argument("figure", help=", ".join(FIGURES))
    figures.add_argument("table", type=Path, help="results/<experiment>/results.parquet (training: training.parquet)")
    figures.add_argument(
        "--out",
        type=Path,
        required=True,
        help="path without suffix; .csv and .png, .pdf, .svg, or for a table .html, .tex, .md are added",
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

    report = commands.add_parser("report", help=ALL_STAGES["report"].summary)
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

    _store_command(commands)

    check = commands.add_parser("check", help="say what is wrong with a configuration, in the file's own lines")
    _add_configfile(check)
    check.set_defaults(run=_run_check)

    where = commands.add_parser("where", help="say where the results of an experiment lie")
    _add_configfile(where)
    where.set_defaults(run=_run_where)

    schema = commands.add_parser(
        "schema", help="write the JSON schema of configuration files and docs/configuration.md"
    )
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


def _store_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    store = commands.add_parser("store", help="have entries of the store made anew, or check its files")
    actions = store.add_subparsers(metavar="action", required=True)
    renew = actions.add_parser("renew", help="move entries aside, so that the next run makes them anew")
    renew.add_argument("entries", type=Path, nargs="+", metavar="entry", help="store/<stage>/<name>-<hash>")
    renew.set_defaults(run=_run_renew)
    verify = actions.add_parser("verify", help="read every file and compare it with the checksum in its card")
    verify.add_argument("paths", type=Path, nargs="*", help="stores or entries (default: store)")
    verify.set_defaults(run=_run_verify)


def _add_configfile(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--configfile",
        type=Path,
        nargs="+",
        default=[],
        help="files that describe the experiment, later ones over earlier ones (default: config.yaml)",
    )


def _add_log(command: argparse.ArgumentParser) -> None:
    command.add_argument("--log", type=Path, help="file to append messages to, beside the terminal")


def _add_interruption(command: argparse.ArgumentParser, expensive: bool) -> None:
    command.add_argument(
        "--stop-before",
        type=_time,
        metavar="TIME",
        help="save and leave at this time, such as 2030-01-31T08:00 (a scheduler's limit)",
    )
    if expensive:  # a cheap stage starts over instead
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
        file = logging.FileHandler(path, encoding="utf-8", errors="backslashreplace")
        file.setFormatter(logging.Formatter("%(asctime)s  %(message)s", "%Y-%m-%d %H:%M:%S"))
        handlers.append(file)
        if file.stream and not faulthandler.is_enabled():
            faulthandler.enable(file.stream)  # a crash in a library's own code, of which Python sees no exception
    # Libraries are heard from warnings on: fontTools describes every glyph of every font that a figure embeds.
    logging.basicConfig(level=logging.WARNING, handlers=handlers)
    logging.captureWarnings(True)
    # Of several processes on one training the first speaks.
    log.setLevel(logging.INFO if is_main() else logging.WARNING)


def _run_stage(args: argparse.Namespace) -> int:
    for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[variable] = str(args.threads)
    from robust_transfer.store.entry import open_entry

    entry = open_entry(args.entry)
    if entry.stage != args.stage:
        raise UsageError(
            f"{args.entry}: an entry of stage {entry.stage}; run `python -m robust_transfer {entry.stage}`"
        )
    stated = {"stop_before": args.stop_before, "other_code": args.other_code or None}
    stated |= {STAGES[args.stage].originals or "": args.originals, "downloads": args.downloads or None}
    settings = Running.model_validate(running().model_dump() | {k: v for k, v in stated.items() if v is not None})
    os.environ[VARIABLE] = settings.model_dump_json()
    if STAGES[args.stage].multiprocess:
        join_step()
    if args.processes * args.machines > 1 and "WORLD_SIZE" not in os.environ:
        return _launch(entry, args)
    if "WORLD_SIZE" in os.environ:
        return _run_in_team(entry, args)
    while True:
        with entry.locked():  # waits for another job that makes it, and has no GPU meanwhile
            if _is_finished(entry):
                return 0
        with ExitStack() as stack, _gpus(args, 1) as gpus:
            try:
                stack.enter_context(entry.locked(wait=False))
            except EntryInUseError:
                continue
            if not _is_finished(entry):
                _work(entry, args, gpus)
            return 0


def _run_in_team(entry: Entry, args: argparse.Namespace) -> int:
    """Run a stage as one of several processes, which have their GPUs from whoever started them."""
    is_launched = LAUNCHED in os.environ
    if not is_main() and not is_launched and entry.is_kept():
        return 0  # as the first process finds too
    with entry.locked() if is_main() else nullcontext():
        if is_main() and _is_finished(entry):
            return EXIT_CODE if is_launched else 0  # has the launcher end the others
        _work(entry, args, ExitStack())
    return 0


def _work(entry: Entry, args: argparse.Namespace, gpus: ExitStack) -> None:
    """Run a stage on the device that it gets; on the CPU it gives back the GPUs that were taken for it."""
    stage = STAGES[args.stage]
    device = _device(args.device if stage.uses_gpu or args.device == "cuda" else "cpu")
    if device == "cpu":
        gpus.close()
    module = importlib.import_module(stage.module)
    module.run(entry, threads=args.threads, device=device)


def _launch(entry: Entry, args: argparse.Namespace) -> int:
    """Run a stage in several processes, unless another job has finished the entry before they start."""
    machines = _machines(args)
    if machines.number:  # the first process of all holds the entry, on another machine
        with _gpus(args, args.processes):
            return 0 if entry.is_kept() else launch(args.processes, args.given, machines)
    with entry.locked():  # not longer: the first of the processes takes it
        if _is_finished(entry):
            return 0
    with _gpus(args, args.processes):
        code = launch(args.processes, args.given, machines)
    if code == EXIT_CODE:
        with entry.locked():
            return 0 if _is_finished(entry) else code
    return code


def _machines(args: argparse.Namespace) -> Machines:
    if args.machines == 1:
        return Machines()
    if not 0 <= args.machine < args.machines or not re.fullmatch(r"[^:\s]+:\d+", args.meet or ""):
        raise UsageError(
            f"--machines {args.machines} --machine {args.machine} --meet {args.meet}: say on each machine its number, "
            f"0 to {args.machines - 1}, and on all of them the same HOST:PORT of machine 0"
        )
    return Machines(args.machines, args.machine, args.meet)


@contextmanager
def _gpus(args: argparse.Namespace, count: int) -> Iterator[ExitStack]:
    """Hold as many GPUs as the job needs, until the block or the stack ends; none where there are none to use.

    Nobody waits for a GPU while it holds an entry, so that no two jobs wait for each other.
    """
    stage = STAGES[args.stage]
    is_wanted = args.device != "cpu" and (stage.uses_gpu or args.device == "cuda")
    cards = visible() if is_wanted and not driver_fault() else ()
    with ExitStack() as stack:
        if cards:
            from robust_transfer.machine.slots import taken

            share = running().jobs_per_gpu.get(args.stage, 1) if count == 1 else 1
            with Interruption(running().deadline) as interruption:

                def look() -> None:
                    if reason := interruption.reason:
                        raise Interrupted(f"{reason} while waiting for a GPU; run the same command to go on")

                stack.enter_context(taken(cards, count, share, look))
        yield stack


def _is_finished(entry: Entry) -> bool:
    """Whether the entry was finished before; then it is published again."""
    if not entry.publish_finished():
        return False
    log.info("finished before: published again, not computed")
    return True


def _device(asked: str) -> str:
    """`cpu`, or `cuda` if torch can use a GPU, which the job's `timing.json` then names. Imports torch unless `cpu`."""
    if asked == "cpu":
        return "cpu"
    from robust_transfer.machine.detection import described, resolved

    device = resolved(asked)
    if device == "cuda":
        os.environ[GPU] = json.dumps(described())
    return device


def _run_results(args: argparse.Namespace) -> None:
    from robust_transfer.stages.results import collect
    from robust_transfer.store.entry import read_json
    from robust_transfer.store.fingerprint import fingerprint
    from robust_transfer.store.made import digest, digest_of_cards, write_made

    described = read_json(args.experiment)
    store = Path(described["store"])
    # Asked first, as below: code and entries may change while the job runs.
    made_from = {"code": fingerprint("results"), "experiment": digest(described)}
    made_from["entries"] = digest_of_cards(store, described["costs"])
    collect(
        args.experiment,
        store,
        results=args.results,
        timings=args.timings,
        training=args.training,
        flags=args.flags,
    )
    files = (args.results, args.timings, args.training, args.flags)
    if all(file.parent == args.experiment.parent for file in files):
        write_made(args.experiment.parent, "results", made_from, files)


def _run_figures(args: argparse.Namespace) -> None:
    from robust_transfer.stages.figures import draw
    from robust_transfer.store.entry import sha256
    from robust_transfer.store.fingerprint import fingerprint
    from robust_transfer.store.made import write_made

    known = args.figure in FIGURES  # `draw` says which there are
    made_from = {"code": fingerprint(f"figures/{args.figure}"), "table": sha256(args.table)} if known else {}
    draw(args.figure, args.table, args.out)
    if args.out == args.table.parent / "figures" / args.figure:  # where a run of the experiment draws it
        files = [args.out.with_name(f"{args.figure}.{suffix}") for suffix in FIGURES[args.figure].suffixes]
        write_made(args.table.parent, f"figure_{args.figure}", made_from, files)


def _run_compare(args: argparse.Namespace) -> None:
    from robust_transfer.tables.compare import compare

    print(compare(args.first, args.second, selection=args.selection))


def _run_report(args: argparse.Namespace) -> None:
    from robust_transfer.stages.report import summary
    from robust_transfer.store.entry import sha256, write_text
    from robust_transfer.store.fingerprint import fingerprint
    from robust_transfer.store.made import write_made

    made_from = {"code": fingerprint("report"), "results": sha256(args.results)}
    made_from |= {"flags": sha256(args.flags)} if args.flags else {}
    text = summary(args.results, args.flags)
    if not args.out:
        print(text)
        return
    write_text(args.out, text)
    if args.out.parent == args.results.parent:
        write_made(args.out.parent, "report", made_from, [args.out])


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
            device=_device(args.device if args.calibrate else "cpu"),
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


def _run_renew(args: argparse.Namespace) -> None:
    from robust_transfer.store.upkeep import renew

    for path in args.entries:
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


def _run_where(args: argparse.Namespace) -> None:
    print(_wiring(args.configfile).results)


def _run_schema(args: argparse.Namespace) -> None:
    from robust_transfer.configuration import documentation, schema

    for generated in (schema, documentation):
        generated.PATH.parent.mkdir(exist_ok=True)
        generated.PATH.write_text(generated.text())
        print(generated.PATH)

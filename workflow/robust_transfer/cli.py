"""The command line: one subcommand per stage, each usable without Snakemake.

Modules of stages are imported when their command runs, so that no command pays for another's imports.
"""

from __future__ import annotations

import argparse
import faulthandler
import importlib
import logging
import os
import re
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from opcode import opmap
from pathlib import Path

from robust_transfer import __version__
from robust_transfer.commands.claims import add_claims_command
from robust_transfer.commands.compare import add_compare_command
from robust_transfer.commands.export import add_export_command
from robust_transfer.commands.options import Commands, add_log, device, point_in_time, positive
from robust_transfer.commands.planning import add_planning_commands
from robust_transfer.commands.published import add_published_command
from robust_transfer.commands.results import add_results_commands
from robust_transfer.commands.upkeep import add_store_command
from robust_transfer.configuration.running import VARIABLE, Running, running
from robust_transfer.machine.cards import usable
from robust_transfer.machine.launch import LAUNCHED, Machines, is_main, join_step, launch
from robust_transfer.registry import STAGES, Stage
from robust_transfer.resuming.interruption import EXIT_CODE, Interrupted, Interruption
from robust_transfer.resuming.scheduler import queue_again
from robust_transfer.store.entry import Entry, EntryInUseError, open_entry

DESCRIPTION = """\
Do adversarially robust models transfer better? The stages of the experiment, one command each.

`snakemake` runs them all in order; here each runs by hand on one entry of the store, a folder that holds an
`entry.json` with its settings. `entries --write` writes those files; then, for instance:

  robust-transfer entries --write
  robust-transfer datasets store/datasets/<entry>
  robust-transfer pretraining store/pretraining/<entry> --threads 2
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
        if left.goes_on and is_main():
            queue_again()
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
        "robust-transfer", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--version", action="version", version=f"robust-transfer {__version__}")
    commands = parser.add_subparsers(metavar="command", required=True)
    for stage in STAGES.values():
        _stage_command(commands, stage)
    add_results_commands(commands)
    add_claims_command(commands)
    add_compare_command(commands)
    add_export_command(commands)
    add_published_command(commands)
    add_planning_commands(commands)
    add_store_command(commands)
    return parser


def _stage_command(commands: Commands, stage: Stage) -> None:
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
    command.add_argument("--threads", type=positive, default=1, help="processor threads to use (default: 1)")
    command.add_argument(
        "--device", choices=("auto", "cpu", "cuda"), default="auto", help="auto takes a GPU if there is one"
    )
    add_log(command)
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
        command.add_argument("--machines", type=positive, default=1, help="machines that do the same (default: 1)")
        command.add_argument("--machine", type=int, default=0, help="number of this one, from 0")
        command.add_argument("--meet", metavar="HOST:PORT", help="where they meet: a free port of machine 0")
    command.set_defaults(run=_run_stage, stage=stage.name, processes=1, machines=1, stop_before=None, other_code=False)
    command.set_defaults(originals=None, downloads=False)


def _add_interruption(command: argparse.ArgumentParser, expensive: bool) -> None:
    command.add_argument(
        "--stop-before",
        type=point_in_time,
        metavar="TIME",
        help="save and leave at this time, such as 2030-01-31T08:00 (a scheduler's limit)",
    )
    if expensive:  # a cheap stage starts over instead
        command.add_argument(
            "--other-code", action="store_true", help="go on from a state that other code saved; the card will say so"
        )


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
    entry = open_entry(args.entry)
    if entry.stage != args.stage:
        raise UsageError(f"{args.entry}: an entry of stage {entry.stage}; run `robust-transfer {entry.stage}`")
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
    device_used = device(args.device if stage.uses_gpu or args.device == "cuda" else "cpu")
    if device_used == "cpu":
        gpus.close()
    module = importlib.import_module(stage.module)
    module.run(entry, threads=args.threads, device=device_used)


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
    cards = usable() if is_wanted else ()
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

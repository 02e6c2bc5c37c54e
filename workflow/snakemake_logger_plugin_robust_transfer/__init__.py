"""What Snakemake says on the terminal: one line for each job that has finished, and all of a failure.

A logger plugin of Snakemake: `logger: [robust-transfer]` in profiles/. Snakemake finds it by the package's name, where
its Python finds `robust_transfer` too. It is loaded before the Snakefile, which says whose checkout's `robust_transfer`
is meant, so nothing of that is imported here.

Jobs write to the terminal themselves, so these are plain lines and no display that is drawn again: of the bars of
snakemake-logger-plugin-rich 0.5.1 each line of a training left a copy behind, and without a terminal it said nothing.
"""

from __future__ import annotations

import logging
import shutil
import sys
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from snakemake.logging import ColorizingTextHandler, DefaultFilter, DefaultFormatter, get_event
from snakemake.settings.enums import Quietness
from snakemake_interface_logger_plugins.base import LogHandlerBase
from snakemake_interface_logger_plugins.common import LogEvent

from .steps import TARGET, Steps, span

SHOWN_OF_LOG = 40
"""Lines of a failed job's log that are shown; a training of days logs thousands."""
FAILURES = {LogEvent.ERROR, LogEvent.JOB_ERROR, LogEvent.GROUP_ERROR}
HIDDEN = {LogEvent.JOB_INFO, LogEvent.GROUP_INFO, LogEvent.JOB_STARTED, LogEvent.RESOURCES_INFO, LogEvent.RULEGRAPH}
HIDDEN_TEXTS = (
    "Assuming unrestricted shared filesystem",
    "Conda environments: ignored",
    "Group jobs: inactive",
    "Job rate limit reached",
    "Select jobs to execute",
    "Singularity containers: ignored",
    "Using shell:",
)
"""What Snakemake says, at the level INFO and without an event, that nobody needs to know who did not ask for it."""


class LogHandler(LogHandlerBase):
    """Follows a run, and writes what is worth a line. In a dry run, and with `--verbose`, all that Snakemake does."""

    def __post_init__(self) -> None:
        """Set up the terminal, or the file that takes its place, in which nothing is coloured."""
        settings = self.common_settings
        stream = sys.stdout if settings.stdout else sys.stderr
        self._steps = Steps()
        self._default = DefaultFilter(
            settings.quiet, settings.debug_dag, settings.verbose, settings.dryrun, settings.printshellcmds
        )
        self._says_all = settings.dryrun or settings.verbose
        width = shutil.get_terminal_size().columns if stream.isatty() else None
        formatter = Lines(self._steps, settings.quiet, settings.show_failed_logs, width)
        self._terminal = ColorizingTextHandler(settings.nocolor, stream, formatter)

    def emit(self, record: logging.LogRecord) -> None:
        """Learn from a record, and write it if it is worth a line."""
        try:
            event = get_event(record)
            if event == LogEvent.RUN_INFO:
                self._steps.plan({rule: count for rule, count in vars(record)["stats"].items() if rule != "total"})
            elif event == LogEvent.JOB_INFO:
                told = vars(record)
                self._steps.start(
                    told["jobid"], told["rule_name"], told["wildcards"] or {}, told["log"] or (), record.created
                )
            if self._is_shown(record, event):
                self._terminal.emit(record)
        except Exception:
            self.handleError(record)  # with the record's own text, so that nothing is lost

    def _is_shown(self, record: logging.LogRecord, event: LogEvent | None) -> bool:
        if event in FAILURES:  # which `quiet: rules` would hide
            return Quietness.ALL not in self._default.quiet
        if not self._says_all:
            if event in HIDDEN or (event is None and record.levelno <= logging.INFO and _is_hidden(record)):
                return False
            if event == LogEvent.PROGRESS:
                return bool(vars(record)["done"] == vars(record)["total"])
        return bool(self._default.filter(record))

    @property
    def writes_to_stream(self) -> bool:
        """In the place of Snakemake's own lines."""
        return True

    @property
    def writes_to_file(self) -> bool:
        """Snakemake keeps its own log file."""
        return False

    @property
    def has_filter(self) -> bool:
        """What is not shown is learnt from all the same."""
        return True

    @property
    def has_formatter(self) -> bool:
        """Made from Snakemake's own."""
        return True

    @property
    def needs_rulegraph(self) -> bool:
        """Nothing is drawn."""
        return False


class Lines(DefaultFormatter):  # type: ignore[misc]
    """Snakemake's texts, but for jobs that finished or failed."""

    def __init__(self, steps: Steps, quiet: Any, show_failed_logs: bool, width: int | None) -> None:
        """Create a formatter; lines are cut to `width` characters, unless it is None."""
        super().__init__(quiet, show_failed_logs=False)
        self._steps, self._width, self._shows_logs = steps, width, show_failed_logs

    def format_job_finished(self, msg: Mapping[str, Any]) -> str:
        """One line: steps done of all, time left, the job, how long it took."""
        name, seconds = self._steps.finish(msg["job_id"], msg["created"])
        if name == TARGET:
            return ""
        rule, _, entry = name.partition(" ")
        took = f"  {span(seconds)}" if seconds is not None else ""
        line = f"{self._done(msg['created'])} {rule} {entry}".rstrip() + took
        surplus = len(line) - self._width if self._width else 0
        # The end of an entry's name tells it from others more than its beginning does.
        return line.replace(f" {entry}", f" …{entry[surplus + 1 :]}") if 0 < surplus < len(entry) else line

    def format_job_error(self, msg: Mapping[str, Any]) -> str:
        """The job and the last line that it logged, what Snakemake says, and the end of the log."""
        name = self._steps.fail(msg["jobid"], msg["rule_name"], msg["created"])
        ends = {path: _end(path) for path in msg["log"]}
        said = next((lines[-1] for lines in ends.values() if lines), "it logged nothing")
        parts = [f"{self._done(msg['created'])} FAILED {name}: {said}", super().format_job_error(msg)]
        if self._shows_logs:
            parts += [f"The end of {path}:\n" + "\n".join(lines or ["(empty)"]) for path, lines in ends.items()]
        return "\n".join(parts)

    def _done(self, now: float) -> str:
        total = self._steps.total
        parts = [f"{self._steps.finished:{len(str(total))}}/{total} done"]
        if self._steps.failed:
            parts.append(f"{self._steps.failed} failed")
        if left := self._steps.time_left(now):
            parts.append(left)
        return f"[{', '.join(parts)}]"


def _is_hidden(record: logging.LogRecord) -> bool:
    return record.getMessage().startswith(HIDDEN_TEXTS)


def _end(path: str) -> Sequence[str]:
    """The last lines of a log, without empty ones at its end; none where there is no such file."""
    try:
        with Path(path).open(errors="replace") as file:
            return [line.rstrip() for line in deque((line for line in file if line.strip()), SHOWN_OF_LOG)]
    except OSError:
        return []

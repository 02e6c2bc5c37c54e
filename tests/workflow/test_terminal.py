"""What Snakemake says on the terminal: `workflow/snakemake_logger_plugin_robust_transfer`."""

import io
import logging
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from snakemake.settings.enums import Quietness
from snakemake_interface_logger_plugins.common import LogEvent
from snakemake_logger_plugin_robust_transfer import SHOWN_OF_LOG, LogHandler
from snakemake_logger_plugin_robust_transfer.steps import Steps, span
from support.paths import ROOT
from support.processes import output

COUNTS = {"pretraining": 2, "features": 2, "figure_width": 1, "all": 1}
QUIET = {Quietness.RULES, Quietness.REASON, Quietness.HOST}
"""As in profiles/default."""


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@dataclass
class Run:
    """A run that Snakemake tells the logger of, at times in seconds."""

    handler: LogHandler
    written: io.StringIO

    def tell(
        self, event: LogEvent | None, now: float = 0, *, text: object = None, level: int = 20, **told: Any
    ) -> None:
        record = {"name": "snakemake", "msg": str(text), "levelno": level, "levelname": logging.getLevelName(level)}
        self.handler.handle(logging.makeLogRecord(record | {"event": event, "created": now} | told))

    def start(self, job: int, rule: str, now: float, log: Path | str = "a.log", **wildcards: str) -> None:
        self.tell(LogEvent.JOB_STARTED, now, text="Execute 1 jobs...", jobs=[job])
        self.tell(
            LogEvent.JOB_INFO, now, jobid=job, rule_name=rule, wildcards=wildcards, log=[str(log)],
            rule_msg="as listed", reason="why", indent=False,
        )  # fmt: skip

    def finish(self, job: int, now: float) -> None:
        self.tell(LogEvent.JOB_FINISHED, now, text=f"Finished jobid: {job}", job_id=job)

    def fail(self, job: int, rule: str, now: float, log: Path | str) -> None:
        self.tell(
            LogEvent.JOB_ERROR, now, level=logging.ERROR, jobid=job, rule_name=rule, rule_msg=None, input=[],
            output=["a"], log=[str(log)], conda_env=None, container_img=None, aux={}, indent=False,
            shellcmd="python -m a",
        )  # fmt: skip

    @property
    def lines(self) -> list[str]:
        return self.written.getvalue().splitlines()


@pytest.fixture
def new_run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Run]:
    def make(stream: io.StringIO | None = None, **settings: Any) -> Run:
        written = stream or io.StringIO()
        monkeypatch.setattr("sys.stderr", written)
        told = {"printshellcmds": False, "nocolor": False, "quiet": QUIET, "debug_dag": False, "verbose": False}
        told |= {"show_failed_logs": True, "stdout": False, "dryrun": False, **settings}
        return Run(LogHandler(SimpleNamespace(**told), None), written)  # type: ignore[arg-type]

    return make


@pytest.fixture
def run(new_run: Callable[..., Run]) -> Run:
    """One that has said how many jobs there are."""
    started = new_run()
    started.tell(LogEvent.RUN_INFO, text="Job stats: …", stats={**COUNTS, "total": 6})
    return started


def test_a_finished_job_is_one_line(run: Run) -> None:
    run.tell(None, text="Select jobs to execute...")
    run.start(3, "pretraining", 0, entry="objects_resnet8_w4_l2_eps0.5_seed0-68636cae79")
    run.start(4, "pretraining", 0, entry="objects_resnet8_w4_eps0_seed0-c733871e53")
    run.finish(3, 40)
    run.tell(LogEvent.PROGRESS, 40, done=1, total=6)
    run.finish(4, 50)
    run.start(5, "figure_width", 50)
    run.finish(5, 52.4)
    run.start(0, "all", 53)
    run.finish(0, 53)
    run.tell(LogEvent.PROGRESS, 53, done=6, total=6)
    assert run.lines == [
        "Job stats: …",
        # The other training has taken as long; three jobs are left, each as long as the shortest, two at a time.
        "[1/6 done, at least 60 s left] pretraining objects_resnet8_w4_l2_eps0.5_seed0  40 s",
        "[2/6 done, at least 67 s left] pretraining objects_resnet8_w4_eps0_seed0  50 s",  # 90 s were worked in 50
        "[3/6 done] figure_width  2 s",
        "6 of 6 steps (100%) done",
    ]


def test_time_left_is_that_of_the_jobs_of_each_rule() -> None:
    steps = Steps()
    steps.plan({"pretraining": 4, "features": 2, "all": 1})
    assert steps.time_left(0) == ""
    steps.start(1, "pretraining", {}, [], 0)
    steps.start(2, "pretraining", {}, [], 0)
    assert steps.time_left(90) == "at least 90 s left"  # two more trainings, at least as long; of features nothing
    steps.finish(1, 600)
    steps.finish(2, 600)
    steps.start(3, "features", {}, [], 600)
    steps.finish(3, 660)
    # Two trainings of 600 s and one more of 60 s, in 660 s of which 1,260 s were worked.
    assert steps.time_left(660) == "about 11 min left"
    steps.start(4, "pretraining", {}, [], 660)
    assert steps.time_left(960) == "about 10 min left"  # 960 s of work, and 1,560 s were worked in 960
    steps.fail(4, "pretraining", 1000)
    assert steps.time_left(1000) == ""
    steps.start(4, "pretraining", {}, [], 1000)  # tried again
    assert steps.time_left(1000) != ""
    for job in (4, 5, 6):
        steps.start(job, "features" if job == 6 else "pretraining", {}, [], 1000)
        steps.finish(job, 1600)
    assert steps.finished == 6
    assert steps.time_left(1600) == ""


def test_figures_count_as_one_rule() -> None:
    steps = Steps()
    steps.plan({"figure_width": 1, "figure_norms": 1})
    steps.start(1, "figure_width", {}, [], 0)
    steps.finish(1, 20)
    assert steps.time_left(20) == "about 20 s left"


def test_spans() -> None:
    assert [span(seconds) for seconds in (0, 99, 100, 5900, 6000, 400_000)] == [
        *("0 s", "99 s", "2 min", "98 min", "2 h", "5 days")
    ]


def test_a_failure_is_shown_whole(run: Run, tmp_path: Path) -> None:
    """Although `quiet: rules` hides it in Snakemake's own logger."""
    log = tmp_path / "features.log"
    log.write_text("".join(f"line {number}\n" for number in range(100)) + "out of memory\n\n")
    run.start(3, "features", 0, log, entry="coarse-68636cae79")
    run.fail(3, "features", 30, log)
    text = run.written.getvalue()
    assert run.lines[1] == "[0/6 done, 1 failed] FAILED features coarse: out of memory"
    assert "Error in rule features:" in text
    assert f"log: {log}" in text
    assert "python -m a\n        (command exited with non-zero exit code)" in text
    assert run.lines[-SHOWN_OF_LOG - 1] == f"The end of {log}:"
    assert run.lines[-SHOWN_OF_LOG:] == [*(f"line {number}" for number in range(61, 100)), "out of memory"]
    run.tell(None, 31, text="Trying to restart job 3.")
    run.start(3, "features", 31, log, entry="coarse-68636cae79")
    run.finish(3, 50)
    assert run.lines[-2:] == ["Trying to restart job 3.", "[1/6 done, at least 76 s left] features coarse  19 s"]


def test_a_job_that_left_no_log_failed_too(run: Run, tmp_path: Path) -> None:
    run.start(3, "features", 0, tmp_path / "none.log")
    run.fail(3, "features", 30, tmp_path / "none.log")
    assert run.lines[1] == "[0/6 done, 1 failed] FAILED features: it logged nothing"


def test_errors_and_warnings_of_snakemake_itself_are_shown(run: Run) -> None:
    run.tell(LogEvent.ERROR, text="WorkflowError: no such file", level=logging.ERROR)
    run.tell(None, text="Submitted job 3 with external jobid '7'.")
    run.tell(None, text="Select jobs to execute: a warning", level=logging.WARNING)
    assert run.lines[1:] == [
        *(
            "WorkflowError: no such file",
            "Submitted job 3 with external jobid '7'.",
            "Select jobs to execute: a warning",
        )
    ]


def test_a_terminal_has_colours_and_lines_that_fit(
    new_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "xterm")
    run = new_run(Terminal())
    run.tell(LogEvent.RUN_INFO, text="Job stats: …", stats={**COUNTS, "total": 6})
    run.start(3, "features", 0, entry=f"objects_{'resnet8_' * 12}on_coarse-68636cae79")
    run.finish(3, 12)
    assert "\x1b[" in run.lines[-1]
    line = re.sub(r"\x1b\[\d+m", "", run.lines[-1])
    assert len(line) == 80
    assert line.startswith("[1/6 done, at least 48 s left] features …")
    assert line.endswith("_resnet8_on_coarse  12 s")


@pytest.mark.parametrize(("quiet", "listed"), [(QUIET, False), ({Quietness.HOST}, True)])
def test_a_dry_run_lists_what_snakemake_lists(quiet: set[Quietness], listed: bool, new_run: Callable[..., Run]) -> None:
    run = new_run(dryrun=True, quiet=quiet)
    run.tell(None, text="Conda environments: ignored")
    run.start(3, "features", 0)
    assert ("Job 3: as listed" in run.lines) is listed
    assert "Conda environments: ignored" in run.lines


def test_nothing_at_all_can_be_asked_for(new_run: Callable[..., Run]) -> None:
    run = new_run(quiet={Quietness.ALL})
    run.fail(3, "features", 30, "none.log")
    assert run.lines == []


def test_every_profile_names_the_logger() -> None:
    profiles = [*(ROOT / "profiles").glob("*/config.yaml")]
    assert len(profiles) == 4
    assert all(yaml.safe_load(path.read_text())["logger"] == ["robust-transfer"] for path in profiles)


def test_snakemake_finds_it_and_it_imports_nothing_of_the_package() -> None:
    code = """
        import sys
        from snakemake_interface_logger_plugins.registry import LoggerPluginRegistry
        from snakemake.cli import parse_args
        assert LoggerPluginRegistry().is_installed("robust-transfer")
        print([name for name in sys.modules if name.partition(".")[0] in ("robust_transfer", "torch", "pandas")])
    """
    assert output(code).strip() == "[]"

"""What an interrupted job asks of SLURM, whose programs are played by scripts here; the real ones: test_slurm.py."""

import os
import signal
import time
from datetime import datetime
from pathlib import Path

import pytest
from robust_transfer import cli
from robust_transfer.commands import planning
from robust_transfer.dag.engine import Engine
from robust_transfer.resuming import scheduler
from robust_transfer.resuming.interruption import EXIT_CODE, MARGIN, Interrupted, Interruption
from robust_transfer.resuming.scheduler import REQUEUE, end_of_job, queue_again

END = "2030-01-31T08:00:00"
SECONDS = datetime.fromisoformat(END).timestamp()


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Put programs of these names and texts on the path, and only them; the job is number 17."""

    def put(**texts: str) -> Path:
        for name, text in texts.items():
            path = tmp_path / name
            path.write_text(f"#!/bin/sh\necho {name} $* >> {tmp_path}/asked\n{text}\n")
            path.chmod(0o755)
        return tmp_path / "asked"

    for variable in [name for name in os.environ if name.startswith("SLURM_")]:
        monkeypatch.delenv(variable)
    monkeypatch.delenv(REQUEUE, raising=False)
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    monkeypatch.setenv("PATH", str(tmp_path))
    return put


def test_outside_slurm_nobody_is_asked(programs, monkeypatch) -> None:
    asked = programs(squeue=f"echo {END}")
    monkeypatch.delenv("SLURM_JOB_ID")
    assert end_of_job() is None
    assert not asked.exists()


def test_what_slurm_states_is_believed(programs, monkeypatch) -> None:
    asked = programs(squeue=f"echo {END}")
    monkeypatch.setenv("SLURM_JOB_END_TIME", "1900000000")
    assert end_of_job() == 1.9e9
    assert not asked.exists()


@pytest.mark.parametrize(
    "texts",
    [
        {"squeue": f"echo {END}"},
        {"squeue": f'[ "$SLURM_TIME_FORMAT" = standard ] && echo {END} || echo 3h'},
        {"squeue": "exit 1", "scontrol": f"echo JobId=17 StartTime=2030-01-31T07:00:00 EndTime={END} Deadline=N/A"},
        {"scontrol": f"echo JobId=17 EndTime={END}"},
    ],
)
def test_else_it_is_asked(programs, monkeypatch, texts) -> None:
    monkeypatch.setenv("SLURM_TIME_FORMAT", "relative")
    programs(**texts)
    assert end_of_job() == SECONDS


@pytest.mark.parametrize("said", ["N/A", "NONE", "Unknown", ""])
def test_a_job_without_a_limit_has_no_end(programs, said) -> None:
    programs(squeue=f"echo '{said}'", scontrol="exit 1")
    assert end_of_job() is None


def test_if_nobody_answers_a_line_says_so(programs, monkeypatch, caplog) -> None:
    monkeypatch.setattr(scheduler, "PATIENCE", 0.2)
    programs(squeue="exec /bin/sleep 5", scontrol="echo no contact >&2; exit 1")
    assert end_of_job() is None
    assert "the end of SLURM job 17 is not known" in caplog.text


def test_a_deadline_comes_before_the_end_and_leaves_a_short_job_most_of_its_time(programs, monkeypatch) -> None:
    now = time.time()
    for left, margin in ((100_000, MARGIN), (60, 6), (-5, 0)):
        monkeypatch.setenv("SLURM_JOB_END_TIME", str(round(now + left)))
        deadline = Interruption()._stop_before
        assert deadline == pytest.approx(now + left - margin, abs=1.5)


@pytest.mark.parametrize(
    ("number", "out_of_time"), [(signal.SIGUSR1, True), (signal.SIGTERM, False), (signal.SIGINT, False)]
)
def test_only_a_warning_or_the_clock_mean_that_time_is_up(number, out_of_time) -> None:
    with Interruption(time.time() + 1000) as interruption:
        assert not interruption.is_out_of_time
        os.kill(os.getpid(), number)
        assert interruption.is_out_of_time == out_of_time
    assert Interruption(time.time() - 1).is_out_of_time


@pytest.mark.parametrize(
    ("text", "preempted"),
    [
        ("echo JobId=17 PreemptEligibleTime=2026-11-26T06:29:40 PreemptTime=2026-11-26T06:29:44 Deadline=N/A", True),
        ("echo JobId=17 PreemptEligibleTime=2026-11-26T06:29:40 PreemptTime=None Deadline=N/A", False),
        ("exit 1", False),
    ],
)
def test_a_job_that_is_preempted_is_not_cancelled(programs, text, preempted) -> None:
    programs(scontrol=text)
    with Interruption(time.time() + 1000) as interruption:
        os.kill(os.getpid(), signal.SIGTERM)
        assert interruption.is_out_of_time == preempted


def test_only_a_job_of_the_executor_is_queued_again(programs, monkeypatch, caplog) -> None:
    caplog.set_level("INFO")
    monkeypatch.setattr(scheduler, "PATIENCE", 0.5)
    asked = programs(scontrol="exit 0")
    assert not queue_again()
    assert not asked.exists()
    monkeypatch.setenv(REQUEUE, "1")
    assert queue_again()
    assert asked.read_text() == "scontrol requeue 17\n"
    programs(scontrol="echo Requested operation is presently disabled >&2; exit 1")
    assert not queue_again()
    assert "SLURM job 17 is not queued again: Requested operation is presently disabled" in caplog.text


@pytest.mark.parametrize("goes_on", [True, False])
def test_the_command_queues_again_what_may_go_on_and_leaves(goes_on, monkeypatch) -> None:
    called = []
    monkeypatch.setattr(cli, "queue_again", lambda: called.append(1))

    def leave(args) -> None:
        raise Interrupted("time", goes_on=goes_on)

    monkeypatch.setattr(planning, "_run_where", leave)
    assert cli.main(["where"]) == EXIT_CODE
    assert len(called) == goes_on


@pytest.mark.parametrize("is_main", [True, False])
def test_the_warning_is_ignored_by_the_snakemake_of_a_job_alone(is_main, monkeypatch) -> None:
    class Workflow:
        is_main_process = is_main

    before = signal.signal(signal.SIGUSR1, signal.SIG_DFL)
    try:
        Engine(Workflow(), str).ignore_usr1()
        assert (signal.getsignal(signal.SIGUSR1) == signal.SIG_IGN) == (not is_main)
    finally:
        signal.signal(signal.SIGUSR1, before)

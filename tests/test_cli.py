"""The command line: whatever ends a command stands in its log, and the log holds nothing else."""

import signal
from pathlib import Path

import pytest
from robust_transfer.registry import STAGES
from support.processes import output, start

TABLES = ("results", "timings", "training", "backbones", "flags")
"""What the stage `results` writes."""
COMMANDS = [
    *([name, f"{{tmp}}/store/{name}/entry-abcdef"] for name in STAGES),
    ["results", "{tmp}/x.json", *(f"--{name}={{tmp}}/x" for name in TABLES)],
    ["figures", "headline", "{tmp}/results.parquet", "--out={tmp}/headline"],
    ["report", "{tmp}/results.parquet"],
]  # fmt: skip

RUN = """
    import importlib, json, logging, os, sys, warnings
    from pathlib import Path
    from robust_transfer import cli
    from robust_transfer.commands import results

    def die(*_, **__):
        {dies}

    name, log, *arguments = sys.argv[1:]
    cli._run_stage = die
    for run in ("_run_results", "_run_figures", "_run_report"):
        assert hasattr(results, run)
        setattr(results, run, die)
    print(cli.main([name, *arguments, "--log", log]))
"""


def logged(tmp_path: Path, dies: str, command: list[str] | None = None) -> tuple[str, str]:
    """What a command that ends so prints, and what its log holds."""
    name, *arguments = [part.format(tmp=tmp_path) for part in command or COMMANDS[0]]
    log = tmp_path / "logs" / "job.log"
    printed = output(RUN.replace("{dies}", dies), name, log, *arguments)
    return printed.strip(), log.read_text()


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
def test_the_log_of_every_stage_that_dies_holds_the_traceback(command, tmp_path):
    code, log = logged(tmp_path, "return {}['a key that is missing']", command)
    assert code == "1"
    assert "Traceback (most recent call last)" in log
    assert log.rstrip().endswith("KeyError: 'a key that is missing'")


@pytest.mark.parametrize(
    ("dies", "ends"),
    [
        ("raise MemoryError('too much')", "MemoryError: too much"),
        ("assert 1 == 2", "AssertionError"),
        ("import no_such_library", "ModuleNotFoundError: No module named 'no_such_library'"),
        ("import torch; torch.zeros(2, 3) @ torch.zeros(2, 3)", "cannot be multiplied"),
        ("raise ExceptionGroup('several', [ValueError('one')])", "ValueError: one"),
    ],
)
def test_errors_of_every_kind_are_logged_with_their_traceback(dies, ends, tmp_path):
    code, log = logged(tmp_path, dies)
    assert code == "1"
    assert "Traceback" in log
    assert ends in log


def test_errors_of_compiled_code_have_one_though_a_line_of_ours_is_the_last(tmp_path):
    calls = (
        "import torch; from robust_transfer.attacks import Linf; Linf(0.1).random_start(torch.zeros(2), torch.zeros(3))"
    )
    code, log = logged(tmp_path, calls)
    assert code == "1"
    assert "Traceback" in log
    assert "attacks.py" in log


def test_errors_that_are_worded_for_the_user_have_none(tmp_path):
    calls = "from robust_transfer.statistics.metrics import top1; import numpy as np; top1(np.zeros(0), np.zeros(0))"
    code, log = logged(tmp_path, calls)
    assert code == "1"
    assert "ValueError: labels [0] and predictions [0]: an accuracy needs" in log
    assert "Traceback" not in log


def test_a_keyboard_interrupt_is_logged(tmp_path):
    code, log = logged(tmp_path, "raise KeyboardInterrupt")
    assert code == str(128 + signal.SIGINT)
    assert "interrupted" in log


def test_a_crash_in_compiled_code_is_logged(tmp_path):
    log = tmp_path / "job.log"
    process = start(RUN.replace("{dies}", "import ctypes; ctypes.string_at(0)"), "features", log, "x")
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGSEGV
    assert "Fatal Python error: Segmentation fault" in log.read_text()


class TestLibraries:
    """Only this package speaks below warnings."""

    def test_only_this_package_is_heard_at_info(self, tmp_path):
        names = ("fontTools.subset", "matplotlib.font_manager", "PIL.PngImagePlugin", "", "robust_transfer")
        code, log = logged(tmp_path, f"[logging.getLogger(name).info('info of %s', name) for name in {names}]")
        assert (code, log.count("\n")) == ("0", 1)
        assert "info of robust_transfer" in log

    def test_their_warnings_are_in_the_log(self, tmp_path):
        _, log = logged(tmp_path, "logging.getLogger('PIL').warning('one'); warnings.warn('another')")
        assert "one" in log
        assert "UserWarning: another" in log

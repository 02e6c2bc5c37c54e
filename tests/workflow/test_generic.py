"""Another scheduler, by its commands: `profiles/generic`, whose own is a dozen lines of shell."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from robust_transfer.store.entry import CARD, STATE
from support.checkouts import Checkout
from support.paths import ROOT
from support.small_experiments import part, small

EXECUTOR = ROOT / ".venv-generic"
pytestmark = pytest.mark.skipif(not EXECUTOR.exists(), reason="the generic executor is not installed: make executors")
SMALL = small([part([0.5])], train=128, running={"save_seconds": 0})
LONG = {"training": {"epochs": 40, "batch_size": 16}, "attack": {"steps": 20}}


class OnScheduler(Checkout):
    """A checkout whose experiment runs through the profile."""

    def command(self, *arguments: str, overlay: str = "experiment.yaml") -> list[str]:
        options = (
            *("--workflow-profile", "profiles/generic", "--jobs", "2", "--seconds-between-status-checks", "1"),
            *("--max-jobs-per-timespan", "100/1s"),  # the profile's would have each run end a minute later
        )
        return [sys.executable, "-m", "snakemake", *options, *arguments, "--configfile", overlay]


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """The experiment without a scheduler, as far as its datasets and its backbone."""
    checkout = Checkout(tmp_path_factory.mktemp("here"), SMALL)
    run = checkout.snakemake("--until", "pretraining")
    assert run.returncode == 0, run.stderr[-3000:]
    return checkout


@pytest.fixture
def checkout(here: Checkout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> OnScheduler:
    """Its datasets alone, to go on with through the scheduler."""
    monkeypatch.setenv("PYTHONPATH", str(EXECUTOR))
    (tmp_path / "checkout").mkdir()
    checkout = OnScheduler(tmp_path / "checkout", SMALL)
    shutil.copytree(here.folder / "store" / "datasets", checkout.folder / "store" / "datasets", symlinks=True)
    return checkout


def files(checkout: Checkout, stage: str) -> list[Any]:
    """What the cards of a stage's entries say of their files."""
    return [json.loads(path.read_text())["files"] for path in sorted(checkout.folder.glob(f"store/{stage}/*/{CARD}"))]


@pytest.mark.faults
def test_a_training_has_the_bits_that_it_has_here(here: Checkout, checkout: OnScheduler) -> None:
    run = checkout.snakemake("--until", "pretraining")
    assert run.returncode == 0, run.stderr[-3000:]
    assert len(files(checkout, "pretraining")) == 1
    assert files(checkout, "pretraining") == files(here, "pretraining")
    assert "with external jobid" in run.stderr


@pytest.mark.faults
def test_the_experiment_has_the_results_that_it_has_here(here: Checkout, checkout: OnScheduler) -> None:
    for one in (here, checkout):
        run = one.snakemake()
        assert run.returncode == 0, run.stderr[-3000:]
    for stage in ("pretraining", "evaluation", "features", "probing"):
        assert files(checkout, stage) == files(here, stage)
    tables = [(one.folder / "results/small/figures/headline.csv").read_text() for one in (here, checkout)]
    assert tables[0] == tables[1]
    assert checkout.planned() == {}


@pytest.mark.faults
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGUSR1])
def test_a_job_that_is_ended_goes_on_in_the_next_attempt(
    number: signal.Signals, here: Checkout, checkout: OnScheduler, tmp_path: Path
) -> None:
    undisturbed = here.copy(tmp_path / "undisturbed")
    overlay = undisturbed.overlay("long.yaml", pretraining=LONG)
    assert undisturbed.snakemake("--until", "pretraining", overlay=overlay).returncode == 0
    checkout.overlay("long.yaml", pretraining=LONG)
    with (checkout.folder / "run.txt").open("w") as log:
        command = checkout.command("--until", "pretraining", overlay=overlay)
        process = subprocess.Popen(command, cwd=checkout.folder, stdout=log, stderr=log)
    deadline = time.monotonic() + 200
    while not [*checkout.folder.glob(f"store/pretraining/*/{STATE}/step-*")]:
        assert process.poll() is None, (checkout.folder / "run.txt").read_text()[-3000:]
        assert time.monotonic() < deadline
        time.sleep(0.1)
    said = (checkout.folder / "run.txt").read_text()
    (job,) = (int(line.split("'")[1]) for line in said.splitlines() if "with external jobid" in line)
    os.killpg(job, number)
    assert process.wait(300) == 0, (checkout.folder / "run.txt").read_text()[-3000:]
    (log_of_stage,) = (path.read_text() for path in checkout.folder.glob("store/pretraining/*/pretraining.log"))
    assert "going on at step" in log_of_stage
    assert [one for one in files(undisturbed, "pretraining") if one == files(checkout, "pretraining")[0]]

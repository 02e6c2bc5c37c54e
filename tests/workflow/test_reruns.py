"""What runs again, and what does not: what is stale, whatever Snakemake remembers; and nothing finished is lost.

The ordinary tests plan; those marked `faults` kill runs with every signal, and let two clones work on one store.
"""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from robust_transfer.store.finished import FINISHED
from support.checkouts import Checkout, edit, extend, finished_checkout, kept, lost, results
from support.disks import read_only, without_locks
from support.small_experiments import part, small

SMALL = small([part([0, 0.5]), part([0], ["full-network"])])
COLLECTED = {"results": 1, "claims": 1, "figure_headline": 1, "report": 1, "page": 1}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    return finished_checkout(tmp_path_factory.mktemp("checkout"), SMALL)


@pytest.fixture
def checkout(finished: Checkout, tmp_path: Path) -> Checkout:
    """The finished experiment once more."""
    return finished.copy(tmp_path / "checkout")


@pytest.mark.faults  # 15 s
def test_without_snakemakes_records_what_is_stale_runs_and_nothing_else(checkout: Checkout) -> None:
    shutil.rmtree(checkout.folder / ".snakemake")
    for path in (checkout.folder / "store").rglob("*.json"):
        path.touch()  # as a copy does
    assert checkout.planned() == {}
    eps = checkout.overlay("eps.yaml", probing={"strengths": [0.1, 0.01]})
    assert checkout.planned(overlay=eps) == {"probing": 2, **COLLECTED}
    extend(checkout.package / "figures" / "html.py")
    assert checkout.planned() == {"figure_headline": 1, "claims": 1, "page": 1}
    extend(checkout.package / "attacks.py")
    run = checkout.snakemake("-n")
    assert "evaluation: 2 of 2 made again (changed since: attacks)" in run.stderr
    assert checkout.planned() == {"evaluation": 2, **COLLECTED}
    assert not list((checkout.folder / ".snakemake" / "metadata").rglob("*"))  # nothing to learn that from


def test_another_clone_on_the_store_sees_what_other_code_made(checkout: Checkout, tmp_path: Path) -> None:
    (tmp_path / "clone").mkdir()
    clone = Checkout(tmp_path / "clone", SMALL)
    extend(clone.package / "statistics" / "lbfgs.py")
    overlay = clone.overlay("shared.yaml", store=str(checkout.folder / "store"))
    assert clone.planned(overlay=overlay) == {"probing": 2, **COLLECTED}


def test_an_edited_rule_keeps_what_is_expensive(checkout: Checkout) -> None:
    edit(checkout.folder / "rules" / "pretraining.smk", "--log {log:q}", " --log {log:q} --device cpu")
    edit(checkout.folder / "rules" / "finetuning.smk", "    params:\n", "    params:\n        another=1,\n")
    assert checkout.planned() == {}


@pytest.mark.faults  # for its length
def test_a_removed_entry_comes_back_and_what_hangs_on_it_is_not_computed(checkout: Checkout) -> None:
    before, table = kept(checkout), results(checkout)
    (renewed,) = (checkout.folder / "store" / "pretraining").glob("*_l2_eps0.5_*")
    renewed = renewed.relative_to(checkout.folder)
    said = checkout.python("store", "renew", str(renewed))
    assert said.returncode == 0, said.stderr
    assert "moved to" in said.stdout
    planned = {"pretraining": 1, "evaluation": 1, "features": 1, "probing": 1, **COLLECTED}
    assert checkout.planned() == planned
    run = checkout.snakemake()
    assert run.returncode == 0, run.stderr[-3000:]
    assert run.stderr.count("finished before") == 3
    assert {path.rpartition(f"/{FINISHED}")[0] for path in lost(before, checkout)} == {
        str(renewed.relative_to("store"))
    }
    assert results(checkout) == table
    assert checkout.planned() == {}


@pytest.mark.faults  # for its length
def test_an_adopted_store_draws_all_figures_in_a_new_clone_and_computes_nothing_else(
    checkout: Checkout, tmp_path: Path
) -> None:
    pack, configured = tmp_path / "pack.tar", ("--configfile", "experiment.yaml")
    said = checkout.python("store", "export", str(pack), *configured, "--results")
    assert said.returncode == 0, said.stderr
    (tmp_path / "clone").mkdir()
    clone = Checkout(tmp_path / "clone", SMALL)
    assert clone.python("store", "adopt", str(pack), "--without-results").returncode == 0
    before = kept(clone)
    assert clone.planned() == COLLECTED
    run = clone.snakemake()
    assert run.returncode == 0, run.stderr[-3000:]
    assert "finished before" not in run.stderr
    assert kept(clone) == before
    assert results(clone) == results(checkout)
    figures = Path("results", "small", "figures")
    for drawn in (checkout.folder / figures).glob("*.csv"):
        assert (clone.folder / figures / drawn.name).read_text() == drawn.read_text()
    assert clone.python("store", "verify").returncode == 0
    shutil.rmtree(clone.folder / "store")
    shutil.rmtree(clone.folder / "results")
    assert clone.python("store", "adopt", str(pack)).returncode == 0
    assert clone.planned() == {}


def test_a_failed_run_is_not_nothing_to_be_done(checkout: Checkout) -> None:
    (metrics,) = (checkout.folder / "store" / "probing").glob("*eps0_*/metrics.json")
    rows = json.loads(metrics.read_text())
    metrics.write_text(json.dumps(rows))  # in another layout
    overlay = checkout.overlay("titled.yaml", title="Another")
    for _ in range(2):
        run = checkout.snakemake(overlay=overlay)
        assert run.returncode != 0
        assert "Nothing to be done" not in run.stderr
        assert "failed: results: " in run.stderr
        assert "metrics.json: " in run.stderr
        assert checkout.planned(overlay=overlay) == COLLECTED
    assert checkout.python("store", "verify").returncode == 1


@pytest.mark.faults  # for its length
def test_a_clock_that_jumps_back_a_day_changes_no_plan(checkout: Checkout) -> None:
    """All that was made is then from tomorrow."""
    tomorrow = time.time() + 86400
    for path in (*checkout.folder.rglob("*"), *(checkout.folder / ".snakemake").rglob("*")):
        os.utime(path, (tomorrow, tomorrow), follow_symlinks=False)
    assert checkout.planned() == {}
    eps = checkout.overlay("eps.yaml", probing={"strengths": [0.1, 0.01]})
    assert checkout.planned(overlay=eps) == {"probing": 2, **COLLECTED}
    before, table = kept(checkout), results(checkout)
    for path in (checkout.folder / "store" / "probing").glob("*/card.json"):
        path.unlink()
    run = checkout.snakemake()
    assert run.returncode == 0, run.stderr[-3000:]
    assert not lost(before, checkout)
    assert results(checkout) == table
    assert checkout.planned() == {}


@pytest.mark.faults  # for its length
def test_from_a_read_only_store_everything_is_drawn_and_nothing_else_begun(checkout: Checkout) -> None:
    store = checkout.folder / "store"
    eps = checkout.overlay("eps.yaml", probing={"strengths": [0.1, 0.01]})
    shutil.rmtree(checkout.folder / "results")
    with read_only(store):
        assert checkout.planned() == COLLECTED
        run = checkout.snakemake()
        assert run.returncode == 0, run.stderr[-3000:]
        assert checkout.planned() == {}
        run = checkout.snakemake(overlay=eps)
        assert run.returncode != 0
        assert "store = store, results = results/small: cannot be written (" in run.stderr
        assert "Read-only file system" in run.stderr
        assert "make room or set them elsewhere" in run.stderr
    assert checkout.planned(overlay=eps) == {"probing": 2, **COLLECTED}


@pytest.mark.parametrize("granted", [False, True])
def test_on_a_disk_without_locks_nothing_is_begun(
    granted: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "checkout").mkdir()
    checkout = Checkout(tmp_path / "checkout", SMALL)
    with monkeypatch.context() as patch:
        for name, value in without_locks(tmp_path, checkout.folder / "store", granted=granted).items():
            patch.setenv(name, value)
        run = checkout.snakemake()
    assert run.returncode != 0
    assert "store = store: its file system does not honour locks (" in run.stderr
    assert not list((checkout.folder / "store").glob("*/*/card.json"))
    assert not list((checkout.folder / "store").glob("*/*/*.log"))


# Below: kills, and two at once.

LONGER = {"training": {"epochs": 3, "batch_size": 8}}
SIGNALS = (signal.SIGKILL, signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)


def started(checkout: Checkout, overlay: str) -> subprocess.Popen[str]:
    """A run in a session of its own, whose processes can be signalled together."""
    log = (checkout.folder / "run.txt").open("a")
    command = checkout.command(overlay=overlay)
    return subprocess.Popen(command, cwd=checkout.folder, stdout=log, stderr=log, text=True, start_new_session=True)


def wait_for_the_last(session: int) -> None:
    """Wait until no process of a session is left: jobs outlive a Snakemake that is killed alone."""
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline:
        stats = (path.read_text() for path in members())
        fields = [text.rpartition(")")[2].split() for text in stats]
        if not [one for one in fields if int(one[3]) == session and one[0] != "Z"]:
            return
        time.sleep(0.1)
    raise AssertionError(f"session {session} is still running")


def members() -> Iterator[Path]:
    for path in Path("/proc").glob("[0-9]*/stat"):
        if path.exists():
            yield path


@pytest.mark.faults
@pytest.mark.parametrize("whom", ["snakemake", "all"])
@pytest.mark.parametrize("number", SIGNALS)
def test_killed_in_any_way_it_loses_nothing(
    number: signal.Signals, whom: str, finished: Checkout, tmp_path: Path
) -> None:
    """Three kills in a run, at random; each time everything finished stays the same file on the disk."""
    checkout, draws = finished.copy(tmp_path / "checkout"), random.Random(f"{number} {whom}")
    shutil.rmtree(checkout.folder / "store")
    shutil.rmtree(checkout.folder / ".snakemake")
    overlay = checkout.overlay("long.yaml", pretraining=LONGER, running={"save_seconds": 0})
    for _ in range(3):
        before = kept(checkout)
        process = started(checkout, overlay)
        time.sleep(draws.uniform(4, 14))
        if whom == "all":
            os.killpg(process.pid, number)
        elif process.poll() is None:
            process.send_signal(number)
        process.wait()
        wait_for_the_last(process.pid)
        assert not lost(before, checkout)
        checkout.snakemake("--unlock", overlay=overlay)
    before = kept(checkout)
    run = checkout.snakemake(overlay=overlay)
    assert run.returncode == 0, run.stderr[-3000:]
    assert not lost(before, checkout)
    assert checkout.planned(overlay=overlay) == {}
    assert checkout.python("store", "verify").returncode == 0


@pytest.mark.faults
@pytest.mark.parametrize("apart", [0.0, 1.0, 2.0, 4.0])
def test_two_clones_share_one_store(apart: float, tmp_path: Path) -> None:
    clones = []
    for name in ("one", "another"):
        (tmp_path / name).mkdir()
        clone = Checkout(tmp_path / name, SMALL)
        overlay = clone.overlay("shared.yaml", store=str(tmp_path / "store"), pretraining=LONGER)
        clones.append(clone)
    processes = []
    for clone in clones:
        processes.append(started(clone, overlay))
        time.sleep(apart)
    for clone, process in zip(clones, processes, strict=True):
        assert process.wait(timeout=400) == 0, (clone.folder / "run.txt").read_text()[-3000:]
    assert results(clones[0]) == results(clones[1])
    for clone in clones:
        assert clone.planned(overlay=overlay) == {}
    said = "".join((clone.folder / "run.txt").read_text() for clone in clones)
    assert len(re.findall(r"^pretraining .* parameters; ", said, re.M)) == 2  # each backbone was trained once

"""Whole runs on disks that fill up, with entries that were damaged, and on cards that jobs must share."""

import json
import os
import re
import shutil
import time
from pathlib import Path

import pytest
from support.checkouts import Checkout, edit, finished_checkout, kept, lost, results
from support.disks import enlarge, free, small_disk
from support.gpus import UUIDS, driver
from support.small_experiments import part, small

pytestmark = pytest.mark.faults
SMALL = small([part([0, 0.5]), part([0], ["full-network"])])


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    return finished_checkout(tmp_path_factory.mktemp("checkout"), SMALL)


def fresh(finished: Checkout, folder: Path) -> Checkout:
    """The same checkout before its first run."""
    checkout = finished.copy(folder)
    for name in ("store", "results", ".snakemake"):
        shutil.rmtree(folder / name)
    return checkout


def test_a_disk_that_is_full_again_and_again_loses_nothing_finished(
    finished: Checkout, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It grows by a little each time, and the same command goes on."""
    checkout, faults = fresh(finished, tmp_path / "checkout"), 0
    needed = sum(path.stat().st_size for path in (finished.folder / "store").rglob("*") if path.is_file()) // 1024
    with small_disk(tmp_path / "disk", 64) as disk:
        (checkout.folder / "store").symlink_to(disk)
        size = 64
        while True:
            before = kept(checkout)
            run = checkout.snakemake()
            assert not lost(before, checkout)
            verified = checkout.python("store", "verify")
            assert not re.search("not as|not readable", verified.stdout), verified.stdout
            if run.returncode == 0:
                break
            faults += 1
            said = run.stderr + run.stdout
            assert re.search("disk is full|could not be written|cannot be written|No space left", said), said[-3000:]
            size += max(64, needed // 8)
            assert size < 8 * needed, (size, needed, free(disk), said[-3000:])
            enlarge(disk, size)
        assert results(checkout) == results(finished)
        assert checkout.planned() == {}
        assert verified.returncode == 0, verified.stdout
    with capsys.disabled():
        print(f"\ndisk full {faults} times, at up to {size} kB: no result lost")
    assert faults >= 3


def test_every_damaged_entry_is_named_and_made_again(
    finished: Checkout, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One file of each entry is altered, cut short or removed; `store renew` of those named, and the same command."""
    checkout = finished.copy(tmp_path / "checkout")
    damaged = []
    for number, card in enumerate(sorted((checkout.folder / "store").glob("*/*/card.json"))):
        names = sorted(json.loads(card.read_text())["files"])
        path = card.parent / names[number % len(names)]
        content = path.read_bytes()
        if number % 3 == 2:
            path.unlink()
            (card.parent / ".finished" / path.name).unlink()
        else:
            for name in (path, card.parent / ".finished" / path.name):
                name.write_bytes(content[:-1] if number % 3 else bytes([content[0] ^ 1]) + content[1:])
        damaged.append(path)
    verified = checkout.python("store", "verify")
    assert verified.returncode == 1
    for path in damaged:
        assert str(path.relative_to(checkout.folder)) in verified.stdout
    entries = sorted({str(path.parent.relative_to(checkout.folder)) for path in damaged})
    assert checkout.python("store", "renew", *entries).returncode == 0
    run = checkout.snakemake()
    assert run.returncode == 0, run.stderr[-3000:]
    assert results(checkout) == results(finished)
    assert checkout.planned() == {}
    whole = [entry for entry in entries if checkout.python("store", "verify", entry).returncode]
    assert whole == []
    with capsys.disabled():
        print(f"\n{len(damaged)} of {len(entries)} entries damaged: all named, all made again, no result changed")


FROM_WEIGHTS = ("evaluation", "features", "finetuning", "probing")
READERS = {
    "datasets": ("pretraining", *FROM_WEIGHTS),
    "pretraining": FROM_WEIGHTS,
    "features": ("probing",),
    "evaluation": (),
    "finetuning": (),
}
"""Stages that are made from what a stage makes; what else reads it are the tables."""


@pytest.mark.parametrize("stage", READERS)
def test_a_reader_of_a_damaged_entry_says_what_to_do(stage: str, finished: Checkout, tmp_path: Path) -> None:
    """And having done that, the same command ends with the same results."""
    checkout = finished.copy(tmp_path / "checkout")
    for card in (checkout.folder / "store").glob(f"{stage}/*/card.json"):
        for name in json.loads(card.read_text())["files"]:
            for path in (card.parent / name, card.parent / ".finished" / name):  # two files, since this is a copy
                path.write_bytes((finished.folder / path.relative_to(checkout.folder)).read_bytes()[:-1] + b"\0")
    for reader in READERS[stage]:
        shutil.rmtree(checkout.folder / "store" / reader)
    shutil.rmtree(checkout.folder / "results")
    said: set[str] = set()
    for _ in range(4):
        run = checkout.snakemake()
        if run.returncode == 0:
            break
        told = set(re.findall(r"store renew (store/\S+)", run.stderr + run.stdout))
        assert told - said, run.stderr[-3000:]
        said |= told
        assert checkout.python("store", "renew", *sorted(told)).returncode == 0
    assert run.returncode == 0, run.stderr[-3000:]
    assert {entry.split("/")[1] for entry in said} == {stage}
    assert results(checkout) == results(finished)
    assert checkout.planned() == {}


def test_jobs_share_the_cards_of_a_machine(finished: Checkout, tmp_path: Path) -> None:
    """Two cards that are not there: each job has one while it works, here on the CPU, and both are used."""
    checkout = fresh(finished, tmp_path / "checkout")
    package = checkout.folder / "workflow" / "robust_transfer"
    folder = driver(tmp_path / "driver", UUIDS[:2])
    edit(package / "machine" / "cards.py", 'Path("/proc/driver/nvidia")', f'Path("{folder}")')
    edit(
        package / "cli.py",
        '    if device == "cpu":\n        gpus.close()\n',
        '    os.environ[GPU] = json.dumps({"cards": os.environ.get("CUDA_VISIBLE_DEVICES")})\n',
    )
    overlay = checkout.overlay("cards.yaml", running={"jobs_per_gpu": {"features": 2}})
    os.environ["ROBUST_TRANSFER_SLOTS"] = str(tmp_path / "slots")
    try:
        dry = checkout.snakemake("-n", "--quiet", "host", overlay=overlay)
        assert dry.returncode == 0, dry.stderr
        assert set(re.findall(r"gpu_share=(\d+)", dry.stdout + dry.stderr)) == {"24", "12"}
        start = time.monotonic()
        run = checkout.snakemake("--cores", "4", overlay=overlay)
    finally:
        del os.environ["ROBUST_TRANSFER_SLOTS"]
    assert run.returncode == 0, run.stderr[-3000:]
    assert time.monotonic() - start < 400
    used = {}
    for path in (checkout.folder / "store").glob("*/*/timing.json"):
        used[path.parent.parent.name, path.parent.name] = json.loads(path.read_text())["gpu"]["cards"]
    by_gpu = {cards for (stage, _), cards in used.items() if stage in ("pretraining", "evaluation", "finetuning")}
    assert by_gpu == set(UUIDS[:2])
    assert {cards for (stage, _), cards in used.items() if stage in ("datasets", "probing")} == {None}
    assert results(checkout) == results(finished)

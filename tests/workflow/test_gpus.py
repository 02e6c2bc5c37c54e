"""The workflow on a machine with GPUs that are not there: who gets which, and with how many cores beside it."""

import json
import os
import re
from collections.abc import Mapping
from itertools import combinations
from pathlib import Path

import pytest
import yaml
from support.checkouts import Checkout, edit
from support.gpus import UUIDS, driver
from support.small_experiments import part, small

MARK = """    if args.stage == "pretraining":
        import time
        start, names = time.monotonic(), os.environ.get("CUDA_VISIBLE_DEVICES", "")
        time.sleep(2)
        path = Path(os.environ["MARKS"]) / str(os.getpid())
        path.write_text(f'["{names}", {start}, {time.monotonic()}, {args.threads}]')
        raise SystemExit(3)
"""
FIRST = "    stage = STAGES[args.stage]\n    device_used"


def with_cards(folder: Path, cards: int, sections: Mapping[str, object] = {}) -> Checkout:
    """A checkout of four trainings, on a machine with so many cards, where a training notes its card and ends."""
    for name in ("checkout", "driver"):
        (folder / name).mkdir()
    checkout = Checkout(folder / "checkout", small([part([0, 0.5], seeds=[0, 1])]))
    overlay = yaml.safe_load(checkout.experiment) | dict(sections)
    (checkout.folder / "experiment.yaml").write_text(yaml.safe_dump(overlay))
    found = driver(folder / "driver", UUIDS[:cards])
    edit(checkout.package / "machine" / "cards.py", 'Path("/proc/driver/nvidia")', f'Path("{found}")')
    edit(checkout.package / "cli.py", FIRST, MARK + FIRST)
    return checkout


def run(checkout: Checkout, folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, float, float, int]]:
    """Card, start, end and threads of each training."""
    (folder / "marks").mkdir()
    monkeypatch.setenv("MARKS", str(folder / "marks"))
    monkeypatch.setenv("ROBUST_TRANSFER_SLOTS", str(folder / "slots"))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    checkout.snakemake("--cores", "4", "--until", "pretraining")
    return [tuple(json.loads(path.read_text())) for path in (folder / "marks").iterdir()]


def test_four_jobs_on_four_cores_never_share_a_card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = run(with_cards(tmp_path, 4), tmp_path, monkeypatch)
    assert len(ran) == 4
    together = [(one, other) for one, other in combinations(ran, 2) if one[1] < other[2] and other[1] < one[2]]
    assert together  # else nothing was tried
    assert all(one[0] != other[0] for one, other in together)
    assert {names for names, *_ in ran} <= set(UUIDS[:4])
    assert "CUDA_VISIBLE_DEVICES" not in os.environ


STREAMED = {
    "datasets": {
        "objects": {"origin": {"kind": "shapes", "task": "objects", "train": 64, "test": 40, "side": 128}},
        "coarse": {"origin": {"kind": "shapes", "task": "coarse", "train": 40, "test": 40}},
    },
    "pretraining": {"training": {"epochs": 1, "batch_size": 32, "augmentation": "resized-crop-flip"}},
}
"""Images that are stored as files and read anew, of which a network so small takes more than any machine decodes."""


def planned(checkout: Checkout, *options: str) -> dict[str, set[int]]:
    """Threads that a dry run says of the jobs of each rule."""
    said = checkout.snakemake("-n", "--quiet", "host", *options)
    assert said.returncode == 0, said.stdout + said.stderr
    found: dict[str, set[int]] = {}
    for rule, job in re.findall(r"^rule (\w+):\n((?:    .*\n)+)", said.stdout + said.stderr, re.M):
        asked = re.search(r"^    threads: (\d+)", job, re.M)
        found.setdefault(rule, set()).add(int(asked[1]) if asked else 1)
    return found


def test_without_a_gpu_every_job_has_one_core(tmp_path: Path) -> None:
    assert set.union(*planned(with_cards(tmp_path, 0, STREAMED), "--cores", "16").values()) == {1}


def test_beside_a_gpu_jobs_have_the_cores_that_feed_it(tmp_path: Path) -> None:
    """A training its part of the machine's; one whose images are raw pixels that stay in memory no more than before."""
    found = planned(with_cards(tmp_path, 2, STREAMED), "--cores", "16")
    assert found["pretraining"] == {8}
    assert found["features"] == found["probing"] == {1}

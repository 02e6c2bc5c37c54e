"""Models that were transferred to a target, tested on other images of its classes, through Snakemake."""

from pathlib import Path

import pytest
from robust_transfer.tables.results import read_results
from support.checkouts import Checkout
from support.small_experiments import part, small

AGAIN = {"origin": {"kind": "shapes", "task": "coarse", "train": 10, "test": 30}}


@pytest.mark.faults  # it runs the workflow
def test_every_protocol_is_tested_on_them(tmp_path: Path) -> None:
    """And nothing is left to do afterwards."""
    grid = [part([0.5], ["fixed-feature", "full-network"], protocols=["frozen", "paper", "knn"])]
    other = {"coarse": [{"dataset": "again"}]}
    text = small(grid, also_test_on=other)
    checkout = Checkout(tmp_path, text.replace("datasets:\n", f"datasets:\n  again: {AGAIN}\n", 1))
    run = checkout.snakemake()
    assert run.returncode == 0, run.stderr[-5000:]
    rows = read_results(tmp_path / "results/small/results.parquet")
    found = rows[rows["test_set"].notna() & rows["entry"].notna() & (rows["metric"] == "top1")]
    assert {*found["test_set"]} == {"again"}
    assert {*found["split"]} == {"other"}
    assert {*found["n"]} == {30}
    measured = {(row["mode"], row["protocol"]) for row in found.to_dict("records")}
    assert measured == {*(("fixed-feature", name) for name in ("frozen", "paper", "knn")), ("full-network", "paper")}
    assert "Nothing to be done" in checkout.snakemake("-n").stdout

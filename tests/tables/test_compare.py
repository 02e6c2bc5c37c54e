"""Comparing two finished transfers afterwards."""

import numpy as np
import pytest
from robust_transfer import cli
from robust_transfer.statistics.candidates import SelectionError
from robust_transfer.store.entry import StoreError
from robust_transfer.store.names import named_entry
from robust_transfer.tables.compare import compare
from support.fake_entries import Fake


def test_the_difference_is_paired(tmp_path):
    """Ten images more are right, and none fewer: the difference is sharp although both accuracies are not."""
    fake = Fake(tmp_path)
    better = tmp_path / "store" / fake.transfer(np.arange(200) < 120, 50, eps="0.25")
    worse = tmp_path / "store" / fake.transfer(np.arange(200) < 110, 50)
    lines = compare(better, worse).splitlines()
    assert lines[0] == f"A probing/{better.name}"
    assert "on 200 images in %, hyperparameters chosen on validation" in lines[2]
    top1 = lines[3]
    assert top1.startswith("top-1            A 60.0 [52.9")
    assert "B 55.0 [4" in top1
    difference = top1.partition("A - B ")[2]
    low, high = map(float, difference.partition("[")[2].rstrip("]").split(","))
    assert difference.startswith("+5.0 [")
    assert 1.5 < low < 5 < high < 9


def test_what_cannot_be_compared_is_named(tmp_path, capsys):
    fake = Fake(tmp_path)
    one = tmp_path / "store" / fake.transfer(50, 50)
    fewer = tmp_path / "store" / fake.transfer(np.ones(100, bool), 50, eps="0.25")
    with pytest.raises(SelectionError, match=r"\(100 test images\) and .* \(200\) were tested on different images"):
        compare(one, fewer)
    untested = tmp_path / "store" / fake.transfer(np.ones(0, bool), 50, eps="0.5")
    with pytest.raises(SelectionError, match="no test predictions with hyperparameters chosen on validation"):
        compare(one, untested)
    assert cli.main(["compare", str(one), str(one)]) == 0
    assert "A - B +0.0 [+0.0, +0.0]" in capsys.readouterr().out


def test_entries_are_named_by_parts_of_their_names(tmp_path, capsys):
    fake = Fake(tmp_path)
    store = tmp_path / "store"
    standard, robust = store / fake.transfer(50, 50, eps="0"), store / fake.transfer(60, 50, eps="0.25")
    assert cli.main(["compare", "probing 0_none", "0.25_l2", "--store", str(store)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == [f"A probing/{standard.name}", f"B probing/{robust.name}"]


def test_words_that_name_no_entry_or_several_say_which_there_are(tmp_path):
    fake = Fake(tmp_path)
    store = tmp_path / "store"
    names = [fake.transfer(50, 50, eps="0", target=target) for target in fake.targets]
    with pytest.raises(StoreError, match=rf"probing: {len(names)} entries of .* add a word") as raised:
        named_entry("probing", store, holding="predictions.parquet")
    assert all(name in str(raised.value) for name in names)
    with pytest.raises(StoreError, match="robing: neither a folder nor the name"):
        named_entry("robing", store, holding="predictions.parquet")  # a part of a word is none
    with pytest.raises(StoreError, match="neither an entry nor a store"):
        named_entry("probing", tmp_path / "elsewhere", holding="predictions.parquet")


def test_an_entry_is_renewed_by_its_name_and_then_no_longer_found(tmp_path, capsys):
    fake = Fake(tmp_path)
    store = tmp_path / "store"
    entry = store / fake.transfer(50, 50, eps="0")
    assert cli.main(["store", "renew", "probing 0_none", "--store", str(store)]) == 0
    assert f"{entry}: moved to {entry}.old1" in capsys.readouterr().out
    with pytest.raises(StoreError, match="has 0 of them"):  # what was moved aside is none
        named_entry("probing", store, holding="predictions.parquet")

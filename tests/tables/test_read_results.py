"""The results table as a user has it: one DataFrame, with the experiment's order and description."""

import copy
import inspect
import pickle
import re
import subprocess
import sys
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import robust_transfer
from robust_transfer.tables.errors import TableError
from robust_transfer.tables.experiment_info import ExperimentInfo, Target
from robust_transfer.tables.results import KEY, SCHEMA, as_results, check_keys, read_results, write_results
from robust_transfer.tables.training import FLAG_COLUMNS, read_flags, read_training, write_flags
from support.fake_entries import Fake, trained
from support.paths import WORKFLOW

# As it stands in docs/results.md.
SNIPPET = """
from robust_transfer import read_results

results = read_results("results/shapes/results.parquet")
cells = results[results["images_per_class"].isna()].query(
    "mode == 'fixed-feature' and protocol == 'frozen' and variant == '{}' and split == 'test' and metric == 'top1'"
    " and arch == 'resnet8_w16' and eps != 'best-robust'"
)
ax = cells.pivot_table("value", index="eps", columns="target", observed=True).plot(ylabel="accuracy (%)", marker="o")
ax.figure.savefig("accuracy_over_eps.svg")
"""


@pytest.fixture(scope="module")
def fake(tmp_path_factory):
    """Two targets, three eps that are not listed in growing order, in the experiment's folder."""
    fake = Fake(tmp_path_factory.mktemp("user") / "results" / "shapes", targets=("fine", "coarse"), bootstrap=50)
    fake.root.mkdir(parents=True)
    for eps, accuracy in (("10", 60), ("0", 40), ("0.5", 80)):
        fake.source(90, eps=eps, arch="resnet8_w16")
        fake.backbone(trained(2), eps=eps, arch="resnet8_w16")
        for target, less in (("coarse", 0), ("fine", 10)):
            fake.transfer(accuracy - less, accuracy, target=target, eps=eps, arch="resnet8_w16")
    fake.transfer(30, 30, "finetuning", target="coarse")
    fake.collect()
    return fake


@pytest.fixture
def results(fake):
    return read_results(fake.root / "results.parquet")


def test_a_users_own_plot_is_five_lines(fake, monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "Agg")
    monkeypatch.chdir(fake.root.parents[1])
    names: dict[str, Any] = {}
    exec(SNIPPET, names)  # the text of the documentation, run as it stands
    lines = {line.get_label(): line.get_ydata().tolist() for line in names["ax"].lines}
    assert lines == {"fine": [30, 70, 50], "coarse": [40, 80, 60]}
    assert [*names["cells"]["eps"].cat.remove_unused_categories().cat.categories] == ["0", "0.5", "10"]
    assert (fake.root.parents[1] / "accuracy_over_eps.svg").stat().st_size > 1000


def test_columns_are_documented_in_their_order():
    _, columns, *_ = str(inspect.getdoc(read_results)).split("\n\n")
    starts = [re.match(r"(\w+(?:, \w+)*)  ", line) for line in columns.splitlines()]
    assert ", ".join(start[1] for start in starts if start).split(", ") == SCHEMA.names


def test_categories_are_in_the_experiments_order(results):
    found = {name: list(results[name].cat.categories) for name in results if results[name].dtype == "category"}
    assert found == {
        "target": ["objects", "fine", "coarse"],
        "arch": ["resnet8_w8", "resnet8_w16", "best"],
        "norm": ["none", "l2"],
        "eps": ["0", "0.5", "10", "best-robust"],
        "mode": ["source", "fixed-feature", "full-network"],
        "protocol": ["frozen", "paper"],
    }
    assert set(results.loc[results["eps"] < "10", "eps"]) == {"0", "0.5"}
    assert results["eps"].isin(["0", "0.5"]).sum() == (results["eps_value"] < 10).sum()


def test_what_is_unknown_is_null(results):
    assert (results["backbone_seed"].dtype, results["n"].dtype) == (pd.Int32Dtype(), pd.Int32Dtype())
    source, chosen = results[results["mode"] == "source"], results[results["eps"] == "best-robust"]
    assert source[["transfer_seed", "protocol", "selection"]].isna().all(axis=None)
    assert chosen[["backbone_seed", "transfer_seed", "eps_value"]].isna().all(axis=None)
    assert results[["value", "ci_low", "ci_high", "n", "variant"]].notna().all(axis=None)


def test_the_description_goes_where_the_rows_go(results, tmp_path):
    info = ExperimentInfo.of(results)
    assert [target.name for target in info.targets] == ["fine", "coarse"]
    fixed = results.query("mode == 'fixed-feature'").sort_values("value").assign(more=1)
    assert ExperimentInfo.of(fixed) == info
    assert ExperimentInfo.of(pd.concat([fixed, results])) == info
    for copied in (copy.deepcopy(results), pickle.loads(pickle.dumps(results))):
        assert ExperimentInfo.of(copied) == info
    results.to_parquet(tmp_path / "mine.parquet")
    mine = pd.read_parquet(tmp_path / "mine.parquet")
    assert ExperimentInfo.of(mine) == info
    pd.testing.assert_frame_equal(mine, results)


def test_two_experiments_side_by_side_have_no_single_description(results):
    info = ExperimentInfo.of(results)
    other = as_results(results.assign(experiment="other"), ExperimentInfo("other", targets=info.targets))
    both = pd.concat([results, other], ignore_index=True)
    assert both.groupby("experiment").size().to_dict() == {"fake": len(results), "other": len(results)}
    merged = results.merge(other, on=[name for name in KEY if name != "experiment"], suffixes=("", "_other"))
    assert (merged["value"] == merged["value_other"]).all()
    assert len(merged) == len(results)
    with pytest.raises(TableError, match=r"attrs\['experiment'\].*`table.attrs = results.attrs`"):
        ExperimentInfo.of(both)


def test_a_description_is_what_was_described():
    info = ExperimentInfo("x", "T", source="s", source_label="S", targets=(Target("t", "T", "top1"),), dropped=("D",))
    assert ExperimentInfo.from_json(info.as_json()) == info


def test_reading_and_writing_again_gives_the_same_bytes(fake, results, tmp_path):
    write_results(tmp_path / "again.parquet", results, results.attrs["experiment"])
    assert (tmp_path / "again.parquet").read_bytes() == (fake.root / "results.parquet").read_bytes()


def test_files_of_plain_arrow_rows_are_the_same_bytes(fake, results, tmp_path):
    """As they were written before there was a DataFrame: what Arrow makes of a list of rows."""
    path = fake.root / "results.parquet"
    listed = pq.read_table(path).to_pylist()
    pq.write_table(pa.Table.from_pylist(listed, schema=pq.read_schema(path)), tmp_path / "plain.parquet")
    assert (tmp_path / "plain.parquet").read_bytes() == path.read_bytes()
    pd.testing.assert_frame_equal(read_results(tmp_path / "plain.parquet"), results)


def test_two_rows_with_one_key_are_an_error_whatever_is_null(results):
    check_keys(results)
    chosen = results[results["eps"] == "best-robust"].tail(1)
    with pytest.raises(TableError, match=r"two rows with one key \(experiment=fake, .*eps=best-robust.*from a summary"):
        check_keys(pd.concat([results, chosen.assign(value=1.0, entry=None)]))


def test_training_tables_are_read_in_the_same_order(fake):
    epochs = read_training(fake.root / "training.parquet")
    assert list(epochs["eps"].cat.categories) == ["0", "0.5", "10"]
    assert epochs.groupby("eps", observed=True).size().to_dict() == {"0": 3, "0.5": 2, "10": 2}


def test_flags_come_back_as_they_were_written(tmp_path):
    rows = [("a/b-1", "a", "at-chance", 'says "no", or\nmore; fix it'), ("a/c-2", "a", "NA", "null")]
    flags = pd.DataFrame(rows, columns=FLAG_COLUMNS)
    write_flags(tmp_path / "flags.csv", flags)
    assert [*read_flags(tmp_path / "flags.csv").itertuples(index=False, name=None)] == rows
    for text in (
        "",
        "entry,stage\na,b\n",
        "entry,stage,flag,message\na,b,c\n",
        "entry,stage,flag,message\na,b,c,d,e\n",
    ):
        (tmp_path / "flags.csv").write_text(text)
        with pytest.raises(TableError, match=r"flags\.csv: not a list of flags"):
            read_flags(tmp_path / "flags.csv")


def test_the_package_imports_pandas_only_to_read_results():
    code = (
        "import sys, robust_transfer; before = 'pandas' in sys.modules; from robust_transfer import read_results; "
        "print(before, 'pandas' in sys.modules, 'torch' in sys.modules)"
    )
    environment = {"PYTHONPATH": str(WORKFLOW)}
    found = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["False", "True", "False"]
    assert robust_transfer.read_results is read_results
    with pytest.raises(AttributeError, match="no attribute 'results'"):
        _ = robust_transfer.results

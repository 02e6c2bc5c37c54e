"""The benchmarks run, and what they compare does the same work."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from support.paths import ROOT
from support.prepared_datasets import encoded, write_parquet
from support.stored_features import stored_features

sys.path.insert(0, str(ROOT / "benchmarks"))


@pytest.fixture
def peers():
    for library in ("foolbox", "robustness", "torchattacks"):
        pytest.importorskip(library, reason="not installed: make setup EXTRAS=peers")


def run(script, *arguments):
    command = [sys.executable, str(ROOT / "benchmarks" / script), *map(str, arguments), "--threads", "1"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.mark.usefixtures("peers")
@pytest.mark.usefixtures("peers")
def test_both_sides_take_the_same_step(monkeypatch):
    """From the same weights on the same images, three steps in float64 leave the same weights, up to rounding.

    Of images away from the ends of the range: there the library clamps before it normalises, and has no gradient.
    """
    import training_step

    case = training_step.Case("resnet8_w4", 16, 16, 5, 0.5)
    original, networks = training_step.given, []

    def given(*arguments):
        network, images, labels = original(*arguments)
        networks.append(network)
        return network.double(), 0.25 + images.double() / 2, labels

    monkeypatch.setattr(training_step, "given", given)
    monkeypatch.setattr(training_step, "prepare", lambda device, threads, precision: torch.device(device))
    before = {name: value.clone() for name, value in original(case, torch.device("cpu"))[0].named_parameters()}
    for step in (training_step.ours(case, "fp32", 1, "cpu"), training_step.theirs(case, "fp32", "cpu")):
        for _ in range(3):
            step()
    mine, theirs = networks
    expected = dict(theirs.named_parameters())
    for name, value in mine.named_parameters():
        moved = (expected[name] - before[name]).abs().max()
        assert moved > 0
        assert (value - expected[name]).abs().max() < 1e-5 * moved, name


@pytest.mark.usefixtures("peers")
@pytest.mark.faults  # for its length
@pytest.mark.usefixtures("peers")
def test_training_step_prints_and_writes_ratios(tmp_path):
    said = run("training_step.py", "--case", "resnet8_w16-32", "--batch", 4, "--rounds", 2, "--json", tmp_path / "out")
    assert "ours, bf16 / robustness, fp32" in said
    [case] = json.loads((tmp_path / "out").read_text())["cases"]
    speeds = case["images_per_second"]
    assert {len(rounds) for rounds in speeds.values()} == {2}
    assert all(speed > 0 for rounds in speeds.values() for speed in rounds)
    ratios = [one / other for one, other in zip(speeds["ours, fp32"], speeds["robustness, fp32"], strict=True)]
    assert case["median_ratios"]["ours, fp32 / robustness, fp32"] == pytest.approx(sum(ratios) / 2, abs=1e-3)
    assert 0 < case["notes"]["share of bf16 peak"] < 1


@pytest.mark.usefixtures("peers")
@pytest.mark.faults  # for its length
@pytest.mark.usefixtures("peers")
def test_attacks_prints_ratios():
    said = run("attacks.py", "--norm", "l2", "--batch", 2, "--rounds", 1, "--steps", 1, "--architecture", "resnet8_w4")
    assert "ours, fp32 / foolbox, fp32" in said
    assert "ours, bf16 / torchattacks, fp32" in said


@pytest.mark.faults  # for its length
def test_probing_prints_a_ratio_and_both_reach_the_optimum(tmp_path):
    size = ("--images", 300, "--features", 20, "--classes", 5, "--strengths", 4)
    said = run("probing.py", *size, "--json", tmp_path / "out")
    assert "  ratio " in said
    found = json.loads((tmp_path / "out").read_text())
    assert max(found["excess"].values()) < 1e-4
    assert min(found["seconds"].values()) > 0


@pytest.mark.faults  # for its length
def test_solvers_reads_a_store_and_finds_both_alike(tmp_path):
    for name, classes in (("two", 2), ("many", 6)):
        stored_features(tmp_path, {"train": 200, "test": 100}, classes=classes, separation=1.5, name=name)
    said = run("solvers.py", tmp_path / "store", "--strengths", 3, "--smallest", 1e-3, "--json", tmp_path / "out")
    assert [line.split(" | ")[0] for line in said.splitlines()[3:]] == ["| many", "| two"]
    for one in json.loads((tmp_path / "out").read_text())["entries"]:
        ours, theirs = one["ours"], one["theirs"]
        assert (one["train"], one["test"], one["dimension"]) == (200, 100, 16)
        assert ours["strength"] == theirs["strength"]
        assert ours["accuracy"] == pytest.approx(theirs["accuracy"], abs=2)
        assert len(ours["objectives"]) == 3
        assert ours["objectives"] == pytest.approx(theirs["objectives"], rel=1e-4)
        assert one["neighbours_accuracy"] > 150 / one["classes"]  # half above chance
        assert min(ours["seconds"], theirs["seconds"]) > 0


@pytest.mark.faults  # for its length
def test_parallel_heads_prints_a_ratio():
    said = run("parallel_heads.py", "--case", "resnet8_w16-32", "--heads", 3, "--rounds", 1)
    assert "3 heads in one pass / a run for each head" in said


@pytest.mark.usefixtures("peers")
def test_features_works_through_all_images_in_each_way(tmp_path, monkeypatch):
    """Called here, since each contender's own process would import torch anew."""
    import features

    case, how = features.Case("resnet8_w4", 16, (20, 24), 40), features.How("bf16", 1, "cpu")
    dataset = features._dataset(case, tmp_path)
    monkeypatch.setattr("robust_transfer.stages.features.RESIDENT_MB", 1)  # the benchmark changes it
    extract, decode = features.resident(case, how, dataset), features.decoding(case, how, dataset)
    assert sum(map(len, extract())) == len(decode()) == 40  # extraction is in batches
    for other in (features.forward, features.files):  # the latter counts for itself
        other(case, how, dataset)()


@pytest.mark.usefixtures("peers")
@pytest.mark.faults  # for its length
def test_cifar_trains_both_sides_to_an_accuracy(tmp_path):
    images = [encoded(np.full((32, 32, 3), 60 + 130 * (i % 2), np.uint8)) for i in range(64)]
    for split in ("train", "test"):
        write_parquet(tmp_path / "data" / f"{split}.parquet", images, [i % 2 for i in range(64)])
    out = tmp_path / "out.json"
    settings = {"data": tmp_path / "data", "architecture": "resnet8_w4", "epochs": 20, "batch": 16, "json": out}
    run("cifar_robust_resnet18.py", *(text for name, value in settings.items() for text in (f"--{name}", value)))
    found = json.loads(out.read_text())["outcomes"]
    assert found.keys() == {"ours, bf16", "robustness, fp32"}
    for outcome in found.values():
        assert outcome["clean"] == outcome["pgd"] == 100  # dark and bright images cannot be mistaken
        assert outcome["images_per_second"] > 0


@pytest.mark.faults  # 11 s
def test_planning_finds_nothing_to_do_in_a_made_store_on_any_side(tmp_path, monkeypatch):
    import planning

    monkeypatch.chdir(tmp_path)  # it changes the working directory
    [found] = planning.measure(targets=1, seeds=1, rounds=1, plans=["same"])
    assert found["entries"] > 300
    assert [found[name][0]["jobs"] for name in ("ours", "bare", "declared")] == [0, 0, 0]
    assert found["ours"][0]["processor_seconds"] > 0
    cells = planning.line(found).split(" | ")
    assert cells[2:4] == ["same", "0"]
    assert len(cells) == 11


@pytest.mark.faults  # for its length
def test_running_runs_as_many_empty_jobs_on_both_sides(monkeypatch):
    import running

    monkeypatch.setattr(running, "EPS", ("0", "0.25"))
    monkeypatch.setattr(running, "TARGETS", ("coarse",))
    monkeypatch.setattr(running, "SEEDS", 1)
    [found] = running.measure(2, ["300/3s"])
    assert found["entries"] == 2 + 2 * 4  # datasets; of each backbone training, evaluation, features and a probe
    more = 5  # results, claims, a figure, summary and page
    assert found["ours"]["jobs"] - 1 == found["bare"]["jobs"] - 1 == found["entries"] + more
    assert 0 < found["ours"]["processor_seconds"] < found["ours"]["seconds"] * 2
    assert len(running.line(found).split(" | ")) == 6


@pytest.mark.faults  # for its length
def test_planning_plans_as_many_jobs_on_every_side(tmp_path):
    command = [sys.executable, str(ROOT / "benchmarks" / "planning.py"), "--case", "1x1", "--rounds", "1"]
    subprocess.run([*command, "--json", str(tmp_path / "out")], capture_output=True, check=True)
    new, same, eps = json.loads((tmp_path / "out").read_text())
    for found in (new, same, eps):
        assert found["ours"][0]["jobs"] == found["bare"][0]["jobs"] == found["declared"][0]["jobs"]
    assert new["ours"][0]["jobs"] > eps["ours"][0]["jobs"] > same["ours"][0]["jobs"] == 0

"""The workflow itself: a tiny experiment from nothing to figures, and what Snakemake then wants to run again."""

import csv
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
import yaml
from robust_transfer.datasets.origins.shapes import CLASSES
from robust_transfer.networks.build import build
from robust_transfer.registry import ALL_STAGES, STAGES
from support.checkouts import Checkout, edit, extend
from support.paths import ROOT

TINY = """
extends: default
experiment: tiny
datasets:
  objects: {origin: {kind: shapes, task: objects, train: 128, test: 64, classes: 20}}
  coarse: {origin: {kind: shapes, task: coarse, train: 80, test: 64}}
  fine: {origin: {kind: shapes, task: fine, train: 80, test: 64}}
targets: [coarse, fine]
grid:
  - architectures: [resnet8_w4]
    eps: [0, 0.5]
    modes: [fixed-feature]
  - architectures: [resnet8_w4]
    eps: [0, 0.5]
    targets: [coarse]
    views: [12]
    modes: [fixed-feature]
  - architectures: [resnet8_w4]
    eps: [0, 0.5]
    targets: [fine]
    modes: [full-network]
  - architectures: [resnet8_w4]
    eps: [0]
    targets: [fine]
    modes: [fixed-feature]
    protocols: [knn, paper]
    robustness: true
  - architectures: [resnet8_w4]
    eps: [0]
    backbones: mine
    modes: []
weights: {mine: {kind: files, path: mine.pt}}
pretraining: {training: {epochs: 1, batch_size: 32}, attack: {steps: 1}}
evaluation: {eps: [0.5], attack: {steps: 1}}
linear_heads: {training: {epochs: 1}}
robustness: {eps: [0.5], images: 16}
finetuning: {learning_rates: [0.01], training: {epochs: 1, batch_size: 32}}
figures:
  draw:
    - headline
    - fixed_feature
    - full_network
    - source_accuracy
    - fixed_robustness
    - width
    - granularity
    - training
    - few_images
    - protocol_gap
  fixed_eps: 0.5
  widths: []
  bootstrap: 100
"""


class Tiny(Checkout):
    """The tiny experiment in a copy of the repository."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, TINY)
        (folder / "weights").mkdir()
        torch.save(build("resnet8_w4", len(CLASSES["objects"])).state_dict(), folder / "weights" / "mine.pt")

    def coarse_from_folder(self, name: str, path: str) -> None:
        """A variation whose target `coarse` comes from a folder of images."""
        generated = "coarse: {origin: {kind: shapes, task: coarse, train: 80, test: 64}}"
        assert generated in TINY
        (self.folder / name).write_text(TINY.replace(generated, f"coarse: {{origin: {{kind: folder, path: {path}}}}}"))

    def grid(self, eps: list[float]) -> list[dict[str, object]]:
        """The parts of the tiny experiment at these eps, but for its imported backbone, which has one."""
        return [part if "backbones" in part else {**part, "eps": eps} for part in yaml.safe_load(TINY)["grid"]]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    checkout = Tiny(tmp_path_factory.mktemp("checkout"))
    run = checkout.snakemake()
    assert run.returncode == 0, run.stderr[-5000:]
    (checkout.folder / "run.txt").write_text(run.stderr)
    return checkout


@pytest.fixture
def checkout(finished: Tiny, tmp_path: Path) -> Tiny:
    """The finished experiment once more, for a test that edits or deletes something."""
    return finished.copy(tmp_path / "checkout")


ELSEWHERE = {"gallery", "stylizing", "test_sets"}
"""Stages that the tiny experiment has no use for; other tests run them."""
FIGURES = (
    *("headline", "fixed_feature", "full_network", "source_accuracy", "fixed_robustness", "width", "granularity"),
    *("training", "few_images", "protocol_gap"),
)
TABLES = ("headline", "fixed_robustness", "protocol_gap")


DRAWN = {**{f"figure_{figure}": 1 for figure in FIGURES}, "claims": 1, "report": 1, "page": 1}


def test_everything_is_there(finished: Tiny) -> None:
    results = finished.folder / "results" / "tiny"
    for figure in FIGURES:
        for suffix in ("html", "tex", "md", "csv") if figure in TABLES else ("png", "pdf", "svg", "csv"):
            assert (results / "figures" / f"{figure}.{suffix}").stat().st_size > 0
    assert len([*(results / "figures").iterdir()]) == 4 * len(FIGURES)
    assert (results / "flags.csv").read_text().startswith("entry,stage,flag,message\n")
    training = pq.read_table(results / "training.parquet").to_pandas()
    assert sorted(training["eps"]) == ["0", "0.5"]
    assert training["clean_accuracy"].between(0, 100).all()
    table = pq.read_table(results / "results.parquet").to_pandas()
    assert set(table["mode"]) == {"source", "cue-conflict", "fixed-feature", "full-network"}
    assert set(table["eps"]) >= {"0", "0.5", "best-robust"}
    assert table["value"].between(-100, 100).all()
    timings = pq.read_table(results / "timings.parquet").to_pandas()
    assert set(timings["stage"]) >= {"datasets", "pretraining", "evaluation", "features", "probing", "finetuning"}
    assert (timings["seconds"] >= 0).all()


def jobs_of(checkout: Tiny) -> dict[str, tuple[set[str], set[str]]]:
    """Outputs and inputs of every job, by the folder of its outputs."""
    run = checkout.snakemake("--detailed-summary")
    assert run.returncode == 0, run.stderr
    jobs: dict[str, tuple[set[str], set[str]]] = {}
    for row in csv.DictReader(run.stdout.splitlines(), delimiter="\t"):
        folder, _, name = row["output_file"].rpartition("/")
        outputs, inputs = jobs.setdefault(folder, (set(), set()))
        outputs.add(name)
        inputs.update({*row["input-file(s)"].split(",")} - {"", "-"})
    return jobs


def test_rules_declare_what_stages_write_and_the_inputs_that_entries_name(finished: Tiny) -> None:
    jobs = jobs_of(finished)
    entries = sorted((finished.folder / "store").glob("*/*/entry.json"))
    assert {path.parent.parent.name for path in entries} == set(STAGES) - ELSEWHERE
    for path in entries:
        declared, inputs = jobs[str(path.parent.relative_to(finished.folder))]
        written = json.loads((path.parent / "card.json").read_text())["files"]
        where_there_is_one = {"validation.arrow"}
        if path.parent.parent.name in ("linear_heads", "finetuning"):
            where_there_is_one.add("weights.safetensors")  # of models that are attacked
        assert declared == {*written, "card.json", "timing.json"} - where_there_is_one, path
        assert inputs == {
            f"store/{made_from}/card.json" for made_from in json.loads(path.read_text())["inputs"].values()
        }
    for folder in ("results/tiny", "results/tiny/figures"):
        files = {path.name for path in (finished.folder / folder).iterdir() if path.is_file()}
        assert files - {"experiment.json", "about.json"} == jobs[folder][0]


def test_the_terminal_shows_progress_and_a_summary(finished: Tiny) -> None:
    shown = (finished.folder / "run.txt").read_text()
    assert re.search(r"pretraining objects_resnet8_w4_l2_eps0.5_seed0: epoch 1/1 .*images/s", shown)
    assert re.search(r"\d+ of \d+ steps \(100%\) done", shown)
    finished_jobs = re.findall(r"^\[ *(\d+)/(\d+) done(?:, (?:about|at least) \d+ \w+ left)?\] [a-z_]+", shown, re.M)
    (total,) = {int(of) for _, of in finished_jobs}
    assert [int(done) for done, _ in finished_jobs] == [*range(1, total)]  # the last of them is `all`
    assert not re.search(r"Execute|Select jobs|Finished jobid|Provided cores|\x1b", shown)
    assert (finished.folder / "results" / "tiny" / "summary.txt").read_text().strip() in shown


def test_a_second_run_has_nothing_to_do(finished: Tiny) -> None:
    run = finished.snakemake()
    assert run.returncode == 0
    assert "Nothing to be done" in run.stderr
    assert finished.planned() == {}


def test_another_eps_makes_only_what_hangs_on_it(finished: Tiny) -> None:
    overlay = finished.overlay("eps.yaml", grid=finished.grid([0, 0.5, 1]))
    assert finished.planned(overlay=overlay) == {
        "pretraining": 1,
        "evaluation": 1,
        "features": 3,
        "probing": 3,
        "knn": 2,
        "linear_heads": 4,  # of the two robust backbones on one target: a search and a final run
        "selecting": 2,
        "robustness": 2,
        "finetuning": 1,
        "cue_conflict": 1,
        "results": 1,
        **DRAWN,
    }


@pytest.mark.faults  # for its length
def test_there_and_back_loses_nothing(checkout: Tiny) -> None:
    """Another probe is fitted and drawn; going back fits nothing, since the entries of before are still there."""
    (checkout.folder / "probe.yaml").write_text(TINY + "probing: {strengths: [0.1, 0.01]}\n")
    before = pq.read_table(checkout.folder / "results" / "tiny" / "results.parquet")
    run = checkout.snakemake(overlay="probe.yaml")
    assert run.returncode == 0, run.stderr[-3000:]
    assert checkout.planned() == {"results": 1, **DRAWN}
    assert checkout.snakemake().returncode == 0
    assert pq.read_table(checkout.folder / "results" / "tiny" / "results.parquet").equals(before)
    assert checkout.planned() == {}


def test_a_deleted_figure_is_drawn_again_alone(checkout: Tiny) -> None:
    (checkout.folder / "results" / "tiny" / "figures" / "width.pdf").unlink()
    assert checkout.planned() == {"figure_width": 1, "page": 1}


def test_an_edited_figure_is_drawn_again(checkout: Tiny) -> None:
    figures = checkout.folder / "workflow" / "robust_transfer" / "figures"
    extend(figures / "width.py")
    assert checkout.planned() == {"figure_width": 1, "page": 1}
    extend(figures.parent / "stages" / "figures.py")
    assert checkout.planned() == {name: 1 for name in DRAWN if name not in ("claims", "report")}


def test_remarks_and_bookkeeping_rerun_nothing(checkout: Tiny) -> None:
    package = checkout.folder / "workflow" / "robust_transfer"
    edit(package / "attacks.py", '"""', '"""Reworded. ')
    edit(package / "stages" / "probing.py", "\n\n", "\n\n# a remark\n")
    for module in ("dag/grid.py", "cli.py", "store/entry.py"):
        extend(package / module)
    edit(checkout.folder / "config.yaml", "title:", "# a remark\ntitle:")
    assert checkout.planned() == {}


def test_an_edited_attack_keeps_what_is_dear_and_says_so(checkout: Tiny) -> None:
    extend(checkout.folder / "workflow" / "robust_transfer" / "attacks.py")
    run = checkout.snakemake("-n")
    kept = [line for line in run.stderr.splitlines() if line.startswith("pretraining: kept 2 of 2 entries")]
    assert len(kept) == 1
    assert "changed since: attacks" in kept[0]
    assert checkout.planned() == {"evaluation": 3, "robustness": 1, "results": 1, **DRAWN}


def test_a_second_experiment_shares_the_store(finished: Tiny) -> None:
    overlay = finished.overlay("other.yaml", experiment="other")
    assert finished.planned(overlay=overlay) == {"results": 1, **DRAWN}


def test_one_figure_can_be_asked_for(finished: Tiny) -> None:
    overlay = finished.overlay("other.yaml", experiment="other")
    assert finished.planned("figure_width", overlay=overlay) == {"results": 1, "figure_width": 1}


def test_a_changed_default_is_refused_before_any_job(checkout: Tiny) -> None:
    """A default is left out of hashes, so a changed one would pass off old entries as new."""
    path = checkout.folder / "workflow" / "robust_transfer" / "configuration" / "training.py"
    edit(
        path,
        "momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9",
        "momentum: Annotated[float, Field(ge=0, lt=1)] = 0.5",
    )
    run = checkout.snakemake("--forcerun", "results")
    assert run.returncode != 0
    assert "a default changed" in run.stderr
    assert "momentum" in run.stderr


def test_the_command_line_has_the_last_word(finished: Tiny) -> None:
    planned = finished.planned("--config", "datasets={fine: {train_limit: 40}}")
    assert planned["datasets"] == 1
    assert planned["features"] == 2


def test_a_bad_configuration_stops_before_any_job(finished: Tiny) -> None:
    (finished.folder / "bad.yaml").write_text("extends: default\ninput_size: 3\n")
    run = finished.snakemake(overlay="bad.yaml")
    assert run.returncode != 0
    assert "bad.yaml: input_size = 3: should be greater than or equal to 16" in run.stderr
    assert "Job stats" not in run.stderr
    (finished.folder / "bad.yaml").write_text("experiment: bad\n")
    run = finished.snakemake(overlay="bad.yaml")
    assert run.returncode != 0
    assert "bad.yaml: input_size, datasets, source, targets, grid: required and not there" in run.stderr
    assert "write `extends: default`" in run.stderr


def test_without_a_file_the_default_experiment_is_planned(finished: Tiny) -> None:
    command = [sys.executable, "-m", "snakemake", "-n", "results/anew/summary.txt", "--config", "experiment=anew"]
    run = subprocess.run(command, cwd=finished.folder, capture_output=True, text=True, timeout=100)
    assert run.returncode == 0, run.stderr
    assert re.search(r"^pretraining +15$", run.stdout + run.stderr, re.M)


def test_a_missing_folder_stops_before_any_job(finished: Tiny) -> None:
    finished.coarse_from_folder("nowhere.yaml", "nowhere")
    run = finished.snakemake(overlay="nowhere.yaml")
    assert run.returncode != 0
    assert "datasets.coarse.origin.path = nowhere: no such folder" in run.stderr


def test_missing_weights_stop_before_any_job(finished: Tiny) -> None:
    overlay = finished.overlay("weights.yaml", weights={"mine": {"kind": "files", "path": "nowhere.pt"}})
    run = finished.snakemake(overlay=overlay)
    assert run.returncode != 0
    assert "weights/nowhere.pt: no such file, and it holds the weights of resnet8_w4" in run.stderr


def test_a_target_whose_images_are_missing_can_be_dropped(finished: Tiny) -> None:
    finished.coarse_from_folder("dropped.yaml", "nowhere")
    with (finished.folder / "dropped.yaml").open("a") as file:
        file.write("missing: drop\n")
    run = finished.snakemake("-n", overlay="dropped.yaml")
    assert run.returncode == 0, run.stderr
    assert "left out, since the images are not on this machine: coarse" in run.stderr
    assert finished.planned(overlay="dropped.yaml") == {"results": 1, **DRAWN}  # the rest is there


def test_a_failing_job_shows_its_log(checkout: Tiny) -> None:
    for name in ("a", "b"):
        folder = checkout.folder / "images" / name
        folder.mkdir(parents=True)
        for number in range(6):
            (folder / f"broken{number}.png").write_text("no image")
    checkout.coarse_from_folder("broken.yaml", "images")
    run = checkout.snakemake(overlay="broken.yaml")
    assert run.returncode != 0
    assert "broken5.png" in run.stderr
    logs = checkout.folder.glob("store/datasets/coarse-*/datasets.log")
    (log,) = (path for path in logs if "broken5.png" in path.read_text())
    *_, last = log.read_text().splitlines()
    failed = re.search(rf"^\[ *\d+/\d+ done, 1 failed\] FAILED datasets coarse: {re.escape(last)}$", run.stderr, re.M)
    assert failed, run.stderr[-3000:]
    told = run.stderr[failed.end() :]
    assert "Error in rule datasets:" in told
    assert f"python -m robust_transfer datasets {log.parent.relative_to(checkout.folder)}" in told
    assert f"The end of {log.relative_to(checkout.folder)}:\n" in told
    assert "broken5.png" in told
    assert re.search(r"^failed: datasets/coarse-", told, re.M)


@pytest.fixture(scope="module")
def html(finished: Tiny) -> Path:
    path = finished.folder / "report.html"
    run = finished.snakemake("--report", str(path), "--report-metadata", "workflow/report/metadata.yaml")
    assert run.returncode == 0, run.stderr
    return path


def test_the_report_is_one_file_with_every_figure(html: Path) -> None:
    text = html.read_text()
    assert "Read this first" in text
    assert "resnet8_w4 is trained on Objects at 24" in text
    for figure in FIGURES:
        assert f"{figure}.{'html' if figure in TABLES else 'png'}" in text


@pytest.mark.skipif(shutil.which("chromium") is None, reason="chromium is not installed")
def test_a_browser_shows_the_report(html: Path, tmp_path: Path) -> None:
    """Rendered without a network: the description of the workflow stands on the page after its scripts have run."""
    flags = "--headless --no-sandbox --disable-gpu --disable-background-networking --disable-component-update"
    page = subprocess.run(
        [
            "chromium",
            *flags.split(),
            f"--user-data-dir={tmp_path}",
            "--virtual-time-budget=20000",
            "--dump-dom",
            html.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert page.returncode == 0, page.stderr[-1000:]
    assert "Fixed-feature" in page.stdout
    assert "Figures and tables" in page.stdout


@pytest.mark.faults
def test_a_killed_training_goes_on_when_it_is_tried_again(checkout: Tiny) -> None:
    over = checkout.overlay(
        "long.yaml", pretraining={"training": {"epochs": 6, "batch_size": 8}}, running={"save_seconds": 0}
    )
    options = ["--cores", "1", "--retries", "1", "--until", "pretraining", "--configfile", over]
    command = [sys.executable, "-m", "snakemake", *options]
    run = subprocess.Popen(command, cwd=checkout.folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    deadline, store = time.monotonic() + 100, checkout.folder / "store" / "pretraining"
    while not (states := list(store.glob("*/.state/step-000000002*"))) and time.monotonic() < deadline:
        time.sleep(0.01)
    entry = states[0].parents[1]
    os.kill(int((entry / ".lock").read_text().split()[1]), signal.SIGKILL)
    said, _ = run.communicate(timeout=200)
    assert run.returncode == 0, said[-3000:]
    assert "going on at step 2" in (entry / "pretraining.log").read_text()


def test_every_stage_has_rule_module_command_and_folder(finished: Tiny) -> None:
    for name, stage in ALL_STAGES.items():
        text = (ROOT / "rules" / f"{name}.smk").read_text()
        assert f"rule {name}:" in text or name == "figures"
        assert f"python -m robust_transfer {name} " in text
        assert len(list((ROOT / "tests").glob(f"*/test_{name}.py"))) == 1
        assert importlib.util.find_spec(stage.module)
        assert f'include: "rules/{name}.smk"' in (ROOT / "Snakefile").read_text()
    assert {path.name for path in (finished.folder / "store").glob("[a-z]*")} == set(STAGES) - ELSEWHERE
    assert {path.stem for path in (ROOT / "rules").glob("*.smk")} == set(ALL_STAGES)
    modules = (ROOT / "workflow" / "robust_transfer" / "stages").glob("[a-z]*.py")
    assert {path.stem for path in modules} == set(ALL_STAGES)

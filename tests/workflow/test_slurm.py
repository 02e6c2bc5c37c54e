"""The profile for SLURM, on a real SLURM of three nodes: the same results as here, and nothing lost on a bad night.

Without SLURM, as root and alone on the machine, all but the tests of the profile itself are skipped.
"""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from robust_transfer.configuration.running import VARIABLE
from robust_transfer.registry import ALL_STAGES, STAGES
from robust_transfer.store.entry import CARD, STATE, TIMING
from support import slurm
from support.checkouts import Checkout
from support.documents import blocks
from support.paths import ROOT, WORKFLOW
from support.small_experiments import part, small

LACKING = slurm.lacking()
on_slurm = pytest.mark.skipif(bool(LACKING), reason=LACKING)
PROFILE = yaml.safe_load((ROOT / "profiles" / "slurm" / "config.yaml").read_text())
OPTIONS = (
    *("--workflow-profile", "profiles/slurm", "--jobs", "4", "--latency-wait", "5"),
    *("--slurm-init-seconds-before-status-checks", "1", "--seconds-between-status-checks", "1"),
    *("--max-jobs-per-timespan", "100/1s"),  # the profile's would have each run end a minute later
)
SMALL = small(
    [part([0, 0.5]), part([0], ["full-network"]), part([0], protocols=["knn", "paper"])],
    train=128,
    draw=["headline", "fixed_feature"],
    linear_heads={"training": {"epochs": 1}},
    running={"save_seconds": 0},
)
COLLECTED = {"results": 1, "claims": 1, "figure_headline": 1, "figure_fixed_feature": 1, "report": 1, "page": 1}
LONG = {"training": {"epochs": 20, "batch_size": 16}, "attack": {"steps": 20}}
"""A training of ten seconds on a quiet machine."""
LONGER = {"training": {"epochs": 100, "batch_size": 16}, "attack": {"steps": 20}}
"""One that does not end within a minute."""


class OnSlurm(Checkout):
    """A checkout whose experiment runs through the profile."""

    def __init__(self, folder: Path, experiment: str) -> None:
        super().__init__(folder, experiment)
        self.started: list[subprocess.Popen[bytes]] = []

    def command(self, *arguments: str, overlay: str = "experiment.yaml") -> list[str]:
        return [sys.executable, "-m", "snakemake", *OPTIONS, *arguments, "--configfile", overlay]

    def start(self, *arguments: str, overlay: str = "experiment.yaml") -> subprocess.Popen[bytes]:
        """Start it in a session of its own; what it says is appended to `run.txt`."""
        with (self.folder / "run.txt").open("ab") as log:
            command = self.command(*arguments, overlay=overlay)
            process = subprocess.Popen(
                command,
                cwd=self.folder,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=lambda: signal.signal(
                    signal.SIGINT, signal.SIG_DFL
                ),  # ignored where tests run behind a shell
            )
        self.started.append(process)
        return process

    def set(self, rule: str, **wanted: object) -> None:
        """Have a rule ask for something else in section 2 of the profile, as a user would write it there."""
        path = self.folder / "profiles" / "slurm" / "config.yaml"
        profile = yaml.safe_load(path.read_text())
        profile["set-resources"][rule] |= wanted
        path.write_text(yaml.safe_dump(profile))

    def said(self) -> str:
        return (self.folder / "run.txt").read_text()

    def steps(self) -> int:
        """Steps of the newest state of any training that is under way."""
        states = self.folder.glob(f"store/pretraining/*/{STATE}/step-*")
        return max((int(path.name.split("-")[1]) for path in states), default=0)

    def log(self) -> str:
        """What the one training has logged."""
        return "".join(path.read_text() for path in self.folder.glob("store/pretraining/*/pretraining.log"))


def wait_until(reached: Callable[[], Any], checkout: OnSlurm, process: subprocess.Popen[bytes], seconds: float = 200):
    """Wait for something that must come while Snakemake runs."""
    deadline = time.monotonic() + seconds
    while not reached():
        assert process.poll() is None, checkout.said()[-4000:]
        assert time.monotonic() < deadline, checkout.said()[-4000:]
        time.sleep(0.1)


def checksums(checkout: Checkout) -> dict[str, Any]:
    """What the card of every finished entry says of its files and of itself, by its path in the store."""
    store = checkout.folder / "store"
    cards = {str(path.parent.relative_to(store)): json.loads(path.read_text()) for path in store.glob(f"*/*/{CARD}")}
    return {entry: (card["files"], card["facts"]) for entry, card in cards.items()}


@pytest.fixture(scope="module", autouse=True)
def plugins() -> Iterator[None]:
    """The executor on the path of every process that a test starts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", slurm.environment()["PYTHONPATH"])
        yield


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[slurm.Cluster]:
    with contextlib.ExitStack() as stack:
        try:
            started = stack.enter_context(slurm.Cluster(tmp_path_factory.mktemp("slurm")))
        except (AssertionError, OSError, subprocess.TimeoutExpired) as error:
            pytest.skip(f"SLURM's daemons do not work on this machine: {error}")
        yield started


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """The experiment without SLURM: its datasets and the robust backbone are made."""
    checkout = Checkout(tmp_path_factory.mktemp("here"), SMALL)
    run = checkout.snakemake(backbone(checkout, "experiment.yaml"))
    assert run.returncode == 0, run.stderr[-3000:]
    return checkout


@pytest.fixture
def checkout(here: Checkout, tmp_path: Path) -> Iterator[OnSlurm]:
    """Its datasets alone, to go on with on SLURM."""
    (tmp_path / "checkout").mkdir()
    checkout = OnSlurm(tmp_path / "checkout", SMALL)
    shutil.copytree(here.folder / "store" / "datasets", checkout.folder / "store" / "datasets", symlinks=True)
    yield checkout
    for process in checkout.started:  # of a test that failed
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def trained(here: Checkout, tmp_path_factory: pytest.TempPathFactory) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Checksums of a long training that nothing disturbed, made here once."""
    known: dict[int, dict[str, Any]] = {}

    def of(settings: dict[str, Any]) -> dict[str, Any]:
        if id(settings) not in known:
            checkout = here.copy(tmp_path_factory.mktemp("trained") / "checkout")
            overlay = checkout.overlay("long.yaml", pretraining=settings)
            run = checkout.snakemake(target := backbone(checkout, overlay), overlay=overlay)
            assert run.returncode == 0, run.stderr[-3000:]
            known[id(settings)] = checksums(checkout)[str(Path(target).parent.relative_to("store"))]
        return known[id(settings)]

    return of


def backbone(checkout: Checkout, overlay: str) -> str:
    """The card of the robust backbone."""
    said = checkout.python("entries", "--configfile", overlay)
    (entry,) = re.findall(r"store/pretraining/\S*_eps0\.5_\S+", said.stdout)
    return f"{entry}/{CARD}"


# The profile itself.


def test_every_rule_of_the_profile_is_one_and_none_is_left_out() -> None:
    assert set(PROFILE["set-resources"]) == set(ALL_STAGES) - {"figures"}
    for rule, wanted in PROFILE["set-resources"].items():
        assert ("slurm_extra" in wanted) == ALL_STAGES[rule].uses_gpu, rule
        assert "cpus_per_task" not in wanted  # cores follow from what the job must be fed
    assert not [rule for rule in PROFILE["groups"] if STAGES[rule].uses_gpu or STAGES[rule].expensive]
    assert set(PROFILE["groups"]) == {rule for rule, wanted in PROFILE["set-resources"].items() if "in_turn" in wanted}
    assert set(PROFILE["group-components"]) == set(PROFILE["groups"].values())


def test_every_rule_has_room_for_the_two_snakemakes_of_its_job() -> None:
    rules = [path.read_text() for path in (ROOT / "rules").glob("*.smk")]
    asked = [
        int(number)
        for text in rules
        for number in re.findall(r"mem_mb=(?:memory\(|FEEDING\.memory\(\"\w+\", )(\d+)\)", text)
    ]
    assert len(asked) == len(rules)
    assert min(asked) >= 1000  # the report's 300 MB, and the two


def test_the_profile_replaces_the_default_one_without_losing_what_that_sets() -> None:
    default = yaml.safe_load((ROOT / "profiles" / "default" / "config.yaml").read_text())
    others = {"quiet", "max-jobs-per-timespan"}
    assert {key: PROFILE[key] for key in default.keys() - others} == {k: default[k] for k in default.keys() - others}
    assert "rules" not in PROFILE["quiet"]


# On the cluster, in a minute.


@on_slurm
def test_a_job_finds_out_when_it_ends(cluster: slurm.Cluster) -> None:
    code = "from robust_transfer.resuming.scheduler import end_of_job; import os; print(os.environ['SLURM_JOB_ID']); "
    code += "print(end_of_job())"
    python = ["env", "-u", "SLURM_JOB_END_TIME", f"PYTHONPATH={WORKFLOW}", sys.executable, "-c", code]
    job, end = cluster.run("srun", "--time=3", "--mem=100", *python).split()
    (start,) = re.findall(r"StartTime=(\S+)", cluster.run("scontrol", "show", "job", job))
    assert float(end) == time.mktime(time.strptime(start, "%Y-%m-%dT%H:%M:%S")) + 180
    _, end = cluster.run("srun", "--mem=100", *python).split()
    assert end == "None"


@on_slurm
def test_a_training_through_the_profile_has_the_bits_that_it_has_here(
    cluster: slurm.Cluster, here: Checkout, checkout: OnSlurm
) -> None:
    target = backbone(checkout, "experiment.yaml")
    run = checkout.snakemake(target)
    assert run.returncode == 0, run.stderr[-5000:]
    assert checksums(checkout) == checksums(here)
    assert checkout.planned(target) == {}


NO_NODE_HAS_IT = "Requested node configuration is not available"


@on_slurm
@pytest.mark.parametrize(
    ("wanted", "answer"),
    [
        ({"slurm_partition": "nowhere"}, "invalid partition specified: nowhere"),
        pytest.param({"gpu": 2}, NO_NODE_HAS_IT, marks=pytest.mark.faults),  # no node has two, and nodes: 1
        pytest.param({"mem_mb": 900_000}, "Memory specification can not be satisfied", marks=pytest.mark.faults),
        pytest.param({"gpu": 0, "gres": "gpus:1"}, "Invalid generic resource", marks=pytest.mark.faults),
    ],
)
def test_what_sbatch_answers_is_shown(
    wanted: dict[str, object], answer: str, cluster: slurm.Cluster, checkout: OnSlurm
) -> None:
    checkout.set("pretraining", **wanted)
    run = checkout.snakemake(backbone(checkout, "experiment.yaml"), "--retries", "0")
    assert run.returncode != 0
    assert answer in run.stderr


@pytest.mark.faults
@on_slurm
def test_gpus_may_be_asked_for_as_gres_in_a_partition_of_any_name(
    cluster: slurm.Cluster, here: Checkout, checkout: OnSlurm
) -> None:
    """`all` is a function of Python, which Snakemake evaluates unless it is in quotes of its own."""
    target = backbone(checkout, "experiment.yaml")
    checkout.set("pretraining", gpu=0, gres="gpu:1", slurm_partition="all")
    run = checkout.snakemake("-n", target)
    assert "Resource must be evaluated within the context of a rule" in run.stdout + run.stderr
    checkout.set("pretraining", slurm_partition="'all'")
    run = checkout.snakemake(target)
    assert run.returncode == 0, run.stderr[-5000:]
    assert checksums(checkout) == checksums(here)
    [job] = cluster.jobs(folder=checkout.folder)
    assert cluster.run("squeue", "-h", "--states=all", "-j", job, "-o", "%P %b").split() == ["all", "gres:gpu:1"]


# Longer: a whole experiment, and faults in a training.


@pytest.mark.faults
@on_slurm
def test_the_experiment_has_the_results_that_it_has_here(
    cluster: slurm.Cluster, here: Checkout, tmp_path: Path
) -> None:
    run = here.snakemake()
    assert run.returncode == 0, run.stderr[-3000:]
    (tmp_path / "checkout").mkdir()
    checkout = OnSlurm(tmp_path / "checkout", SMALL)
    run = checkout.snakemake()
    assert run.returncode == 0, run.stderr[-5000:]
    assert checksums(checkout) == checksums(here)
    tables = [pq.read_table(one.folder / "results" / "small" / "results.parquet") for one in (checkout, here)]
    assert tables[0].equals(tables[1])
    for kind in ("csv", "html", "md"):
        ours, theirs = ((one.folder / f"results/small/figures/headline.{kind}").read_text() for one in (checkout, here))
        assert ours == theirs
    allocations = cluster.run("squeue", "-h", "--states=all", "-o", "%k %m %l %C").splitlines()
    probes = [line for line in allocations if "probing" in line]
    assert probes == ["rule_probing_probing 8000M 1:00:00 1"]  # two in turn: the memory of one, the time of both
    overlays = [
        checkout.overlay("probe.yaml", probing={"strengths": [0.1, 0.01]}),
        checkout.overlay("eps.yaml", evaluation={"eps": [0.25]}),
    ]
    plans = [checkout.planned(overlay=overlay) for overlay in ("experiment.yaml", *overlays)]
    assert plans == [{}, {"probing": 2, **COLLECTED}, {"evaluation": 2, **COLLECTED}]
    shutil.rmtree(checkout.folder / ".snakemake")
    assert [checkout.planned(overlay=overlay) for overlay in ("experiment.yaml", *overlays)] == plans


@pytest.mark.faults
@on_slurm
def test_the_default_experiment_has_the_results_that_it_has_here(cluster: slurm.Cluster, tmp_path: Path) -> None:
    """For a quiet machine: its 220 jobs are run twice, and each SLURM job starts two Snakemakes besides."""
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
    here, there = Checkout(tmp_path / "here", "extends: default\n"), OnSlurm(tmp_path / "there", "extends: default\n")
    for one in (here, there):
        with (one.folder / "run.txt").open("w") as log:
            run = subprocess.run(one.command(), cwd=one.folder, stdout=log, stderr=log, timeout=7200)
        assert run.returncode == 0, (one.folder / "run.txt").read_text()[-5000:]
    assert len(checksums(here)) > 150
    assert checksums(there) == checksums(here)
    assert there.planned() == {}
    tables = [pq.read_table(one.folder / "results" / "shapes" / "results.parquet") for one in (there, here)]
    assert tables[0].equals(tables[1])
    drawn = {path.name: path.read_bytes() for path in here.folder.glob("results/shapes/figures/*.csv")}
    assert drawn == {path.name: path.read_bytes() for path in there.folder.glob("results/shapes/figures/*.csv")}
    assert drawn


def running_training(checkout: OnSlurm, cluster: slurm.Cluster, *options: str, settings: dict[str, Any] = LONG):
    """Start a long training on the cluster; returns Snakemake's process and the SLURM job once some steps are saved."""
    overlay = checkout.overlay("long.yaml", pretraining=settings)
    target = backbone(checkout, overlay)
    process = checkout.start(target, *options, overlay=overlay)
    wait_until(lambda: checkout.steps() >= 3, checkout, process)
    (job,) = cluster.jobs("running", checkout.folder)
    return process, job


def start_at_once(cluster: slurm.Cluster, job: str) -> None:
    """A job that was queued again waits for two minutes first; not here."""
    cluster.wait(lambda: cluster.jobs().get(job) == "PENDING", f"job {job} in the queue")
    cluster.run("scontrol", "update", f"JobId={job}", "StartTime=now")


def assert_finished(checkout: OnSlurm, process: subprocess.Popen[bytes], expected: Any) -> None:
    assert process.wait(300) == 0, checkout.said()[-5000:]
    (found,) = (card for entry, card in checksums(checkout).items() if entry.startswith("pretraining/"))
    assert found == expected
    assert "going on at step" in checkout.log()


@pytest.mark.faults
@on_slurm
def test_a_warned_training_goes_on_and_has_not_failed(cluster: slurm.Cluster, checkout: OnSlurm, trained) -> None:
    process, job = running_training(checkout, cluster)
    cluster.run("scancel", "--signal=USR1", job)  # what --signal=USR1@120 sends, to all processes of the job's step
    start_at_once(cluster, job)
    assert_finished(checkout, process, trained(LONG))
    assert "Restarts=1" in cluster.run("scontrol", "show", "job", job)
    assert "Error" not in checkout.said()
    assert "Trying to restart" not in checkout.said()


@pytest.mark.faults
@on_slurm
def test_a_time_limit_is_no_failure(cluster: slurm.Cluster, checkout: OnSlurm, trained) -> None:
    limit = ("--set-resources", "pretraining:runtime=1", "--retries", "0")
    process, job = running_training(checkout, cluster, *limit, settings=LONGER)
    start_at_once(cluster, job)
    while process.poll() is None:
        if cluster.jobs().get(job) == "PENDING":
            cluster.run("scontrol", "update", f"JobId={job}", "StartTime=now", check=False)
        time.sleep(0.5)
    assert_finished(checkout, process, trained(LONGER))
    restarts = re.search(r"Restarts=(\d+)", cluster.run("scontrol", "show", "job", job))
    assert restarts
    assert int(restarts[1]) >= 1
    assert "Error" not in checkout.said()


@pytest.mark.faults
@on_slurm
def test_a_cancelled_training_is_tried_again(cluster: slurm.Cluster, checkout: OnSlurm, trained) -> None:
    process, job = running_training(checkout, cluster)
    cluster.run("scancel", job)
    assert_finished(checkout, process, trained(LONG))
    assert "SLURM status is: 'CANCELLED'" in checkout.said()
    assert "Trying to restart" in checkout.said()
    assert "is queued again" not in checkout.log()  # whoever cancels a job does not want it back in the queue


@pytest.mark.faults
@on_slurm
def test_out_of_memory_the_next_attempt_gets_more(cluster: slurm.Cluster, checkout: OnSlurm, trained) -> None:
    overlay = checkout.overlay("long.yaml", pretraining=LONG)
    memory = ("--set-resources", "pretraining:mem_mb=400+3600*(attempt-1)")
    process = checkout.start(backbone(checkout, overlay), *memory, overlay=overlay)
    assert process.wait(300) == 0, checkout.said()[-5000:]
    assert "SLURM status is: 'FAILED'" in checkout.said()
    assert "Trying to restart" in checkout.said()
    logs = (checkout.folder / ".snakemake" / "slurm_logs").rglob("*.log")
    assert "Exceeded job memory limit" in "".join(path.read_text() for path in logs)
    (found,) = (card for entry, card in checksums(checkout).items() if entry.startswith("pretraining/"))
    assert found == trained(LONG)
    asked = cluster.run("squeue", "-h", "--states=all", "-o", "%i %m").split()
    assert {"400M", "4000M"} <= {*asked}


@pytest.mark.faults
@on_slurm
def test_a_training_moves_from_a_node_that_goes_down(cluster: slurm.Cluster, checkout: OnSlurm, trained) -> None:
    process, job = running_training(checkout, cluster)
    node = cluster.run("squeue", "-h", "-j", job, "-o", "%N").strip()
    cluster.run("scontrol", "update", f"NodeName={node}", "State=DOWN", "Reason=test")
    try:
        time.sleep(5)
        start_at_once(cluster, job)
        wait_until(lambda: cluster.jobs().get(job) == "RUNNING", checkout, process)
        assert cluster.run("squeue", "-h", "-j", job, "-o", "%N").strip() != node
        assert_finished(checkout, process, trained(LONG))
    finally:
        cluster.run("scontrol", "update", f"NodeName={node}", "State=RESUME")


@pytest.mark.faults
@on_slurm
@pytest.mark.parametrize("grace", [0, 30])
def test_a_training_that_is_preempted_goes_on_and_has_not_failed(
    grace: int, cluster: slurm.Cluster, checkout: OnSlurm, trained
) -> None:
    """Also where SLURM grants a grace time, which it uses to leave before it is queued again."""
    process, job = running_training(checkout, cluster, "--retries", "0")
    cluster.run("scontrol", "update", "PartitionName=all", f"GraceTime={grace}")
    node = cluster.run("squeue", "-h", "-j", job, "-o", "%N").strip()
    try:
        urgent = ["--partition=urgent", f"--nodelist={node}", "--exclusive", "--mem=0", "--output=/dev/null"]
        cluster.run("sbatch", *urgent, "--wrap", "sleep 3")
        start_at_once(cluster, job)
        assert_finished(checkout, process, trained(LONG))
    finally:
        cluster.run("scontrol", "update", "PartitionName=all", "GraceTime=0")
    assert "Restarts=1" in cluster.run("scontrol", "show", "job", job)
    assert "Error" not in checkout.said()


@pytest.mark.faults
@on_slurm
def test_the_controller_may_be_away_for_a_while(cluster: slurm.Cluster, checkout: OnSlurm, trained) -> None:
    process, _ = running_training(checkout, cluster)
    cluster.stop("slurmctld")
    time.sleep(15)
    cluster.start_controller()
    assert process.wait(300) == 0, checkout.said()[-5000:]
    (found,) = (card for entry, card in checksums(checkout).items() if entry.startswith("pretraining/"))
    assert found == trained(LONG)


@pytest.mark.faults
@on_slurm
def test_a_head_that_was_killed_loses_nothing(cluster: slurm.Cluster, checkout: OnSlurm, trained) -> None:
    process, job = running_training(checkout, cluster)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert cluster.jobs("running")[job] == "RUNNING"
    target, overlay = backbone(checkout, "long.yaml"), "long.yaml"
    refused = checkout.snakemake(target, overlay=overlay)
    assert "Directory cannot be locked" in refused.stderr
    assert checkout.snakemake("--unlock", overlay=overlay).returncode == 0
    shutil.rmtree(checkout.folder / ".snakemake" / "metadata", ignore_errors=True)
    run = checkout.snakemake(target, overlay=overlay)
    assert run.returncode == 0, run.stderr[-5000:]
    (found,) = (card for entry, card in checksums(checkout).items() if entry.startswith("pretraining/"))
    assert found == trained(LONG)
    assert f"SLURM job {job} is writing this entry; waiting for it" in checkout.log()
    assert "finished before: published again, not computed" in checkout.log()
    assert checkout.planned(target, overlay=overlay) == {}


TWO_GROUPS = {"training": {"epochs": 10, "batch_size": 32, "batchnorm_group": 16}, "attack": {"steps": 20}}
"""A training that two processes can share, each with one group of every batch."""


def submitted(cluster: slurm.Cluster, checkout: OnSlurm, entry: str) -> str:
    """Submit the script of docs/running.md for one network on several machines; returns the job's number.

    Nodes have no addresses here, where all are one machine: MASTER_ADDR says where they meet.
    """
    [block] = blocks(ROOT / "docs" / "running.md", "sh")
    script = checkout.folder / "train.sh"
    script.write_text(block.text)
    options = ["--ntasks-per-node=1", "--gpus-per-task=0", "--mem=2000", "--time=10", f"--chdir={checkout.folder}"]
    variables = {"MASTER_ADDR": "127.0.0.1", "PYTHONPATH": "workflow", VARIABLE: '{"save_seconds": 0}'}
    environment = [f"{name}={value}" for name, value in variables.items()]
    return cluster.run("env", *environment, "sbatch", "--parsable", *options, str(script), entry).strip()


@pytest.mark.faults
@on_slurm
def test_two_nodes_train_one_network_to_the_bits_of_one_process(
    cluster: slurm.Cluster, checkout: OnSlurm, trained
) -> None:
    """Its processes are srun's, on two nodes; interrupted once, it is queued again and goes on."""
    overlay = checkout.overlay("two.yaml", pretraining=TWO_GROUPS)
    target = backbone(checkout, overlay)
    entry = str(Path(target).parent)
    assert checkout.python("entries", "--write", "--configfile", overlay).returncode == 0
    (checkout.folder / ".venv").symlink_to(ROOT / ".venv")
    job = submitted(cluster, checkout, entry)
    cluster.wait(lambda: checkout.steps() >= 3, "state of a training")
    assert cluster.run("squeue", "-h", "-j", job, "-o", "%D").strip() == "2"
    cluster.run("scancel", "--signal=USR1", f"{job}.0")
    start_at_once(cluster, job)
    cluster.wait(lambda: (checkout.folder / target).exists(), "card", seconds=200)
    cluster.wait(lambda: cluster.jobs()[job] == "COMPLETED", "end of the job")
    assert checksums(checkout)[entry.removeprefix("store/")] == trained(TWO_GROUPS)
    assert "going on at step" in (checkout.folder / f"slurm-{job}.out").read_text()
    assert json.loads((checkout.folder / entry / TIMING).read_text())["processes"] == 2
    assert checkout.planned(target, overlay=overlay) == {}


@pytest.mark.faults
@on_slurm
def test_interrupting_the_head_cancels_its_jobs(cluster: slurm.Cluster, checkout: OnSlurm, trained) -> None:
    process, job = running_training(checkout, cluster)
    process.send_signal(signal.SIGINT)
    process.wait(100)
    cluster.wait(lambda: cluster.jobs()[job] == "CANCELLED", "cancelled job")
    assert "SIGTERM received: saved at step" in checkout.log()
    again = checkout.start(backbone(checkout, "long.yaml"), overlay="long.yaml")
    assert_finished(checkout, again, trained(LONG))

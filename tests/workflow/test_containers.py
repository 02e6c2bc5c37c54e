"""`snakemake --sdm apptainer`, with an `apptainer` that runs its command where it is, and the recipes for its image."""

import os
import re
import subprocess
from pathlib import Path

import pytest
import yaml
from support.checkouts import Checkout
from support.paths import ROOT
from support.small_experiments import part, small

ENVS = ROOT / "envs"
APPTAINER = """#!/bin/bash
[ "$1" = --version ] && { echo apptainer version 1.3.4; exit; }
echo "$@" >> "$(dirname "$0")/calls"
while [ "$1" != bash ]; do shift; done
exec "$@"
"""


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Checkout:
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "apptainer"
    program.write_text(APPTAINER)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    (tmp_path / "checkout").mkdir()
    return Checkout(tmp_path / "checkout", small([part([0.5])]))


@pytest.mark.faults  # 9 s
def test_jobs_run_in_the_image_that_the_configuration_names(checkout: Checkout) -> None:
    (checkout.folder / "image.sif").touch()
    overlay = checkout.overlay("contained.yaml", running={"container": "image.sif"})
    run = checkout.snakemake("--sdm", "apptainer", "--apptainer-args=--nv", "--until", "datasets", overlay=overlay)
    assert run.returncode == 0, run.stderr[-3000:]
    calls = (checkout.folder.parent / "bin" / "calls").read_text().splitlines()
    assert len(calls) == 2
    for call in calls:
        assert re.search(
            r"exec --home \S+/checkout --nv .*image\.sif bash -c .*python -m robust_transfer datasets", call
        )
    assert len([*checkout.folder.glob("store/datasets/*/card.json")]) == 2
    assert checkout.planned("--until", "datasets") == {}  # where jobs run is no part of what they make


@pytest.mark.parametrize(
    ("running", "says"),
    [
        ({}, "--sdm apptainer: running.container names no image; build one with `apptainer build"),
        (
            {"container": "no/where.sif"},
            "running.container = no/where.sif: no such file; `apptainer build no/where.sif ",
        ),
    ],
)
def test_without_an_image_nothing_runs(checkout: Checkout, running: dict[str, str], says: str) -> None:
    overlay = checkout.overlay("contained.yaml", running=running)
    run = checkout.snakemake("-n", "--sdm", "apptainer", overlay=overlay)
    assert run.returncode != 0
    assert says in run.stdout + run.stderr
    assert checkout.snakemake("-n", overlay=overlay).returncode == 0


def test_both_recipes_make_the_same_image_from_the_lock() -> None:
    docker, apptainer = ((ENVS / name).read_text() for name in ("Dockerfile", "robust-transfer.def"))
    [base] = re.findall(r"^FROM (\S+)$", docker, re.M)
    assert re.findall(r"^From: (\S+)$", apptainer, re.M) == [base]
    [copied] = re.findall(r"^COPY (.+) /opt/$", docker, re.M)
    taken = dict(
        line.split() for line in re.findall(r"^    (\S+ /opt/\S+)$", apptainer, re.M) if not line.startswith("sh ")
    )
    assert taken == {file: f"/opt/{Path(file).name}" for file in copied.split()}
    assert all((ROOT / file).is_file() for file in taken)
    allowed = {line[1:] for line in (ENVS / "Dockerfile.dockerignore").read_text().split() if line.startswith("!")}
    assert allowed == {*taken}
    for recipe, run in ((docker, "RUN "), (apptainer, "    ")):
        assert f"{run}sh /opt/install.sh /opt/requirements.lock\n" in recipe
        assert "PATH=/opt/robust-transfer/bin:$PATH" in recipe


def test_the_image_gets_the_locked_packages_and_a_python_that_they_are_locked_for(tmp_path: Path) -> None:
    for name in ("apt-get", "python3", "rm"):
        (tmp_path / name).write_text(f'#!/bin/sh\necho {name} "$@" >> {tmp_path}/calls\n')
        (tmp_path / name).chmod(0o755)
    script = (ENVS / "install.sh").read_text()
    assert script.count("environment=/opt/robust-transfer\n") == 1
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").symlink_to(tmp_path / "python3")
    moved = script.replace("environment=/opt/robust-transfer\n", f"environment={tmp_path}\n")
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    subprocess.run(["sh", "-c", moved, "install.sh", "the.lock"], env=environment, check=True)
    calls = (tmp_path / "calls").read_text().splitlines()
    assert "python3 -m pip install --no-cache-dir --require-hashes --requirement the.lock" in calls
    assert f"python3 -m venv {tmp_path}" in calls
    described = yaml.safe_load((ENVS / "robust-transfer.yaml").read_text())
    [python] = [one for one in described["dependencies"] if one.startswith("python ")]
    [oldest] = re.findall(r'^requires-python = ">=([\d.]+)"$', (ROOT / "pyproject.toml").read_text(), re.M)
    assert python.startswith(f"python >={oldest},")
    assert oldest == "3.11"  # which is Debian 12's

"""What installs the software: `make setup`, and the environment of `--sdm conda`."""

import os
import subprocess
from pathlib import Path

import yaml
from support.paths import ROOT


def variables(home: str) -> str:
    """What make knows without running anything."""
    environment = {"HOME": home, "PATH": os.environ["PATH"]}
    return subprocess.run(["make", "-pn", "help"], cwd=ROOT, env=environment, capture_output=True, text=True).stdout


def test_where_home_cannot_be_written_caches_go_elsewhere(tmp_path: Path) -> None:
    assert f"XDG_CACHE_HOME := {ROOT}/.snakemake/cache" in variables("/proc")
    assert "XDG_CACHE_HOME :=" not in variables(str(tmp_path))


def test_set_up_installs_the_package_without_a_download() -> None:
    done = subprocess.run(["make", "-n", "-W", "pyproject.toml", "setup"], cwd=ROOT, capture_output=True, text=True)
    (line,) = [line for line in done.stdout.splitlines() if "--editable" in line]
    assert {"--offline", "--no-deps", "--no-build-isolation"} <= {*line.split()}


def test_the_conda_environment_gets_the_locked_packages_and_the_package(tmp_path: Path) -> None:
    """Its paths must hold wherever Snakemake copies the files to, and from wherever it runs."""
    described = yaml.safe_load((ROOT / "envs/robust-transfer.yaml").read_text())
    assert described["dependencies"][-1] == "pip"
    script = tmp_path / "copied.sh"
    script.write_text((ROOT / "envs/robust-transfer.post-deploy.sh").read_text())
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\necho "$PYTHONPATH|$@" >> {tmp_path}/calls\n')
    python.chmod(0o755)
    path = f"{ROOT / 'workflow'}:/another"
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHONPATH": path}
    subprocess.run(["bash", str(script)], cwd=tmp_path, env=environment, check=True)
    packages, package = (tmp_path / "calls").read_text().splitlines()
    assert packages.startswith("|-m pip install --require-hashes --requirement ")
    assert Path(packages.split()[-1]).resolve() == ROOT / "requirements.lock"
    assert "--no-deps --no-build-isolation --editable" in package
    assert Path(package.split()[-1]).resolve() == ROOT

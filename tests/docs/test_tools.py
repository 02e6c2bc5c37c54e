"""What runs the checks elsewhere runs what is here."""

import os
import shlex
import tomllib
from typing import Any

import yaml
from support.paths import ROOT


def read(name: str) -> Any:
    return yaml.safe_load((ROOT / name).read_text())


def test_continuous_integration_runs_what_one_runs_here() -> None:
    (job,) = read(".github/workflows/ci.yml")["jobs"].values()
    commands = [step["run"] for step in job["steps"] if "run" in step]
    assert commands == [".ci/run"]
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
    oldest = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"].removeprefix(">=")
    assert oldest in job["strategy"]["matrix"]["python"]
    assert len(job["strategy"]["matrix"]["python"]) > 1


def test_hooks_are_the_checks_of_make() -> None:
    (local,) = read(".pre-commit-config.yaml")["repos"]
    assert local["repo"] == "local"  # nothing is fetched from elsewhere
    tools = {shlex.split(hook["entry"])[0] for hook in local["hooks"]}
    recipe = (
        (ROOT / "Makefile").read_text().partition("\ncheck:")[2].partition("\n\n")[0].replace("$(BIN)", ".venv/bin")
    )
    assert all(tool in recipe for tool in tools)
    assert {tool.rpartition("/")[2] for tool in tools} == {"ruff", "snakefmt", "mypy"}


def test_the_catalogue_entry_has_what_the_catalogue_reads() -> None:
    usage = read(".snakemake-workflow-catalog.yml")["usage"]
    assert usage.keys() == {"mandatory-flags", "software-stack-deployment"}
    assert usage["mandatory-flags"].keys() == {"desc", "flags"}
    assert {"conda", "report"} <= usage["software-stack-deployment"].keys()
    readme = (ROOT / "README.md").read_text().lower()
    assert "snakemake" in readme
    assert "workflow" in readme

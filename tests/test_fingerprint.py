"""Fingerprints: an edit that changes what a stage does changes them, one that does not does not."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT
from robust_transfer.fingerprint import modules

# What each stage's fingerprint covers. A module that appears here by surprise reruns the stage whenever it is edited.
MODULES = {
    "datasets": """
        datasets.archive_members datasets.archive_writer datasets.archives datasets.arrow datasets.catalogued
        datasets.collection datasets.disk datasets.downloads datasets.finding datasets.folder datasets.images
        datasets.layouts
        datasets.layouts.annotated datasets.layouts.caltech datasets.layouts.cifar datasets.layouts.imagenet
        datasets.layouts.lists datasets.origins datasets.parquet datasets.partial_files datasets.prepare
        datasets.remote_files datasets.resident datasets.shapes datasets.splits datasets.storing datasets.vision
    """,
    "granularity": """
        datasets.arrow datasets.images datasets.resident datasets.storing granularity
    """,
    "importing": """
        datasets.arrow datasets.disk datasets.downloads datasets.partial_files datasets.remote_files datasets.storing
        importing networks.backbones networks.build networks.checkpoints networks.names networks.pickle_machine
        networks.pickle_values networks.pickles networks.small_resnet published table weights
    """,
    "pretraining": """
        attacks augmentation averaging batchnorm datasets.arrow datasets.resident devices distributed inference
        loading networks.backbones networks.build networks.folding networks.image_gradient networks.names
        networks.small_resnet pretraining progress randomness sanity schedules sgd sources streaming training
    """,
    "evaluation": """
        attacks augmentation datasets.arrow datasets.resident devices evaluation inference metrics
        networks.backbones networks.build networks.folding networks.image_gradient networks.names
        networks.small_resnet randomness
    """,
    "features": """
        augmentation datasets.arrow datasets.resident devices feature_store features loading networks.backbones
        networks.build networks.layers networks.names networks.small_resnet randomness sources streaming
    """,
    "probing": """
        datasets.splits feature_store lbfgs logistic_regression metrics probing
    """,
    "heads": """
        attacks augmentation averaging batchnorm datasets.arrow datasets.resident datasets.splits devices
        distributed heads inference loading metrics networks.backbones networks.build networks.folding
        networks.image_gradient networks.names networks.parallel_heads networks.small_resnet progress randomness
        schedules sgd sources streaming training transfer
    """,
    "choosing": """
        choosing feature_store
    """,
    "finetuning": """
        attacks augmentation averaging batchnorm datasets.arrow datasets.resident datasets.splits devices
        distributed finetuning inference loading metrics networks.backbones networks.build networks.folding
        networks.image_gradient networks.names networks.small_resnet progress randomness schedules sgd sources
        streaming training transfer
    """,
    "results": """
        predictions results sanity seeds selection table training_records training_table
    """,
    "report": """
        figures figures.cells figures.drawing figures.headline figures.style figures.typeset report table
        training_table
    """,
    "figures/width": """
        figures figures.axes figures.cells figures.draw figures.drawing figures.style figures.width table
        training_table
    """,
}


def fingerprints(package: Path) -> dict[str, str]:
    code = (
        "import json, sys; from robust_transfer.fingerprint import fingerprint as f; "
        "from robust_transfer.stages import STAGES, RESULT_MODULES, FIGURE_MODULES; "
        "names = [*STAGES, 'results', 'report', *('figures/' + name for name in FIGURE_MODULES)]; "
        "print(json.dumps({name: f(name) for name in names}))"
    )
    found = subprocess.run([sys.executable, "-c", code], cwd=package.parent, capture_output=True, text=True, check=True)
    return dict(json.loads(found.stdout))


@pytest.fixture
def package(tmp_path: Path) -> Path:
    return Path(
        shutil.copytree(
            ROOT / "workflow" / "robust_transfer",
            tmp_path / "robust_transfer",
            ignore=shutil.ignore_patterns("__pycache__"),
        )
    )


def edit(path: Path, text: str) -> None:
    path.write_text(path.read_text() + text)


def test_comments_and_docstrings_change_nothing(package: Path) -> None:
    before = fingerprints(package)
    attacks = package / "attacks.py"
    attacks.write_text("# a remark\n" + attacks.read_text().replace('"""', '"""Reworded. ', 1))
    assert fingerprints(package) == before


def test_an_edit_reaches_the_stages_that_use_the_module_and_no_others(package: Path) -> None:
    before = fingerprints(package)
    edit(package / "attacks.py", "\nSOMETHING = 1\n")
    changed = {stage for stage, found in fingerprints(package).items() if found != before[stage]}
    assert changed == {"pretraining", "evaluation", "heads", "finetuning"}


def test_the_grid_the_command_line_and_the_store_reach_none(package: Path) -> None:
    before = fingerprints(package)
    for module in ("grid.py", "cli.py", "store.py", "wiring.py", "configuration/training.py"):
        edit(package / module, "\nSOMETHING = 1\n")
    assert fingerprints(package) == before


def test_a_figure_reaches_itself_alone(package: Path) -> None:
    before = fingerprints(package)
    edit(package / "figures" / "width.py", "\nSOMETHING = 1\n")
    changed = {stage for stage, found in fingerprints(package).items() if found != before[stage]}
    assert changed == {"figures/width"}


@pytest.mark.parametrize("stage", sorted(MODULES))
def test_a_stage_covers_these_modules(stage: str) -> None:
    assert list(modules(stage)) == MODULES[stage].split()

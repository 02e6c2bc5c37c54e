"""Tests import the package from the working tree, as the workflow does."""

import os
import sys
from pathlib import Path

import pytest

# Tensors are tiny here: threads that wait for each other cost more than they bring, above all on a busy machine.
os.environ.setdefault("OMP_NUM_THREADS", "1")

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "workflow"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whole runs of the workflow first: of two processes the other would wait for them at the end."""
    items.sort(key=lambda item: item.path.name not in ("test_workflow.py", "test_experiments.py"))

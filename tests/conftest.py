"""What holds for every test."""

import os

import pytest

# Tensors are tiny here: threads that wait for each other cost more than they bring, above all on a busy machine.
os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whole runs of the workflow first: of two processes the other would wait for them at the end."""
    items.sort(key=lambda item: item.path.parent.name != "workflow")

"""What holds for every test."""

import logging
import os
from collections.abc import Iterator

import pytest

# Set before torch is imported. Tensors are tiny here, so that threads which wait for each other cost more than they
# bring; where a test needs two, they sleep while they wait, since on a busy machine spinning takes minutes.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
for variable in ("MAKELEVEL", "MAKEFLAGS", "MFLAGS"):  # what a test starts is not started by `make test`
    os.environ.pop(variable, None)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whole runs of the workflow first: of two processes the other would wait for them at the end."""
    items.sort(key=lambda item: item.path.parent.name != "workflow")


@pytest.fixture(autouse=True)
def log_level() -> Iterator[None]:
    """Undoes what a command run inside a test sets, or the tests after it in the same process would see another log."""
    log = logging.getLogger("robust_transfer")
    level = log.level
    yield
    log.setLevel(level)
    logging.captureWarnings(False)

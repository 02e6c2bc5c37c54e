"""What tests of stages share."""

from pathlib import Path

import pytest
from robust_transfer.store.entry import Entry
from support.prepared_datasets import few_squares


@pytest.fixture(scope="module")
def dataset(root: Path) -> Entry:
    """A target of few images, below the module's own `root`."""
    return few_squares(root)

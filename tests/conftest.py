"""Tests import the package from the working tree, as the workflow does."""

import os
import sys
from pathlib import Path

# Tensors are tiny here: threads that wait for each other cost more than they bring, above all on a busy machine.
os.environ.setdefault("OMP_NUM_THREADS", "1")

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "workflow"))

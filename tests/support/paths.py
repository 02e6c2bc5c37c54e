"""Where the repository lies."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
WORKFLOW = ROOT / "workflow"
"""On the path of every process that imports the package."""
TESTS = ROOT / "tests"

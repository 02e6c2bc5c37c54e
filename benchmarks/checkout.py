"""Import this first: it lets `robust_transfer` be imported from the checkout that the benchmark lies in."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "workflow"))

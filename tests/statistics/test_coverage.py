"""Intervals of choices hold the truth, and stars are rarely false, in simulated experiments whose truth is known.

`benchmarks/coverage.py`, shorter. Of 120 experiments, more than 14 misses of an interval that holds the truth in 95 %,
and more than 9 stars where 2.5 % are false, are each seen in about one of a thousand tests.
"""

from __future__ import annotations

import importlib.util
import sys
from typing import Any

import pytest
from support.paths import ROOT

EXPERIMENTS, MISSES, STARS = 120, 14, 9


@pytest.fixture(scope="module")
def simulation() -> Any:
    """The benchmark's module, under a name that no installed package has."""
    sys.path.insert(0, str(ROOT / "benchmarks"))
    spec = importlib.util.spec_from_file_location("interval_coverage", ROOT / "benchmarks/coverage.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look up their module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(("seeds", "spread"), [(1, 0.0), (3, 3.0)])
@pytest.mark.parametrize(
    ("robust", "standard", "chosen_on"),
    [(1, 1, "validation"), (5, 1, "validation"), (20, 4, "validation"), (5, 1, "test"), (20, 4, "test")],
)
def test_choices(simulation: Any, robust: int, standard: int, seeds: int, spread: float, chosen_on: str) -> None:
    case = simulation.Case(robust, standard, seeds, spread, 0.75, chosen_on)
    counts = simulation.counted(case, EXPERIMENTS, 100)
    assert EXPERIMENTS - counts.accuracy <= MISSES
    assert EXPERIMENTS - counts.difference <= MISSES
    assert counts.stars <= STARS


@pytest.mark.parametrize("accuracy", [0.5, 0.9, 0.999])
def test_one_network_against_another(simulation: Any, accuracy: float) -> None:
    counts = simulation.counted(simulation.Case(1, 1, 1, 0, accuracy), EXPERIMENTS, 100)
    assert EXPERIMENTS - counts.accuracy <= MISSES
    assert EXPERIMENTS - counts.difference <= MISSES
    assert counts.stars <= STARS

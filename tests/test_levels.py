"""The rooms of the package and their levels: an import goes down, never up, and stages do not know each other."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.paths import WORKFLOW

PACKAGE = WORKFLOW / "robust_transfer"

# From the top. A module imports from rooms of lower levels, and from its own room.
LEVELS = (
    ("__main__",),
    ("cli",),
    ("commands",),
    ("planning",),
    ("stages",),
    ("dag", "training", "claims", "page"),
    ("stylization", "gallery"),
    ("weights", "loading", "resuming", "figures", "attacks"),
    ("datasets", "networks", "tables", "machine"),
    ("store",),
    ("configuration",),
    ("architectures", "quantities", "registry", "randomness", "statistics"),
)
LEVEL = {room: level for level, rooms in enumerate(LEVELS) for room in rooms}
WITH_TORCH = {
    "training",
    "loading",
    "resuming",
    "machine",
    "networks",
    "weights",
    "stages",
    "attacks",
    "randomness",
    "stylization",
    "gallery",
}
"""Rooms whose modules may import torch at the top."""


def modules() -> list[Path]:
    return sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(path: Path, *, at_top: bool = False) -> Iterator[str]:
    """Modules that a file imports by name, anywhere in it or at its top alone."""
    tree = ast.parse(path.read_text())
    for node in tree.body if at_top else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def rooms_imported(path: Path) -> set[str]:
    names = [name.split(".") for name in imported(path) if name.startswith("robust_transfer.")]
    return {name[1] for name in names if (PACKAGE / name[1]).is_dir() or (PACKAGE / f"{name[1]}.py").exists()}


def test_every_room_has_a_level() -> None:
    assert {room(path) for path in modules()} == set(LEVEL)


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_down(path: Path) -> None:
    above = {other for other in rooms_imported(path) - {room(path)} if LEVEL[other] <= LEVEL[room(path)]}
    assert not above, f"{room(path)} is not above {', '.join(sorted(above))}"


def test_no_stage_imports_another() -> None:
    for path in (PACKAGE / "stages").glob("*.py"):
        assert not [name for name in imported(path) if name.startswith("robust_transfer.stages.")], path


@pytest.mark.parametrize("path", [path for path in modules() if room(path) not in WITH_TORCH], ids=str)
def test_torch_stays_where_networks_are(path: Path) -> None:
    heavy = {name.partition(".")[0] for name in imported(path, at_top=True)} & {"torch", "torchvision", "timm"}
    assert not heavy

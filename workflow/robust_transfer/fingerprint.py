"""Code fingerprints: does the code that a stage runs still say what it said when an entry was made?

A fingerprint covers the modules a stage imports, transitively and within this package, over their syntax trees without
comments and docstrings. It stops at the configuration models, the catalogue and the command line, since values are in
an entry's hash, and at the bookkeeping of the store and of interrupted jobs, which says how outputs are named, locked,
kept and described and not what is in them.
"""

from __future__ import annotations

import ast
import functools
import hashlib
from collections.abc import Iterator
from pathlib import Path

from robust_transfer.stages import FIGURE_MODULES, RESULT_MODULES, STAGES

PACKAGE = "robust_transfer"
ROOT = Path(__file__).parent
OUTSIDE = tuple(
    f"{PACKAGE}.{module}"
    for module in (
        *("configuration", "catalogue", "cli", "__main__", "grid", "store", "stages", "fingerprint"),
        *("states", "shards", "interruption", "launch"),
    )
)


@functools.cache
def fingerprint(name: str) -> str:
    """Fingerprint of the code behind a stage (`probing`) or a figure (`figures/width`): 12 hexadecimal digits."""
    return _digest(" ".join(f"{module}={found}" for module, found in module_fingerprints(name).items()))


@functools.cache
def module_fingerprints(name: str) -> dict[str, str]:
    """Fingerprint of each module behind a stage or a figure, by its name in this package."""
    return {module: _digest(_meaning(_file(f"{PACKAGE}.{module}"))) for module in modules(name)}


@functools.cache
def modules(name: str) -> tuple[str, ...]:
    """The modules that the fingerprint of a stage or a figure covers, sorted, by their names in this package."""
    found: set[str] = set()
    waiting = _roots(name)
    while waiting:
        module = waiting.pop()
        if module in found or any(module == outside or module.startswith(outside + ".") for outside in OUTSIDE):
            continue
        found.add(module)
        waiting.extend(_imports(_file(module)))
    return tuple(sorted(module.removeprefix(f"{PACKAGE}.") for module in found))


def _roots(name: str) -> list[str]:
    stage, _, figure = name.partition("/")
    if stage in STAGES:
        return [STAGES[stage].module]
    return [RESULT_MODULES[stage], *([FIGURE_MODULES[figure]] if figure else [])]


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _file(module: str) -> Path:
    path = ROOT.joinpath(*module.split(".")[1:])
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def _is_module(name: str) -> bool:
    return name.startswith(PACKAGE + ".") and _file(name).exists()


@functools.cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def _imports(path: Path) -> list[str]:
    found = []
    for node in _statements(_tree(path)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            found += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return [name for name in found if _is_module(name)]


def _meaning(path: Path) -> str:
    tree = _tree(path)
    for node in _statements(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            node.body = [statement for statement in node.body if not _is_text(statement)] or [ast.Pass()]
    return ast.dump(tree)


def _statements(tree: ast.Module) -> Iterator[ast.AST]:
    """The module and every statement in it, at any depth; expressions, most of a tree, are left out."""
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        yield node
        for block in ("body", "orelse", "finalbody", "handlers", "cases"):
            waiting += getattr(node, block, ())


def _is_text(statement: ast.stmt) -> bool:
    """A bare string: a docstring, or a string beneath an attribute that documents it."""
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )

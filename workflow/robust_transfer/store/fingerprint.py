"""Code fingerprints: does the code that a stage runs still say what it said when an entry was made?

A fingerprint covers the modules a stage imports, transitively and within this package, over their syntax trees without
comments, docstrings and imports of this package. It stops at the configuration models and the command line, since
values are in an entry's hash, and at the bookkeeping of the store and of interrupted jobs, which says how outputs are
named, locked, kept and described and not what is in them.

It is a digest over what the modules say, sorted, and not over where they lie: a module that is moved or renamed, or
imported from elsewhere, reruns nothing.
"""

from __future__ import annotations

import ast
import functools
import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TypeGuard

from robust_transfer.registry import ALL_STAGES, FIGURES, PACKAGE

ROOT = Path(__file__).parents[1]
OUTSIDE = tuple(
    f"{PACKAGE}.{module}"
    for module in (
        *("__main__", "cli", "registry", "configuration", "planning", "dag", "resuming"),
        *("store.entry", "store.finished", "store.fingerprint", "store.made", "store.provenance", "store.upkeep"),
        "machine.launch",
    )
)
"""Modules, and packages with all their modules, at which fingerprints stop."""


@functools.cache
def fingerprint(name: str) -> str:
    """Fingerprint of the code behind a stage (`probing`) or a figure (`figures/width`): 12 hexadecimal digits."""
    return _digest(" ".join(sorted(module_fingerprints(name).values())))


@functools.cache
def module_fingerprints(name: str) -> dict[str, str]:
    """Fingerprint of each module behind a stage or a figure, by its name in this package."""
    return {module: _module_fingerprint(_file(f"{PACKAGE}.{module}")) for module in modules(name)}


def changed_modules(before: Mapping[str, str], now: Mapping[str, str]) -> set[str]:
    """Names of modules that say something else than before, or are new or gone; none for modules that only moved.

    Both arguments are as `module_fingerprints` gives them.
    """
    new, gone = Counter(now.values()) - Counter(before.values()), Counter(before.values()) - Counter(now.values())
    return {name for name, one in now.items() if one in new} | {name for name, one in before.items() if one in gone}


@functools.cache
def modules(name: str) -> tuple[str, ...]:
    """The modules that the fingerprint of a stage or a figure covers, sorted, by their names in this package."""
    covered: set[str] = set()
    waiting = _roots(name)
    while waiting:
        module = waiting.pop()
        if module in covered or any(module == outside or module.startswith(outside + ".") for outside in OUTSIDE):
            continue
        covered.add(module)
        waiting.extend(_imports(_file(module)))
    return tuple(sorted(module.removeprefix(f"{PACKAGE}.") for module in covered))


def _roots(name: str) -> list[str]:
    stage, _, figure = name.partition("/")
    return [ALL_STAGES[stage].module, *([f"{PACKAGE}.figures.{FIGURES[figure].module}"] if figure else [])]


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _file(module: str) -> Path:
    path = ROOT.joinpath(*module.split(".")[1:])
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def _is_module(name: str) -> bool:
    return name.startswith(PACKAGE + ".") and _file(name).exists()


@functools.cache
def _imports(path: Path) -> tuple[str, ...]:
    names: list[str] = []
    for node in _statements(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return tuple(name for name in names if _is_module(name))


@functools.cache
def _module_fingerprint(path: Path) -> str:
    tree = ast.parse(path.read_text())  # a tree of its own, since it is cut here
    renamed: list[str] = []
    for node in _statements(tree):
        if _is_type_checking(node):
            node.body = [ast.Pass()]
        for block in ("body", "orelse", "finalbody"):
            if block not in node._fields:
                continue
            statements = getattr(node, block)
            renamed += [name for statement in statements for name in _renamed(statement)]
            kept = [one for one in statements if not _is_text(one) and not _is_own_import(one)]
            setattr(node, block, kept or ([ast.Pass()] if block == "body" else []))
    return _digest(_dump(tree) + " ".join(sorted(renamed)))


def _statements(tree: ast.Module) -> Iterator[ast.AST]:
    """The module and every statement in it that is run, at any depth; expressions, most of a tree, are left out."""
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        yield node
        if _is_type_checking(node):
            waiting += node.orelse
            continue
        for block in ("body", "orelse", "finalbody", "handlers", "cases"):
            waiting += getattr(node, block, ())


def _is_type_checking(node: ast.AST) -> TypeGuard[ast.If]:
    """`if TYPE_CHECKING:`, whose body is never run."""
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def _is_text(statement: ast.stmt) -> bool:
    """A bare string: a docstring, or a string beneath an attribute that documents it."""
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )


def _is_own_import(statement: ast.stmt) -> bool:
    """An import of this package: where its modules lie is no part of what they say."""
    if isinstance(statement, ast.Import):
        return all(_is_own(alias.name) for alias in statement.names)
    return isinstance(statement, ast.ImportFrom) and _is_own(statement.module or "")


def _is_own(module: str) -> bool:
    return module == PACKAGE or module.startswith(PACKAGE + ".")


def _renamed(statement: ast.stmt) -> list[str]:
    """What an import of this package gives another name: which of two things a name means is part of what is said."""
    if not isinstance(statement, ast.ImportFrom) or not _is_own_import(statement):
        return []
    return [f"{alias.name}={alias.asname}" for alias in statement.names if alias.asname]


def _dump(node: object) -> str:
    """The tree as text, the same in every version of Python: fields that are empty are left out, as newer versions add
    some, and so is what only type checkers read of a definition."""
    if isinstance(node, list):
        return f"[{','.join(_dump(one) for one in node)}]"
    if not isinstance(node, ast.AST):
        return repr(node)
    fields = ((name, value) for name, value in ast.iter_fields(node) if name not in _UNREAD and value not in (None, []))
    return f"{type(node).__name__}({','.join(f'{name}={_dump(value)}' for name, value in fields)})"


_UNREAD = ("type_params", "type_comment", "kind", "ctx")

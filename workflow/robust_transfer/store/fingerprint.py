"""Code fingerprints: does the code that a stage runs still say what it said when an entry was made?

A fingerprint covers the modules a stage imports, transitively and within this package, over their syntax trees without
comments, docstrings and imports of this package, without annotations that nothing reads, and without what is logged,
as far as that computes nothing. Local variables may be called anything (`local_names.py`). It stops at the
configuration models and the command line, since values are in an entry's hash, and at the bookkeeping of the store and
of interrupted jobs, which says how outputs are named, locked, kept and described and not what is in them.

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
from typing import Any, TypeGuard

from robust_transfer.registry import ALL_STAGES, FIGURES, PACKAGE
from robust_transfer.store import local_names
from robust_transfer.store.local_names import rename_locals
from robust_transfer.store.remembered import Remembered

ROOT = Path(__file__).parents[1]
OUTSIDE = tuple(
    f"{PACKAGE}.{module}"
    for module in (
        *("__main__", "cli", "registry", "configuration", "planning", "dag", "resuming", "quantities"),
        *(
            "store.definitions",
            "store.entry",
            "store.finished",
            "store.fingerprint",
            "store.local_names",
            "store.locking",
            "store.made",
            "store.provenance",
            "store.remembered",
            "store.upkeep",
        ),
        "machine.launch",
    )
)
"""Modules, and packages with all their modules, at which fingerprints stop."""
_REMEMBERED = Remembered(Path(__file__), [Path(__file__), Path(local_names.__file__)])


@functools.cache
def fingerprint(name: str) -> str:
    """Fingerprint of the code behind a stage (`probing`) or a figure (`figures/width`): 12 hexadecimal digits."""
    return _digest(" ".join(sorted(module_fingerprints(name).values())))


@functools.cache
def module_fingerprints(name: str) -> dict[str, str]:
    """Fingerprint of each module behind a stage or a figure, by its name in this package."""
    found = {module: _module_fingerprint(module_file(module)) for module in modules(name)}
    _REMEMBERED.save()
    return found


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
    return tuple(name for name in _found_out(path)[1] if _is_module(name))


@functools.cache
def _module_fingerprint(path: Path) -> str:
    return str(_found_out(path)[0])


def _found_out(path: Path) -> Any:
    """A module's fingerprint, and all that it imports."""
    return _REMEMBERED.of(path, lambda: [fingerprint_of(*what_it_says(path)), _imported(path)])


def _imported(path: Path) -> list[str]:
    names: list[str] = []
    for node in _statements(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return [name for name in names if _is_own(name)]


def module_file(name: str) -> Path:
    """The file of a module, by its name in this package."""
    return _file(f"{PACKAGE}.{name}")


def fingerprint_of(tree: ast.Module, renamed: list[str]) -> str:
    """Fingerprint of a module, from what `what_it_says` found."""
    return _digest(dump(tree) + " ".join(sorted(renamed)))


def what_it_says(path: Path) -> tuple[ast.Module, list[str]]:
    """The tree of a module without what no fingerprint covers, and which own names it imports by other names."""
    tree = ast.parse(path.read_text())  # a tree of its own, since it is cut here
    _WithoutRemarks(has_log=_has_log(tree)).visit(tree)
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
    rename_locals(tree)
    return tree, renamed


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


def dump(node: object) -> str:
    """The tree as text, the same in every version of Python: fields that are empty are left out, as newer versions add
    some, and so is what only type checkers read of a definition."""
    if isinstance(node, list):
        return f"[{','.join(dump(one) for one in node)}]"
    if not isinstance(node, ast.AST):
        return repr(node)
    fields = ((name, value) for name, value in ast.iter_fields(node) if name not in _UNREAD and value not in (None, []))
    return f"{type(node).__name__}({','.join(f'{name}={dump(value)}' for name, value in fields)})"


_UNREAD = ("type_params", "type_comment", "kind", "ctx")


class _WithoutRemarks(ast.NodeTransformer):
    """Takes out what a tree says to readers of the code and of the log alone.

    - Annotations of functions and of variables, which nothing in this package reads. Those of classes' fields stay, as
      dataclasses and models read them, and so do those of functions under a decorator that might.
    - Calls of the module's `log` whose arguments compute nothing; of others, at which level they log.
    """

    def __init__(self, *, has_log: bool) -> None:
        self._has_log, self._in_class = has_log, False

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        return self._inside(node, in_class=True)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        return self._function(node)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> ast.AST:
        return self._function(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        self.generic_visit(node)
        if self._in_class:
            return node
        if node.value is None:  # it still makes a name a local one
            return ast.AnnAssign(node.target, ast.Constant(None), None, node.simple)
        return ast.Assign([node.target], node.value)

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        if not self._has_log or not _is_call_of_log(node.value):
            return self.generic_visit(node)
        given = [*node.value.args, *(keyword.value for keyword in node.value.keywords)]
        if all(_computes_nothing(one) for one in given):
            return None
        return ast.Expr(ast.Tuple(given))

    def _function(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> ast.AST:
        if all(_name(one) in _INDIFFERENT for one in node.decorator_list):
            node.returns = None
            of = node.args
            for argument in (*of.posonlyargs, *of.args, *of.kwonlyargs, of.vararg, of.kwarg):
                if argument:
                    argument.annotation = None
        return self._inside(node, in_class=False)

    def _inside(self, node: ast.AST, in_class: bool) -> ast.AST:
        before, self._in_class = self._in_class, in_class
        self.generic_visit(node)
        self._in_class = before
        return node


_INDIFFERENT = {"cache", "cached_property", "classmethod", "contextmanager", "no_grad", "property", "staticmethod"}
"""Decorators that do not read annotations."""
_PURE = {"len", "round", "str", "int", "float", "repr", "abs"}
"""Functions that change nothing that they are given, an iterator included."""
_LEVELS = {"debug", "info", "warning", "error", "exception", "critical"}


def _has_log(tree: ast.Module) -> bool:
    """Whether `log` is the module's logger and nothing else in it."""
    bound = [node for node in ast.walk(tree) if isinstance(node, ast.Name) and node.id == "log" and _is_bound(node)]
    named = any(isinstance(node, ast.arg) and node.arg == "log" for node in ast.walk(tree))
    loggers = [
        node
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call) and _name(node.value) == "getLogger"
    ]
    return len(bound) == 1 and not named and any(bound == one.targets for one in loggers)


def _is_bound(node: ast.Name) -> bool:
    return isinstance(node.ctx, (ast.Store, ast.Del))


def _is_call_of_log(node: ast.AST) -> TypeGuard[ast.Call]:
    called = node.func if isinstance(node, ast.Call) else None
    is_level = isinstance(called, ast.Attribute) and called.attr in _LEVELS
    return (
        is_level
        and isinstance(called, ast.Attribute)
        and isinstance(called.value, ast.Name)
        and called.value.id == "log"
    )


def _computes_nothing(node: ast.AST) -> bool:
    """Whether an expression only looks at what there is: no call but of a few functions, no assignment, no loop."""
    for one in ast.walk(node):
        if isinstance(one, (ast.NamedExpr, ast.Await, ast.Yield, ast.YieldFrom, ast.comprehension, ast.Starred)):
            return False
        if isinstance(one, ast.Call) and not (isinstance(one.func, ast.Name) and one.func.id in _PURE):
            return False
    return True


def _name(node: ast.AST) -> str:
    """Last name of what is called or named: `no_grad` of `@torch.no_grad()`."""
    if isinstance(node, ast.Call):
        return _name(node.func)
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""

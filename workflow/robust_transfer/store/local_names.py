"""Names of local variables, made the same in every text that differs in nothing else.

A local variable of a function, a lambda or a comprehension is called `$0`, `$1`, … in the order in which a scope's
variables are first met. A variable that an inner function reads has one name in both. What others can see or say keeps
its name: parameters, which callers name; imports, inner functions and classes; and every name in a function that might
look its own variables up: by `locals()` and the like, `global`, `nonlocal`, a class within it, or `@name` in a text, as
pandas' queries do.
"""

from __future__ import annotations

import ast
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field

INTROSPECTING = {"locals", "vars", "globals", "eval", "exec", "dir", "inspect", "sys"}
"""Names by which a function may reach its own variables."""

_Function = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
_Comprehension = ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp
_COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
_FIELDS = {ast.ExceptHandler: "name", ast.MatchAs: "name", ast.MatchStar: "name", ast.MatchMapping: "rest"}
"""Nodes that name a variable by a text."""


@dataclass
class _Scope:
    """The variables of a function or comprehension: their new names, or None for those that keep their own."""

    parent: _Scope | None
    names: dict[str, str | None] = field(default_factory=dict)


def rename_locals(tree: ast.Module) -> None:
    """Rename the local variables of a module's tree in place."""
    _Renamer().inside(tree, None)


class _Renamer:
    """Goes through a tree in order, with the scope that names are looked up in; None: that of a module or a class."""

    def __init__(self) -> None:
        self._numbers = itertools.count()

    def inside(self, node: ast.AST, scope: _Scope | None) -> None:
        """Rename in a node that opens no scope, or in what lies within it."""
        for child in ast.iter_child_nodes(node):
            self._node(child, scope)

    def _node(self, node: ast.AST, scope: _Scope | None) -> None:
        if isinstance(node, (*_FUNCTIONS, *_COMPREHENSIONS)):
            if scope is None and _looks_itself_up(node):
                return
            if isinstance(node, _FUNCTIONS):
                self._function(node, scope)
            else:
                self._comprehension(node, scope)
            return
        if isinstance(node, ast.Name):
            node.id = self._renamed(node.id, scope)
        elif (name := _FIELDS.get(type(node))) and getattr(node, name):
            setattr(node, name, self._renamed(getattr(node, name), scope))
        self.inside(node, scope)

    def _function(self, node: _Function, scope: _Scope | None) -> None:
        of = node.args
        arguments = [*of.posonlyargs, *of.args, *of.kwonlyargs, *filter(None, (of.vararg, of.kwarg))]
        body = node.body if isinstance(node.body, list) else [node.body]
        # Defaults, annotations and decorators are evaluated outside.
        for outside in _outside(node):
            self._node(outside, scope)
        own = _Scope(scope)
        kept = {argument.arg for argument in arguments} | {name for one in body for name in _kept(one)}
        variables = [name for one in body for name in _variables(one)]
        own.names = {**dict.fromkeys(variables, ""), **dict.fromkeys(kept)}
        for one in body:
            self._node(one, own)

    def _comprehension(self, node: _Comprehension, scope: _Scope | None) -> None:
        first = node.generators[0]
        self._node(first.iter, scope)
        own = _Scope(scope)
        own.names = {name: "" for one in node.generators for name in _variables(one.target)}
        for one in node.generators:
            for part in (one.target, *([] if one is first else [one.iter]), *one.ifs):
                self._node(part, own)
        elements = (node.key, node.value) if isinstance(node, ast.DictComp) else (node.elt,)
        for element in elements:
            self._node(element, own)

    def _renamed(self, name: str, scope: _Scope | None) -> str:
        while scope is not None:
            if name in scope.names:
                if scope.names[name] == "":
                    scope.names[name] = f"${next(self._numbers)}"
                return scope.names[name] or name
            scope = scope.parent
        return name


def _looks_itself_up(node: ast.AST) -> bool:
    """Whether names in an outermost function or comprehension may mean more than variables."""
    within = list(ast.walk(node))
    variables = {one.id for one in within if isinstance(one, ast.Name) and isinstance(one.ctx, ast.Store)}
    for one in within:
        if isinstance(one, (ast.Global, ast.Nonlocal, ast.ClassDef)):
            return True
        if isinstance(one, ast.Name) and one.id in INTROSPECTING:
            return True
    texts = [one.value for one in within if isinstance(one, ast.Constant) and isinstance(one.value, str)]
    return any(f"@{name}" in text for text in texts if "@" in text for name in variables)


def _outside(node: ast.AST) -> Iterator[ast.AST]:
    """What of a function's definition is evaluated in the scope around it."""
    if not isinstance(node, _FUNCTIONS):
        return
    of = node.args
    yield from (*of.defaults, *(one for one in of.kw_defaults if one))
    if isinstance(node, ast.Lambda):
        return
    yield from node.decorator_list
    arguments = (*of.posonlyargs, *of.args, *of.kwonlyargs, of.vararg, of.kwarg)
    yield from (one.annotation for one in arguments if one and one.annotation)
    if node.returns:
        yield node.returns


def _variables(node: ast.AST) -> Iterator[str]:
    """Names of the variables that a statement or target binds in its own scope, not in those within it."""
    if isinstance(node, _FUNCTIONS):
        for outside in _outside(node):
            yield from _variables(outside)
        return
    if isinstance(node, _COMPREHENSIONS):
        yield from _variables(node.generators[0].iter)
        # An assignment expression binds in the function around a comprehension.
        for one in ast.walk(node):
            if isinstance(one, ast.NamedExpr) and isinstance(one.target, ast.Name):
                yield one.target.id
        return
    if isinstance(node, ast.Name) and isinstance(node.ctx, (ast.Store, ast.Del)):
        yield node.id
    elif (name := _FIELDS.get(type(node))) and getattr(node, name):
        yield getattr(node, name)
    for child in ast.iter_child_nodes(node):
        yield from _variables(child)


def _kept(node: ast.AST) -> Iterator[str]:
    """Names that a statement binds in its own scope otherwise: imports and inner functions."""
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
        yield node.name
        return
    if isinstance(node, (ast.Import, ast.ImportFrom)):
        yield from (alias.asname or alias.name.partition(".")[0] for alias in node.names)
    if isinstance(node, (*_COMPREHENSIONS, ast.Lambda)):
        return
    for child in ast.iter_child_nodes(node):
        yield from _kept(child)

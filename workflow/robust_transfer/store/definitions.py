"""What a module's functions and classes said when something was made, so that a later change can be named.

A card has a fingerprint for each module. `store/.code/<fingerprint>.json` has one for each function, method, class and
constant of that module. It is written once for all entries, by the first job that runs such code. For tables and
figures it lies in `results/<experiment>/.made/code/`. Nothing is decided by it: where it is missing, only modules can
be named.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from robust_transfer.store.fingerprint import (
    changed_modules,
    dump,
    fingerprint_of,
    module_file,
    module_fingerprints,
    what_it_says,
)

CODE = ".code"
STATEMENTS = "its statements"
"""What stands at a module's top and is neither a definition nor an assignment to a name."""


def record_definitions(folder: Path, name: str) -> None:
    """Write what the modules behind a stage (`probing`) or a figure (`figures/width`) define, where it is not known.

    In one piece each, and not flushed to disk, which takes a second for all: a record that is lost with the machine's
    power loses the names of functions in an explanation.
    """
    for module, fingerprint in module_fingerprints(name).items():
        if (folder / f"{fingerprint}.json").exists():
            continue
        found, defined = definitions(module_file(module))
        folder.mkdir(parents=True, exist_ok=True)
        draft = folder / f".{found}.{os.getpid()}"
        draft.write_text(json.dumps({"module": module, "definitions": defined}, indent=1))
        draft.replace(folder / f"{found}.json")


@functools.cache
def definitions(path: Path) -> tuple[str, dict[str, str]]:
    """Fingerprint of a module, and of everything that it defines by name: `pgd`, `L2.project`, `STEPS`."""
    tree, renamed = what_it_says(path)
    fingerprint = fingerprint_of(tree, renamed)  # before `_named` takes methods out of their classes
    said: dict[str, list[str]] = {}
    for name, node in _named(tree):
        said.setdefault(name, []).append(dump(node))
    if renamed:
        said.setdefault(STATEMENTS, []).extend(sorted(renamed))
    digests = {name: hashlib.sha256(" ".join(texts).encode()).hexdigest()[:8] for name, texts in said.items()}
    return fingerprint, digests


def changed_code(before: Mapping[str, str], now: Mapping[str, str], folders: Sequence[Path]) -> list[str]:
    """What of the code is something else: `attacks (pgd, STEPS)`, or `attacks` alone where no more is known.

    Args:
        before: Fingerprint of each module when something was made, as its card says.
        now: As `module_fingerprints` gives it.
        folders: Where definitions may be recorded.
    """
    return [
        f"{module}{_inside(module, before, now, folders)}"
        for module in sorted(changed_modules(dict(before), dict(now)))
    ]


def _inside(module: str, before: Mapping[str, str], now: Mapping[str, str], folders: Sequence[Path]) -> str:
    if module not in before:
        return " (new)"
    if module not in now:
        return " (no longer used)"
    found, defined = definitions(module_file(module))
    recorded = _recorded(before[module], folders)
    if recorded is None or found != now[module]:
        return ""
    changed = [name for name, one in defined.items() if recorded.get(name, one) != one]
    told = [*changed, *(f"{name} is new" for name in defined if name not in recorded)]
    told += [f"{name} is gone" for name in recorded if name not in defined]
    return f" ({', '.join(told)})" if told else " (the order of its statements)"


def _recorded(fingerprint: str, folders: Sequence[Path]) -> dict[str, str] | None:
    for folder in folders:
        try:
            found = json.loads((folder / f"{fingerprint}.json").read_text())["definitions"]
            return {str(name): str(one) for name, one in found.items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue
    return None


def _named(tree: ast.Module) -> Iterator[tuple[str, ast.AST]]:
    """What a module defines, by name, methods apart from their classes; under `STATEMENTS` what has no name."""
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            methods = [one for one in node.body if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef)]
            yield from ((f"{node.name}.{method.name}", method) for method in methods)
            node.body = [one for one in node.body if one not in methods]
            yield node.name, node
        else:
            yield _name(node), node


def _name(node: ast.stmt) -> str:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return node.name
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    names = [one.id for one in targets if isinstance(one, ast.Name)]
    return names[0] if len(names) == 1 else STATEMENTS

"""Word the mistakes of a configuration: one line each, which names the file, the key, its value and what to write."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic_core import ErrorDetails

from robust_transfer.configuration.base import SWITCH
from robust_transfer.configuration.experiment import Experiment
from robust_transfer.configuration.files import EXTENDS, Key, dotted, read_yaml, shortened, spelled
from robust_transfer.configuration.keys import Root, choices, described, is_name, known_keys, places, tags

NOWHERE = object()


def lines_of(
    errors: Sequence[ErrorDetails], merged: Mapping[str, Any], paths: Sequence[Path], root: Root = Experiment
) -> list[str]:
    """One line for each mistake that pydantic found in `merged`, which the files of `paths` make together.

    `root` is the model of what they make.
    """
    # A list whose items are wrong counts as too short besides: only the items are worth a line.
    errors = [e for e in errors if not any(o["loc"][: len(e["loc"])] == e["loc"] != o["loc"] for o in errors)]
    # Of a list that is too short, every item that it lacks is an error: the last one says how many are wanted.
    errors = [e for e in errors if not (_lacks_items(e) and any(_lacks_items(o) and _after(o, e) for o in errors))]
    absent = [str(error["loc"][0]) for error in errors if error["type"] == "missing" and len(error["loc"]) == 1]
    lines = [_incomplete(absent, paths)] if absent else []
    for error in errors:
        if error["loc"] and error["loc"][0] in absent:
            continue
        key = (*_keys(error["loc"], merged), *error.get("ctx", {}).get("within", ()))
        line = _Mistake(error, key, merged, paths, root).line()
        lines.append(f"{file_of(key or _stated_key(line), merged, paths)}: {line}")
    return lines


def file_of(key: Key, merged: Mapping[str, Any], paths: Sequence[Path]) -> str:
    """The last file that states the key, or what it lies in; `--config` if no file has the value."""
    while key and _at(merged, key) is NOWHERE:  # what lacks the key is to blame
        key = key[:-1]
    lists = [i for i, step in enumerate(key) if isinstance(step, int)]
    key = key[: lists[0]] if lists else key  # a list is stated as a whole
    contents = [(path, read_yaml(path)) for path in paths]
    for depth in range(len(key), 0, -1):
        value = _at(merged, key[:depth])
        for path, content in reversed(contents):
            found = _at(content, key[:depth])
            if found is not NOWHERE:
                return str(path) if repr(found) == repr(value) or isinstance(found, Mapping) else "--config"
    return "--config" if key else str(paths[-1] if paths else "configuration")


def after_its_file(message: str, merged: Mapping[str, Any], paths: Sequence[Path]) -> str:
    """A message that begins with a key, after the file that states the key."""
    return f"{file_of(_stated_key(message), merged, paths)}: {message}"


def _incomplete(absent: Sequence[str], paths: Sequence[Path]) -> str:
    """What to do about an experiment that lacks settings which have no default."""
    file = paths[-1] if paths else "configuration"
    return (
        f"{file}: {', '.join(absent)}: required and not there; state {'it' if len(absent) == 1 else 'them'}, or, to "
        f"state only what differs from config.yaml, write `{EXTENDS}: default`"
    )


def _stated_key(line: str) -> Key:
    """The key that a message about the whole file begins with: `grid[0].views[1] = …` is ("grid", 0, "views", 1)."""
    steps = re.findall(r"(\w+)|\[(\d+)\]", line.split(" ", 1)[0].rstrip(":"))
    return tuple(int(index) if index else name for name, index in steps)


def _lacks_items(error: ErrorDetails) -> bool:
    return error["type"] == "missing" and isinstance(error["loc"][-1], int)


def _after(one: ErrorDetails, other: ErrorDetails) -> bool:
    return one["loc"][:-1] == other["loc"][:-1] and int(one["loc"][-1]) > int(other["loc"][-1])


class _Mistake:
    """One of pydantic's errors."""

    def __init__(
        self, error: ErrorDetails, key: Key, merged: Mapping[str, Any], paths: Sequence[Path], root: Root
    ) -> None:
        self._error, self._key, self._merged, self._root = error, key, merged, root
        self._context: dict[str, Any] = error.get("ctx", {})
        self._value = self._context.get("value", error["input"])
        self._written = _written(key, merged, paths)

    def line(self) -> str:
        """Key, value and what to write."""
        name, value = dotted(self._key), self._value
        if _lacks_items(self._error):
            *_, last = self._key
            return f"{dotted(self._key[:-1])} = {_show(value)}: {len(value)} values, where {int(last) + 1} are to stand"
        if self._error["type"] == "missing":
            return f"{name}: " + "; ".join(
                filter(None, ["required and not there", described(self._key, self._merged, self._root)])
            )
        if self._error["type"] == "extra_forbidden":
            return f"{name} = {_show(value)}: unknown key; {self._known()}"
        if self._error["type"] == SWITCH and is_name(self._key, self._merged, self._root):
            return f"{name} = {self._written}: not a switch, as YAML reads it; put the name in quotes: {self._quoted}"
        shown = name if isinstance(value, dict | list | tuple) or value is None else f"{name} = {_show(value)}"
        return ": ".join(part for part in (shown, self._fix()) if part)

    @property
    def _quoted(self) -> str:
        return f'"{self._written}"'

    def _fix(self) -> str:
        kind, value = self._error["type"], self._value
        if kind == "value_error":
            return str(self._context["error"])
        if kind == "literal_error":
            options = _listed(self._context["expected"])
            bare = isinstance(value, bool) and str(self._written) in options
            return f"write it in quotes: {self._quoted}" if bare else f"write {_one_of(options, str(value))}"
        if kind == "union_tag_invalid":
            options, tag = _listed(self._context["expected_tags"]), str(self._context["tag"])
            return f"no such kind of {_kind_of(self._key)}: {tag}; write {_one_of(options, tag)}"
        if kind == "union_tag_not_found":
            return f"says no kind; write kind: {_one_of(tags(self._key, self._merged, self._root), '')}"
        return "; ".join(part for part in (self._typed(), described(self._key, self._merged, self._root)) if part)

    def _typed(self) -> str:
        """What stands where something of another type is to stand."""
        kind, value = self._error["type"], self._value
        if kind == SWITCH:
            options = choices(self._key, self._merged, self._root)
            return f"not a switch; write {_one_of(options, '')}" if options else "not a switch"
        if kind in ("tuple_type", "list_type"):
            return _as_a_list(value, self._written)
        if value is None:
            return "nothing stands there; write a value, or leave the key out"
        if kind in ("dict_type", "model_type", "model_attributes_type"):
            known = ", ".join(known_keys(self._key, self._merged, self._root))
            lines = "a dictionary of settings is to stand here; write `key: value` lines"
            return f"{lines}; known: {known}" if known else lines
        if kind == "string_type":
            simple = not isinstance(value, dict | list)
            return f"not a text; write it in quotes: {self._quoted}" if simple else "not a text but several values"
        if kind == "string_pattern_mismatch":
            pattern = self._context["pattern"]
            letters, marks = ("letters", "., _ and -") if "A-Z" in pattern else ("lower-case letters", "-")
            return f"a name has {letters}, digits, {marks}, and begins with none of these marks (pattern {pattern})"
        if kind == "string_too_long":
            return f"{len(str(value))} characters, where {self._context['max_length']} are the most"
        if kind in ("bool_parsing", "bool_type"):
            return "write true or false"
        return self._error["msg"].removeprefix("Input ").removeprefix("Value ")

    def _known(self) -> str:
        """What keys there are in place of an unknown one, or where else it stands."""
        *_, key = self._key
        known = known_keys(self._key[:-1], self._merged, self._root)
        elsewhere = places(str(key), self._root)
        near = difflib.get_close_matches(str(key), known, n=1, cutoff=0.8 if elsewhere else 0.7)
        at = _at(self._merged, self._key[:-1])
        kind = at.get("kind") if isinstance(at, Mapping) else None
        said = [f"did you mean {near[0]}?"] if near else []
        if elsewhere and not kind:
            more = f" and {len(elsewhere) - 3} more" if len(elsewhere) > 3 else ""
            said.append(f"it belongs in {', '.join(elsewhere[:3])}{more}")
        if kind:
            said.append(f"kind: {kind} has {', '.join(name for name in known if name != 'kind')}".removesuffix(" has "))
        elif not said:
            said.append(f"known here: {', '.join(known)}")
        return "; ".join(said)


def _as_a_list(value: object, written: str) -> str:
    if value is None:
        return "nothing stands there; write a list, such as [a, b], or leave the key out"
    if isinstance(value, Mapping):
        return "write a list: begin each of its items with `- `"
    return f"write a list: [{', '.join(part.strip() for part in written.split(','))}]"


def _written(key: Key, merged: Mapping[str, Any], paths: Sequence[Path]) -> str:
    """The value as its file spells it, since YAML reads `no` as false; else as Python does."""
    for path in reversed(paths):
        if str(path) == file_of(key, merged, paths) and (found := spelled(path, key)) is not None:
            return found
    return _show(_at(merged, key))


def _kind_of(key: Key) -> str:
    return {"weights": "weights", "claims": "rule"}.get(str(key[0]), "origin")


def _listed(expected: object) -> list[str]:
    return [text.strip("'") for text in str(expected).replace(" or ", ", ").split(", ")]


def _one_of(options: Sequence[str], wrong: str) -> str:
    near = difflib.get_close_matches(wrong, options, n=1)
    listed = f"{', '.join(options[:-1])} or {options[-1]}" if len(options) > 1 else options[0]
    return f"{listed} (did you mean {near[0]}?)" if near else listed


def _keys(location: Sequence[int | str], merged: Any) -> Key:
    """A location as pydantic gives it, without the tags of unions, which are no keys of the file."""
    found: list[int | str] = []
    at = merged
    for i, step in enumerate(location):
        if isinstance(at, Mapping) and step not in at and (at.get("kind") == step or step == "[key]"):
            continue
        found.append(step)
        try:
            at = at[step]
        except (KeyError, IndexError, TypeError):
            return (*found, *(later for later in location[i + 1 :] if later != "[key]"))
    return tuple(step for step in found if step != "[key]")


def _at(content: Any, key: Key) -> Any:
    for step in key:
        try:
            content = content[step]
        except (KeyError, IndexError, TypeError):
            return NOWHERE
    return content


def _show(value: Any) -> str:
    text = str(value).lower() if isinstance(value, bool) else str(value)
    if value in ("", None) or text != text.strip() or not text.isprintable():
        text = repr(value)  # it may be for a terminal, which obeys control characters
    return shortened(text)

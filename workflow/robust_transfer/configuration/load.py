"""Read an experiment from YAML files, later ones over earlier ones, and word every mistake."""

from __future__ import annotations

import difflib
import re
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from robust_transfer.configuration.experiment import Experiment

Key = tuple[int | str, ...]
NOWHERE = object()
EXTENDS = "extends"
"""Key of a file that states only what differs from others: their names."""
EXPERIMENTS = Path(__file__).parents[3] / "experiments"
"""Those that come with the software; a file extends them by name."""
DEFAULT = Path(__file__).parents[3] / "config.yaml"
"""The experiment where no file is named. `extends: default` means it, wherever the file lies that says so."""


class ConfigurationError(ValueError):
    """The configuration cannot be run; each line names a file, a key, its value and what to write instead."""


def load(paths: Sequence[Path], options: Mapping[str, Any] | None = None) -> Experiment:
    """The experiment that these files describe, and over them `options`: settings given on the command line.

    Without files it is that of config.yaml. Mappings merge; later lists and values replace earlier ones. A file that
    `extends` others comes after them. With another source, title and notice of config.yaml are let go: they speak of
    its images.
    """
    found: dict[str, Any] = {}
    paths = extended(paths or [DEFAULT])
    texts = {key: value for key, value in read_yaml(DEFAULT).items() if key in ("title", "notice")}
    for content in (*(read_yaml(path) for path in paths), options or {}):
        if content.get("source") not in (None, found.get("source")):
            found = {key: value for key, value in found.items() if key not in texts or value != texts[key]}
        merge(found, {key: value for key, value in content.items() if key != EXTENDS})
    return validate(found, paths)


def extended(paths: Sequence[Path], above: tuple[Path, ...] = ()) -> list[Path]:
    """The files, each after those that it names under `extends` (relative to itself), and each once.

    `default` among those names is the repository's config.yaml, which lies below all other files, and another name
    without a suffix is a file of its experiments/. Raises ConfigurationError for files that extend each other in a
    circle, and for a name that is none.
    """
    found: list[Path] = []
    for path in paths:
        if path in above:
            raise ConfigurationError(f"{path}: extends itself, by way of {' and '.join(map(str, above))}")
        named = read_yaml(path).get(EXTENDS, [])
        bases = [named] if isinstance(named, str) else named
        if not isinstance(bases, list) or not all(isinstance(base, str) for base in bases):
            raise ConfigurationError(f"{path}: {EXTENDS} = {named}: write the name of a file, or a list of names")
        found += extended([_base(base, path) for base in bases], (*above, path))
        found.append(path)
    return sorted(dict.fromkeys(found), key=lambda path: path != DEFAULT)


def _base(name: str, path: Path) -> Path:
    """The file that `name` means under `extends` of the file `path`."""
    if name == "default":
        return DEFAULT
    if Path(name).suffix or "/" in name or (path.parent / name).exists():
        return path.parent / name
    shipped = {one.stem: one for one in sorted(EXPERIMENTS.glob("*.yaml"))}
    if name not in shipped:
        raise ConfigurationError(
            f"{path}: {EXTENDS} = {name}: no experiment of that name; write {_one_of(['default', *shipped], name)}, or "
            "the name of a file with its suffix"
        )
    return shipped[name]


def merge(base: dict[str, Any], over: Mapping[str, Any]) -> None:
    """Lay `over` on `base`, in place. A mapping of another `kind` (an origin) or `recipe` replaces what was there."""
    for key, value in over.items():
        before = base.get(key)
        if isinstance(value, Mapping) and isinstance(before, dict) and _of_one_kind(before, value):
            merge(before, value)
        else:
            base[key] = value


def _of_one_kind(before: Mapping[str, Any], value: Mapping[str, Any]) -> bool:
    return all(value.get(name) in (None, before.get(name)) for name in ("kind", "recipe"))


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file that holds a mapping; raises ConfigurationError for anything else."""
    try:
        content = yaml.safe_load(path.read_text())
    except FileNotFoundError:
        raise ConfigurationError(f"{path}: no such file") from None
    except yaml.YAMLError as error:
        raise ConfigurationError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigurationError(f"{path}: holds a {type(content).__name__}, not settings; write `key: value` lines")
    return content


def validate(configuration: Mapping[str, Any], paths: Sequence[Path] = ()) -> Experiment:
    """Validate a merged configuration; `paths` are the files it came from, for the messages."""
    try:
        return Experiment.model_validate(configuration)
    except ValidationError as error:
        raise ConfigurationError("\n".join(_lines(error.errors(), configuration, paths))) from None


def _lines(errors: Sequence[ErrorDetails], merged: Mapping[str, Any], paths: Sequence[Path]) -> list[str]:
    # A list whose items are wrong counts as too short besides: only the items are worth a line.
    errors = [e for e in errors if not any(o["loc"][: len(e["loc"])] == e["loc"] != o["loc"] for o in errors)]
    absent = [str(error["loc"][0]) for error in errors if error["type"] == "missing" and len(error["loc"]) == 1]
    lines = [_incomplete(absent, paths)] if absent else []
    for error in errors:
        if error["loc"] and error["loc"][0] in absent:
            continue
        key = _keys(error["loc"], merged)
        line = _line(error, key)
        lines.append(f"{_file_of(key or _stated_key(line), merged, paths)}: {line}")
    return lines


def _incomplete(absent: Sequence[str], paths: Sequence[Path]) -> str:
    """What to do about an experiment that lacks settings which have no default."""
    file = paths[-1] if paths else "configuration"
    return (
        f"{file}: {', '.join(absent)}: required and not there; state {'it' if len(absent) == 1 else 'them'}, or, to "
        f"state only what differs from {DEFAULT.name}, write `{EXTENDS}: default`"
    )


def _stated_key(line: str) -> Key:
    """The key that a message about the whole file begins with: `grid[0].views[1] = …` is ("grid", 0, "views", 1)."""
    steps = re.findall(r"(\w+)|\[(\d+)\]", line.split(" ", 1)[0].rstrip(":"))
    return tuple(int(index) if index else name for name, index in steps)


def _line(error: ErrorDetails, key: Key) -> str:
    value = error["input"]
    name = _dotted(key)
    if error["type"] == "missing":
        return f"{name}: " + "; ".join(filter(None, ["required and not there", _describe(key)]))
    if error["type"] == "extra_forbidden":
        return f"{name} = {_show(value)}: unknown key; {_known_keys(key)}"
    shown = name if isinstance(value, dict | list | tuple) or value is None else f"{name} = {_show(value)}"
    return ": ".join(part for part in (shown, _mend(error, key)) if part)


def _mend(error: ErrorDetails, key: Key) -> str:
    context = error.get("ctx", {})
    if error["type"] == "value_error":
        return str(context["error"])
    if error["type"] == "literal_error":
        options = [text.strip("'") for text in str(context["expected"]).replace(" or ", ", ").split(", ")]
        return f"write {_one_of(options, str(error['input']))}"
    if error["type"] == "union_tag_invalid":
        options = [text.strip("'") for text in str(context["expected_tags"]).split(", ")]
        return f"no such kind of origin: {context['tag']}; write {_one_of(options, str(context['tag']))}"
    if error["type"] == "union_tag_not_found":
        return "says no kind; write kind: catalogue, folder, parquet, torchvision or shapes"
    message = error["msg"].removeprefix("Input ").removeprefix("Value ")
    return "; ".join(part for part in (message, _describe(key)) if part)


def _one_of(options: Sequence[str], wrong: str) -> str:
    near = difflib.get_close_matches(wrong, options, n=1)
    listed = f"{', '.join(options[:-1])} or {options[-1]}" if len(options) > 1 else options[0]
    return f"{listed} (did you mean {near[0]}?)" if near else listed


def _known_keys(key: Key) -> str:
    model = _model_at(key[:-1])
    known = list(model.model_fields) if model else []
    near = difflib.get_close_matches(str(key[-1]), known, n=1)
    return f"did you mean {near[0]}?" if near else f"known here: {', '.join(known)}"


def _describe(key: Key) -> str:
    model = _model_at(key[:-1])
    field = model.model_fields.get(str(key[-1])) if model and key else None
    return (field.description or "").strip() if field else ""


def _model_at(key: Key) -> type[BaseModel] | None:
    """The model that validates what stands at `key`; the first of a union that has the next key."""
    candidates: list[Any] = [Experiment]
    for step in key:
        reached: list[Any] = []
        for candidate in candidates:
            if isinstance(candidate, type) and issubclass(candidate, BaseModel):
                field = candidate.model_fields.get(str(step))
                reached += _alternatives(field.annotation) if field else []
            else:
                reached += _alternatives(typing.get_args(candidate)[-1 if typing.get_origin(candidate) is dict else 0])
        candidates = reached
    models = [c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)]
    return models[0] if models else None


def _alternatives(annotation: Any) -> list[Any]:
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        return _alternatives(typing.get_args(annotation)[0])
    if origin in (typing.Union, types.UnionType):
        return [found for part in typing.get_args(annotation) for found in _alternatives(part)]
    return [annotation]


def _keys(location: Sequence[int | str], merged: Any) -> Key:
    """A location as pydantic gives it, without the tags of unions, which are no keys of the file."""
    found: list[int | str] = []
    at = merged
    for i, step in enumerate(location):
        if isinstance(at, Mapping) and step not in at and at.get("kind") == step:
            continue
        found.append(step)
        try:
            at = at[step]
        except (KeyError, IndexError, TypeError):
            return (*found, *location[i + 1 :])
    return tuple(found)


def _file_of(key: Key, merged: Mapping[str, Any], paths: Sequence[Path]) -> str:
    """The last file that states the key, or its nearest enclosing one; `--config` if no file has the value."""
    contents = [(path, read_yaml(path)) for path in paths]
    for depth in range(len(key), 0, -1):
        value = _at(merged, key[:depth])
        for path, content in reversed(contents):
            found = _at(content, key[:depth])
            if found is not NOWHERE:
                return str(path) if repr(found) == repr(value) or isinstance(found, Mapping) else "--config"
    return "--config" if key and _at(merged, key[:1]) is not NOWHERE else str(paths[-1] if paths else "configuration")


def _at(content: Any, key: Key) -> Any:
    for step in key:
        try:
            content = content[step]
        except (KeyError, IndexError, TypeError):
            return NOWHERE
    return content


def _dotted(key: Key) -> str:
    text = ""
    for step in key:
        text += f"[{step}]" if isinstance(step, int) and not isinstance(step, bool) else f".{step}"
    return text.lstrip(".")


def _show(value: Any) -> str:
    text = str(value).lower() if isinstance(value, bool) else repr(value) if value in ("", None) else str(value)
    return text if len(text) <= 60 else f"{text[:57]}…"

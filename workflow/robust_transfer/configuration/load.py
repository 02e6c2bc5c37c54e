"""Read an experiment from YAML files, later ones over earlier ones, and validate it."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from robust_transfer.configuration.experiment import Experiment
from robust_transfer.configuration.files import DEFAULT, EXTENDS, ConfigurationError, extended, read_yaml
from robust_transfer.configuration.mistakes import after_its_file, lines_of

__all__ = ["DEFAULT", "ConfigurationError", "load", "merge", "validate"]


ABOUT_THE_SOURCE = ("title", "notice", "cue_conflict")
"""Keys of config.yaml that make no sense with another source."""


def load(paths: Sequence[Path], options: Mapping[str, Any] | None = None) -> Experiment:
    """The experiment that these files describe, and over them `options`: settings given on the command line.

    Without files it is that of config.yaml. Mappings merge; later lists and values replace earlier ones. A file that
    `extends` others comes after them. With another source, title, notice and conflict images of config.yaml are let
    go: they are about its images.
    """
    found: dict[str, Any] = {}
    paths = extended(paths or [DEFAULT])
    texts = {key: value for key, value in read_yaml(DEFAULT).items() if key in ABOUT_THE_SOURCE}
    for content in (*(read_yaml(path) for path in paths), options or {}):
        if _has_another_source(found, content):
            found = {key: value for key, value in found.items() if key not in texts or value != texts[key]}
        merge(found, {key: _unshared(value) for key, value in content.items() if key != EXTENDS})
    return validate(found, paths)


def _has_another_source(found: Mapping[str, Any], content: Mapping[str, Any]) -> bool:
    """A file states another source than those before it, or images of another kind for the same."""
    name = found.get("source")
    if content.get("source") not in (None, name):
        return True
    if not isinstance(name, str):
        return False
    kinds = [_kind_of_origin(one, name) for one in (found, content)]
    return None not in kinds and kinds[0] != kinds[1]


def _kind_of_origin(content: Mapping[str, Any], dataset: str) -> Any:
    """The kind of a dataset's origin, where this content states one."""
    for key in ("datasets", dataset, "origin", "kind"):
        found = content.get(key) if isinstance(content, Mapping) else None
        if found is None:
            return None
        content = found
    return content


def merge(base: dict[str, Any], over: Mapping[str, Any]) -> None:
    """Lay `over` on `base`, in place. A mapping of another `kind` (an origin) or `recipe` replaces what was there."""
    for key, value in over.items():
        before = base.get(key)
        if isinstance(value, Mapping) and isinstance(before, dict) and _of_one_kind(before, value):
            merge(before, value)
        else:
            base[key] = value


def _unshared(value: Any) -> Any:
    """The value with a copy of its own of everything that YAML's aliases share: merging changes mappings in place."""
    if isinstance(value, Mapping):
        return {key: _unshared(item) for key, item in value.items()}
    return [_unshared(item) for item in value] if isinstance(value, list) else value


def _of_one_kind(before: Mapping[str, Any], value: Mapping[str, Any]) -> bool:
    return all(value.get(name) in (None, before.get(name)) for name in ("kind", "recipe"))


def validate(configuration: Mapping[str, Any], paths: Sequence[Path] = ()) -> Experiment:
    """Validate a merged configuration; `paths` are the files it came from, for the messages."""
    try:
        experiment = Experiment.model_validate(configuration)
    except ValidationError as error:
        raise ConfigurationError("\n".join(lines_of(error.errors(), configuration, paths))) from None
    if paths:
        experiment.name_files_by(functools.partial(after_its_file, merged=configuration, paths=paths))
    return experiment

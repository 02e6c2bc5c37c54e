"""Look up keys in the configuration's models: what stands at one, what it means, and where else one of its name is."""

from __future__ import annotations

import functools
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from pydantic import BaseModel, BeforeValidator

from robust_transfer.configuration.experiment import Experiment
from robust_transfer.configuration.files import Key, dotted

Root = type[BaseModel]
"""The model of a whole file: an experiment, unless another is named."""


def known_keys(key: Key, merged: Any, root: Root = Experiment) -> list[str]:
    """The keys of the mapping at `key`; none if names of the user's stand there."""
    model = _model_at(key, merged, root)
    return list(model.model_fields) if model else []


def described(key: Key, merged: Any, root: Root = Experiment) -> str:
    """What the key means; empty if it is in no model or says nothing."""
    model = _model_at(key[:-1], merged, root) if key else None
    field = model.model_fields.get(str(key[-1])) if model else None
    return (field.description or "").strip() if field else ""


def tags(key: Key, merged: Any, root: Root = Experiment) -> list[str]:
    """The kinds that what stands at `key` can have."""
    return [tag for model in _models_at(key, merged, root) if (tag := _tag(model))]


def is_name(key: Key, merged: Any, root: Root = Experiment) -> bool:
    """Whether any text may stand at `key`, or in the list there."""
    owner = key
    while owner and isinstance(owner[-1], int):
        owner = owner[:-1]
    model = _model_at(owner[:-1], merged, root) if owner else None
    field = model.model_fields.get(str(owner[-1])) if model else None
    return (
        field is not None
        and not any(isinstance(one, BeforeValidator) for one in field.metadata)
        and (_has_text(field.annotation))
    )


def choices(key: Key, merged: Any, root: Root = Experiment) -> list[str]:
    """The texts of which one is to stand at `key`, or in the list there; none if others may stand there too."""
    model = _model_at(key[:-1], merged, root) if key else None
    field = model.model_fields.get(str(key[-1])) if model else None
    found = _alternatives(field.annotation) if field else []
    return [str(one) for one in typing.get_args(found[0])] if found and typing.get_origin(found[0]) is Literal else []


@functools.cache
def places(name: str, root: Root = Experiment) -> tuple[str, ...]:
    """Where keys of that name stand, as `grid[…].seeds`, those nearest to the top first."""
    found = [dotted(key) for key in _all_keys(root, ()) if key[-1] == name]
    return tuple(sorted(dict.fromkeys(found), key=lambda place: place.count(".")))


def _all_keys(model: type[BaseModel], above: Key) -> Iterator[Key]:
    for name, field in model.model_fields.items():
        yield (*above, name)
        for part, step in _parts(field.annotation):
            if isinstance(part, type) and issubclass(part, BaseModel):
                yield from _all_keys(part, (*above, f"{name}{step}"))


def _parts(annotation: Any) -> Iterator[tuple[Any, str]]:
    """The types that may stand at a key, or in the list or dictionary there, and how a message writes the step."""
    for one in _alternatives(annotation):
        origin = typing.get_origin(one)
        if origin in (tuple, dict):
            step = "[…]" if origin is tuple else ".<name>"
            yield from ((part, step) for part in _alternatives(typing.get_args(one)[-1 if origin is dict else 0]))
        else:
            yield one, ""


def _has_text(annotation: Any) -> bool:
    if typing.get_origin(annotation) is typing.Annotated:
        inner, *metadata = typing.get_args(annotation)
        return not any(isinstance(one, BeforeValidator) for one in metadata) and _has_text(inner)
    if typing.get_origin(annotation) in (tuple, typing.Union, types.UnionType):
        return any(_has_text(part) for part in typing.get_args(annotation))
    return annotation is str


def _model_at(key: Key, merged: Any, root: Root) -> type[BaseModel] | None:
    """The model that validates what stands at `key`: of several kinds, that which `merged` names there."""
    models = _models_at(key, merged, root)
    return models[0] if models else None


def _models_at(key: Key, merged: Any, root: Root) -> list[type[BaseModel]]:
    candidates: list[Any] = [root]
    at = merged
    for step in key:
        reached: list[Any] = []
        for candidate in _of_the_kind(candidates, at):
            if isinstance(candidate, type) and issubclass(candidate, BaseModel):
                field = candidate.model_fields.get(str(step))
                reached += _alternatives(field.annotation) if field else []
            elif parts := typing.get_args(candidate):
                reached += _alternatives(parts[-1 if typing.get_origin(candidate) is dict else 0])
        candidates = reached
        try:
            at = at[step]
        except (KeyError, IndexError, TypeError):
            at = None
    models = [one for one in candidates if isinstance(one, type) and issubclass(one, BaseModel)]
    return _of_the_kind(models, at)


def _of_the_kind(candidates: list[Any], at: Any) -> list[Any]:
    kind = at.get("kind") if isinstance(at, Mapping) else None
    chosen = [one for one in candidates if kind is not None and _tag(one) == kind]
    return chosen or candidates


def _tag(model: Any) -> str | None:
    field = model.model_fields.get("kind") if isinstance(model, type) and issubclass(model, BaseModel) else None
    return str(typing.get_args(field.annotation)[0]) if field else None


def _alternatives(annotation: Any) -> list[Any]:
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        return _alternatives(typing.get_args(annotation)[0])
    if origin in (typing.Union, types.UnionType):
        return [found for part in typing.get_args(annotation) for found in _alternatives(part)]
    return [annotation]

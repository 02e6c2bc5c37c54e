"""What differs between the configurations of two experiments."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import zip_longest
from typing import Any

from robust_transfer.configuration.experiment import Experiment

LEFT_OUT = {"experiment", "title", "notice", "store", "results", "running"}
"""Names, texts and places, and how jobs run: they change no number."""
NOT_SET = "not set"


def differing(first: Experiment, second: Experiment) -> Iterator[tuple[str, str, str]]:
    """Settings that differ, each with its value in both, as texts; defaults count as stated."""
    one, other = (experiment.model_dump(mode="json", exclude=LEFT_OUT) for experiment in (first, second))
    yield from _differing(one, other, "")


def _differing(one: Any, other: Any, key: str) -> Iterator[tuple[str, str, str]]:
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        for name in dict.fromkeys([*one, *other]):
            yield from _differing(one.get(name, NOT_SET), other.get(name, NOT_SET), f"{key}.{name}" if key else name)
    elif isinstance(one, list) and isinstance(other, list) and key == "grid":
        for i, (part, another) in enumerate(zip_longest(one, other, fillvalue=NOT_SET)):
            yield from _differing(part, another, f"{key}[{i}]")
    elif one != other:
        yield key, _text(one), _text(other)


def _text(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_text, value))}]"
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{name}: {_text(one)}' for name, one in value.items())}}}"
    return NOT_SET if value is None else str(value).lower() if isinstance(value, bool) else str(value)

"""What every configuration model shares: unknown keys refused, values frozen, one identity for the hash."""

from __future__ import annotations

import functools
import unicodedata
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from pydantic.config import JsonDict
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError

# How a setting enters the hash of the entry it belongs to (DESIGN 11). Without a mark it is left out while it stands
# at its default, so that adding a setting re-keys nothing.
ALWAYS: JsonDict = {
    "identity": "always"
}  # changes the mathematics (precision, augmentation, BatchNorm group): always explicit
NEVER: JsonDict = {"identity": "never"}  # changes speed or rounding only (workers, device): never part of it

SWITCH = "switch"
"""Type of the error where true or false stands and no switch is meant."""

LARGEST = 2**31 - 1
"""Largest whole number: seeds and counts are int32 in the tables of results."""
LARGEST_SEED = 2**64 - 1
"""Largest seed of a dataset, which stands in no table."""

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=80)]
"""Names of folders are made of it, with others beside it, in at most 255 bytes. No description here: it would take the
place of those that keys have."""


def _one_line(text: str) -> str:
    """Refuse control characters, which figures cannot draw and terminals obey; any white space is a space."""
    line = " ".join(text.split())
    strange = [letter for letter in line if unicodedata.category(letter) in ("Cc", "Cs")]
    if strange:
        raise ValueError(f"has the control character {strange[0]!r}; write text alone")
    return line


Line = Annotated[str, AfterValidator(_one_line)]
"""Text that is shown in one line: in figures, tables and headings."""


class Model(BaseModel):
    """A frozen model that refuses unknown keys and converts nothing silently that it does not document."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, validate_default=True, allow_inf_nan=False
    )

    @functools.cached_property
    def identity(self) -> dict[str, Any]:
        """What `identity` says, found out once: thousands of entries share their settings."""
        return identity(self)

    @model_validator(mode="before")
    @classmethod
    def _switches_are_not_numbers(cls, data: Any) -> Any:
        """YAML's true and yes would pass for 1 and "True": refuse them where no switch is meant, in lists too."""
        for name, field in cls.model_fields.items() if isinstance(data, dict) else ():
            if field.annotation is not bool:
                _check_plain(data.get(name), (name,))
        return data


def _check_plain(value: Any, within: tuple[int | str, ...]) -> None:
    where = {"within": within, "value": value}
    if isinstance(value, bool):
        raise PydanticCustomError(SWITCH, "not a switch", where)
    limit = LARGEST_SEED if within[-1:] == ("seed",) else LARGEST
    if isinstance(value, int) and abs(value) > limit:
        raise PydanticCustomError("too_large", f"no whole number here goes beyond {limit}", where)
    for i, item in enumerate(value if isinstance(value, list | tuple) else ()):
        _check_plain(item, (*within, i))


def identity(model: BaseModel) -> dict[str, Any]:
    """The part of a model that the hash covers: everything but defaults, and what is marked ALWAYS or NEVER."""
    found = {}
    for name, field in type(model).model_fields.items():
        mark = _mark(field)
        value = getattr(model, name)
        if mark == "never" or (mark != "always" and not field.is_required() and value == field.get_default()):
            continue
        found[name] = _plain(value)
    return found


def kept(model: BaseModel) -> dict[str, Any]:
    """All settings as JSON values, defaults spelled out, without those marked NEVER: what `entry.json` keeps."""
    dumped = model.model_dump(mode="json")
    return {name: dumped[name] for name, field in type(model).model_fields.items() if _mark(field) != "never"}


def _mark(field: FieldInfo) -> str:
    extra = field.json_schema_extra
    return str(extra.get("identity", "")) if isinstance(extra, dict) else ""


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return identity(value)
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value

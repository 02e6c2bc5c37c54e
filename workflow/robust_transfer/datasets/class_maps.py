"""Which class of one dataset is which of another, by name: by a map, or the same names."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence

LEFT_OUT = -1
SHOWN = 10
"""Names that a message lists."""


class ClassMapError(ValueError):
    """Classes that do not match; the message names them and what to write."""


def class_numbers(
    known: Sequence[str], targets: Sequence[str], classes: Mapping[str, str] | None, *, dataset: str, target: str
) -> list[int]:
    """The number among a target's classes of each class of another dataset; `LEFT_OUT` where it is none of them.

    Args:
        known: The dataset's classes.
        targets: The target's.
        classes: Dataset's class to target's class; None: all classes of the dataset are the target's, by name.
        dataset: Name of the dataset, for messages.
        target: Name of the target.

    Raises ClassMapError that names every class which does not match.
    """
    if wrong := [*_mistakes(known, targets, classes, dataset, target)]:
        raise ClassMapError(f"also_test_on.{target}, {dataset}: {'; '.join(wrong)}")
    number = {name: place for place, name in enumerate(targets)}
    same = {name: name for name in known} if classes is None else classes
    return [number[same[name]] if name in same else LEFT_OUT for name in known]


def _mistakes(
    known: Sequence[str], targets: Sequence[str], classes: Mapping[str, str] | None, dataset: str, target: str
) -> Iterator[str]:
    if classes is None:
        if lacks := [name for name in known if name not in set(targets)]:
            yield (
                f"{len(lacks)} of {len(known)} classes are none of {target}: {_listed(lacks)}; name those that are the "
                f"same in `classes`, {dataset}'s name to {target}'s, and leave out the others"
            )
        return
    for name in classes:
        if name not in known:
            yield f"classes.{name}: no class of {dataset}, {_near(name, known)}"
    for name in dict.fromkeys(classes.values()):
        if name not in targets:
            yield f"classes: {name}: no class of {target}, {_near(name, targets)}"


def _near(wrong: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(wrong, known, n=1)
    return f"did you mean {near[0]}?" if near else f"which has {_listed(known)}"


def _listed(names: Sequence[str]) -> str:
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")

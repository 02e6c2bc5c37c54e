"""Which outputs of a network stand for the classes of cue-conflict images. No torch: planning asks this too."""

from __future__ import annotations

from collections.abc import Sequence

from robust_transfer.configuration.catalogue.imagenet16 import imagenet16


def outputs_by_class(known: Sequence[str], classes: Sequence[str]) -> dict[str, list[int]]:
    """The outputs that stand for each class, of a network whose outputs are called `known`; classes without any lack.

    An output of the class's own name stands for it; without one, those with the WordNet ids that the published mapping
    has for it, as far as they are there.
    """
    place = {name: output for output, name in enumerate(known)}
    found = {}
    for name in classes:
        wanted = (name,) if name in place else imagenet16().get(name, ())
        if outputs := [place[one] for one in wanted if one in place]:
            found[name] = outputs
    return found

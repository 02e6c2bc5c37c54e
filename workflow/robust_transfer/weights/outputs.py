"""Which output of a network stands for which class of a dataset. No torch: planning asks this too."""

from __future__ import annotations

from collections.abc import Sequence

from robust_transfer.configuration.catalogue.imagenet import imagenet_classes


def class_names(classes_n: int) -> list[str]:
    """Names of the outputs: of a thousand ImageNet's WordNet numbers in their order, of others their numbers."""
    return list(imagenet_classes()) if classes_n == len(imagenet_classes()) else [str(i) for i in range(classes_n)]


def outputs_for(known: Sequence[str], classes: Sequence[str], *, imported: bool) -> list[int] | None:
    """The output that stands for each of a dataset's `classes`, of a network whose outputs are called `known`.

    A network that was trained here has the dataset's classes. An imported one may have more, of which the dataset holds
    some, by name; where the dataset calls all of them otherwise, their order counts if they are as many. None for
    anything else: the network was trained on other classes.
    """
    if list(known) == list(classes):
        return list(range(len(known)))
    if not imported:
        return None
    if {*classes} < {*known}:
        return [known.index(name) for name in classes]
    if len(known) == len(classes) and not {*known} & {*classes}:
        return list(range(len(known)))
    return None


def other_classes(network: str, outputs: int, source: str, classes: int) -> str:
    """The message for a network with so many outputs that was trained on other classes than those of `source`."""
    text = (
        f"{network}: its {outputs} outputs are not the {classes} classes of {source}"
        f"{', or not in their order' if outputs == classes else ''}; a backbone is evaluated on the "
        "dataset it was trained on: name that one as source"
    )
    if outputs == len(imagenet_classes()):
        text += ". ImageNet's classes are `source: imagenet`, with `origin: {kind: catalogue, dataset: imagenet}`"
    return (
        f"{text}. Where its images are not at hand, `missing: drop` leaves the evaluation out and transfers all the "
        "same, as in experiments/own-network.yaml"
    )

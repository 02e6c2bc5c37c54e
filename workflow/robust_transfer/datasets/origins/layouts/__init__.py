"""Files of datasets as their owners lay them out: each layout is a function from a folder to a Collection.

The catalogue names these functions and their options. `lists` has what they share; images are not read here, and no
module of this package imports torch.
"""

from __future__ import annotations

from collections.abc import Callable

from robust_transfer.datasets.collection import Collection
from robust_transfer.datasets.origins.layouts.annotated import (
    aircraft,
    birdsnap,
    cars,
    dtd,
    flowers,
    food,
    pets,
    sun397,
)
from robust_transfer.datasets.origins.layouts.caltech import caltech
from robust_transfer.datasets.origins.layouts.cifar import cifar
from robust_transfer.datasets.origins.layouts.imagenet import imagenet
from robust_transfer.datasets.origins.layouts.paintings import paintings

LAYOUTS: dict[str, Callable[..., Collection]] = {
    function.__name__: function
    for function in (aircraft, birdsnap, caltech, cars, cifar, dtd, flowers, food, imagenet, paintings, pets, sun397)
}
"""By the name that the catalogue uses. Called with the folder, `incomplete` (bool) and the catalogue's options."""

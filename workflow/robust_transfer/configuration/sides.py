"""Which sides of images networks take, by family: data, so that a configuration is checked without building one."""

from __future__ import annotations

# Smallest and largest side of the images that networks take, by what their names begin with; others take every side
# that a configuration may state. A test holds this equal to what the networks do on the meta device.
SIDES: dict[str, tuple[int, int | None]] = {
    "alexnet": (63, None),
    "convnext": (32, None),
    "densenet": (29, None),
    "inception_v3": (75, None),
    "maxvit": (221, 224),
    "vgg": (32, None),
    "vit": (224, 224),
}


def check_side(architecture: str, side: int) -> None:
    """Raise ValueError, with the sides that do, for a network that cannot take images of `side` pixels.

    Networks of timm are not known here; they have to be built.
    """
    least, most = next((sides for family, sides in SIDES.items() if architecture.startswith(family)), (1, None))
    if side < least or (most is not None and side > most):
        takes = f"at least {least} px" if most is None else f"{least} px" if least == most else f"{least} to {most} px"
        raise ValueError(f"{architecture} takes images of {takes}, and not of {side}")

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
}
PATCHES: dict[str, int] = {"vit_b_16": 16, "vit_b_32": 32, "vit_h_14": 14, "vit_l_16": 16, "vit_l_32": 32}
"""Side of the patches that torchvision's ViTs cut images into. They are built for one side, a multiple of it."""


def check_side(architecture: str, side: int, built_for: int | None = None) -> None:
    """Raise ValueError, with the sides that do, for a network that cannot take images of `side` pixels.

    `built_for` is the side that the network is built for, where it is another: ViTs take no other. Networks of timm are
    not known here; they have to be built.
    """
    if patch := PATCHES.get(architecture):
        if side % patch:
            down, up = max(side - side % patch, patch), side - side % patch + patch
            nearest = f"{down} or {up}" if down < up else str(up)
            raise ValueError(
                f"{architecture} cuts images into patches of {patch} px, and {side} is no multiple of that: take "
                f"{nearest}"
            )
        if built_for not in (None, side):
            raise ValueError(f"{architecture} is built for images of {built_for} px, and takes none of {side}")
        return
    least, most = next((sides for family, sides in SIDES.items() if architecture.startswith(family)), (1, None))
    if side < least or (most is not None and side > most):
        takes = f"at least {least} px" if most is None else f"{least} px" if least == most else f"{least} to {most} px"
        raise ValueError(f"{architecture} takes images of {takes}, and not of {side}")

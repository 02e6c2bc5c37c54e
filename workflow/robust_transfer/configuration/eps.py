"""The radius of a threat model, made canonical: 0.1, 0.10 and 1e-1 are one eps, and so one backbone."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from typing import Annotated

from pydantic import BeforeValidator, WithJsonSchema

FIX = (
    "an eps is 0 (standard training) or a positive radius in [0, 1] pixel units, "
    "written as a decimal (0.25) or, for norm linf, as a fraction of 255 (4/255)"
)
SMALLEST, LARGEST = Decimal("0.000001"), Decimal(10_000)
"""Radii above 0, in [0, 1] pixel units or, of a fraction, in its numerator."""
DIGITS = 24
"""Characters of a decimal: the 17 digits of a float, point and zeros before them."""


def canonical_eps(value: object) -> str:
    """The one spelling of an eps: a plain decimal without trailing zeros, or `<decimal>/255`.

    Raises ValueError, with the fix, for anything that is not a finite radius of at least 0.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(FIX)
    text = str(value).strip().replace(" ", "")
    number, slash, denominator = text.partition("/")
    if slash and denominator != "255":
        raise ValueError(FIX)
    try:
        radius = Decimal(number)
    except InvalidOperation:
        raise ValueError(FIX) from None
    if not radius.is_finite() or radius < 0:
        raise ValueError(FIX)
    if radius == 0:
        return "0"
    if not SMALLEST <= radius <= LARGEST:
        raise ValueError(
            f"an eps above 0 lies between {SMALLEST} and {LARGEST}: images of 1024 px differ by 1774 at most"
        )
    plain = format(radius.normalize(), "f")
    if len(plain) > DIGITS:
        raise ValueError(f"more digits than a number has in a computer; round it, to {float(radius):.6g} for instance")
    return f"{plain}/255" if slash else plain


def eps_value(eps: str) -> float:
    """The radius as a float, in [0, 1] pixel units."""
    number, slash, _ = eps.partition("/")
    return float(number) / 255 if slash else float(number)


def eps_name(eps: str) -> str:
    """The eps as it stands in names of entries: `eps3`, `eps0.25`, `eps4of255`."""
    return "eps" + eps.replace("/", "of")


Eps = Annotated[
    str,
    BeforeValidator(canonical_eps),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "number", "minimum": 0},
                {"type": "string", "pattern": r"^[0-9.eE+-]+(/255)?$"},
            ],
            "description": "Radius in [0, 1] pixel units at the network's input size; 0 is standard training. "
            "For norm linf also a fraction of 255, such as 4/255.",
        }
    ),
]

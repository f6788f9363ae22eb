"""A TIFF's resolution and magnification as OpenSlide reports them."""

import re
from typing import Any, Final

from crane_ray.slides.tiff.errors import StepAsideError

_DESCRIPTION, _X_RESOLUTION, _Y_RESOLUTION, _UNIT = 270, 282, 283, 296
_UM_PER_UNIT: Final = {2: 25_400.0, 3: 10_000.0}
"""Of an inch and a centimetre; other units give no scale."""

_PLAIN_NUMBER: Final = re.compile(r"[+-]?(\d+[.,]?\d*|[.,]\d+)")


def generic_scale(tags: dict[int, Any]) -> tuple[float, float] | None:
    """Level-0 um/px along x and y from the resolution tags of the first image; None without.

    Raises:
        StepAsideError: resolutions of nothing, or without their unit.
    """
    if _X_RESOLUTION not in tags or _Y_RESOLUTION not in tags:
        return None
    if _UNIT not in tags:
        raise StepAsideError("its resolution has no unit")
    um = _UM_PER_UNIT.get(int(tags[_UNIT]))
    if um is None:
        return None
    x, y = (_um_per_px(um, tags[code]) for code in (_X_RESOLUTION, _Y_RESOLUTION))
    return x, y


def _um_per_px(um: float, resolution: tuple[int, int]) -> float:
    numerator, denominator = resolution
    if not numerator or not denominator:
        raise StepAsideError(f"its resolution is {numerator}/{denominator}")
    return um / (numerator / denominator)


def aperio_scale(tags: dict[int, Any]) -> tuple[tuple[float, float] | None, float | None]:
    """Level-0 um/px and objective power from the fields of Aperio's ImageDescription.

    Raises:
        StepAsideError: a field is there but no plain number.
    """
    fields: dict[str, str] = {}
    for part in str(tags[_DESCRIPTION]).split("|")[1:]:
        name, equals, value = part.partition("=")
        if not equals:
            raise StepAsideError(f"a field of its description has no value: {part[:40]!r}")
        fields[name.strip()] = value.strip()
    mpp, power = _number(fields, "MPP"), _number(fields, "AppMag")
    return (None if mpp is None else (mpp, mpp)), power


def _number(fields: dict[str, str], name: str) -> float | None:
    text = fields.get(name, "")
    if not text:
        return None
    if not _PLAIN_NUMBER.fullmatch(text):
        raise StepAsideError(f"{name} in its description is {text[:40]!r}, no plain number")
    return float(text.replace(",", "."))

"""Params, values and times of a search in few words, the same on a page and on a screen."""

import json
import math
from collections.abc import Iterable, Sequence
from typing import Any


def is_number(value: Any) -> bool:
    """True for finite numbers that a float can hold; a bool is none."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    try:
        return math.isfinite(float(value))
    except OverflowError:
        return False


def key_of(value: Any) -> str:
    """A value as JSON: equal for equal values of one type only."""
    return json.dumps(value, ensure_ascii=False)


def short_names(paths: Sequence[str], *, taken: Iterable[str] = ()) -> dict[str, str]:
    """The shortest ends of dotted paths that are no other's, nor taken; else the whole path.

    Ends have two parts at least: ``name`` alone does not say of what.
    """
    parts = {path: path.split(".") for path in paths}
    ends = {
        path: [".".join(of[-n:]) for n in range(min(2, len(of)), len(of) + 1)]
        for path, of in parts.items()
    }
    spoken = list(taken)
    counts: dict[str, int] = {}
    for path in paths:
        for end in ends[path]:
            counts[end] = counts.get(end, 0) + 1
    return {
        path: next(
            (end for end in ends[path] if counts[end] == 1 and end not in spoken),
            f"{path} (param)" if path in spoken else path,
        )
        for path in paths
    }


def number_text(value: float) -> str:
    """Four digits of a number; whole numbers whole: ``0.25``, ``3e-4``, ``12000``."""
    if isinstance(value, int) and abs(value) < 10**9:
        return str(value)
    if not math.isfinite(value):
        return str(value)
    if value == 0 or 1e-3 <= abs(value) < 1e5:
        rounded = f"{value:.4g}"
        return f"{value:.0f}" if "e" in rounded else rounded
    mantissa, _, exponent = f"{value:.3e}".partition("e")
    return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"


def value_text(value: Any) -> str:
    """A param's value as a config has it."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "true" if value else "false"
    return number_text(value) if is_number(value) else str(value)


def objective_text(value: float) -> str:
    """An objective with four decimals, or four digits where that says too little or too much."""
    if value == 0 or 1e-3 <= abs(value) < 100:
        return f"{value + 0.0:.4f}"  # not -0.0000
    return number_text(float(value))


def duration_text(seconds: float) -> str:
    """Seconds in the two largest units: ``42 s``, ``3 min 05 s``, ``2 h 10 min``."""
    if not math.isfinite(seconds):
        return "unknown"
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    if whole < 48 * 3600:
        return f"{whole // 3600} h {whole // 60 % 60:02} min"
    return f"{whole // 86400} d {whole // 3600 % 24} h"

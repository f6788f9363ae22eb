"""Numbers, values and times in few words, the same on a page and on a screen."""

import json
import math
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

"""Where values lie on an axis, which values it is marked at, and in which colour."""

import math
import statistics
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from crane_ray.pages.wording import is_number, key_of, number_text, value_text

LOG_FROM = 50.0
"""Positive numbers that span more than this factor are placed by their logarithm."""

FEW = 6
"""Up to so many different numbers with a none among them are a choice, not a range."""

VIRIDIS = (
    "440154", "472d7b", "3b528b", "2c728e", "21918c", "28ae80", "5ec962",
)  # fmt: skip
"""The colour map viridis (van der Walt and Smith, CC0) at eighths, from its dark end.

Its last quarter, yellow, does not show on white paper.
"""


@dataclass(frozen=True)
class Scale:
    """An axis, inferred from the values on it."""

    kind: Literal["linear", "log", "words"]
    low: float = 0.0
    high: float = 1.0
    words: tuple[str, ...] = ()
    """Names of a choice's values, in order."""
    keys: tuple[str, ...] = ()
    """The values themselves as JSON, which tells ``true``, ``1`` and ``"1"`` apart."""
    has_none: bool = False
    """A range that some trials have no value in."""

    def place(self, value: Any) -> float | None:
        """From 0 at the low end to 1 at the high end; None where the axis has no such value."""
        if self.kind == "words":
            key = key_of(value)
            if key not in self.keys:
                return None
            return (self.keys.index(key) + 0.5) / len(self.keys)
        if not is_number(value) or (self.kind == "log" and value <= 0):
            return None
        if self.low == self.high:
            return 0.5
        low, high, at = (_bend(number, self.kind) for number in (self.low, self.high, value))
        return (at - low) / (high - low)

    def ticks(self, most: int = 6) -> list[float]:
        """Round numbers within the range, at most about so many; both ends where none are."""
        if self.kind == "words" or self.low == self.high:
            return [] if self.kind == "words" else [self.low]
        found = _log_ticks(self.low, self.high) if self.kind == "log" else []
        if not 2 <= len(found) <= most + 2:
            found = _linear_ticks(self.low, self.high, most) if self.kind == "linear" else found
        thinned = found[:: max(1, math.ceil(len(found) / (most + 2)))]
        return thinned if len(thinned) > 1 else [self.low, self.high]

    def padded(self, share: float = 0.06) -> "Scale":
        """The same with room beyond both ends."""
        if self.kind == "words":
            return self
        if self.low == self.high:
            room = abs(self.low) * share or share
            low, high = _held(self.low - room), _held(self.high + room)
            return replace(self, kind="linear", low=low, high=high)
        if self.kind == "log":
            factor = 10 ** (share * (math.log10(self.high) - math.log10(self.low)))
            low = max(self.low / factor, sys.float_info.min)
            return replace(self, low=low, high=_held(self.high * factor))
        room = (self.high / 2 - self.low / 2) * (2 * share)
        return replace(self, low=_held(self.low - room), high=_held(self.high + room))

    def describe(self) -> str:
        """The range or the choices in words."""
        if self.kind == "words":
            return "one of " + ", ".join(self.words)
        span = f"{number_text(self.low)} to {number_text(self.high)}"
        return f"{span}, by logarithm" if self.kind == "log" else span


def infer_scale(values: Iterable[Any]) -> Scale:
    """The axis that values lie on.

    Numbers make a range, from the smallest to the largest; one by logarithm where all are
    positive, span more than a factor of `LOG_FROM`, and have their middle nearer the middle of
    the axis then (drawn evenly from 0 to 0.5, they do not). Anything else makes a choice, and so
    do numbers of which there are few, with a none among them.
    """
    held = list(values)
    there = [value for value in held if value is not None]
    has_none = len(there) < len(held)
    different = {value for value in there if is_number(value)}
    numeric = bool(there) and all(is_number(value) for value in there)
    if not numeric or (has_none and len(different) <= FEW):
        return _choice(held)
    low, high = float(min(different)), float(max(different))
    linear = Scale("linear", low, high, has_none=has_none)
    if not (low > 0 and high / low > LOG_FROM):
        return linear
    log = replace(linear, kind="log")
    middle = statistics.median_low(different)
    off = {scale.kind: abs((scale.place(middle) or 0.0) - 0.5) for scale in (linear, log)}
    return log if off["log"] < off["linear"] else linear


def colour(share: float) -> str:
    """A colour from dark, at 1 (best), to light green, at 0; darker is better in grey print too."""
    at = (1 - min(max(share, 0.0), 1.0)) * (len(VIRIDIS) - 1)
    index = min(int(at), len(VIRIDIS) - 2)
    mixed = [
        round(_channel(index, part) + (_channel(index + 1, part) - _channel(index, part))
              * (at - index))
        for part in range(3)
    ]  # fmt: skip
    return "#" + "".join(f"{channel:02x}" for channel in mixed)


def _choice(values: Sequence[Any]) -> Scale:
    def order(value: Any) -> tuple[int, float, str]:
        if value is None:
            return 0, 0.0, ""
        if isinstance(value, bool):
            return 1, float(value), ""
        return (2, float(value), "") if is_number(value) else (3, 0.0, str(value))

    ordered = {key_of(value): value_text(value) for value in sorted(values, key=order)}
    return Scale("words", words=tuple(ordered.values()), keys=tuple(ordered))


def _held(value: float) -> float:
    """The nearest finite number."""
    return min(max(value, -sys.float_info.max), sys.float_info.max)


def _bend(value: float, kind: str) -> float:
    # Halved, so that the distance between the ends cannot overflow.
    return math.log10(value) if kind == "log" else float(value) / 2


def _linear_ticks(low: float, high: float, most: int) -> list[float]:
    span = high - low
    rough = span / most
    if not math.isfinite(span) or rough < 1e-300 or rough < abs(high) * 1e-12:
        return []
    power: float = 10.0 ** math.floor(math.log10(rough))
    step = next(unit * power for unit in (1, 2, 5, 10) if unit * power >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [float(f"{index * step:.12g}") for index in range(first, last + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    for units in ((1,), (1, 3), (1, 2, 5)):
        found = [float(f"{unit}e{power}") for power in range(first, last + 1) for unit in units]
        within = [tick for tick in found if low * (1 - 1e-9) <= tick <= high * (1 + 1e-9)]
        if len(within) >= 3:
            return within
    return within


def _channel(index: int, part: int) -> int:
    return int(VIRIDIS[index][2 * part : 2 * part + 2], 16)

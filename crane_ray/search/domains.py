"""What values a setting may take in a search."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from crane_ray.errors import ConfigError

Value = Any
"""Of a setting: a number, text, true or false, or null."""


@dataclass(frozen=True)
class Span:
    """Numbers from low to high, both included."""

    low: float
    high: float
    log: bool = False
    """Evenly by order of magnitude."""
    step: float | None = None
    whole: bool = False
    """Whole numbers alone."""

    def examples(self) -> tuple[Value, ...]:
        """Values that show whether a config can have all of them."""
        ends = self.low, self.high
        return tuple(int(end) for end in ends) if self.whole else ends

    def holds(self, value: Value) -> bool:
        """Whether the value is one of them."""
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        if not self.low <= value <= self.high or (self.whole and value != int(value)):
            return False
        steps = (value - self.low) / self.step if self.step else 0.0
        return math.isclose(steps, round(steps), abs_tol=1e-9)

    def nearest(self, value: Value) -> Value:
        """The number of the span that is nearest."""
        number = min(max(value, self.low), self.high)
        if self.step:
            steps = math.floor((self.high - self.low) / self.step + 1e-9)
            number = self.low + min(round((number - self.low) / self.step), steps) * self.step
        return round(number) if self.whole else number


@dataclass(frozen=True)
class Choice:
    """One of some values."""

    values: tuple[Value, ...]

    def examples(self) -> tuple[Value, ...]:
        """All of them."""
        return self.values

    def holds(self, value: Value) -> bool:
        """Whether the value is one of them."""
        return any(value == one and type(value) is type(one) for one in self.values)

    def nearest(self, value: Value) -> Value:
        """The value itself."""
        return value


Domain = Span | Choice
Kind = Literal["uniform", "loguniform", "quniform", "randint", "lograndint", "choice"]
FORMS: Mapping[str, str] = {
    "uniform": "[low, high]",
    "loguniform": "[low, high], both above 0",
    "quniform": "[low, high, step]",
    "randint": "[low, high], whole numbers, both included",
    "lograndint": "[low, high], whole numbers above 0, both included",
    "choice": "[value, value, ...]",
}
"""How each distribution is written."""


def parse_domain(path: str, tree: object) -> Domain:
    """The values of a setting, as a space's YAML has them.

    Args:
        path: the setting, for errors.
        tree: ``{uniform: [0, 0.5]}``; see `FORMS`.

    Raises:
        ConfigError: it is no such mapping.
    """
    if not isinstance(tree, Mapping) or len(tree) != 1:
        raise ConfigError(
            f"space {path}: {tree!r} is no distribution; write one, such as "
            f"{path}: {{uniform: [0, 0.5]}} or {path}: {{choice: [a, b]}} "
            f"(known: {', '.join(FORMS)})"
        )
    ((kind, values),) = tree.items()
    if kind not in FORMS:
        raise ConfigError(
            f"space {path}: there is no distribution {kind}; known: {', '.join(FORMS)}"
        )
    if not isinstance(values, list):
        raise _misfit(path, kind, values)
    return _choice(path, values) if kind == "choice" else _span(path, kind, values)


def _choice(path: str, values: list[Value]) -> Choice:
    odd = [value for value in values if isinstance(value, list | dict)]
    if odd:
        raise ConfigError(f"space {path}: {odd[0]!r} is no single value; list numbers or words")
    domain = Choice(tuple(values))
    twice = [value for place, value in enumerate(values) if Choice((*values[:place],)).holds(value)]
    if twice or not values:
        what = f"{twice[0]!r} is listed twice" if twice else "there is nothing to choose from"
        raise ConfigError(f"space {path}: {what}; list each value once")
    return domain


def _span(path: str, kind: str, values: list[Value]) -> Span:
    whole, log = kind.endswith("randint"), kind.startswith("log")
    numbers = [_number(value) for value in values]
    if len(values) != (3 if kind == "quniform" else 2) or None in numbers:
        raise _misfit(path, kind, values)
    low, high, *step = (number for number in numbers if number is not None)
    if low >= high:
        raise ConfigError(
            f"space {path}: {kind} from {low:g} to {high:g} has nothing between; the first number "
            "is the lower end"
        )
    if log and low <= 0:
        raise ConfigError(
            f"space {path}: {kind} begins at {low:g}; logarithms need numbers above 0"
        )
    if whole and (low != int(low) or high != int(high)):
        raise _misfit(path, kind, values)
    if step and not 0 < step[0] <= high - low:
        raise ConfigError(f"space {path}: a step of {step[0]:g} does not fit {low:g} to {high:g}")
    return Span(low, high, log=log, step=step[0] if step else None, whole=whole)


def _number(value: Value) -> float | None:
    """YAML takes 1e-5 for text."""
    convert: Callable[[Any], float] = float
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = convert(value)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _misfit(path: str, kind: str, values: object) -> ConfigError:
    return ConfigError(f"space {path}: {kind} takes {FORMS[kind]}, not {values!r}")

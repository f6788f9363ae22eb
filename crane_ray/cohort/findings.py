"""What was noticed about a cohort or its splits, for a person to judge."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

Severity = Literal["error", "warning", "note"]
EXAMPLES = 3


@dataclass(frozen=True)
class Finding:
    """One thing that was noticed."""

    severity: Severity
    """An error makes results wrong; a warning may; a note says what was done."""
    kind: str
    """A word for the program: ``shared_cases``, ``unlabelled``."""
    message: str
    """How many, what it means, and what to do."""
    names: tuple[str, ...] = ()
    """The slides or cases it is about."""


def counted(number: int, noun: str, plural: str = "") -> str:
    """``1 slide``, ``2 slides``."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {plural or noun + 's'}"


def some(names: Collection[str] | Sequence[str], shown: int = EXAMPLES) -> str:
    """The first few names, and how many more there are."""
    first = list(names)[:shown]
    more = len(names) - len(first)
    return ", ".join(first) + (f" and {more:,} more" if more else "")

"""Where a thread's time goes: the measure of what limits a run."""

import time
from dataclasses import asdict, dataclass
from typing import Any, Literal

State = Literal["decode_wait_s", "encode_s", "write_wait_s", "staging_wait_s", "idle_s"]


@dataclass
class Shares:
    """Seconds of an encoding thread; their sum is its wall time."""

    decode_wait_s: float = 0.0
    """Waiting for pixels."""
    encode_s: float = 0.0
    """Encoding: the device, or the wait for it."""
    write_wait_s: float = 0.0
    """Waiting until storage takes features."""
    staging_wait_s: float = 0.0
    """Waiting for a slide to be fetched."""
    idle_s: float = 0.0
    """Without any shard to work on."""

    def add(self, other: "Shares") -> None:
        """Adds another's seconds to these."""
        mine = vars(self)
        for state, seconds in vars(other).items():
            mine[state] += seconds

    def rounded(self) -> dict[str, Any]:
        """Seconds by state, to the millisecond."""
        return {state: round(seconds, 3) for state, seconds in asdict(self).items()}


class Clock:
    """Times one thread: it is always in one state, and says when that changes."""

    def __init__(self) -> None:
        self._shares = Shares()
        self._since = time.perf_counter()

    def spend(self, state: State, *, until: float | None = None) -> None:
        """The time since the last call went into a state (or so much of it as lies before)."""
        now = time.perf_counter() if until is None else until
        if now > self._since:
            setattr(self._shares, state, getattr(self._shares, state) + now - self._since)
            self._since = now

    def take(self) -> Shares:
        """The shares since the last call."""
        shares, self._shares = self._shares, Shares()
        return shares

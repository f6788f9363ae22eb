"""Virtual time for the cluster, and how the driver's work fits into it."""

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager


def no_time() -> float:
    """For a driver whose work takes no time: the same seed then gives the same run."""
    return 0.0


class DriverClock:
    """The driver's time: virtual until it gets to work, then it goes on as its own CPU time does.

    The driver is one server: what comes while it works waits. What is written by this clock (the
    ledger once a second, the index for a twentieth of the time) is written as often as by a real
    driver of this machine's speed.
    """

    def __init__(self, cpu: Callable[[], float] = no_time) -> None:
        """A driver whose work takes ``cpu`` seconds, such as `time.process_time`."""
        self.free = 0.0
        """From when on it has time."""
        self.spent: dict[str, float] = defaultdict(float)
        """CPU-seconds by what they went into."""
        self._cpu = cpu
        self._began: float | None = None

    def __call__(self) -> float:
        """The time of day for the driver's code."""
        return self.free + (0.0 if self._began is None else self._cpu() - self._began)

    @contextmanager
    def working(self, on: str, at: float) -> Iterator[None]:
        """The driver does something as soon as it can, from ``at`` on."""
        self.free = max(self.free, at)
        self._began = self._cpu()
        try:
            yield
        finally:
            took = self._cpu() - self._began
            self._began = None
            self.free += took
            self.spent[on] += took

    def spend(self, on: str, at: float, seconds: float) -> float:
        """Work that is not done here but takes so long; returns when it is done."""
        self.free = max(self.free, at) + seconds
        self.spent[on] += seconds
        return self.free

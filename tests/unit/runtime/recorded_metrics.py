"""A stand-in for Ray's metrics that remembers what it is told."""

from collections import defaultdict

from crane_ray.runtime.metrics import Metric, Value

Key = tuple[str, tuple[str, ...]]


class Recorded:
    """Counters' sums, and gauges that are shown now; tags by their values, in order of names."""

    def __init__(self) -> None:
        self.counters: dict[Key, float] = defaultdict(float)
        self.gauges: dict[Key, Value] = {}

    def count(self, metric: Metric, value: float, **tags: str) -> None:
        assert set(tags) == set(metric.tags)
        assert metric.kind == "counter"
        if value > 0:
            self.counters[_key(metric, tags)] += value

    def expect(self, metric: Metric, **tags: str) -> None:
        assert set(tags) == set(metric.tags)
        assert metric.kind == "counter"

    def show(self, metric: Metric, value: Value, **tags: str) -> None:
        assert set(tags) == set(metric.tags)
        assert metric.kind == "gauge"
        self.gauges[_key(metric, tags)] = value

    def hide(self, metric: Metric, **tags: str) -> None:
        self.gauges.pop(_key(metric, tags), None)

    def now(self, metric: Metric, *tags: str) -> float | None:
        """What a gauge shows; None where it is not shown."""
        value = self.gauges.get((metric.name, tags))
        return value() if callable(value) else value

    def sum(self, metric: Metric, *tags: str) -> float:
        """What a counter came to."""
        return self.counters.get((metric.name, tags), 0)


def _key(metric: Metric, tags: dict[str, str]) -> Key:
    return metric.name, tuple(tags[name] for name in sorted(tags))

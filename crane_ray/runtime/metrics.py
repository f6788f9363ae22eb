"""What a run tells Prometheus: the one place that knows of Ray's metrics.

Ray exports them on every node (``ray_`` goes before the names here, ``_total`` after those of
counters), with the node, the process and the session among the labels. Slides are never labels:
there are too many. Nothing here ever fails or slows a run: what cannot be recorded is not.
"""

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import ray
from ray.util.metrics import Counter, Gauge

log = logging.getLogger(__name__)

REFRESH_S = 5.0
"""Ray forgets a gauge that is not set again within two of its reports (10 s each)."""


@dataclass(frozen=True)
class Metric:
    """A metric by its name in Ray."""

    name: str
    kind: Literal["counter", "gauge"]
    words: str
    tags: tuple[str, ...] = ()

    @property
    def exported(self) -> str:
        """Its name in Prometheus."""
        return f"ray_{self.name}{'_total' if self.kind == 'counter' else ''}"


def _counter(name: str, words: str, *tags: str) -> Metric:
    return Metric(f"crane_ray_{name}", "counter", words, tags)


def _gauge(name: str, words: str, *tags: str) -> Metric:
    return Metric(f"crane_ray_{name}", "gauge", words, tags)


PATCHES = _counter("patches", "Patches that encoders have encoded.", "encoder")
SHARDS = _counter(
    "shards", "Shards of patches by what became of them: ok, error.", "encoder", "status"
)
ENCODER_SECONDS = _counter(
    "encoder_seconds",
    "Time of the encoding threads by state: encode, decode_wait, staging_wait, write_wait, idle.",
    "state",
)
STORAGE_RETRIES = _counter("storage_retries", "Times that storage failed and was asked again.")
STAGED_BYTES = _counter("staged_bytes", "Bytes of slides brought to the nodes' caches.")
STAGED_SLIDES = _counter("staged_slides", "Slides brought to the nodes' caches.")
STAGING_SECONDS = _counter("staging_seconds", "Time in which slides were fetched.")
STAGING_WAIT_SECONDS = _counter("staging_wait_seconds", "Time that readers waited for slides.")
CACHE_LEASES = _counter("cache_leases", "Times that a slide was opened through a node's cache.")
CACHE_BYTES = _gauge("cache_bytes", "Bytes of slides in a node's cache.")
CACHE_LIMIT_BYTES = _gauge("cache_limit_bytes", "Bytes that the cache may hold.")
CACHE_FREE_BYTES = _gauge("cache_free_bytes", "Free bytes of the cache's disk.")

SLIDES = _counter("slides", "Slides by what became of them: done, failed.", "verb", "status")
SLIDES_LEFT = _gauge("slides_left", "Slides that a run has yet to do.", "verb")
PATCHES_DONE = _counter("run_patches", "Patches that a run has done, as its driver counts.", "verb")
PATCHES_LEFT = _gauge("patches_left", "Patches that a run has yet to do, where known.", "verb")
QUIET_SECONDS = _gauge("quiet_seconds", "Time since a run last got on.", "verb")

FOLDS = _counter("folds", "Folds that ended: done, failed.", "status")
FOLDS_LEFT = _gauge("folds_left", "Folds that a training has yet to end.", "run")
EPOCHS = _counter("epochs", "Epochs of all folds.", "run")
EPOCH_SECONDS = _counter("epoch_seconds", "Time of the epochs of all folds.", "run")
LOSS = _gauge(
    "loss", "Loss of a fold's last epoch on a part: train, val.", "run", "seed", "fold", "part"
)
TRIALS = _counter("trials", "Trials of searches that ended: done, stopped, failed.", "status")
TRIALS_LEFT = _gauge("trials_left", "Trials that a search has yet to end.")

METRICS = {value.name: value for value in list(globals().values()) if isinstance(value, Metric)}
"""All of them, by name."""

Value = float | Callable[[], float]


def count(metric: Metric, value: float, **tags: str) -> None:
    """Adds to a counter."""
    if value > 0:
        _record(metric, value, tags)


def expect(metric: Metric, **tags: str) -> None:
    """Exports a counter from zero on: Prometheus takes what it sees first for no increase."""
    _shown.put(metric, 0, tags)


def show(metric: Metric, value: Value, **tags: str) -> None:
    """Shows a gauge until it is hidden, or this process ends; a function is asked now and again."""
    _shown.put(metric, value, tags)


def hide(metric: Metric, **tags: str) -> None:
    """Shows a gauge no longer."""
    _shown.drop(metric, tags)


def watch(sample: Callable[[], None]) -> None:
    """Calls a function now and again, as long as this process lives; the same one once."""
    _shown.watch(sample)


class _Shown:
    """What gauges show; a thread tells Ray again and again, from the first one on."""

    def __init__(self) -> None:
        self._values: dict[tuple[Metric, tuple[tuple[str, str], ...]], Value] = {}
        self._samples: list[Callable[[], None]] = []
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._woken = threading.Event()

    def put(self, metric: Metric, value: Value, tags: dict[str, str]) -> None:
        with self._lock:
            self._values[metric, tuple(sorted(tags.items()))] = value
        self._begin()
        if not callable(value):  # whoever shows it does not wait for the answer
            _record(metric, value, tags)

    def drop(self, metric: Metric, tags: dict[str, str]) -> None:
        with self._lock:
            self._values.pop((metric, tuple(sorted(tags.items()))), None)

    def watch(self, sample: Callable[[], None]) -> None:
        with self._lock:
            if sample not in self._samples:
                self._samples.append(sample)
        self._begin()

    def _begin(self) -> None:
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="metrics", daemon=True)
                self._thread.start()
        self._woken.set()

    def _run(self) -> None:
        while True:
            self._woken.wait(REFRESH_S)
            self._woken.clear()
            self.refresh()

    def refresh(self) -> None:
        with self._lock:
            samples, values = list(self._samples), list(self._values.items())
        for sample in samples:
            _safely(sample)
        for (metric, tags), value in values:
            _record(metric, value, dict(tags))


_shown = _Shown()


def _record(metric: Metric, value: Value, tags: dict[str, str]) -> None:
    def record() -> None:
        if ray.is_initialized():
            number = value() if callable(value) else value
            instrument = _instrument(metric)
            if metric.kind == "gauge":
                instrument.set(number, tags=tags)
            else:
                instrument._record(number, tags=tags)  # inc, which takes no 0

    _safely(record)


def _safely(action: Callable[[], None]) -> None:
    try:
        action()
    except Exception:  # of whatever kind: a run does not end for want of a metric
        log.debug("a metric is not recorded", exc_info=True)


@cache
def _instrument(metric: Metric) -> Any:
    kind = Counter if metric.kind == "counter" else Gauge
    return kind(metric.name, description=metric.words, tag_keys=metric.tags)

"""What a worker counts, told to Ray: plain code counts, and knows nothing of metrics."""

import shutil
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, fields
from functools import wraps
from typing import Any, TypeVar

from crane_ray import retries
from crane_ray.features.clock import Shares
from crane_ray.logs import in_run, run_fields
from crane_ray.runtime import metrics
from crane_ray.slides.slide_cache import SlideCache, StagingMeasures
from crane_ray.slides.staging import opened_caches

Task = TypeVar("Task", bound=Callable[..., Any])

STAGING = {
    "leases": metrics.CACHE_LEASES,
    "waited_s": metrics.STAGING_WAIT_SECONDS,
    "fetches": metrics.STAGED_SLIDES,
    "fetched_bytes": metrics.STAGED_BYTES,
    "fetch_s": metrics.STAGING_SECONDS,
}
"""Metric of each of `StagingMeasures`."""


def measured_task(task: Task) -> Task:
    """The same task, which tells Ray what it counts, and whose log says that it is of this run.

    A Ray may serve several runs one after the other, and so may a worker.
    """
    fields = run_fields()

    @wraps(task)
    def run(*args: Any, **kwargs: Any) -> Any:
        watch()
        with in_run(**fields):
            try:
                return task(*args, **kwargs)
            finally:
                tell()

    return run  # type: ignore[return-value]


def watch() -> None:
    """From now on this process tells what it counts."""
    metrics.watch(_process.tell)
    metrics.expect(metrics.STORAGE_RETRIES)


def tell() -> None:
    """Tells what was counted since the last time."""
    _process.tell()


def expect_receipts(encoders: Sequence[str]) -> None:
    """Exports what an encoder actor will count from zero on; its encoders by their place."""
    metrics.expect(metrics.PATCHES, encoder=together(encoders))
    for state in fields(Shares):
        metrics.expect(metrics.ENCODER_SECONDS, state=state.name.removesuffix("_s"))
    for encoder in encoders:
        for status in ("ok", "error"):
            metrics.expect(metrics.SHARDS, encoder=encoder, status=status)


def together(encoders: Sequence[str]) -> str:
    """The tag of encoders that get the same patches."""
    return "+".join(encoders)


def count_receipts(receipts: Sequence[Mapping[str, Any]], encoders: Sequence[str]) -> None:
    """Shards by outcome, and where the time of their encoding thread went.

    Args:
        receipts: with the fields of `Receipt`, and ``output``.
        encoders: of the run's outputs, by their place.
    """
    for receipt in receipts:
        encoder = encoders[receipt["output"]]
        metrics.count(metrics.SHARDS, 1, encoder=encoder, status=receipt["status"])
        for state in fields(Shares):
            seconds = receipt[state.name]
            metrics.count(metrics.ENCODER_SECONDS, seconds, state=state.name.removesuffix("_s"))


class Seldom:
    """A number that takes some work to find, found anew now and then."""

    def __init__(self, find: Callable[[], float], *, every_s: float = 30.0) -> None:
        self._find, self._every_s = find, every_s
        self._number, self._next = 0.0, 0.0

    def __call__(self) -> float:
        """The number, at most ``every_s`` old."""
        if time.monotonic() >= self._next:
            self._number, self._next = self._find(), time.monotonic() + self._every_s
        return self._number


class _Process:
    """What was told before, so that the rest can be told."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._retries = 0
        self._staging: dict[int, StagingMeasures] = {}

    def tell(self) -> None:
        with self._lock:
            now = retries.tried_again.number
            metrics.count(metrics.STORAGE_RETRIES, now - self._retries)
            self._retries = now
            for place, staging in enumerate(opened_caches()):
                self._tell_staging(place, staging)

    def _tell_staging(self, place: int, staging: SlideCache) -> None:
        before = asdict(self._staging.get(place, StagingMeasures()))
        now = staging.measures
        for name, metric in STAGING.items():
            metrics.count(metric, getattr(now, name) - before[name])
        if place not in self._staging:
            folder = staging.folder
            metrics.show(metrics.CACHE_BYTES, Seldom(folder.used_bytes))
            metrics.show(metrics.CACHE_LIMIT_BYTES, folder.max_bytes)
            metrics.show(metrics.CACHE_FREE_BYTES, lambda: shutil.disk_usage(folder.root).free)
        self._staging[place] = now


_process = _Process()

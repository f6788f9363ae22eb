"""Patches counted while their shards are still being encoded, for bars that move every second.

Receipts come once a shard, which on CPUs takes minutes. Actors therefore tell a small counter
actor, twice a second at most, and the driver asks it. Nothing depends on it but what is shown.
"""

import threading
import time
from typing import Any, Self

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from crane_ray.runtime.reporting import Reporter

EVERY_S = 0.5


class Counter:
    """Counts until asked."""

    def __init__(self) -> None:
        self._patches = 0

    def add(self, patches: int) -> None:
        """So many more."""
        self._patches += patches

    def take(self) -> int:
        """What was counted since the last call."""
        patches, self._patches = self._patches, 0
        return patches


class LiveCount:
    """The driver's side: a counter actor, and a thread that passes its count to a reporter."""

    def __init__(self, reporter: Reporter) -> None:
        # On the driver's own node: on another one it would die with it, and the count with it.
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        self.counter: Any = ray.remote(num_cpus=0, scheduling_strategy=here)(Counter).remote()
        self._reporter = reporter
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._poll, name="live-count", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._thread.join()

    def _poll(self) -> None:
        over = False
        while not over:
            over = self._over.wait(EVERY_S)
            try:
                patches = ray.get(self.counter.take.remote(), timeout=10)
            except (RayError, TimeoutError):
                return
            if patches:
                self._reporter.advance(patches=patches)


class Teller:
    """An actor's side: tells the counter, not too often."""

    def __init__(self, counter: Any) -> None:
        self._counter = counter
        self._untold = 0
        self._next = 0.0

    def __call__(self, patches: int) -> None:
        """So many more patches are encoded."""
        self._untold += patches
        now = time.monotonic()
        if now >= self._next:
            self.flush()
            self._next = now + EVERY_S

    def flush(self) -> None:
        """Tells what is left."""
        if self._untold:
            self._counter.add.remote(self._untold)
            self._untold = 0

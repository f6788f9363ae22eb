"""Patches counted while their shards are still being encoded, for bars that move every second.

Receipts come once a shard, which on CPUs takes minutes. Actors therefore post what they counted
to a mailbox, twice a second at most, and less often where they are many. Nothing depends on it
but what is shown.
"""

import threading
import time
from typing import Any, Self

from crane_ray.runtime import metrics
from crane_ray.runtime.mailbox import Mailbox, Sender
from crane_ray.runtime.reporting import Reporter

EVERY_S = 0.5
MESSAGES_A_SECOND = 200
"""From all actors together: the mailbox is one process, which takes 2,000 at most."""


class LiveCount:
    """The driver's side: a thread that passes what the actors counted to a reporter."""

    def __init__(self, reporter: Reporter) -> None:
        self._mailbox = Mailbox()
        self.address: Any = self._mailbox.address
        """For the actors' `Teller`."""
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
            patches = sum(message["patches"] for message in self._mailbox.take())
            if patches:
                self._reporter.advance(patches=patches)


def tell_every_s(num_actors: int) -> float:
    """How often each of so many actors tells what it counted."""
    return max(EVERY_S, num_actors / MESSAGES_A_SECOND)


class Teller:
    """An actor's side: tells the driver, not too often."""

    def __init__(self, address: Any, every_s: float = EVERY_S) -> None:
        self._send = Sender(address)
        self._every_s = every_s
        self.encoders = ""
        """Of the actor, for the metrics."""
        self._untold = 0
        self._lock = threading.Lock()  # a block's end tells what is left beside the encoder
        self._next = 0.0

    def __call__(self, patches: int) -> None:
        """So many more patches are encoded."""
        with self._lock:
            self._untold += patches
        now = time.monotonic()
        if now >= self._next:
            self.flush()
            self._next = now + self._every_s

    def flush(self) -> None:
        """Tells what is left."""
        with self._lock:
            patches, self._untold = self._untold, 0
        if patches:
            self._send({"patches": patches})
            metrics.count(metrics.PATCHES, patches, encoder=self.encoders)

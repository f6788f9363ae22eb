"""Reporters of slides that tell Ray's metrics what they are told, and pass it on.

Imports no torch, which drivers of slides do without.
"""

import threading
import time

from crane_ray.runtime import metrics
from crane_ray.runtime.reporting import Reporter, Silent


class Quiet:
    """How long nothing has happened in a run."""

    def __init__(self, verb: str) -> None:
        self._verb = verb
        self._since = 0.0

    def begin(self) -> None:
        """From now on somebody waits for it."""
        self.moved()
        metrics.show(metrics.QUIET_SECONDS, self._seconds, verb=self._verb)

    def moved(self) -> None:
        """Something has happened."""
        self._since = time.monotonic()

    def end(self) -> None:
        """Nobody waits any more."""
        metrics.hide(metrics.QUIET_SECONDS, verb=self._verb)

    def _seconds(self) -> float:
        return time.monotonic() - self._since


class Measured:
    """A reporter that counts a run's slides and patches for Prometheus."""

    def __init__(self, verb: str, reporter: Reporter) -> None:
        self.inner = reporter
        self._verb = verb
        self._quiet = Quiet(verb)
        self._lock = threading.Lock()  # patches come from a thread of their own
        self._slides = self._patches = 0

    def begin(self, title: str, *, slides: int, patches: int | None = None) -> None:
        """See `Reporter`."""
        self._slides, self._patches = slides, patches or 0
        for status in ("done", "failed"):
            metrics.expect(metrics.SLIDES, verb=self._verb, status=status)
        metrics.expect(metrics.PATCHES_DONE, verb=self._verb)
        metrics.show(metrics.SLIDES_LEFT, lambda: self._slides, verb=self._verb)
        if patches is not None:
            metrics.show(metrics.PATCHES_LEFT, lambda: self._patches, verb=self._verb)
        self._quiet.begin()
        self.inner.begin(title, slides=slides, patches=patches)

    def advance(self, *, slides: int = 0, patches: int = 0, failures: int = 0) -> None:
        """See `Reporter`."""
        with self._lock:
            self._slides = max(self._slides - slides, 0)
            self._patches = max(self._patches - patches, 0)
        self._quiet.moved()
        metrics.count(metrics.SLIDES, slides - failures, verb=self._verb, status="done")
        metrics.count(metrics.SLIDES, failures, verb=self._verb, status="failed")
        metrics.count(metrics.PATCHES_DONE, patches, verb=self._verb)
        self.inner.advance(slides=slides, patches=patches, failures=failures)

    def failure(self, slide_id: str, reason: str) -> None:
        """See `Reporter`."""
        self.inner.failure(slide_id, reason)

    def note(self, text: str) -> None:
        """See `Reporter`."""
        self.inner.note(text)

    def limit(self, words: str) -> None:
        """See `Reporter`."""
        self.inner.limit(words)

    def end(self) -> None:
        """See `Reporter`."""
        for metric in (metrics.SLIDES_LEFT, metrics.PATCHES_LEFT):
            metrics.hide(metric, verb=self._verb)
        self._quiet.end()
        self.inner.end()


def measured(verb: str, reporter: Reporter | None) -> Reporter:
    """What a run reports to; of a run inside another, slides count for the inner one alone."""
    inner = reporter.inner if isinstance(reporter, Measured) else reporter
    return Measured(verb, inner or Silent())

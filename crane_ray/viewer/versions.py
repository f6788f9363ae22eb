"""Versions of files, looked up now and then: a slide that is replaced gets new tiles."""

import threading
import time

from crane_ray import storage
from crane_ray.viewer.replies import etag_of

LOCAL_S, REMOTE_S = 2.0, 60.0
MAX_HELD = 4096


class Versions:
    """Short marks of files that change with their content; safe to use from several threads."""

    def __init__(self) -> None:
        self._held: dict[str, tuple[float, str]] = {}
        self._lock = threading.Lock()

    def of(self, path: str) -> str:
        """The mark of a file, at most a minute old.

        Raises:
            StorageError: it is not there, or the storage cannot say.
        """
        now = time.monotonic()
        with self._lock:
            until, mark = self._held.get(path, (0.0, ""))
        if now < until:
            return mark
        facts = storage.facts_of(path)
        mark = etag_of(facts.size, facts.version).strip('"')[:12]
        with self._lock:
            if len(self._held) >= MAX_HELD:
                self._held.clear()
            self._held[path] = (now + (REMOTE_S if storage.is_uri(path) else LOCAL_S), mark)
        return mark

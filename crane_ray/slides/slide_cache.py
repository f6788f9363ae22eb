"""Copies of far slides on this node: leased while in use, fetched ahead, each of them once.

All processes of a user on a node share one bounded folder (`CacheFolder`). Plain Python, without
Ray or torch.
"""

import errno
import logging
import queue
import threading
import time
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from crane_ray import storage
from crane_ray.errors import CraneError, SlideError
from crane_ray.logs import about
from crane_ray.slides.cache_folder import CacheFolder, Lock
from crane_ray.slides.companions import SlideFile, content_key, slide_files

log = logging.getLogger(__name__)

GB = 10**9
RESERVE_BYTES = GB
"""Free disk space that staging leaves to everybody else."""
WAIT_S = 1800.0
"""How long a slide waits for others to be done with theirs where all room is in use."""
POLL_S = 0.1
ASK_S = 0.05
IDLE_POLLS = 3
"""Times that no room is found in a cache that nobody uses before that is an error."""
CHANGES = 3
"""Times that a slide is fetched anew because it changed meanwhile."""


class Lease:
    """A slide's file on this node; it stays until the lease is closed, or its process dies."""

    def __init__(
        self, path: Path, lock: Lock | None = None, *, waited_s: float = 0, fetched_bytes: int = 0
    ) -> None:
        self.path = path
        self.waited_s = waited_s
        """How long the caller waited for it."""
        self.fetched_bytes = fetched_bytes
        """What was fetched for it; 0 where it was there, or somebody else fetched it."""
        self._lock = lock

    def close(self) -> None:
        """The file may go; a second call does nothing."""
        if self._lock is not None:
            self._lock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


@dataclass(frozen=True)
class StagingMeasures:
    """What one process's staging came to so far."""

    leases: int = 0
    waited_s: float = 0.0
    """Waits of callers; time that staging costs."""
    fetches: int = 0
    """Slides that were fetched; each lease beyond them found its slide there."""
    fetched_bytes: int = 0
    fetch_s: float = 0.0
    """Time in which these bytes were fetched, mostly behind other work."""


class SlideCache:
    """Copies of slides in a node's shared folder, for one process."""

    def __init__(
        self,
        folder: Path | str,
        max_bytes: int,
        *,
        copy_local: bool = False,
        threads: int = 2,
        reserve_bytes: int = RESERVE_BYTES,
        wait_s: float = WAIT_S,
    ) -> None:
        self.measures = StagingMeasures()
        self.folder = CacheFolder(Path(folder), max_bytes, reserve_bytes)
        self._copy_local = copy_local
        self._threads = threads
        self._wait_s = wait_s
        self._guard = threading.Lock()
        self._ahead: dict[str, Future[None]] = {}
        self._queue: queue.SimpleQueue[tuple[str, Future[None]]] = queue.SimpleQueue()
        self._num_workers = 0

    def prefetch(self, uri: str) -> None:
        """Begins to fetch a slide in the background.

        Nothing holds it until it is leased, so that processes which fetch ahead never wait for
        each other; where room is scarce it may go again. Errors wait for the lease, and so does a
        slide for which there is no room now.
        """
        if not self._is_copied(uri):
            return
        with self._guard:
            if uri in self._ahead:
                return
            future: Future[None] = Future()
            self._ahead[uri] = future
            self._queue.put((uri, future))
            if self._num_workers < min(self._threads, len(self._ahead)):
                self._num_workers += 1
                # A daemon: a process that ends does not wait for slides that nobody needs.
                threading.Thread(target=self._work, name="stage", daemon=True).start()

    def lease(self, uri: str) -> Lease:
        """A slide on this node, waited for if need be; local ones are used where they are.

        Raises:
            SlideError: it is not there, cannot be fetched, or has no room in the cache.
        """
        if not self._is_copied(uri):
            return Lease(Path(storage.absolute(uri)))
        begun = time.perf_counter()
        with self._guard:
            future = self._ahead.pop(uri, None)
        if future is not None and not future.cancel():
            try:
                future.result()
            except CraneError as error:
                log.info("%s: not fetched ahead (%s), trying again", uri, error)
        lease = self._acquire(uri, wait=True)
        assert lease is not None
        lease.waited_s = time.perf_counter() - begun
        self._count(leases=1, waited_s=lease.waited_s)
        return lease

    def drop_prefetched(self) -> None:
        """Gives up what is still to be fetched ahead."""
        with self._guard:
            futures, self._ahead = self._ahead, {}
        for future in futures.values():
            future.cancel()

    def _work(self) -> None:
        while True:
            uri, future = self._queue.get()
            if not future.set_running_or_notify_cancel():
                continue
            with about(uri=uri):
                try:
                    lease = self._acquire(uri, wait=False)
                    if lease is not None:
                        lease.close()
                    future.set_result(None)
                except BaseException as error:
                    future.set_exception(error)

    def _acquire(self, uri: str, *, wait: bool) -> Lease | None:
        """A lease; None where there is no room now and it is not to be waited for."""
        fetched = 0
        for _ in range(CHANGES):
            try:
                files = slide_files(storage.absolute(uri))
                key = content_key(uri, files)
                lock, added = self._hold(uri, key, files, wait=wait)
                fetched += added
            except OSError as error:
                reason = str(error).removeprefix(f"{uri}: ")
                raise SlideError(f"{uri}: cannot be staged: {reason}") from error
            except _ChangedError:
                continue
            if lock is None:
                return None
            entry = self.folder.entry(key)
            assert entry is not None
            return Lease(entry / files[0].name, lock, fetched_bytes=fetched)
        raise SlideError(
            f"{uri}: it changed {CHANGES} times while it was fetched; run again once it is written"
        )

    def _hold(
        self, uri: str, key: str, files: list[SlideFile], *, wait: bool
    ) -> tuple[Lock | None, int]:
        """The shared lock of an entry that is there, and the bytes fetched for it.

        Who fetches holds the lock alone, and everybody else asks again and again: whoever waited
        in line for it alone would also wait for those who use the slide once it is there.
        """
        while True:
            lock = self.folder.lock(key, shared=True, wait=False)
            if lock is not None:
                if self.folder.entry(key) is not None:
                    self.folder.touch(key)
                    return lock, 0
                lock.close()
            lock = self.folder.lock(key, shared=False, wait=False)
            if lock is None:
                time.sleep(ASK_S)
                continue
            try:
                fetched = 0
                if self.folder.entry(key) is None:
                    if not self._fetch(uri, key, files, wait=wait):
                        lock.close()
                        return None, 0
                    fetched = sum(file.facts.size for file in files)
                lock.share()
            except BaseException:
                lock.close()
                raise
            if self.folder.entry(key) is not None:  # not removed while the lock changed hands
                self.folder.touch(key)
                return lock, fetched
            lock.close()

    def _fetch(self, uri: str, key: str, files: list[SlideFile], *, wait: bool) -> bool:
        """Brings an entry in; False where there is no room now."""
        size = sum(file.facts.size for file in files)
        for attempt in (1, 2):
            partial = self._make_room(uri, key, size, wait=wait)
            if partial is None:
                return False
            try:
                self._copy(uri, key, files, partial)
                self.folder.commit(key)
                self._count(fetches=1)
                return True
            except OSError as error:
                if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                    raise
                self.folder.discard(key)
                if attempt == 2:
                    raise SlideError(
                        f"{uri}: the disk of the cache folder {self.folder.root} is full "
                        f"({size / GB:.3g} GB needed); free space there, or choose another "
                        "--cache-folder"
                    ) from error
                self.folder.evict(size)
            finally:
                self.folder.discard(key)
        raise AssertionError

    def _copy(self, uri: str, key: str, files: list[SlideFile], partial: Path) -> None:
        begun, fetched = time.perf_counter(), 0
        try:
            for file in files:
                target = partial / file.name
                target.parent.mkdir(parents=True, exist_ok=True)
                with target.open("wb") as out:
                    for block in storage.read_blocks(file.facts.uri, file.facts.size):
                        out.write(block)
                        fetched += len(block)
        finally:
            self._count(fetched_bytes=fetched, fetch_s=time.perf_counter() - begun)
        if content_key(uri, slide_files(storage.absolute(uri))) != key:
            raise _ChangedError

    def _make_room(self, uri: str, key: str, size: int, *, wait: bool) -> Path | None:
        limit = self.folder.max_bytes
        if size > limit:
            raise SlideError(
                f"{uri}: {size / GB:.3g} GB, and the cache folder {self.folder.root} may hold "
                f"{limit / GB:.3g} GB; raise --cache-gb, or choose a --cache-folder on a disk "
                "with more than twice that free"
            )
        deadline, idle = time.monotonic() + self._wait_s, 0
        while True:
            partial = self.folder.admit(key, size)
            if partial is not None or not wait:
                return partial
            # Who was in the way may have left since: idle once is no proof that nobody will go.
            idle = idle + 1 if self.folder.is_idle() else 0
            if idle > IDLE_POLLS or time.monotonic() > deadline:
                raise SlideError(
                    f"{uri}: no room for {size / GB:.3g} GB in the cache folder "
                    f"{self.folder.root}: slides in use and other files fill it; raise "
                    "--cache-gb, free disk space, or choose another --cache-folder"
                )
            time.sleep(POLL_S)

    def _is_copied(self, uri: str) -> bool:
        return self._copy_local or storage.is_uri(uri)

    def _count(self, **more: float) -> None:
        with self._guard:
            now = {name: getattr(self.measures, name) + value for name, value in more.items()}
            self.measures = replace(self.measures, **now)


class _ChangedError(Exception):
    """The source is not what it was when it was asked for."""

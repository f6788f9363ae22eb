"""A bounded folder of a node that processes share: entries, locks, admission, eviction.

::

    entries/KEY/    a whole slide, its files under their own names; ``.size`` holds its bytes,
                    and the time of that file is when the entry was last used
    partial/KEY/    one that is being fetched or removed, with what it will need in ``.size``
    locks/KEY       flock: shared by those who use the entry, exclusive for who makes or removes it
    admission       flock: held while room is made, so that the bound holds for all together

The kernel drops the locks of a process that dies, however it dies: its leases end, and what it
was fetching is recognised by its free lock and swept away by whoever needs room next.
"""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from crane_ray.errors import ConfigError

SIZE = ".size"


class Lock:
    """A held flock."""

    def __init__(self, fd: int) -> None:
        self._fd: int | None = fd

    def share(self) -> None:
        """From exclusive to shared; somebody else may hold it exclusively in between."""
        assert self._fd is not None
        fcntl.flock(self._fd, fcntl.LOCK_SH)

    def close(self) -> None:
        """Lets go; a second call does nothing."""
        fd, self._fd = self._fd, None
        if fd is not None:
            fcntl.flock(fd, fcntl.LOCK_UN)  # also where a forked child still has the descriptor
            os.close(fd)


class CacheFolder:
    """The folder, for one process; all methods are safe across threads and processes."""

    def __init__(self, root: Path, max_bytes: int, reserve_bytes: int) -> None:
        self.root = root
        self.max_bytes = max_bytes
        self.reserve_bytes = reserve_bytes
        """Disk space that is left to others."""
        self._entries, self._partial = root / "entries", root / "partial"
        self._locks = root / "locks"
        _make_private(root)
        for folder in (self._entries, self._partial, self._locks):
            folder.mkdir(exist_ok=True)

    def lock(self, key: str, *, shared: bool, wait: bool = True) -> Lock | None:
        """The lock of an entry; None where it is taken and not to be waited for."""
        path = self._locks / key
        kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        while True:
            fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
            try:
                fcntl.flock(fd, kind if wait else kind | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(fd)
                return None
            except BaseException:
                os.close(fd)
                raise
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(fd), path.stat()):
                    os.utime(fd)  # cleaners of /tmp leave it alone
                    return Lock(fd)
            os.close(fd)  # its entry was removed meanwhile, and the lock's file with it

    def entry(self, key: str) -> Path | None:
        """The folder of a whole entry, if there is one; its lock must be held."""
        folder = self._entries / key
        return folder if folder.exists() else None

    def touch(self, key: str) -> None:
        """Marks an entry as used now."""
        with suppress(FileNotFoundError):
            os.utime(self._entries / key / SIZE)

    def admit(self, key: str, size: int) -> Path | None:
        """An empty folder to fetch an entry into, room for it being made and reserved.

        The exclusive lock must be held. Those used longest ago go first; none that is in use.

        Returns:
            None where there is no room until others are done with theirs.
        """
        with self._admission():
            folder = self._partial / key
            shutil.rmtree(folder, ignore_errors=True)
            self._sweep()
            while self._room() < size:
                if not self._evict_one():
                    return None
            folder.mkdir()
            (folder / SIZE).write_text(str(size))
            return folder

    def commit(self, key: str) -> None:
        """Makes what was fetched the entry, whole."""
        os.utime(self._partial / key / SIZE)
        with self._admission():  # who adds up sizes meanwhile must not miss it
            (self._partial / key).rename(self._entries / key)

    def discard(self, key: str) -> None:
        """Removes what was fetched of an entry; its exclusive lock must be held."""
        shutil.rmtree(self._partial / key, ignore_errors=True)

    def evict(self, size: int) -> None:
        """Removes unused entries until so many bytes are free that were not, if there are any."""
        with self._admission():
            self._sweep()
            wanted = self._used() - size
            while self._used() > wanted and self._evict_one():
                pass

    def is_idle(self) -> bool:
        """True where nothing is used or fetched, so that waiting makes no room."""
        return not any(self._entries.iterdir()) and not any(self._partial.iterdir())

    def used_bytes(self) -> int:
        """Bytes of all entries, and of what is being fetched."""
        with self._admission():
            return self._used()

    @contextmanager
    def _admission(self) -> Iterator[None]:
        fd = os.open(self.root / "admission", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    def _used(self) -> int:
        return sum(map(_size, [*self._entries.iterdir(), *self._partial.iterdir()]))

    def _room(self) -> int:
        """Bytes that one more entry may have."""
        to_come = sum(max(0, _size(path) - _on_disk(path)) for path in self._partial.iterdir())
        free = shutil.disk_usage(self.root).free - self.reserve_bytes - to_come
        return min(self.max_bytes - self._used(), free)

    def _evict_one(self) -> bool:
        for folder in sorted(self._entries.iterdir(), key=_last_used):
            if self._remove(folder):
                return True
        return False

    def _sweep(self) -> None:
        """Removes what dead processes left half fetched or half removed."""
        for folder in self._partial.iterdir():
            self._remove(folder)

    def _remove(self, folder: Path) -> bool:
        """Removes an entry or a part of one, unless its lock is taken."""
        lock = self.lock(folder.name, shared=False, wait=False)
        if lock is None:
            return False
        try:
            gone = self._partial / folder.name
            if folder != gone:
                shutil.rmtree(gone, ignore_errors=True)
                folder.rename(gone)  # from here on it is no entry, whatever happens to us
            shutil.rmtree(gone, ignore_errors=True)
            (self._locks / folder.name).unlink(missing_ok=True)
        finally:
            lock.close()
        return True


def _make_private(root: Path) -> None:
    root.parent.mkdir(parents=True, exist_ok=True)
    with suppress(FileExistsError):
        root.mkdir(mode=0o700)
    if not root.is_dir() or root.is_symlink() or root.stat().st_uid != os.getuid():
        raise ConfigError(
            f"cache folder {root}: it is somebody else's, or no folder; choose another one with "
            "--cache-folder or CRANE_RAY_CACHE"
        )


def _size(folder: Path) -> int:
    try:
        return int((folder / SIZE).read_text())
    except (FileNotFoundError, ValueError):
        return _on_disk(folder)


def _on_disk(folder: Path) -> int:
    sizes = 0
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):
            sizes += path.lstat().st_size if path.name != SIZE else 0
    return sizes


def _last_used(folder: Path) -> tuple[int, str]:
    try:
        return (folder / SIZE).stat().st_mtime_ns, folder.name
    except FileNotFoundError:
        return 0, folder.name

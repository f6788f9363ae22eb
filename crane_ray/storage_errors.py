"""What went wrong with storage, in words a user can act on."""

import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from crane_ray import remote
from crane_ray.errors import CraneError, StorageError
from crane_ray.retries import is_storage_error

WRITE_HINTS = {
    errno.ENOSPC: "the disk is full; free space and run the same command again, "
    "what is committed stays readable",
    errno.EDQUOT: "the quota is used up; free space and run the same command again",
    errno.EACCES: "no permission to write there; choose another folder or change its owner",
    errno.EPERM: "no permission to write there; choose another folder or change its owner",
    errno.EROFS: "the filesystem is read-only; choose another folder",
    errno.ENOTDIR: "a part of the path is a file, not a folder; choose another folder",
    errno.EEXIST: "a file is in the way of a folder; choose another folder",
}
FATAL_ERRNOS = frozenset(WRITE_HINTS) | {errno.ENXIO}
"""A write that fails so will fail for every other slide too (ENXIO: there is no such bucket)."""


def read_error(path: str, error: BaseException) -> StorageError:
    """The failed read of ``path`` in words a user can act on."""
    hint = getattr(error, "strerror", None) or str(error)
    if remote.is_uri(path):
        hint, _ = remote.explain(path, error)
    return StorageError(f"{path}: cannot be read: {hint}")


def write_error(path: str, error: BaseException) -> StorageError:
    """The failed write of ``path`` in words a user can act on, with the errno that fits."""
    number: int | None = getattr(error, "errno", None)
    hint = WRITE_HINTS.get(number or 0)
    if hint is None and remote.is_uri(path):
        hint, number = remote.explain(path, error)
    hint = hint or getattr(error, "strerror", None) or str(error)
    return StorageError(f"{path}: cannot be written: {hint}", number)


def is_fatal(error: BaseException) -> bool:
    """True for a write error that no other slide would escape (disk full, no permission)."""
    return isinstance(error, StorageError) and error.errno in FATAL_ERRNOS


@contextmanager
def told_as(
    tell: Callable[[str, BaseException], StorageError],
    path: str,
    *,
    but: tuple[type[BaseException], ...] = (),
) -> Iterator[None]:
    """What storage raises inside becomes a StorageError about the path (but for those kinds)."""
    try:
        yield
    except Exception as error:
        if isinstance(error, (CraneError, *but)) or not is_storage_error(error):
            raise
        raise tell(path, error) from error

"""The one place that touches paths and URIs; what it writes appears whole or not at all."""

import errno
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

import fsspec

from crane_ray.errors import StorageError

FATAL_ERRNOS = frozenset(
    {
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EROFS,
        errno.EACCES,
        errno.EPERM,
        errno.ENOTDIR,
        errno.EEXIST,
    }
)
"""A write that fails so will fail for every other slide too."""


def is_uri(path: str) -> bool:
    """True for ``scheme://...`` of another filesystem than the local one."""
    return "://" in path and not path.startswith("file://")


def absolute(path: str) -> str:
    """A URI as it is, a local path (also ``file://``, ``~``) made absolute against the cwd."""
    if is_uri(path):
        return path.rstrip("/")
    return str(Path(path.removeprefix("file://")).expanduser().absolute())


def join(base: str, *parts: str) -> str:
    """Base and parts with single slashes between them."""
    return "/".join([base.rstrip("/"), *(part.strip("/") for part in parts)])


def exists(path: str) -> bool:
    """True where a file or folder is."""
    if not is_uri(path):
        return Path(path).exists()
    fs, inner = _filesystem(path)
    return bool(fs.exists(inner))


def size_bytes(path: str) -> int:
    """Size of a file in bytes."""
    if not is_uri(path):
        return Path(path).stat().st_size
    fs, inner = _filesystem(path)
    return int(fs.size(inner))


def list_files(folder: str, suffix: str = "") -> list[str]:
    """Files directly in a folder whose name ends in suffix, sorted; a missing folder has none.

    Temporary files of unfinished writes (their names begin with a dot) are left out.
    """
    if not is_uri(folder):
        if not Path(folder).is_dir():
            return []
        entries = [entry.path for entry in os.scandir(folder) if entry.is_file()]
    else:
        fs, inner = _filesystem(folder)
        if not fs.exists(inner):
            return []
        entries = [
            str(fs.unstrip_protocol(entry["name"]))
            for entry in fs.ls(inner, detail=True)
            if entry["type"] == "file"
        ]
    names = [(entry.rsplit("/", 1)[-1], entry) for entry in entries]
    return sorted(entry for name, entry in names if name.endswith(suffix) and name[0] != ".")


def read_bytes(path: str) -> bytes:
    """The whole content of a file.

    Raises:
        StorageError: it cannot be read.
    """
    try:
        with open_read(path) as file:
            return file.read()
    except OSError as error:
        raise StorageError(f"{path}: cannot be read: {error.strerror or error}") from error


def open_read(path: str) -> IO[bytes]:
    """A file opened for binary reading, wherever it is."""
    if not is_uri(path):
        return open(path, "rb")
    fs, inner = _filesystem(path)
    return cast(IO[bytes], fs.open(inner, "rb"))


def put_bytes(path: str, data: bytes, *, durable: bool = False) -> None:
    """Writes a file so that readers see the old content, the new, or none; never a part.

    Args:
        path: where; missing folders are made.
        data: the content.
        durable: also survive a power cut (local: fsync before the rename).

    Raises:
        StorageError: it cannot be written; what was there before is untouched.
    """
    with replacing(path) as temporary, open(temporary, "wb") as file:
        file.write(data)
        if durable:
            file.flush()
            os.fsync(file.fileno())


@contextmanager
def replacing(path: str) -> Iterator[Path]:
    """A temporary local file that takes the place of ``path`` once the block ends well.

    For libraries that write to a file name of their own (HDF5, images). On a URI the file
    is uploaded in one piece at the end.

    Raises:
        StorageError: no space, no permission, or no such place; nothing is left behind.
    """
    remote = is_uri(path)
    target = Path(path)
    token = f".{uuid.uuid4().hex[:12]}.{target.name}"
    try:
        if remote:
            import tempfile

            folder = Path(tempfile.mkdtemp(prefix="crane-"))
        else:
            folder = target.parent
            folder.mkdir(parents=True, exist_ok=True)
        temporary = folder / token
        try:
            yield temporary
            if remote:
                fs, inner = _filesystem(path)
                fs.put_file(str(temporary), inner)
            else:
                temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)
            if remote:
                folder.rmdir()
    except OSError as error:
        if isinstance(error, StorageError):
            raise
        raise write_error(path, error) from error


def write_error(path: str, error: OSError) -> StorageError:
    """The failed write of ``path`` in words a user can act on, with the original errno."""
    hints = {
        errno.ENOSPC: "the disk is full; free space and run the same command again, "
        "what is committed stays readable",
        errno.EDQUOT: "the quota is used up; free space and run the same command again",
        errno.EACCES: "no permission to write there; choose another folder or change its owner",
        errno.EPERM: "no permission to write there; choose another folder or change its owner",
        errno.EROFS: "the filesystem is read-only; choose another folder",
        errno.ENOTDIR: "a part of the path is a file, not a folder; choose another folder",
        errno.EEXIST: "a file is in the way of a folder; choose another folder",
    }
    hint = hints.get(error.errno or 0, error.strerror or str(error))
    return StorageError(f"{path}: cannot be written: {hint}", error.errno)


def is_fatal(error: BaseException) -> bool:
    """True for a write error that no other slide would escape (disk full, no permission)."""
    return isinstance(error, StorageError) and error.errno in FATAL_ERRNOS


def remove_tree(path: str) -> None:
    """Removes a file or folder with all beneath it; nothing there is no error."""
    if is_uri(path):
        fs, inner = _filesystem(path)
        if fs.exists(inner):
            fs.rm(inner, recursive=True)
        return
    import shutil

    if Path(path).is_dir():
        shutil.rmtree(path)
    else:
        Path(path).unlink(missing_ok=True)


def _filesystem(uri: str) -> tuple[Any, str]:
    try:
        fs, inner = fsspec.core.url_to_fs(uri)
    except (ImportError, ValueError) as error:
        raise StorageError(
            f"{uri}: cannot be opened: {error}; install the fsspec package of that storage "
            "(s3fs, gcsfs, adlfs) on every node"
        ) from error
    return fs, str(inner)

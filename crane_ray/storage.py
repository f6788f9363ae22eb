"""The one place that touches paths and URIs; what it writes appears whole or not at all.

Local paths and URIs (``s3://``, ``gs://``, whatever fsspec opens) behave alike. What fails and
may pass is tried again (`crane_ray.retries`); what fails for good is a `StorageError`.
"""

import io
import math
import os
import re
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

from crane_ray import remote
from crane_ray.remote import is_uri
from crane_ray.retries import is_storage_error, retrying
from crane_ray.storage_errors import is_fatal, read_error, told_as, write_error

# Callers see one module, whichever of the four a function lies in.
__all__ = ["is_fatal", "is_storage_error", "is_uri", "read_error", "retrying", "write_error"]

HIDDEN = re.compile(r"\.[0-9a-f]{12}\.")
"""How names of unfinished files begin."""
MISSING = (FileNotFoundError, NotADirectoryError, IsADirectoryError)
"""Errors that say for certain: no such file is there."""

VERSION_KEYS = (
    "ETag", "etag", "md5Hash", "generation", "content_md5", "LastModified", "last_modified",
    "mtime", "modified", "created",
)  # fmt: skip
"""What filesystems call the mark of a file's content, the surest first."""


@dataclass(frozen=True)
class FileFacts:
    """A file as its storage describes it."""

    uri: str
    size: int
    """Bytes."""
    version: str
    """Changes with the content: the object's tag, else the time of its last change."""


def absolute(path: str) -> str:
    """A URI as it is, a local path (also ``file://``, ``~``) made absolute against the cwd."""
    if is_uri(path):
        return path.rstrip("/")
    return str(Path(path.removeprefix("file://")).expanduser().absolute())


def join(base: str, *parts: str) -> str:
    """Base and parts with single slashes between them."""
    return "/".join([base.rstrip("/"), *(part.strip("/") for part in parts)])


def name_of(path: str) -> str:
    """The last part of a path or URI."""
    return path.rstrip("/").rsplit("/", 1)[-1]


def kind_of(path: str) -> Literal["file", "folder"] | None:
    """What is there: a file, a folder (a prefix with objects beneath it), or nothing.

    Raises:
        StorageError: the storage cannot say.
    """
    if not is_uri(path):
        return "folder" if Path(path).is_dir() else "file" if Path(path).exists() else None
    with told_as(read_error, path):
        try:
            info = remote.call(path, lambda fs, inner: fs.info(inner))
        except FileNotFoundError:
            return None
    return "file" if info["type"] == "file" else "folder"


def exists(path: str) -> bool:
    """True where a file or folder is.

    Raises:
        StorageError: the storage cannot say; an answer that did not come is no "no".
    """
    return kind_of(path) is not None


def facts_of(path: str) -> FileFacts:
    """Size and version of a file.

    Raises:
        StorageError: it is not there, or the storage cannot say.
    """
    with told_as(read_error, path):
        if is_uri(path):
            return _facts(path, remote.call(path, lambda fs, inner: fs.info(inner)))
        status = retrying(Path(path).stat)
        return FileFacts(path, status.st_size, str(status.st_mtime_ns))


def size_bytes(path: str) -> int:
    """Size of a file in bytes.

    Raises:
        StorageError: it is not there, or the storage cannot say.
    """
    return facts_of(path).size


def list_files(folder: str, suffix: str = "", *, recursive: bool = False) -> list[str]:
    """Files directly in a folder whose name ends in suffix, sorted; a missing folder has none.

    Temporary files of unfinished writes (their names begin with a dot) are left out.

    Raises:
        StorageError: the storage cannot say.
    """
    return [found.uri for found in list_facts(folder, suffix, recursive=recursive)]


def list_facts(folder: str, suffix: str = "", *, recursive: bool = False) -> list[FileFacts]:
    """As `list_files`, with each file's size and version."""
    with told_as(read_error, folder):
        if is_uri(folder):
            below = remote.files_below(folder, recursive=recursive)
            found = [_facts(uri, info) for uri, info in below.items()]
        else:
            found = retrying(lambda: list(_local_files(Path(folder), recursive=recursive)))
    named = [(name_of(file.uri), file) for file in found]
    listed = [file for name, file in named if name.endswith(suffix) and not name.startswith(".")]
    return sorted(listed, key=lambda file: file.uri)


def list_folders(folder: str) -> list[str]:
    """As `list_files`, the folders in a folder."""
    with told_as(read_error, folder):
        if is_uri(folder):
            return sorted(remote.folders_in(folder))
        inside = Path(folder).iterdir() if Path(folder).is_dir() else ()
        return sorted(str(path) for path in inside if path.is_dir())


def glob(pattern: str) -> list[str]:
    """Files on a URI that a pattern (``*``, ``?``, ``[ab]``, ``**``) matches, sorted.

    Raises:
        StorageError: the storage cannot say.
    """
    with told_as(read_error, pattern):
        return sorted(remote.matches(pattern))


def read_bytes(path: str) -> bytes:
    """The whole content of a file.

    Raises:
        StorageError: it cannot be read.
    """
    with told_as(read_error, path):
        return _content(path)


def read_blocks(path: str, size: int) -> Iterator[bytes]:
    """The ``size`` bytes of a large file, block by block.

    Raises:
        StorageError: they cannot all be read.
    """
    with told_as(read_error, path):
        yield from remote.blocks(path, size)


def open_read(path: str) -> IO[bytes]:
    """A file opened for binary reading; one behind a URI is fetched whole into memory first.

    What crane-ray keeps is small, and libraries read it in many small steps. Slides, which are
    not small, are staged instead.

    Raises:
        FileNotFoundError: it is not there.
        StorageError: it cannot be fetched.
    """
    if not is_uri(path):
        return open(path, "rb")
    with told_as(read_error, path, but=(FileNotFoundError,)):
        return io.BytesIO(_content(path))


def put_bytes(
    path: str, data: bytes, *, durable: bool = False, by_way_of: str | None = None
) -> None:
    """Writes a file so that readers see the old content, the new, or none; never a part.

    Args:
        path: where; missing folders are made.
        data: the content.
        durable: also survive a power cut (local: fsync before the rename).
        by_way_of: folder on the same filesystem for the unfinished file, which a process that is
            killed leaves there; beside ``path`` where not given. Of no use to URIs.

    Raises:
        StorageError: it cannot be written; what was there before is untouched.
    """

    def put() -> None:
        with _replacing_local(Path(path), by_way_of) as temporary, open(temporary, "wb") as file:
            file.write(data)
            if durable:
                file.flush()
                os.fsync(file.fileno())

    with told_as(write_error, path):
        if is_uri(path):
            remote.upload(path, _hidden(path), lambda fs, inner: fs.pipe_file(inner, data))
        else:
            retrying(put)


@contextmanager
def replacing(path: str) -> Iterator[Path]:
    """A temporary local file that takes the place of ``path`` once the block ends well.

    For libraries that write to a file name of their own (HDF5, images). On a URI the file
    is uploaded in one piece at the end.

    Raises:
        StorageError: no space, no permission, or no such place; nothing is left behind.
    """
    with told_as(write_error, path):
        if not is_uri(path):
            with _replacing_local(Path(path)) as temporary:
                yield temporary
            return
        with tempfile.TemporaryDirectory(prefix="crane-") as folder:
            temporary = Path(folder) / _hidden(path)
            yield temporary
            remote.upload(
                path, temporary.name, lambda fs, inner: fs.put_file(str(temporary), inner)
            )


def remove_tree(path: str) -> None:
    """Removes a file or folder with all beneath it; nothing there is no error.

    Raises:
        StorageError: something there cannot be removed.
    """

    def remove() -> None:
        if Path(path).is_dir():
            shutil.rmtree(path)
        else:
            Path(path).unlink(missing_ok=True)

    with told_as(write_error, path):
        if is_uri(path):
            remote.remove(path)
        else:
            retrying(remove)


def remove_unfinished(folder: str, *, before: float = math.inf) -> None:
    """Removes what killed writers left in a folder itself; an unfinished upload leaves nothing.

    What changed since ``before`` (seconds since the epoch) may be a living writer's and stays.

    Raises:
        StorageError: something there cannot be removed.
    """
    if not is_uri(folder) and Path(folder).is_dir():
        for path in Path(folder).glob(".*"):
            with suppress(FileNotFoundError):  # its writer lives
                if HIDDEN.match(path.name) and path.stat().st_mtime < before:
                    remove_tree(str(path))


def _content(path: str) -> bytes:
    if is_uri(path):
        return bytes(remote.call(path, lambda fs, inner: fs.cat_file(inner)))
    return retrying(Path(path).read_bytes)


@contextmanager
def _replacing_local(target: Path, by_way_of: str | None = None) -> Iterator[Path]:
    target.parent.mkdir(parents=True, exist_ok=True)
    folder = target.parent
    if by_way_of is not None:
        folder = Path(by_way_of)
        folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / _hidden(target.name)
    try:
        yield temporary
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def _hidden(path: str) -> str:
    """A name that no other write has, left out of listings; libraries go by its ending."""
    return f".{uuid.uuid4().hex[:12]}.{name_of(path)}"


def _local_files(folder: Path, *, recursive: bool) -> Iterator[FileFacts]:
    if not folder.is_dir():
        return
    for path in folder.rglob("*") if recursive else folder.iterdir():
        if path.is_file():
            status = path.stat()
            yield FileFacts(str(path), status.st_size, str(status.st_mtime_ns))


def _facts(uri: str, info: dict[str, Any]) -> FileFacts:
    version = next((str(info[key]) for key in VERSION_KEYS if info.get(key)), "")
    return FileFacts(uri, int(info["size"] or 0), version)

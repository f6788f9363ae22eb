"""What is behind URIs (fsspec): opened so that answers are fresh, errors put in words.

Endpoints and credentials come from each provider's own environment variables and files. Errors
come through as the filesystem raises them, after `retrying`; `crane_ray.storage` translates.
"""

import errno
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

import fsspec

from crane_ray.errors import StorageError
from crane_ray.retries import WAITS_S, is_storage_error, may_pass, retrying

Result = TypeVar("Result")

OBJECT_STORES = frozenset({"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "oss", "memory"})
"""An upload there becomes visible whole at its end; elsewhere a rename has to see to that."""

BLOCK_BYTES = 8 * 2**20
BLOCKS_AT_ONCE = 4
"""The wait for one range is spent on others; 32 MiB are held at a time."""

KINDS = {"s3a": "s3", "gcs": "gs", "abfs": "az", "abfss": "az"}
CREDENTIALS = {
    "s3": "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (or AWS_PROFILE, or give the machines "
    "a role), and AWS_ENDPOINT_URL where the server is not Amazon's, on every node",
    "gs": "set GOOGLE_APPLICATION_CREDENTIALS, or give the machines a service account, on every "
    "node",
    "az": "set AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY, or give the machines an "
    "identity, on every node",
}


def is_uri(path: str) -> bool:
    """True for ``scheme://...`` of another filesystem than the local one."""
    return "://" in path and not path.startswith("file://")


def options(uri: str) -> dict[str, Any]:
    """The options of fsspec for a URI.

    Listings are not cached: other nodes write there, too. On S3 an object is read in one stream,
    which cannot mix the old and the new content of one that is replaced meanwhile (s3fs would
    read more than 50 MB in ranges), and which saves a request before each chunk.
    """
    kind = _kind(uri)
    if kind == "s3":
        return {"use_listings_cache": False, "max_concurrency": 1}
    return {"use_listings_cache": False} if kind in CREDENTIALS else {}


def arrow_filesystem(path: str) -> tuple[str, Any]:
    """A folder as Ray Train and Tune take it: its path, and for a URI the filesystem.

    Ours, with the endpoints and credentials of everything else; None for a local path.

    Raises:
        StorageError: see `filesystem`.
    """
    if not is_uri(path):
        return path, None
    from pyarrow.fs import FSSpecHandler, PyFileSystem

    opened, inner = filesystem(path)
    return inner, PyFileSystem(FSSpecHandler(opened))


def filesystem(uri: str) -> tuple[Any, str]:
    """The filesystem of a URI (or local path), and the path on it; usable from any thread.

    Raises:
        StorageError: no package for it is installed, or the URI makes no sense to it.
    """
    try:
        fs, inner = fsspec.core.url_to_fs(uri, **options(uri))
    except (ImportError, ValueError) as error:
        raise StorageError(
            f"{uri}: cannot be opened: {error}; install the fsspec package of that storage "
            "(s3fs, gcsfs, adlfs) on every node"
        ) from error
    fs.invalidate_cache()
    if _kind(uri) == "s3":
        fs.retries = 1  # s3fs's own attempts would multiply botocore's and ours
    return fs, str(inner)


def call(uri: str, action: Callable[[Any, str], Result]) -> Result:
    """The result of an action on a URI's filesystem and path; tried again where that may help."""
    fs, inner = filesystem(uri)
    return retrying(lambda: action(fs, inner))


def blocks(path: str, size: int) -> Iterator[bytes]:
    """The content of a large file (URI or local path) in order, several ranges fetched at once.

    What breaks off or comes short costs its own range alone another attempt.
    """
    fs, inner = filesystem(path) if is_uri(path) else (fsspec.filesystem("file"), path)
    step = BLOCK_BYTES * BLOCKS_AT_ONCE
    for begin in range(0, size, step):
        end = min(begin + step, size)
        starts = range(begin, end, BLOCK_BYTES)
        window = _Window(fs, inner, {start: min(start + BLOCK_BYTES, end) for start in starts})
        yield from retrying(window.fetch)


@dataclass
class _Window:
    """Ranges of a file that are fetched at once; an attempt asks for those that are missing."""

    fs: Any
    inner: str
    ranges: dict[int, int]
    """Stop by start."""
    got: dict[int, bytes] = field(default_factory=dict)

    def fetch(self) -> list[bytes]:
        missing = [start for start in self.ranges if start not in self.got]
        stops = [self.ranges[start] for start in missing]
        paths = [self.inner] * len(missing)
        found = self.fs.cat_ranges(paths, missing, stops, on_error="return")
        problem: BaseException | None = None
        for start, stop, block in zip(missing, stops, found, strict=True):
            if isinstance(block, BaseException):
                problem = problem or block
            elif len(block) != stop - start:
                text = f"{len(block)} of {stop - start} bytes came from {start} on"
                problem = problem or OSError(errno.EIO, text)
            else:
                self.got[start] = bytes(block)
        if problem is not None:
            raise problem
        return [self.got[start] for start in self.ranges]


def files_below(folder: str, *, recursive: bool) -> dict[str, dict[str, Any]]:
    """The files in a folder by URI with what is known of each; a missing folder has none."""

    def files(fs: Any, inner: str) -> dict[str, dict[str, Any]]:
        try:
            found = fs.find(inner, detail=True).values() if recursive else fs.ls(inner, detail=True)
        except FileNotFoundError:
            return {}
        base = inner.rstrip("/")
        return {
            folder.rstrip("/") + info["name"].removeprefix(base): info
            for info in found
            # Consoles leave an empty object "folder/"; a file is listed as its own content.
            if info["type"] == "file" and info["name"].rstrip("/") != base
        }

    return call(folder, files)


def folders_in(folder: str) -> list[str]:
    """The folders directly in a folder by URI; a missing folder has none."""

    def folders(fs: Any, inner: str) -> list[str]:
        try:
            found = fs.ls(inner, detail=True)
        except FileNotFoundError:
            return []
        names = (info["name"].rstrip("/") for info in found if info["type"] == "directory")
        base = inner.rstrip("/")
        return [folder.rstrip("/") + name.removeprefix(base) for name in names if name != base]

    return call(folder, folders)


def matches(pattern: str) -> list[str]:
    """The files on a URI that a pattern matches."""

    def found(fs: Any, inner: str) -> list[str]:
        entries = fs.glob(inner, detail=True).values()
        return [
            str(fs.unstrip_protocol(info["name"])) for info in entries if info["type"] == "file"
        ]

    return call(pattern, found)


def upload(uri: str, temporary_name: str, action: Callable[[Any, str], object]) -> None:
    """Has an action write a file that appears whole: in one PUT, or under a name that it loses.

    Uploads in parts are completed at their end; one that fails is aborted by the client library.
    A process that is killed leaves parts that nobody sees, for the bucket's lifecycle rule
    (AbortIncompleteMultipartUpload) to clear.
    """

    def put(fs: Any, inner: str) -> None:
        if uri.split("://", 1)[0] in OBJECT_STORES:
            action(fs, inner)
            return
        folder = inner.rsplit("/", 1)[0]
        temporary = f"{folder}/{temporary_name}"
        fs.makedirs(folder, exist_ok=True)
        try:
            action(fs, temporary)
            fs.mv(temporary, inner)
        except BaseException:
            with suppress(Exception):  # the first error is the one to tell
                fs.rm_file(temporary)
            raise

    call(uri, put)


def remove(uri: str) -> None:
    """Removes a file or all beneath a prefix; nothing there is no error."""

    def rm(fs: Any, inner: str) -> None:
        with suppress(FileNotFoundError):
            fs.rm(inner, recursive=True)

    call(uri, rm)


def explain(uri: str, error: BaseException) -> tuple[str, int | None]:
    """An error of a remote filesystem in words with the next step, and the errno that fits."""
    text = " ".join(str(error).split()) or type(error).__name__
    credentials = CREDENTIALS.get(_kind(uri), "check the credentials on every node")
    number: int | None = getattr(error, "errno", None)
    if "Credential" in type(error).__name__:
        return f"no credentials: {credentials}", errno.EACCES
    if isinstance(error, PermissionError):
        return f"no permission ({text}): {credentials}", errno.EACCES
    if isinstance(error, FileNotFoundError):
        missing = missing_bucket(uri)
        return missing or f"no such file ({text})", errno.ENXIO if missing else number
    if may_pass(error):
        return (
            f"no answer in {len(WAITS_S) + 1} attempts ({text}); check the network and the "
            "storage's address, then run the same command again",
            number,
        )
    return text, number


def missing_bucket(uri: str) -> str:
    """Why nothing can be there, if the bucket itself is missing; else empty."""
    if _kind(uri) not in CREDENTIALS:
        return ""
    scheme, _, rest = uri.partition("://")
    bucket = rest.split("/", 1)[0]
    try:
        call(f"{scheme}://{bucket}", lambda fs, inner: fs.ls(inner))
    except FileNotFoundError:
        return f"there is no bucket {scheme}://{bucket}; check its name, or make it first"
    except Exception as error:
        if not is_storage_error(error):
            raise
    return ""


def _kind(uri: str) -> str:
    scheme = uri.split("://", 1)[0]
    return KINDS.get(scheme, scheme)

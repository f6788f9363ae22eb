import errno
import os
import pickle
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import pytest
from fsspec.implementations.local import LocalFileSystem
from hypothesis import given, settings
from hypothesis import strategies as st

from crane_ray import remote, retries, storage
from crane_ray.errors import CraneError, StorageError
from crane_ray.retries import WAITS_S


@pytest.fixture(params=["local", "memory"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A folder, or a URI of another filesystem."""
    if request.param == "local":
        yield str(tmp_path / "root")
        return
    memory = fsspec.filesystem("memory")
    yield "memory://root"
    memory.rm("/", recursive=True)


@settings(deadline=None, max_examples=30)
@given(st.binary(max_size=200), st.booleans())
def test_what_is_put_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, durable: bool
) -> None:
    for base in (str(tmp_path_factory.getbasetemp()), "memory://put"):
        path = storage.join(base, "deep", "folder", "a.bin")
        storage.put_bytes(path, data, durable=durable)
        assert storage.read_bytes(path) == data
        assert storage.size_bytes(path) == len(data)
        assert storage.exists(path)


def test_folders_are_listed_without_files_and_what_lies_deeper(tmp_path: Path) -> None:
    for name in ("b/deeper", "a"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "file").touch()
    root = str(tmp_path)
    assert storage.list_folders(root) == [f"{root}/a", f"{root}/b"]
    assert storage.list_folders(f"{root}/gone") == []


def test_a_later_content_takes_the_place_of_the_earlier(root: str) -> None:
    path = storage.join(root, "a")
    storage.put_bytes(path, b"long content")
    storage.put_bytes(path, b"short")
    assert storage.read_bytes(path) == b"short"
    assert len(storage.list_files(root)) == 1


def test_files_are_listed_by_name_without_folders_and_unfinished_ones(root: str) -> None:
    for name in ("b.h5", "a.h5", "c.txt", ".d.h5", "sub/e.h5"):
        storage.put_bytes(storage.join(root, name), b"x")
    names = [path.rsplit("/", 1)[-1] for path in storage.list_files(root)]
    assert names == ["a.h5", "b.h5", "c.txt"]
    found = storage.list_files(root, ".h5")
    assert [path.rsplit("/", 1)[-1] for path in found] == ["a.h5", "b.h5"]
    assert all(storage.read_bytes(path) == b"x" for path in found)


def test_what_is_not_there_is_an_empty_list_no_file_and_an_error(root: str) -> None:
    gone = storage.join(root, "gone")
    assert storage.list_files(gone) == []
    assert not storage.exists(gone)
    with pytest.raises(StorageError, match="gone: cannot be read"):
        storage.read_bytes(gone)


def test_trees_and_files_are_removed_and_nothing_there_is_no_error(root: str) -> None:
    for name in ("tree/a", "tree/sub/b", "file"):
        storage.put_bytes(storage.join(root, name), b"x")
    for name in ("tree", "file", "gone"):
        storage.remove_tree(storage.join(root, name))
        assert not storage.exists(storage.join(root, name))
    assert storage.list_files(root) == []


@pytest.mark.parametrize(
    ("path", "uri"),
    [("s3://b/x", True), ("gs://b", True), ("file:///a", False), ("/a/b", False), ("a", False)],
)
def test_uris_are_told_from_local_paths(path: str, uri: bool) -> None:
    assert storage.is_uri(path) is uri


def test_local_paths_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/me")
    assert storage.absolute("work") == f"{tmp_path}/work"
    assert storage.absolute("file:///data/x") == "/data/x"
    assert storage.absolute("~/x") == "/home/me/x"
    assert storage.absolute("/data/x/") == "/data/x"
    assert storage.absolute("s3://bucket/x/") == "s3://bucket/x"
    assert storage.absolute("/data/*/[ab].svs") == "/data/*/[ab].svs"


def test_parts_are_joined_by_single_slashes() -> None:
    assert storage.join("/a/", "/b/", "c") == "/a/b/c"
    assert storage.join("s3://a", "b") == "s3://a/b"


def test_an_unknown_kind_of_storage_says_what_to_install() -> None:
    with pytest.raises(StorageError, match=r"nope://x: cannot be opened: .*fsspec package"):
        storage.exists("nope://x")


class Broken(Exception):
    """Not an error of storage."""


@pytest.mark.parametrize("error", [Broken(), KeyboardInterrupt(), OSError(errno.EIO, "I/O")])
def test_a_write_that_fails_leaves_the_old_content_and_nothing_else(
    root: str, error: BaseException
) -> None:
    path = storage.join(root, "a.bin")
    storage.put_bytes(path, b"old")
    expected = StorageError if isinstance(error, OSError) else type(error)
    with pytest.raises(expected), storage.replacing(path) as temporary:
        temporary.write_bytes(b"half of the new")
        assert temporary.name.startswith(".")
        assert temporary.name.endswith("a.bin"), "libraries go by the ending"
        raise error
    assert storage.read_bytes(path) == b"old"
    assert not temporary.exists()
    if not storage.is_uri(root):
        assert os.listdir(root) == ["a.bin"]  # noqa: PTH208
    else:
        assert not temporary.parent.exists()


def test_what_killed_writers_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    kept = {"a.bin", ".hidden", ".0123456789ab"}
    left, young = tmp_path / ".0123456789ab.a.bin", tmp_path / ".ba9876543210.a.bin"
    for path in (left, young, *(tmp_path / name for name in kept)):
        path.write_bytes(b"a")
    os.utime(left, (1_000, 1_000))
    storage.remove_unfinished(str(tmp_path), before=2_000)
    assert {path.name for path in tmp_path.iterdir()} == kept | {young.name}
    storage.remove_unfinished(str(tmp_path))
    assert {path.name for path in tmp_path.iterdir()} == kept
    storage.remove_unfinished(str(tmp_path / "nowhere"))


def test_nothing_appears_before_a_write_is_over(root: str) -> None:
    path = storage.join(root, "a.bin")
    with storage.replacing(path) as temporary:
        temporary.write_bytes(b"new")
        assert not storage.exists(path)
        assert storage.list_files(root) == []
    assert storage.read_bytes(path) == b"new"


def test_readers_never_see_a_part(tmp_path: Path) -> None:
    path = str(tmp_path / "a.bin")
    contents = [letter * 300_000 for letter in (b"a", b"b")]
    storage.put_bytes(path, contents[0])
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            for content in contents:
                storage.put_bytes(path, content)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        seen = [storage.read_bytes(path) for _ in range(200)]
    finally:
        stop.set()
        writer.join()
    assert {len(content) for content in seen} == {300_000}
    assert all(content in contents for content in seen)


def test_a_durable_write_is_on_the_disk_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[bool] = []
    path = tmp_path / "a"
    monkeypatch.setattr(os, "fsync", lambda _: synced.append(path.exists()))
    storage.put_bytes(str(path), b"x")
    assert synced == []
    path.unlink()
    storage.put_bytes(str(path), b"x", durable=True)
    assert synced == [False]


@pytest.mark.parametrize(
    ("code", "hint"),
    [
        (errno.ENOSPC, "the disk is full; free space and run the same command again"),
        (errno.EDQUOT, "the quota is used up"),
        (errno.EROFS, "the filesystem is read-only; choose another folder"),
        (errno.EACCES, "no permission to write there"),
        (errno.EPERM, "no permission to write there"),
        (errno.ENOTDIR, "a part of the path is a file"),
        (errno.EEXIST, "a file is in the way of a folder"),
    ],
)
def test_errors_that_meet_every_slide_are_fatal_and_say_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, hint: str
) -> None:
    path = tmp_path / "a.bin"
    storage.put_bytes(str(path), b"old")

    def fail(self: Path, target: Path) -> Path:
        raise OSError(code, "no")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(StorageError, match=rf"a\.bin: cannot be written: {hint}") as caught:
        storage.put_bytes(str(path), b"new")
    assert storage.is_fatal(caught.value)
    assert caught.value.errno == code
    assert isinstance(caught.value, CraneError)
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.bin"]


def test_other_errors_are_not_fatal() -> None:
    assert not storage.is_fatal(storage.write_error("/a", OSError(errno.EIO, "I/O error")))
    assert not storage.is_fatal(StorageError("cannot be read"))
    assert not storage.is_fatal(OSError(errno.ENOSPC, "full")), "of something else than a write"
    assert "I/O error" in str(storage.write_error("/a", OSError(errno.EIO, "I/O error")))


@pytest.mark.parametrize("inside", ["file/a.bin", "file/sub/a.bin"])
def test_a_file_where_a_folder_should_be_is_a_fatal_error(tmp_path: Path, inside: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="choose another folder") as caught:
        storage.put_bytes(str(tmp_path / inside), b"x")
    assert storage.is_fatal(caught.value)


def test_a_folder_cannot_be_read_as_a_file(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="cannot be read: Is a directory"):
        storage.read_bytes(str(tmp_path))


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Attempts follow each other at once; the waits that there would be."""
    waits: list[float] = []
    monkeypatch.setattr("time.sleep", waits.append)
    return waits


class FlakyFileSystem(LocalFileSystem):  # type: ignore[misc]
    """A mount behind a URI whose operations raise what they are told to, in order."""

    protocol = "flaky"
    errors: ClassVar[list[Exception]] = []
    calls: ClassVar[list[str]] = []

    @classmethod
    def _fail(cls, call: str) -> None:
        cls.calls.append(call)
        if cls.errors:
            raise cls.errors.pop(0)

    def info(self, path: str, **more: Any) -> Any:
        self._fail("info")
        return super().info(path, **more)

    def ls(self, path: str, detail: bool = False, **more: Any) -> Any:
        self._fail("ls")
        return super().ls(path, detail, **more)

    def cat_file(self, path: str, start: Any = None, end: Any = None, **more: Any) -> Any:
        self._fail("cat_file")
        return super().cat_file(path, start, end, **more)

    def pipe_file(self, path: str, value: bytes, **more: Any) -> Any:
        Path(path).write_bytes(value[: len(value) // 2])
        self._fail("pipe_file")
        return super().pipe_file(path, value, **more)

    def rm(self, path: str, recursive: bool = False, maxdepth: Any = None) -> None:
        self._fail("rm")
        super().rm(path, recursive, maxdepth)


@pytest.fixture
def flaky(tmp_path: Path) -> Iterator[str]:
    fsspec.register_implementation("flaky", FlakyFileSystem, clobber=True)
    (tmp_path / "a").write_bytes(b"old")
    yield f"flaky://{tmp_path}"
    FlakyFileSystem.errors.clear()
    FlakyFileSystem.calls.clear()


ACTIONS: dict[str, Callable[[str], object]] = {
    "info": lambda base: storage.size_bytes(f"{base}/a"),
    "ls": storage.list_files,
    "cat_file": lambda base: storage.read_bytes(f"{base}/a"),
    "pipe_file": lambda base: storage.put_bytes(f"{base}/a", b"new content"),
    "rm": lambda base: storage.remove_tree(f"{base}/a"),
}
PASSING = [
    OSError(errno.EIO, "I/O error"),
    OSError(errno.ESTALE, "Stale file handle"),
    OSError(errno.EBUSY, "SlowDown"),
    TimeoutError("read timed out"),
    ConnectionResetError(errno.ECONNRESET, "reset"),
]


@pytest.mark.parametrize("name", ACTIONS)
@pytest.mark.parametrize("error", PASSING, ids=lambda error: type(error).__name__)
def test_what_may_pass_is_tried_again_with_longer_waits(
    flaky: str, at_once: list[float], name: str, error: Exception
) -> None:
    FlakyFileSystem.errors[:] = [error] * 4
    ACTIONS[name](flaky)
    assert FlakyFileSystem.calls.count(name) == 5
    assert len(at_once) == 4
    assert all(0.5 <= wait / mean <= 1.5 for wait, mean in zip(at_once, WAITS_S, strict=True))


@pytest.mark.parametrize("name", ACTIONS)
def test_attempts_are_bounded_and_the_error_says_so(
    flaky: str, at_once: list[float], tmp_path: Path, name: str
) -> None:
    FlakyFileSystem.errors[:] = [OSError(errno.EIO, "I/O error")] * 20
    with pytest.raises(StorageError, match=r"no answer in 5 attempts .*I/O error.*run the same"):
        ACTIONS[name](flaky)
    assert len(at_once) == 4
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_bytes() == b"old"


@pytest.mark.parametrize("name", ACTIONS)
@pytest.mark.parametrize("error", [PermissionError("denied"), OSError(errno.EINVAL, "no such key")])
def test_what_will_not_pass_is_not_tried_again(
    flaky: str, at_once: list[float], name: str, error: Exception
) -> None:
    FlakyFileSystem.errors[:] = [error]
    with pytest.raises(StorageError, match=r"denied|no such key"):
        ACTIONS[name](flaky)
    assert at_once == []


def test_mistakes_of_ours_are_no_storage_errors(flaky: str, at_once: list[float]) -> None:
    for name, action in ACTIONS.items():
        FlakyFileSystem.errors[:] = [TypeError(name)]
        with pytest.raises(TypeError, match=name):
            action(flaky)
    assert at_once == []


def test_an_answer_that_did_not_come_is_no_missing_file(flaky: str, at_once: list[float]) -> None:
    """fsspec's own ``exists`` says no to whatever goes wrong: a store would be made anew."""
    FlakyFileSystem.errors[:] = [OSError(errno.EIO, "I/O error")] * 5
    with pytest.raises(StorageError):
        storage.exists(f"{flaky}/a")
    assert storage.exists(f"{flaky}/a")
    assert at_once


def test_uploads_elsewhere_than_to_object_stores_are_renamed_when_whole(
    flaky: str, tmp_path: Path
) -> None:
    """`FlakyFileSystem` writes half a file before it fails: none of it must be seen."""
    FlakyFileSystem.errors[:] = [PermissionError("denied")]
    with pytest.raises(StorageError):
        storage.put_bytes(f"{flaky}/a", b"new content")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"a": b"old"}
    storage.put_bytes(f"{flaky}/deep/b", b"new content")
    with storage.replacing(f"{flaky}/a") as temporary:
        temporary.write_bytes(b"replaced")
    assert storage.read_bytes(f"{flaky}/deep/b") == b"new content"
    assert (tmp_path / "a").read_bytes() == b"replaced"
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a", "b", "deep"]


def test_local_storage_is_tried_again_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_once: list[float]
) -> None:
    path, errors = tmp_path / "a", [OSError(errno.ESTALE, "Stale file handle")] * 2
    real = Path.replace

    def replace(self: Path, target: Path) -> Path:
        if errors:
            raise errors.pop()
        return real(self, target)

    monkeypatch.setattr(Path, "replace", replace)
    storage.put_bytes(str(path), b"x")
    assert path.read_bytes() == b"x"
    assert len(at_once) == 2
    errors[:] = [OSError(errno.ENOSPC, "full")]
    with pytest.raises(StorageError, match="the disk is full"):
        storage.put_bytes(str(path), b"y")
    assert len(at_once) == 2


def test_removal_and_sizes_that_fail_are_errors_of_storage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(StorageError, match="gone: cannot be read: No such file"):
        storage.size_bytes(str(tmp_path / "gone"))
    (tmp_path / "a").touch()

    def refuse(self: Path, missing_ok: bool = False) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(StorageError, match="a: cannot be written: no permission"):
        storage.remove_tree(str(tmp_path / "a"))


@pytest.mark.parametrize(
    ("name", "module", "passes"),
    [
        ("HTTPClientError", "botocore.exceptions", True),
        ("ClientPayloadError", "aiohttp.client_exceptions", True),
        ("ClientPayloadError", "crane_ray.other", False),
        ("ServiceRequestError", "azure.core.exceptions", True),
    ],
)
def test_errors_of_client_libraries_are_known_by_name(name: str, module: str, passes: bool) -> None:
    error = type(name, (Exception,), {"__module__": module})("x")
    assert retries.may_pass(error) is passes
    assert retries.is_storage_error(error) is not module.startswith("crane_ray")
    for status, passing in ((503, True), (404, False)):
        error = type("HttpError", (Exception,), {"__module__": "gcsfs.retry", "code": status})("x")
        assert retries.may_pass(error) is passing


def test_blocks_are_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "BLOCK_BYTES", 10)
    data = bytes(range(256))
    for base in (str(tmp_path), "memory://blocks"):
        for size in (0, 1, 10, 39, 40, 41, 256):
            path = storage.join(base, str(size))
            storage.put_bytes(path, data[:size])
            assert b"".join(storage.read_blocks(path, size)) == data[:size]
        with pytest.raises(StorageError, match="gone: cannot be read"):
            list(storage.read_blocks(storage.join(base, "gone"), 5))


def test_files_are_listed_below_folders_with_their_facts(root: str) -> None:
    for name in ("a", "sub/b", "sub/.c", "sub/deep/d"):
        storage.put_bytes(storage.join(root, name), name.encode())
    found = storage.list_facts(root, recursive=True)
    assert [(facts.uri, facts.size) for facts in found] == [
        (storage.join(root, name), len(name)) for name in ("a", "sub/b", "sub/deep/d")
    ]
    assert storage.facts_of(storage.join(root, "a")).size == 1
    assert storage.list_facts(storage.join(root, "gone"), recursive=True) == []


def test_a_storage_error_keeps_its_errno_across_processes() -> None:
    error = storage.write_error("/data/x", OSError(errno.ENOSPC, "No space left on device"))
    copy = pickle.loads(pickle.dumps(error))
    assert storage.is_fatal(copy)
    assert str(copy) == str(error)

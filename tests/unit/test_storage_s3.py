"""Storage on a real S3 server: whole objects, fresh answers, faults survived or named."""

import errno
import functools
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import h5py
import numpy as np
import pytest

from crane_ray import retries, storage
from crane_ray.errors import StorageError, StoreError
from crane_ray.features.store import SlideHeader
from crane_ray.features.stores.zarr import FORMAT
from crane_ray.slides.workspace import SlideRow, Workspace
from tests.object_storage import PAGE, S3, Client, Fault, Proxy, environment

PART = 50 * 2**20
"""What s3fs uploads at once; from two parts on an upload has several."""


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attempts follow each other without waiting."""
    monkeypatch.setattr(retries, "WAITS_S", (0.0,) * len(retries.WAITS_S))


def every_fourth(first: int, fault: Fault) -> Callable[[str, str, int], Fault | None]:
    """Removing, the longest operation, takes three requests: it can come through in between."""
    return lambda method, path, number: fault if number % 4 == first else None


def always(fault: Fault, method: str, path: str, number: int) -> Fault | None:
    return fault


def test_files_are_written_listed_and_removed_as_on_a_disk(s3: S3) -> None:
    base = s3.uri("plain")
    for name in ("b.h5", "a.h5", ".c.h5", "sub/d.h5", "e.txt"):
        storage.put_bytes(storage.join(base, name), name.encode(), durable=True)
    assert storage.list_files(base, ".h5") == [f"{base}/a.h5", f"{base}/b.h5"]
    assert storage.list_files(f"{base}/", ".h5", recursive=True) == [
        f"{base}/a.h5",
        f"{base}/b.h5",
        f"{base}/sub/d.h5",
    ]
    assert storage.list_folders(base) == [f"{base}/sub"]
    assert storage.list_folders(f"{base}/gone") == []
    assert storage.read_bytes(f"{base}/sub/d.h5") == b"sub/d.h5"
    assert storage.size_bytes(f"{base}/sub/d.h5") == 8
    assert [storage.kind_of(f"{base}{x}") for x in ("", "/sub", "/a.h5", "/su", "/a")] == [
        "folder",
        "folder",
        "file",
        None,
        None,
    ]
    storage.put_bytes(f"{base}/sub2/f", b"")
    storage.remove_tree(f"{base}/sub")
    storage.remove_tree(f"{base}/gone")
    assert s3.client().keys("plain/") == [
        f"plain/{name}" for name in (".c.h5", "a.h5", "b.h5", "e.txt", "sub2/f")
    ]


def test_a_listing_has_many_pages_and_no_placeholder(s3: S3) -> None:
    base, client = s3.uri("pages"), s3.client()
    client.put("pages/", b"")
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: client.put(f"pages/{n:04}.x", b""), range(3 * PAGE)))
    assert storage.list_files(base, ".x") == [f"{base}/{number:04}.x" for number in range(3 * PAGE)]
    storage.remove_tree(base)
    assert client.keys("pages/") == []


def test_answers_are_never_those_of_before(s3: S3) -> None:
    """Others write there, too: what was asked before must not be remembered."""
    base, client = s3.uri("fresh"), s3.client()
    assert storage.list_files(base) == []
    assert not storage.exists(f"{base}/a")
    client.put("fresh/a", b"1")
    assert storage.exists(f"{base}/a")
    assert storage.list_files(base) == [f"{base}/a"]
    first = storage.facts_of(f"{base}/a")
    assert storage.list_facts(base) == [first]
    client.put("fresh/a", b"22")
    client.put("fresh/b", b"")
    assert storage.size_bytes(f"{base}/a") == 2
    assert storage.facts_of(f"{base}/a").version != first.version
    assert storage.list_files(base) == [f"{base}/a", f"{base}/b"]


def test_a_file_that_a_library_wrote_is_uploaded_whole(s3: S3) -> None:
    path = s3.uri("replaced/a.h5")
    with storage.replacing(path) as temporary:
        with h5py.File(temporary, "w") as file:
            file["x"] = np.arange(5)
        assert s3.client().keys("replaced/") == []
    with storage.open_read(path) as raw, h5py.File(raw, "r") as file:
        assert file["x"][:].tolist() == [0, 1, 2, 3, 4]
    with pytest.raises(FileNotFoundError):
        storage.open_read(s3.uri("replaced/gone"))


def test_threads_and_processes_share_nothing_that_breaks(s3: S3) -> None:
    """Clients are made per process, threads may share them; a fork must not inherit a loop."""

    def use(number: int) -> bytes:
        path = s3.uri(f"threads/{number}")
        storage.put_bytes(path, str(number).encode())
        return storage.read_bytes(path)

    assert use(0) == b"0"
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(use, range(40))) == [str(number).encode() for number in range(40)]
    code = f"from crane_ray import storage; print(storage.read_bytes({s3.uri('threads/7')!r}))"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr) == ("b'7'\n", "")


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("first", [1, 2, 3])
@pytest.mark.parametrize("fault", ["refuse", "reset", "cut"])
def test_storage_that_fails_now_and_then_is_survived(
    faulty_s3: Proxy, fault: Fault, first: int
) -> None:
    base = f"s3://cohort/now-and-then/{fault}{first}"
    faulty_s3.fault = every_fourth(first, fault)
    for number in range(4):
        storage.put_bytes(f"{base}/{number}", b"content" * (number + 1))
    assert [storage.name_of(path) for path in storage.list_files(base)] == list("0123")
    assert storage.exists(f"{base}/0")
    assert not storage.exists(f"{base}/9")
    assert [storage.size_bytes(f"{base}/{number}") for number in range(4)] == [7, 14, 21, 28]
    assert storage.read_bytes(f"{base}/3") == b"content" * 4
    storage.remove_tree(base)
    assert storage.list_files(base) == []
    assert len(faulty_s3.seen) > 15


@pytest.mark.usefixtures("at_once")
def test_storage_that_stays_away_is_an_error_after_bounded_attempts(faulty_s3: Proxy) -> None:
    path = "s3://cohort/away/a"
    storage.put_bytes(path, b"old")
    faulty_s3.fault = lambda method, path, number: "refuse"
    for action in (
        lambda: storage.read_bytes(path),
        lambda: storage.open_read(path),
        lambda: storage.put_bytes(path, b"new"),
        lambda: storage.exists(path),
        lambda: storage.list_files("s3://cohort/away"),
        lambda: storage.glob("s3://cohort/away/*"),
        lambda: storage.size_bytes(path),
        lambda: storage.remove_tree(path),
    ):
        faulty_s3.seen.clear()
        with pytest.raises(StorageError, match=r"s3://cohort/away.*: no answer in 5 attempts") as e:
            action()
        assert not storage.is_fatal(e.value), "it may pass"
        assert 5 <= len(faulty_s3.seen) <= 10
    faulty_s3.fault = lambda method, path, number: None
    assert storage.read_bytes(path) == b"old"


@pytest.mark.usefixtures("at_once")
def test_a_server_that_is_not_there_is_named(s3: S3) -> None:
    with (
        environment({**s3.environment, "AWS_ENDPOINT_URL": "http://127.0.0.1:9"}),
        pytest.raises(
            StorageError, match=r"s3://cohort/a: cannot be read: no answer .*127.0.0.1:9"
        ),
    ):
        storage.read_bytes("s3://cohort/a")


def test_errors_say_what_to_do(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(StorageError, match=r"s3://cohort/gone: cannot be read: no such file"):
        storage.read_bytes(s3.uri("gone"))
    no_bucket = r"there is no bucket s3://no-such-bucket; check its name, or make it first"
    for reading in (storage.read_bytes, storage.size_bytes):
        with pytest.raises(StorageError, match=no_bucket):
            reading("s3://no-such-bucket/a")
    with pytest.raises(StorageError, match=no_bucket) as caught:
        storage.put_bytes("s3://no-such-bucket/a", b"x")
    assert storage.is_fatal(caught.value)
    assert caught.value.errno == errno.ENXIO
    bare = {key: value for key, value in s3.environment.items() if "KEY" not in key}
    with (
        environment(bare),
        pytest.raises(
            StorageError, match=r"no credentials: set AWS_ACCESS_KEY_ID .* on every node"
        ) as caught,
    ):
        storage.put_bytes(s3.uri("a"), b"x")
    assert storage.is_fatal(caught.value)


def test_a_refusal_is_fatal_and_not_tried_again(faulty_s3: Proxy) -> None:
    denied = PermissionError("Access Denied")
    error = storage.write_error("s3://cohort/a", denied)
    assert "no permission (Access Denied): set AWS_ACCESS_KEY_ID" in str(error)
    assert storage.is_fatal(error)
    with pytest.raises(StorageError, match="no such file"):
        storage.read_bytes("s3://cohort/none")
    assert [method for method, _ in faulty_s3.seen].count("GET") <= 3


UPLOAD = """
import sys
from crane_ray import storage
storage.put_bytes(sys.argv[1], b"n" * int(sys.argv[2]))
"""


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("size", [1_000_000, 2 * PART], ids=["one PUT", "parts"])
def test_an_upload_that_breaks_off_leaves_the_old_content(
    s3_endpoint: str, faulty_s3: Proxy, size: int
) -> None:
    path = f"s3://cohort/broken/{size}"
    storage.put_bytes(path, b"old")
    faulty_s3.fault = lambda method, path, number: "cut upload" if method == "PUT" else None
    with pytest.raises(StorageError, match=r"cannot be written: no answer in 5 attempts"):
        storage.put_bytes(path, b"n" * size)
    if size < PART:
        with pytest.raises(StorageError), storage.replacing(path) as temporary:
            temporary.write_bytes(b"n" * size)
    faulty_s3.fault = lambda method, path, number: None
    assert storage.read_bytes(path) == b"old"
    client = Client(s3_endpoint)
    assert client.unfinished_uploads() == [], "parts are not left behind"
    faulty_s3.fault = every_fourth(0, "cut upload")
    storage.put_bytes(path, b"n" * size)
    assert client.get(path.removeprefix("s3://cohort/")) == b"n" * size


@pytest.mark.parametrize(
    "parts", [1, 2, 3], ids=["at the first", "at the second", "before the end"]
)
def test_a_writer_killed_in_mid_upload_leaves_the_old_content(faulty_s3: Proxy, parts: int) -> None:
    """Killed when its n-th request with content or for completion has come in, observed here."""
    path = f"s3://cohort/killed/{parts}"
    storage.put_bytes(path, b"old")
    reached, go_on = threading.Event(), threading.Event()
    count = iter(range(1, 100))

    def hold(method: str, request: str, number: int) -> Fault | None:
        if "uploadId" in request and next(count) == parts:
            reached.set()
            go_on.wait(60)
            return "reset"
        return None

    faulty_s3.fault = hold
    writer = subprocess.Popen([sys.executable, "-c", UPLOAD, path, str(2 * PART)])
    try:
        assert reached.wait(60)
        assert storage.read_bytes(path) == b"old"
    finally:
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        go_on.set()
    faulty_s3.fault = lambda method, path, number: None
    assert storage.read_bytes(path) == b"old"
    assert storage.list_files("s3://cohort/killed", str(parts)) == [path]


def test_readers_see_the_old_or_the_new_and_no_mixture(s3: S3) -> None:
    path, stop = s3.uri("mixed"), threading.Event()
    contents = [letter * 400_000 for letter in (b"a", b"b")]
    storage.put_bytes(path, contents[0])

    def write() -> None:
        while not stop.is_set():
            for content in contents:
                storage.put_bytes(path, content)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        seen = {storage.read_bytes(path) for _ in range(60)}
    finally:
        stop.set()
        writer.join()
    assert seen == set(contents)


def test_a_workspace_lies_in_a_bucket(s3: S3) -> None:
    workspace = Workspace(s3.uri("work"))
    assert workspace.read_slides() == {}
    rows = [SlideRow("b", "s3://x/b.svs", "ok", num_patches=3), SlideRow("a", "", "failed")]
    workspace.write_slides(rows)
    assert list(workspace.read_slides().values()) == rows[::-1]
    s3.client().put("work/slides.parquet", s3.client().get("work/slides.parquet")[:-4])
    with pytest.raises(StoreError, match="not a readable table of slides"):
        workspace.read_slides()


CHUNK, ROWS = 4, 22
HEADER = SlideHeader("S", ROWS, 3, "float16", CHUNK, {"slide_id": "S", "mpp": 0.25})
RNG = np.random.default_rng(0)
FEATURES = RNG.normal(size=(ROWS, 3)).astype(np.float16)
XY = RNG.integers(0, 100_000, (ROWS, 2), dtype=np.int32)


def write_shard(path: str, shard: int) -> None:
    rows = slice(8 * shard, 8 * shard + 8)
    FORMAT.write(path, HEADER, rows.start, FEATURES[rows], XY[rows])


def assert_whole(path: str) -> None:
    features, xy = FORMAT.read(path, 0, None)
    assert features.dtype == np.float16
    np.testing.assert_array_equal(features, FEATURES)
    np.testing.assert_array_equal(xy, XY)


def local_files(folder: Path) -> dict[str, bytes]:
    path = FORMAT.path(str(folder), "S")
    for shard in range(3):
        write_shard(path, shard)
    files = (file for file in Path(path).rglob("*") if file.is_file())
    return {f"/{file.relative_to(path)}": file.read_bytes() for file in files}


def test_features_in_a_bucket_are_the_bytes_of_a_local_store(s3: S3, tmp_path: Path) -> None:
    expected = local_files(tmp_path)
    for race in range(5):
        path = FORMAT.path(s3.uri(f"race-{race}"), "S")
        with ThreadPoolExecutor(3) as pool:
            list(pool.map(lambda shard, path=path: write_shard(path, shard), range(3)))
        assert s3.client().content(path.removeprefix("s3://cohort/")) == expected
        assert_whole(path)
    features, xy = FORMAT.read(path, 5, 9)
    np.testing.assert_array_equal(features, FEATURES[5:9])
    np.testing.assert_array_equal(xy, XY[5:9])


def test_features_in_memory_of_another_filesystem(tmp_path: Path) -> None:
    path = FORMAT.path("memory://zarr-test", "S")
    try:
        for shard in (2, 0, 1):
            write_shard(path, shard)
        assert_whole(path)
        found = {file.removeprefix(path): file for file in storage.list_files(path, recursive=True)}
        content = {name: storage.read_bytes(file) for name, file in found.items()}
        assert content == local_files(tmp_path)
    finally:
        storage.remove_tree("memory://zarr-test")


def test_chunks_that_are_missing_or_cut_short_are_no_features(s3: S3) -> None:
    path = FORMAT.path(s3.uri("damage"), "S")
    with pytest.raises(StoreError):
        FORMAT.read(path, 0, None)
    write_shard(path, 0)
    write_shard(path, 2)
    with pytest.raises(StoreError, match="the chunk is missing"):
        FORMAT.read(path, 0, None)
    np.testing.assert_array_equal(FORMAT.read(path, 0, 8)[0], FEATURES[:8])
    write_shard(path, 1)
    assert_whole(path)
    client, base = s3.client(), path.removeprefix("s3://cohort")
    for name, data in client.content(base[1:]).items():
        key = base[1:] + name
        for rest in (data[:-1], b""):
            client.put(key, rest)
            with suppress(StoreError):
                assert_whole(path)
        client.put(key, data)
    assert_whole(path)
    with pytest.raises(StoreError, match="arrays of other patches"):
        other = SlideHeader("S", ROWS, 3, "float16", CHUNK, {"slide_id": "S", "mpp": 0.5})
        FORMAT.write(path, other, 0, FEATURES[:8], XY[:8])


@pytest.mark.usefixtures("at_once")
def test_features_are_written_and_read_through_faults(faulty_s3: Proxy) -> None:
    path = FORMAT.path("s3://cohort/zarr-faults", "S")
    faulty_s3.fault = lambda method, path, number: "refuse" if number % 7 == 3 else None
    for shard in range(3):
        write_shard(path, shard)
    assert_whole(path)


@pytest.mark.usefixtures("at_once")
def test_storage_that_does_not_answer_is_no_damage(faulty_s3: Proxy) -> None:
    """Verification takes slides out for StoreErrors; an outage must not look like one."""
    path = FORMAT.path("s3://cohort/zarr-away", "S")
    write_shard(path, 0)
    faults: tuple[Fault, ...] = ("refuse", "reset")
    for fault in faults:
        faulty_s3.fault = functools.partial(always, fault)
        with pytest.raises(StorageError, match=r"zarr-away.*cannot be read: no answer"):
            FORMAT.read(path, 0, 8)
        with pytest.raises(StorageError, match=r"zarr-away.*: no answer"):
            write_shard(path, 1)
    with pytest.raises(StorageError, match="there is no bucket"):
        faulty_s3.fault = lambda method, path, number: None
        write_shard(FORMAT.path("s3://no-such-bucket/x", "S"), 0)

"""Slides on this node: fetched once, kept while used, bounded, whole, whoever dies."""

import errno
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.local import LocalFileSystem

from crane_ray import remote, retries, storage
from crane_ray.errors import ConfigError, SlideError
from crane_ray.slides.cache_folder import CacheFolder
from crane_ray.slides.companions import content_key, slide_files
from crane_ray.slides.opening import open_staged
from crane_ray.slides.slide import Slide
from crane_ray.slides.slide_cache import IDLE_POLLS, POLL_S, SlideCache
from crane_ray.slides.staging import StagingConfig, default_folder
from tests.object_storage import S3, Proxy

MB = 10**6


@pytest.fixture
def far() -> Iterator[str]:
    """A place that is not on this node."""
    yield "memory://far"
    fsspec.filesystem("memory").rm("/", recursive=True)


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attempts follow each other at once."""
    monkeypatch.setattr(retries, "WAITS_S", (0.0,) * len(retries.WAITS_S))


def put(folder: str, name: str, size: int = MB, seed: int = 0) -> tuple[str, bytes]:
    data = random.Random(f"{name} {seed}").randbytes(size)
    uri = storage.join(folder, name)
    storage.put_bytes(uri, data)
    return uri, data


def cache_at(folder: Path, max_bytes: int = 10 * MB, **more: Any) -> SlideCache:
    return SlideCache(folder / "cache", max_bytes, **{"reserve_bytes": 0, "wait_s": 0.3, **more})


def held(folder: Path) -> list[str]:
    """Names of the files that are whole in the cache."""
    entries = folder / "cache" / "entries"
    return sorted(
        path.name for path in entries.rglob("*") if path.is_file() and path.name[0] != "."
    )


def used(folder: Path) -> list[str]:
    """Names of the files in the cache that somebody uses; the others are gone afterwards."""
    CacheFolder(folder / "cache", 0, 0).evict(MB)
    return held(folder)


def wait_until_held(folder: Path, name: str) -> None:
    deadline = time.monotonic() + 20
    while held(folder) != [name]:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def reads_of(
    monkeypatch: pytest.MonkeyPatch, before: Callable[[], None] = lambda: None
) -> list[str]:
    """Records each file that is fetched; ``before`` runs first."""
    fetched: list[str] = []
    real = storage.read_blocks

    def recorded(path: str, size: int) -> Iterator[bytes]:
        fetched.append(storage.name_of(path))
        before()
        return real(path, size)

    monkeypatch.setattr(storage, "read_blocks", recorded)
    return fetched


def test_a_slide_is_copied_under_its_own_name_and_kept(
    tmp_path: Path, far: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri, data = put(far, "a b.svs")
    fetched, cache = reads_of(monkeypatch), cache_at(tmp_path)
    with cache.lease(uri) as lease:
        assert (lease.path.name, lease.path.read_bytes()) == ("a b.svs", data)
        assert lease.fetched_bytes == len(data)
    with cache_at(tmp_path).lease(uri) as again:
        assert again.path == lease.path
        assert again.fetched_bytes == 0
    assert fetched == ["a b.svs"]
    measures = cache.measures
    assert (measures.leases, measures.fetched_bytes) == (1, len(data))
    assert 0 < measures.fetch_s < measures.waited_s


def test_slides_of_the_same_name_are_two(tmp_path: Path, far: str) -> None:
    (one, first), (two, second) = put(far, "x/a.svs"), put(far, "y/a.svs")
    cache = cache_at(tmp_path)
    with cache.lease(one) as a, cache.lease(two) as b:
        assert (a.path.read_bytes(), b.path.read_bytes()) == (first, second)


def test_local_slides_stay_where_they_are_unless_copies_are_wanted(tmp_path: Path) -> None:
    uri, data = put(str(tmp_path / "mount"), "a.svs")
    with cache_at(tmp_path).lease(uri) as lease:
        assert lease.path == Path(uri)
    with cache_at(tmp_path).lease(str(tmp_path / "gone.svs")) as lease:
        assert lease.path == tmp_path / "gone.svs", "opening says what is wrong with it"
    assert held(tmp_path) == []
    with cache_at(tmp_path, copy_local=True).lease(f"file://{uri}") as lease:
        assert lease.path != Path(uri)
        assert lease.path.read_bytes() == data


def test_a_staged_slide_can_be_opened(tmp_path: Path, slide_path: Path, far: str) -> None:
    storage.put_bytes(storage.join(far, "s.tif"), slide_path.read_bytes())
    slide = Slide("s", storage.join(far, "s.tif"), "case", 0.5)
    staging = StagingConfig(folder=str(tmp_path / "cache"))
    with open_staged(slide, staging, "openslide") as (local, reader):
        assert (local.slide_id, local.case_id, local.mpp) == ("s", "case", 0.5)
        assert (reader.name, reader.info.num_levels) == ("openslide", 3)
        assert used(tmp_path) == [Path(local.uri).name] == ["s.tif"]
    assert used(tmp_path) == []
    with pytest.raises(SlideError, match=r"slide s: s\.tif is a tiled TIFF"):
        open_staged(slide, staging, "image").__enter__()
    assert used(tmp_path) == [], "the copy is let go where its slide cannot be opened"
    near = Slide("s", str(slide_path))
    with open_staged(near, staging) as (same, reader):
        assert same is near
        assert reader.name == "tiff"


def test_a_changed_slide_is_fetched_again_and_users_of_the_old_one_keep_it(
    tmp_path: Path, far: str
) -> None:
    cache = cache_at(tmp_path)
    uri, old = put(far, "a.svs")
    lease = cache.lease(uri)
    _, new = put(far, "a.svs", seed=1)
    with cache.lease(uri) as changed:
        assert changed.path.read_bytes() == new
        assert lease.path.read_bytes() == old


def test_a_slide_that_changes_while_it_is_fetched_is_never_mixed(
    tmp_path: Path, far: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri, _ = put(far, "a.svs")
    seeds = iter([1, 2, 3])

    def change() -> None:
        put(far, "a.svs", seed=next(seeds))

    fetched = reads_of(monkeypatch, change)
    with pytest.raises(SlideError, match=r"a\.svs: it changed 3 times while it was fetched"):
        cache_at(tmp_path).lease(uri)
    assert len(fetched) == 3
    assert held(tmp_path) == []
    monkeypatch.undo()
    with cache_at(tmp_path).lease(uri) as lease:
        assert lease.path.read_bytes() == put(far, "a.svs", seed=3)[1]


def test_the_least_recently_used_goes_first(tmp_path: Path, far: str) -> None:
    cache = cache_at(tmp_path, 3 * MB)
    uris = [put(far, f"{name}.svs")[0] for name in "abcde"]
    for uri in uris[:3]:
        cache.lease(uri).close()
    cache.lease(uris[0]).close()
    cache.lease(uris[3]).close()
    assert held(tmp_path) == ["a.svs", "c.svs", "d.svs"]
    assert len(list((tmp_path / "cache" / "locks").iterdir())) == 3, "locks go with their entries"


def test_what_is_in_use_is_never_evicted(tmp_path: Path, far: str) -> None:
    cache = cache_at(tmp_path, 2 * MB)
    leases = [cache.lease(put(far, f"{name}.svs")[0]) for name in "ab"]
    third = put(far, "c.svs")[0]
    with pytest.raises(SlideError, match=r"c\.svs: no room for 0\.001 GB .* raise --cache-gb"):
        cache.lease(third)
    assert held(tmp_path) == ["a.svs", "b.svs"]
    leases[0].close()
    leases[0].close()
    with cache.lease(third):
        assert held(tmp_path) == ["b.svs", "c.svs"]
    assert leases[1].path.exists()


def test_a_slide_waits_for_room_that_others_give_up(tmp_path: Path, far: str) -> None:
    cache = cache_at(tmp_path, MB, wait_s=30)
    lease = cache.lease(put(far, "a.svs")[0])
    timer = threading.Timer(0.3, lease.close)
    timer.start()
    with cache.lease(put(far, "b.svs")[0]) as second:
        assert second.waited_s > 0.25
        assert held(tmp_path) == ["b.svs"]
    timer.join()


def test_a_slide_larger_than_the_cache_says_what_to_raise(tmp_path: Path, far: str) -> None:
    cache = cache_at(tmp_path, MB)
    small, large = put(far, "a.svs")[0], put(far, "b.svs", MB + 1)[0]
    cache.lease(small).close()
    with pytest.raises(SlideError, match=r"b\.svs: 0\.001 GB, and .* raise --cache-gb"):
        cache.lease(large)
    assert held(tmp_path) == ["a.svs"], "nothing was evicted in vain"


def test_disk_space_is_left_to_others(
    tmp_path: Path, far: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = cache_at(tmp_path, reserve_bytes=10**16, wait_s=60)
    waits: list[float] = []
    monkeypatch.setattr("crane_ray.slides.slide_cache.time.sleep", waits.append)
    with pytest.raises(SlideError, match=r"no room .* free disk space"):
        cache.lease(put(far, "a.svs")[0])
    assert waits == [POLL_S] * IDLE_POLLS, "nobody would give way, however long one waits"


@pytest.mark.parametrize("full_for_ever", [False, True])
def test_a_full_disk_makes_room_once(
    tmp_path: Path, far: str, monkeypatch: pytest.MonkeyPatch, full_for_ever: bool
) -> None:
    cache = cache_at(tmp_path)
    cache.lease(put(far, "old.svs")[0]).close()
    uri, data = put(far, "new.svs")
    real = storage.read_blocks

    def full(path: str, size: int) -> Iterator[bytes]:
        if full_for_ever or "old.svs" in held(tmp_path):
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(path, size)

    monkeypatch.setattr(storage, "read_blocks", full)
    if full_for_ever:
        with pytest.raises(SlideError, match=r"new\.svs: the disk of the cache folder .* is full"):
            cache.lease(uri)
        assert held(tmp_path) == []
    else:
        assert cache.lease(uri).path.read_bytes() == data
        assert held(tmp_path) == ["new.svs"]
    assert not any((tmp_path / "cache" / "partial").iterdir())


def _size_if_there(file: Path) -> int:
    with suppress(FileNotFoundError):
        return file.stat().st_size if file.is_file() else 0
    return 0


def test_sizes_stay_bounded_whatever_happens(tmp_path: Path, far: str) -> None:
    """Random leases, prefetches and ends of use from four threads; the folder is watched."""
    bound, sizes = 500_000, [1_000, 90_000, 240_000, 10_000, 130_000, 60_000, 200_000, 0]
    slides = [put(far, f"{number}.svs", size) for number, size in enumerate(sizes)]
    caches = [cache_at(tmp_path, bound, wait_s=30) for _ in range(2)]
    stop, largest = threading.Event(), [0]

    folder = CacheFolder(tmp_path / "cache", bound, 0)

    def watch() -> None:
        while not stop.wait(0.005):
            with folder._admission():  # else files move from one place to another meanwhile
                files = [file for file in folder.root.rglob("*") if file.name != ".size"]
                sizes = [_size_if_there(file) for file in files]
            largest[0] = max(largest[0], sum(sizes))

    def use(seed: int) -> None:
        rng = random.Random(seed)
        for _ in range(40):
            (uri, data), cache = rng.choice(slides), rng.choice(caches)
            if rng.random() < 0.3:
                cache.prefetch(rng.choice(slides)[0])
            with cache.lease(uri) as lease:
                assert lease.path.read_bytes() == data
                time.sleep(rng.random() * 0.003)
                assert lease.path.read_bytes() == data

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(use, range(4)))
    finally:
        stop.set()
        watcher.join()
    assert bound // 2 < largest[0] <= bound
    for cache in caches:
        cache.drop_prefetched()
    assert CacheFolder(tmp_path / "cache", bound, 0).used_bytes() <= bound


def test_a_lock_whose_file_went_with_its_entry_is_taken_anew(tmp_path: Path) -> None:
    folder = CacheFolder(tmp_path / "cache", MB, 0)
    first = folder.lock("k", shared=False)
    assert first is not None
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(folder.lock, "k", shared=False)
        time.sleep(0.2)  # it has opened the file by now, and waits for its lock
        (tmp_path / "cache" / "locks" / "k").unlink()
        first.close()
        second = waiting.result(20)
    assert second is not None
    assert folder.lock("k", shared=True, wait=False) is None
    second.close()


def test_many_who_ask_at_once_fetch_once(
    tmp_path: Path, far: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri, data = put(far, "a.svs")
    fetched = reads_of(monkeypatch, lambda: time.sleep(0.1))
    caches = [cache_at(tmp_path) for _ in range(6)]
    with ThreadPoolExecutor(6) as pool:
        leases = list(pool.map(lambda cache: cache.lease(uri), caches))
    assert fetched == ["a.svs"]
    assert {lease.path.read_bytes() for lease in leases} == {data}
    assert sum(lease.fetched_bytes for lease in leases) == len(data)


def test_what_was_fetched_ahead_is_there_at_once(
    tmp_path: Path, far: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri, data = put(far, "a.svs")
    fetched = reads_of(monkeypatch, lambda: time.sleep(0.3))
    cache = cache_at(tmp_path)
    for _ in range(2):
        cache.prefetch(uri)
    wait_until_held(tmp_path, "a.svs")
    with cache.lease(uri) as lease:
        assert lease.path.read_bytes() == data
        assert lease.fetched_bytes == 0
    assert fetched == ["a.svs"]


def test_what_is_being_fetched_is_waited_for_and_not_fetched_twice(
    tmp_path: Path, far: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri, data = put(far, "a.svs")
    begun = threading.Event()

    def slowly() -> None:
        begun.set()
        time.sleep(0.3)

    fetched = reads_of(monkeypatch, slowly)
    cache = cache_at(tmp_path)
    cache.prefetch(uri)
    assert begun.wait(20)
    with cache.lease(uri) as lease:
        assert lease.path.read_bytes() == data
    assert fetched == ["a.svs"]


def test_a_slide_fetched_ahead_keeps_nobody_waiting_and_is_fetched_again(
    tmp_path: Path, far: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = cache_at(tmp_path, 2 * MB)
    (first, data), (second, _), (third, _) = (put(far, f"{name}.svs") for name in "abc")
    fetched = reads_of(monkeypatch, lambda: None)
    cache.prefetch(first)
    wait_until_held(tmp_path, "a.svs")
    other = cache_at(tmp_path, 2 * MB)
    with other.lease(second), other.lease(third):
        assert held(tmp_path) == ["b.svs", "c.svs"]
    with cache.lease(first) as lease:
        assert lease.path.read_bytes() == data
    assert sorted(fetched) == ["a.svs", "a.svs", "b.svs", "c.svs"]


def test_what_was_fetched_ahead_gives_way_before_anybody_waits_in_vain(
    tmp_path: Path, far: str
) -> None:
    cache = cache_at(tmp_path, MB, wait_s=30)
    first, second = (put(far, f"{name}.svs")[0] for name in "ab")
    cache.prefetch(first)
    wait_until_held(tmp_path, "a.svs")
    with cache.lease(second):
        assert held(tmp_path) == ["b.svs"]
    with cache.lease(first):
        assert held(tmp_path) == ["a.svs"]


def test_errors_of_fetching_ahead_wait_for_the_lease(
    tmp_path: Path, far: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = cache_at(tmp_path)
    gone = storage.join(far, "gone.svs")
    cache.prefetch(gone)
    time.sleep(0.2)
    with pytest.raises(SlideError, match=r"gone\.svs: cannot be staged: .*no such file"):
        cache.lease(gone)
    uri, data = put(far, "gone.svs")
    cache.prefetch(uri)
    with cache.lease(uri) as lease:
        assert lease.path.read_bytes() == data


class ShortFileSystem(LocalFileSystem):  # type: ignore[misc]
    """Gives less than there is, as a connection does that ends early; now and then, or always."""

    protocol = "short"
    answers: Callable[[], bool] = staticmethod(lambda: False)

    def cat_file(self, path: str, start: int | None = None, end: int | None = None) -> bytes:
        data = bytes(super().cat_file(path, start, end))
        return data if type(self).answers() else data[: len(data) // 2]


@pytest.mark.usefixtures("patient")
def test_a_transfer_cut_short_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fsspec.register_implementation("short", ShortFileSystem, clobber=True)
    monkeypatch.setattr(remote, "BLOCK_BYTES", 100_000)
    path, data = put(str(tmp_path), "a.svs")
    cache = cache_at(tmp_path)
    with pytest.raises(SlideError, match=r"50000 of 100000 bytes came from 0 on"):
        cache.lease(f"short://{path}")
    assert not any((tmp_path / "cache" / "partial").iterdir())
    answers = iter([False, True, True, True] * 30)
    monkeypatch.setattr(ShortFileSystem, "answers", staticmethod(lambda: next(answers)))
    monkeypatch.setattr(remote, "BLOCKS_AT_ONCE", 2)
    with cache.lease(f"short://{path}") as lease:
        assert lease.path.read_bytes() == data


CHILD = """
import sys, time
from pathlib import Path
from crane_ray import storage
from crane_ray.slides.slide_cache import SlideCache
folder, uri, what = sys.argv[1:]
cache = SlideCache(folder, 2_500_000, copy_local=True, reserve_bytes=0, wait_s=30)
if what == "hang":
    real = storage.read_blocks
    def half(path, size):
        block = next(real(path, size))
        yield block[: len(block) // 2]
        print("half", flush=True)
        time.sleep(600)
    storage.read_blocks = half
lease = cache.lease(uri)
print(lease.fetched_bytes, flush=True)
if what == "keep":
    time.sleep(600)
"""


def child(folder: Path, uri: str, what: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, str(folder / "cache"), uri, what],
        stdout=subprocess.PIPE,
        text=True,
    )


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def kill(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGKILL)
    process.communicate()


def test_processes_fetch_once_and_keep_what_they_use(tmp_path: Path) -> None:
    uri, _ = put(str(tmp_path / "far"), "a.svs")
    users = [child(tmp_path, uri, "keep") for _ in range(3)]
    try:
        assert sorted(line(user) for user in users) == ["0", "0", "1000000"]
        cache = cache_at(tmp_path, 2_500_000, copy_local=True)
        cache.lease(put(str(tmp_path / "far"), "b.svs")[0]).close()
        third = put(str(tmp_path / "far"), "c.svs")[0]
        cache.lease(third).close()
        assert held(tmp_path) == ["a.svs", "c.svs"], "the oldest is in use elsewhere"
        cache.lease(third).close()
    finally:
        for user in users:
            kill(user)
    cache.lease(put(str(tmp_path / "far"), "d.svs")[0]).close()
    assert held(tmp_path) == ["c.svs", "d.svs"], "a dead process uses nothing"


def test_what_a_killed_process_fetched_is_fetched_again_whole(tmp_path: Path) -> None:
    uri, data = put(str(tmp_path / "far"), "a.svs")
    dying = child(tmp_path, uri, "hang")
    try:
        assert line(dying) == "half"
        heir = child(tmp_path, uri, "once")
        time.sleep(0.3)
        assert held(tmp_path) == []
        assert heir.poll() is None, "the heir waits for the one who fetches"
    finally:
        kill(dying)
    assert heir.communicate(timeout=60)[0].strip() == str(len(data))
    with cache_at(tmp_path, copy_local=True).lease(uri) as lease:
        assert lease.path.read_bytes() == data


def test_leftovers_of_the_dead_are_swept_and_those_of_the_living_are_not(tmp_path: Path) -> None:
    uri, _ = put(str(tmp_path / "far"), "a.svs")
    partial = tmp_path / "cache" / "partial"
    alive, dying = child(tmp_path, uri, "hang"), None
    try:
        assert line(alive) == "half"
        dying = child(tmp_path, put(str(tmp_path / "far"), "b.svs")[0], "hang")
        assert line(dying) == "half"
        kill(dying)
        assert len(list(partial.iterdir())) == 2
        cache = cache_at(tmp_path, 2_500_000, copy_local=True)
        cache.lease(put(str(tmp_path / "far"), "c.svs")[0]).close()
        assert [path.name for path in partial.rglob("*.svs")] == ["a.svs"]
    finally:
        kill(alive)


def test_a_mirax_slide_comes_with_its_folder(tmp_path: Path, far: str) -> None:
    for name in ("s.mrxs", "s/Slidedat.ini", "s/deep/Data0001.dat", "t.mrxs", "t/other.dat"):
        put(far, name, 1000)
    uri = storage.join(far, "s.mrxs")
    cache = cache_at(tmp_path)
    with cache.lease(uri) as lease:
        assert held(tmp_path) == ["Data0001.dat", "Slidedat.ini", "s.mrxs"]
        assert (lease.path.parent / "s" / "deep" / "Data0001.dat").stat().st_size == 1000
        assert lease.fetched_bytes == 3000
    put(far, "s/deep/Data0001.dat", 1001)
    with cache.lease(uri) as lease:
        assert (lease.path.parent / "s" / "deep" / "Data0001.dat").stat().st_size == 1001


def test_other_formats_of_several_files_come_whole(far: str) -> None:
    for name in ("x.jpg", "y.opt", "other.jpg", "1.dcm", "2.DCM", "a.svs"):
        put(far, name, 10)
    storage.put_bytes(
        storage.join(far, "h.vms"),
        b"[Virtual Microscope Specimen]\r\nImageFile=x.jpg\r\n"
        b"OptimisationFile=y.opt\r\nMacroImage=gone.jpg\r\n",
    )

    def names(name: str) -> list[str]:
        return [file.name for file in slide_files(storage.join(far, name))]

    assert names("h.vms") == ["h.vms", "x.jpg", "y.opt"]
    assert names("1.dcm") == ["1.dcm", "2.DCM"]
    assert names("a.svs") == ["a.svs"]


def test_a_key_stands_for_the_content_of_all_files(far: str) -> None:
    put(far, "s.mrxs", 10)
    uri = storage.join(far, "s.mrxs")
    keys = [content_key(uri, slide_files(uri))]
    put(far, "s/a.dat", 10)
    keys.append(content_key(uri, slide_files(uri)))
    put(far, "s/a.dat", 10, seed=1)
    keys.append(content_key(uri, slide_files(uri)))
    assert len(set(keys)) == 3
    assert content_key(uri, slide_files(uri)) == keys[-1]


def test_the_folder_is_the_users_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache_at(tmp_path)
    assert (tmp_path / "cache").stat().st_mode & 0o777 == 0o700
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "cache")
    for name in ("file", "link"):
        with pytest.raises(ConfigError, match=r"choose another one with --cache-folder"):
            SlideCache(tmp_path / name, MB)
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    with pytest.raises(ConfigError, match="somebody else's"):
        cache_at(tmp_path)


def test_the_config_opens_one_cache_that_leaves_half_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = StagingConfig(folder=str(tmp_path / "c"), max_gb=0.002, local=True)
    cache = config.open_cache()
    assert cache is StagingConfig(folder=str(tmp_path / "c"), max_gb=0.002, local=True).open_cache()
    with pytest.raises(SlideError, match=r"may hold 0\.002 GB"):
        cache.lease(put(str(tmp_path), "a.svs", 2 * MB + 1)[0])
    usage = shutil.disk_usage(tmp_path)._replace(free=MB)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    small = StagingConfig(folder=str(tmp_path / "d"), local=True).open_cache()
    with pytest.raises(SlideError, match=r"may hold 0\.0005 GB"):
        small.lease(put(str(tmp_path), "b.svs", MB)[0])


def test_the_default_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRANE_RAY_CACHE", "/fast/disk")
    assert default_folder() == "/fast/disk"
    monkeypatch.delenv("CRANE_RAY_CACHE")
    assert default_folder().endswith(f"crane-ray-slides-{os.getuid()}")
    with pytest.raises(ConfigError, match="a folder on each node's own disk is needed"):
        StagingConfig.load(overrides=[("folder", "s3://b/x")])


def test_slides_on_s3_are_staged(tmp_path: Path, s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "BLOCK_BYTES", 100_000)
    cache = cache_at(tmp_path)
    uri, data = put(s3.uri("staged"), "a.svs", 1_234_567)
    with cache.lease(uri) as lease:
        assert lease.path.read_bytes() == data
    _, changed = put(s3.uri("staged"), "a.svs", 1_234_567, seed=1)
    with cache.lease(uri) as lease:
        assert lease.path.read_bytes() == changed
    with pytest.raises(SlideError, match=r"gone\.svs: cannot be staged: .*no such file"):
        cache.lease(s3.uri("staged/gone.svs"))


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("fault", ["cut", "reset", "refuse"])
def test_slides_come_whole_through_a_network_that_fails_now_and_then(
    tmp_path: Path, faulty_s3: Proxy, monkeypatch: pytest.MonkeyPatch, fault: Any
) -> None:
    monkeypatch.setattr(remote, "BLOCK_BYTES", 100_000)
    uri, data = put("s3://cohort/faulty", "a.svs", 1_234_567)
    faulty_s3.fault = lambda method, path, number: fault if number % 3 == 1 else None
    with cache_at(tmp_path).lease(uri) as lease:
        assert lease.path.read_bytes() == data
    assert len(faulty_s3.seen) > 16

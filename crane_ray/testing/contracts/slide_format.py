"""What a layout of slide arrays must hold to."""

import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from crane_ray.errors import StorageError, StoreError
from crane_ray.features.store import Array, SlideFormat, SlideHeader

CHUNK_ROWS = 4
SHARD_ROWS = 2 * CHUNK_ROWS
SLIDE_SIZES = (1, CHUNK_ROWS - 1, CHUNK_ROWS, SHARD_ROWS, SHARD_ROWS + 1, 3 * SHARD_ROWS - 2)
"""Below, at and above a chunk and a shard, with whole and partial last ones."""
RACES = 20

Files = dict[str, bytes]


def check_slide_format(slide_format: SlideFormat, folder: Path | str) -> None:
    """Holds a slide format to `SlideFormat`.

    Args:
        slide_format: a layout of slide arrays.
        folder: an empty local folder to write in.

    Raises:
        AssertionError: rows are not read back as written, bytes depend on who wrote when, or
            something missing or cut short is read as if it were there.
    """
    folder = Path(folder)
    _check_paths(slide_format)
    for dtype in ("float16", "float32"):
        for num_patches in SLIDE_SIZES:
            case = _Case(slide_format, folder / f"{dtype}-{num_patches}", num_patches, dtype)
            case.check_orders()
            case.check_ranges()
    _Case(slide_format, folder / "race", 3 * SHARD_ROWS, "float16").check_writers_at_once()
    for num_patches in (CHUNK_ROWS - 1, SHARD_ROWS + 1, 2 * SHARD_ROWS):
        case = _Case(slide_format, folder / f"gap-{num_patches}", num_patches, "float16")
        case.check_gaps()
        case.check_damage()
    _Case(slide_format, folder / "other", SHARD_ROWS, "float16").check_other_patches()
    _check_unwritable(slide_format, folder)


class _Case:
    """One slide of known content, written in several ways below a folder of its own."""

    def __init__(
        self, slide_format: SlideFormat, folder: Path, num_patches: int, dtype: str
    ) -> None:
        rng = np.random.default_rng(num_patches)
        self.format, self.folder, self.num_patches = slide_format, folder, num_patches
        self.features = rng.normal(size=(num_patches, 6)).astype(dtype)
        self.features[-CHUNK_ROWS:] = 0  # a chunk of zeros is data, too
        self.xy = rng.integers(0, 100_000, (num_patches, 2), dtype=np.int32)
        self.xy[-CHUNK_ROWS:] = 0
        facts: dict[str, Any] = {"slide_id": "S 1.a", "mpp": 0.25, "target_mpp": None, "xy": [1, 2]}
        self.header = SlideHeader("S 1.a", num_patches, 6, dtype, CHUNK_ROWS, facts)
        self.shards = list(range(-(-num_patches // SHARD_ROWS)))

    def path(self, name: str) -> str:
        return self.format.path(str(self.folder / name), self.header.slide_id)

    def write(self, path: str, shards: Sequence[int]) -> Files:
        for shard in shards:
            self.write_shard(path, shard)
        return _files(path)

    def write_shard(self, path: str, shard: int) -> None:
        start = shard * SHARD_ROWS
        rows = slice(start, start + SHARD_ROWS)
        self.format.write(path, self.header, start, self.features[rows], self.xy[rows])

    def read_whole(self, path: str, what: str) -> None:
        self.require_rows(*self.format.read(path, 0, self.num_patches), 0, what)

    def require_rows(self, features: Array, xy: Array, start: int, what: str) -> None:
        rows = slice(start, start + len(features))
        assert features.dtype == self.features.dtype, f"{what}: features are {features.dtype}"
        assert xy.dtype == np.int32, f"{what}: coordinates are {xy.dtype}, not int32"
        assert np.array_equal(features, self.features[rows]), f"{what}: other features read back"
        assert np.array_equal(xy, self.xy[rows]), f"{what}: other coordinates read back"

    def check_orders(self) -> None:
        once = self.write(self.path("once"), self.shards)
        self.read_whole(self.path("once"), "written once")
        assert self.write(self.path("once"), self.shards[-1:]) == once, (
            "writing a shard again changed the bytes on disk"
        )
        turned = self.shards[::-1]
        for shards in (turned, [*turned[1:], *turned]):
            path = self.path(f"order-{len(shards)}")
            assert self.write(path, shards) == once, f"shards written as {shards}: other bytes"
            self.read_whole(path, f"shards written as {shards}")

    def check_ranges(self) -> None:
        path = self.path("once")
        for start in range(self.num_patches):
            for stop in (start + 1, self.num_patches, None):
                features, xy = self.format.read(path, start, stop)
                assert len(features) == len(xy) == (stop or self.num_patches) - start, (
                    f"rows {start} to {stop}: {len(features)} read"
                )
                self.require_rows(features, xy, start, f"rows {start} to {stop}")

    def check_writers_at_once(self) -> None:
        alone = self.write(self.path("alone"), self.shards)
        for race in range(RACES):
            path = self.path(f"race-{race}")
            errors = self.write_at_once(path)
            assert not errors, f"writers of different shards at once: {errors[0]!r}"
            assert _files(path) == alone, "writers of different shards at once: other bytes"

    def write_at_once(self, path: str) -> list[Exception]:
        barrier, errors = threading.Barrier(len(self.shards)), list[Exception]()

        def write(shard: int) -> None:
            barrier.wait()
            try:
                self.write_shard(path, shard)  # others' files come and go: none is read yet
            except Exception as error:
                errors.append(error)

        threads = [threading.Thread(target=write, args=(shard,)) for shard in self.shards]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return errors

    def check_gaps(self) -> None:
        """A shard that nobody wrote is an error, and none of the others' business."""
        assert _refused(self.format, self.path("never"), None), "a slide never written is read"
        for shard in self.shards[1:]:
            path = self.path(f"without-{shard}")
            self.write(path, [other for other in self.shards if other != shard])
            rows = (shard * SHARD_ROWS, min((shard + 1) * SHARD_ROWS, self.num_patches))
            assert _refused(self.format, path, None, rows[0]), "a missing shard is read as data"
            self.require_rows(*self.format.read(path, 0, rows[0]), 0, "beside a missing shard")

    def check_damage(self) -> None:
        """With any file gone or cut short, the rows are as they were or not given at all."""
        path = self.path("damaged")
        for name, data in self.write(path, self.shards).items():
            file = Path(path, name) if name else Path(path)
            for what, rest in (("gone", None), ("cut short", data[:-1]), ("empty", b"")):
                file.unlink()
                if rest is not None:
                    file.write_bytes(rest)
                if not _refused(self.format, path, self.num_patches):
                    self.read_whole(path, f"{name} {what}")
                file.write_bytes(data)

    def check_other_patches(self) -> None:
        path = self.path("other")
        before = self.write(path, self.shards)
        other = replace(self.header, facts={**self.header.facts, "mpp": 0.5})
        try:
            self.format.write(path, other, 0, self.features, self.xy)
        except StoreError:
            assert _files(path) == before, "a refused write changed the bytes on disk"
        else:
            raise AssertionError("arrays with other facts were written into")


def _refused(slide_format: SlideFormat, path: str, stop: int | None, start: int = 0) -> bool:
    try:
        slide_format.read(path, start, stop)
    except StoreError:
        return True
    return False


def _files(path: str) -> Files:
    """Content by path below; a layout of one file a slide has the name ''."""
    root = Path(path)
    if root.is_file():
        return {"": root.read_bytes()}
    files = (file for file in root.rglob("*") if file.is_file())
    return {file.relative_to(root).as_posix(): file.read_bytes() for file in files}


def _check_paths(slide_format: SlideFormat) -> None:
    names = ("a", "a.b", "a b", "A", "a.1")
    paths = {slide_format.path("root/slides", name) for name in names}
    assert len(paths) == len(names), "two slides share a path"
    assert all(path.startswith("root/slides/") for path in paths), "a path outside slides/"


def _check_unwritable(slide_format: SlideFormat, folder: Path) -> None:
    """A file stands where the store's folder should be: an error of storage, as a full disk."""
    blocked = folder / "blocked"
    blocked.write_bytes(b"")
    try:
        _Case(slide_format, blocked, 1, "float16").write(
            slide_format.path(str(blocked), "S 1.a"), [0]
        )
    except StorageError:
        return
    raise AssertionError("a place that cannot be written did not raise StorageError")

"""Open slides: shared by shards, opened again after an error, closed once and never in use."""

import random
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pytest

from crane_ray.errors import SlideError
from crane_ray.slides import handles
from crane_ray.slides.handles import OpenSlides
from crane_ray.slides.patches import PatchGeometry, PatchGrid, PatchSpec
from crane_ray.slides.slide import Slide, SlideInfo

Image = npt.NDArray[np.uint8]
SIZE_PX = 8
GRID = PatchGrid(
    "a",
    PatchSpec(size_px=SIZE_PX, level=0),
    PatchGeometry(0, SIZE_PX, (SIZE_PX, SIZE_PX), (SIZE_PX, SIZE_PX)),
    np.stack([np.arange(20) * SIZE_PX, np.zeros(20, dtype=np.int64)], axis=1),
)
INFO = SlideInfo("fake", ((400, 8),), (1.0,))
Decode = Callable[["FakeReader", int], None]


@dataclass
class Backend:
    """Stands for a decoding library: its handles, and whatever is done wrong with them."""

    decode: Decode = lambda reader, x: None
    """Raises where a pixel cannot be decoded."""
    opened: list["FakeReader"] = field(default_factory=list)
    asked: list[tuple[str, str]] = field(default_factory=list)
    """uri and reader's name of each opening."""
    broken: set[str] = field(default_factory=set)
    """Slides that cannot be opened."""
    lock: Any = field(default_factory=threading.Lock)

    def open(self, slide: Slide, reader: str) -> "FakeReader":
        if slide.slide_id in self.broken:
            raise SlideError(f"slide {slide.slide_id}: not a slide")
        self.asked.append((slide.uri, reader))
        self.opened.append(FakeReader(self, slide))
        return self.opened[-1]

    def closings(self) -> list[int]:
        return [reader.closed for reader in self.opened]


class FakeReader:
    name = "fake"
    info = INFO

    def __init__(self, backend: Backend, slide: Slide) -> None:
        self.backend, self.slide = backend, slide
        self.closed = self.reading = 0
        self.latched = False

    def read_region(self, xy: tuple[int, int], level: int, size: tuple[int, int]) -> Image:
        with self.backend.lock:
            assert not self.closed, "a closed handle takes the process down"
            self.reading += 1
        try:
            self.backend.decode(self, xy[0])
            return np.full((size[1], size[0], 3), xy[0] % 251, dtype=np.uint8)
        finally:
            with self.backend.lock:
                self.reading -= 1

    def close(self) -> None:
        with self.backend.lock:
            assert not self.reading
            self.closed += 1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


@dataclass
class FakeCopy:
    path: Path
    closed: int = 0

    def close(self) -> None:
        self.closed += 1


class FakeCache:
    """Slides that are far away."""

    def __init__(self) -> None:
        self.prefetched: list[str] = []
        self.copies: list[FakeCopy] = []
        self.broken = False
        self.dropped = 0

    def prefetch(self, uri: str) -> None:
        self.prefetched.append(uri)

    def drop_prefetched(self) -> None:
        self.dropped += 1

    def lease(self, uri: str) -> FakeCopy:
        if self.broken:
            raise SlideError(f"{uri}: cannot be fetched")
        self.copies.append(FakeCopy(Path("/near") / Path(uri).name))
        return self.copies[-1]


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> Backend:
    backend = Backend()
    monkeypatch.setattr(handles, "open_slide", backend.open)
    return backend


def slide(slide_id: str) -> Slide:
    return Slide(slide_id, f"/far/{slide_id}.svs")


def pixels(rows: int) -> Image:
    return np.zeros((rows, SIZE_PX, SIZE_PX, 3), dtype=np.uint8)


def test_shards_of_a_slide_share_one_handle(backend: Backend) -> None:
    slides = OpenSlides()
    one, two = slides.use(slide("a")), slides.use(slide("a"))
    assert one is two
    slides.release(one)
    slides.release(two)
    assert slides.use(slide("a")) is one, "the last slide stays open for its next shard"
    slides.release(one)
    assert backend.closings() == [0]
    slides.close()
    assert backend.closings() == [1]


def test_the_reader_asked_for_is_taken_each_time(backend: Backend) -> None:
    slides = OpenSlides(reader="openslide")
    opened = slides.use(slide("a"))
    opened.open_again().close()
    assert backend.asked == [("/far/a.svs", "openslide")] * 2
    OpenSlides().use(slide("b"))
    assert backend.asked[-1] == ("/far/b.svs", "auto")


def test_a_slide_is_closed_when_the_next_is_open_and_no_shard_needs_it(backend: Backend) -> None:
    slides = OpenSlides()
    first = slides.use(slide("a"))
    slides.use(slide("a"))
    second = slides.use(slide("b"))
    assert backend.closings() == [0, 0]
    slides.release(first)
    assert backend.closings() == [0, 0]
    slides.release(first)
    assert backend.closings() == [1, 0]
    slides.release(second)
    assert backend.closings() == [1, 0]
    slides.use(slide("c"))
    assert backend.closings() == [1, 1, 0]


def test_closing_waits_for_the_shards_under_way(backend: Backend) -> None:
    slides = OpenSlides()
    opened = slides.use(slide("a"))
    slides.close()
    assert backend.closings() == [0]
    slides.release(opened)
    assert backend.closings() == [1]
    slides.close()
    assert backend.closings() == [1]


def test_a_slide_that_does_not_open_costs_the_others_nothing(backend: Backend) -> None:
    slides = OpenSlides()
    backend.broken = {"b"}
    first = slides.use(slide("a"))
    for _ in range(2):
        with pytest.raises(SlideError, match="not a slide"):
            slides.use(slide("b"))
    first.fill(GRID, np.arange(2), pixels(2))
    slides.release(first)
    again = slides.use(slide("a"))
    again.fill(GRID, np.arange(2), pixels(2))
    slides.release(again)
    slides.close()
    assert set(backend.closings()) == {1}


def test_a_read_that_fails_once_succeeds_on_a_new_handle(backend: Backend) -> None:
    def decode(reader: FakeReader, x: int) -> None:
        if reader is backend.opened[0]:
            raise SlideError("a moment's trouble")

    backend.decode = decode
    slides = OpenSlides()
    opened = slides.use(slide("a"))
    out = pixels(3)
    opened.fill(GRID, np.array([4, 0, 2]), out)
    assert out[:, 0, 0, 0].tolist() == [32, 0, 16]
    assert opened.spoilt
    assert backend.closings() == [0, 1], "the new handle is closed, others may use the old one"


def latching(broken_x: int) -> Decode:
    """OpenSlide: a handle's first error comes back at every later place."""

    def decode(reader: FakeReader, x: int) -> None:
        reader.latched = reader.latched or x == broken_x
        if reader.latched:
            raise SlideError("cannot be decoded")

    return decode


def test_only_what_is_broken_fails_on_handles_that_repeat_their_first_error(
    backend: Backend,
) -> None:
    backend.decode = latching(3 * SIZE_PX)
    opened = OpenSlides().use(slide("a"))
    with pytest.raises(SlideError, match="cannot be decoded"):
        opened.fill(GRID, np.arange(2, 5), pixels(3))
    out = pixels(3)
    opened.fill(GRID, np.arange(4, 7), out)
    assert out[:, 0, 0, 0].tolist() == [32, 40, 48]
    assert backend.closings() == [0, 1, 1]


def test_the_next_shard_gets_a_handle_without_errors(backend: Backend) -> None:
    backend.decode = latching(0)
    slides = OpenSlides()
    spoilt = slides.use(slide("a"))
    with pytest.raises(SlideError):
        spoilt.fill(GRID, np.arange(2), pixels(2))
    fresh = slides.use(slide("a"))
    assert fresh is not spoilt
    fresh.fill(GRID, np.arange(5, 9), pixels(4))
    assert not fresh.spoilt
    assert backend.closings() == [0, 1, 0]
    slides.release(spoilt)
    assert backend.closings() == [1, 1, 0]


def test_a_bug_is_not_tried_again(backend: Backend) -> None:
    def decode(reader: FakeReader, x: int) -> None:
        raise KeyError(x)

    backend.decode = decode
    opened = OpenSlides().use(slide("a"))
    with pytest.raises(KeyError):
        opened.fill(GRID, np.arange(2), pixels(2))
    assert len(backend.opened) == 1


def test_copies_are_read_and_let_go_with_their_slides(backend: Backend) -> None:
    cache = FakeCache()
    slides = OpenSlides(cache_for=lambda uri: cache)
    slides.expect(slide("a"))
    slides.expect(slide("a"))
    slides.expect(slide("b"))
    assert cache.prefetched == ["/far/a.svs", "/far/b.svs"]
    first = slides.use(slide("a"))
    assert first.slide == slide("a")
    first.open_again().close()
    assert [uri for uri, _ in backend.asked] == ["/near/a.svs"] * 2
    second = slides.use(slide("b"))
    assert [copy.closed for copy in cache.copies] == [0, 0]
    slides.release(first)
    assert [copy.closed for copy in cache.copies] == [1, 0]
    slides.release(second)
    slides.close()
    assert [copy.closed for copy in cache.copies] == [1, 1]
    assert cache.dropped == 1
    assert backend.closings() == [1, 1, 1]


def test_the_copy_of_a_slide_that_does_not_open_is_let_go(backend: Backend) -> None:
    cache = FakeCache()
    backend.broken = {"a"}
    slides = OpenSlides(cache_for=lambda uri: cache)
    with pytest.raises(SlideError, match="not a slide"):
        slides.use(slide("a"))
    assert [copy.closed for copy in cache.copies] == [1]
    cache.broken = True
    with pytest.raises(SlideError, match="cannot be fetched"):
        slides.use(slide("b"))
    slides.close()


def test_waits_for_copies_are_told(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([10.0, 14.5])
    monkeypatch.setattr("crane_ray.slides.handles.time.perf_counter", lambda: next(now))
    cache = FakeCache()
    slides = OpenSlides(cache_for=lambda uri: cache if "a" in Path(uri).name else None)
    assert slides.use(slide("a")).waited == (10.0, 14.5)
    near = slides.use(slide("b"))
    assert near.waited is None
    assert near.reader.slide.uri == "/far/b.svs", "read where it lies"  # type: ignore[attr-defined]
    assert len(cache.copies) == 1


@pytest.mark.parametrize("part", ["reader", "copy"])
def test_what_cannot_be_closed_harms_nobody(
    backend: Backend, part: str, caplog: pytest.LogCaptureFixture
) -> None:
    def broken() -> None:
        raise OSError("stale file handle")

    cache = FakeCache()
    slides = OpenSlides(cache_for=lambda uri: cache)
    opened = slides.use(slide("a"))
    getattr(opened, part).close = broken
    slides.release(opened)
    slides.use(slide("b"))
    assert "slide a could not be closed: stale file handle" in caplog.text
    other = [cache.copies[0].closed] if part == "reader" else [backend.opened[0].closed]
    assert other == [1]


@pytest.mark.parametrize("seed", range(5))
def test_every_handle_and_copy_is_closed_once_and_never_in_use(backend: Backend, seed: int) -> None:
    """One thread opens, many decode and let go, some reads fail: as the pipeline does it."""
    rng = random.Random(seed)
    cache = FakeCache()
    slides = OpenSlides(cache_for=lambda uri: cache)
    backend.decode = latching(7 * SIZE_PX)
    failures = Counter[bool]()

    def work(opened: handles.OpenedSlide, first: int) -> None:
        try:
            opened.fill(GRID, np.arange(first, first + 2), pixels(2))
            failures[False] += 1
        except SlideError:
            failures[True] += 1
        finally:
            slides.release(opened)

    with ThreadPoolExecutor(6) as pool:
        done = [
            pool.submit(work, slides.use(slide(rng.choice("abc"))), rng.randrange(18))
            for _ in range(200)
        ]
        for future in done:
            future.result()
    slides.close()
    assert set(backend.closings()) == {1}
    assert {copy.closed for copy in cache.copies} == {1}
    assert failures[True]
    assert failures[False]

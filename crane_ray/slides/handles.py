"""Open slides that several shards share, each closed when the last of them is done with it."""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from crane_ray.errors import SlideError
from crane_ray.slides.batches import Pixels, Rows, fill_patches
from crane_ray.slides.opening import open_slide
from crane_ray.slides.patches import PatchGrid
from crane_ray.slides.slide import Slide, SlideReader

log = logging.getLogger(__name__)


class LocalCopy(Protocol):
    """A slide's file on this node; it stays there until closed."""

    path: Path

    def close(self) -> None:
        """The file may go."""
        ...


class Cache(Protocol):
    """Brings slides from far storage to this node (`crane_ray.slides.slide_cache.SlideCache`)."""

    def prefetch(self, uri: str) -> None:
        """Begins to fetch a slide that will be needed soon."""
        ...

    def lease(self, uri: str) -> LocalCopy:
        """The slide's file on this node, waited for.

        Raises:
            SlideError: it cannot be fetched.
        """
        ...

    def drop_prefetched(self) -> None:
        """Lets go of what was fetched and never leased."""
        ...


@dataclass
class OpenedSlide:
    """One open slide; safe to read from several threads."""

    slide: Slide
    reader: SlideReader
    open_again: Callable[[], SlideReader]
    copy: LocalCopy | None = None
    waited: tuple[float, float] | None = None
    """When the wait for its copy began and ended (`time.perf_counter`)."""
    users: int = 0
    spoilt: bool = False
    """A read failed: OpenSlide repeats a handle's first error at every later place."""
    retired: bool = False

    def fill(self, grid: PatchGrid, rows: Rows, out: Pixels) -> None:
        """Decodes patches as `fill_patches` does; what fails is tried once more on a new handle.

        Raises:
            SlideError: it fails there, too.
        """
        try:
            fill_patches(self.reader, grid, rows, out)
        except SlideError:
            self.spoilt = True
            with self.open_again() as reader:
                fill_patches(reader, grid, rows, out)

    def close(self) -> None:
        """Closes the file; what fails there costs no shard anything, its pixels are read."""
        for held in (self.reader, self.copy):
            try:
                if held is not None:
                    held.close()
            except Exception as error:
                log.warning("slide %s could not be closed: %s", self.slide.slide_id, error)


class OpenSlides:
    """Opens slides one after the other; the last one stays open for the next shard of it."""

    def __init__(
        self, *, reader: str = "auto", cache_for: Callable[[str], Cache | None] = lambda uri: None
    ) -> None:
        """Opens slides with a reader; ``cache_for`` says what brings a uri here, if it is far."""
        self._reader = reader
        self._cache_for = cache_for
        self._cache: Cache | None = None
        self._lock = threading.Lock()
        self._current: OpenedSlide | None = None
        self._expected: Slide | None = None

    def expect(self, slide: Slide) -> None:
        """Begins to fetch a slide's file if it is far away; told in the order of use.

        Once for shards of the same slide that follow one another: they share one copy.
        """
        if slide != self._expected:
            cache = self._cache_of(slide)
            if cache is not None:
                cache.prefetch(slide.uri)
        self._expected = slide

    def use(self, slide: Slide) -> OpenedSlide:
        """The slide, open; `release` it afterwards.

        Raises:
            SlideError: it cannot be fetched or opened.
        """
        current = self._current
        if current is None or current.slide != slide or current.spoilt:
            self._retire()  # first: its copy may have to make room for the next one
            current = self._open(slide)
            with self._lock:
                self._current = current
        with self._lock:
            current.users += 1
        return current

    def release(self, opened: OpenedSlide) -> None:
        """One user less; the last one of a slide that is not the current one closes it."""
        with self._lock:
            opened.users -= 1
            last = opened.retired and not opened.users
        if last:
            opened.close()

    def close(self) -> None:
        """Closes the current slide (once its users are done)."""
        self._retire()
        if self._cache is not None:
            self._cache.drop_prefetched()

    def _open(self, slide: Slide) -> OpenedSlide:
        cache = self._cache_of(slide)
        if cache is None:
            return OpenedSlide(slide, self._open_reader(slide), lambda: self._open_reader(slide))
        begun = time.perf_counter()
        copy = cache.lease(slide.uri)
        waited = (begun, time.perf_counter())
        local = replace(slide, uri=str(copy.path))
        try:
            reader = self._open_reader(local)
        except BaseException:
            copy.close()
            raise
        return OpenedSlide(slide, reader, lambda: self._open_reader(local), copy, waited)

    def _cache_of(self, slide: Slide) -> Cache | None:
        cache = self._cache_for(slide.uri)
        self._cache = cache or self._cache
        return cache

    def _open_reader(self, slide: Slide) -> SlideReader:
        return open_slide(slide, self._reader)

    def _retire(self) -> None:
        with self._lock:
            current, self._current = self._current, None
            unused = current is not None and not current.users
            if current is not None:
                current.retired = True
        if current is not None and unused:
            current.close()

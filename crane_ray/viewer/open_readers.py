"""Open slides, a bounded number of them: the one not looked at for longest is closed first."""

import logging
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from crane_ray.errors import SlideError
from crane_ray.slides.opening import open_staged
from crane_ray.slides.slide import Slide, SlideReader
from crane_ray.slides.staging import StagingConfig

log = logging.getLogger(__name__)

Key = tuple[str, str]
"""Uri and version of a file: one that is replaced is opened anew."""


@dataclass
class _Held:
    """An open slide, or one that is being opened."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    stack: ExitStack = field(default_factory=ExitStack)
    reader: SlideReader | None = None
    users: int = 0
    retired: bool = False


class OpenReaders:
    """Readers of slides that several requests share; safe to use from several threads."""

    def __init__(self, capacity: int, *, reader: str, staging: StagingConfig) -> None:
        self._capacity = capacity
        self._reader = reader
        self._staging = staging
        self._held: OrderedDict[Key, _Held] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._held)

    @contextmanager
    def use(self, slide: Slide, version: str) -> Iterator[SlideReader]:
        """The slide's reader, good inside the block.

        A reader that fails is closed: OpenSlide repeats a handle's first error for ever.

        Raises:
            SlideError: it cannot be opened; or what fails inside the block.
        """
        key = (slide.uri, version)
        held = self._take(key)
        try:
            yield self._open(held, slide)
        except SlideError:
            self._retire(key, held)
            raise
        finally:
            self._give_back(held)

    def close(self) -> None:
        """Closes all; those in use when their last user is done."""
        with self._lock:
            everything = list(self._held.items())
        for key, held in everything:
            self._retire(key, held)

    def _take(self, key: Key) -> _Held:
        with self._lock:
            held = self._held.setdefault(key, _Held())
            self._held.move_to_end(key)
            held.users += 1
            surplus = list(self._held.items())[: max(0, len(self._held) - self._capacity)]
        for old_key, old in surplus:
            self._retire(old_key, old)
        return held

    def _open(self, held: _Held, slide: Slide) -> SlideReader:
        with held.lock:  # the others who want this very slide wait for it
            if held.reader is None:
                opened = open_staged(slide, self._staging, self._reader)
                _, held.reader = held.stack.enter_context(opened)
            return held.reader

    def _give_back(self, held: _Held) -> None:
        with self._lock:
            held.users -= 1
            last = held.retired and not held.users
        if last:
            _close(held)

    def _retire(self, key: Key, held: _Held) -> None:
        with self._lock:
            if self._held.get(key) is held:
                del self._held[key]
            unused = not held.retired and not held.users
            held.retired = True
        if unused:
            _close(held)


def _close(held: _Held) -> None:
    try:
        held.stack.close()
    except Exception as error:  # its pixels were read; nobody is served worse
        log.warning("a slide could not be closed: %s", error)

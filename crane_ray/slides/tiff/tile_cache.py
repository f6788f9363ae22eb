"""The tiles last decoded, shared by threads; none is decoded twice at once."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]
"""(H, W, 3) RGB uint8."""


class _Slot:
    """One tile; its lock is held while it is being decoded."""

    __slots__ = ("lock", "pixels")

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.pixels: Pixels | None = None


class TileCache:
    """Decoded tiles by key, the longest unused ones dropped when they exceed a size in bytes."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._size = 0
        self._slots: OrderedDict[Hashable, _Slot] = OrderedDict()
        self._lock = threading.Lock()

    def __contains__(self, key: Hashable) -> bool:
        return key in self._slots

    def get(self, key: Hashable, decode: Callable[[], Pixels]) -> Pixels:
        """The tile of a key, decoded if it is not there; a second thread waits for the first.

        The array belongs to all: it must not be written to.

        Raises:
            Exception: what ``decode`` raises; nothing is kept then, and whoever waited tries
                for itself.
        """
        with self._lock:
            slot = self._slots.get(key)
            if slot is None:
                slot = self._slots[key] = _Slot()
            else:
                self._slots.move_to_end(key)
        if slot.pixels is not None:
            return slot.pixels
        with slot.lock:
            if slot.pixels is None:
                slot.pixels = self._fill(key, slot, decode)
            return slot.pixels

    def drop(self, key: Hashable) -> None:
        """Lets a tile go that nobody is likely to ask for again."""
        with self._lock:
            slot = self._slots.get(key)
            if slot is not None and slot.pixels is not None:
                self._remove(key)

    def _fill(self, key: Hashable, slot: _Slot, decode: Callable[[], Pixels]) -> Pixels:
        try:
            pixels = decode()
        except BaseException:
            with self._lock:
                if self._slots.get(key) is slot:
                    del self._slots[key]
            raise
        pixels.flags.writeable = False
        with self._lock:
            if self._slots.get(key) is slot:
                slot.pixels = pixels
                self._size += pixels.nbytes
                self._shrink()
        return pixels

    def _shrink(self) -> None:
        """Drops tiles from the longest unused on; one that is being decoded counts nothing."""
        while self._size > self._capacity:
            key = next(key for key, slot in self._slots.items() if slot.pixels is not None)
            self._remove(key)

    def _remove(self, key: Hashable) -> None:
        pixels = self._slots.pop(key).pixels
        assert pixels is not None
        self._size -= pixels.nbytes

    def clear(self) -> None:
        """Lets all tiles go."""
        with self._lock:
            self._slots.clear()
            self._size = 0

"""Memory for decoded tiles that is used again once nobody sees the pixels in it any more.

Fresh memory of a tile's size costs the page faults of all its pages, a tenth to a fifth of what
decoding the tile costs.
"""

from typing import Any, Final

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]
"""(H, W, 3) RGB uint8."""


class TileMemory:
    """Lends arrays for tiles; threads may share it.

    There is no lock, because memory comes back wherever Python drops its last view, in the middle
    of anything. Threads that meet allocate once more than needed.

    Args:
        capacity: bytes that are kept for later, all of one shape: the one last asked for.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._shape: tuple[int, ...] = ()
        self._free: list[Pixels] = []

    def take(self, shape: tuple[int, ...]) -> Pixels:
        """An array of any content; its memory comes back with the last view of it."""
        if shape != self._shape:
            self._shape = shape
            self._free.clear()
        try:
            memory = self._free.pop()
        except IndexError:
            memory = None
        # Another shape is that of a thread that asks for tiles of another slide at this moment.
        if memory is None or memory.shape != shape:
            memory = np.empty(shape, np.uint8)
        return np.asarray(_Loan(memory, self))

    def take_back(self, memory: Pixels) -> None:
        """Keeps memory that nobody sees any more, or lets it go."""
        if memory.shape == self._shape and (len(self._free) + 1) * memory.nbytes <= self._capacity:
            self._free.append(memory)


class _Loan:
    """Whose memory an array shows: numpy holds it as long as there is a view."""

    __slots__ = ("__array_interface__", "_memory", "_owner")

    def __init__(self, memory: Pixels, owner: TileMemory) -> None:
        self.__array_interface__: Final[dict[str, Any]] = memory.__array_interface__
        self._memory = memory
        self._owner = owner

    def __del__(self) -> None:
        self._owner.take_back(self._memory)

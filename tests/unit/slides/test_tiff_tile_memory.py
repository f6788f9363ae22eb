import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
import pytest

from crane_ray.slides.tiff.tile_memory import TileMemory

SHAPE = (4, 5, 3)
BYTES = 60


def address(pixels: npt.NDArray[np.uint8]) -> int:
    return int(pixels.ctypes.data)


def test_memory_comes_back_once_nobody_sees_it() -> None:
    memory = TileMemory(10 * BYTES)
    first = memory.take(SHAPE)
    place = address(first)
    part = first[1:, 2:]
    first.flags.writeable = False
    del first
    other = memory.take(SHAPE)
    assert address(other) != place, "a part of it is still looked at"
    del part
    again = memory.take(SHAPE)
    assert address(again) == place
    again[:] = 7  # whoever had it before may have forbidden that for itself
    assert again.shape == SHAPE
    assert again.dtype == np.uint8
    assert again.flags.c_contiguous


@pytest.mark.parametrize(("capacity", "kept"), [(0, 0), (BYTES - 1, 0), (2 * BYTES + 1, 2)])
def test_no_more_is_kept_than_allowed(capacity: int, kept: int) -> None:
    memory = TileMemory(capacity)
    lent = [memory.take(SHAPE) for _ in range(5)]
    lent.clear()
    assert len(memory._free) == kept


def test_tiles_of_another_size_replace_those_before() -> None:
    memory = TileMemory(10 * BYTES)
    late = memory.take(SHAPE)
    memory.take(SHAPE)
    assert memory.take((8, 5, 3)).shape == (8, 5, 3)
    del late
    assert {free.shape for free in memory._free} == {(8, 5, 3)}
    assert memory.take(SHAPE).shape == SHAPE


def test_threads_never_have_the_same_memory() -> None:
    memory, start = TileMemory(100 * BYTES), threading.Barrier(4)

    def write(mark: int) -> bool:
        start.wait(30)
        for turn in range(400):
            pixels = memory.take((4, 5 + (turn // 100 + mark) % 2, 3))
            pixels[:] = mark
            if (pixels != mark).any():
                return False
        return True

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(write, range(4)))

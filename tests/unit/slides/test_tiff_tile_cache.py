import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
import pytest

from crane_ray.slides.tiff.tile_cache import TileCache

Pixels = npt.NDArray[np.uint8]


def tile(value: int, num_bytes: int = 300) -> Pixels:
    return np.full(num_bytes, value, np.uint8)


def never() -> Pixels:
    raise AssertionError("decoded again")


def test_a_tile_is_decoded_once() -> None:
    cache = TileCache(1000)
    first = cache.get("a", lambda: tile(1))
    assert "a" in cache
    assert cache.get("a", never) is first


def test_the_longest_unused_tiles_go_first() -> None:
    cache = TileCache(900)
    for value, key in enumerate("abc"):
        cache.get(key, lambda value=value: tile(value))  # type: ignore[misc]
    cache.get("a", never)
    cache.get("d", lambda: tile(4))
    assert [key for key in "abcd" if key in cache] == ["a", "c", "d"]


def test_a_tile_larger_than_the_cache_is_given_and_not_kept() -> None:
    cache = TileCache(100)
    assert len(cache.get("a", lambda: tile(1))) == 300
    assert "a" not in cache
    cache = TileCache(400)
    cache.get("small", lambda: tile(1, 200))
    cache.get("large", lambda: tile(1, 500))
    cache.get("b", lambda: tile(2))
    assert "b" in cache, "what was dropped no longer counts"


def test_a_tile_that_is_dropped_makes_room() -> None:
    cache = TileCache(700)
    for key in "ab":
        cache.get(key, lambda: tile(1))
    cache.drop("b")
    cache.drop("never there")
    cache.get("c", lambda: tile(3))
    assert [key for key in "abc" if key in cache] == ["a", "c"]


def test_a_tile_that_is_being_decoded_is_not_dropped() -> None:
    cache = TileCache(700)

    def dropping() -> Pixels:
        cache.drop("a")
        return tile(1)

    cache.get("a", dropping)
    assert "a" in cache


def test_nobody_can_write_to_a_shared_tile() -> None:
    pixels = TileCache(1000).get("a", lambda: tile(1))
    with pytest.raises(ValueError, match="read-only"):
        pixels[0] = 2


def test_threads_that_ask_at_once_wait_for_the_first() -> None:
    cache, begun, go_on = TileCache(1000), threading.Event(), threading.Event()
    decoded: list[int] = []

    def slowly() -> Pixels:
        decoded.append(threading.get_ident())
        begun.set()
        assert go_on.wait(30)
        return tile(7)

    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(cache.get, "a", slowly)
        assert begun.wait(30)
        others = [pool.submit(cache.get, "a", slowly) for _ in range(3)]
        other_tile = cache.get("b", lambda: tile(9))
        assert other_tile[0] == 9, "another tile does not wait"
        assert not any(future.done() for future in others)
        go_on.set()
        assert all(future.result(30) is first.result(30) for future in others)
    assert len(decoded) == 1


def test_an_error_is_everybodys_own_and_is_not_kept() -> None:
    cache, begun, go_on = TileCache(1000), threading.Event(), threading.Event()

    def fails() -> Pixels:
        begun.set()
        assert go_on.wait(30)
        raise ValueError("damaged")

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(cache.get, "a", fails)
        assert begun.wait(30)
        second = pool.submit(cache.get, "a", lambda: tile(3))
        go_on.set()
        with pytest.raises(ValueError, match="damaged"):
            first.result(30)
        assert second.result(30)[0] == 3
    assert cache.get("a", lambda: tile(5))[0] in (3, 5)


def test_clearing_lets_everything_go() -> None:
    cache = TileCache(400)
    cache.get("a", lambda: tile(1))
    cache.clear()
    assert "a" not in cache
    cache.get("b", lambda: tile(2))
    assert "b" in cache

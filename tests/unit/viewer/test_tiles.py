"""Tiles hold the slide's pixels, come from memory the second time, and cost bounded memory."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest
import simplejpeg

from crane_ray.errors import SlideError
from crane_ray.slides.slide import Slide, SlideReader
from crane_ray.slides.staging import StagingConfig
from crane_ray.viewer.deep_zoom import TILE_PX, NoPixelsError, Region
from crane_ray.viewer.lru import BytesCache
from crane_ray.viewer.open_readers import OpenReaders
from crane_ray.viewer.tiles import THUMBNAIL_PX, Tiles
from tests.unit.viewer.small_workspace import SIZE, smooth_image


def readers(capacity: int = 4) -> OpenReaders:
    return OpenReaders(capacity, reader="auto", staging=StagingConfig())


@pytest.fixture(scope="module")
def slide(shared_work: Path) -> Slide:
    return Slide("A 1", str(shared_work.parent / "slides" / "a.tif"))


@pytest.mark.parametrize(("level", "down"), [(11, 1), (10, 2), (9, 4)])
def test_tiles_together_are_the_slide(slide: Slide, level: int, down: int) -> None:
    tiles = Tiles(readers(), 2**24)
    image = smooth_image(*SIZE)
    size = (-(-SIZE[0] // down), -(-SIZE[1] // down))
    expected = cv2.resize(image, size, interpolation=cv2.INTER_AREA).astype(int)
    whole = np.zeros_like(expected)
    for row in range(-(-size[1] // TILE_PX)):
        for column in range(-(-size[0] // TILE_PX)):
            tile = simplejpeg.decode_jpeg(tiles.tile(slide, "v", (level, column, row)))
            top, left = row * TILE_PX, column * TILE_PX
            whole[top : top + tile.shape[0], left : left + tile.shape[1]] = tile
    assert np.abs(whole - expected).max() < 25
    assert np.abs(whole - expected).mean() < 2


def test_a_thumbnail_is_the_whole_slide(slide: Slide) -> None:
    found = simplejpeg.decode_jpeg(Tiles(readers(), 2**24).thumbnail(slide, "v"))
    assert found.shape == (round(1100 * THUMBNAIL_PX / 1536), THUMBNAIL_PX, 3)
    expected = cv2.resize(smooth_image(*SIZE), found.shape[1::-1], interpolation=cv2.INTER_AREA)
    assert np.abs(found.astype(int) - expected).mean() < 4


def test_a_tile_is_decoded_once_for_each_version_of_the_file(
    slide: Slide, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiles, count = Tiles(readers(), 2**24), []

    def read(reader: SlideReader, region: Region) -> npt.NDArray[np.uint8]:
        count.append(region)
        return np.zeros((8, 8, 3), np.uint8)

    monkeypatch.setattr("crane_ray.viewer.tiles.read", read)
    for version in ("1", "1", "2"):
        tiles.tile(slide, version, (11, 0, 0))
    assert len(count) == 2


def test_the_memory_for_tiles_is_bounded_and_forgets_the_oldest() -> None:
    cache = BytesCache(100)
    for number in range(10):
        cache.put(number, bytes(30))
        cache.get(0)
    assert cache.num_bytes <= 100
    assert cache.get(0) is not None
    assert cache.get(1) is None
    cache.put("large", bytes(101))
    assert (cache.get("large"), cache.num_bytes) == (None, 0)
    cache.put("a", bytes(10))
    cache.put("a", bytes(20))
    assert cache.num_bytes == 20


def test_open_slides_are_bounded_and_closed_when_their_last_user_is_done(slide: Slide) -> None:
    pool = readers(2)
    with pool.use(slide, "1") as first:
        for version in ("2", "3", "4"):
            with pool.use(slide, version):
                pass
        assert len(pool) == 2
        assert first.read_region((0, 0), 0, (8, 8)).shape == (8, 8, 3)
    with pool.use(slide, "4") as again, pool.use(slide, "4") as same:
        assert again is same
    pool.close()
    assert len(pool) == 0


def test_threads_share_one_reader_of_a_slide(slide: Slide) -> None:
    pool = readers(2)
    tiles = Tiles(pool, 1)  # remembers nothing: every tile is read
    with ThreadPoolExecutor(8) as threads:
        places = [(11, x % 3, x % 2) for x in range(48)]
        found = list(threads.map(lambda place: tiles.tile(slide, "v", place), places))
    assert len(pool) == 1
    assert all(found[x] == found[x % 6] for x in range(48))


def test_a_reader_that_failed_is_not_used_again(slide: Slide) -> None:
    pool = readers()
    with pytest.raises(SlideError, match="spoilt"), pool.use(slide, "1"):
        raise SlideError("spoilt")
    assert len(pool) == 0
    tiles = Tiles(pool, 2**20)
    with pytest.raises(NoPixelsError):
        tiles.tile(slide, "1", (11, 99, 0))
    assert len(pool) == 1

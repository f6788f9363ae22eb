"""Tiles cover a slide without gap or overlap, and what is read for them is bounded."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crane_ray.slides.slide import SlideInfo
from crane_ray.viewer.deep_zoom import MAX_READ_PX, TILE_PX, DeepZoom, NoPixelsError


def info_of(width: int, height: int, downsamples: tuple[float, ...] = (1.0,)) -> SlideInfo:
    levels = tuple((max(1, int(width // d)), max(1, int(height // d))) for d in downsamples)
    return SlideInfo("v", levels, downsamples)


SIDES = st.integers(1, 150_000)
PYRAMIDS = st.sampled_from(
    [(1.0,), (1.0, 2.0, 4.0, 8.0, 16.0, 32.0), (1.0, 4.0, 16.04), (1.0, 3.0)]
)


@given(SIDES, SIDES, PYRAMIDS)
def test_levels_halve_down_to_one_tile_where_that_can_be_read(
    width: int, height: int, pyramid: tuple[float, ...]
) -> None:
    zoom = DeepZoom(info_of(width, height, pyramid))
    assert zoom.size(zoom.max_level) == (width, height)
    assert 0 <= zoom.min_level <= zoom.max_level
    for level in range(zoom.min_level, zoom.max_level):
        finer, coarser = zoom.size(level + 1), zoom.size(level)
        assert coarser == tuple(math.ceil(side / 2) for side in finer) or min(coarser) == 1
    whole = width * height / min(pyramid[-1], 2.0**zoom.max_level) ** 2
    if whole < MAX_READ_PX / 4:
        assert zoom.num_tiles(zoom.min_level) == (1, 1)


@given(SIDES, SIDES, PYRAMIDS, st.data())
def test_neighbouring_tiles_meet_on_the_level_that_is_read(
    width: int, height: int, pyramid: tuple[float, ...], data: st.DataObject
) -> None:
    zoom = DeepZoom(info_of(width, height, pyramid))
    level = data.draw(st.integers(zoom.min_level, zoom.max_level))
    columns, rows = zoom.num_tiles(level)
    column, row = data.draw(st.integers(0, columns - 1)), data.draw(st.integers(0, rows - 1))
    tile = zoom.tile(level, column, row)
    level_size = zoom.info.level_dimensions[tile.level]
    down = zoom.info.downsample_xy(tile.level)
    left = [round(tile.xy[axis] / down[axis]) for axis in (0, 1)]
    for axis in (0, 1):
        assert tile.size[axis] >= 1
        assert left[axis] + tile.size[axis] <= level_size[axis]
    assert tile.size[0] * tile.size[1] <= MAX_READ_PX
    assert max(tile.out) <= TILE_PX
    if column + 1 < columns:
        beside = zoom.tile(level, column + 1, row)
        assert round(beside.xy[0] / down[0]) in {left[0] + tile.size[0], level_size[0] - 1}
    assert column + 1 < columns or column * TILE_PX + tile.out[0] == zoom.size(level)[0]
    assert row + 1 < rows or row * TILE_PX + tile.out[1] == zoom.size(level)[1]


def test_a_large_slide_without_levels_starts_with_several_tiles() -> None:
    zoom = DeepZoom(info_of(90_000, 70_000))
    assert zoom.num_tiles(zoom.min_level) > (1, 1)
    for corner in ((0, 0), tuple(side - 1 for side in zoom.num_tiles(zoom.min_level))):
        size = zoom.tile(zoom.min_level, *corner).size
        assert size[0] * size[1] <= MAX_READ_PX
    with pytest.raises(NoPixelsError, match="convert it to a pyramid"):
        zoom.whole(256)


def test_a_level_that_is_slightly_coarser_than_wanted_is_read() -> None:
    zoom = DeepZoom(info_of(14_000, 10_000, (1.0, 2.0, 4.0, 8.0, 16.0, 32.04)))
    assert zoom.tile(zoom.max_level - 5, 0, 0).level == 5
    assert zoom.tile(zoom.max_level - 4, 0, 0).level == 4


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ((11, 3, 0), "no tile 3, 0 of level 11, which has 3 x 3"),
        ((11, 0, -1), "no tile 0, -1"),
        ((12, 0, 0), "levels? of? .*9 to 11|9 to 11"),
        ((-1, 0, 0), "9 to 11"),
        ((2**31, 0, 0), "9 to 11"),
    ],
)
def test_tiles_that_do_not_exist_are_refused(place: tuple[int, int, int], words: str) -> None:
    with pytest.raises(NoPixelsError, match=words):
        DeepZoom(info_of(1536, 1100)).tile(*place)


def test_crops_are_cut_at_the_edge_and_refused_off_the_slide() -> None:
    zoom = DeepZoom(info_of(1000, 800))
    crop = zoom.crop((900, 0), 200, 100)
    assert (crop.xy, crop.size, crop.out) == ((900, 0), (100, 200), (50, 100))
    with pytest.raises(NoPixelsError, match="off the slide"):
        zoom.crop((1000, 0), 10, 100)
    with pytest.raises(NoPixelsError, match="off the slide"):
        zoom.crop((0, 0), 0, 100)

from itertools import pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from crane_ray.slides.tiff.codecs import NONE, TileFormat
from crane_ray.slides.tiff.layout import TileLevel
from crane_ray.slides.tiff.pieces import pieces_by_tile
from crane_ray.slides.tiff.tile_use import TileUse

WIDTH, HEIGHT = 50, 37


def level(tile_px: tuple[int, int]) -> TileLevel:
    num = -(-WIDTH // tile_px[0]) * -(-HEIGHT // tile_px[1])
    counts = np.ones(num, np.int64)
    return TileLevel(WIDTH, HEIGHT, TileFormat(NONE, *tile_px), 0 * counts, counts)


@settings(deadline=None)
@given(
    tile_px=st.tuples(st.integers(1, 60), st.integers(1, 60)),
    size=st.tuples(st.integers(1, 60), st.integers(1, 60)),
    corners=st.lists(st.tuples(st.integers(-70, 120), st.integers(-70, 120)), max_size=5),
    data=st.data(),
)
def test_pieces_put_together_are_the_regions(
    tile_px: tuple[int, int],
    size: tuple[int, int],
    corners: list[tuple[int, int]],
    data: st.DataObject,
) -> None:
    tiles = level(tile_px)
    origins = np.array(corners, np.int64).reshape(-1, 2)
    chosen = np.array([n for n in range(len(corners)) if data.draw(st.booleans())], np.int64)
    picture = np.arange(1, WIDTH * HEIGHT + 1).reshape(HEIGHT, WIDTH)
    out, times = (np.zeros((len(corners), size[1], size[0]), np.int64) for _ in range(2))
    found = list(pieces_by_tile(origins, chosen, size, tiles))
    for tile, pieces, area in found:
        row, column = divmod(tile, tiles.across)
        taken = 0
        pixels = picture[row * tile_px[1] :, column * tile_px[0] :][: tile_px[1], : tile_px[0]]
        assert tiles.area_px(tile) == pixels.size
        assert pieces
        for region, left, top, right, bottom, x, y in pieces:
            part = pixels[y : y + bottom - top, x : x + right - left]
            out[region, top:bottom, left:right] = part
            times[region, top:bottom, left:right] += 1
            taken += part.size
        assert area == taken
    assert all(one.tile < next_one.tile for one, next_one in pairwise(found))
    assert times.max(initial=0) <= 1
    canvas = np.pad(picture, 200)
    for region, (x, y) in enumerate(corners):
        expected = canvas[y + 200 :, x + 200 :][: size[1], : size[0]]
        np.testing.assert_array_equal(out[region], expected * (region in chosen))


def test_a_tile_is_used_up_once_all_of_it_was_taken() -> None:
    use = TileUse(level((20, 20)))
    assert [use.is_used_up(0, px) for px in (100, 299, 1)] == [False, False, True]
    assert [use.is_used_up(2, px) for px in (100, 100)] == [False, True], "half of it is beyond"
    assert use.is_used_up(1, 400 + 20), "patches overlap by a pixel where steps are fractions"


def test_no_tile_is_used_up_where_regions_overlap() -> None:
    use = TileUse(level((20, 20)))
    assert use.is_used_up(0, 400)
    assert not use.is_used_up(0, 400)
    assert not use.is_used_up(1, 400)

"""Regions of a level cut along its tiles, tile by tile."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from crane_ray.slides.tiff.layout import TileLevel

Points = npt.NDArray[np.int64]
"""(N, 2) xy."""


Piece = list[int]
"""What a tile gives to a region: which region, left, top, right and bottom there, and left and top
in the tile."""


class TilePieces(NamedTuple):
    """One tile and what regions need of it."""

    tile: int
    pieces: list[Piece]
    area_px: int
    """Of all pieces; those of regions that overlap count apart."""


def pieces_by_tile(
    origins: Points, regions: Points, size: tuple[int, int], tiles: TileLevel
) -> Iterator[TilePieces]:
    """Each tile that regions need, in the order of the file.

    Args:
        origins: (N, 2) top-left corners of regions, which may reach beyond the level.
        regions: (n,) which of them are wanted.
        size: (width, height) of all of them.
        tiles: the level's.
    """
    tile_px = np.array([tiles.format.width, tiles.format.height])
    corners = origins[regions]
    low = np.maximum(corners, 0)
    high = np.minimum(corners + size, [tiles.width, tiles.height])
    first = low // tile_px
    across_down = -(-high // tile_px) - first
    across_down[(high <= low).any(axis=1)] = 0
    num = across_down.prod(axis=1)
    of = np.repeat(np.arange(len(regions)), num)
    if not len(of):
        return
    number = np.arange(len(of)) - np.repeat(np.cumsum(num) - num, num)
    row, column = np.divmod(number, across_down[of, 0])
    places = first[of] + np.stack([column, row], axis=1)
    begin = np.maximum(low[of], places * tile_px)
    end = np.minimum(high[of], (places + 1) * tile_px)
    tile = places[:, 1] * tiles.across + places[:, 0]
    in_region = [begin - corners[of], end - corners[of]]
    order = np.argsort(tile, kind="stable")
    pieces = np.column_stack([regions[of], *in_region, begin - places * tile_px])[order].tolist()
    found, starts = np.unique(tile[order], return_index=True)
    areas = np.add.reduceat((end - begin).prod(axis=1)[order], starts)
    stops = [*starts[1:].tolist(), len(pieces)]
    for index, start, stop, area in zip(
        found.tolist(), starts.tolist(), stops, areas.tolist(), strict=True
    ):
        yield TilePieces(index, pieces[start:stop], area)

"""Deep-zoom geometry: which pixels of which level of a slide make a tile.

A tile here is the viewer's square of TILE_PX. Deep-zoom levels count up from 0, the whole slide in
one pixel, to the last, the slide's own pixels; each has half the size of the one above it.
"""

import math
from dataclasses import dataclass

from crane_ray.errors import CraneError
from crane_ray.slides.slide import SlideInfo

TILE_PX = 512
"""Fewer, larger tiles: each costs a request, and 512 px are encoded in a few ms."""
MAX_READ_PX = 2**25
"""Pixels of a slide's level that are read for one tile: 100 MB, and about 0.2 s."""
LEVEL_TOLERANCE = 1.02
"""A level this much coarser than wanted is taken: 32.04 where 32 is asked for."""


class NoPixelsError(CraneError, LookupError):
    """Pixels that the slide does not have, or that cost too much; nothing is wrong with it."""


@dataclass(frozen=True)
class Region:
    """What is read, and the size that it is brought to; (width, height) in px."""

    xy: tuple[int, int]
    """Top-left corner in level-0 px."""
    level: int
    size: tuple[int, int]
    """In px of the level."""
    out: tuple[int, int]


@dataclass(frozen=True)
class DeepZoom:
    """The tiles of one slide."""

    info: SlideInfo

    @property
    def max_level(self) -> int:
        """The level of the slide's own pixels."""
        return max(0, math.ceil(math.log2(max(self.info.dimensions))))

    @property
    def min_level(self) -> int:
        """The coarsest level whose tiles can be made in a moment.

        That is the one where the slide is a single tile, except for large slides that lack small
        levels.
        """
        level = self.max_level
        single = max(0, math.ceil(math.log2(max(TILE_PX, 1))))
        while level > min(single, self.max_level) and self._cost(level - 1) <= MAX_READ_PX:
            level -= 1
        return level

    def size(self, level: int) -> tuple[int, int]:
        """Width and height of a deep-zoom level, px."""
        down = self.downsample(level)
        width, height = self.info.dimensions
        return max(1, math.ceil(width / down)), max(1, math.ceil(height / down))

    def num_tiles(self, level: int) -> tuple[int, int]:
        """Columns and rows of tiles of a level."""
        width, height = self.size(level)
        return math.ceil(width / TILE_PX), math.ceil(height / TILE_PX)

    def downsample(self, level: int) -> int:
        """Level-0 px a pixel of a deep-zoom level."""
        return 1 << (self.max_level - level)

    def tile(self, level: int, column: int, row: int) -> Region:
        """What makes a tile; those at the right and lower edges are smaller.

        Raises:
            NoPixelsError: there is no such tile.
        """
        if not self.min_level <= level <= self.max_level:
            raise NoPixelsError(
                f"no tiles of level {level}; there are those of {self.min_level} to "
                f"{self.max_level}"
            )
        columns, rows = self.num_tiles(level)
        if not (0 <= column < columns and 0 <= row < rows):
            raise NoPixelsError(
                f"no tile {column}, {row} of level {level}, which has {columns} x {rows} of them"
            )
        width, height = self.size(level)
        left, top = column * TILE_PX, row * TILE_PX
        right, bottom = min(left + TILE_PX, width), min(top + TILE_PX, height)
        down = self.downsample(level)
        box = (left * down, top * down, right * down, bottom * down)
        return self._region(box, down, (right - left, bottom - top))

    def crop(self, xy: tuple[int, int], side: int, out_px: int) -> Region:
        """A square of the slide with edges in level-0 px, brought to a width of ``out_px``.

        Raises:
            NoPixelsError: it lies off the slide, or too much would have to be read.
        """
        width, height = self.info.dimensions
        left, top = max(0, xy[0]), max(0, xy[1])
        right, bottom = min(xy[0] + side, width), min(xy[1] + side, height)
        if side < 1 or left >= right or top >= bottom:
            raise NoPixelsError(f"a square of {side} px at {xy[0]}, {xy[1]} lies off the slide")
        down = side / out_px
        out = (max(1, round((right - left) / down)), max(1, round((bottom - top) / down)))
        return self._checked(self._region((left, top, right, bottom), down, out))

    def whole(self, out_px: int) -> Region:
        """The whole slide with a longer side of at most ``out_px``.

        Raises:
            NoPixelsError: it has no level that is small enough to be read for this.
        """
        width, height = self.info.dimensions
        down = max(1.0, max(width, height) / out_px)
        out = (max(1, round(width / down)), max(1, round(height / down)))
        return self._checked(self._region((0, 0, width, height), down, out))

    def _checked(self, region: Region) -> Region:
        if region.size[0] * region.size[1] > MAX_READ_PX:
            raise NoPixelsError(
                f"{region.size[0]:,} x {region.size[1]:,} px would have to be read, as the slide "
                "has no smaller level; convert it to a pyramid (vips tiffsave --pyramid --tile)"
            )
        return region

    def _region(
        self, box: tuple[float, float, float, float], down: float, out: tuple[int, int]
    ) -> Region:
        """A box in level-0 px on the best level; neighbours meet without gap or overlap."""
        level = self.info.best_level(down * LEVEL_TOLERANCE)
        down_x, down_y = self.info.downsample_xy(level)
        level_width, level_height = self.info.level_dimensions[level]
        left = min(round(box[0] / down_x), level_width - 1)
        top = min(round(box[1] / down_y), level_height - 1)
        right = min(max(round(box[2] / down_x), left + 1), level_width)
        bottom = min(max(round(box[3] / down_y), top + 1), level_height)
        xy = (round(left * down_x), round(top * down_y))
        return Region(xy, level, (right - left, bottom - top), out)

    def _cost(self, level: int) -> float:
        """Pixels that are read for the largest tile of a deep-zoom level."""
        width, height = self.size(level)
        region = self._region(
            (0, 0, min(width, TILE_PX) * self.downsample(level),
             min(height, TILE_PX) * self.downsample(level)),
            self.downsample(level), (1, 1),
        )  # fmt: skip
        return region.size[0] * region.size[1]

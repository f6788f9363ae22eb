"""Which tiles are wanted again, from how much of them was wanted so far."""

import numpy as np

from crane_ray.slides.tiff.layout import TileLevel


class TileUse:
    """Counts the pixels that regions took of each tile of a level.

    Patches beside one another take every pixel once, so that a tile of which all was taken need
    not be kept, and the cache holds the seam to the patches that come later. Regions that overlap
    take pixels nobody knows how often: once that is seen, no tile is ever used up.

    Threads may share it. A count that they lose costs a tile that is kept for too long.
    """

    def __init__(self, tiles: TileLevel) -> None:
        self._tiles = tiles
        self._taken_px = np.zeros(len(tiles.offsets), np.int64)
        self._regions_overlap = False
        # Patches whose step is no whole number of pixels overlap by one at a seam.
        self._seams_px = 2 * (tiles.format.width + tiles.format.height)

    def is_used_up(self, tile: int, area_px: int) -> bool:
        """Whether all of a tile was taken, now that regions take this much more of it."""
        taken = int(self._taken_px[tile]) + area_px
        self._taken_px[tile] = taken
        left = self._tiles.area_px(tile) - taken
        self._regions_overlap = self._regions_overlap or left < -self._seams_px
        return left <= 0 and not self._regions_overlap

"""What lies beneath a map: the slide at the map's size, window by window, or an empty canvas."""

from collections import OrderedDict

import cv2
import numpy as np
import numpy.typing as npt

from crane_ray.maps.canvas import Canvas, Window
from crane_ray.slides.slide import SlideReader

Picture = npt.NDArray[np.uint8]
"""(H, W, 3) RGB."""

PIECE_PX = 4096
"""OpenSlide paints larger regions in pieces of this, each placed anew; read piece by piece the
pixels are those of one large read."""

RESAMPLED_PX = 1024
"""Width and height, in map px, of the pieces that are resampled; fewer where much is read for
them."""


class Background:
    """The slide at the size of a map.

    Any window shows the same pixels as that part of the whole: where map pixels do not lie on
    pixels of the level (a downsample that is no whole number, a resampled level) the slide is
    read in pieces on a fixed lattice. Memory: a row of these pieces.
    """

    def __init__(self, reader: SlideReader, canvas: Canvas) -> None:
        self._reader, self._canvas = reader, canvas
        self._downsample = reader.info.level_downsamples[canvas.level]
        level_px = reader.info.level_dimensions[canvas.level]
        self._factor_xy = (
            level_px[0] / canvas.dimensions[0],
            level_px[1] / canvas.dimensions[1],
        )
        self._piece_px = PIECE_PX
        if not canvas.native:
            self._piece_px = min(RESAMPLED_PX, max(16, int(PIECE_PX / max(self._factor_xy))))
        elif max(level_px) > PIECE_PX:
            self._piece_px = RESAMPLED_PX
        self._pieces: OrderedDict[tuple[int, int], Picture] = OrderedDict()
        self._most_pieces = -(-canvas.dimensions[0] // self._piece_px) + 1

    def read(self, window: Window) -> Picture:
        """The slide in a window of the map, (H, W, 3) RGB uint8, for the caller to change.

        Raises:
            SlideError: its pixels cannot be decoded.
        """
        left, top, right, bottom = window
        if self._canvas.native and self._downsample == round(self._downsample):
            step = round(self._downsample)
            size = (right - left, bottom - top)
            return self._reader.read_region((left * step, top * step), self._canvas.level, size)
        out = np.empty((bottom - top, right - left, 3), dtype=np.uint8)
        edge = self._piece_px
        for row in range(top // edge, -(-bottom // edge)):
            for column in range(left // edge, -(-right // edge)):
                piece = self._piece(column, row)
                x, y = column * edge, row * edge
                into = out[max(y - top, 0) : y + edge - top, max(x - left, 0) : x + edge - left]
                off_y, off_x = max(top - y, 0), max(left - x, 0)
                into[:] = piece[off_y : off_y + into.shape[0], off_x : off_x + into.shape[1]]
        return out

    def _piece(self, column: int, row: int) -> Picture:
        key = (column, row)
        if key in self._pieces:
            self._pieces.move_to_end(key)
            return self._pieces[key]
        wide, high = self._canvas.dimensions
        edge = self._piece_px
        x, y = column * edge, row * edge
        size = min(edge, wide - x), min(edge, high - y)
        piece = self._native(x, y, size) if self._canvas.native else self._resampled(x, y, size)
        self._pieces[key] = piece
        if len(self._pieces) > self._most_pieces:
            self._pieces.popitem(last=False)
        return piece

    def _native(self, x: int, y: int, size: tuple[int, int]) -> Picture:
        corner = int(x * self._downsample), int(y * self._downsample)
        return self._reader.read_region(corner, self._canvas.level, size)

    def _resampled(self, x: int, y: int, size: tuple[int, int]) -> Picture:
        level_px = self._reader.info.level_dimensions[self._canvas.level]
        low, high = [], []
        for place, length, factor, limit in zip(
            (x, y), size, self._factor_xy, level_px, strict=True
        ):
            low.append(min(int(place * factor), limit - 1))
            high.append(min(max(int(np.ceil((place + length) * factor)), low[-1] + 1), limit))
        corner = round(low[0] * self._downsample), round(low[1] * self._downsample)
        region = self._reader.read_region(
            corner, self._canvas.level, (high[0] - low[0], high[1] - low[1])
        )
        return np.asarray(cv2.resize(region, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)

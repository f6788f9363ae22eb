"""Which pixels of a map are tissue."""

import cv2
import numpy as np
import numpy.typing as npt

from crane_ray.maps.canvas import Canvas, Window
from crane_ray.slides.tissue import TissueContours

Mask = npt.NDArray[np.bool_]
"""(H, W)."""

MAX_WHOLE_PX = 2**27
"""Masks up to this are drawn once for the whole slide; larger ones window by window."""


class TissueMask:
    """The tissue of a slide as pixels of a map.

    As in CLAM: vertices are scaled with truncation and drawn with their edges, larger pieces
    first, each one's holes right after it, so that tissue within a hole is tissue.
    """

    def __init__(self, tissue: TissueContours, canvas: Canvas, *, holes: bool) -> None:
        scale = np.array(canvas.scale_xy)
        pieces = []
        for contour in tissue.contours:
            cut = contour.holes if holes else ()
            pieces.append([_scaled(ring, scale) for ring in (contour.outline, *cut)])
        areas = [cv2.contourArea(rings[0]) for rings in pieces]
        order = sorted(range(len(pieces)), key=lambda index: areas[index], reverse=True)
        self._pieces = [pieces[index] for index in order]
        self._bounds = [_bounds(rings[0]) for rings in self._pieces]
        width, height = canvas.dimensions
        self._whole: npt.NDArray[np.uint8] | None = None
        if width * height <= MAX_WHOLE_PX:
            self._whole = self._draw((0, 0, width, height))

    def read(self, window: Window) -> Mask:
        """True on tissue, (height, width) of the window."""
        left, top, right, bottom = window
        if self._whole is not None:
            return self._whole[top:bottom, left:right].view(np.bool_)
        return self._draw(window).view(np.bool_)

    def _draw(self, window: Window) -> npt.NDArray[np.uint8]:
        left, top, right, bottom = window
        mask = np.zeros((bottom - top, right - left), dtype=np.uint8)
        for rings, (low_x, low_y, high_x, high_y) in zip(self._pieces, self._bounds, strict=True):
            if low_x >= right or low_y >= bottom or high_x < left or high_y < top:
                continue
            for number, ring in enumerate(rings):
                cv2.drawContours(mask, [ring], -1, int(number == 0), -1, offset=(-left, -top))
        return mask


def _scaled(ring: npt.NDArray[np.int32], scale: npt.NDArray[np.float64]) -> npt.NDArray[np.int32]:
    return (ring * scale).astype(np.int32)[:, None]


def _bounds(ring: npt.NDArray[np.int32]) -> tuple[int, int, int, int]:
    points = ring[:, 0]
    low_x, low_y = points.min(axis=0).tolist()
    high_x, high_y = points.max(axis=0).tolist()
    return low_x, low_y, high_x, high_y

"""Maps as pictures: patches in colour over their slide, window by window.

For the same scores, coordinates and settings a map looks as CLAM's does: a patch's corner and size
are scaled by the level's downsample of each axis and rounded up; where patches overlap, the mean
of them is shown; colours are the colour map's, cut into its number of colours; ``alpha`` is the
weight of the coloured slide over the slide itself (CLAM's configuration: 0 background only, 1
foreground only); a blur is applied to the scores and again to the coloured slide.

Deviations: a region of interest is that part of the whole slide's map (CLAM drops the patches
that begin outside of it, and ranks and rounds within it); the slide beneath is read where it lies
also at downsamples that are no whole numbers; an empty canvas may have any colour.
"""

from collections.abc import Iterator

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from crane_ray.errors import SlideError
from crane_ray.maps.background import Background, Picture
from crane_ray.maps.canvas import Canvas, Window, plan_canvas
from crane_ray.maps.cells import Cells, Rectangles
from crane_ray.maps.colours import colour_indices, colour_table, shown_patches, shown_values
from crane_ray.maps.lattice import step_px
from crane_ray.maps.scores import SlideScores
from crane_ray.maps.settings import MapSettings
from crane_ray.maps.tissue_masks import TissueMask
from crane_ray.slides.slide import SlideReader
from crane_ray.slides.tissue import TissueContours

WINDOW_PX = 2048
"""Width and height of what is painted at once: about 100 MB."""

MAX_KEPT_PX = 64_000_000
"""The slide beneath a map of at most this many pixels is read once for all heads."""

MAX_PICTURE_PX = 2**28
"""Larger maps are no pictures, which are held in memory whole; pyramids are."""


class MapPainter:
    """Paints the maps of all heads of one slide at one size."""

    def __init__(
        self,
        scores: SlideScores,
        settings: MapSettings,
        reader: SlideReader | None,
        tissue: TissueContours | None,
    ) -> None:
        """Plans the map; nothing is read yet.

        Args:
            scores: of the slide.
            settings: how the map looks.
            reader: of the slide; None for maps on an empty canvas.
            tissue: its contours; without any, patches are coloured whole.

        Raises:
            ScaleError: see `plan_canvas`.
            SlideError: see `plan_canvas`; or there is no slide to draw on.
        """
        if reader is None and not settings.blank_canvas:
            raise SlideError(
                f"slide {scores.slide_id}: its pixels are not at hand, and the map is drawn over "
                "them; give --blank-canvas to draw it without"
            )
        self.scores, self.settings = scores, settings
        info = None if reader is None else reader.info
        self.canvas: Canvas = plan_canvas(
            settings, scores.dimensions, info=info, mpp=scores.mpp, slide_id=scores.slide_id
        )
        self._slide = Background(reader, self.canvas) if reader is not None else None
        self._mask = None
        if settings.tissue_mask and tissue is not None and len(tissue):
            self._mask = TissueMask(tissue, self.canvas, holes=settings.holes)
        width, height = self.canvas.size_px
        self._keeps = width * height <= MAX_KEPT_PX
        self._kept: dict[Window, Picture] = {}
        scale = np.array(self.canvas.scale_xy)
        self._corners_N2 = np.ceil(scores.xy * scale).astype(np.int64)
        self._patch_px = np.ceil(scores.footprint_px * scale).astype(np.int64)
        step = step_px(scores.xy, scores.footprint_px) if settings.blur else 0.0
        radius = (self._patch_px * (step / scores.footprint_px)).astype(int)
        self._kernel = (int(radius[0]) * 2 + 1, int(radius[1]) * 2 + 1)

    def patches(self, head: str) -> Rectangles:
        """The patches as rectangles of map pixels with what is shown of a head."""
        values, shown = shown_patches(shown_values(self.scores, head, self.settings), self.settings)
        return Rectangles(self._corners_N2, self._corners_N2 + self._patch_px, values, shown)

    def windows(self, height_px: int = WINDOW_PX) -> Iterator[list[Window]]:
        """The canvas's window in rows of windows, from top to bottom."""
        left, top, right, bottom = self.canvas.window
        for y in range(top, bottom, height_px):
            yield [
                (x, y, min(x + WINDOW_PX, right), min(y + height_px, bottom))
                for x in range(left, right, WINDOW_PX)
            ]

    def paint(self, patches: Rectangles | None, window: Window) -> Picture:
        """The map in a window, or without patches the slide alone; not to be changed.

        Returns:
            (H, W, 3) RGB uint8.

        Raises:
            SlideError: the slide beneath cannot be decoded, or is not at hand.
        """
        if patches is None:
            if self._slide is None:
                raise SlideError(f"slide {self.scores.slide_id}: its pixels are not at hand")
            return self._slide.read(window)
        if not self.settings.blur:
            return self._paint(patches, window, self._beneath(window))
        wide = self._widened(window)
        painted = self._paint(patches, wide, self._beneath(wide))
        y, x = window[1] - wide[1], window[0] - wide[0]
        return painted[y : y + window[3] - window[1], x : x + window[2] - window[0]]

    def _paint(self, patches: Rectangles, window: Window, beneath: Picture) -> Picture:
        cells = patches.cells(*window)
        blur, alpha = self.settings.blur, self.settings.alpha
        if not cells.shown_YX.any() and not blur:
            return beneath
        mean = cells.mean_YX
        if self.settings.binarize:
            mean = np.rint(mean)
        table = colour_table(self.settings.cmap)
        if blur:
            smooth = cv2.GaussianBlur(cells.spread(mean), self._kernel, 0)
            colours = table[colour_indices(smooth.clip(0, 1), table)]
        else:
            colours = cells.spread(table[colour_indices(mean, table)])
        painted = np.where(self._where(cells, window)[..., None], colours, beneath)
        if blur:
            painted = cv2.GaussianBlur(painted, self._kernel, 0)
        if alpha < 1:
            painted = cv2.addWeighted(painted, alpha, beneath, 1 - alpha, 0)
        return np.asarray(painted, dtype=np.uint8)

    def _where(self, cells: Cells, window: Window) -> npt.NDArray[np.bool_]:
        shown = cells.spread(cells.shown_YX)
        return shown if self._mask is None else shown & self._mask.read(window)

    def _widened(self, window: Window) -> Window:
        """With all that two blurs bring into it, as far as the slide goes."""
        reach_x, reach_y = (2 * (size // 2) for size in self._kernel)
        left, top, right, bottom = window
        width, height = self.canvas.dimensions
        return (
            max(left - reach_x, 0), max(top - reach_y, 0),
            min(right + reach_x, width), min(bottom + reach_y, height),
        )  # fmt: skip

    def _beneath(self, window: Window) -> Picture:
        found = self._kept.get(window)
        if found is None:
            found = self._read_beneath(window)
            if self._keeps:
                self._kept[window] = found
        return found

    def _read_beneath(self, window: Window) -> Picture:
        if self._slide is not None and not self.settings.blank_canvas:
            return self._slide.read(window)
        left, top, right, bottom = window
        blank = np.empty((bottom - top, right - left, 3), dtype=np.uint8)
        blank[:] = self.settings.canvas_rgb
        return blank


def render(
    scores: SlideScores,
    head: str,
    settings: MapSettings,
    reader: SlideReader | None,
    tissue: TissueContours | None = None,
) -> Picture:
    """The map of one head as a picture, (H, W, 3) RGB uint8.

    Args:
        scores: of the slide.
        head: which of their heads.
        settings: how the map looks and how large it is.
        reader: of the slide; None for a map on an empty canvas.
        tissue: its contours; without any, patches are coloured whole.

    Raises:
        StoreError: there is no such head.
        ScaleError, SlideError: see `MapPainter`; or the map is too large for a picture.
    """
    return picture_of(MapPainter(scores, settings, reader, tissue), head)


def picture_of(painter: MapPainter, head: str | None) -> Picture:
    """The map of a head as a picture, or of None the slide alone; see `render`."""
    check_picture_size(painter)
    canvas = painter.canvas
    width, height = canvas.size_px
    patches = None if head is None else painter.patches(head)
    out = np.empty((height, width, 3), dtype=np.uint8)
    left, top = canvas.window[:2]
    for row in painter.windows():
        for window in row:
            x, y = window[0] - left, window[1] - top
            drawn = painter.paint(patches, window)
            out[y : y + drawn.shape[0], x : x + drawn.shape[1]] = drawn
    if canvas.finished_px == canvas.size_px:
        return out
    return np.asarray(Image.fromarray(out).resize(canvas.finished_px, Image.Resampling.BICUBIC))


def check_picture_size(painter: MapPainter) -> None:
    """Refuses maps that are too large to be held in memory whole.

    Raises:
        SlideError: this one is.
    """
    width, height = painter.canvas.size_px
    if width * height > MAX_PICTURE_PX:
        raise SlideError(
            f"slide {painter.scores.slide_id}: a map of {width:,} x {height:,} px is too large for "
            "a picture; take a coarser level or resolution (--vis-level, --map-mpp), shrink it "
            "(--set maps.max_size_px=N), draw a part (--roi), or write a pyramid (--format tif)"
        )

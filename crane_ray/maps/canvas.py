"""The canvas of a map: how large it is, where it lies on the slide, and what is read for it."""

from dataclasses import dataclass, replace

from crane_ray.errors import ScaleError, SlideError
from crane_ray.maps.settings import MapSettings
from crane_ray.slides.slide import SlideInfo

Window = tuple[int, int, int, int]
"""Left, top, right and bottom in pixels of the whole slide's map; right and bottom excluded."""

DOWNSAMPLE = 32
"""Of a map whose size was not asked for, as in CLAM."""

ENOUGH_PX = 1000
"""Longer side that a map has where the slide allows and no size was asked for."""

MAX_AUTOMATIC_PX = 100_000_000
"""A level larger than this is not drawn unless it was asked for: without a level near `DOWNSAMPLE`
the map is made at just that, from a finer level."""

MAX_SHRUNK_PX = 100_000_000
"""Maps that are to be shrunk are drawn at full size up to this, else at the size they end with."""

SAME_SCALE = 1e-3
"""A level this close (relative) to the resolution asked for is drawn as it is."""


@dataclass(frozen=True)
class Canvas:
    """The frame of a map."""

    slide_px: tuple[int, int]
    """Width and height of the slide at level 0."""
    dimensions: tuple[int, int]
    """Width and height of the whole slide's map, px."""
    window: Window
    """What of it is drawn: all, or the region of interest."""
    finished_px: tuple[int, int]
    """Width and height to which the window is shrunk in the end."""
    level: int = 0
    """Pyramid level that the background is read from."""
    native: bool = True
    """Whether the map's pixels are those of the level; else the level is resampled."""

    @property
    def scale_xy(self) -> tuple[float, float]:
        """Map pixels per level-0 pixel, per axis."""
        # One over the downsample, not the plain ratio: CLAM's rounding of coordinates is kept.
        (width, height), (wide, high) = self.slide_px, self.dimensions
        return 1 / (width / wide), 1 / (height / high)

    @property
    def size_px(self) -> tuple[int, int]:
        """Width and height of the window."""
        left, top, right, bottom = self.window
        return right - left, bottom - top

    def mpp_xy(self, mpp: float) -> tuple[float, float]:
        """um/px of the finished map of a slide with ``mpp`` at level 0."""
        (width, height), (wide, high) = self.size_px, self.finished_px
        scale_x, scale_y = self.scale_xy
        return mpp / scale_x * width / wide, mpp / scale_y * height / high


def plan_canvas(
    settings: MapSettings,
    slide_px: tuple[int, int],
    *,
    info: SlideInfo | None = None,
    mpp: float | None = None,
    slide_id: str = "",
) -> Canvas:
    """The canvas that settings ask for on one slide.

    Args:
        settings: level or resolution, region of interest, shrinking.
        slide_px: width and height of the slide at level 0.
        info: its levels; without them the map can only be drawn on an empty canvas.
        mpp: its level-0 resolution, um/px.
        slide_id: for messages.

    Raises:
        ScaleError: the slide lacks the level or the resolution that was asked for.
        SlideError: the region of interest lies off the slide.
    """
    canvas = _whole(settings, slide_px, info=info, mpp=mpp, slide_id=slide_id)
    if settings.roi is not None:
        canvas = replace(canvas, window=_window(settings.roi, canvas, slide_id))
    finished = _shrunk(canvas.size_px, settings)
    if finished != canvas.size_px and canvas.size_px[0] * canvas.size_px[1] > MAX_SHRUNK_PX:
        factor = max(canvas.size_px) / max(finished)
        wanted = slide_px[0] / canvas.dimensions[0] * factor
        canvas = _resampled(slide_px, wanted, info)
        if settings.roi is not None:
            canvas = replace(canvas, window=_window(settings.roi, canvas, slide_id))
        return replace(canvas, finished_px=canvas.size_px)
    return replace(canvas, finished_px=finished)


def _whole(
    settings: MapSettings,
    slide_px: tuple[int, int],
    *,
    info: SlideInfo | None,
    mpp: float | None,
    slide_id: str,
) -> Canvas:
    level = settings.vis_level
    if settings.map_mpp is not None:
        return _resampled(slide_px, _downsample(settings.map_mpp, mpp, slide_id), info)
    if info is None:
        if level is not None and level >= 0:
            raise ScaleError(
                f"slide {slide_id}: its level {level} (--vis-level) is known only where the slide "
                "itself is read; give --map-mpp instead"
            )
        enough = DOWNSAMPLE if level is not None else max(slide_px) / ENOUGH_PX
        return _resampled(slide_px, min(DOWNSAMPLE, max(1, enough)), None)
    if level is not None and level >= info.num_levels:
        raise ScaleError(
            f"slide {slide_id}: --vis-level {level} asked for, the slide has "
            + (f"levels 0 to {info.num_levels - 1}" if info.num_levels > 1 else "level 0 alone")
            + "; --vis-level -1 takes the best of each slide, --map-mpp any resolution"
        )
    if level is None or level < 0:
        level = info.best_level(DOWNSAMPLE) if level is not None else _readable_level(info)
        width, height = info.level_dimensions[level]
        if width * height > MAX_AUTOMATIC_PX:
            return _resampled(slide_px, DOWNSAMPLE, info)
    return _frame(slide_px, info.level_dimensions[level], level, native=True)


def _readable_level(info: SlideInfo) -> int:
    """The best for `DOWNSAMPLE`, or a finer one where that has less than `ENOUGH_PX`."""
    large = [lv for lv, size in enumerate(info.level_dimensions) if max(size) >= ENOUGH_PX]
    return min(info.best_level(DOWNSAMPLE), max(large, default=0))


def _downsample(map_mpp: float, mpp: float | None, slide_id: str) -> float:
    if mpp is None:
        raise ScaleError(
            f"slide {slide_id}: a map of {map_mpp:g} um/px (--map-mpp) needs the slide's own "
            "resolution, which is not known; give it in the mpp column of the slide table when "
            "patching, or take a level with --vis-level"
        )
    if map_mpp < mpp * (1 - SAME_SCALE):
        raise ScaleError(
            f"slide {slide_id}: a map of {map_mpp:g} um/px (--map-mpp) is finer than the slide's "
            f"{mpp:.4g} um/px; give {mpp:.4g} or more"
        )
    return map_mpp / mpp


def _resampled(slide_px: tuple[int, int], downsample: float, info: SlideInfo | None) -> Canvas:
    """A canvas of any downsample, read from the finest level that is needed."""
    width, height = slide_px
    size = max(1, round(width / downsample)), max(1, round(height / downsample))
    if info is None:
        return _frame(slide_px, size, 0, native=False)
    for level, own in enumerate(info.level_downsamples):
        if abs(own / downsample - 1) <= SAME_SCALE:
            return _frame(slide_px, info.level_dimensions[level], level, native=True)
    return _frame(slide_px, size, info.best_level(downsample), native=False)


def _frame(slide_px: tuple[int, int], size: tuple[int, int], level: int, *, native: bool) -> Canvas:
    return Canvas(slide_px, size, (0, 0, *size), size, level, native)


def _window(roi: tuple[int, int, int, int], canvas: Canvas, slide_id: str) -> Window:
    """The region's pixels: corners are truncated, as in CLAM, and kept on the slide."""
    x, y, width, height = roi
    (slide_width, slide_height), (wide, high) = canvas.slide_px, canvas.dimensions
    if x >= slide_width or y >= slide_height:
        raise SlideError(
            f"slide {slide_id}: the region at x {x}, y {y} lies off the slide, which has "
            f"{slide_width} x {slide_height} level-0 px; give --roi X,Y,W,H on it"
        )
    scale_x, scale_y = canvas.scale_xy
    left, top = min(int(x * scale_x), wide - 1), min(int(y * scale_y), high - 1)
    right = min(max(int((x + width) * scale_x), left + 1), wide)
    bottom = min(max(int((y + height) * scale_y), top + 1), high)
    return left, top, right, bottom


def _shrunk(size: tuple[int, int], settings: MapSettings) -> tuple[int, int]:
    width, height = (max(1, side // settings.custom_downsample) for side in size)
    limit = settings.max_size_px
    if limit is not None and max(width, height) > limit:
        factor = limit / max(width, height)
        width, height = max(1, int(width * factor)), max(1, int(height * factor))
    return width, height

"""Pictures straight from a slide: deep-zoom tiles, thumbnails and crops, as JPEG."""

from html import escape

import cv2
import numpy as np
import numpy.typing as npt
import simplejpeg

from crane_ray.errors import SlideError
from crane_ray.slides.slide import Slide, SlideReader
from crane_ray.viewer.deep_zoom import DeepZoom, Region
from crane_ray.viewer.lru import BytesCache
from crane_ray.viewer.open_readers import OpenReaders

JPEG_QUALITY = 85
THUMBNAIL_PX = 256
"""Longer side."""
CROP_PX = 160
MAX_CROP_SIDE = 2**14
"""Edge of a crop in level-0 px."""

Pixels = npt.NDArray[np.uint8]


class Tiles:
    """Makes pictures and remembers them; safe to use from several threads."""

    def __init__(self, readers: OpenReaders, cache_bytes: int) -> None:
        self._readers = readers
        self.cache = BytesCache(cache_bytes)

    def tile(self, slide: Slide, version: str, place: tuple[int, int, int]) -> bytes:
        """JPEG of a tile.

        Args:
            slide: whose.
            version: of its file.
            place: level, column and row.

        Raises:
            NoPixelsError: there is no such tile.
            SlideError: its pixels cannot be read.
        """
        return self._picture(slide, version, ("tile", *place))

    def thumbnail(self, slide: Slide, version: str) -> bytes:
        """JPEG of the whole slide, at most THUMBNAIL_PX in width and height.

        Raises:
            NoPixelsError: it has no level that is small enough.
            SlideError: it cannot be read.
        """
        return self._picture(slide, version, ("thumbnail",))

    def crop(self, slide: Slide, version: str, square: tuple[int, int, int]) -> bytes:
        """JPEG of a square of the slide, CROP_PX wide.

        Args:
            slide: whose.
            version: of its file.
            square: x, y of its top-left corner and its edge, level-0 px.

        Raises:
            NoPixelsError: it lies off the slide, or is too large.
            SlideError: its pixels cannot be read.
        """
        return self._picture(slide, version, ("crop", *square))

    def _picture(self, slide: Slide, version: str, what: tuple[str | int, ...]) -> bytes:
        key = (slide.uri, version, what)
        found = self.cache.get(key)
        if found is None:
            with self._readers.use(slide, version) as reader:
                region = _region(DeepZoom(reader.info), what)
                found = encode(read(reader, region))
            self.cache.put(key, found)
        return found


def read(reader: SlideReader, region: Region) -> Pixels:
    """(H, W, 3) RGB uint8 pixels of a region, resampled by area to its size."""
    pixels = reader.read_region(region.xy, region.level, region.size)
    if region.size == region.out:
        return pixels
    shrinks = region.out[0] <= region.size[0] and region.out[1] <= region.size[1]
    how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(pixels, region.out, interpolation=how), dtype=np.uint8)


def encode(pixels: Pixels) -> bytes:
    """JPEG of (H, W, 3) RGB uint8 pixels."""
    data: bytes = simplejpeg.encode_jpeg(
        np.ascontiguousarray(pixels),
        quality=JPEG_QUALITY,
        colorspace="RGB",
        colorsubsampling="420",
        fastdct=True,
    )
    return data


def shrunk(jpeg: bytes) -> bytes:
    """A JPEG of at most THUMBNAIL_PX in width and height.

    Raises:
        SlideError: it is none.
    """
    try:
        pixels = simplejpeg.decode_jpeg(jpeg, min_width=THUMBNAIL_PX)
    except ValueError as error:
        raise SlideError(f"not a JPEG: {error}") from error
    height, width = pixels.shape[:2]
    share = min(1.0, THUMBNAIL_PX / max(height, width))
    size = (max(1, round(width * share)), max(1, round(height * share)))
    return encode(np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)))


def no_picture(reason: str) -> bytes:
    """SVG in place of a thumbnail that cannot be made."""
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 96 96">'
        f"<title>{escape(reason)}</title>"
        '<path d="M32 32l32 32M64 32L32 64" stroke="#b9b4a8" stroke-width="3" '
        'stroke-linecap="round"/></svg>'
    ).encode()


def _region(zoom: DeepZoom, what: tuple[str | int, ...]) -> Region:
    numbers = [int(number) for number in what[1:]]
    if what[0] == "thumbnail":
        return zoom.whole(THUMBNAIL_PX)
    if what[0] == "crop":
        x, y, side = numbers
        return zoom.crop((x, y), side, CROP_PX)
    level, column, row = numbers
    return zoom.tile(level, column, row)

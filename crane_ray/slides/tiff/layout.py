"""Which tiles a TIFF has, read once: levels, where each tile lies, how it is encoded.

The rules for what is a level, its downsample and the slide's scale are those of OpenSlide 4.0
for its formats ``aperio`` and ``generic-tiff``, found from its documentation and by experiment.
Whatever they leave open is refused with `StepAsideError`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import openslide
import tifffile

from crane_ray.slides.slide import SlideInfo
from crane_ray.slides.tiff import codecs, scale
from crane_ray.slides.tiff.codecs import TileFormat
from crane_ray.slides.tiff.errors import StepAsideError
from crane_ray.slides.tiff.jpeg import JpegTiles

APERIO, GENERIC = "aperio", "generic-tiff"
VENDORS: Final = frozenset({APERIO, GENERIC})
"""Formats of OpenSlide's that are read directly; all others compose tiles in ways of their own."""

MAX_PAGES = 1000
"""Slides have about ten images; a stack of thousands is something else."""

_WIDTH, _LENGTH, _BITS, _COMPRESSION, _PHOTOMETRIC = 256, 257, 258, 259, 262
_FILL_ORDER, _ORIENTATION, _SAMPLES, _PLANAR, _PREDICTOR = 266, 274, 277, 284, 317
_TILE_WIDTH, _TILE_LENGTH, _TILE_OFFSETS, _TILE_COUNTS = 322, 323, 324, 325
_SUBFILE, _OLD_SUBFILE, _EXTRA, _FORMAT, _JPEG_TABLES = 254, 255, 338, 339, 347
_IMAGE_DEPTH, _TILE_DEPTH = 32997, 32998
_REDUCED = 1
_RGB, _YCBCR = 2, 6

_REQUIRED: Final[dict[int, tuple[Any, ...]]] = {
    _BITS: ((8, 8, 8), 8),
    _FILL_ORDER: (1,),
    _ORIENTATION: (1,),
    _SAMPLES: (3,),
    _PLANAR: (1,),
    _PREDICTOR: (1, 2),
    _OLD_SUBFILE: (),
    _EXTRA: (),
    _FORMAT: (1, (1, 1, 1)),
    _IMAGE_DEPTH: (1,),
    _TILE_DEPTH: (1,),
}
"""What a level's tag may hold where it is there: 8-bit RGB, chunky, the right way up."""


@dataclass(frozen=True)
class TileLevel:
    """One level's tiles, row by row; sizes in px of the level."""

    width: int
    height: int
    format: TileFormat
    offsets: npt.NDArray[np.int64]
    counts: npt.NDArray[np.int64]
    """Bytes of each tile; 0 where the file has none."""
    composed: bool = False
    """OpenSlide fills tiles of this level from others: nothing is read directly."""

    @property
    def across(self) -> int:
        """Tiles in a row."""
        return math.ceil(self.width / self.format.width)

    def area_px(self, tile: int) -> int:
        """Pixels of the level in a tile: fewer in those that reach beyond its edge."""
        row, column = divmod(tile, self.across)
        width = min(self.format.width, self.width - column * self.format.width)
        height = min(self.format.height, self.height - row * self.format.height)
        return width * height


@dataclass(frozen=True)
class TiffLayout:
    """What the reader needs of a file."""

    info: SlideInfo
    levels: tuple[TileLevel, ...]


def read_layout(path: Path) -> TiffLayout:
    """Parses a file.

    Raises:
        StepAsideError: it is not taken; the message says why.
    """
    vendor = openslide.OpenSlide.detect_format(str(path))
    if vendor not in VENDORS:
        known = " and ".join(sorted(VENDORS))
        raise StepAsideError(f"its format is {vendor or 'unknown'}; {known} are read directly")
    try:
        with tifffile.TiffFile(path) as tiff:
            pages = [_tags(page) for page in _pages(tiff)]
        return _layout(vendor, pages, path.stat().st_size)
    except StepAsideError:
        raise
    except Exception as error:  # tifffile raises many kinds for odd files
        raise StepAsideError(f"its directories cannot be parsed: {error}") from error


def _pages(tiff: tifffile.TiffFile) -> Sequence[tifffile.TiffPage]:
    if len(tiff.pages) > MAX_PAGES:
        raise StepAsideError(f"it has more than {MAX_PAGES} images")
    return [page.aspage() for page in tiff.pages]


def _tags(page: tifffile.TiffPage) -> dict[int, Any]:
    return {tag.code: tag.value for tag in page.tags}


def _layout(vendor: str, pages: list[dict[int, Any]], file_size: int) -> TiffLayout:
    tiled = [page for page in pages if _TILE_WIDTH in page]
    if vendor == GENERIC:
        first, *others = tiled
        tiled = [first, *(page for page in others if int(page.get(_SUBFILE, 0)) & _REDUCED)]
        tiled.sort(key=lambda page: -int(page[_WIDTH]))
    levels = [_level(page, file_size) for page in tiled]
    _require_order(levels)
    if vendor == APERIO:
        levels = _with_composed(levels)
        mpp_xy, power = scale.aperio_scale(pages[0])
    else:
        mpp_xy, power = scale.generic_scale(pages[0]), None
    info = SlideInfo(
        vendor=vendor,
        level_dimensions=tuple((level.width, level.height) for level in levels),
        level_downsamples=tuple(_downsample(levels[0], level) for level in levels),
        mpp_xy=mpp_xy,
        objective_power=power,
    )
    return TiffLayout(info, tuple(levels))


def _level(page: dict[int, Any], file_size: int) -> TileLevel:
    width, height = int(page[_WIDTH]), int(page[_LENGTH])
    tile_width, tile_height = int(page[_TILE_WIDTH]), int(page[_TILE_LENGTH])
    if min(width, height, tile_width, tile_height) < 1:
        raise StepAsideError("a level without pixels")
    for code, allowed in _REQUIRED.items():
        if code in page and page[code] not in allowed:
            name = tifffile.TIFF.TAGS[code]
            raise StepAsideError(f"{name} is {page[code]}; 8-bit RGB in one plane is read directly")
    offsets = np.asarray(page[_TILE_OFFSETS], np.int64).reshape(-1)
    counts = np.asarray(page[_TILE_COUNTS], np.int64).reshape(-1)
    tiles = math.ceil(width / tile_width) * math.ceil(height / tile_height)
    if page.get(_SAMPLES) != 3 or not len(offsets) == len(counts) == tiles:
        raise StepAsideError(f"{len(offsets)} tiles where {tiles} are needed")
    if (counts < 0).any() or ((offsets + counts)[counts > 0] > file_size).any():
        raise StepAsideError("tiles lie beyond its end: it was cut short")
    return TileLevel(width, height, _format(page, tile_width, tile_height), offsets, counts)


def _format(page: dict[int, Any], width: int, height: int) -> TileFormat:
    compression, photometric = int(page[_COMPRESSION]), int(page[_PHOTOMETRIC])
    if compression not in codecs.SUPPORTED:
        raise StepAsideError(f"its tiles have compression {compression}")
    if compression != codecs.JPEG:
        if photometric != _RGB:
            raise StepAsideError(f"its tiles have photometric interpretation {photometric}")
        has_predictor = compression in (codecs.LZW, codecs.DEFLATE, codecs.OLD_DEFLATE, codecs.ZSTD)
        predictor = has_predictor and page.get(_PREDICTOR, 1) == 2
        return TileFormat(compression, width, height, predictor=predictor)
    if photometric not in (_RGB, _YCBCR):
        raise StepAsideError(f"its JPEG tiles have photometric interpretation {photometric}")
    tables = page.get(_JPEG_TABLES) or b""
    tiles = JpegTiles(ycbcr=photometric == _YCBCR, tables=tables, width=width, height=height)
    return TileFormat(compression, width, height, jpeg=tiles)


def _downsample(full: TileLevel, level: TileLevel) -> float:
    """OpenSlide's: the mean of both axes."""
    if level is full:
        return 1.0
    return (full.height / level.height + full.width / level.width) / 2.0


def _require_order(levels: list[TileLevel]) -> None:
    widths = [level.width for level in levels]
    downsamples = [_downsample(levels[0], level) for level in levels]
    if len(set(widths)) < len(widths) or downsamples != sorted(downsamples):
        raise StepAsideError("its levels are not in the order of their sizes")


def _with_composed(levels: list[TileLevel]) -> list[TileLevel]:
    """Aperio: OpenSlide paints tiles that miss, and those above them, from the levels below."""
    composed, result = False, []
    for level in levels:
        composed = composed or bool((level.counts == 0).any())
        result.append(
            TileLevel(
                level.width, level.height, level.format, level.offsets, level.counts, composed
            )
        )
    return result

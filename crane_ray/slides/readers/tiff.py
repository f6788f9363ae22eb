"""Tiled TIFF and Aperio SVS, read directly: native tiles by pread, each decoded once.

The pixels are OpenSlide's, bit for bit. Where that cannot be promised (origins between the
pixels of a lower level, which OpenSlide interpolates; tiles that it composes from other levels;
tiles it may judge otherwise) the region is read through the fallback, an OpenSlide reader of the
same file.
"""

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt

from crane_ray.errors import SlideError
from crane_ray.slides.slide import SlideReader
from crane_ray.slides.tiff.errors import StepAsideError
from crane_ray.slides.tiff.layout import read_layout
from crane_ray.slides.tiff.pieces import TilePieces, pieces_by_tile
from crane_ray.slides.tiff.placement import level_origins
from crane_ray.slides.tiff.tile_cache import TileCache
from crane_ray.slides.tiff.tile_memory import TileMemory
from crane_ray.slides.tiff.tile_use import TileUse

Pixels = npt.NDArray[np.uint8]
"""(..., H, W, 3) RGB uint8."""
Points = npt.NDArray[np.int64]
"""(N, 2) xy."""
Fallback = Callable[[], SlideReader]
"""Opens OpenSlide's reader of the same file."""

CACHE_BYTES = 64 * 2**20
"""Decoded tiles a reader keeps: 341 of 256 px, more than a column of a slide 80,000 px high."""

_MEMORY = TileMemory(CACHE_BYTES)
"""Of all readers: one that closes leaves its tiles' memory to the next."""


def detects(path: Path) -> bool:
    """True where the layout is one that is read directly."""
    try:
        read_layout(path)
    except StepAsideError:
        return False
    return True


def open_reader(path: Path, fallback: Fallback | None = None) -> "TiffReader":
    """The opened slide.

    Args:
        path: the file.
        fallback: opens the reader for regions that are not read directly, when the first one
            comes; without it they are errors.

    Raises:
        StepAsideError: the file's layout is not one that is read directly; it says why.
    """
    return TiffReader(path, fallback)


class TiffReader:
    """A `SlideReader` over one file, which threads may share."""

    name = "tiff"

    def __init__(self, path: Path, fallback: Fallback | None = None) -> None:
        parsed = read_layout(path)
        self.info = parsed.info
        self._levels = parsed.levels
        self._path = path
        self._open_fallback = fallback
        self._fallback: SlideReader | None = None
        self._fallback_lock = threading.Lock()
        self._cache = TileCache(CACHE_BYTES)
        self._use = [TileUse(tiles) for tiles in self._levels]
        self._file = os.open(path, os.O_RDONLY)

    def read_region(
        self, xy: tuple[int, int], level: int, size: tuple[int, int]
    ) -> npt.NDArray[np.uint8]:
        """See `SlideReader.read_region`."""
        region = np.empty((size[1], size[0], 3), np.uint8)
        self.read_regions(np.array([xy], np.int64), level, region[np.newaxis])
        return region

    def read_regions(self, xy: Points, level: int, out: Pixels) -> None:
        """Fills many regions of one size at once; each tile among them is decoded once.

        Args:
            xy: (N, 2) top-left corners in level-0 px, as for `read_region`.
            level: pyramid level to read from.
            out: (N, H, W, 3) uint8, C-contiguous; every pixel is written.

        Raises:
            SlideError: pixels cannot be decoded; ``out`` is then undefined.
        """
        tiles = self._levels[level]
        size = (out.shape[2], out.shape[1])
        origins, aligned = level_origins(xy, self.info.level_downsamples[level], size)
        if tiles.composed:
            aligned[:] = False
        aside = set(np.flatnonzero(~aligned).tolist())
        beyond = ((origins < 0) | (origins + size > (tiles.width, tiles.height))).any(axis=1)
        out[beyond & aligned] = 0
        for wanted in pieces_by_tile(origins, np.flatnonzero(aligned), size, tiles):
            try:
                self._paste(level, wanted, out)
            except StepAsideError:
                aside.update(piece[0] for piece in wanted.pieces)
        for index in sorted(aside):
            x, y = xy[index].tolist()
            out[index] = self._aside().read_region((x, y), level, size)

    def _paste(self, level: int, wanted: TilePieces, out: Pixels) -> None:
        """Decodes one tile, or takes it from the cache, and copies it to where it is wanted."""
        tile, pieces, area = wanted
        tiles, key = self._levels[level], (level, tile)
        used_up = self._use[level].is_used_up(tile, area)
        by_one = len(pieces) == 1 and area == tiles.area_px(tile)
        if (used_up or by_one) and key not in self._cache:
            place = out[pieces[0][0]]
            if by_one and place.shape == tiles.format.shape and place.size == 3 * area:
                self._decode(level, tile, place)
                return
            pixels = self._decode(level, tile)
        else:
            pixels = self._cached(level, tile)
            if used_up:
                self._cache.drop(key)
        for region, left, top, right, bottom, x, y in pieces:
            out[region, top:bottom, left:right] = pixels[y : y + bottom - top, x : x + right - left]

    def _cached(self, level: int, tile: int) -> Pixels:
        return self._cache.get((level, tile), lambda: self._decode(level, tile))

    def _decode(self, level: int, tile: int, out: Pixels | None = None) -> Pixels:
        tiles = self._levels[level]
        count = int(tiles.counts[tile])
        if not count:
            raise SlideError(
                f"{self._path.name}: tiles at {self._place(level, tile)} are missing from the "
                "file; copy it again from where it came"
            )
        try:
            data = os.pread(self._file, count, int(tiles.offsets[tile]))
            if len(data) < count:
                raise SlideError(f"the file ends after {len(data):,} of {count:,} bytes")
            return tiles.format.decode(
                data, _MEMORY.take(tiles.format.shape) if out is None else out
            )
        except StepAsideError as error:
            if self._open_fallback is None:
                raise SlideError(self._damaged(level, tile, error)) from error
            raise
        except (SlideError, OSError) as error:
            raise SlideError(self._damaged(level, tile, error)) from error

    def _damaged(self, level: int, tile: int, error: Exception) -> str:
        place = self._place(level, tile)
        return f"{self._path.name}: pixels at {place} cannot be decoded: {error}"

    def _place(self, level: int, tile: int) -> str:
        tiles = self._levels[level]
        row, column = divmod(tile, tiles.across)
        scale_x, scale_y = self.info.downsample_xy(level)
        x, y = column * tiles.format.width * scale_x, row * tiles.format.height * scale_y
        return f"level {level} near ({int(x)}, {int(y)})"

    def _aside(self) -> SlideReader:
        """OpenSlide's reader, opened for the first region that needs it."""
        with self._fallback_lock:
            if self._fallback is None:
                if self._open_fallback is None:
                    raise SlideError(
                        f"{self._path.name}: this region lies between the pixels of its level or "
                        "is composed of several levels, which takes OpenSlide; use --reader auto"
                    )
                reader = self._open_fallback()
                if reader.info != self.info:
                    reader.close()
                    raise SlideError(
                        f"{self._path.name}: OpenSlide sees other levels or another scale in it; "
                        "use --reader openslide"
                    )
                self._fallback = reader
            return self._fallback

    def close(self) -> None:
        """Releases the file and the tiles; no thread may be reading."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
        if self._fallback is not None:
            self._fallback.close()
        self._cache.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

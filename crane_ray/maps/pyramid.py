"""Maps as pyramidal tiled TIFF, which OpenSlide and QuPath open as slides with their resolution.

Level 0 is painted, encoded and written tile row by tile row; each row is halved on the way and
what the lower levels make of it waits, encoded, in temporary files. Memory: two rows of tiles a
level, whatever the size of the map.
"""

import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from typing import IO, Any

import cv2
import imagecodecs
import numpy as np
import numpy.typing as npt
import tifffile

from crane_ray import storage

Picture = npt.NDArray[np.uint8]
"""(H, W, 3) RGB."""

TILE_PX = 256
_REDUCED_IMAGE = 1
"""NewSubfileType of a lower level."""
_BIGTIFF_PX = 2**31
"""Maps with more pixels have 64-bit offsets: JPEG of the best quality takes up to 12 bits a pixel,
with the lower levels 4 GB."""


def write_pyramid(
    path: str,
    bands: Iterable[Picture],
    size_px: tuple[int, int],
    *,
    mpp_xy: tuple[float, float] | None,
    quality: int = 90,
) -> None:
    """Writes a picture and its halved levels, whole or not at all.

    Each level is an IFD of its own, tagged as a reduced image, with the dimensions of the one
    above it halved and rounded down, until the longer side is at most `TILE_PX`.

    Args:
        path: where.
        bands: the picture from top to bottom in (`TILE_PX`, W, 3) pieces, the last one shorter.
        size_px: its width and height.
        mpp_xy: um/px along x and y, written as pixels per cm; None leaves the file without.
        quality: of JPEG, 1 to 100.

    Raises:
        StorageError: it cannot be written.
    """
    sizes = level_sizes(size_px)
    big = size_px[0] * size_px[1] > _BIGTIFF_PX
    with storage.replacing(path) as temporary, ExitStack() as held:
        lower = [_LowerLevel(held.enter_context(tempfile.TemporaryFile()), quality)
                 for _ in sizes[1:]]  # fmt: skip
        tiff = held.enter_context(tifffile.TiffWriter(temporary, bigtiff=big))
        tiles = [_first_level(bands, size_px, lower, quality), *(level.tiles() for level in lower)]
        for number, (size, level) in enumerate(zip(sizes, tiles, strict=True)):
            tiff.write(
                level,
                shape=(size[1], size[0], 3),
                dtype=np.uint8,
                tile=(TILE_PX, TILE_PX),
                photometric="ycbcr",
                compression="jpeg",
                subsampling=(2, 2),
                subfiletype=_REDUCED_IMAGE if number else 0,
                metadata=None,
                software=False,
                **_resolution(mpp_xy, size_px, size),
            )


def level_sizes(size_px: tuple[int, int]) -> list[tuple[int, int]]:
    """Width and height of each level of a pyramid."""
    sizes = [size_px]
    while max(sizes[-1]) > TILE_PX and min(sizes[-1]) > 1:
        sizes.append((sizes[-1][0] // 2, sizes[-1][1] // 2))
    return sizes


class _LowerLevel:
    """A level below the first: takes the rows of the one above, keeps its own tiles in a file."""

    def __init__(self, file: IO[bytes], quality: int) -> None:
        self._file, self._quality = file, quality
        self._sizes: list[int] = []
        self._waiting: list[Picture] = []

    def take(self, band: Picture, *, last: bool = False) -> Picture | None:
        """Halves what comes from above and encodes what makes whole rows of tiles.

        Args:
            band: rows of the level above; an even number of them but for the last.
            last: whether they are; then all that waits is encoded.

        Returns:
            The rows that were encoded, for the level below; None where they wait.
        """
        width, height = band.shape[1] // 2, band.shape[0] // 2
        if height:
            even = band[: 2 * height, : 2 * width]
            self._waiting.append(
                np.asarray(cv2.resize(even, (width, height), interpolation=cv2.INTER_AREA))
            )
        rows = np.concatenate(self._waiting) if self._waiting else np.empty((0, width, 3), np.uint8)
        whole = len(rows) if last else len(rows) // TILE_PX * TILE_PX
        self._waiting = [rows[whole:]] if whole < len(rows) else []
        for top in range(0, whole, TILE_PX):
            for tile in _encoded(rows[top : min(top + TILE_PX, whole)], self._quality):
                self._file.write(tile)
                self._sizes.append(len(tile))
        return rows[:whole] if whole or last else None

    def tiles(self) -> Iterator[bytes]:
        """The level's encoded tiles."""
        self._file.seek(0)
        for size in self._sizes:
            yield self._file.read(size)


def _first_level(
    bands: Iterable[Picture], size_px: tuple[int, int], lower: list[_LowerLevel], quality: int
) -> Iterator[bytes]:
    """Tiles of level 0; the levels below have all of theirs by the last one."""
    left = size_px[1]
    for band in bands:
        left -= len(band)
        rows: Picture | None = band
        for level in lower:
            rows = level.take(rows, last=not left) if rows is not None else None
        yield from _encoded(band, quality)  # the writer asks for nothing after the last tile
    assert not left


def _encoded(band: Picture, quality: int) -> Iterator[bytes]:
    """A row of tiles as JPEG; those at the far edges are filled up by repeating the edge.

    Black there would bleed inwards through JPEG's chroma.
    """
    height, width = band.shape[:2]
    for left in range(0, width, TILE_PX):
        tile = band[:, left : left + TILE_PX]
        missing = ((0, TILE_PX - height), (0, TILE_PX - tile.shape[1]), (0, 0))
        whole = np.pad(tile, missing, mode="edge") if any(map(any, missing)) else tile
        yield bytes(
            imagecodecs.jpeg8_encode(
                np.ascontiguousarray(whole),
                quality,
                colorspace="rgb",
                outcolorspace="ycbcr",
                subsampling="420",
            )
        )


def _resolution(
    mpp_xy: tuple[float, float] | None, first: tuple[int, int], size: tuple[int, int]
) -> dict[str, Any]:
    if mpp_xy is None:
        return {}
    per_cm = (1e4 / mpp * own / whole for mpp, own, whole in zip(mpp_xy, size, first, strict=True))
    return {"resolution": tuple(per_cm), "resolutionunit": "CENTIMETER"}

"""Pyramidal tiled TIFFs that OpenSlide opens as ``generic-tiff``."""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import numpy.typing as npt
import tifffile

from crane_ray import storage
from crane_ray.errors import ConfigError

RGBImage = npt.NDArray[np.uint8]
"""(H, W, 3) RGB."""

Compression = Literal["jpeg", "deflate", "lzw", "zstd", "none"]

SMALLEST_LEVEL_PX = 256
"""Levels are added while the longer side is above this."""

_REDUCED_IMAGE = 1
"""NewSubfileType of a lower level."""

_BIGTIFF_BYTES = 2**32 - 2**25
"""Uncompressed size above which offsets might not fit in 32 bits."""


def write_pyramid(
    path: Path,
    image: RGBImage,
    *,
    mpp: float | None,
    tile_px: int = 256,
    quality: int = 80,
    num_levels: int | None = None,
    compression: Compression = "jpeg",
    subsampling: tuple[int, int] = (2, 2),
) -> Path:
    """Writes an image and its halved levels as a tiled TIFF, whole or not at all.

    Each level is an IFD of its own, tagged as a reduced image, with the dimensions of the one
    above it floor-halved. Memory: the image and one level.

    Args:
        path: where.
        image: (H, W, 3) uint8 RGB.
        mpp: um/px of level 0, written as pixels per cm; None leaves the file without a scale.
        tile_px: edge of the TIFF's tiles in px, a multiple of 16.
        quality: of JPEG, 1 to 100.
        num_levels: levels in all; None adds levels until the longer side is about 256 px.
        compression: of the tiles.
        subsampling: of JPEG's chroma, horizontal and vertical.

    Returns:
        The path.

    Raises:
        ConfigError: the image is not (H, W, 3) uint8, or has too few pixels for `num_levels`.
    """
    dimensions = _level_dimensions(_size_px(image), num_levels)
    options: dict[str, Any] = {"compression": None if compression == "none" else compression}
    if compression == "jpeg":
        options |= {"compressionargs": {"level": quality}, "subsampling": subsampling}
    if mpp is not None:
        options |= {"resolution": (1e4 / mpp, 1e4 / mpp), "resolutionunit": "CENTIMETER"}
    with storage.replacing(str(path)) as temporary:
        _write_levels(temporary, image, dimensions, tile_px=tile_px, options=options)
    return path


def _write_levels(
    path: Path,
    image: RGBImage,
    dimensions: list[tuple[int, int]],
    *,
    tile_px: int,
    options: dict[str, Any],
) -> None:
    big = image.nbytes * 4 // 3 > _BIGTIFF_BYTES
    with tifffile.TiffWriter(path, bigtiff=big) as tiff:
        level = image
        for number, (width, height) in enumerate(dimensions):
            if number:
                level = cv2.resize(level, (width, height), interpolation=cv2.INTER_AREA)
            tiff.write(
                _tiles(level, tile_px),
                shape=level.shape,
                dtype=level.dtype,
                tile=(tile_px, tile_px),
                photometric="rgb",
                subfiletype=_REDUCED_IMAGE if number else 0,
                metadata=None,
                software=False,
                **options,
            )


def is_whole_pyramid(path: Path, size_px: tuple[int, int], num_levels: int | None = None) -> bool:
    """Whether a file is a TIFF of this (width, height) and levels whose tiles all lie within it.

    Pixels are not decoded: a file cut short is found, overwritten tiles are not.
    """
    dimensions = _level_dimensions(size_px, num_levels)
    try:
        size = path.stat().st_size
        with tifffile.TiffFile(path) as tiff:
            return [
                (page.imagewidth, page.imagelength) for page in tiff.pages
            ] == dimensions and all(
                offset > 0 and 0 < count <= size - offset
                for page in tiff.pages
                for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True)
            )
    except (OSError, ValueError, struct.error):
        # What tifffile raises for a file that is missing, no TIFF, or ends within a directory.
        return False


def _size_px(image: RGBImage) -> tuple[int, int]:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ConfigError(
            f"an image of shape {image.shape}, {image.dtype} cannot be a slide; "
            "give (height, width, 3) uint8 RGB"
        )
    return image.shape[1], image.shape[0]


def _level_dimensions(size_px: tuple[int, int], num_levels: int | None) -> list[tuple[int, int]]:
    width, height = size_px
    if num_levels is None:
        num_levels = 1
        while max(size_px) >> num_levels >= SMALLEST_LEVEL_PX and min(size_px) >> num_levels:
            num_levels += 1
    if num_levels < 1 or not min(size_px) >> (num_levels - 1):
        raise ConfigError(
            f"{num_levels} levels of a {width} x {height} px image: at least 1, and each level "
            "halves both sides, which must stay above 0"
        )
    return [(width >> number, height >> number) for number in range(num_levels)]


def _tiles(level: RGBImage, tile_px: int) -> Iterator[RGBImage]:
    """The level's tiles row by row, those at the far edges filled up by repeating the edge.

    The writer itself would fill them with black, which JPEG's chroma lets bleed inwards.
    """
    height, width = level.shape[:2]
    for top in range(0, height, tile_px):
        for left in range(0, width, tile_px):
            tile = level[top : top + tile_px, left : left + tile_px]
            missing = ((0, tile_px - tile.shape[0]), (0, tile_px - tile.shape[1]), (0, 0))
            yield np.pad(tile, missing, mode="edge") if any(map(any, missing)) else tile

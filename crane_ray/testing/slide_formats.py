"""Small slides as scanners write them: tile codecs, photometrics, vendors, odd levels."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import cv2
import imagecodecs
import numpy as np
import numpy.typing as npt
import tifffile

from crane_ray import storage

RGBImage = npt.NDArray[np.uint8]
"""(H, W, 3) RGB."""

TileCodec = Literal["jpeg", "jpeg2000", "jpeg2000_ycbcr", "deflate", "lzw", "zstd", "none"]

_NAMES = {"none": None, "deflate": "adobe_deflate"}
"""What the TIFF writer calls them, where it is not the same."""
_APERIO_JPEG2000 = {"jpeg2000": 33005, "jpeg2000_ycbcr": 33003}
_TABLES = frozenset({0xDB, 0xC4})
"""Quantisation and Huffman segments."""
_SCAN = 0xDA


@dataclass(frozen=True)
class SlideFormat:
    """How a slide's tiles are encoded and what its file claims to be."""

    codec: TileCodec = "jpeg"
    """JPEG 2000 is Aperio's alone: 33005 for RGB, 33003 for YCbCr."""
    subsampling: str = "420"
    """Of JPEG's chroma: 444, 422, 420, 440 or 411."""
    photometric: Literal["ycbcr", "rgb"] = "ycbcr"
    """Of JPEG: whether the stored components are YCbCr or, as in Aperio's, RGB."""
    shared_tables: bool = False
    """JPEG's tables stand once in the file instead of in every tile."""
    quality: int = 80
    """Of JPEG, 1 to 100."""
    predictor: bool = False
    """Of deflate, LZW and zstd: differences to the pixel on the left."""
    vendor: Literal["generic-tiff", "aperio"] = "generic-tiff"
    tile_px: tuple[int, int] = (256, 256)
    """Width and height of a tile, multiples of 16."""


def write_slide(
    path: Path,
    image: RGBImage,
    form: SlideFormat,
    *,
    level_sizes: tuple[tuple[int, int], ...] = (),
    mpp: float = 0.5,
) -> Path:
    """Writes an image as a slide of a format.

    Args:
        path: where.
        image: (H, W, 3) uint8 RGB, level 0.
        form: of its tiles and of the file.
        level_sizes: (width, height) of each lower level, which need not halve anything.
        mpp: um/px of level 0.

    Returns:
        The path.
    """
    with storage.replacing(str(path)) as temporary, tifffile.TiffWriter(temporary) as tiff:
        for number, size in enumerate([image.shape[1::-1], *level_sizes]):
            level = cv2.resize(image, size, interpolation=cv2.INTER_AREA) if number else image
            options = _options(form, level, number=number, mpp=mpp)
            tiff.write(_tiles(level, form), metadata=None, software=False, **options)
            if form.vendor == "aperio" and number == 0:
                thumbnail = cv2.resize(image, (64, 48), interpolation=cv2.INTER_AREA)
                tiff.write(thumbnail, photometric="rgb", metadata=None, software=False)
    return path


def _options(form: SlideFormat, level: RGBImage, *, number: int, mpp: float) -> dict[str, Any]:
    height, width = level.shape[:2]
    options: dict[str, Any] = {
        "shape": level.shape,
        "dtype": level.dtype,
        "tile": form.tile_px[::-1],
        "photometric": "rgb",
        "compression": _APERIO_JPEG2000.get(form.codec, _NAMES.get(form.codec, form.codec)),
        "predictor": 2 if form.predictor else None,
        "subfiletype": 1 if number and form.vendor != "aperio" else 0,
    }
    if form.codec == "jpeg":
        options["photometric"] = form.photometric
        if form.photometric == "rgb":
            options["compressionargs"] = {"outcolorspace": "rgb"}  # else the tag says YCbCr
        else:
            # The TIFF writer knows no 440; readers go by the JPEG stream, not by this tag.
            options["subsampling"] = {"422": (2, 1), "420": (2, 2), "411": (4, 1)}.get(
                form.subsampling, (1, 1)
            )
        if form.shared_tables:
            options["jpegtables"] = _split(_jpeg(level[:16, :16], form))[0]
    if form.vendor == "aperio":
        fields = f"AppMag = 20|MPP = {mpp:.4f}" if not number else "AppMag = 20"
        options["description"] = f"Aperio Image Library v11.2.1 \r\n{width}x{height} |{fields}"
    else:
        options |= {"resolution": (1e4 / mpp, 1e4 / mpp), "resolutionunit": "CENTIMETER"}
    return options


def _tiles(level: RGBImage, form: SlideFormat) -> Iterator[bytes | RGBImage]:
    """Tiles row by row, encoded where the TIFF writer cannot do so; edges repeat the last pixel."""
    height, width = level.shape[:2]
    tile_width, tile_height = form.tile_px
    for top in range(0, height, tile_height):
        for left in range(0, width, tile_width):
            tile = level[top : top + tile_height, left : left + tile_width]
            missing = ((0, tile_height - tile.shape[0]), (0, tile_width - tile.shape[1]), (0, 0))
            yield _encoded(np.pad(tile, missing, mode="edge"), form)


def _encoded(tile: RGBImage, form: SlideFormat) -> bytes | RGBImage:
    if form.codec == "jpeg":
        stream = _jpeg(tile, form)
        return _split(stream)[1] if form.shared_tables else stream
    if form.codec in _APERIO_JPEG2000:
        return bytes(imagecodecs.jpeg2k_encode(tile, 40, codecformat="j2k", reversible=False))
    return tile


def _jpeg(tile: RGBImage, form: SlideFormat) -> bytes:
    rgb = form.photometric == "rgb"
    return bytes(
        imagecodecs.jpeg8_encode(
            np.ascontiguousarray(tile),
            form.quality,
            colorspace="rgb",
            outcolorspace="rgb" if rgb else "ycbcr",
            subsampling="444" if rgb else form.subsampling,
        )
    )


def _split(stream: bytes) -> tuple[bytes, bytes]:
    """A JPEG stream as a stream of its tables and one of the rest."""
    tables, rest, position = [b"\xff\xd8"], [b"\xff\xd8"], 2
    while stream[position + 1] != _SCAN:
        end = position + 2 + int.from_bytes(stream[position + 2 : position + 4], "big")
        (tables if stream[position + 1] in _TABLES else rest).append(stream[position:end])
        position = end
    return b"".join([*tables, b"\xff\xd9"]), b"".join([*rest, stream[position:]])

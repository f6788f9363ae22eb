"""From a tile's bytes to its pixels, for the compressions that are decoded without OpenSlide."""

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import imagecodecs
import numpy as np
import numpy.typing as npt

from crane_ray.errors import SlideError
from crane_ray.slides.tiff.errors import StepAsideError
from crane_ray.slides.tiff.jpeg import JpegTiles

Pixels = npt.NDArray[np.uint8]
"""(H, W, 3) RGB uint8."""

NONE, LZW, JPEG, DEFLATE, OLD_DEFLATE = 1, 5, 7, 8, 32946
APERIO_JP2K_YCBCR, APERIO_JP2K_RGB, ZSTD = 33003, 33005, 50000

BYTES: Final[dict[int, Callable[[bytes, int], bytes | bytearray]]] = {
    NONE: lambda data, size: data[:size],
    LZW: lambda data, size: imagecodecs.lzw_decode(data, out=size),
    DEFLATE: lambda data, size: imagecodecs.deflate_decode(data, out=size),
    OLD_DEFLATE: lambda data, size: imagecodecs.deflate_decode(data, out=size),
    ZSTD: lambda data, size: imagecodecs.zstd_decode(data, out=size),
}
"""Compressions that give the tile's bytes as they are, before the predictor."""

_SOC, _SIZ, _SOT = 0xFF4F, 0xFF51, 0xFF90
"""JPEG 2000's markers of a codestream, of its size and of a tile-part."""

SUPPORTED: Final = frozenset({*BYTES, JPEG, APERIO_JP2K_RGB})


@dataclass(frozen=True)
class TileFormat:
    """How the tiles of one level are encoded; each is 8-bit RGB of one fixed size."""

    compression: int
    width: int
    height: int
    jpeg: JpegTiles | None = None
    predictor: bool = False
    """Values are differences to the pixel on the left."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of a tile's array."""
        return self.height, self.width, 3

    def decode(self, data: bytes, out: Pixels) -> Pixels:
        """The tile's pixels, written to ``out``, (height, width, 3) C-contiguous. Frees the GIL.

        Raises:
            StepAsideError: OpenSlide has to say whether these pixels can be used.
            SlideError: the bytes are damaged.
        """
        if self.jpeg is not None:
            return self.jpeg.decode(data, out)
        try:
            if self.compression == APERIO_JP2K_RGB:
                _require_plain_jpeg2000(data, self.width, self.height)
                imagecodecs.jpeg2k_decode(data, numthreads=1, out=out)
                return out
            return self._decode_bytes(data, out)
        except (RuntimeError, ValueError, TypeError) as error:
            if isinstance(error, SlideError):
                raise
            raise SlideError(str(error) or type(error).__name__) from error

    def _decode_bytes(self, data: bytes, out: Pixels) -> Pixels:
        if self.compression == LZW and len(data) > 1 and data[0] == 0 and data[1] & 1:
            raise StepAsideError("LZW of the old style")
        content = BYTES[self.compression](data, out.nbytes)
        pixels = np.frombuffer(content, np.uint8, out.nbytes).reshape(out.shape)
        if self.predictor:
            imagecodecs.delta_decode(pixels, axis=1, out=out)
        else:
            out[:] = pixels
        return out


def _require_plain_jpeg2000(data: bytes, width: int, height: int) -> None:
    """Refuses a codestream that is not whole, and leaves unusual ones to OpenSlide.

    OpenJPEG, and so OpenSlide, decodes a codestream whose tail is zeros without a word, which is
    what an interrupted copy leaves behind.
    """
    try:
        soc, siz, _, _, *size = struct.unpack_from(">HHHH8LH", data)
        components = [struct.unpack_from(">BBB", data, 42 + 3 * number) for number in range(3)]
        whole = (soc, siz) == (_SOC, _SIZ) and _has_its_end(data)
    except struct.error:
        whole = False
    if not whole:
        raise SlideError("a JPEG 2000 tile is cut short, overwritten or no JPEG 2000 at all")
    if size[:4] != [width, height, 0, 0] or size[8] != 3 or components != [(7, 1, 1)] * 3:
        raise StepAsideError("a JPEG 2000 tile with sub-sampled, few or unusual components")


def _has_its_end(data: bytes) -> bool:
    """Follows the lengths of header segments and tile-parts to the end marker."""
    position = 2
    while True:
        marker, length = struct.unpack_from(">HH", data, position)
        if marker == _SOT:
            (length,) = struct.unpack_from(">L", data, position + 6)
            if not length:  # up to the end of the stream
                return data.rstrip(b"\0").endswith(b"\xff\xd9")
            position += length
        elif marker < 0xFF00 or length < 2:
            return False
        else:
            position += 2 + length
        if data[position : position + 2] == b"\xff\xd9":
            return True

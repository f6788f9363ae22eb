"""JPEG tiles of a TIFF as OpenSlide decodes them: the file's colour space, and every fault raised.

libjpeg-turbo goes on after a warning and fills what it misses with grey. OpenSlide takes each
warning for an error, and so does this module (TurboJPEG's warnings, through simplejpeg), which
also looks at how the stream ends: a tile that was cut, zero-filled or overwritten is not silently
grey.
"""

import re
import struct
from typing import Final

import numpy as np
import numpy.typing as npt
import simplejpeg

from crane_ray.errors import SlideError
from crane_ray.slides.tiff.errors import StepAsideError

Pixels = npt.NDArray[np.uint8]
"""(H, W, 3) RGB uint8."""

_SOI: Final = b"\xff\xd8"
_ADOBE: Final = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00"
"""A segment that ends with the colour space that libjpeg shall assume: 0 is RGB, 1 is YCbCr."""
_EOI, _SOS, _DHT, _DQT = 0xD9, 0xDA, 0xC4, 0xDB
_SOF: Final = frozenset({0xC0, 0xC1, 0xC2})
"""Baseline, extended and progressive Huffman frames; others need OpenSlide's word."""
_COMMENTS: Final = frozenset({*range(0xE0, 0xF0), 0xFE})
"""APPn and COM. JFIF and Adobe segments speak of colour, which the TIFF's own tag overrules."""
_SAMPLINGS: Final = frozenset({0x11, 0x21, 0x22, 0x12, 0x41, 0x14})
"""Of the first component, horizontal and vertical, the others being 1 x 1: what TurboJPEG takes."""

_PADDING: Final = re.compile(r"(\d+) extraneous bytes before marker 0xd9")
_MAX_PADDING: Final = 16
"""Zeros that an encoder may leave in front of the end marker; more are a hole in the file."""


class JpegTiles:
    """Decodes a level's tiles, whole or abbreviated JPEG streams of one size; threads may share it.

    Args:
        ycbcr: whether the TIFF says that the components are YCbCr; else they are RGB.
        tables: the TIFF's JPEGTables, if any.
        width: of every tile in px.
        height: of every tile in px.

    Raises:
        StepAsideError, SlideError: the tables are none.
    """

    def __init__(self, *, ycbcr: bool, tables: bytes, width: int, height: int) -> None:
        colour = _ADOBE + (b"\x01" if ycbcr else b"\x00")
        self._start = _SOI + colour + _shared_tables(tables)
        self._size_hw = (height, width)
        self._header = (b"", b"")
        """The last tile's segments in front of its scan, and what takes their place: most files
        repeat them in every tile, and looking at each costs a tenth of decoding it."""

    def decode(self, data: bytes, out: Pixels) -> Pixels:
        """A tile decoded into ``out``, (height, width, 3) C-contiguous.

        Raises:
            StepAsideError: the stream is of an unusual kind, or padded at its end, where
                OpenSlide does not look.
            SlideError: the stream is damaged.
        """
        try:
            simplejpeg.decode_jpeg(self.whole_stream(data), buffer=out)
        except ValueError as error:
            if isinstance(error, SlideError):
                raise
            if _is_padded(data, str(error)):
                raise StepAsideError(str(error)) from error
            raise SlideError(str(error)) from error
        return out

    def whole_stream(self, data: bytes) -> bytes:
        """The tile with the TIFF's tables and colour space in it, its own markers of colour out.

        Raises:
            StepAsideError, SlideError: as `decode`.
        """
        old, new = self._header
        if not old or not data.startswith(old):
            old, new = self._header = self._new_header(data)
        return new + data[len(old) :]

    def _new_header(self, data: bytes) -> tuple[bytes, bytes]:
        """What stands in front of a tile's scan, the marker of the scan included, and the new."""
        if data[:2] != _SOI:
            raise SlideError("a tile does not begin as JPEG does")
        parts, position, framed = [self._start], 2, False
        while True:
            marker, end = _segment(data, position)
            if marker == _SOS:
                break
            if marker in _SOF:
                _require_plain_frame(data[position + 4 : end], self._size_hw)
                framed = True
            if marker not in _COMMENTS:
                parts.append(data[position:end])
            position = end
        if not framed:
            raise StepAsideError("a JPEG tile of an unusual kind")
        parts.append(data[position : position + 2])
        return data[: position + 2], b"".join(parts)


def _shared_tables(tables: bytes) -> bytes:
    """The quantisation and Huffman segments of a TIFF's JPEGTables, without its start and end.

    Raises:
        StepAsideError: it is no table stream.
    """
    if not tables:
        return b""
    kept, position = [], 2
    if tables[:2] != _SOI:
        raise StepAsideError("its shared JPEG tables do not begin as JPEG does")
    while tables[position + 1 : position + 2] not in (b"", bytes([_EOI])):
        marker, end = _segment(tables, position)
        if marker in (_DHT, _DQT):
            kept.append(tables[position:end])
        position = end
    return b"".join(kept)


def _is_padded(data: bytes, message: str) -> bool:
    """Whether all that is amiss is a few zeros in front of the end."""
    padding = _PADDING.search(message)
    if not padding or int(padding[1]) > _MAX_PADDING:
        return False
    before_end = data.rpartition(b"\xff\xd9")[0]
    return not before_end[-int(padding[1]) :].strip(b"\0")


def _require_plain_frame(frame: bytes, size_hw: tuple[int, ...]) -> None:
    if len(frame) != 15 or frame[:6] != struct.pack(">BHHB", 8, *size_hw, 3):
        raise StepAsideError("a JPEG tile of another size than the TIFF says, or not 3 x 8 bit")
    if frame[7] not in _SAMPLINGS or (frame[10], frame[13]) != (0x11, 0x11):
        raise StepAsideError("a JPEG tile with unusual sub-sampling")


def _segment(data: bytes, position: int) -> tuple[int, int]:
    """The marker at a position, and where its segment ends.

    Raises:
        SlideError: there is none, or not all of it.
    """
    try:
        start, marker, length = struct.unpack_from(">BBH", data, position)
    except struct.error:
        raise SlideError("a JPEG header ends early") from None
    end = position + 2 + length
    if start != 0xFF or marker == 0xFF or length < 2 or end > len(data):
        raise SlideError("a JPEG header is damaged")
    return marker, end

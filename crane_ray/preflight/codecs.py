"""The libraries that decode slides, each tried on a small image that it must give back.

Imports stand inside: each library may be the one that is missing.
"""

import io
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

SIDE_PX = 64
COLOUR = (200, 120, 160)
TOLERANCE = 6
"""Grey levels that JPEG may be off on a plain image."""


def _plain() -> Any:
    import numpy as np

    return np.full((SIDE_PX, SIDE_PX, 3), COLOUR, dtype=np.uint8)


def _require_equal(found: Any, tolerance: int) -> None:
    import numpy as np

    wanted = _plain()
    if found.shape != wanted.shape:
        raise ValueError(f"decoded an image of shape {found.shape} in place of {wanted.shape}")
    off = int(np.abs(found.astype(int) - wanted.astype(int)).max())
    if off > tolerance:
        raise ValueError(f"decoded pixels that are {off} grey levels off")


def _openslide() -> None:
    """A tiled TIFF, which OpenSlide calls generic-tiff."""
    import numpy as np
    import openslide
    import tifffile

    with tempfile.TemporaryDirectory(prefix="crane-doctor-") as folder:
        path = Path(folder) / "slide.tif"
        tifffile.imwrite(path, _plain(), tile=(SIDE_PX, SIDE_PX), photometric="rgb")
        with openslide.OpenSlide(path) as slide:
            region = slide.read_region((0, 0), 0, (SIDE_PX, SIDE_PX))
    _require_equal(np.asarray(region.convert("RGB")), 0)


def _simplejpeg() -> None:
    import simplejpeg

    _require_equal(simplejpeg.decode_jpeg(simplejpeg.encode_jpeg(_plain(), 90)), TOLERANCE)


def _jpeg2000() -> None:
    import imagecodecs

    coded = imagecodecs.jpeg2k_encode(_plain(), level=0, reversible=True)
    _require_equal(imagecodecs.jpeg2k_decode(coded), 0)


def _byte_codecs() -> None:
    import imagecodecs
    import numpy as np

    for name in ("lzw", "deflate", "zstd"):
        coded = getattr(imagecodecs, f"{name}_encode")(_plain().tobytes())
        plain = getattr(imagecodecs, f"{name}_decode")(coded)
        _require_equal(np.frombuffer(plain, np.uint8).reshape(SIDE_PX, SIDE_PX, 3), 0)


def _pillow() -> None:
    import numpy as np
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(_plain()).save(file, "PNG")
    _require_equal(np.asarray(Image.open(io.BytesIO(file.getvalue()))), 0)


def _opencv() -> None:
    """What finds tissue, and resamples patches."""
    import cv2

    _require_equal(cv2.resize(_plain()[::2, ::2], (SIDE_PX, SIDE_PX)), 0)


CHECKS: Final[dict[str, Callable[[], None]]] = {
    "OpenSlide": _openslide,
    "simplejpeg (JPEG)": _simplejpeg,
    "imagecodecs (JPEG 2000)": _jpeg2000,
    "imagecodecs (LZW, deflate, zstd)": _byte_codecs,
    "Pillow (PNG)": _pillow,
    "OpenCV": _opencv,
}

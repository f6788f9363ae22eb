"""Plain PNG, JPEG and TIFF images as slides of one level; their mpp comes from the slide table."""

import warnings
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from crane_ray.errors import SlideError
from crane_ray.slides.slide import SlideInfo

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff"})
MODES = frozenset({"RGB", "RGBA", "L", "P"})
"""8-bit modes; 16-bit, float and CMYK images have no agreed way to 8-bit RGB."""
TILE_WIDTH_TAG = 322
"""A tiled TIFF is a slide; read as a plain image, a truncated one would lose its scale."""
MAX_PIXELS = 1_000_000_000
"""A plain image is decoded whole: 3 GB of memory at most."""


def detects(path: Path) -> bool:
    """True where the name is that of a plain image and Pillow knows its content."""
    if path.suffix.lower() not in SUFFIXES:
        return False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of broken files, which `open_slide` refuses
            Image.open(path).close()
    except Image.DecompressionBombError:
        return True
    except (UnidentifiedImageError, SyntaxError):
        return False
    return True


def open_reader(path: Path) -> "ImageReader":
    """The decoded image.

    Raises:
        SlideError: too large, not 8-bit RGB or grey, or its pixels cannot be decoded.
    """
    return ImageReader(path)


class ImageReader:
    """A `SlideReader` over one image held in memory, (H, W, 3) uint8."""

    name = "image"

    def __init__(self, path: Path) -> None:
        self._pixels = _decode(path)
        height, width = self._pixels.shape[:2]
        self.info = SlideInfo(
            vendor="image", level_dimensions=((width, height),), level_downsamples=(1.0,)
        )

    def read_region(
        self, xy: tuple[int, int], level: int, size: tuple[int, int]
    ) -> npt.NDArray[np.uint8]:
        """See `SlideReader.read_region`; the only level is 0."""
        (x, y), (width, height) = xy, size
        region = np.zeros((height, width, 3), dtype=np.uint8)
        top, left = max(y, 0), max(x, 0)
        inside = self._pixels[top : max(y + height, 0), left : max(x + width, 0)]
        region[top - y : top - y + inside.shape[0], left - x : left - x + inside.shape[1]] = inside
        return region

    def close(self) -> None:
        """Lets the pixels go."""
        self._pixels = np.zeros((0, 0, 3), dtype=np.uint8)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _stored_mode(image: Image.Image) -> str:
    """The mode in the file: Pillow gives 16-bit colour as RGB, the low bytes silently gone."""
    for tile in getattr(image, "tile", ()):
        stored = tile.args if isinstance(tile.args, str) else next(iter(tile.args or ()), "")
        if ";16" in str(stored):
            return str(stored)
    return image.mode


def _decode(path: Path) -> npt.NDArray[np.uint8]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path) as image:
                if TILE_WIDTH_TAG in getattr(image, "tag_v2", {}):
                    raise SlideError(
                        f"{path.name} is a tiled TIFF that OpenSlide does not take: cut short "
                        "(compare its size with the original's), or of a layout it does not know"
                    )
                if _stored_mode(image) not in MODES:
                    raise SlideError(
                        f"{path.name} is an image of mode {_stored_mode(image)}; 8-bit RGB or "
                        "grey is needed: convert it first"
                    )
                if image.width * image.height > MAX_PIXELS:
                    raise SlideError(
                        f"{path.name} is a plain image of {image.width} x {image.height} px; "
                        "convert it to a tiled pyramid (e.g. vips tiffsave --tile --pyramid)"
                    )
                return np.asarray(image.convert("RGB"))
    except Image.DecompressionBombError as error:
        raise SlideError(f"{path.name}: {error}; convert it to a tiled pyramid") from error
    except (OSError, SyntaxError, ValueError) as error:
        if isinstance(error, SlideError):
            raise
        raise SlideError(f"{path.name}: its pixels cannot be decoded: {error}") from error

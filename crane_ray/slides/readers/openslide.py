"""Slides through OpenSlide: every vendor format that it knows."""

from pathlib import Path
from typing import Self

import cv2
import numpy as np
import numpy.typing as npt
import openslide

from crane_ray.errors import SlideError
from crane_ray.slides.slide import SlideInfo

DENSE_VENDORS = frozenset({"generic-tiff"})
"""Formats in which every tile must be there. OpenSlide gives a missing one as transparent pixels
without an error, and black patches would follow; other scanners leave out glass on purpose."""


def detects(path: Path) -> bool:
    """True where OpenSlide recognises the file's format."""
    return openslide.OpenSlide.detect_format(str(path)) is not None


def open_reader(path: Path) -> "OpenSlideReader":
    """The opened slide.

    Raises:
        SlideError: OpenSlide recognises the format but cannot open the file.
    """
    return OpenSlideReader(path)


class OpenSlideReader:
    """A `SlideReader` over one OpenSlide handle, which threads may share."""

    name = "openslide"

    def __init__(self, path: Path) -> None:
        try:
            self._slide = openslide.OpenSlide(str(path))
        except openslide.OpenSlideError as error:
            raise SlideError(f"{path.name} is broken or incomplete: {error}") from error
        self._path = path
        self.info = _info(self._slide)

    def read_region(
        self, xy: tuple[int, int], level: int, size: tuple[int, int]
    ) -> npt.NDArray[np.uint8]:
        """See `SlideReader.read_region`."""
        try:
            rgba = np.asarray(self._slide.read_region(xy, level, size))
        except openslide.OpenSlideError as error:
            # OpenSlide latches a handle's first error: every later call repeats it.
            raise SlideError(
                f"{self._path.name}: pixels at level {level} near ({xy[0]}, {xy[1]}) cannot be "
                f"decoded: {error}"
            ) from error
        if self.info.vendor in DENSE_VENDORS:
            self._require_pixels(rgba, xy, level)
        return np.asarray(cv2.cvtColor(rgba, cv2.COLOR_RGBA2RGB), dtype=np.uint8)

    def _require_pixels(self, rgba: npt.NDArray[np.uint8], xy: tuple[int, int], level: int) -> None:
        """Refuses transparent pixels inside the slide: tiles that the file lost."""
        downsample = self.info.level_downsamples[level]
        width, height = self.info.level_dimensions[level]
        left, top = (int(np.ceil(place / downsample)) for place in xy)
        inside = rgba[
            max(-top, 0) : max(height - top - 1, 0), max(-left, 0) : max(width - left - 1, 0), 3
        ]
        if inside.size and inside.min() == 0:
            raise SlideError(
                f"{self._path.name}: tiles at level {level} near ({xy[0]}, {xy[1]}) are missing "
                "from the file; copy it again from where it came"
            )

    def close(self) -> None:
        """Releases the handle."""
        self._slide.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _info(slide: openslide.OpenSlide) -> SlideInfo:
    properties = slide.properties
    mpp_x = _number(properties.get(openslide.PROPERTY_NAME_MPP_X))
    mpp_y = _number(properties.get(openslide.PROPERTY_NAME_MPP_Y))
    return SlideInfo(
        vendor=properties.get(openslide.PROPERTY_NAME_VENDOR, "unknown"),
        level_dimensions=tuple((int(w), int(h)) for w, h in slide.level_dimensions),
        level_downsamples=tuple(float(d) for d in slide.level_downsamples),
        mpp_xy=(mpp_x, mpp_y) if mpp_x is not None and mpp_y is not None else None,
        objective_power=_number(properties.get(openslide.PROPERTY_NAME_OBJECTIVE_POWER)),
    )


def _number(text: str | None) -> float | None:
    try:
        return float(text) if text else None
    except ValueError:
        return None

"""Slide, what is known of it, and the protocol of whatever reads its pixels."""

import math
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self, runtime_checkable

import numpy as np
import numpy.typing as npt

from crane_ray.errors import ScaleError

MPP_RANGE = (0.05, 20.0)
"""Resolutions of real slides in um/px; anything outside is a broken tag, not a scale."""

MAX_PIXEL_ASPECT = 1.05
"""Pixels longer than this in one direction have no single scale."""


@dataclass(frozen=True)
class Slide:
    """A slide of the cohort's table: where it is and what the table says of it."""

    slide_id: str
    uri: str
    case_id: str = ""
    mpp: float | None = None
    """Overrides the file's own resolution, um/px at level 0."""


@dataclass(frozen=True)
class SlideInfo:
    """What a slide file says of itself; all sizes in pixels of their level, (width, height)."""

    vendor: str
    level_dimensions: tuple[tuple[int, int], ...]
    level_downsamples: tuple[float, ...]
    """As the reading library reports them: the mean of both axes for most formats."""
    mpp_xy: tuple[float, float] | None = None
    """Level-0 um/px along x and y as written in the file; None where it says nothing."""
    objective_power: float | None = None

    @property
    def dimensions(self) -> tuple[int, int]:
        """Width and height at level 0."""
        return self.level_dimensions[0]

    @property
    def num_levels(self) -> int:
        """Number of pyramid levels."""
        return len(self.level_dimensions)

    def downsample_xy(self, level: int) -> tuple[float, float]:
        """Level-0 pixels per pixel of a level, per axis: the ratio of dimensions, as in CLAM."""
        (width, height), (level_width, level_height) = self.dimensions, self.level_dimensions[level]
        return width / level_width, height / level_height

    def best_level(self, downsample: float) -> int:
        """The level with the largest downsample not above the one given; 0 if there is none."""
        fitting = [lv for lv, own in enumerate(self.level_downsamples) if own <= downsample]
        return max(fitting, default=0)


class SlideReader(Protocol):
    """Reads pixels of one open slide; safe to call from several threads at once."""

    name: str
    """The plug-in's short name, recorded with the results."""
    info: SlideInfo

    def read_region(
        self, xy: tuple[int, int], level: int, size: tuple[int, int]
    ) -> npt.NDArray[np.uint8]:
        """Pixels of a region as (height, width, 3) RGB uint8.

        Args:
            xy: top-left corner in level-0 px; may lie off the slide.
            level: pyramid level to read from.
            size: (width, height) in pixels of that level.

        Pixels off the slide, and those the scanner left out, are black, as in CLAM.

        Raises:
            SlideError: the pixels cannot be decoded; never black in place of an error.
        """
        ...

    def close(self) -> None:
        """Releases the file."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


@runtime_checkable
class RegionsReader(Protocol):
    """A reader that fills many regions at once faster than one by one."""

    def read_regions(
        self, xy: npt.NDArray[np.int64], level: int, out: npt.NDArray[np.uint8]
    ) -> None:
        """The same pixels as `SlideReader.read_region` gives, region by region.

        Args:
            xy: (n, 2) top-left corners in level-0 px.
            level: pyramid level to read from.
            out: (n, height, width, 3) uint8, C-contiguous; filled with RGB.

        Raises:
            SlideError: pixels of one of them cannot be decoded.
        """
        ...


def scale_of(slide: Slide, info: SlideInfo) -> float:
    """The slide's level-0 resolution in um/px: the table's if given, else the file's own.

    Raises:
        ScaleError: there is none, it is impossible, or pixels are not square; the scale is
            never guessed from magnification or anything else.
    """
    fix = (
        f"give the slide's true um/px in the mpp column of a slide table (slide_id "
        f"{slide.slide_id}), or place patches by pyramid level with --patch-level"
    )
    if slide.mpp is not None and not math.isnan(slide.mpp):
        mpp, source = slide.mpp, "the slide table"
    elif info.mpp_xy is None:
        raise ScaleError(f"slide {slide.slide_id}: no mpp in its metadata; {fix}")
    else:
        mpp, source = sum(info.mpp_xy) / 2, "its metadata"
        if not max(info.mpp_xy) <= MAX_PIXEL_ASPECT * min(info.mpp_xy):
            raise ScaleError(
                f"slide {slide.slide_id}: pixels of {info.mpp_xy[0]:g} x {info.mpp_xy[1]:g} um "
                f"are not square; {fix}"
            )
    low, high = MPP_RANGE
    if not low <= mpp <= high:
        raise ScaleError(
            f"slide {slide.slide_id}: an mpp of {mpp:.6g} um/px from {source} is impossible "
            f"({low:g} to {high:g} is allowed); {fix}"
        )
    return mpp

"""Where a slide's patches are: PatchSpec says what is asked for, PatchGrid what came of it."""

import hashlib
import math
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from crane_ray.config import Config, Flag
from crane_ray.errors import ScaleError
from crane_ray.slides.params import ContourRule, TissueParams
from crane_ray.slides.polygons import Boundary, points_in_ring
from crane_ray.slides.slide import SlideInfo
from crane_ray.slides.tissue import Ring, TissueContour, TissueContours

Points = npt.NDArray[np.int64]
"""(N, 2) int64 xy in level-0 px."""


class PatchSpec(Config):
    """What a patch is: its size, and its scale either in um/px or as a pyramid level."""

    size_px: Annotated[int, Flag("--patch-size")] = Field(256, ge=8, le=8192)
    """Width and height of a patch in pixels, as the encoder gets it."""
    mpp: Annotated[float | None, Flag("--mpp")] = Field(0.5, ge=0.05, le=20)
    """Resolution of a patch, um/px."""
    mpp_tolerance: float = Field(0.05, ge=0, le=0.5)
    """A pyramid level this close to mpp (relative) is used as it is, without resampling."""
    level: Annotated[int | None, Flag("--patch-level")] = Field(None, ge=0)
    """Pyramid level of a patch instead of a resolution, as in CLAM; needs no mpp."""
    step_px: Annotated[int | None, Flag("--step-size")] = Field(None, ge=1)
    """Distance of neighbouring patches in patch pixels; the patch size where not given."""
    custom_downsample: Annotated[int, Flag("--custom-downsample")] = Field(1, ge=1, le=16)
    """Read a patch this many times larger and shrink it (with --patch-level), for slides that
    lack a level."""

    @model_validator(mode="before")
    @classmethod
    def _level_replaces_default_mpp(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("level") is not None and "mpp" not in data:
            return {**data, "mpp": None}
        return data

    @model_validator(mode="after")
    def _one_scale(self) -> "PatchSpec":
        if (self.mpp is None) == (self.level is None):
            raise ValueError(
                "one scale is needed, patch.mpp (--mpp) or patch.level (--patch-level); "
                f"got mpp {self.mpp} and level {self.level}"
            )
        if self.mpp is not None and self.custom_downsample != 1:
            raise ValueError(
                "custom_downsample goes with --patch-level; with --mpp patches are read from the "
                "best level and resampled"
            )
        return self

    @property
    def step(self) -> int:
        """Distance of neighbouring patches in patch pixels."""
        return self.step_px or self.size_px


@dataclass(frozen=True)
class PatchGeometry:
    """How the patches of one slide are read: sizes of one patch in the frames involved."""

    read_level: int
    read_size_px: int
    """Width and height to read at read_level; resampled to the spec's size_px where it differs."""
    footprint_xy: tuple[float, float]
    """Width and height of a patch in level-0 px; whole numbers in level mode."""
    step_xy: tuple[float, float]
    """Distance of neighbouring patches in level-0 px."""


@dataclass(frozen=True)
class PatchGrid:
    """The patches of one slide."""

    slide_id: str
    spec: PatchSpec
    geometry: PatchGeometry
    xy: Points
    """(N, 2) int64 top-left corners in level-0 px, in the order of contours, x outer, y inner."""
    mpp: float | None = None
    """The slide's level-0 resolution, um/px; None in level mode where it is unknown."""

    def __len__(self) -> int:
        return len(self.xy)

    def checksum(self) -> str:
        """First 16 hex digits of the SHA-256 of the corners and of how they are read."""
        digest = hashlib.sha256(np.ascontiguousarray(self.xy, dtype="<i8").tobytes())
        digest.update(repr((self.spec.size_px, self.geometry)).encode())
        return digest.hexdigest()[:16]


def patch_geometry(spec: PatchSpec, info: SlideInfo, mpp: float | None) -> PatchGeometry:
    """How a slide must be read for its patches to have the scale that is asked for.

    In level mode downsamples are truncated to whole numbers, as in CLAM. In mpp mode they stay
    exact: a level within the tolerance is read as it is, else the finest-needed level is read
    and resampled down. Patches are never enlarged.

    Args:
        spec: what is asked for.
        info: the slide.
        mpp: its level-0 resolution, um/px; needed in mpp mode.

    Raises:
        ScaleError: the slide lacks the level, or is coarser than the mpp asked for.
    """
    if spec.level is not None:
        return _level_geometry(spec, info, spec.level)
    assert spec.mpp is not None
    assert mpp is not None
    downsample = spec.mpp / mpp
    level, own = min(
        enumerate(info.level_downsamples), key=lambda pair: abs(pair[1] / downsample - 1)
    )
    if abs(own / downsample - 1) <= spec.mpp_tolerance:
        downsample, read_size = own, spec.size_px
    elif downsample < 1:
        raise ScaleError(
            f"its finest level has {mpp:.4g} um/px, coarser than the {spec.mpp:g} um/px asked "
            f"for, and patches are never enlarged; use --mpp {mpp:.2g} or more, or --patch-level 0"
        )
    else:
        level = info.best_level(downsample)
        read_size = max(1, round(spec.size_px * downsample / info.level_downsamples[level]))
    footprint, step = spec.size_px * downsample, spec.step * downsample
    return PatchGeometry(level, read_size, (footprint, footprint), (step, step))


def _level_geometry(spec: PatchSpec, info: SlideInfo, level: int) -> PatchGeometry:
    if level >= info.num_levels:
        raise ScaleError(
            f"--patch-level {level} asked for, the slide has "
            + (f"levels 0 to {info.num_levels - 1}" if info.num_levels > 1 else "level 0 alone")
            + "; a finer level with --custom-downsample, or --mpp, can stand in for it"
        )
    read_size = spec.size_px * spec.custom_downsample
    step = spec.step * spec.custom_downsample
    down_x, down_y = (int(downsample) for downsample in info.downsample_xy(level))
    return PatchGeometry(
        level, read_size, (read_size * down_x, read_size * down_y), (step * down_x, step * down_y)
    )


def plan_patches(
    tissue: TissueContours,
    info: SlideInfo,
    spec: PatchSpec,
    rule: TissueParams,
    mpp: float | None = None,
    *,
    slide_id: str = "",
) -> PatchGrid:
    """The patches on a slide's tissue.

    A lattice begins at each contour's bounding box; its points are kept by ``rule.contour_fn``
    and dropped where the patch's centre is strictly inside a hole. In level mode the result is
    CLAM's, row for row.

    Args:
        tissue: contours in level-0 px.
        info: the slide's sizes and levels.
        spec: size and scale of a patch.
        rule: contour_fn and use_padding.
        mpp: the slide's level-0 um/px; needed in mpp mode.
        slide_id: recorded in the grid.

    Raises:
        ScaleError: see `patch_geometry`.
    """
    geometry = patch_geometry(spec, info, mpp)
    extent = None if rule.use_padding else info.dimensions
    kept = []
    for contour in tissue.contours:
        corners = lattice(contour.outline, geometry, extent)
        keep = in_contour(contour.outline, corners, geometry, rule.contour_fn)
        keep &= ~centre_in_holes(contour, corners, geometry)
        kept.append(corners[keep])
    xy = np.concatenate(kept) if kept else np.zeros((0, 2), dtype=np.int64)
    return PatchGrid(slide_id, spec, geometry, xy, mpp)


def lattice(outline: Ring, geometry: PatchGeometry, extent: tuple[int, int] | None) -> Points:
    """Candidate corners over a contour's bounding box, x outer and y inner.

    Args:
        outline: (V, 2) level-0 px.
        geometry: steps and sizes of a patch; a fractional step is rounded corner by corner, so
            that errors do not add up.
        extent: (width, height) of the slide where patches must lie inside it; else None.
    """
    axes = []
    for axis in (0, 1):
        start, end = int(outline[:, axis].min()), int(outline[:, axis].max()) + 1
        if extent is not None:
            end = min(end, math.floor(extent[axis] - geometry.footprint_xy[axis]) + 1)
        step = geometry.step_xy[axis]
        count = max(0, int(np.ceil((end - start) / step)))
        places = np.floor(start + np.arange(count + 1) * step + 0.5).astype(np.int64)
        axes.append(places[places < end])
    grid_x, grid_y = np.meshgrid(*axes, indexing="ij")
    return np.stack([grid_x.ravel(), grid_y.ravel()], axis=1)


def in_contour(
    outline: Ring, corners: Points, geometry: PatchGeometry, rule: ContourRule
) -> npt.NDArray[np.bool_]:
    """Which corners belong to a contour by CLAM's rule; points on its edge count as inside.

    CLAM's README says that four_pt wants all four points inside; its code, which made
    everybody's data, wants any. The code is followed.
    """
    if rule == "basic":
        return points_in_ring(outline, corners, Boundary.INSIDE)
    half = round(geometry.footprint_xy[0]) // 2
    centres = corners + half
    if rule == "center":
        return points_in_ring(outline, centres, Boundary.INSIDE)
    shift = int(half * 0.5)
    signs = np.array([(-1, -1), (1, 1), (1, -1), (-1, 1)])
    probes = (centres[None] + shift * signs[:, None]).reshape(-1, 2)
    inside = points_in_ring(outline, probes, Boundary.INSIDE).reshape(4, -1)
    return np.asarray(inside.any(axis=0) if rule == "four_pt" else inside.all(axis=0))


def centre_in_holes(
    contour: TissueContour, corners: Points, geometry: PatchGeometry
) -> npt.NDArray[np.bool_]:
    """Which corners' patch centres lie strictly inside a hole (half pixels are exact)."""
    doubled = 2 * corners + round(geometry.footprint_xy[0])
    inside = np.zeros(len(corners), dtype=np.bool_)
    for hole in contour.holes:
        inside |= points_in_ring(2 * hole.astype(np.int64), doubled, Boundary.OUTSIDE)
    return inside

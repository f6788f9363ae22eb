"""Haematoxylin and eosin as amounts of stain a pixel, and the light that gets through them.

Painting happens on two planes of stain amounts; a slide's colours follow from Beer and
Lambert's law at the end. So nuclei darken what they lie on, and nothing is ever a colour that
two stains cannot make.

Units: an amount of 100 is an optical density of one absorption vector. Frame: level-0 px.
"""

from dataclasses import dataclass, replace
from typing import Self

import cv2
import numpy as np
import numpy.typing as npt

from crane_ray.testing.truth import Ring, SlideTruth, TissuePolygon, fill_ring

Plane = npt.NDArray[np.uint8]
"""(H, W) uint8."""

_HAEMATOXYLIN_OD = (0.66, 0.80, 0.34)
_EOSIN_OD = (0.11, 0.82, 0.42)
"""Absorption of R, G and B by an amount of 100."""

_GLASS_RGB = (244, 243, 245)
"""Scanner white; so near to grey that its saturation is 2 of 255."""
_SENSOR_NOISE = 1.6
"""Standard deviation of the scanner's noise in grey levels, the same for R, G and B."""
_NOISE_TILE_PX = 512


@dataclass(frozen=True, eq=False)
class Canvas:
    """The stains of a slide while it is painted, each (H, W) uint8, and the slide's scale."""

    haematoxylin: Plane
    eosin: Plane
    tissue: Plane
    """255 on tissue, 0 on glass and in holes."""
    mpp: float

    @classmethod
    def blank(cls, size_px: tuple[int, int], mpp: float, tissue: tuple[TissuePolygon, ...]) -> Self:
        """Unstained planes for a slide of (width, height) px with this tissue."""
        shape = size_px[::-1]
        mask = SlideTruth(tissue).tissue_mask(size_px)
        return cls(np.zeros(shape, np.uint8), np.zeros(shape, np.uint8), mask, mpp)

    def px(self, length_um: float) -> float:
        """A length in px."""
        return length_um / self.mpp

    def window(self, ring: Ring, margin_um: float = 0.0) -> tuple["Canvas", npt.NDArray[np.int64]]:
        """Views of the part around a ring, and that part's top-left corner (2,) xy."""
        margin = self.px(margin_um) + 1
        height, width = self.tissue.shape
        low = np.clip(np.floor(ring.min(axis=0) - margin), 0, (width, height)).astype(np.int64)
        high = np.clip(np.ceil(ring.max(axis=0) + margin), 0, (width, height)).astype(np.int64)
        part = np.s_[low[1] : high[1], low[0] : high[0]]
        planes = (self.haematoxylin[part], self.eosin[part], self.tissue[part])
        return Canvas(*planes, mpp=self.mpp), low


def soft_mask(shape: tuple[int, ...], ring: Ring, feather_px: float) -> npt.NDArray[np.float32]:
    """A ring's inside as (H, W) float32 from 0 to 1, blurred by a Gaussian of sigma feather_px."""
    mask = np.zeros(shape, dtype=np.uint8)
    fill_ring(mask, ring, 255, smooth=True)
    if feather_px > 0:
        mask = np.asarray(cv2.GaussianBlur(mask, (0, 0), feather_px), dtype=np.uint8)
    return np.asarray(mask / np.float32(255), dtype=np.float32)


def scale_and_add(
    plane: Plane,
    weight: npt.NDArray[np.float32],
    *,
    factor: float = 1.0,
    amount: float = 0.0,
) -> None:
    """In place: `plane` times `factor` plus `amount`, to the degree of `weight` (H, W), 0 to 1."""
    stained = plane * (1 + (factor - 1) * weight) + amount * weight
    plane[:] = np.clip(stained, 0, 255).astype(np.uint8)


@dataclass(frozen=True, eq=False)
class Ellipses:
    """Many filled ellipses: centres (N, 2) xy px, half-axes (N, 2) px, angles, stain amounts."""

    centres: npt.NDArray[np.float64]
    half_axes: npt.NDArray[np.float64]
    angles_deg: npt.NDArray[np.float64]
    amounts: npt.NDArray[np.float64]

    def with_rims(self, width_px: float, factor: float) -> Self:
        """Each ellipse on a larger one of `factor` times its amount, which parts it from others."""
        return replace(
            self,
            centres=self.centres.repeat(2, axis=0),
            half_axes=(self.half_axes[:, None] + [[[width_px], [0.0]]]).reshape(-1, 2),
            angles_deg=self.angles_deg.repeat(2),
            amounts=(self.amounts[:, None] * [[factor, 1.0]]).reshape(-1),
        )

    def draw(self, plane: Plane) -> None:
        """Fills them on a (H, W) plane in place, anti-aliased, the later over the earlier."""
        centres = np.rint((self.centres - 0.5) * 16).astype(int).tolist()
        axes = np.rint(self.half_axes * 16).astype(int).tolist()
        rows = zip(centres, axes, self.angles_deg.tolist(), self.amounts.tolist(), strict=True)
        for centre, axis, angle, amount in rows:
            cv2.ellipse(plane, centre, axis, angle, 0, 360, (amount,), -1, cv2.LINE_AA, 4)


def jittered_points(
    rng: np.random.Generator, shape: tuple[int, ...], spacing_px: float
) -> npt.NDArray[np.float64]:
    """About one point (N, 2) xy a square of the spacing, over a (H, W) plane, in random order."""
    height, width = shape[:2]
    x = np.arange(0, width, spacing_px)
    y = np.arange(0, height, spacing_px)
    grid = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)
    points = grid + rng.uniform(0, spacing_px, size=grid.shape)
    points = points[(points < (width, height)).all(axis=1)]
    return np.asarray(points[rng.permutation(len(points))])


def values_at(
    plane: npt.NDArray[np.generic], points: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Values (N,) of a (H, W) plane in the pixels that points (N, 2) lie in."""
    columns, rows = points.astype(np.int64).T
    return np.asarray(plane[rows, columns], dtype=np.float64)


def develop(rng: np.random.Generator, canvas: Canvas) -> npt.NDArray[np.uint8]:
    """The slide as a scanner sees it: (H, W, 3) uint8 RGB.

    Nuclei get their mottled chromatin, edges the softness of the optics, and the whole slide
    a stain strength of its own, as between laboratories.
    """
    shape = canvas.tissue.shape
    mottle = _wrap(220 + 50 * _grain(rng, sigma_px=max(0.6, canvas.px(0.45))), shape)
    haematoxylin = cv2.multiply(canvas.haematoxylin, mottle, scale=1 / 220)
    optics_px = max(0.3, canvas.px(0.3))
    haematoxylin = cv2.GaussianBlur(haematoxylin, (0, 0), optics_px)
    eosin = cv2.GaussianBlur(canvas.eosin, (0, 0), optics_px)
    noise = rng.normal(size=(_NOISE_TILE_PX, _NOISE_TILE_PX))
    sensor = _wrap(255 + _SENSOR_NOISE * (noise - 3), shape)
    strength = rng.uniform(0.88, 1.12, size=2)
    channels = []
    for glass, blue, pink in zip(_GLASS_RGB, _HAEMATOXYLIN_OD, _EOSIN_OD, strict=True):
        through_blue = cv2.LUT(haematoxylin, _transmission(blue * strength[0], 255))
        through_pink = cv2.LUT(eosin, _transmission(pink * strength[1], glass))
        light = cv2.multiply(through_blue, through_pink, scale=1 / 255)
        channels.append(cv2.multiply(light, sensor, scale=1 / 255))
    return np.asarray(cv2.merge(channels), dtype=np.uint8)


def _transmission(optical_density: float, full: float) -> Plane:
    """(256,) light that gets through each amount of a stain, of `full` without any."""
    return np.rint(full * np.exp(-optical_density * np.arange(256) / 100)).astype(np.uint8)


def _grain(rng: np.random.Generator, sigma_px: float) -> npt.NDArray[np.float32]:
    """A seamless tile of smooth noise, mean 0 and standard deviation about 1."""
    noise = rng.normal(size=(_NOISE_TILE_PX, _NOISE_TILE_PX)).astype(np.float32)
    pad = int(4 * sigma_px) + 1
    framed = cv2.copyMakeBorder(noise, pad, pad, pad, pad, cv2.BORDER_WRAP)
    smooth = cv2.GaussianBlur(framed, (0, 0), sigma_px)[pad:-pad, pad:-pad]
    return np.asarray(smooth / smooth.std(), dtype=np.float32)


def _wrap(tile: npt.NDArray[np.floating], shape: tuple[int, ...]) -> Plane:
    """The tile as uint8, repeated over a plane of the shape."""
    rounded = np.clip(np.rint(tile), 0, 255).astype(np.uint8)
    repeats = [-(-side // own) for side, own in zip(shape, rounded.shape, strict=True)]
    return np.ascontiguousarray(np.tile(rounded, repeats)[: shape[0], : shape[1]])

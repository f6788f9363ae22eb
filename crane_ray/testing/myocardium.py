"""Healthy heart muscle: bundles of pink fibres, their nuclei, and small vessels between them.

Frame: level-0 px of the fragment's own window.
"""

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from crane_ray.testing.stains import Canvas, Ellipses, Plane, jittered_points, values_at
from crane_ray.testing.truth import Mask, TissuePolygon, fill_ring

FloatPlane = npt.NDArray[np.float32]
"""(H, W) float32."""

_TILE_PX = 1024
_FIBRE_WIDTH_UM = 15.0
_WAVE_UM = 130.0
"""Distance over which fibres change their direction."""
_WAVE_HEIGHT_UM = 34.0
_GAP_AMOUNT = 40
"""Eosin below this lies between fibres; inside them there is more."""
_MIN_AMOUNT = 17
"""Least eosin anywhere on tissue: pale, yet far more saturated than glass."""


@dataclass(frozen=True, eq=False)
class Fibres:
    """The course of the fibres of one fragment."""

    heading: float
    """Direction of the fibres on the whole, radians."""
    across: FloatPlane
    along: FloatPlane
    """Waviness: how far the tissue is shifted across and along that direction, (h, w) px, on
    a grid that is `grid_px` apart."""
    grid_px: float

    @classmethod
    def draw(cls, rng: np.random.Generator, canvas: Canvas, heading: float) -> "Fibres":
        """Fibres of random waviness for a window."""
        grid_px = canvas.px(_WAVE_UM)
        shape = [int(side / grid_px) + 3 for side in canvas.tissue.shape]
        waves = rng.normal(size=(2, *shape)) * canvas.px(_WAVE_HEIGHT_UM)
        across, along = cv2.GaussianBlur(waves.transpose(1, 2, 0), (0, 0), 0.6).transpose(2, 0, 1)
        return cls(heading, across.astype(np.float32), along.astype(np.float32), grid_px)

    def texture_map(self, shape: tuple[int, ...]) -> tuple[FloatPlane, FloatPlane]:
        """Each pixel's place (u along, v across) in the unrolled tissue, two planes in px."""
        height, width = shape
        cosine, sine = np.float32(np.cos(self.heading)), np.float32(np.sin(self.heading))
        x = np.arange(width, dtype=np.float32)[None]
        y = np.arange(height, dtype=np.float32)[:, None]
        u = self._enlarge(self.along, shape) + (x * cosine + y * sine)
        v = self._enlarge(self.across, shape) + (y * cosine - x * sine)
        return u, v

    def angles_deg(self, points: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Direction of the fibres at points (N, 2) px, degrees, as OpenCV counts them."""
        cells = points / self.grid_px + 0.5
        slopes = (np.gradient(self.across, self.grid_px, axis=axis) for axis in (1, 0))
        dx, dy = (values_at(np.asarray(slope), cells) for slope in slopes)
        cosine, sine = np.cos(self.heading), np.sin(self.heading)
        return np.asarray(np.rad2deg(np.arctan2(sine - dx, cosine + dy)))

    def _enlarge(self, coarse: FloatPlane, shape: tuple[int, ...]) -> FloatPlane:
        size = tuple(round(side * self.grid_px) for side in coarse.shape[::-1])
        full = cv2.resize(coarse, size, interpolation=cv2.INTER_CUBIC)
        return np.asarray(full[: shape[0], : shape[1]], dtype=np.float32)


def paint_myocardium(
    rng: np.random.Generator, canvas: Canvas, fragments: tuple[TissuePolygon, ...]
) -> None:
    """Paints fragments of healthy myocardium onto the slide's canvas, in place."""
    tile = _fibre_tile(rng, canvas)
    for fragment in fragments:
        _paint_fragment(rng, canvas, fragment, tile)


def _paint_fragment(
    rng: np.random.Generator, canvas: Canvas, fragment: TissuePolygon, tile: Plane
) -> None:
    window, corner = canvas.window(fragment.outline, margin_um=4)
    own = np.zeros_like(window.tissue)
    fill_ring(own, fragment.outline - corner, 255)
    for hole in fragment.holes:
        fill_ring(own, hole - corner, 0)
    centred = fragment.outline - fragment.outline.mean(axis=0)
    long_axis = np.linalg.svd(centred, full_matrices=False)[2][0]
    heading = float(np.arctan2(long_axis[1], long_axis[0])) + rng.normal(0, 0.3)
    fibres = Fibres.draw(rng, window, heading)
    _paint_fibres(rng, window, own, fibres, tile)
    _paint_capillaries(rng, window, own, fibres)
    _paint_nuclei(rng, window, own, fibres)


def _paint_fibres(
    rng: np.random.Generator, canvas: Canvas, own: Mask, fibres: Fibres, tile: Plane
) -> None:
    u, v = fibres.texture_map(own.shape)
    eosin = cv2.remap(tile, u, v, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
    grid_px = canvas.px(180)
    coarse = rng.uniform(0.78, 1.18, size=[int(side / grid_px) + 3 for side in own.shape])
    size = tuple(round(side * grid_px) for side in coarse.shape[::-1])
    shade = cv2.resize(coarse.astype(np.float32), size, interpolation=cv2.INTER_CUBIC)
    stained = np.maximum(eosin * shade[: own.shape[0], : own.shape[1]], _MIN_AMOUNT)
    edge = cv2.GaussianBlur(own, (0, 0), max(0.3, canvas.px(0.5)))
    amount = cv2.multiply(stained.astype(np.uint8), edge, scale=1 / 255)
    np.maximum(canvas.eosin, amount, out=canvas.eosin)
    np.maximum(canvas.haematoxylin, edge // 32, out=canvas.haematoxylin)


def _fibre_tile(rng: np.random.Generator, canvas: Canvas) -> Plane:
    """Eosin amounts of straight fibres along x: a seamless tile.

    Where slowly varying noise crosses zero lie the gaps between fibres; they branch and join
    as the gaps between muscle cells do.
    """
    # Noise blurred with sigma s crosses zero every pi * sqrt(2) * s.
    width_px = canvas.px(_FIBRE_WIDTH_UM) / (np.pi * np.sqrt(2))
    cells = _streaks(rng, canvas.px(45), width_px)
    fibrils = _streaks(rng, canvas.px(7), max(0.5, canvas.px(0.45)))
    blotches = _streaks(rng, canvas.px(14), canvas.px(5))
    gaps = np.exp(-((cells / 0.16) ** 2))
    body = 62 + 7 * fibrils + 6 * blotches
    return np.asarray(np.clip(body * (1 - 0.72 * gaps), 0, 255).astype(np.uint8))


def _streaks(rng: np.random.Generator, along_px: float, across_px: float) -> FloatPlane:
    """A seamless tile of noise drawn out along x, mean 0 and standard deviation 1."""
    # Long streaks are blurred on a grid that is coarser along x, in a tenth of the time.
    step = max(1, 1 << int(np.log2(max(1.0, along_px / 4))))
    step = min(step, _TILE_PX // 8)
    columns = _TILE_PX // step
    noise = rng.normal(size=(_TILE_PX, columns)).astype(np.float32)
    pad_x, pad_y = (int(3 * sigma) + 2 for sigma in (along_px / step, across_px))
    framed = cv2.copyMakeBorder(noise, pad_y, pad_y, pad_x, pad_x, cv2.BORDER_WRAP)
    smooth = cv2.GaussianBlur(framed, (0, 0), sigmaX=along_px / step, sigmaY=across_px)
    smooth = smooth[pad_y:-pad_y]
    full = cv2.resize(smooth, (smooth.shape[1] * step, _TILE_PX), interpolation=cv2.INTER_CUBIC)
    full = full[:, pad_x * step : pad_x * step + _TILE_PX]
    return np.asarray((full - full.mean()) / full.std(), dtype=np.float32)


def _paint_nuclei(rng: np.random.Generator, canvas: Canvas, own: Mask, fibres: Fibres) -> None:
    """Plump oval nuclei within fibres, thin dark ones in the gaps between them."""
    inner = cv2.erode(own, np.ones((3, 3), np.uint8), iterations=max(1, int(canvas.px(2))))
    for spacing_um, half_axes_um, amounts, in_gaps in (
        (30.0, (5.2, 2.5), (85, 130), False),
        (17.0, (4.6, 1.1), (100, 160), True),
    ):
        points = jittered_points(rng, own.shape, canvas.px(spacing_um))
        points = points[values_at(inner, points) > 0]
        eosin = values_at(canvas.eosin, points)
        points = points[(eosin < _GAP_AMOUNT) if in_gaps else (eosin >= _GAP_AMOUNT)]
        count = len(points)
        size = rng.uniform(0.75, 1.25, size=(count, 2)) * np.array(half_axes_um)
        nuclei = Ellipses(
            points,
            np.maximum(size / canvas.mpp, 0.7),
            fibres.angles_deg(points) + rng.normal(0, 9, size=count),
            rng.uniform(*amounts, size=count),
        )
        # The membrane of a nucleus is darker than what it holds.
        nuclei.with_rims(canvas.px(0.3), factor=1.35).draw(canvas.haematoxylin)


def _paint_capillaries(rng: np.random.Generator, canvas: Canvas, own: Mask, fibres: Fibres) -> None:
    """Small healthy vessels: a pale slit with one red cell and a thin nucleus at its wall."""
    inner = cv2.erode(own, np.ones((3, 3), np.uint8), iterations=max(1, int(canvas.px(8))))
    points = jittered_points(rng, own.shape, canvas.px(75))
    points = points[values_at(inner, points) > 0]
    count = len(points)
    angles = fibres.angles_deg(points) + rng.normal(0, 12, size=count)
    lumen = np.maximum(rng.uniform((4.5, 2.4), (7.5, 3.6), size=(count, 2)) / canvas.mpp, 1.0)
    wall = lumen + canvas.px(1.0)
    Ellipses(points, wall, angles, np.full(count, 75.0)).draw(canvas.eosin)
    Ellipses(points, lumen, angles, np.full(count, 18.0)).draw(canvas.eosin)
    red_cells = np.full((count, 2), max(0.8, canvas.px(2.2)))
    Ellipses(points, red_cells, angles, rng.uniform(110, 140, count)).draw(canvas.eosin)
    normal = np.deg2rad(angles + 90)
    beside = points + wall[:, 1:] * np.stack([np.cos(normal), np.sin(normal)], axis=1)
    thin = np.maximum(np.array([[3.6, 0.9]]) / canvas.mpp, 0.6).repeat(count, axis=0)
    Ellipses(beside, thin, angles, rng.uniform(110, 150, count)).draw(canvas.haematoxylin)

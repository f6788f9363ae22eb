"""How the lesions of a rejected heart look.

=========  =====================================================================================
``cell``   cellular rejection: small round dark lymphocytes crowd between paling muscle fibres
``amr``    antibody-mediated rejection: dilated vessels with swollen dark nuclei in their walls
           and red blood cells in their lumen, in pale oedematous stroma
``quilty`` a Quilty lesion: one compact, sharply bounded nodule of lymphocytes at the border
=========  =====================================================================================

Everything painted lies within the lesion's ring. Frame: level-0 px of the lesion's own window.
"""

from collections.abc import Iterator

import cv2
import numpy as np
import numpy.typing as npt

from crane_ray.testing.stains import (
    Canvas,
    Ellipses,
    jittered_points,
    scale_and_add,
    soft_mask,
    values_at,
)
from crane_ray.testing.truth import Lesion, Ring, fill_ring

_LYMPHOCYTE_UM = (2.3, 3.4)
"""Radius of a lymphocyte's nucleus."""

_VESSEL_UM = (13.0, 30.0)
"""Radius of a dilated vessel's lumen; a healthy capillary's is 3 to 7 um."""

_WALL_UM = 7.0
"""A vessel's wall with its nuclei reaches less far than this beyond its lumen."""


def paint_lesion(rng: np.random.Generator, canvas: Canvas, lesion: Lesion) -> None:
    """Paints one lesion over the myocardium of a slide's canvas, in place."""
    window, corner = canvas.window(lesion.outline, margin_um=20)
    painters = {"cell": _paint_infiltrate, "amr": _paint_vessels, "quilty": _paint_nodule}
    painters[lesion.kind](rng, window, lesion.outline - corner)


def _paint_infiltrate(rng: np.random.Generator, canvas: Canvas, ring: Ring) -> None:
    depth = _depth(canvas.tissue.shape, ring)
    depth /= max(1.0, float(depth.max()))
    weight = np.minimum(1, 4 * depth)
    scale_and_add(canvas.eosin, weight, factor=0.74)
    scale_and_add(canvas.haematoxylin, weight, amount=9)
    points = jittered_points(rng, canvas.tissue.shape, canvas.px(6.6))
    depths = values_at(depth, points)
    # Lymphocytes creep along the gaps between fibres, and spare the fibres at first.
    in_gap = values_at(canvas.eosin, points) < 30
    patches = _smooth_noise(rng, depth.shape, canvas.px(36))
    patchy = values_at(patches, points)
    chance = np.clip(2.6 * depths + 0.3 * in_gap + 0.3 * patchy - 0.12, 0, 0.94)
    points = points[(depths > 0.02) & (rng.uniform(size=len(points)) < chance)]
    _lymphocytes(rng, canvas, points, amounts=(125, 190)).draw(canvas.haematoxylin)


def _paint_nodule(rng: np.random.Generator, canvas: Canvas, ring: Ring) -> None:
    weight = soft_mask(canvas.tissue.shape, ring, canvas.px(1.5))
    scale_and_add(canvas.eosin, weight, factor=0.6)
    scale_and_add(canvas.haematoxylin, weight, amount=34)
    points = jittered_points(rng, canvas.tissue.shape, canvas.px(5.0))
    depths = values_at(_depth(canvas.tissue.shape, ring), points)
    points = points[depths >= canvas.px(2.5)]
    _lymphocytes(rng, canvas, points, amounts=(135, 205)).draw(canvas.haematoxylin)


def _paint_vessels(rng: np.random.Generator, canvas: Canvas, ring: Ring) -> None:
    weight = soft_mask(canvas.tissue.shape, ring, canvas.px(7))
    scale_and_add(canvas.eosin, weight, factor=0.66)
    scale_and_add(canvas.haematoxylin, weight, factor=0.85)
    for centre, radius_um in _vessel_places(rng, canvas, ring):
        _paint_vessel(rng, canvas, centre, radius_um)


def _vessel_places(
    rng: np.random.Generator, canvas: Canvas, ring: Ring
) -> Iterator[tuple[npt.NDArray[np.float64], float]]:
    """Centres (2,) px and radii in um of vessels within the ring, apart from each other."""
    distance = _depth(canvas.tissue.shape, ring)
    # The deepest point comes first: even the smallest lesion has one vessel.
    deepest = np.unravel_index(int(distance.argmax()), distance.shape)[::-1]
    points = np.vstack([deepest, jittered_points(rng, distance.shape, canvas.px(20))])
    room_um = values_at(distance, points) * canvas.mpp - _WALL_UM
    smallest = min(_VESSEL_UM[0], float(room_um.max()))
    for index in range(len(points)):
        if room_um[index] >= smallest:
            radius_um = min(float(room_um[index]), rng.uniform(*_VESSEL_UM))
            yield points[index], radius_um
            away_um = np.linalg.norm(points - points[index], axis=1) * canvas.mpp
            room_um = np.minimum(room_um, away_um - radius_um - 2 * _WALL_UM)


def _paint_vessel(
    rng: np.random.Generator, canvas: Canvas, centre: npt.NDArray[np.float64], radius_um: float
) -> None:
    """A dilated vessel: wall, pale lumen, red cells within, swollen nuclei around."""
    angle = rng.uniform(0, 180)
    axes = radius_um * np.array([1.0, rng.uniform(0.62, 0.92)]) / canvas.mpp
    for plane, growth_um, amount in (
        (canvas.eosin, 3.2, 88.0),
        (canvas.haematoxylin, 3.2, 12.0),
        (canvas.eosin, 0.0, 15.0),
        (canvas.haematoxylin, 0.0, 0.0),
    ):
        shape = Ellipses(
            centre[None], axes[None] + canvas.px(growth_um), np.array([angle]), np.array([amount])
        )
        shape.draw(plane)
    _red_cells(rng, canvas, centre, axes, angle)
    circumference_um = 2 * np.pi * float(axes.mean()) * canvas.mpp
    count = max(5, int(circumference_um / rng.uniform(11, 15)))
    theta = np.linspace(0, 2 * np.pi, count, endpoint=False) + rng.uniform(0, 0.5, count)
    at_wall = _turned(theta, axes + canvas.px(0.6), angle)
    tangent = _turned(theta + 0.01, axes, angle) - _turned(theta, axes, angle)
    Ellipses(
        centre + at_wall,
        np.maximum(rng.uniform((3.6, 2.2), (5.6, 3.4), size=(count, 2)) / canvas.mpp, 0.8),
        np.rad2deg(np.arctan2(tangent[:, 1], tangent[:, 0])),
        rng.uniform(135, 190, count),
    ).draw(canvas.haematoxylin)


def _red_cells(
    rng: np.random.Generator,
    canvas: Canvas,
    centre: npt.NDArray[np.float64],
    axes: npt.NDArray[np.float64],
    angle: float,
) -> None:
    """Red blood cells in a lumen, packed more or less, always leaving some of it pale."""
    radius = canvas.px(3.0)
    count = int(axes.prod() / radius**2 * rng.uniform(0.3, 0.75))
    theta = rng.uniform(0, 2 * np.pi, count)
    share = np.sqrt(rng.uniform(0, 1, count))[:, None]
    places = centre + share * _turned(theta, np.maximum(axes - 1.3 * radius, 0), angle)
    size = np.maximum(rng.uniform(0.8, 1.1, size=(count, 2)) * radius, 0.8)
    amounts = rng.uniform(110, 150, count)
    cells = Ellipses(places, size, rng.uniform(0, 180, count), amounts)
    cells.with_rims(canvas.px(0.7), factor=0.35).draw(canvas.eosin)


def _lymphocytes(
    rng: np.random.Generator,
    canvas: Canvas,
    points: npt.NDArray[np.float64],
    *,
    amounts: tuple[float, float],
) -> Ellipses:
    count = len(points)
    radius = rng.uniform(*_LYMPHOCYTE_UM, size=(count, 1)) / canvas.mpp
    axes = np.maximum(radius * rng.uniform(0.86, 1.1, size=(count, 2)), 0.8)
    cells = Ellipses(points, axes, rng.uniform(0, 180, count), rng.uniform(*amounts, size=count))
    return cells.with_rims(canvas.px(0.4), factor=0.5)


def _depth(shape: tuple[int, ...], ring: Ring) -> npt.NDArray[np.float32]:
    """Distance to the ring from within in px, (H, W) float32; 0 outside."""
    inside = np.zeros(shape, dtype=np.uint8)
    fill_ring(inside, ring, 255)
    return np.asarray(cv2.distanceTransform(inside, cv2.DIST_L2, 5), dtype=np.float32)


def _smooth_noise(
    rng: np.random.Generator, shape: tuple[int, ...], grid_px: float
) -> npt.NDArray[np.float32]:
    """Noise (H, W) float32 that varies over a distance of grid_px; standard deviation about 1."""
    coarse = rng.normal(size=[int(side / grid_px) + 3 for side in shape]).astype(np.float32)
    size = tuple(round(side * grid_px) for side in coarse.shape[::-1])
    full = cv2.resize(coarse, size, interpolation=cv2.INTER_CUBIC)
    return np.asarray(full[: shape[0], : shape[1]], dtype=np.float32)


def _turned(
    theta: npt.NDArray[np.float64], axes: npt.NDArray[np.float64], angle_deg: float
) -> npt.NDArray[np.float64]:
    """Points (N, 2) of an ellipse about the origin, at parameters theta (N,)."""
    turn = np.deg2rad(angle_deg)
    x, y = axes[0] * np.cos(theta), axes[1] * np.sin(theta)
    return np.stack([x * np.cos(turn) - y * np.sin(turn), x * np.sin(turn) + y * np.cos(turn)], 1)

"""Shapes: tissue fragments with holes, blobs, and where in the tissue a thing finds room.

Everything is in level-0 px, xy; lengths in um are turned into px by the slide's mpp.
"""

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from crane_ray.testing.truth import Mask, Ring, TissuePolygon, fill_ring

MAX_FRAGMENTS = 5
_FRAGMENT_SHARES = (0.1, 0.25, 0.3, 0.2, 0.15)
"""How often a slide has 1, 2, ... fragments, where there is room for them."""

_MIN_CELL_UM = 500.0
"""A fragment's part of the slide is at least this wide where there are several fragments."""

_MAX_LENGTH_UM = 4000.0
"""A bioptome bites off no more than a few millimetres."""

_HOLE_SHARES = (0.45, 0.35, 0.2)
"""How often a fragment has 0, 1 or 2 holes."""
_HOLE_RADIUS_UM = (35.0, 75.0)
_MAX_HOLE_SHARE = 0.3
"""A hole's radius is at most this share of the distance from its centre to the tissue's edge."""

_ROOM_GRID_UM = 4.0


@dataclass(frozen=True)
class Spot:
    """A disc that lies wholly in free tissue: centre and radius in level-0 px."""

    x: float
    y: float
    radius: float


def plan_fragments(
    rng: np.random.Generator, size_px: tuple[int, int], mpp: float, num: int | None = None
) -> tuple[TissuePolygon, ...]:
    """Fragments of a biopsy, apart from each other and from the slide's edge.

    Args:
        rng: drawn from.
        size_px: (width, height) of the slide.
        mpp: um/px.
        num: how many; None draws 1 to 5, as many as there is room for.
    """
    if num is None:
        shares = np.array(_FRAGMENT_SHARES)
        for count in range(2, MAX_FRAGMENTS + 1):
            if min(_cell_px(size_px, _layout(size_px, count))) * mpp < _MIN_CELL_UM:
                shares[count - 1] = 0
        num = 1 + int(rng.choice(MAX_FRAGMENTS, p=shares / shares.sum()))
    columns, rows = _layout(size_px, num)
    width, height = _cell_px(size_px, (columns, rows))
    fragments = []
    for cell in np.sort(rng.permutation(columns * rows)[:num]):
        outline = _fit(rng, _core(rng, width, height), (width, height), mpp)
        outline += ((cell % columns) * width, (cell // columns) * height)
        fragments.append(_with_holes(rng, outline, size_px, mpp))
    return tuple(fragments)


def blob(rng: np.random.Generator, spot: Spot, *, roughness: float = 0.08) -> Ring:
    """A smooth irregular ring within a spot's disc, touching it nearly; 64 vertices."""
    theta = np.linspace(0, 2 * np.pi, 64, endpoint=False)
    radius = 1 + _wobble(rng, theta, orders=(2, 7), amplitude=roughness)
    radius *= spot.radius / radius.max()
    ring = np.stack([spot.x + radius * np.cos(theta), spot.y + radius * np.sin(theta)], axis=1)
    return _on_grid(ring)


def free_distance(free: Mask) -> npt.NDArray[np.float32]:
    """Distance in px of each pixel of a (H, W) mask to the nearest that is 0 or off the mask."""
    framed = cv2.copyMakeBorder(free, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=(0,))
    distance = cv2.distanceTransform(framed, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return np.asarray(distance[1:-1, 1:-1], dtype=np.float32)


def find_spot(rng: np.random.Generator, free: Mask, radius: float, *, downsample: float) -> Spot:
    """A disc within free tissue: of the given radius where one fits, else the largest there is.

    Args:
        rng: drawn from.
        free: (H, W) uint8 mask of free tissue.
        radius: wished for, level-0 px.
        downsample: level-0 px per px of the mask.
    """
    distance = free_distance(free)
    fitting = np.flatnonzero(distance >= radius / downsample + 1)
    if len(fitting):
        index = int(rng.choice(fitting))
    else:
        index = int(distance.argmax())
        radius = max(0.0, float(distance.flat[index] - 1) * downsample)
    row, column = divmod(index, free.shape[1])
    return Spot((column + 0.5) * downsample, (row + 0.5) * downsample, radius)


def room_downsample(mpp: float) -> float:
    """Level-0 px per px of the masks in which room is looked for: about 4 um."""
    return float(max(1, round(_ROOM_GRID_UM / mpp)))


def _layout(size_px: tuple[int, int], num: int) -> tuple[int, int]:
    """Columns and rows of the grid whose cells, one a fragment, are the least narrow."""
    grids = [(columns, -(-num // columns)) for columns in range(1, num + 1)]
    return max(grids, key=lambda grid: min(_cell_px(size_px, grid)))


def _cell_px(size_px: tuple[int, int], grid: tuple[int, int]) -> tuple[float, float]:
    return size_px[0] / grid[0], size_px[1] / grid[1]


def _core(rng: np.random.Generator, width: float, height: float) -> Ring:
    """The outline of a bent, blunt-ended core about the origin, along its cell's longer side.

    Star-shaped before it is bent by a shear, so that it never crosses itself.
    """
    theta = np.linspace(0, 2 * np.pi, 360, endpoint=False)
    radius = 1 + _wobble(rng, theta, orders=(2, 6), amplitude=0.07)
    radius += _wobble(rng, theta, orders=(7, 24), amplitude=0.012)
    radius += _wobble(rng, theta, orders=(25, 90), amplitude=0.002)
    aspect = np.clip(max(width, height) / min(width, height) * rng.uniform(1.0, 1.4), 1.3, 2.6)
    cosine, sine = np.cos(theta), np.sin(theta)
    x = aspect * radius * np.sign(cosine) * np.abs(cosine) ** 0.8
    y = radius * np.sign(sine) * np.abs(sine) ** 0.8
    y += rng.uniform(-0.25, 0.25) / aspect * x**2
    turn = np.deg2rad(rng.uniform(-20, 20) + (0 if width >= height else 90))
    rotation = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    return np.asarray(np.stack([x, y], axis=1) @ rotation)


def _fit(rng: np.random.Generator, ring: Ring, cell_px: tuple[float, float], mpp: float) -> Ring:
    """The ring scaled to most of its cell, and moved to somewhere within it."""
    cell = np.array(cell_px)
    extent = np.ptp(ring, axis=0)
    scale = (cell / extent).min() * rng.uniform(0.86, 0.94)
    scale = min(scale, _MAX_LENGTH_UM / mpp / extent.max())
    margin = 0.03 * cell
    slack = np.maximum(0, cell - 2 * margin - extent * scale)
    corner = margin + slack * rng.uniform(0, 1, size=2)
    return _on_grid((ring - ring.min(axis=0)) * scale + corner)


def _with_holes(
    rng: np.random.Generator, outline: Ring, size_px: tuple[int, int], mpp: float
) -> TissuePolygon:
    """The fragment with 0 to 2 holes well inside it."""
    downsample = room_downsample(mpp)
    free = np.zeros([int(side // downsample) for side in size_px[::-1]], dtype=np.uint8)
    fill_ring(free, outline / downsample, 255)
    holes: list[Ring] = []
    for _ in range(int(rng.choice(len(_HOLE_SHARES), p=_HOLE_SHARES))):
        wished = rng.uniform(*_HOLE_RADIUS_UM) / mpp
        spot = find_spot(rng, free, wished / _MAX_HOLE_SHARE, downsample=downsample)
        radius = min(wished, spot.radius * _MAX_HOLE_SHARE)
        holes.append(blob(rng, Spot(spot.x, spot.y, radius), roughness=0.1))
        fill_ring(free, blob(rng, spot, roughness=0) / downsample, 0)
    return TissuePolygon(outline, tuple(holes))


def _wobble(
    rng: np.random.Generator,
    theta: npt.NDArray[np.float64],
    *,
    orders: tuple[int, int],
    amplitude: float,
) -> npt.NDArray[np.float64]:
    """A smooth periodic random function of the angle, of harmonics that fade with their order."""
    order = np.arange(orders[0], orders[1] + 1)
    height = rng.normal(size=len(order)) * amplitude * orders[0] / order
    phase = rng.uniform(0, 2 * np.pi, size=len(order))
    return np.asarray((height * np.cos(order * theta[:, None] + phase)).sum(axis=1))


def _on_grid(ring: Ring) -> Ring:
    """Vertices on 1/16 px, to which they are rasterised."""
    return np.asarray(np.rint(ring * 16) / 16)

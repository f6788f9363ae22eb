"""Exact point-in-polygon tests by even-odd crossing, for OpenCV's contours with integer vertices.

OpenCV's contours may touch or retrace themselves, which polygon libraries call invalid and
"repair" into other shapes. Even-odd crossing with the boundary told apart gives exactly
OpenCV's ``pointPolygonTest``, and in integers there is no rounding at all.
"""

from enum import Enum

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

DENSE_GRID = 16
"""Places of the grid for each point up to which the whole grid is cheaper (4 times at 1)."""

_ROW_STRIDE = np.int64(1) << 40
"""Keeps rows apart in one sorted key: far beyond any slide's width in pixels."""


class Boundary(Enum):
    """Whether points exactly on the ring count as inside."""

    INSIDE = "inside"
    OUTSIDE = "outside"


def points_in_ring(ring: npt.ArrayLike, points: npt.ArrayLike, boundary: Boundary) -> BoolArray:
    """Which points lie in a closed ring, exactly.

    Every edge is intersected with just the horizontal lines (rows) that carry query points;
    a point is inside when an odd number of crossings lies to its right. Time grows with
    edges x rows they span + points x log, memory alike; where the points fill a good part of the
    grid of their rows and columns, as patches do, crossings are counted up along its rows, and
    the points are not searched for.

    Args:
        ring: (V, 2) integer xy vertices; the last joins the first; may touch or retrace itself.
        points: (N, 2) integer xy points.
        boundary: how points on an edge or vertex count.

    Returns:
        (N,) bool.
    """
    ring_V2 = np.asarray(ring, dtype=np.int64).reshape(-1, 2)
    points_N2 = np.asarray(points, dtype=np.int64).reshape(-1, 2)
    if not len(ring_V2) or not len(points_N2):
        return np.zeros(len(points_N2), dtype=np.bool_)
    rows, row_of_point = _distinct(points_N2[:, 1])
    columns, column_of_point = _distinct(points_N2[:, 0])
    if len(rows) * len(columns) <= DENSE_GRID * len(points_N2):
        on_grid = _grid_in_ring(ring_V2, rows, columns, boundary)
        return np.asarray(on_grid[row_of_point, column_of_point])
    keys = row_of_point.astype(np.int64) * _ROW_STRIDE + points_N2[:, 0]
    crossings, touches = _row_crossings(ring_V2, rows)
    row_ends = np.searchsorted(crossings, (row_of_point + 1) * _ROW_STRIDE - _ROW_STRIDE // 2)
    to_the_right = row_ends - np.searchsorted(crossings, keys)
    inside = to_the_right % 2 == 1
    on_edge = _contains(touches, keys) | _on_horizontal(ring_V2, rows, keys)
    with_edge = boundary is Boundary.INSIDE
    return np.asarray(inside | on_edge if with_edge else inside & ~on_edge)


def _distinct(values_N: IntArray) -> tuple[IntArray, IntArray]:
    """Distinct values, sorted, and the place of each value among them."""
    first = int(values_N.min())
    span = int(values_N.max()) - first + 1
    if span > 8 * len(values_N) + 2**20:
        distinct, place = np.unique(values_N, return_inverse=True)
        return distinct, place
    there = np.zeros(span, dtype=np.bool_)
    there[values_N - first] = True
    return np.flatnonzero(there) + first, (np.cumsum(there) - 1)[values_N - first]


def _grid_in_ring(
    ring_V2: IntArray, rows: IntArray, columns: IntArray, boundary: Boundary
) -> BoolArray:
    """(rows, columns) bool: which points of a grid lie in a ring."""
    shape = (len(rows), len(columns) + 1)
    crossings, touches = _row_crossings(ring_V2, rows)
    row, x = _split(crossings)
    to_the_left = _count(row, np.searchsorted(columns, x, side="right"), shape)
    to_the_right = to_the_left[:, ::-1].cumsum(axis=1)[:, ::-1][:, 1:]
    inside = to_the_right % 2 == 1
    row, x = _split(touches)
    place = np.searchsorted(columns, x)
    hit = place < len(columns)
    hit[hit] = columns[place[hit]] == x[hit]
    on_edge = np.zeros_like(inside)
    on_edge[row[hit], place[hit]] = True
    row, low, high = _horizontals(ring_V2, rows)
    begun = _count(row, np.searchsorted(columns, low), shape)
    over = _count(row, np.searchsorted(columns, high, side="right"), shape)
    on_edge |= (begun - over).cumsum(axis=1)[:, :-1] > 0
    return np.asarray(inside | on_edge if boundary is Boundary.INSIDE else inside & ~on_edge)


def _count(row: IntArray, column: IntArray, shape: tuple[int, int]) -> IntArray:
    """How often each place of a grid is named."""
    return np.bincount(row * shape[1] + column, minlength=shape[0] * shape[1]).reshape(shape)


def _split(keys: IntArray) -> tuple[IntArray, IntArray]:
    """Row and x of sorted keys; x may be negative."""
    row = (keys + _ROW_STRIDE // 2) // _ROW_STRIDE
    return row, keys - row * _ROW_STRIDE


def _row_crossings(ring_V2: IntArray, rows: IntArray) -> tuple[IntArray, IntArray]:
    """Sorted keys of crossings right of which nothing changes, and of exact hits.

    For a crossing at the rational x of an edge and row, the first key holds ceil(x) - 1: the
    largest integer point that is strictly to its left. Crossings count half-open edges
    [lower, upper), hits count closed ones.
    """
    start_V2, end_V2 = ring_V2, np.roll(ring_V2, -1, axis=0)
    upward = end_V2[:, 1] > start_V2[:, 1]
    low_V2 = np.where(upward[:, None], start_V2, end_V2)
    high_V2 = np.where(upward[:, None], end_V2, start_V2)
    sloped = low_V2[:, 1] < high_V2[:, 1]
    low_V2, high_V2 = low_V2[sloped], high_V2[sloped]
    first = np.searchsorted(rows, low_V2[:, 1], side="left")
    last = np.searchsorted(rows, high_V2[:, 1], side="right")
    spans = last - first
    edge = np.repeat(np.arange(len(spans)), spans)
    row = np.arange(spans.sum()) - np.repeat(np.cumsum(spans) - spans, spans) + first[edge]
    rise = high_V2[edge, 1] - low_V2[edge, 1]
    run = high_V2[edge, 0] - low_V2[edge, 0]
    product = (rows[row] - low_V2[edge, 1]) * run
    floor = low_V2[edge, 0] + product // rise
    exact = product % rise == 0
    half_open = rows[row] < high_V2[edge, 1]
    left_of = floor - exact  # ceil(x) - 1
    crossings = np.sort(row[half_open] * _ROW_STRIDE + left_of[half_open])
    touches = np.unique(row[exact] * _ROW_STRIDE + floor[exact])
    return crossings, touches


def _horizontals(ring_V2: IntArray, rows: IntArray) -> tuple[IntArray, IntArray, IntArray]:
    """Row and both ends of the horizontal edges (and single vertices) that lie on a row."""
    end_V2 = np.roll(ring_V2, -1, axis=0)
    flat = ring_V2[:, 1] == end_V2[:, 1]
    row = np.searchsorted(rows, ring_V2[flat, 1])
    known = row < len(rows)
    known[known] = rows[row[known]] == ring_V2[flat, 1][known]
    low = np.minimum(ring_V2[flat, 0], end_V2[flat, 0])[known]
    high = np.maximum(ring_V2[flat, 0], end_V2[flat, 0])[known]
    return row[known], low, high


def _on_horizontal(ring_V2: IntArray, rows: IntArray, keys: IntArray) -> BoolArray:
    """Which keys lie on a horizontal edge (or a single vertex) of the ring."""
    row, low, high = _horizontals(ring_V2, rows)
    begun = np.searchsorted(np.sort(row * _ROW_STRIDE + low), keys, side="right")
    over = np.searchsorted(np.sort(row * _ROW_STRIDE + high), keys, side="left")
    return np.asarray(begun > over)


def _contains(sorted_keys: IntArray, keys: IntArray) -> BoolArray:
    if not len(sorted_keys):
        return np.zeros(len(keys), dtype=np.bool_)
    place = np.minimum(np.searchsorted(sorted_keys, keys), len(sorted_keys) - 1)
    return np.asarray(sorted_keys[place] == keys)

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from crane_ray.slides.polygons import Boundary, points_in_ring

IntArray = npt.NDArray[np.int64]

SMALL = st.integers(-8, 8)
RINGS = st.lists(st.tuples(SMALL, SMALL), min_size=1, max_size=14)
"""On a grid this small most rings cross, touch or repeat themselves."""


def opencv_says(ring: IntArray, points: IntArray) -> IntArray:
    """1 inside, 0 on an edge or vertex, -1 outside, by OpenCV's own test."""
    contour = ring.astype(np.int32).reshape(-1, 1, 2)
    places = [cv2.pointPolygonTest(contour, (int(x), int(y)), False) for x, y in points]
    return np.array(places, dtype=np.int64)


def all_points(ring: IntArray, margin: int = 2) -> IntArray:
    low, high = ring.min(axis=0) - margin, ring.max(axis=0) + margin + 1
    grid = np.meshgrid(np.arange(low[0], high[0]), np.arange(low[1], high[1]), indexing="ij")
    return np.stack(grid, axis=-1).reshape(-1, 2)


def assert_same_as_opencv(ring: IntArray, points: IntArray) -> None:
    expected = opencv_says(ring, points)
    np.testing.assert_array_equal(points_in_ring(ring, points, Boundary.INSIDE), expected >= 0)
    np.testing.assert_array_equal(points_in_ring(ring, points, Boundary.OUTSIDE), expected > 0)


@settings(deadline=None, max_examples=150)
@given(RINGS)
def test_any_ring_is_told_apart_as_by_opencv(vertices: list[tuple[int, int]]) -> None:
    ring = np.array(vertices, dtype=np.int64)
    assert_same_as_opencv(ring, all_points(ring))


@settings(deadline=None, max_examples=50)
@given(RINGS, st.integers(0, 13))
def test_a_ring_that_retraces_a_spur_is_told_apart_as_by_opencv(
    vertices: list[tuple[int, int]], where: int
) -> None:
    where %= len(vertices)
    spur = [(9, 9), (12, 5), (9, 9)]
    out_and_back = [vertices[where], *spur, vertices[where]]
    ring = np.array([*vertices[:where], *out_and_back, *vertices[where:]], dtype=np.int64)
    assert_same_as_opencv(ring, all_points(ring))
    there_and_back = np.array([*vertices, *vertices[::-1]], dtype=np.int64)
    assert_same_as_opencv(there_and_back, all_points(there_and_back))


@settings(deadline=None, max_examples=50)
@given(hnp.arrays(np.uint8, (11, 13), elements=st.sampled_from([0, 255])))
def test_contours_of_any_mask_are_told_apart_as_by_opencv(mask: npt.NDArray[np.uint8]) -> None:
    found, _ = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    for contour in found:
        ring = np.asarray(contour, dtype=np.int64).reshape(-1, 2)
        assert_same_as_opencv(ring, all_points(ring, margin=1))


@settings(deadline=None, max_examples=60)
@given(
    st.lists(
        st.tuples(st.integers(-1000, 200_000), st.integers(-1000, 200_000)),
        min_size=3,
        max_size=8,
    ),
    st.integers(0, 2**32),
)
def test_rings_as_large_as_slides_are_exact_next_to_their_edges(
    vertices: list[tuple[int, int]], seed: int
) -> None:
    ring = np.array(vertices, dtype=np.int64)
    along = np.random.default_rng(seed).random((len(ring), 6, 1))
    near = ring[:, None] + along * (np.roll(ring, -1, axis=0) - ring)[:, None]
    points = np.concatenate([ring, np.rint(near.reshape(-1, 2)).astype(np.int64)])
    aside, above = np.array([1, 0]), np.array([0, -1])
    assert_same_as_opencv(ring, np.concatenate([points, points + aside, points + above]))


def test_edges_and_vertices_belong_to_the_ring_only_where_asked() -> None:
    square = [[0, 0], [4, 0], [4, 4], [0, 4]]
    points = [[2, 2], [0, 2], [2, 0], [2, 4], [4, 4], [5, 4], [-1, 0]]
    with_edge = points_in_ring(square, points, Boundary.INSIDE)
    without = points_in_ring(square, points, Boundary.OUTSIDE)
    assert with_edge.tolist() == [True, True, True, True, True, False, False]
    assert without.tolist() == [True, False, False, False, False, False, False]


def test_where_a_ring_runs_around_twice_is_outside() -> None:
    square = [[0, 0], [4, 0], [4, 4], [0, 4]]
    assert not points_in_ring(square * 2, [[2, 2]], Boundary.INSIDE).any()


@pytest.mark.parametrize("boundary", Boundary)
def test_nothing_lies_in_no_ring_and_no_points_give_no_answers(boundary: Boundary) -> None:
    assert points_in_ring(np.zeros((0, 2)), [[0, 0]], boundary).tolist() == [False]
    assert points_in_ring([[0, 0], [4, 0], [4, 4]], np.zeros((0, 2)), boundary).shape == (0,)


def test_answers_come_in_the_order_of_the_points() -> None:
    ring = np.array([[0, 0], [9, 0], [9, 9], [0, 9]])
    points = np.random.default_rng(0).integers(-3, 13, size=(200, 2))
    order = np.random.default_rng(1).permutation(200)
    answers = points_in_ring(ring, points, Boundary.INSIDE)
    np.testing.assert_array_equal(
        points_in_ring(ring, points[order], Boundary.INSIDE), answers[order]
    )

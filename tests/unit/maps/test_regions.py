"""Regions of high attention: their polygons cover just the cells that pass."""

import json

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crane_ray.maps.lattice import step_px
from crane_ray.maps.regions import find_regions, regions_geojson
from crane_ray.maps.scores import SlideScores
from crane_ray.slides.tissue import TissueContours
from tests.unit.maps.slides import lattice, scores_of


def with_percentiles(scores: SlideScores, values: np.ndarray) -> SlideScores:
    scores.percentile_HN[0] = values
    return scores


def blocks(picture: list[str], size: int = 10, step: int | None = None) -> SlideScores:
    """Patches of a picture: # high, . low, blank none."""
    step = step or size
    places = [
        (column * step, row * step, 0.95 if sign == "#" else 0.5)
        for row, line in enumerate(picture)
        for column, sign in enumerate(line)
        if sign != " "
    ]
    xy = np.array([place[:2] for place in places], dtype=np.int32)
    scores = scores_of(xy, footprint=size, dimensions=(1000, 1000))
    return with_percentiles(scores, np.array([place[2] for place in places]))


def filled(scores: SlideScores, at_least: float) -> np.ndarray:
    """What the polygons cover, pixel by pixel, by the even-odd rule."""
    height, width = scores.dimensions[1], scores.dimensions[0]
    mask = np.zeros((height, width), dtype=np.uint8)
    middles = np.stack(np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5), axis=-1)
    for region in find_regions(scores, "cell", at_least):
        inside = np.zeros((height, width), dtype=bool)
        for ring in region.rings:
            for (x0, y0), (x1, y1) in zip(ring, np.roll(ring, -1, axis=0), strict=True):
                if x0 != x1:
                    continue
                crossed = (middles[..., 1] > min(y0, y1)) & (middles[..., 1] < max(y0, y1))
                inside ^= crossed & (middles[..., 0] > x0)
        assert inside.sum() == region.area_px
        mask += inside
    assert mask.max(initial=0) <= 1
    return mask.astype(bool)


def passing(scores: SlideScores, at_least: float) -> np.ndarray:
    """Pixels whose patches' mean percentile passes, patch by patch."""
    height, width = scores.dimensions[1], scores.dimensions[0]
    total, count = np.zeros((height, width)), np.zeros((height, width))
    size = round(scores.footprint_px)
    for (x, y), value in zip(scores.xy.tolist(), scores.of("cell").tolist(), strict=True):
        total[y : y + size, x : x + size] += value
        count[y : y + size, x : x + size] += 1
    return (count > 0) & (total >= at_least * count)


def test_a_ring_has_a_hole_and_an_island_in_it() -> None:
    scores = blocks(["#####", "#...#", "#.#.#", "#...#", "#####"])
    ring, island = find_regions(scores, "cell", 0.9)
    assert [len(one.rings) for one in (ring, island)] == [2, 1]
    assert (ring.area_px, island.area_px) == (1600, 100)
    outline, hole = ring.rings
    assert sorted(outline.tolist()) == [[0, 0], [0, 50], [50, 0], [50, 50]]
    assert sorted(hole.tolist()) == [[10, 10], [10, 40], [40, 10], [40, 40]]
    assert ring.mean == pytest.approx(0.95)
    assert ring.highest == pytest.approx(0.95)


def test_patches_that_touch_with_a_corner_are_two() -> None:
    found = find_regions(blocks(["#.", ".#"]), "cell", 0.9)
    assert [one.area_px for one in found] == [100, 100]
    (one,) = find_regions(blocks(["##", "#.", "##"]), "cell", 0.9)
    assert len(one.rings[0]) == 8


def test_a_hole_pinched_by_a_corner_leaves_no_ring_that_crosses_itself() -> None:
    (one,) = find_regions(blocks(["####", "#.##", "##.#", "####"]), "cell", 0.9)
    assert one.area_px == 1400
    assert sorted(len(ring) for ring in one.rings) in ([4, 4, 4], [4, 8])
    assert filled(blocks(["####", "#.##", "##.#", "####"]), 0.9).sum() == 1400


@settings(deadline=None)
@given(seed=st.integers(0, 10_000), num=st.integers(0, 40), dense=st.booleans())
def test_polygons_cover_what_passes(seed: int, num: int, dense: bool) -> None:
    generator = np.random.default_rng(seed)
    step = 4 if dense else 12
    xy = lattice((120, 90), step)[: 8 * num : 1 if dense else 2]
    shifted = lattice((60, 40), step, begin=(3, 5))[:num]
    scores = scores_of(np.concatenate([xy, shifted]), footprint=12, dimensions=(120, 90))
    with_percentiles(scores, generator.integers(0, 17, len(scores)) / 16)
    np.testing.assert_array_equal(filled(scores, 0.5), passing(scores, 0.5))


def test_pieces_far_from_one_another_and_over_the_edge() -> None:
    xy = np.array([[0, 0], [95, 85], [50, 40], [62, 40]], dtype=np.int32)
    scores = scores_of(xy, footprint=12, dimensions=(100, 90))
    with_percentiles(scores, np.array([1.0, 1.0, 1.0, 0.9]))
    areas = [one.area_px for one in find_regions(scores, "cell", 0.9)]
    assert areas == [288, 144, 25]  # 0.9 counts although float32 lies a little below it


def test_a_footprint_that_is_no_whole_number_leaves_no_gaps() -> None:
    places = np.floor(np.arange(8) * 10.3 + 0.5).astype(np.int32)
    xy = np.stack(np.meshgrid(places, places), axis=-1).reshape(-1, 2)
    scores = scores_of(xy, footprint=10.3, dimensions=(200, 200))
    with_percentiles(scores, np.ones(len(xy)))
    (one,) = find_regions(scores, "cell", 0.9)
    assert len(one.rings) == 1
    assert len(one.rings[0]) == 4


def test_nothing_passes() -> None:
    assert find_regions(blocks(["...", "..."]), "cell", 0.9) == []
    empty = scores_of(np.zeros((0, 2), dtype=np.int32))
    assert regions_geojson(empty, "cell", 0.9)["features"] == []


def test_geojson_for_qupath() -> None:
    tree = json.loads(json.dumps(regions_geojson(blocks(["###", "#.#", "###"]), "cell", 0.9)))
    assert tree["type"] == "FeatureCollection"
    (feature,) = tree["features"]
    assert feature["properties"]["objectType"] == "annotation"
    assert feature["properties"]["classification"]["name"] == "High attention: cell"
    assert feature["properties"]["measurements"] == {
        "Mean percentile": 0.95, "Max percentile": 0.95, "Area px^2": 800, "Area um^2": 200.0,
    }  # fmt: skip
    for ring in feature["geometry"]["coordinates"]:
        assert ring[0] == ring[-1]
    (contour,) = TissueContours.from_geojson(tree).contours
    assert cv2.contourArea(contour.outline) == 900
    assert [cv2.contourArea(hole) for hole in contour.holes] == [100]


def test_the_lattice_is_seen_in_the_corners() -> None:
    assert step_px(lattice((500, 400), 50), 50) == 50
    two = np.concatenate([lattice((500, 400), 25), lattice((200, 300), 25, begin=(611, 7))])
    assert step_px(two, 50) == 25
    assert step_px(np.array([[0, 0], [300, 700]]), 50) == 50
    assert step_px(lattice((500, 400), 80), 50) == 50

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crane_ray.errors import SlideError
from crane_ray.slides.tissue import (
    TissueContour,
    TissueContours,
    is_edited,
    read_contours,
    write_contours,
)

POINT = st.tuples(st.integers(-50, 300_000), st.integers(-50, 300_000))
RING = st.lists(POINT, min_size=3, max_size=9)
TRIANGLE = [[0, 0], [10, 0], [0, 10]]
HOLE = [[1, 1], [3, 1], [1, 3]]


def as_contour(outline: object, *holes: object) -> TissueContour:
    return TissueContour(
        np.array(outline, dtype=np.int32), tuple(np.array(hole, dtype=np.int32) for hole in holes)
    )


def as_lists(tissue: TissueContours) -> list[list[Any]]:
    return [
        [contour.outline.tolist(), *(hole.tolist() for hole in contour.holes)]
        for contour in tissue.contours
    ]


@pytest.fixture
def tissue() -> TissueContours:
    return TissueContours((as_contour(TRIANGLE, HOLE), as_contour([[50, 50], [60, 50], [50, 60]])))


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(RING, st.lists(RING, max_size=2)), max_size=4))
def test_geojson_gives_back_every_vertex_in_its_order(pieces: list[tuple[Any, list[Any]]]) -> None:
    tissue = TissueContours(tuple(as_contour(outline, *holes) for outline, holes in pieces))
    text = json.dumps(tissue.to_geojson())
    read = TissueContours.from_geojson(json.loads(text))
    assert as_lists(read) == as_lists(tissue)
    assert all(contour.outline.dtype == np.int32 for contour in read.contours)


def test_a_file_gives_back_the_contours_of_a_slide(
    tmp_path: Path, painted_tissue: TissueContours
) -> None:
    path = str(tmp_path / "contours" / "a.geojson")
    write_contours(path, painted_tissue)
    assert as_lists(read_contours(path)) == as_lists(painted_tissue)
    assert not is_edited(path)


def test_rings_are_written_closed_as_the_format_asks(tissue: TissueContours) -> None:
    tree = tissue.to_geojson()
    assert tree["type"] == "FeatureCollection"
    for feature in tree["features"]:
        assert feature["properties"]["objectType"] == "annotation"
        for ring in feature["geometry"]["coordinates"]:
            assert ring[0] == ring[-1]
            assert len(ring) == 4


def test_other_forms_that_qupath_writes_are_read(tissue: TissueContours) -> None:
    polygons = [feature["geometry"] for feature in tissue.to_geojson()["features"]]
    features = [{"type": "Feature", "geometry": polygon} for polygon in polygons]
    several = {"type": "MultiPolygon", "coordinates": [p["coordinates"] for p in polygons]}
    point = {"type": "Feature", "geometry": {"type": "Point", "coordinates": [1, 2]}}
    for tree in (
        {"type": "FeatureCollection", "features": [point, *features]},
        features,
        {"type": "Feature", "geometry": several},
        several,
        {"type": "GeometryCollection", "geometries": polygons},
    ):
        read = TissueContours.from_geojson(tree)  # type: ignore[arg-type]
        assert as_lists(read) == as_lists(tissue)


def test_drawn_vertices_are_rounded_and_rings_of_two_points_dropped() -> None:
    rings = [[[0.4, 0.6], [9.5, 0], [0, 9.6], [0.4, 0.6]], [[1, 1], [2, 2], [1, 1]]]
    read = TissueContours.from_geojson({"type": "Polygon", "coordinates": rings})
    assert as_lists(read) == [[[[0, 1], [10, 0], [0, 10]]]]
    line = {"type": "Polygon", "coordinates": [[[0, 0], [1, 1], [0, 0]]]}
    assert not len(TissueContours.from_geojson(line))


def test_keep_and_exclude_choose_by_number(tissue: TissueContours) -> None:
    four = TissueContours(tissue.contours * 2)

    def chosen(keep: tuple[int, ...], exclude: tuple[int, ...]) -> list[int]:
        kept = four.select(keep, exclude).contours
        return [next(i for i, one in enumerate(four.contours[:2]) if one is k) for k in kept]

    assert chosen((), ()) == [0, 1, 0, 1]
    assert chosen((0,), ()) == [0]
    assert chosen((), (0,)) == [1, 0, 1]
    assert chosen((3, 0), ()) == [0, 1], "in the slide's order"
    assert chosen((1, 2), (2,)) == [1]
    assert chosen((9,), ()) == []


@pytest.mark.parametrize(
    "text",
    [
        "",
        "not json",
        '"text"',
        "{}",
        '{"type": "Topology"}',
        '{"type": "FeatureCollection"}',
        '{"type": "Polygon", "coordinates": [1, 2, 3]}',
        '{"type": "Polygon", "coordinates": [[1, 2, 3]]}',
        '{"type": "Polygon", "coordinates": [[[1], [2], [3]]]}',
        '{"type": "Polygon", "coordinates": [[[1, 2], [3], [4, 5]]]}',
        '{"type": "Polygon", "coordinates": [[[1, 2], [3, "x"], [4, 5]]]}',
        '{"type": "Polygon", "coordinates": [[[1, 2], [NaN, 3], [4, 5]]]}',
        '{"type": "Polygon", "coordinates": [[[1, 2], [1e12, 3], [4, 5]]]}',
    ],
)
def test_what_is_no_geojson_is_refused_by_name(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.geojson"
    path.write_text(text)
    with pytest.raises(SlideError, match=r"contours .*a\.geojson: not usable GeoJSON"):
        read_contours(str(path))


def edit(path: Path, change: object) -> str:
    tree = json.loads(path.read_text())
    tree["features"][0]["geometry"]["coordinates"][0][1] = change
    path.write_text(json.dumps(tree))
    return path.read_text()


def test_an_edited_file_is_never_overwritten(tmp_path: Path, tissue: TissueContours) -> None:
    path = tmp_path / "a.geojson"
    write_contours(str(path), tissue)
    text = edit(path, [20, 0])
    assert is_edited(str(path))
    with pytest.raises(SlideError, match=r"a\.geojson: edited .*--contours FOLDER.*move"):
        write_contours(str(path), tissue)
    assert path.read_text() == text


def test_a_file_saved_anew_by_another_program_is_not_overwritten(
    tmp_path: Path, tissue: TissueContours
) -> None:
    path = tmp_path / "a.geojson"
    tree = tissue.to_geojson()
    del tree["crane_ray"]
    for text in (json.dumps(tree), json.dumps(tree["features"]), "half a fi"):
        path.write_text(text)
        with pytest.raises(SlideError, match="not overwritten"):
            write_contours(str(path), TissueContours(tissue.contours[:1]))
        assert path.read_text() == text


def test_an_edited_file_that_says_the_same_is_left_alone(
    tmp_path: Path, tissue: TissueContours
) -> None:
    path = tmp_path / "a.geojson"
    write_contours(str(path), tissue)
    text = edit(path, [20, 0])
    write_contours(str(path), read_contours(str(path)))
    assert path.read_text() == text


def test_a_file_of_ours_is_replaced(tmp_path: Path, tissue: TissueContours) -> None:
    path = str(tmp_path / "a.geojson")
    write_contours(path, tissue)
    write_contours(path, TissueContours(tissue.contours[1:]))
    assert as_lists(read_contours(path)) == as_lists(tissue)[1:]
    write_contours(path, TissueContours())
    assert not len(read_contours(path))


def test_names_and_colours_may_change_without_an_edit_being_seen(
    tmp_path: Path, tissue: TissueContours
) -> None:
    path = tmp_path / "a.geojson"
    write_contours(str(path), tissue)
    tree = json.loads(path.read_text())
    tree["features"][0]["properties"]["name"] = "mine"
    path.write_text(json.dumps(tree, indent=1))
    assert not is_edited(str(path))

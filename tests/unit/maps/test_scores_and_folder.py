"""Scores and the tables of a folder of maps: what is written is read back."""

from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from crane_ray import storage
from crane_ray.errors import StoreError
from crane_ray.maps.folder import HeadTask, MapRow, MapsFolder, MapsHeader, list_maps
from crane_ray.maps.scores import SlideScores, read_scores, write_clam_scores, write_scores

HEADER = MapsHeader(
    model="/runs/a_s1",
    checkpoints={"0": "f0"},
    tasks=(HeadTask(name="subtype", classes=("a", "b")),),
    heads=("subtype:a", "subtype:b"),
    features="/cohort/features/x",
    recipe_fingerprint="r",
)


def some_scores(num: int = 7) -> SlideScores:
    generator = np.random.default_rng(0)
    return SlideScores(
        slide_id="S 1",
        heads=("subtype:a", "subtype:b"),
        xy=generator.integers(0, 1000, (num, 2)).astype(np.int32),
        raw_HN=generator.normal(size=(2, num)).astype(np.float32),
        percentile_HN=generator.random((2, num)).astype(np.float32),
        footprint_px=256.5,
        dimensions=(4000, 3000),
        mpp=None,
    )


@pytest.mark.parametrize("num", [0, 7])
def test_scores_come_back(tmp_path: Path, num: int) -> None:
    scores = some_scores(num)
    path = str(tmp_path / "scores" / "S 1.parquet")
    write_scores(path, scores)
    found = read_scores(path)
    for name in ("xy", "raw_HN", "percentile_HN"):
        np.testing.assert_array_equal(getattr(found, name), getattr(scores, name))
        assert getattr(found, name).dtype == getattr(scores, name).dtype
    assert (found.slide_id, found.heads, found.footprint_px) == ("S 1", scores.heads, 256.5)
    assert (found.dimensions, found.mpp) == ((4000, 3000), None)
    before = storage.read_bytes(path)
    write_scores(path, found)
    assert storage.read_bytes(path) == before


def test_scores_by_head() -> None:
    scores = some_scores()
    np.testing.assert_array_equal(scores.of("subtype:b", "raw"), scores.raw_HN[1])
    np.testing.assert_array_equal(scores.of("subtype:a"), scores.percentile_HN[0])
    with pytest.raises(StoreError, match="no head 'c'; its scores have subtype:a, subtype:b"):
        scores.of("c")


def test_other_files_are_no_scores(tmp_path: Path) -> None:
    folder = MapsFolder(str(tmp_path))
    folder.write_index([MapRow("a", "/a.svs", "ok")])
    with pytest.raises(StoreError, match="no scores of format 1"):
        read_scores(folder.index_path)
    with pytest.raises(StoreError, match="cannot be read"):
        read_scores(folder.scores("absent"))


def test_clams_file(tmp_path: Path) -> None:
    scores, path = some_scores(), str(tmp_path / "a.h5")
    write_clam_scores(path, scores, "subtype:b")
    with h5py.File(path) as file:
        np.testing.assert_array_equal(file["attention_scores"][:], scores.raw_HN[1][:, None])
        np.testing.assert_array_equal(file["coords"][:], scores.xy)


def test_a_workspaces_maps_are_found_with_header_and_index(tmp_path: Path) -> None:
    folder = MapsFolder(str(tmp_path / "heatmaps" / "a_s1"))
    assert list_maps(str(tmp_path)) == []
    assert folder.read_index() == {}
    rows = [MapRow("b", "/b.svs", "failed", reason="cut short"), MapRow("a", "/a.svs", "ok", "C")]
    folder.write_header(HEADER)
    folder.write_index(rows)
    assert list_maps(str(tmp_path)) == [folder]
    assert folder.read_header() == HEADER
    assert list(folder.read_index().values()) == rows[::-1]
    assert replace(rows[0], predictions='{"t": [0.25, 0.75]}').probabilities() == {
        "t": [0.25, 0.75]
    }
    assert folder.picture("a", "subtype:b").endswith("pictures/a/subtype-b.jpg")


def test_headers_that_cannot_be_used(tmp_path: Path) -> None:
    folder = MapsFolder(str(tmp_path))
    with pytest.raises(StoreError, match="crane-ray heatmap makes them"):
        folder.read_header()
    for text in ('{"version": 99}', "[]", "not JSON", '{"version": 1}'):
        storage.put_bytes(folder.header_path, text.encode())
        with pytest.raises(StoreError, match=r"maps\.json cannot be used|format version 99"):
            folder.read_header()

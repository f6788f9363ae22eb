"""All files of a slide's maps: what was asked for, in its place, and nothing of before."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import h5py
import numpy as np
import openslide
import pytest

from crane_ray import storage
from crane_ray.errors import SlideError
from crane_ray.maps import raster, writing
from crane_ray.maps.folder import MapsFolder
from crane_ray.maps.raster import render
from crane_ray.maps.scores import read_scores
from crane_ray.maps.settings import MapSettings, SampleConfig
from crane_ray.maps.writing import MapFiles, make_maps
from crane_ray.slides.tissue import TissueContours, read_contours
from tests.unit.maps.slides import Image, grid_of, lattice, opened, scores_of

SCORES = scores_of(lattice((1300, 900), 64), footprint=64)


def made(path: Path, root: Path, tissue: TissueContours | None = None, **fields: Any) -> MapFiles:
    with opened(path) as reader:
        return make_maps(
            SCORES,
            MapsFolder(str(root)),
            MapSettings(**fields),
            reader=reader,
            tissue=tissue,
            grid=grid_of(SCORES, reader),
        )


def below(root: Path) -> set[str]:
    return {str(path) for path in root.rglob("*") if path.is_file()}


def picture(path: str) -> Image:
    return np.asarray(cv2.cvtColor(cv2.imread(path), cv2.COLOR_BGR2RGB), dtype=np.uint8)


def distance(one: Image, other: Image) -> float:
    assert one.shape == other.shape
    return float(np.abs(one.astype(int) - other).mean())


def test_what_is_made_by_default(slide_path: Path, tissue: TissueContours, tmp_path: Path) -> None:
    files = made(slide_path, tmp_path, tissue)
    assert [path.removeprefix(f"{tmp_path}/") for path in files.pictures] == [
        "pictures/a/cell.jpg", "pictures/a/amr-yes.jpg",
    ]  # fmt: skip
    assert len(files.galleries) == 4
    assert len(files.patches) == 4 * 15
    everything = {*files.scores, *files.pictures, *files.regions, *files.galleries, *files.patches}
    assert below(tmp_path) == everything
    np.testing.assert_array_equal(read_scores(files.scores[0]).raw_HN, SCORES.raw_HN)
    assert len(read_contours(files.regions[0])) > 0


def test_every_format_shows_the_map(
    slide_path: Path, tissue: TissueContours, tmp_path: Path
) -> None:
    files = made(
        slide_path, tmp_path, tissue, formats=("jpg", "png", "tif"), vis_level=1,
        save_slide=True, clam_scores=True, samples=(), geojson=False,
    )  # fmt: skip
    with opened(slide_path) as reader:
        maps = [
            render(SCORES, head, MapSettings(vis_level=1), reader, tissue) for head in SCORES.heads
        ]
        maps.append(reader.read_region((0, 0), 1, (650, 450)))
    for number, expected in enumerate(maps):
        jpg, png, tif = files.pictures[3 * number : 3 * number + 3]
        np.testing.assert_array_equal(picture(png), expected)
        with openslide.OpenSlide(tif) as slide:
            assert slide.dimensions == (650, 450)
            assert float(slide.properties["openslide.mpp-x"]) == pytest.approx(1.0)
            read = np.asarray(slide.read_region((0, 0), 0, (650, 450)).convert("RGB"))
        # JPEG halves the resolution of colours, which the blotches of the slide do not forgive.
        others = [one for one in maps if one is not expected]
        for found in (picture(jpg), read):
            assert distance(found, expected) < min(distance(found, one) for one in others) / 2
    assert files.pictures[-1].endswith("pictures/a/slide.tif")
    with h5py.File(files.scores[2]) as file:
        np.testing.assert_array_equal(file["attention_scores"][:, 0], SCORES.raw_HN[1])


@pytest.mark.parametrize("blur", [False, True])
def test_a_pyramid_alone_is_never_a_picture(
    slide_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, blur: bool
) -> None:
    fields: dict[str, Any] = {"vis_level": 1, "samples": (), "geojson": False, "blur": blur}
    expected = picture(made(slide_path, tmp_path / "b", formats=("png",), **fields).pictures[0])
    monkeypatch.setattr(raster, "MAX_PICTURE_PX", 1000)
    monkeypatch.setattr(raster, "WINDOW_PX", 300)
    files = made(slide_path, tmp_path / "a", formats=("tif",), jpeg_quality=100, **fields)
    with openslide.OpenSlide(files.pictures[0]) as slide:
        found = np.asarray(slide.read_region((0, 0), 0, slide.dimensions).convert("RGB"))
    shifted = np.roll(expected, 2, axis=1)
    assert distance(found, expected) < distance(found, shifted) / 2
    with pytest.raises(SlideError, match="too large for a picture"):
        made(slide_path, tmp_path / "a", formats=("tif", "jpg"), **fields)
    assert Path(files.pictures[0]).exists()  # refused before anything was taken away


def test_the_resolution_of_a_map_that_was_shrunk(slide_path: Path, tmp_path: Path) -> None:
    files = made(
        slide_path, tmp_path, formats=("tif",), vis_level=0, max_size_px=400, samples=(),
        roi=(100, 200, 800, 600),
    )  # fmt: skip
    with openslide.OpenSlide(files.pictures[0]) as slide:
        assert slide.dimensions == (400, 300)
        assert float(slide.properties["openslide.mpp-x"]) == pytest.approx(1.0)


def test_maps_of_other_settings_leave_nothing_behind(slide_path: Path, tmp_path: Path) -> None:
    made(slide_path, tmp_path, formats=("jpg", "tif"), clam_scores=True, save_slide=True)
    other = MapsFolder(str(tmp_path)).picture("b", "cell")
    storage.put_bytes(other, b"of another slide")
    sample = SampleConfig(name="middle", mode="range_sample", k=2, score_start=0.4, score_end=0.6)
    files = made(slide_path, tmp_path, formats=("png",), samples=(sample,), patch_format="png")
    everything = {*files.scores, *files.pictures, *files.regions, *files.galleries, *files.patches}
    assert below(tmp_path) == everything | {other}
    assert all(path.endswith(".png") and "/middle/" in path for path in files.patches)


def test_equal_scores_and_settings_make_equal_files(slide_path: Path, tmp_path: Path) -> None:
    one = made(slide_path, tmp_path / "one", formats=("jpg", "png", "tif"))
    made(slide_path, tmp_path / "two", formats=("jpg", "png", "tif"))
    for path in [*one.scores, *one.pictures, *one.regions, *one.galleries, *one.patches]:
        again = path.replace(f"{tmp_path}/one", f"{tmp_path}/two")
        assert storage.read_bytes(again) == storage.read_bytes(path)


def test_without_the_slide_there_are_maps_on_an_empty_canvas(tmp_path: Path) -> None:
    settings = MapSettings(blank_canvas=True, samples=(), map_mpp=4.0)
    files = make_maps(SCORES, MapsFolder(str(tmp_path)), settings, reader=None)
    assert picture(files.pictures[0]).shape == (112, 162, 3)
    with pytest.raises(SlideError, match=r"--set maps\.samples=\[\]"):
        make_maps(SCORES, MapsFolder(str(tmp_path)), MapSettings(blank_canvas=True), reader=None)
    with pytest.raises(SlideError, match="--save-slide asks for them"):
        alone = MapSettings(blank_canvas=True, save_slide=True)
        make_maps(SCORES, MapsFolder(str(tmp_path)), alone, reader=None)


def test_the_slide_does_not_take_the_place_of_a_tasks_map(slide_path: Path, tmp_path: Path) -> None:
    named = replace(SCORES, heads=("slide", "b"))
    with opened(slide_path) as reader:
        settings = MapSettings(samples=(), save_slide=True)
        with pytest.raises(SlideError, match="the map of the task slide"):
            make_maps(named, MapsFolder(str(tmp_path)), settings, reader=reader)
    assert not below(tmp_path)


def test_a_slide_without_patches(slide_path: Path, tmp_path: Path) -> None:
    nothing = scores_of(np.zeros((0, 2), dtype=np.int32))
    with opened(slide_path) as reader:
        files = make_maps(
            nothing, MapsFolder(str(tmp_path)), MapSettings(), reader=reader,
            grid=grid_of(nothing, reader),
        )  # fmt: skip
    assert len(files.pictures) == 2
    assert files.galleries == ()


def test_what_jpeg_cannot_hold(
    slide_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "MAX_JPEG_SIDE_PX", 600)
    with pytest.raises(SlideError, match=r"at most 600 px a side, the map has 1,300 x 900"):
        made(slide_path, tmp_path, vis_level=0)
    assert below(tmp_path) == set()

"""Maps as pictures: as painted patch by patch, and any part as that part of the whole."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from crane_ray.errors import ScaleError, SlideError
from crane_ray.maps import raster
from crane_ray.maps.canvas import plan_canvas
from crane_ray.maps.colours import shown_values
from crane_ray.maps.percentiles import percentiles
from crane_ray.maps.raster import render
from crane_ray.maps.scores import SlideScores
from crane_ray.maps.settings import MapSettings
from crane_ray.slides.slide import SlideInfo
from crane_ray.slides.tissue import TissueContours
from crane_ray.testing.pyramids import write_pyramid
from tests.unit.maps.slides import Image, lattice, opened, paint_one_by_one, scores_of

SIZE = (1300, 900)


def beneath(path: Path, level: int) -> tuple[Image, tuple[float, float]]:
    """A level in one read, and its scale."""
    with opened(path) as reader:
        size = reader.info.level_dimensions[level]
        down_x, down_y = reader.info.downsample_xy(level)
        return reader.read_region((0, 0), level, size), (1 / down_x, 1 / down_y)


def drawn(
    path: Path, scores: SlideScores, tissue: TissueContours | None = None, **settings: Any
) -> Image:
    """The map of head cell; at CLAM's own level where the settings name no size."""
    size = {} if "map_mpp" in settings else {"vis_level": -1}
    with opened(path) as reader:
        return render(scores, "cell", MapSettings(**(size | settings)), reader, tissue)


def uneven_scores(step: int = 64) -> SlideScores:
    """Patches of two lattices that do not meet, 51 px wide where the step is 64: gaps, too."""
    one, two = lattice(SIZE, step)[::2], lattice((700, 500), step, begin=(13, 29))
    return scores_of(np.concatenate([one, two]), footprint=51)


@pytest.mark.parametrize("level", [0, 1, 2])
def test_patches_are_painted_as_one_by_one(slide_path: Path, level: int) -> None:
    scores = uneven_scores()
    slide, scale = beneath(slide_path, level)
    values = percentiles(scores.raw_HN[0])
    expected = paint_one_by_one(slide, scale, scores, values)
    np.testing.assert_array_equal(drawn(slide_path, scores, vis_level=level), expected)


def test_the_level_taken_by_itself_is_that_of_32(slide_path: Path) -> None:
    scores = uneven_scores()
    best = drawn(slide_path, scores, vis_level=-1)
    np.testing.assert_array_equal(best, drawn(slide_path, scores, vis_level=2))


def test_without_a_level_small_slides_have_maps_that_can_be_read(slide_path: Path) -> None:
    scores = scores_of(lattice(SIZE, 64), footprint=64)
    assert drawn(slide_path, scores, vis_level=None).shape == (900, 1300, 3)
    assert drawn(slide_path, scores, vis_level=-1).shape == (225, 325, 3)
    blank = MapSettings(blank_canvas=True)
    assert render(scores, "cell", blank, None).shape == (692, 1000, 3)
    assert render(scores, "cell", MapSettings(blank_canvas=True, vis_level=-1), None).shape == (
        28,
        41,
        3,
    )


@pytest.mark.parametrize(
    ("sides", "level"),
    [
        ((100_000, 25_000, 6_250, 3_125, 1_562), 3),
        ((14_000, 3_500, 875), 1),
        ((900, 450), 0),
        ((2_000,), 0),
    ],
)
def test_the_level_of_a_map_without_a_size(sides: tuple[int, ...], level: int) -> None:
    info = SlideInfo(
        "x", tuple((side, side // 2) for side in sides), tuple(sides[0] / side for side in sides)
    )
    assert plan_canvas(MapSettings(), (sides[0], sides[0] // 2), info=info).level == level


@pytest.mark.parametrize("holes", [True, False])
def test_only_tissue_is_painted(slide_path: Path, tissue: TissueContours, holes: bool) -> None:
    scores = uneven_scores()
    slide, scale = beneath(slide_path, 1)
    expected = paint_one_by_one(
        slide, scale, scores, percentiles(scores.raw_HN[0]), tissue=tissue, holes=holes
    )
    found = drawn(slide_path, scores, tissue, vis_level=1, holes=holes)
    np.testing.assert_array_equal(found, expected)
    without = drawn(slide_path, scores, tissue, vis_level=1, tissue_mask=False)
    np.testing.assert_array_equal(without, drawn(slide_path, scores, vis_level=1))
    np.testing.assert_array_equal(without, drawn(slide_path, scores, TissueContours(), vis_level=1))


@pytest.mark.parametrize(("step", "threshold"), [(64, 0.7), (16, 0.7), (16, -1.0)])
def test_binarised_patches_at_or_above_the_threshold(
    slide_path: Path, step: int, threshold: float
) -> None:
    scores = scores_of(lattice(SIZE, step), footprint=64)
    slide, scale = beneath(slide_path, 2)
    expected = paint_one_by_one(
        slide, scale, scores, percentiles(scores.raw_HN[0]),
        threshold=1 / len(scores) if threshold < 0 else threshold,
    )  # fmt: skip
    found = drawn(slide_path, scores, binarize=True, threshold=threshold)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(("step", "overlap"), [(64, 0.0), (32, 0.5)])
def test_blurred(slide_path: Path, tissue: TissueContours, step: int, overlap: float) -> None:
    scores = scores_of(lattice(SIZE, step, begin=(100, 50)), footprint=64)
    slide, scale = beneath(slide_path, 2)
    expected = paint_one_by_one(
        slide, scale, scores, percentiles(scores.raw_HN[0]),
        overlap=overlap, tissue=tissue, cmap="jet", alpha=0.7,
    )  # fmt: skip
    found = drawn(slide_path, scores, tissue, blur=True, cmap="jet", alpha=0.7)
    np.testing.assert_array_equal(found, expected)


def test_at_a_level_between_whole_downsamples(uneven_path: Path, tissue: TissueContours) -> None:
    scores = uneven_scores()
    slide, scale = beneath(uneven_path, 1)
    expected = paint_one_by_one(slide, scale, scores, percentiles(scores.raw_HN[0]), tissue=tissue)
    assert expected.shape == (219, 333, 3)
    np.testing.assert_array_equal(drawn(uneven_path, scores, tissue), expected)


@hypothesis_settings(deadline=None, max_examples=50)
@given(seed=st.integers(0, 1000), num=st.integers(0, 60), footprint=st.floats(20, 200))
def test_means_of_overlapping_patches_on_an_empty_canvas(
    seed: int, num: int, footprint: float
) -> None:
    xy = np.random.default_rng(seed).integers(0, (1300, 900), (num, 2)).astype(np.int32)
    scores = scores_of(xy, footprint=footprint, seed=seed)
    # Values whose sums are exact in any order: no colour depends on a rounding.
    values = np.random.default_rng(seed).integers(0, 1025, num) / 1024
    scores.percentile_HN[0] = values
    settings = MapSettings(
        blank_canvas=True, canvas_rgb=(9, 8, 7), map_mpp=4.0, alpha=1, scale="reference"
    )
    found = render(scores, "cell", settings, None)
    blank = np.zeros((112, 162, 3), dtype=np.uint8)
    blank[:] = (9, 8, 7)
    scale = 1 / (1300 / 162), 1 / (900 / 112)
    expected = paint_one_by_one(blank, scale, scores, values, alpha=1)
    np.testing.assert_array_equal(found, expected)
    covered = np.zeros((112, 162), dtype=bool)
    size = np.ceil(footprint * np.array(scale)).astype(int)
    for x, y in np.ceil(xy * np.array(scale)).astype(int).tolist():
        covered[y : y + size[1], x : x + size[0]] = True
    np.testing.assert_array_equal((found != (9, 8, 7)).any(axis=2), covered)


@hypothesis_settings(deadline=None, max_examples=50)
@given(
    x=st.integers(0, 1200), y=st.integers(0, 850), width=st.integers(1, 1300),
    height=st.integers(1, 900), blur=st.booleans(),
)  # fmt: skip
def test_a_region_is_that_part_of_the_whole(
    uneven_path: Path,
    tissue: TissueContours,
    x: int,
    y: int,
    width: int,
    height: int,
    blur: bool,
) -> None:
    scores = uneven_scores(step=40)
    for settings in ({"vis_level": 1}, {"map_mpp": 3.3}):
        whole = drawn(uneven_path, scores, tissue, blur=blur, **settings)
        part = drawn(uneven_path, scores, tissue, blur=blur, roi=(x, y, width, height), **settings)
        scale_x, scale_y = 1 / (1300 / whole.shape[1]), 1 / (900 / whole.shape[0])
        left, top = int(x * scale_x), int(y * scale_y)
        crop = whole[top : top + part.shape[0], left : left + part.shape[1]]
        np.testing.assert_array_equal(part, crop)
        assert abs(part.shape[1] - min(width, 1300 - x) * scale_x) <= 1
        assert abs(part.shape[0] - min(height, 900 - y) * scale_y) <= 1


@pytest.mark.parametrize("settings", [{}, {"blur": True}, {"map_mpp": 1.7}])
def test_windows_leave_no_seams(
    uneven_path: Path,
    tissue: TissueContours,
    monkeypatch: pytest.MonkeyPatch,
    settings: dict[str, Any],
) -> None:
    scores = uneven_scores(step=40)
    whole = drawn(uneven_path, scores, tissue, **settings)
    monkeypatch.setattr(raster, "WINDOW_PX", 50)
    monkeypatch.setattr(raster.MapPainter.windows, "__defaults__", (37,))
    np.testing.assert_array_equal(drawn(uneven_path, scores, tissue, **settings), whole)


def test_what_is_not_painted_is_the_slide(slide_path: Path) -> None:
    scores = scores_of(np.array([[400, 300]], dtype=np.int32), footprint=64)
    slide, _ = beneath(slide_path, 2)
    found = drawn(slide_path, scores, alpha=1.0)
    changed = (found != slide).any(axis=2)
    assert changed[75:91, 100:116].all()
    assert changed.sum() == 16 * 16
    nothing = scores_of(np.zeros((0, 2), dtype=np.int32))
    np.testing.assert_array_equal(drawn(slide_path, nothing), slide)
    np.testing.assert_array_equal(drawn(slide_path, scores, alpha=0.0), slide)


@pytest.mark.parametrize("scale", ["percentile", "raw"])
def test_equal_scores_have_one_colour(scale: Any) -> None:
    scores = scores_of(lattice(SIZE, 30), footprint=64)
    scores.raw_HN[:] = 3.25
    settings = MapSettings(blank_canvas=True, alpha=1, scale=scale)
    found = render(scores, "cell", settings, None)
    assert len(np.unique(found.reshape(-1, 3), axis=0)) == 1


def test_what_the_colours_mean() -> None:
    scores = scores_of(lattice(SIZE, 300), footprint=64)
    raw, stored = scores.raw_HN[0].astype(np.float64), scores.percentile_HN[0]
    stored[:] = 0.25
    by = {scale: shown_values(scores, "cell", MapSettings(scale=scale))
          for scale in ("percentile", "raw", "reference")}  # fmt: skip
    np.testing.assert_array_equal(by["percentile"], percentiles(raw))
    np.testing.assert_array_equal(by["reference"], stored)
    assert (by["raw"].min(), by["raw"].max()) == (0, 1)
    np.testing.assert_array_equal(np.argsort(by["raw"]), np.argsort(raw))


def test_a_stored_percentile_passes_the_threshold_that_it_equals(slide_path: Path) -> None:
    scores = scores_of(np.array([[400, 300], [600, 300]], dtype=np.int32), footprint=64)
    scores.percentile_HN[0] = [0.9, 0.8999]
    slide, _ = beneath(slide_path, 2)
    found = drawn(slide_path, scores, scale="reference", binarize=True, threshold=0.9)
    changed = (found != slide).any(axis=2)
    assert changed[75:91, 100:116].all()
    assert changed.sum() == 16 * 16


def test_sizes(slide_path: Path) -> None:
    scores = scores_of(lattice(SIZE, 64), footprint=64)
    assert drawn(slide_path, scores, map_mpp=5.0).shape == (90, 130, 3)
    assert drawn(slide_path, scores, map_mpp=2.0).shape == (225, 325, 3)  # a level, as it is
    assert drawn(slide_path, scores, vis_level=0, max_size_px=100).shape == (69, 100, 3)
    assert drawn(slide_path, scores, vis_level=1, custom_downsample=4).shape == (112, 162, 3)
    np.testing.assert_array_equal(
        drawn(slide_path, scores, map_mpp=2.0), drawn(slide_path, scores, vis_level=2)
    )


def test_a_resampled_slide_lies_where_the_slide_does(tmp_path: Path, image: Image) -> None:
    flat = write_pyramid(tmp_path / "a.tif", image, mpp=0.5, num_levels=1, compression="deflate")
    nothing = scores_of(np.zeros((0, 2), dtype=np.int32))
    found = drawn(flat, nothing, map_mpp=5.0)  # blotches are 10 px: one a pixel
    np.testing.assert_array_equal(found, image[::10, ::10])


def test_large_levels_are_drawn_at_32_unless_asked_for(
    slide_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = scores_of(lattice(SIZE, 64), footprint=64)
    monkeypatch.setattr("crane_ray.maps.canvas.MAX_AUTOMATIC_PX", 1000)
    assert drawn(slide_path, scores, vis_level=-1).shape == (28, 41, 3)
    assert drawn(slide_path, scores, vis_level=2).shape == (225, 325, 3)
    monkeypatch.setattr("crane_ray.maps.canvas.MAX_SHRUNK_PX", 1000)
    assert drawn(slide_path, scores, vis_level=0, max_size_px=100).shape == (69, 100, 3)


def test_what_cannot_be_drawn_is_said(slide_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scores = scores_of(lattice(SIZE, 64), footprint=64)
    with pytest.raises(ScaleError, match="levels 0 to 2"):
        drawn(slide_path, scores, vis_level=3)
    with pytest.raises(ScaleError, match=r"finer than the slide's 0\.5 um/px"):
        drawn(slide_path, scores, map_mpp=0.25)
    with pytest.raises(ScaleError, match=r"slide a: a map of 2 um/px .* is not known"):
        drawn(slide_path, scores_of(scores.xy, mpp=None), map_mpp=2.0)
    with pytest.raises(SlideError, match="lies off the slide, which has 1300 x 900"):
        drawn(slide_path, scores, roi=(1300, 0, 10, 10))
    with pytest.raises(SlideError, match="--blank-canvas"):
        render(scores, "cell", MapSettings(), None)
    with pytest.raises(ScaleError, match="known only where the slide itself is read"):
        render(scores, "cell", MapSettings(blank_canvas=True, vis_level=1), None)
    monkeypatch.setattr(raster, "MAX_PICTURE_PX", 1000)
    with pytest.raises(SlideError, match=r"325 x 225 px is too large for a picture.*--format tif"):
        drawn(slide_path, scores)

from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from crane_ray.slides import pictures
from crane_ray.slides.opening import open_slide
from crane_ray.slides.params import TissueParams
from crane_ray.slides.patches import PatchSpec, plan_patches
from crane_ray.slides.pictures import Overview, draw_mask, draw_stitch, read_overview, write_picture
from crane_ray.slides.slide import Slide, SlideInfo
from crane_ray.slides.tissue import TissueContour, TissueContours
from crane_ray.testing.pyramids import write_pyramid

Image = npt.NDArray[np.uint8]


def info_of(width: int, height: int) -> SlideInfo:
    return SlideInfo("test", ((width, height),), (1.0,))


def overview_of(path: Path, params: TissueParams | None = None) -> Overview | None:
    with open_slide(Slide("a", str(path))) as reader:
        return read_overview(reader, params or TissueParams())


@pytest.fixture(scope="module")
def large_path(tmp_path_factory: pytest.TempPathFactory, tissue_image: Image) -> Path:
    doubled = tissue_image.repeat(3, axis=0).repeat(3, axis=1)
    return write_pyramid(tmp_path_factory.mktemp("large") / "a.tif", doubled, mpp=0.2)


def test_the_overview_is_the_coarsest_level_of_enough_pixels(
    slide_path: Path, large_path: Path
) -> None:
    small = overview_of(slide_path)
    assert small is not None
    assert small.rgb.shape == (768, 1024, 3)
    assert small.scale_xy == (1.0, 1.0)
    large = overview_of(large_path)
    assert large is not None
    assert large.rgb.shape == (1152, 1536, 3)
    assert large.scale_xy == (0.5, 0.5)


def test_a_level_asked_for_is_taken_and_shrunk_to_picture_size(large_path: Path) -> None:
    lower = overview_of(large_path, TissueParams(vis_level=2))
    assert lower is not None
    assert lower.rgb.shape == (576, 768, 3)
    beyond = overview_of(large_path, TissueParams(vis_level=9))
    assert beyond is not None
    assert max(beyond.rgb.shape) < 576
    shrunk = overview_of(large_path, TissueParams(vis_level=0))
    assert shrunk is not None
    assert shrunk.rgb.shape == (1536, 2048, 3)
    assert shrunk.scale_xy == pytest.approx((2048 / 3072, 1536 / 2304))


def test_a_slide_too_large_to_be_read_whole_has_no_overview(
    slide_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pictures, "MAX_LEVEL_PIXELS", 1024 * 768 - 1)
    assert overview_of(slide_path) is None


def test_the_mask_has_the_outlines_where_the_tissue_ends() -> None:
    blank = Overview(np.full((200, 300, 3), 255, np.uint8), (0.5, 0.5))
    outline = np.array([[100, 100], [500, 100], [500, 300], [100, 300]], np.int32)
    hole = np.array([[350, 150], [450, 150], [450, 250], [350, 250]], np.int32)
    tissue = TissueContours((TissueContour(outline, (hole,)),))
    picture = draw_mask(blank, tissue, TissueParams(line_thickness=6))
    for x, y in [(50, 100), (250, 100), (150, 50), (150, 150)]:
        assert tuple(picture[y, x]) == pictures.TISSUE_RGB
    for x, y in [(175, 100), (225, 100), (200, 75)]:
        assert tuple(picture[y, x]) == pictures.HOLE_RGB
    assert (picture[:45] == 255).all()
    assert (picture[100, 200] == 255).all()
    assert not picture[90:110, 140:160].all(), "its number stands in the middle"
    assert (blank.rgb == 255).all(), "the overview itself stays as it is"


def test_the_line_is_as_wide_as_asked_for_in_level_0_pixels() -> None:
    blank = Overview(np.full((200, 300, 3), 255, np.uint8), (0.5, 0.5))
    outline = np.array([[100, 100], [500, 100], [500, 300], [100, 300]], np.int32)
    tissue = TissueContours((TissueContour(outline),))
    for thickness in (2, 20, 40):
        column = draw_mask(blank, tissue, TissueParams(line_thickness=thickness))[20:80, 100, 0]
        assert (column < 128).sum() == pytest.approx(thickness / 2, abs=1)


def test_the_stitch_shows_patches_in_place_and_fades_the_rest(tissue_image: Image) -> None:
    outline = np.array([[100, 60], [400, 60], [400, 260], [100, 260]], np.int32)
    tissue = TissueContours((TissueContour(outline),))
    spec = PatchSpec(level=0, size_px=8, step_px=16)  # too small for frames
    grid = plan_patches(tissue, info_of(2048, 1536), spec, TissueParams())
    picture = draw_stitch(Overview(tissue_image, (0.5, 0.5)), grid)
    covered = np.zeros((768, 1024), bool)
    for x, y in grid.xy.tolist():
        covered[y // 2 : y // 2 + 4, x // 2 : x // 2 + 4] = True
    assert covered.any()
    np.testing.assert_array_equal(picture[covered], tissue_image[covered])
    faded = 255 - (255 - tissue_image[~covered].astype(int)) // 4
    np.testing.assert_array_equal(picture[~covered], faded)


def test_large_patches_are_framed_and_their_inside_is_the_slide(tissue_image: Image) -> None:
    outline = np.array([[100, 60], [163, 60], [163, 123], [100, 123]], np.int32)
    tissue = TissueContours((TissueContour(outline),))
    grid = plan_patches(tissue, info_of(2048, 1536), PatchSpec(level=0, size_px=64), TissueParams())
    assert grid.xy.tolist() == [[100, 60]]
    picture = draw_stitch(Overview(tissue_image, (0.5, 0.5)), grid)
    np.testing.assert_array_equal(picture[31:61, 51:81], tissue_image[31:61, 51:81])
    assert (picture[30, 50:82] == 90).all()
    assert (picture[30:62, 81] == 90).all()
    assert (picture[29, 50:82] != 90).any()


def test_patches_far_smaller_than_a_pixel_of_the_picture_are_still_seen(
    tissue_image: Image,
) -> None:
    outline = np.array([[4000, 3000], [4005, 3000], [4005, 3005], [4000, 3005]], np.int32)
    tissue = TissueContours((TissueContour(outline),))
    spec = PatchSpec(level=0, size_px=8)
    grid = plan_patches(tissue, info_of(102_400, 76_800), spec, TissueParams())
    assert grid.xy.tolist() == [[4000, 3000]]
    dark = Overview(np.zeros_like(tissue_image), (0.01, 0.01))
    assert (draw_stitch(dark, grid)[30, 40] == 0).all()


def test_a_picture_is_written_in_its_colours(tmp_path: Path) -> None:
    picture = np.full((40, 60, 3), (200, 100, 50), np.uint8)
    path = tmp_path / "masks" / "a.jpg"
    write_picture(str(path), picture)
    read = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
    assert read.shape == (40, 60, 3)
    assert np.abs(read.astype(int) - picture).max() <= 4
    assert path.read_bytes()[:2] == b"\xff\xd8"

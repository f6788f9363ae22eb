from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from crane_ray.errors import SlideError
from crane_ray.slides.opening import open_slide
from crane_ray.slides.params import TissueParams
from crane_ray.slides.segmenters.saturation import segment, segmentation_level, tissue_mask
from crane_ray.slides.slide import Slide, SlideInfo, SlideReader
from crane_ray.slides.tissue import TissueContours
from crane_ray.testing.histology import PaintedSlide, paint_slide
from crane_ray.testing.pyramids import write_pyramid

Image = npt.NDArray[np.uint8]

FINE = TissueParams(preset="bwh_biopsy", a_t=0.02, a_h=0.002)


class InMemory:
    """A reader of one level that is an array, with a chosen downsample."""

    name = "memory"

    def __init__(self, image: Image, downsample: int = 1) -> None:
        height, width = image.shape[:2]
        full = (width * downsample, height * downsample)
        self._image = image
        self.info = SlideInfo("memory", (full, (width, height)), (1.0, float(downsample)))

    def read_region(self, xy: tuple[int, int], level: int, size: tuple[int, int]) -> Image:
        assert (xy, level, size) == ((0, 0), 1, self.info.level_dimensions[1])
        return self._image

    def close(self) -> None: ...

    def __enter__(self) -> "InMemory":
        return self

    def __exit__(self, *exc: object) -> None: ...


def stained(mask: Image) -> Image:
    """Pink where the mask is set, white elsewhere."""
    return np.where(mask[..., None] > 0, (200, 100, 160), 255).astype(np.uint8)


def segment_mask(mask: Image, downsample: int = 1, **values: object) -> TissueContours:
    params = TissueParams.model_validate({"mthresh": 1, "close": 0, "a_t": 0, "a_h": 0, **values})
    reader: SlideReader = InMemory(stained(mask), downsample)
    return segment(reader, params)


def filled(tissue: TissueContours, shape: tuple[int, int]) -> Image:
    """Contours and their holes as a mask; a hole's ring runs on the tissue around it."""
    mask = np.zeros(shape, dtype=np.uint8)
    for contour in tissue.contours:
        cv2.fillPoly(mask, [contour.outline], (255,))
        for hole in contour.holes:
            inner = np.zeros_like(mask)
            cv2.fillPoly(inner, [hole], (255,))
            cv2.polylines(inner, [hole], True, (0,))
            mask[inner > 0] = 0
    return mask


def overlap(one: Image, other: Image) -> float:
    return float(((one > 0) & (other > 0)).sum() / ((one > 0) | (other > 0)).sum())


@pytest.fixture(scope="module")
def biopsy() -> PaintedSlide:
    return paint_slide(np.random.default_rng(5), size_px=(1024, 768), mpp=2.0, num_fragments=2)


@pytest.mark.parametrize("otsu", [False, True])
def test_tissue_of_a_painted_biopsy_is_found(
    tmp_path: Path, biopsy: PaintedSlide, otsu: bool
) -> None:
    path = write_pyramid(tmp_path / "a.tif", biopsy.image, mpp=2.0, quality=90)
    params = FINE.model_copy(update={"seg_level": 0, "use_otsu": otsu, "mthresh": 7})
    with open_slide(Slide("a", str(path))) as reader:
        tissue = segment(reader, params)
    assert len(tissue) == len(biopsy.truth.tissue) == 2
    truth = biopsy.truth.tissue_mask((1024, 768))
    assert overlap(filled(tissue, (768, 1024)), truth) > 0.93


def test_pieces_and_holes_of_a_slide_are_found(painted_tissue: TissueContours) -> None:
    assert sorted(len(contour.holes) for contour in painted_tissue.contours) == [0, 0, 2]
    sizes = [cv2.contourArea(hole) for c in painted_tissue.contours for hole in c.holes]
    assert sizes == sorted(sizes, reverse=True), "larger holes first"
    assert sizes[0] == pytest.approx(np.pi * 60**2, rel=0.1)
    assert sizes[1] == pytest.approx(np.pi * 25**2, rel=0.2)


def test_an_empty_slide_has_no_contours() -> None:
    assert not len(segment_mask(np.zeros((40, 50), np.uint8)))


def test_black_where_the_scanner_left_out_pixels_is_no_tissue() -> None:
    assert not tissue_mask(np.zeros((30, 30, 3), np.uint8), TissueParams()).any()


def test_saturation_above_the_threshold_is_tissue_and_at_it_is_not() -> None:
    image = np.full((20, 40, 3), 255, np.uint8)
    image[:, :20, 1:] = 255 - 8  # saturation 8 of 255
    image[:, 20:, 1:] = 255 - 9
    mask = tissue_mask(image, TissueParams(mthresh=1, close=0, sthresh=8))
    assert not mask[:, :20].any()
    assert (mask[:, 20:] == 255).all()


def test_otsu_needs_no_threshold() -> None:
    image = np.full((20, 40, 3), 255, np.uint8)
    image[:, :20, 1:] = 225  # glass with a tint that a threshold of 8 takes for tissue
    image[:, 20:, 1:] = 120
    assert tissue_mask(image, TissueParams()).all()
    mask = tissue_mask(image, TissueParams(use_otsu=True, mthresh=1, close=0, sthresh=255))
    assert not mask[:, :20].any()
    assert mask[:, 20:].all()


def test_the_blur_takes_specks_and_closing_fills_gaps() -> None:
    mask = np.zeros((60, 60), np.uint8)
    mask[10:50, 10:29] = mask[10:50, 32:50] = 1
    mask[3:5, 3:5] = 1
    assert len(segment_mask(mask)) == 3
    assert len(segment_mask(mask, mthresh=3)) == 2
    assert len(segment_mask(mask, mthresh=3, close=4)) == 1
    assert len(segment_mask(mask, mthresh=3, close=3)) == 2


def test_every_boundary_point_is_kept_and_scaled_to_level_0() -> None:
    mask = np.zeros((30, 40), np.uint8)
    mask[5:16, 8:20] = 1
    (contour,) = segment_mask(mask, downsample=3).contours
    assert len(contour.outline) == 2 * (11 + 12) - 4
    assert contour.outline.min(axis=0).tolist() == [24, 15]
    assert contour.outline.max(axis=0).tolist() == [57, 45]
    assert contour.outline.dtype == np.int32


def test_level_0_coordinates_are_truncated_not_rounded() -> None:
    mask = np.zeros((10, 30), np.uint8)
    mask[2:6, 2:11] = 1
    reader = InMemory(stained(mask))
    reader.info = SlideInfo("memory", ((50, 17), (30, 10)), (1.0, 1.68))
    params = TissueParams(mthresh=1, close=0, a_t=0, a_h=0)
    (contour,) = segment(reader, params).contours
    assert contour.outline.max(axis=0).tolist() == [16, 8], "of 10 * 50 / 30 and 5 * 17 / 10"


def test_a_piece_stays_when_its_area_without_holes_is_above_the_limit() -> None:
    mask = np.zeros((700, 700), np.uint8)
    mask[10:523, 10:523] = 1  # its contour spans 512 x 512
    assert len(segment_mask(mask, a_t=0.999)) == 1
    assert not len(segment_mask(mask, a_t=1)), "not above the limit"
    mask[100:200, 100:200] = 0
    assert not len(segment_mask(mask, a_t=0.999)), "the hole's area is taken off"
    assert len(segment_mask(mask, a_t=0.95)) == 1


def test_areas_are_measured_in_level_0_pixels() -> None:
    mask = np.zeros((300, 300), np.uint8)
    mask[10:139, 10:139] = 1  # 128 x 128 at a downsample of 4: one patch of 512
    assert len(segment_mask(mask, downsample=4, a_t=0.999)) == 1
    assert not len(segment_mask(mask, downsample=4, a_t=1))


def test_a_line_without_area_is_no_tissue() -> None:
    mask = np.zeros((30, 30), np.uint8)
    mask[5, 3:20] = 1
    assert not len(segment_mask(mask))


def test_only_the_largest_holes_are_looked_at_and_those_above_the_limit_stay() -> None:
    mask = np.ones((400, 400), np.uint8)
    for number, width in enumerate((10, 40, 20, 30)):
        mask[50:50 + width, 20 + 60 * number:20 + 60 * number + width] = 0  # fmt: skip

    def hole_widths(**values: Any) -> list[int]:
        (contour,) = segment_mask(mask, **values).contours
        return [int(np.ptp(hole[:, 0])) - 1 for hole in contour.holes]

    assert hole_widths() == [40, 30, 20, 10]
    assert hole_widths(max_n_holes=2) == [40, 30]
    assert hole_widths(max_n_holes=0) == []
    assert hole_widths(a_h=900 / 512**2) == [40, 30]
    assert hole_widths(a_h=900 / 512**2, max_n_holes=1) == [40]
    (contour,) = segment_mask(mask).contours
    of_second = cv2.contourArea(contour.holes[1]) / 512**2
    assert hole_widths(a_h=of_second) == [40], "not above the limit"
    assert hole_widths(a_h=of_second * 0.999) == [40, 30]


def test_ids_choose_among_the_contours_that_stay() -> None:
    mask = np.zeros((60, 200), np.uint8)
    for left in (10, 70, 130):
        mask[10:40, left : left + 40] = 1
    every = [contour.outline.tolist() for contour in segment_mask(mask).contours]
    assert len(every) == 3

    def chosen(**ids: Any) -> list[object]:
        return [contour.outline.tolist() for contour in segment_mask(mask, **ids).contours]

    assert chosen(keep_ids=[0, 2]) == [every[0], every[2]]
    assert chosen(exclude_ids=[1]) == [every[0], every[2]]
    assert chosen(keep_ids=[0, 2], exclude_ids=[2]) == [every[0]]


def info_of(*downsamples: float, width: int = 20_000) -> SlideInfo:
    sizes = tuple((int(width / down), int(width / down)) for down in downsamples)
    return SlideInfo("test", sizes, downsamples)


@pytest.mark.parametrize(
    ("downsamples", "level"),
    [((1.0, 4.0, 16.0, 64.0), 3), ((1.0, 4.0, 16.0, 64.01), 2), ((1.0, 4.0, 128.0), 1)],
)
def test_the_level_is_the_best_for_a_downsample_of_64(
    downsamples: tuple[float, ...], level: int
) -> None:
    assert segmentation_level(info_of(*downsamples), TissueParams()) == level


def test_a_level_asked_for_is_taken_or_refused() -> None:
    info = info_of(1.0, 4.0, 16.0)
    assert segmentation_level(info, TissueParams(seg_level=1)) == 1
    with pytest.raises(SlideError, match=r"failed_seg: seg_level 3 .*levels 0 to 2; use seg_level"):
        segmentation_level(info, TissueParams(seg_level=3))


def test_a_level_too_large_to_segment_is_refused() -> None:
    with pytest.raises(SlideError, match=r"failed_seg: level 0 of 10001 x 10001 px .*100,000,000"):
        segmentation_level(info_of(1.0, width=10_001), TissueParams())
    assert segmentation_level(info_of(1.0, width=10_000), TissueParams()) == 0

from collections.abc import Iterator
from typing import get_args

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from crane_ray.errors import ConfigError
from crane_ray.testing.cohorts import DIAGNOSES
from crane_ray.testing.histology import PaintedSlide, paint_slide
from crane_ray.testing.lesions import Diagnosis, Grade
from crane_ray.testing.truth import LESION_KINDS, LesionKind, Ring, fill_ring

SMALL = (1024, 768)
HIGH = Diagnosis(cell=True, amr=True, quilty=True, grade="high")


def paint(
    seed: int, diagnosis: Diagnosis | None = None, size_px: tuple[int, int] = SMALL
) -> PaintedSlide:
    return paint_slide(np.random.default_rng(seed), size_px=size_px, diagnosis=diagnosis)


def saturation(image: npt.NDArray[np.uint8], downsample: int = 1) -> npt.NDArray[np.uint8]:
    """Median-blurred saturation, as CLAM segments it."""
    size = (image.shape[1] // downsample, image.shape[0] // downsample)
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    hsv = cv2.cvtColor(small, cv2.COLOR_RGB2HSV)
    return np.asarray(cv2.medianBlur(np.ascontiguousarray(hsv[..., 1]), 7), dtype=np.uint8)


def overlap(one: npt.NDArray[np.bool_], two: npt.NDArray[np.bool_]) -> float:
    return float((one & two).sum() / (one | two).sum())


def filled(ring: Ring) -> npt.NDArray[np.bool_]:
    """Pixels of a small slide within a ring."""
    mask = np.zeros(SMALL[::-1], np.uint8)
    fill_ring(mask, ring, 255)
    return np.asarray(mask > 0)


def assert_simple(ring: Ring) -> None:
    """A ring that crosses itself encloses another area than the one it winds around."""
    x, y = ring.T
    wound = abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2
    edge = np.linalg.norm(ring - np.roll(ring, -1, axis=0), axis=1).sum()
    assert abs(filled(ring).sum() - wound) < edge


@pytest.fixture(scope="module", params=range(4))
def slide(request: pytest.FixtureRequest) -> Iterator[PaintedSlide]:
    yield paint(request.param, DIAGNOSES[request.param * 3])


def test_same_seed_same_bytes() -> None:
    one, two = paint(7, HIGH), paint(7, HIGH)
    assert one.image.tobytes() == two.image.tobytes()
    for mine, yours in zip(one.truth.lesions, two.truth.lesions, strict=True):
        np.testing.assert_array_equal(mine.outline, yours.outline)
    assert paint(8, HIGH).image.tobytes() != one.image.tobytes()


@pytest.mark.parametrize("threshold", [8, 15])
@pytest.mark.parametrize("downsample", [1, 4])
def test_saturation_finds_the_tissue(slide: PaintedSlide, threshold: int, downsample: int) -> None:
    found = saturation(slide.image, downsample) > threshold
    size = (SMALL[0] // downsample, SMALL[1] // downsample)
    truth = slide.truth.tissue_mask(size, downsample) > 0
    assert overlap(found, truth) > (0.97 if downsample == 1 else 0.85)


def test_glass_is_grey_and_tissue_is_not(slide: PaintedSlide) -> None:
    tissue = slide.truth.tissue_mask(SMALL)
    kernel = np.ones((15, 15), np.uint8)
    level = saturation(slide.image)
    assert level[cv2.dilate(tissue, kernel) == 0].max() < 4
    inner = level[cv2.erode(tissue, kernel) > 0]
    assert np.percentile(inner, 1) > 30
    assert inner.mean() > 60


def test_tissue_lies_on_the_slide_and_is_simple(slide: PaintedSlide) -> None:
    for fragment in slide.truth.tissue:
        assert fragment.outline.min() > 0
        assert (fragment.outline.max(axis=0) < SMALL).all()
        for ring in (fragment.outline, *fragment.holes):
            assert_simple(ring)
        inside = filled(fragment.outline)
        assert all((inside[filled(hole)]).all() for hole in fragment.holes)
    assert 0.1 < (slide.truth.tissue_mask(SMALL) > 0).mean() < 0.8


@pytest.mark.parametrize("index", range(len(DIAGNOSES)))
def test_lesions_are_those_of_the_diagnosis_and_lie_apart_in_tissue(index: int) -> None:
    diagnosis = DIAGNOSES[index]
    truth = paint(index, diagnosis).truth
    assert {lesion.kind for lesion in truth.lesions} == set(diagnosis.kinds)
    tissue = truth.tissue_mask(SMALL) > 0
    taken = np.zeros_like(tissue)
    for lesion in truth.lesions:
        assert_simple(lesion.outline)
        inside = filled(lesion.outline)
        assert tissue[inside].all()
        assert (inside & taken).sum() < 0.02 * inside.sum()
        taken |= inside


def test_lesions_are_darker_or_redder_than_healthy_tissue() -> None:
    """In haematoxylin-dark pixels, or for vessels in pure-eosin red ones."""
    slide = paint(3, HIGH, (2048, 1536))
    tissue = slide.truth.tissue_mask((2048, 1536)) > 0
    lesions = {kind: slide.truth.lesion_mask((2048, 1536), kind) > 0 for kind in LESION_KINDS}
    healthy = tissue & ~np.any(list(lesions.values()), axis=0)
    red, green, blue = (slide.image[..., channel].astype(int) for channel in range(3))
    dark = red < 130
    blood = (red > 190) & (green < 105) & (blue < 170)
    assert dark[lesions["quilty"]].mean() > dark[lesions["cell"]].mean() + 0.1
    assert dark[lesions["cell"]].mean() > 3 * dark[healthy].mean()
    assert blood[lesions["amr"]].mean() > 5 * blood[healthy].mean()


@pytest.mark.parametrize("kind", ["cell", "amr"])
def test_high_grade_shows_more_of_it(kind: LesionKind) -> None:
    for seed in range(4):
        areas = []
        for grade in get_args(Grade):
            diagnosis = Diagnosis(cell=kind == "cell", amr=kind == "amr", grade=grade)
            lesions = paint(seed, diagnosis).truth.lesions
            areas.append(sum(filled(lesion.outline).sum() for lesion in lesions))
        assert areas[1] > 1.5 * areas[0]


def test_lesions_are_two_patches_wide_where_there_is_room() -> None:
    slide = paint_slide(np.random.default_rng(1), diagnosis=DIAGNOSES[2], num_fragments=1)
    assert all(np.ptp(lesion.outline, axis=0).min() > 2 * 256 for lesion in slide.truth.lesions)


@pytest.mark.parametrize("mpp", [0.25, 1.0])
def test_cells_keep_their_size_in_um(mpp: float) -> None:
    size_px = (round(1024 * 0.5 / mpp), round(768 * 0.5 / mpp))
    slide = paint_slide(np.random.default_rng(2), size_px=size_px, mpp=mpp, diagnosis=HIGH)
    assert slide.image.shape == (*size_px[::-1], 3)
    widths_um = [np.ptp(lesion.outline, axis=0).max() * mpp for lesion in slide.truth.lesions]
    assert min(widths_um) > 50
    assert max(widths_um) < 520


def test_holes_show_glass() -> None:
    num_holes = 0
    for seed in range(6):
        slide = paint(seed)
        for fragment in slide.truth.tissue:
            num_holes += len(fragment.holes)
            for hole in fragment.holes:
                x, y = hole.mean(axis=0).astype(int)
                assert np.ptp(slide.image[y, x].astype(int)) < 6
    assert num_holes > 0


def test_number_of_fragments_as_asked() -> None:
    for num in range(1, 6):
        slide = paint_slide(np.random.default_rng(num), size_px=SMALL, num_fragments=num)
        assert len(slide.truth.tissue) == num


def test_a_slide_without_room_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"128 x 96 px .* make size_px larger"):
        paint(0, HIGH, (128, 96))


@pytest.mark.parametrize("diagnosis", [{"cell": True}, {"quilty": True, "grade": "low"}])
def test_a_grade_goes_with_rejection_alone(diagnosis: dict[str, bool]) -> None:
    with pytest.raises(ConfigError, match="grade"):
        Diagnosis(**diagnosis)  # type: ignore[arg-type]

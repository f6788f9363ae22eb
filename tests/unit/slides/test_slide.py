import math
from dataclasses import replace

import pytest

from crane_ray.errors import ScaleError, SlideError
from crane_ray.slides.slide import Slide, SlideInfo, scale_of

INFO = SlideInfo(
    "test", ((1000, 700), (500, 350), (62, 43)), (1.0, 2.0, 16.2), mpp_xy=(0.25, 0.2502)
)
SLIDE = Slide("TCGA-1", "/data/TCGA-1.svs")


def test_the_files_own_mpp_is_the_mean_of_both_axes() -> None:
    assert scale_of(SLIDE, INFO) == pytest.approx(0.2501)


def test_the_table_wins_over_the_file() -> None:
    assert scale_of(replace(SLIDE, mpp=0.5), INFO) == 0.5
    assert scale_of(replace(SLIDE, mpp=0.5), replace(INFO, mpp_xy=None)) == 0.5
    assert scale_of(replace(SLIDE, mpp=0.5), replace(INFO, mpp_xy=(0.25, 0.5))) == 0.5
    assert scale_of(replace(SLIDE, mpp=math.nan), INFO) == pytest.approx(0.2501)


def test_magnification_never_stands_in_for_an_mpp() -> None:
    info = replace(INFO, mpp_xy=None, objective_power=40.0)
    with pytest.raises(ScaleError, match="TCGA-1: no mpp in its metadata"):
        scale_of(SLIDE, info)


@pytest.mark.parametrize("mpp_xy", [(0.25, 0.5), (0.5, 0.25), (0.25, 0.263), (math.nan, 0.25)])
def test_pixels_that_are_not_square_have_no_scale(mpp_xy: tuple[float, float]) -> None:
    with pytest.raises(ScaleError, match=r"TCGA-1: pixels of .* um are not square"):
        scale_of(SLIDE, replace(INFO, mpp_xy=mpp_xy))


def test_nearly_square_pixels_will_do() -> None:
    assert scale_of(SLIDE, replace(INFO, mpp_xy=(0.25, 0.262))) == pytest.approx(0.256)


@pytest.mark.parametrize("mpp", [352.86, 0.0, -0.5, 0.0499, 20.01, math.inf])
def test_an_impossible_mpp_is_refused_whoever_says_it(mpp: float) -> None:
    with pytest.raises(ScaleError, match=r"um/px from the slide table is impossible \(0.05 to 20"):
        scale_of(replace(SLIDE, mpp=mpp), INFO)
    if mpp > 0:
        with pytest.raises(ScaleError, match=r"um/px from its metadata is impossible"):
            scale_of(SLIDE, replace(INFO, mpp_xy=(mpp, mpp)))


@pytest.mark.parametrize("mpp", [0.05, 20.0])
def test_the_ends_of_the_range_belong_to_it(mpp: float) -> None:
    assert scale_of(SLIDE, replace(INFO, mpp_xy=(mpp, mpp))) == mpp


@pytest.mark.parametrize("mpp_xy", [None, (352.86, 352.86), (0.2, 0.4)])
def test_every_refusal_says_how_to_go_on(mpp_xy: tuple[float, float] | None) -> None:
    with pytest.raises(SlideError) as caught:
        scale_of(SLIDE, replace(INFO, mpp_xy=mpp_xy))
    for part in ("slide TCGA-1: ", "mpp column of a slide table", "--patch-level"):
        assert part in str(caught.value)


def test_downsamples_are_ratios_of_dimensions_per_axis() -> None:
    assert INFO.downsample_xy(0) == (1.0, 1.0)
    assert INFO.downsample_xy(2) == (1000 / 62, 700 / 43)


@pytest.mark.parametrize(
    ("downsample", "level"), [(1, 0), (1.99, 0), (2, 1), (16.1, 1), (64, 2), (0.5, 0)]
)
def test_the_best_level_is_the_coarsest_not_above(downsample: float, level: int) -> None:
    assert INFO.best_level(downsample) == level

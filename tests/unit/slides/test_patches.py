from fractions import Fraction
from typing import get_args

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crane_ray.errors import ConfigError, ScaleError
from crane_ray.slides.params import ContourRule, TissueParams
from crane_ray.slides.patches import PatchSpec, lattice, patch_geometry, plan_patches
from crane_ray.slides.slide import SlideInfo
from crane_ray.slides.tissue import TissueContour, TissueContours

RULES: tuple[ContourRule, ...] = get_args(ContourRule)
POINT = st.tuples(st.integers(0, 120), st.integers(0, 90))
RING = st.lists(POINT, min_size=3, max_size=10)
HOLE = st.lists(POINT, min_size=3, max_size=6)


def slide_info(width: int, height: int, *downsamples: float) -> SlideInfo:
    """A slide's sizes; lower levels are floored, and their downsample is the mean of both axes."""
    sizes = [(int(width / down), int(height / down)) for down in (1, *downsamples)]
    means = [(width / w + height / h) / 2 for w, h in sizes]
    return SlideInfo("test", tuple(sizes), tuple(means))


def as_tissue(*pieces: tuple[object, list[object]]) -> TissueContours:
    return TissueContours(
        tuple(
            TissueContour(
                np.array(outline, dtype=np.int32),
                tuple(np.array(hole, dtype=np.int32) for hole in holes),
            )
            for outline, holes in pieces
        )
    )


def passes(outline: npt.NDArray[np.int32], x: int, y: int, *, size: int, rule: str) -> bool:
    """CLAM's contour rules, point by point with OpenCV's own test."""

    def inside(px: int, py: int) -> bool:
        return cv2.pointPolygonTest(outline, (px, py), False) >= 0

    centre_x, centre_y = x + size // 2, y + size // 2
    shift = int(size // 2 * 0.5)
    corners = [
        inside(centre_x + right * shift, centre_y + down * shift)
        for right in (-1, 1)
        for down in (-1, 1)
    ]
    return {
        "four_pt": any(corners),
        "four_pt_hard": all(corners),
        "center": inside(centre_x, centre_y),
        "basic": inside(x, y),
    }[rule]


def patch_by_patch(
    tissue: TissueContours, info: SlideInfo, spec: PatchSpec, params: TissueParams
) -> list[tuple[int, int]]:
    """CLAM's method as compatibility notes describe it: loops, and OpenCV for every point."""
    assert spec.level is not None
    (width, height), (level_width, level_height) = (
        info.dimensions,
        info.level_dimensions[spec.level],
    )
    down_x, down_y = int(width / level_width), int(height / level_height)
    read = spec.size_px * spec.custom_downsample
    step = spec.step * spec.custom_downsample
    kept = []
    for contour in tissue.contours:
        left, top, box_width, box_height = cv2.boundingRect(contour.outline)
        for x in range(left, left + box_width, step * down_x):
            for y in range(top, top + box_height, step * down_y):
                sticks_out = x + read * down_x > width or y + read * down_y > height
                if sticks_out and not params.use_padding:
                    continue
                if not passes(contour.outline, x, y, size=read * down_x, rule=params.contour_fn):
                    continue
                middle = (x + read * down_x / 2, y + read * down_x / 2)
                if any(cv2.pointPolygonTest(hole, middle, False) > 0 for hole in contour.holes):
                    continue
                kept.append((x, y))
    return kept


@pytest.mark.parametrize("use_padding", [True, False])
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(
    "spec",
    [
        PatchSpec(level=0, size_px=64),
        PatchSpec(level=0, size_px=64, step_px=48),
        PatchSpec(level=0, size_px=17, step_px=13),
        PatchSpec(level=1, size_px=32, step_px=16),
        PatchSpec(level=2, size_px=24),
        PatchSpec(level=0, size_px=24, custom_downsample=2),
    ],
)
def test_patches_of_a_slide_are_those_of_a_plain_loop(
    painted_tissue: TissueContours,
    painted_info: SlideInfo,
    spec: PatchSpec,
    rule: ContourRule,
    use_padding: bool,
) -> None:
    params = TissueParams(contour_fn=rule, use_padding=use_padding)
    grid = plan_patches(painted_tissue, painted_info, spec, params)
    expected = patch_by_patch(painted_tissue, painted_info, spec, params)
    assert len(expected) > 10
    assert [tuple(row) for row in grid.xy.tolist()] == expected


@settings(deadline=None, max_examples=150)
@given(
    RING,
    st.lists(HOLE, max_size=2),
    st.sampled_from(RULES),
    st.booleans(),
    st.integers(8, 30),
    st.integers(3, 30),
    st.integers(0, 1),
)
def test_patches_of_any_contour_are_those_of_a_plain_loop(
    outline: list[tuple[int, int]],
    holes: list[object],
    rule: ContourRule,
    use_padding: bool,
    size: int,
    step: int,
    level: int,
) -> None:
    tissue = as_tissue((outline, holes), ([[5, 5], [60, 9], [33, 70]], []))
    info = slide_info(121, 91, 2)
    spec = PatchSpec(level=level, size_px=size, step_px=step)
    params = TissueParams(contour_fn=rule, use_padding=use_padding)
    grid = plan_patches(tissue, info, spec, params)
    assert [tuple(row) for row in grid.xy.tolist()] == patch_by_patch(tissue, info, spec, params)


def test_rules_and_padding_make_a_difference_here(
    painted_tissue: TissueContours, painted_info: SlideInfo
) -> None:
    spec = PatchSpec(level=0, size_px=64)
    counts = {
        (rule, pad): len(
            plan_patches(
                painted_tissue, painted_info, spec, TissueParams(contour_fn=rule, use_padding=pad)
            )
        )
        for rule in RULES
        for pad in (True, False)
    }
    assert len(set(counts.values())) >= 6
    without_holes = TissueContours(
        tuple(TissueContour(contour.outline) for contour in painted_tissue.contours)
    )
    filled = plan_patches(without_holes, painted_info, spec, TissueParams())
    assert len(filled) > counts["four_pt", True]


def test_a_patch_goes_only_when_its_centre_is_strictly_inside_a_hole() -> None:
    square = [[0, 0], [100, 0], [100, 100], [0, 100]]
    spec = PatchSpec(level=0, size_px=20, step_px=1000)
    info = slide_info(200, 200)

    def num_patches(hole: list[list[int]]) -> int:
        return len(plan_patches(as_tissue((square, [hole])), info, spec, TissueParams()))

    assert num_patches([[10, 5], [30, 5], [30, 30], [10, 30]]) == 1
    assert num_patches([[9, 5], [30, 5], [30, 30], [9, 30]]) == 0


def test_the_centre_of_a_patch_of_odd_width_is_half_a_pixel_on() -> None:
    square = [[0, 0], [100, 0], [100, 100], [0, 100]]
    spec = PatchSpec(level=0, size_px=21, step_px=1000)
    info = slide_info(200, 200)
    hole = [[10, 5], [30, 5], [30, 30], [10, 30]]  # its edge at 10, the centre at 10.5
    assert not len(plan_patches(as_tissue((square, [hole])), info, spec, TissueParams()))


def test_contours_keep_their_order_and_may_share_patches() -> None:
    square = [[0, 0], [40, 0], [40, 40], [0, 40]]
    tissue = as_tissue(([[100, 100], [140, 100], [140, 140]], []), (square, []), (square, []))
    spec = PatchSpec(level=0, size_px=32)
    grid = plan_patches(tissue, slide_info(400, 400), spec, TissueParams(contour_fn="basic"))
    first, *rest = grid.xy.tolist()
    assert first == [100, 100]
    assert rest[-4:] == rest[-8:-4] == [[0, 0], [0, 32], [32, 0], [32, 32]]


def test_no_tissue_gives_no_patches_of_the_right_shape() -> None:
    grid = plan_patches(TissueContours(), slide_info(64, 64), PatchSpec(level=0), TissueParams())
    assert grid.xy.shape == (0, 2)
    assert grid.xy.dtype == np.int64


@settings(deadline=None, max_examples=100)
@given(
    RING,
    st.floats(0.2, 0.6),
    st.integers(8, 40),
    st.integers(1, 40),
    st.booleans(),
)
def test_origins_lie_on_their_lattice_and_steps_do_not_drift(
    outline: list[tuple[int, int]], mpp: float, size: int, step: int, use_padding: bool
) -> None:
    info = slide_info(121, 91)
    spec = PatchSpec(mpp=0.6, size_px=size, step_px=step, mpp_tolerance=0)
    geometry = patch_geometry(spec, info, mpp)
    ring = np.array(outline, dtype=np.int32)
    corners = lattice(ring, geometry, None if use_padding else info.dimensions)
    exact = Fraction(geometry.step_xy[0])
    for axis in (0, 1):
        start, end = int(ring[:, axis].min()), int(ring[:, axis].max()) + 1
        places = sorted(set(corners[:, axis].tolist()))
        for index, place in enumerate(places):
            assert abs(place - (start + index * exact)) <= Fraction(1, 2) + Fraction(1, 10**9)
            assert start <= place < end
        if use_padding:
            assert start + len(places) * exact + Fraction(1, 2) >= end
        else:
            assert all(
                place + geometry.footprint_xy[axis] <= info.dimensions[axis] for place in places
            )
    order = [tuple(row) for row in corners.tolist()]
    assert order == sorted(order)


def test_a_fractional_step_is_as_true_at_the_far_end_of_a_slide_as_at_its_start() -> None:
    info = slide_info(200_000, 100)
    geometry = patch_geometry(PatchSpec(mpp=0.5, size_px=224), info, 0.2325)
    ring = np.array([[3, 0], [199_999, 0], [199_999, 99], [3, 99]], dtype=np.int32)
    x = np.unique(lattice(ring, geometry, None)[:, 0])
    step = Fraction(0.5) / Fraction(0.2325) * 224
    assert step.denominator > 1
    assert abs(int(x[-1]) - (3 + (len(x) - 1) * step)) <= Fraction(1, 2) + Fraction(1, 1000)
    assert len(x) == int((199_999 - 3 + Fraction(1, 2)) / step) + 1


def test_without_padding_no_patch_sticks_out_by_a_fraction() -> None:
    info = slide_info(100, 100)
    spec = PatchSpec(mpp=0.5, size_px=50, mpp_tolerance=0)
    rule = TissueParams(use_padding=False, contour_fn="basic")
    tissue = as_tissue(([[0, 0], [99, 0], [99, 99], [0, 99]], []))
    assert len(plan_patches(tissue, info, spec, rule, 0.25)) == 1
    assert not len(plan_patches(tissue, info, spec, rule, 0.2499))
    # A lone patch of 100.3 px, 0.3 px wider than its slide.
    assert not len(plan_patches(tissue, info, spec.model_copy(update={"mpp": 0.50150}), rule, 0.25))


@settings(deadline=None, max_examples=200)
@given(
    st.floats(0.1, 1.2),
    st.floats(0.1, 8.0),
    st.integers(32, 512),
    st.sampled_from([0.0, 0.02, 0.05, 0.2]),
    st.lists(st.sampled_from([2, 3.9, 4, 4.1, 8, 16, 32.04]), unique=True, max_size=4).map(sorted),
)
def test_a_patch_shows_what_is_asked_for_and_is_never_enlarged(
    mpp: float, target: float, size: int, tolerance: float, downsamples: list[float]
) -> None:
    info = slide_info(40_000, 40_000, *downsamples)
    spec = PatchSpec(mpp=target, size_px=size, mpp_tolerance=tolerance)
    if target < mpp * (1 - tolerance) * 0.999:
        with pytest.raises(ScaleError, match="never enlarged"):
            patch_geometry(spec, info, mpp)
        return
    try:
        geometry = patch_geometry(spec, info, mpp)
    except ScaleError:
        assert target < mpp
        return
    own = info.level_downsamples[geometry.read_level]
    (footprint, footprint_y), (step, _) = geometry.footprint_xy, geometry.step_xy
    assert footprint == footprint_y == step
    assert abs(footprint * mpp / (size * target) - 1) <= tolerance + 1e-9
    assert geometry.read_size_px >= size
    assert abs(geometry.read_size_px * own - footprint) <= own / 2 + 1e-6
    if geometry.read_size_px != size:
        finer_than_needed = [down for down in info.level_downsamples if down <= target / mpp]
        assert own == max(finer_than_needed), "the level with the least to read"


@pytest.mark.parametrize("target", [0.25, 0.5, 0.7, 1.0, 2.0])
def test_patches_are_the_same_however_many_levels_a_slide_has(
    painted_tissue: TissueContours, target: float
) -> None:
    spec = PatchSpec(mpp=target, size_px=32)
    infos = [slide_info(1024, 768, *downs) for downs in [(), (2,), (2, 4), (4,), (2, 4, 8)]]
    grids = [plan_patches(painted_tissue, info, spec, TissueParams(), 0.25) for info in infos]
    assert len(grids[0]) > 3
    for grid in grids[1:]:
        np.testing.assert_array_equal(grid.xy, grids[0].xy)
        assert grid.geometry.footprint_xy == grids[0].geometry.footprint_xy
        assert grid.geometry.step_xy == grids[0].geometry.step_xy


def test_level_mode_truncates_downsamples_and_mpp_mode_does_not() -> None:
    info = slide_info(1030, 1030, 32.04)
    by_level = patch_geometry(PatchSpec(level=1, size_px=10), info, None)
    assert by_level.footprint_xy == (320, 320)
    by_mpp = patch_geometry(PatchSpec(mpp=8.0, size_px=10), info, 0.25)
    assert by_mpp.read_level == 1
    assert by_mpp.footprint_xy[0] == pytest.approx(10 * info.level_downsamples[1])
    assert by_mpp.footprint_xy[0] != 320


def test_custom_downsample_reads_twice_the_size_and_steps_twice_as_far() -> None:
    spec = PatchSpec(level=1, size_px=64, step_px=32, custom_downsample=2)
    geometry = patch_geometry(spec, slide_info(1024, 1024, 4), None)
    assert geometry.read_size_px == 128
    assert geometry.footprint_xy == (512, 512)
    assert geometry.step_xy == (256, 256)


def test_a_level_that_is_not_there_is_named_with_those_that_are() -> None:
    spec = PatchSpec(level=3)
    with pytest.raises(ScaleError, match=r"--patch-level 3 .*levels 0 to 1; .*--mpp"):
        patch_geometry(spec, slide_info(1024, 1024, 4), None)
    with pytest.raises(ScaleError, match=r"--patch-level 3 .*level 0 alone"):
        patch_geometry(spec, slide_info(1024, 1024), None)


def test_a_slide_coarser_than_asked_for_is_refused_with_what_would_do() -> None:
    with pytest.raises(ScaleError) as caught:
        patch_geometry(PatchSpec(mpp=0.25), slide_info(1024, 1024, 4), 0.499)
    message = str(caught.value)
    for part in ("0.499 um/px", "0.25 um/px", "--mpp 0.5", "--patch-level 0"):
        assert part in message


def test_a_patch_has_one_scale() -> None:
    assert PatchSpec(level=1).mpp is None
    assert PatchSpec().mpp == 0.5
    with pytest.raises(ConfigError, match=r"--mpp.*--patch-level.*mpp 0.5 and level 0"):
        PatchSpec.load(overrides=[("mpp", 0.5), ("level", 0)])
    with pytest.raises(ConfigError, match=r"got mpp None and level None"):
        PatchSpec.load(overrides=[("mpp", None)])
    with pytest.raises(ConfigError, match=r"custom_downsample goes with --patch-level"):
        PatchSpec.load(overrides=[("custom_downsample", 2)])


def test_a_checksum_changes_with_the_corners_their_order_and_how_they_are_read() -> None:
    tissue = as_tissue(([[0, 0], [90, 0], [90, 90], [0, 90]], []))
    info = slide_info(400, 400, 2)
    base = plan_patches(tissue, info, PatchSpec(level=0, size_px=32), TissueParams())
    again = plan_patches(tissue, info, PatchSpec(level=0, size_px=32), TissueParams())
    assert base.checksum() == again.checksum()
    others = [
        plan_patches(tissue, info, PatchSpec(level=0, size_px=33, step_px=32), TissueParams()),
        plan_patches(tissue, info, PatchSpec(level=1, size_px=32, step_px=16), TissueParams()),
        type(base)("", base.spec, base.geometry, base.xy[::-1]),
        type(base)("", base.spec, base.geometry, base.xy[:-1]),
    ]
    assert len({base.checksum(), *(other.checksum() for other in others)}) == 5

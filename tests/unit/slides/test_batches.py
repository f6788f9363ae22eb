from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crane_ray.errors import SlideError
from crane_ray.slides import batches
from crane_ray.slides.batches import fill_patches, read_patch, reading_order
from crane_ray.slides.opening import open_slide
from crane_ray.slides.params import TissueParams
from crane_ray.slides.patches import PatchGeometry, PatchGrid, PatchSpec, plan_patches
from crane_ray.slides.slide import RegionsReader, Slide, SlideReader
from crane_ray.slides.tissue import TissueContours
from crane_ray.testing import faults
from crane_ray.testing.pyramids import write_pyramid

Image = npt.NDArray[np.uint8]


@pytest.fixture(scope="module", params=["openslide", "tiff"])
def reader(slide_path: Path, request: pytest.FixtureRequest) -> Iterator[SlideReader]:
    """One that reads a region at a time, and one that fills many at once."""
    with open_slide(Slide("painted", str(slide_path)), request.param) as reader:
        assert isinstance(reader, RegionsReader) == (request.param == "tiff")
        yield reader


def grid_of(reader: SlideReader, tissue: TissueContours, spec: PatchSpec) -> PatchGrid:
    return plan_patches(tissue, reader.info, spec, TissueParams(), 0.5)


def test_a_patch_of_level_0_is_its_pixels_black_off_the_slide(
    reader: SlideReader, painted_tissue: TissueContours, tissue_image: Image
) -> None:
    grid = grid_of(reader, painted_tissue, PatchSpec(level=0, size_px=100))
    padded = np.pad(tissue_image, ((0, 100), (0, 100), (0, 0)))
    assert any(x + 100 > 1024 for x, _ in grid.xy.tolist()), "some patches reach over the edge"
    for row, (x, y) in enumerate(grid.xy.tolist()):
        np.testing.assert_array_equal(
            read_patch(reader, grid, row), padded[y : y + 100, x : x + 100]
        )


def test_a_patch_between_levels_is_shrunk_by_area(
    reader: SlideReader, painted_tissue: TissueContours, tissue_image: Image
) -> None:
    grid = grid_of(reader, painted_tissue, PatchSpec(mpp=0.75, size_px=64))
    assert (grid.geometry.read_level, grid.geometry.read_size_px) == (0, 96)
    x, y = grid.xy[3].tolist()
    shrunk = cv2.resize(
        tissue_image[y : y + 96, x : x + 96], (64, 64), interpolation=cv2.INTER_AREA
    )
    np.testing.assert_array_equal(read_patch(reader, grid, 3), shrunk)


def test_a_patch_shows_the_same_tissue_whatever_it_is_read_from(
    reader: SlideReader, painted_tissue: TissueContours
) -> None:
    by_mpp = grid_of(reader, painted_tissue, PatchSpec(mpp=1.0, size_px=64))
    by_level = grid_of(reader, painted_tissue, PatchSpec(level=1, size_px=64))
    assert by_mpp.geometry.read_level == 1
    np.testing.assert_array_equal(read_patch(reader, by_mpp, 5), read_patch(reader, by_level, 5))
    twice = grid_of(reader, painted_tissue, PatchSpec(level=0, size_px=64, custom_downsample=2))
    np.testing.assert_array_equal(twice.xy, by_level.xy)
    difference = read_patch(reader, twice, 5).astype(int) - read_patch(reader, by_level, 5)
    assert np.abs(difference).max() <= 1


@pytest.mark.parametrize(
    "spec",
    [
        PatchSpec(level=0, size_px=48),
        PatchSpec(level=1, size_px=33),
        PatchSpec(mpp=0.75, size_px=64),
        PatchSpec(level=0, size_px=32, custom_downsample=3),
    ],
    ids=["level 0", "level 1", "resampled", "custom downsample"],
)
@pytest.mark.parametrize("scratch_bytes", [1, 3 * 96 * 96 * 3, 2**30])
def test_many_patches_are_filled_as_each_is_read(
    reader: SlideReader,
    painted_tissue: TissueContours,
    spec: PatchSpec,
    scratch_bytes: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    grid = grid_of(reader, painted_tissue, spec)
    rows = np.random.default_rng(2).permutation(len(grid))[:11]
    expected = np.stack([read_patch(reader, grid, row) for row in rows])
    assert expected.std() > 10
    monkeypatch.setattr(batches, "SCRATCH_BYTES", scratch_bytes)
    memory = np.full((13, spec.size_px, spec.size_px, 3), 77, dtype=np.uint8)
    fill_patches(reader, grid, rows, memory[1:12])
    np.testing.assert_array_equal(memory[1:12], expected)
    assert (memory[[0, 12]] == 77).all(), "nothing is written beside the rows"


def test_scratch_memory_is_bounded(
    slide_path: Path, painted_tissue: TissueContours, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = list[int]()

    with open_slide(Slide("painted", str(slide_path)), "tiff") as reader:
        read_regions = reader.read_regions  # type: ignore[attr-defined]

        def watched(xy: npt.NDArray[np.int64], level: int, out: Image) -> None:
            assert out.flags.c_contiguous
            held.append(out.nbytes)
            read_regions(xy, level, out)

        monkeypatch.setattr(reader, "read_regions", watched)
        monkeypatch.setattr(batches, "SCRATCH_BYTES", 4 * 96 * 96 * 3)
        grid = grid_of(reader, painted_tissue, PatchSpec(mpp=0.75, size_px=64))
        fill_patches(reader, grid, np.arange(10), np.empty((10, 64, 64, 3), dtype=np.uint8))
    assert [size // (96 * 96 * 3) for size in held] == [4, 4, 2]


def test_no_rows_are_no_work(reader: SlideReader, painted_tissue: TissueContours) -> None:
    grid = grid_of(reader, painted_tissue, PatchSpec(level=0, size_px=48))
    fill_patches(reader, grid, np.empty(0, np.int64), np.empty((0, 48, 48, 3), dtype=np.uint8))


@pytest.mark.parametrize("name", ["openslide", "tiff"])
def test_a_patch_that_cannot_be_decoded_is_an_error_that_says_where(
    tmp_path: Path, tissue_image: Image, name: str
) -> None:
    path = write_pyramid(tmp_path / "slide.tif", tissue_image, mpp=0.5)
    faults.remove_tiles(path, tiles=[2])
    with open_slide(Slide("a", str(path)), name) as reader:
        spec = PatchSpec(level=0, size_px=256)
        xy = np.array([[0, 0], [256, 0], [512, 0], [0, 256]])
        geometry = plan_patches(TissueContours(), reader.info, spec, TissueParams()).geometry
        grid = PatchGrid("a", spec, geometry, xy)
        out = np.empty((2, 256, 256, 3), dtype=np.uint8)
        with pytest.raises(SlideError, match=r"slide\.tif: .*level 0 near \(512, 0\)"):
            fill_patches(reader, grid, np.array([1, 2]), out)


def lattice(
    columns: int, rows: int, step: float, offset: tuple[int, int] = (0, 0), size_px: int = 256
) -> PatchGrid:
    """Patches column by column, as they are planned."""
    x, y = np.meshgrid(np.arange(columns), np.arange(rows), indexing="ij")
    places = np.stack([x.ravel(), y.ravel()], axis=1) * step
    xy = np.floor(places + 0.5).astype(np.int64) + offset
    geometry = PatchGeometry(0, size_px, (size_px, size_px), (step, step))
    return PatchGrid("a", PatchSpec(size_px=size_px, level=0), geometry, xy)


@st.composite
def grids(draw: st.DrawFn) -> PatchGrid:
    step = draw(st.floats(1, 3000))
    offset = draw(st.tuples(st.integers(-5000, 5000), st.integers(-5000, 5000)))
    grid = lattice(draw(st.integers(1, 30)), draw(st.integers(1, 30)), step, offset)
    kept = draw(st.lists(st.integers(0, len(grid) - 1), min_size=1, max_size=200))
    return PatchGrid("a", grid.spec, grid.geometry, grid.xy[kept])


@settings(deadline=None)
@given(grid=grids(), data=st.data())
def test_the_reading_order_has_every_row_once(grid: PatchGrid, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(grid)))
    rows = range(start, data.draw(st.integers(start, len(grid))))
    order = reading_order(grid, rows)
    assert sorted(order.tolist()) == list(rows)
    np.testing.assert_array_equal(order, reading_order(grid, rows))


@settings(deadline=None)
@given(grid=grids(), data=st.data())
def test_rows_are_read_in_the_same_order_whatever_their_shard(
    grid: PatchGrid, data: st.DataObject
) -> None:
    start = data.draw(st.integers(0, len(grid)))
    rows = range(start, data.draw(st.integers(start, len(grid))))
    whole = reading_order(grid, range(len(grid))).tolist()
    assert reading_order(grid, rows).tolist() == [row for row in whole if row in rows]


def tiles_of_runs(grid: PatchGrid, order: npt.NDArray[np.int64], tile_px: int, run: int) -> float:
    """Mean number of distinct tiles that a run of patches touches."""
    counts = []
    for first in range(0, len(order) - run + 1, run):
        xy = grid.xy[order[first : first + run]]
        low, high = xy // tile_px, (xy + grid.spec.size_px - 1) // tile_px
        counts.append(
            len(
                {
                    (column, row)
                    for (x0, y0), (x1, y1) in zip(low.tolist(), high.tolist(), strict=True)
                    for column in range(x0, x1 + 1)
                    for row in range(y0, y1 + 1)
                }
            )
        )
    return float(np.mean(counts))


@pytest.mark.parametrize(
    ("step", "offset"),
    [(256.0, (100, 37)), (256.0, (-411, 3000)), (253.7, (0, 0)), (128.0, (10, 10))],
    ids=["unaligned", "unaligned, elsewhere", "fractional", "overlapping"],
)
def test_neighbours_are_read_together(step: float, offset: tuple[int, int]) -> None:
    grid = lattice(40, 100, step, offset)
    in_columns = np.arange(len(grid))
    found = reading_order(grid, range(len(grid)))
    for run, gain in ((32, 0.8), (64, 0.7)):
        before = tiles_of_runs(grid, in_columns, 256, run)
        assert tiles_of_runs(grid, found, 256, run) < gain * before


def test_in_a_narrow_run_neighbours_are_never_far_apart() -> None:
    """What a cache must hold does not grow with a run's columns, which are as high as the slide."""
    columns, rows = 12, 400
    grid = lattice(columns, rows, 256, (100, 37))
    place = np.argsort(reading_order(grid, range(len(grid)))).reshape(columns, rows)
    for axis in (0, 1):
        assert np.abs(np.diff(place, axis=axis)).max() <= columns * (batches.CELL_STEPS + 1)


def test_a_square_of_patches_needs_the_tiles_that_the_constant_promises() -> None:
    grid = lattice(64, 64, 256, (100, 100))
    columns = tiles_of_runs(grid, np.arange(len(grid)), 256, 64)
    squares = tiles_of_runs(grid, reading_order(grid, range(len(grid))), 256, 64)
    assert columns == 130
    assert squares == 81

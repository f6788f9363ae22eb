import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Self

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from crane_ray.errors import SlideError
from crane_ray.slides.batches import read_batches, read_patch
from crane_ray.slides.opening import open_slide
from crane_ray.slides.params import TissueParams
from crane_ray.slides.patches import PatchGrid, PatchSpec, plan_patches
from crane_ray.slides.slide import Slide, SlideReader
from crane_ray.slides.tissue import TissueContours
from crane_ray.testing import faults
from crane_ray.testing.pyramids import write_pyramid

Image = npt.NDArray[np.uint8]


@pytest.fixture(scope="module")
def reader(slide_path: Path) -> Iterator[SlideReader]:
    with open_slide(Slide("painted", str(slide_path))) as reader:
        yield reader


@pytest.fixture(scope="module")
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(3) as pool:
        yield pool


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


@pytest.mark.parametrize("batch_size", [1, 4, 7, 1000])
@pytest.mark.parametrize("ahead", [0, 1, 3])
def test_batches_are_the_patches_in_their_order(
    reader: SlideReader,
    painted_tissue: TissueContours,
    pool: ThreadPoolExecutor,
    batch_size: int,
    ahead: int,
) -> None:
    grid = grid_of(reader, painted_tissue, PatchSpec(level=0, size_px=48))
    rows = range(3, 24)
    batches = list(read_batches(reader, grid, rows, batch_size, pool=pool, ahead=ahead))
    assert [batch.start for batch in batches] == list(rows[::batch_size])
    assert all(len(batch) == batch_size for batch in batches[:-1])
    pixels = np.concatenate([batch.pixels for batch in batches])
    expected = np.stack([read_patch(reader, grid, row) for row in rows])
    np.testing.assert_array_equal(pixels, expected)


def test_no_rows_give_no_batches(
    reader: SlideReader, painted_tissue: TissueContours, pool: ThreadPoolExecutor
) -> None:
    grid = grid_of(reader, painted_tissue, PatchSpec(level=0, size_px=48))
    assert not list(read_batches(reader, grid, range(5, 5), 4, pool=pool))


class Counting:
    """Counts the patches that are being read or were read through another reader."""

    name = "counting"

    def __init__(self, reader: SlideReader) -> None:
        self.info = reader.info
        self.begun = 0
        self.running = 0
        self._reader = reader
        self._lock = threading.Lock()

    def read_region(self, xy: tuple[int, int], level: int, size: tuple[int, int]) -> Image:
        with self._lock:
            self.begun += 1
            self.running += 1
        try:
            return self._reader.read_region(xy, level, size)
        finally:
            with self._lock:
                self.running -= 1

    def close(self) -> None: ...

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None: ...


@pytest.mark.parametrize("ahead", [0, 2])
def test_decoding_runs_only_so_far_ahead(
    reader: SlideReader, painted_tissue: TissueContours, ahead: int
) -> None:
    grid = grid_of(reader, painted_tissue, PatchSpec(level=0, size_px=32))
    counting = Counting(reader)
    with ThreadPoolExecutor(1) as pool:
        batches = read_batches(counting, grid, range(40), 4, pool=pool, ahead=ahead)
        assert counting.begun == 0, "nothing before it is asked for"
        next(batches)
        pool.submit(lambda: None).result()  # the pool has done all that it was given
        assert counting.begun == 4 * (ahead + 1)
        batches.close()


def test_nothing_decodes_any_more_once_the_batches_are_given_up(
    reader: SlideReader, painted_tissue: TissueContours
) -> None:
    grid = grid_of(reader, painted_tissue, PatchSpec(level=0, size_px=32))
    counting = Counting(reader)
    with ThreadPoolExecutor(2) as pool:
        batches = read_batches(counting, grid, range(60), 4, pool=pool, ahead=9)
        next(batches)
        batches.close()
        assert counting.running == 0
        begun = counting.begun
        pool.submit(lambda: None).result()
        assert counting.begun == begun


def test_a_patch_that_cannot_be_decoded_is_an_error_after_the_batches_before_it(
    tmp_path: Path, tissue_image: Image, pool: ThreadPoolExecutor
) -> None:
    path = write_pyramid(tmp_path / "slide.tif", tissue_image, mpp=0.5)
    faults.remove_tiles(path, tiles=[2])
    with open_slide(Slide("a", str(path))) as reader:
        spec = PatchSpec(level=0, size_px=256)
        xy = np.array([[0, 0], [256, 0], [512, 0], [0, 256]])
        geometry = plan_patches(TissueContours(), reader.info, spec, TissueParams()).geometry
        batches = read_batches(reader, PatchGrid("a", spec, geometry, xy), range(4), 1, pool=pool)
        assert [next(batches).start, next(batches).start] == [0, 1]
        with pytest.raises(SlideError, match=r"slide\.tif: tiles at level 0 near \(512, 0\)"):
            next(batches)


def test_an_error_in_a_batch_waits_for_the_rest_of_that_batch(
    reader: SlideReader, painted_tissue: TissueContours
) -> None:
    """The caller closes the slide next; a decode still running then takes the process down."""
    grid = grid_of(reader, painted_tissue, PatchSpec(level=0, size_px=32))

    class FirstBreaks(Counting):
        def read_region(
            self, xy: tuple[int, int], level: int, size: tuple[int, int]
        ) -> npt.NDArray[np.uint8]:
            if xy == tuple(grid.xy[0].tolist()):
                raise SlideError("a broken tile")
            with self._lock:
                self.running += 1
            try:
                time.sleep(0.05)
                return super().read_region(xy, level, size)
            finally:
                with self._lock:
                    self.running -= 1

    breaking = FirstBreaks(reader)
    with ThreadPoolExecutor(4) as pool:
        with pytest.raises(SlideError, match="a broken tile"):
            next(read_batches(breaking, grid, range(16), 8, pool=pool, ahead=0))
        assert breaking.running == 0
        begun = breaking.begun
        pool.submit(lambda: None).result()
        assert breaking.begun == begun

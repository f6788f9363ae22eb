from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import openslide
import pytest

from crane_ray.errors import ConfigError
from crane_ray.testing import faults
from crane_ray.testing.pyramids import write_pyramid

SIZE = (1024, 768)
LAST_TILE = 11


@pytest.fixture
def path(tmp_path: Path) -> Path:
    noise = np.random.default_rng(0).integers(60, 250, size=(48, 64, 3), dtype=np.uint8)
    image = noise.repeat(16, axis=0).repeat(16, axis=1)
    return write_pyramid(tmp_path / "slide.tif", image, mpp=0.5)


def read(path: Path, *, level: int = 0, tile: int | None = None) -> npt.NDArray[np.uint8]:
    """RGBA of a level or of one level-0 tile, through a fresh handle."""
    with openslide.OpenSlide(str(path)) as slide:
        xy, size = (0, 0), slide.level_dimensions[level]
        if tile is not None:
            xy, size = ((tile % 4) * 256, (tile // 4) * 256), (256, 256)
        return np.asarray(slide.read_region(xy, level, size))


@pytest.mark.parametrize("keep_fraction", [0.0, 0.01, 0.3, 0.7, 0.95, 0.999])
def test_a_truncated_file_does_not_open(path: Path, keep_fraction: float) -> None:
    faults.truncate_file(path, keep_fraction)
    with pytest.raises((openslide.OpenSlideError, openslide.OpenSlideUnsupportedFormatError)):
        openslide.OpenSlide(str(path))


@pytest.mark.parametrize("damage", [faults.corrupt_tiles, faults.cut_tiles])
def test_openslide_raises_for_a_damaged_tile(path: Path, damage: Callable[..., None]) -> None:
    lower = read(path, level=1)
    damage(path)
    for tile in (0, 5, LAST_TILE):
        with pytest.raises(openslide.OpenSlideError, match="JPEG"):
            read(path, tile=tile)
    np.testing.assert_array_equal(read(path, level=1), lower)


@pytest.mark.parametrize("keep_fraction", [0.0, 0.1, 0.5, 0.9])
def test_openslide_raises_wherever_a_tile_is_cut(path: Path, keep_fraction: float) -> None:
    faults.cut_tiles(path, keep_fraction=keep_fraction)
    with pytest.raises(openslide.OpenSlideError, match="JPEG"):
        read(path, tile=3)


@pytest.mark.parametrize("damage", [faults.corrupt_tiles, faults.cut_tiles, faults.remove_tiles])
def test_other_tiles_stay_as_they_were(path: Path, damage: Callable[..., None]) -> None:
    before = [read(path, tile=tile) for tile in (0, 4, LAST_TILE)]
    damage(path, tiles=[5])
    for tile, pixels in zip((0, 4, LAST_TILE), before, strict=True):
        np.testing.assert_array_equal(read(path, tile=tile), pixels)


def test_openslide_repeats_a_handles_first_error(path: Path) -> None:
    faults.corrupt_tiles(path, tiles=[5])
    with openslide.OpenSlide(str(path)) as slide:
        slide.read_region((0, 0), 0, (256, 256))
        with pytest.raises(openslide.OpenSlideError):
            slide.read_region((256, 256), 0, (256, 256))
        with pytest.raises(openslide.OpenSlideError):
            slide.read_region((0, 0), 0, (256, 256))


def test_openslide_reads_removed_tiles_as_transparent_black_without_an_error(path: Path) -> None:
    faults.remove_tiles(path, tiles=[5])
    assert not read(path, tile=5).any()
    assert read(path, tile=0)[..., 3].min() == 255


def test_a_lower_level_can_be_damaged_alone(path: Path) -> None:
    faults.corrupt_tiles(path, level=1)
    assert read(path)[..., 3].min() == 255
    with pytest.raises(openslide.OpenSlideError):
        read(path, level=1)


def test_noise_is_reproducible(path: Path) -> None:
    whole = path.read_bytes()
    faults.corrupt_tiles(path)
    once = path.read_bytes()
    path.write_bytes(whole)
    faults.corrupt_tiles(path)
    assert path.read_bytes() == once != whole


def test_levels_tiles_and_fractions_that_are_not_there_are_refused(path: Path) -> None:
    whole = path.read_bytes()
    with pytest.raises(ConfigError, match="level 3"):
        faults.corrupt_tiles(path, level=3)
    with pytest.raises(ConfigError, match="0 to 11"):
        faults.remove_tiles(path, tiles=[12])
    with pytest.raises(ConfigError, match="keep_fraction"):
        faults.truncate_file(path, 1.0)
    assert path.read_bytes() == whole

from pathlib import Path

import numpy as np
import numpy.typing as npt
import openslide
import pytest
import tifffile

from crane_ray.errors import ConfigError
from crane_ray.testing.pyramids import Compression, is_whole_pyramid, write_pyramid

WIDTH, HEIGHT = 1030, 707


@pytest.fixture(scope="module")
def image() -> npt.NDArray[np.uint8]:
    x = np.linspace(0, 255, WIDTH)[None]
    y = np.linspace(0, 255, HEIGHT)[:, None]
    planes = [x + 0 * y, y + 0 * x, (x + y) / 2]
    return np.stack(planes, axis=-1).astype(np.uint8)


def test_openslide_opens_it_with_its_levels(tmp_path: Path, image: npt.NDArray[np.uint8]) -> None:
    path = write_pyramid(tmp_path / "a.tif", image, mpp=0.2525)
    with openslide.OpenSlide(str(path)) as slide:
        assert slide.properties["openslide.vendor"] == "generic-tiff"
        assert slide.level_dimensions == ((1030, 707), (515, 353), (257, 176))
        assert float(slide.properties["openslide.mpp-x"]) == pytest.approx(0.2525, rel=1e-6)
        assert float(slide.properties["openslide.mpp-y"]) == pytest.approx(0.2525, rel=1e-6)
        assert slide.properties["openslide.level[0].tile-width"] == "256"


def test_without_mpp_openslide_knows_none(tmp_path: Path, image: npt.NDArray[np.uint8]) -> None:
    path = write_pyramid(tmp_path / "a.tif", image, mpp=None)
    with openslide.OpenSlide(str(path)) as slide:
        assert "openslide.mpp-x" not in slide.properties
        assert "openslide.mpp-y" not in slide.properties


@pytest.mark.parametrize("compression", ["jpeg", "deflate", "none"])
def test_pixels_come_back_up_to_the_far_edges(
    tmp_path: Path, image: npt.NDArray[np.uint8], compression: Compression
) -> None:
    path = write_pyramid(tmp_path / "a.tif", image, mpp=0.5, compression=compression, quality=95)
    with openslide.OpenSlide(str(path)) as slide:
        read = np.asarray(slide.read_region((0, 0), 0, (WIDTH, HEIGHT)).convert("RGB"))
        half = np.asarray(slide.read_region((0, 0), 1, (515, 353)).convert("RGB"))
    difference = np.abs(read.astype(int) - image)
    assert difference.max() <= (0 if compression != "jpeg" else 8)
    assert np.abs(half.astype(int) - image[:706:2, ::2]).max() <= 8


def test_jpeg_chroma_is_subsampled_and_levels_are_reduced_images(
    tmp_path: Path, image: npt.NDArray[np.uint8]
) -> None:
    path = write_pyramid(tmp_path / "a.tif", image, mpp=0.5)
    with tifffile.TiffFile(path) as tiff:
        assert [page.subfiletype for page in tiff.pages] == [0, 1, 1]
        assert tiff.pages[0].tags["YCbCrSubSampling"].value == (2, 2)
        assert {page.compression.name for page in tiff.pages} == {"JPEG"}


def test_same_image_same_bytes(tmp_path: Path, image: npt.NDArray[np.uint8]) -> None:
    one = write_pyramid(tmp_path / "a.tif", image, mpp=0.5)
    two = write_pyramid(tmp_path / "b.tif", image, mpp=0.5)
    assert one.read_bytes() == two.read_bytes()


@pytest.mark.parametrize(("num_levels", "tile_px"), [(1, 256), (2, 512), (9, 64)])
def test_levels_and_tiles_as_asked(
    tmp_path: Path, image: npt.NDArray[np.uint8], num_levels: int, tile_px: int
) -> None:
    path = write_pyramid(tmp_path / "a.tif", image, mpp=0.5, num_levels=num_levels, tile_px=tile_px)
    with openslide.OpenSlide(str(path)) as slide:
        assert slide.level_count == num_levels
        assert slide.properties["openslide.level[0].tile-height"] == str(tile_px)


@pytest.mark.parametrize("shape", [(8, 8), (8, 8, 4), (0, 8, 3)])
def test_what_is_no_rgb_image_is_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match=r"px image|RGB"):
        write_pyramid(tmp_path / "a.tif", np.zeros(shape, np.uint8), mpp=0.5)
    assert not list(tmp_path.iterdir())


def test_too_many_levels_are_refused(tmp_path: Path, image: npt.NDArray[np.uint8]) -> None:
    with pytest.raises(ConfigError, match="11 levels of a 1030 x 707"):
        write_pyramid(tmp_path / "a.tif", image, mpp=0.5, num_levels=11)


def test_nothing_is_left_of_a_write_that_fails(
    tmp_path: Path, image: npt.NDArray[np.uint8]
) -> None:
    with pytest.raises(ValueError, match="tile"):
        write_pyramid(tmp_path / "a.tif", image, mpp=0.5, tile_px=100)
    assert not list(tmp_path.iterdir())


def test_whole_means_every_tile_lies_in_the_file(
    tmp_path: Path, image: npt.NDArray[np.uint8]
) -> None:
    path = write_pyramid(tmp_path / "a.tif", image, mpp=0.5)
    assert is_whole_pyramid(path, (WIDTH, HEIGHT))
    assert not is_whole_pyramid(path, (WIDTH, HEIGHT + 1))
    assert not is_whole_pyramid(tmp_path / "missing.tif", (WIDTH, HEIGHT))
    whole = path.read_bytes()
    for keep in (0, 4, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:keep])
        assert not is_whole_pyramid(path, (WIDTH, HEIGHT)), keep

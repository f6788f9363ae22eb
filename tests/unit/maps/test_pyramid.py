"""Pyramids of maps as OpenSlide sees them: levels, resolution, pixels."""

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import openslide
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from crane_ray.maps import pyramid
from crane_ray.maps.pyramid import TILE_PX, level_sizes, write_pyramid
from crane_ray.testing.pyramids import is_whole_pyramid
from tests.unit.maps.slides import Image, opened


def smooth(width: int, height: int) -> Image:
    """Greys that JPEG keeps within a few steps; it halves the resolution of colours."""
    coarse = np.random.default_rng(0).integers(60, 200, (height // 60 + 2, width // 60 + 2))
    grey = cv2.resize(coarse.astype(np.uint8), (width, height), interpolation=cv2.INTER_CUBIC)
    return np.asarray(grey[..., None].repeat(3, axis=2), dtype=np.uint8)


def bands(picture: Image) -> Iterator[Image]:
    for top in range(0, len(picture), TILE_PX):
        yield picture[top : top + TILE_PX]


def written(path: Path, picture: Image, mpp: tuple[float, float] | None = (8.0, 8.0)) -> Path:
    height, width = picture.shape[:2]
    write_pyramid(str(path), bands(picture), (width, height), mpp_xy=mpp, quality=95)
    return path


def test_openslide_sees_levels_resolution_and_pixels(tmp_path: Path) -> None:
    picture = smooth(1500, 1100)
    path = written(tmp_path / "a.tif", picture, (8.5, 8.25))
    with openslide.OpenSlide(str(path)) as slide:
        assert slide.properties["openslide.vendor"] == "generic-tiff"
        assert slide.level_dimensions == ((1500, 1100), (750, 550), (375, 275), (187, 137))
        assert float(slide.properties["openslide.mpp-x"]) == pytest.approx(8.5, rel=1e-6)
        assert float(slide.properties["openslide.mpp-y"]) == pytest.approx(8.25, rel=1e-6)
        for level, size in enumerate(slide.level_dimensions):
            read = np.asarray(slide.read_region((0, 0), level, size).convert("RGB")).astype(int)
            halved = picture
            for _ in range(level):
                height, width = halved.shape[0] // 2, halved.shape[1] // 2
                quarters = halved[: 2 * height, : 2 * width].reshape(height, 2, width, 2, 3)
                halved = quarters.mean(axis=(1, 3)).round().astype(np.uint8)
            assert np.abs(read - halved).mean() < 1
            assert np.abs(read - halved).max() < 12
    assert is_whole_pyramid(path, (1500, 1100), 4)
    with opened(path) as reader:
        assert reader.name == "tiff"  # our own reader takes it directly


def test_lower_levels_are_marked_and_have_their_own_resolution(tmp_path: Path) -> None:
    path = written(tmp_path / "a.tif", smooth(900, 700))
    with tifffile.TiffFile(path) as tiff:
        assert [page.subfiletype for page in tiff.pages] == [0, 1, 1]
        found = [page.tags["XResolution"].value for page in tiff.pages]
    per_cm = [first / second for first, second in found]
    np.testing.assert_allclose(per_cm, [1250, 625, 312.5], rtol=1e-6)


def test_without_a_resolution_there_is_none(tmp_path: Path) -> None:
    path = written(tmp_path / "a.tif", smooth(300, 200), None)
    with openslide.OpenSlide(str(path)) as slide:
        assert "openslide.mpp-x" not in slide.properties


@settings(deadline=None, max_examples=40)
@given(width=st.integers(1, 1300), height=st.integers(1, 1300))
def test_any_size_is_whole(
    tmp_path_factory: pytest.TempPathFactory, width: int, height: int
) -> None:
    picture = np.full((height, width, 3), (200, 120, 40), dtype=np.uint8)
    path = written(tmp_path_factory.mktemp("any") / "a.tif", picture)
    with tifffile.TiffFile(path) as tiff:
        sizes = [(page.imagewidth, page.imagelength) for page in tiff.pages]
        assert sizes == level_sizes((width, height))
        assert all(all(page.databytecounts) for page in tiff.pages)
        last = np.asarray(tiff.pages[-1].asarray()).astype(int)
    assert np.abs(last - [200, 120, 40]).max() <= 3


def test_a_large_one_has_64_bit_offsets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pyramid, "_BIGTIFF_PX", 1000)
    path = written(tmp_path / "a.tif", smooth(600, 300))
    with tifffile.TiffFile(path) as tiff:
        assert tiff.is_bigtiff
    with openslide.OpenSlide(str(path)) as slide:
        assert slide.level_count == 3


def test_a_picture_that_breaks_off_leaves_nothing(tmp_path: Path) -> None:
    def broken() -> Iterator[Image]:
        yield smooth(600, 256)
        raise RuntimeError("the slide ends here")

    path = tmp_path / "a.tif"
    with pytest.raises(RuntimeError, match="ends here"):
        write_pyramid(str(path), broken(), (600, 512), mpp_xy=None)
    assert list(tmp_path.iterdir()) == []

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as PillowImage

from crane_ray.errors import SlideError
from crane_ray.slides.readers import image, openslide
from crane_ray.slides.slide import SlideReader
from crane_ray.testing import faults
from crane_ray.testing.pyramids import write_pyramid

Image = npt.NDArray[np.uint8]

SIZE = (1024, 768)


def window(pixels: Image, xy: tuple[int, int], size: tuple[int, int]) -> Image:
    """A region of an image by plain indexing, black outside."""
    region = np.zeros((size[1], size[0], 3), np.uint8)
    for row in range(size[1]):
        for column in range(size[0]):
            x, y = xy[0] + column, xy[1] + row
            if 0 <= x < pixels.shape[1] and 0 <= y < pixels.shape[0]:
                region[row, column] = pixels[y, x]
    return region


@pytest.fixture(scope="module")
def readers(
    slide_path: Path, tmp_path_factory: pytest.TempPathFactory, tissue_image: Image
) -> list[SlideReader]:
    path = tmp_path_factory.mktemp("images") / "painted.png"
    cv2.imwrite(str(path), cv2.cvtColor(tissue_image, cv2.COLOR_RGB2BGR))
    return [openslide.open_reader(slide_path), image.open_reader(path)]


@settings(deadline=None, max_examples=60)
@given(
    st.tuples(st.integers(-40, 1060), st.integers(-40, 800)),
    st.tuples(st.integers(1, 40), st.integers(1, 40)),
)
def test_regions_are_the_pixels_there_and_black_off_the_slide(
    readers: list[SlideReader],
    tissue_image: Image,
    xy: tuple[int, int],
    size: tuple[int, int],
) -> None:
    expected = window(tissue_image, xy, size)
    for reader in readers:
        region = reader.read_region(xy, 0, size)
        assert region.dtype == np.uint8
        np.testing.assert_array_equal(region, expected, reader.name)


def test_a_lower_level_is_read_at_level_0_places(slide_path: Path, tissue_image: Image) -> None:
    half = cv2.resize(tissue_image, (512, 384), interpolation=cv2.INTER_AREA)
    with openslide.open_reader(slide_path) as reader:
        region = reader.read_region((200, 100), 1, (90, 70))
    np.testing.assert_array_equal(region, half[50:120, 100:190])


def test_openslide_says_what_the_file_says(slide_path: Path, tmp_path: Path) -> None:
    with openslide.open_reader(slide_path) as reader:
        info = reader.info
        assert reader.name == "openslide"
    assert info.vendor == "generic-tiff"
    assert info.level_dimensions == (SIZE, (512, 384), (256, 192))
    assert info.level_downsamples == (1.0, 2.0, 4.0)
    assert info.mpp_xy == pytest.approx((0.5, 0.5))
    assert info.objective_power is None
    without = write_pyramid(tmp_path / "a.tif", np.zeros((64, 64, 3), np.uint8), mpp=None)
    with openslide.open_reader(without) as reader:
        assert reader.info.mpp_xy is None


def test_mpp_keeps_its_axes_apart(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    pixels = np.zeros((256, 256, 3), np.uint8)
    options = {"resolution": (1e4 / 0.25, 1e4 / 0.5), "resolutionunit": "CENTIMETER"}
    tifffile.imwrite(path, pixels, tile=(256, 256), photometric="rgb", **options)
    with openslide.open_reader(path) as reader:
        assert reader.info.mpp_xy == pytest.approx((0.25, 0.5))


def test_threads_share_a_reader(readers: list[SlideReader], tissue_image: Image) -> None:
    corners = [(x, y) for x in range(0, 1000, 90) for y in range(0, 700, 90)]
    for reader in readers:
        with ThreadPoolExecutor(4) as pool:
            regions = list(pool.map(lambda xy, r=reader: r.read_region(xy, 0, (24, 24)), corners))
        for (x, y), region in zip(corners, regions, strict=True):
            np.testing.assert_array_equal(region, tissue_image[y : y + 24, x : x + 24])


@pytest.fixture
def jpeg_slide(tmp_path: Path, tissue_image: Image) -> Path:
    return write_pyramid(tmp_path / "slide.tif", tissue_image, mpp=0.5)


@pytest.mark.parametrize("damage", [faults.corrupt_tiles, faults.cut_tiles])
def test_a_damaged_tile_is_an_error_with_its_place(jpeg_slide: Path, damage: object) -> None:
    assert callable(damage)
    damage(jpeg_slide, tiles=[5])
    with openslide.open_reader(jpeg_slide) as reader:
        assert reader.read_region((0, 0), 0, (256, 256)).any()
        with pytest.raises(SlideError, match=r"slide\.tif: pixels at level 0 near \(256, 256\)"):
            reader.read_region((256, 256), 0, (256, 256))


@pytest.mark.parametrize(
    "xy", [(256, 256), (200, 200), (511, 300), (300, 511), (255, 257), (-100, -100)]
)
def test_a_missing_tile_is_an_error_and_never_black(jpeg_slide: Path, xy: tuple[int, int]) -> None:
    faults.remove_tiles(jpeg_slide, tiles=[5])
    size = (500, 500) if xy[0] < 0 else (100, 100)
    with (
        openslide.open_reader(jpeg_slide) as reader,
        pytest.raises(SlideError, match=r"level 0 near \(.*\) are missing.*copy it again"),
    ):
        reader.read_region(xy, 0, size)


@pytest.mark.parametrize("xy", [(156, 256), (512, 256), (256, 512), (-50, 256), (980, 700)])
def test_tiles_beside_a_missing_one_are_read(jpeg_slide: Path, xy: tuple[int, int]) -> None:
    faults.remove_tiles(jpeg_slide, tiles=[5])
    with openslide.open_reader(jpeg_slide) as reader:
        assert reader.read_region(xy, 0, (100, 100)).any()


def test_a_tile_missing_from_a_lower_level_is_an_error_there_alone(jpeg_slide: Path) -> None:
    faults.remove_tiles(jpeg_slide, level=1, tiles=[0])
    with openslide.open_reader(jpeg_slide) as reader:
        reader.read_region((0, 0), 0, SIZE)
        reader.read_region((512, 0), 1, (256, 256))
        with pytest.raises(SlideError, match="tiles at level 1"):
            reader.read_region((0, 0), 1, (512, 384))


def test_a_tile_missing_at_a_lower_levels_far_corner_is_an_error(jpeg_slide: Path) -> None:
    faults.remove_tiles(jpeg_slide, level=1, tiles=[3])
    with (
        openslide.open_reader(jpeg_slide) as reader,
        pytest.raises(SlideError, match=r"tiles at level 1 near \(900, 700\)"),
    ):
        reader.read_region((900, 700), 1, (50, 30))


def test_every_region_over_the_edge_of_every_level_is_read(slide_path: Path) -> None:
    with openslide.open_reader(slide_path) as reader:
        for level, (width, height) in enumerate(reader.info.level_dimensions):
            down = reader.info.level_downsamples[level]
            for odd in range(5):
                xy = (int((width - 20) * down) + odd, int((height - 20) * down) + odd)
                region = reader.read_region(xy, level, (64, 64))
                assert region[:10, :10].all()
                assert not region[30:].any()


@pytest.mark.parametrize("suffix", [".png", ".tif", ".jpg", ".JPEG"])
def test_an_image_is_a_slide_of_one_level_without_scale(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    PillowImage.new("RGB", (30, 20), (200, 100, 160)).save(path, dpi=(300, 300))
    assert image.detects(path)
    with image.open_reader(path) as reader:
        assert reader.info.level_dimensions == ((30, 20),)
        assert reader.info.mpp_xy is None
        region = reader.read_region((0, 0), 0, (30, 20))
    assert np.abs(region.astype(int) - (200, 100, 160)).max() < 4


@pytest.mark.parametrize("mode", ["L", "P", "RGBA"])
def test_other_8_bit_images_become_rgb(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "a.png"
    grey = PillowImage.new("RGB", (8, 8), (128, 128, 128))
    grey.convert(mode, palette=PillowImage.Palette.ADAPTIVE).save(path)
    with image.open_reader(path) as reader:
        assert (reader.read_region((0, 0), 0, (8, 8)) == 128).all()


@pytest.mark.parametrize(
    ("name", "shape", "dtype", "mode"),
    [
        ("a.png", (16, 16), np.uint16, "I;16"),
        ("a.png", (16, 16, 3), np.uint16, "RGB;16"),
        ("a.tif", (16, 16), np.uint16, "I;16"),
        ("a.tif", (16, 16, 3), np.uint16, "RGB;16"),
        ("a.tif", (16, 16), np.float32, "F"),
    ],
)
def test_images_of_more_than_8_bits_are_refused(
    tmp_path: Path, name: str, shape: tuple[int, ...], dtype: type, mode: str
) -> None:
    path = tmp_path / name
    pixels: npt.NDArray[Any] = np.random.default_rng(0).integers(0, 4096, shape).astype(dtype)
    if name.endswith(".png"):
        cv2.imwrite(str(path), pixels)
    else:
        tifffile.imwrite(path, pixels, photometric="rgb" if len(shape) == 3 else "minisblack")
    with pytest.raises(SlideError, match=rf"{name} is an image of mode {mode}.*8-bit RGB or grey"):
        image.open_reader(path)


def test_a_cmyk_image_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    PillowImage.new("CMYK", (8, 8)).save(path)
    with pytest.raises(SlideError, match="mode CMYK"):
        image.open_reader(path)


@pytest.mark.parametrize("name", ["a.png", "a.jpg"])
def test_an_image_cut_short_is_refused(tmp_path: Path, tissue_image: Image, name: str) -> None:
    path = tmp_path / name
    cv2.imwrite(str(path), tissue_image)
    faults.truncate_file(path, 0.6)
    with pytest.raises(SlideError, match=rf"{name}: its pixels cannot be decoded"):
        image.open_reader(path)


def test_a_tiled_tiff_is_never_taken_for_a_plain_image(jpeg_slide: Path) -> None:
    with pytest.raises(SlideError, match=r"tiled TIFF that OpenSlide does not take: cut short"):
        image.open_reader(jpeg_slide)


def test_an_image_too_large_to_decode_whole_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.png"
    PillowImage.new("L", (100, 90)).save(path)
    monkeypatch.setattr(image, "MAX_PIXELS", 8_999)
    with pytest.raises(SlideError, match=r"plain image of 100 x 90 px; convert it to a tiled"):
        image.open_reader(path)
    monkeypatch.setattr(PillowImage, "MAX_IMAGE_PIXELS", 1000)
    assert image.detects(path)
    with pytest.raises(SlideError, match=r"a\.png: .*convert it to a tiled pyramid"):
        image.open_reader(path)


def test_what_a_reader_does_not_know_it_does_not_detect(tmp_path: Path, slide_path: Path) -> None:
    text = tmp_path / "a.png"
    text.write_text("no image")
    assert not image.detects(text)
    assert not openslide.detects(text)
    assert openslide.detects(slide_path)
    misnamed = tmp_path / "a.dat"
    PillowImage.new("L", (8, 8)).save(misnamed, format="PNG")
    assert not image.detects(misnamed)

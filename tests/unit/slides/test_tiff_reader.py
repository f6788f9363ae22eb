"""The direct reader against OpenSlide: the same pixels wherever it does not step aside."""

import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import imagecodecs
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crane_ray.errors import SlideError
from crane_ray.slides.readers import openslide, tiff
from crane_ray.slides.slide import SlideReader
from crane_ray.slides.tiff.codecs import TileFormat
from crane_ray.slides.tiff.layout import read_layout
from crane_ray.testing import faults, slide_formats
from crane_ray.testing.contracts import check_reader
from crane_ray.testing.slide_formats import SlideFormat, write_slide

Image = npt.NDArray[np.uint8]

WIDTH, HEIGHT, TILE = 500, 380, (64, 32)
LEVELS = ((250, 190), (125, 95), (71, 53))
"""Halves, quarters, and one that no whole number of pixels goes into."""
EXACT = (1, 2, 4)

FORMATS = {
    "420": SlideFormat(tile_px=TILE),
    "422": SlideFormat(tile_px=TILE, subsampling="422"),
    "440": SlideFormat(tile_px=TILE, subsampling="440"),
    "411": SlideFormat(tile_px=TILE, subsampling="411"),
    "444": SlideFormat(tile_px=TILE, subsampling="444", quality=95),
    "rgb": SlideFormat(tile_px=TILE, photometric="rgb"),
    "tables": SlideFormat(tile_px=TILE, shared_tables=True),
    "aperio": SlideFormat(tile_px=TILE, photometric="rgb", shared_tables=True, vendor="aperio"),
    "aperio-420": SlideFormat(tile_px=TILE, shared_tables=True, vendor="aperio"),
    "jpeg2000": SlideFormat(tile_px=TILE, codec="jpeg2000", vendor="aperio"),
    "deflate": SlideFormat(tile_px=TILE, codec="deflate"),
    "deflate-predictor": SlideFormat(tile_px=TILE, codec="deflate", predictor=True),
    "lzw": SlideFormat(tile_px=TILE, codec="lzw"),
    "lzw-predictor": SlideFormat(tile_px=TILE, codec="lzw", predictor=True),
    "zstd": SlideFormat(tile_px=TILE, codec="zstd", predictor=True),
    "none": SlideFormat(tile_px=TILE, codec="none"),
}
COMPRESSED = sorted(set(FORMATS) - {"none"})


@pytest.fixture(scope="module")
def picture() -> Image:
    rng = np.random.default_rng(0)
    noise = cv2.GaussianBlur(rng.normal(128, 300, (HEIGHT, WIDTH, 3)), (0, 0), 2)
    return np.asarray(np.clip(noise, 1, 254), np.uint8)


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory, picture: Image) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("formats")
    return {
        name: write_slide(folder / f"{name}.tif", picture, form, level_sizes=LEVELS)
        for name, form in FORMATS.items()
    }


@pytest.fixture(scope="module")
def pairs(paths: dict[str, Path]) -> Iterator[dict[str, tuple[SlideReader, tiff.TiffReader]]]:
    """OpenSlide's reader and the direct one of each format."""
    opened: dict[str, tuple[SlideReader, tiff.TiffReader]] = {
        name: (openslide.open_reader(path), open_direct(path)) for name, path in paths.items()
    }
    yield opened
    for pair in opened.values():
        for reader in pair:
            reader.close()


def open_direct(path: Path) -> tiff.TiffReader:
    return tiff.open_reader(path, partial(openslide.open_reader, path))


@settings(deadline=None, max_examples=400)
@given(
    name=st.sampled_from(sorted(FORMATS)),
    level=st.integers(0, len(LEVELS)),
    xy=st.tuples(st.integers(-150, WIDTH + 150), st.integers(-150, HEIGHT + 150)),
    size=st.tuples(st.integers(1, 200), st.integers(1, 150)),
)
def test_every_region_is_openslides(
    pairs: dict[str, tuple[SlideReader, tiff.TiffReader]],
    name: str,
    level: int,
    xy: tuple[int, int],
    size: tuple[int, int],
) -> None:
    slow, fast = pairs[name]
    np.testing.assert_array_equal(
        fast.read_region(xy, level, size), slow.read_region(xy, level, size)
    )


@settings(deadline=None, max_examples=150)
@given(
    name=st.sampled_from(sorted(FORMATS)),
    level=st.integers(0, len(EXACT) - 1),
    corners=st.lists(
        st.tuples(st.integers(-150, WIDTH + 150), st.integers(-150, HEIGHT + 150)),
        min_size=1,
        max_size=12,
    ),
    size=st.sampled_from([TILE, (100, 90), (64, 64), (1, 1), (130, 100), (600, 500)]),
)
def test_regions_at_whole_pixels_are_read_without_openslide(
    paths: dict[str, Path],
    pairs: dict[str, tuple[SlideReader, tiff.TiffReader]],
    name: str,
    level: int,
    corners: list[tuple[int, int]],
    size: tuple[int, int],
) -> None:
    xy = np.array(corners, np.int64) // EXACT[level] * EXACT[level]
    xy[::2] = xy[::2] // (EXACT[level] * 64) * (EXACT[level] * 64)
    out = np.full((len(xy), size[1], size[0], 3), 77, np.uint8)
    with tiff.open_reader(paths[name]) as alone:
        alone.read_regions(xy, level, out)
    for (x, y), region in zip(xy.tolist(), out, strict=True):
        expected = pairs[name][0].read_region((x, y), level, size)
        np.testing.assert_array_equal(region, expected, f"{name} {level} {x, y} {size}")


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_what_it_says_of_the_slide_is_what_openslide_says(
    pairs: dict[str, tuple[SlideReader, tiff.TiffReader]], name: str
) -> None:
    slow, fast = pairs[name]
    assert fast.name == "tiff"
    assert fast.info == slow.info
    assert fast.info.mpp_xy == pytest.approx((0.5, 0.5))


@pytest.mark.parametrize("name", ["420", "aperio", "jpeg2000", "deflate"])
def test_it_holds_to_the_contract_of_readers(
    pairs: dict[str, tuple[SlideReader, tiff.TiffReader]], name: str
) -> None:
    check_reader(pairs[name][1])


def test_a_region_between_pixels_needs_openslide(paths: dict[str, Path]) -> None:
    with (
        tiff.open_reader(paths["420"]) as alone,
        pytest.raises(SlideError, match=r"420\.tif: this region lies between.*--reader auto"),
    ):
        alone.read_region((1, 0), 1, (8, 8))


@pytest.mark.parametrize("xy", [(-1, -3), (-7, 10), (11 * 2, -5), (-150, -1)])
def test_corners_off_the_slide_are_cut_to_whole_pixels(
    pairs: dict[str, tuple[SlideReader, tiff.TiffReader]],
    paths: dict[str, Path],
    xy: tuple[int, int],
) -> None:
    """OpenSlide interpolates nothing there, so nothing need be left to it."""
    with tiff.open_reader(paths["420"]) as alone:
        np.testing.assert_array_equal(
            alone.read_region(xy, 1, (120, 90)), pairs["420"][0].read_region(xy, 1, (120, 90))
        )


def test_openslide_is_opened_for_the_first_region_that_needs_it(paths: dict[str, Path]) -> None:
    opened: list[SlideReader] = []

    def fallback() -> SlideReader:
        opened.append(openslide.open_reader(paths["420"]))
        return opened[-1]

    with tiff.open_reader(paths["420"], fallback) as reader:
        reader.read_region((0, 0), 1, (8, 8))
        assert not opened
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda _: reader.read_region((1, 1), 1, (8, 8)), range(16)))
        assert len(opened) == 1


def test_a_fallback_that_sees_another_slide_is_refused(paths: dict[str, Path]) -> None:
    with (
        tiff.open_reader(paths["420"], lambda: openslide.open_reader(paths["aperio"])) as reader,
        pytest.raises(SlideError, match="OpenSlide sees other levels"),
    ):
        reader.read_region((1, 1), 1, (8, 8))


@pytest.mark.parametrize("x", [-5, -4, 0, 2, 3])
def test_regions_that_openslide_paints_in_pieces(tmp_path: Path, x: int) -> None:
    row = np.random.default_rng(0).integers(0, 256, (32, 10_000, 3), np.uint8)
    form = SlideFormat(codec="deflate", tile_px=(512, 16))
    path = write_slide(tmp_path / "wide.tif", row, form, level_sizes=((5000, 16), (1009, 4)))
    with openslide.open_reader(path) as slow, open_direct(path) as fast:
        for level, width in ((0, 9000), (1, 4500), (2, 4200)):
            np.testing.assert_array_equal(
                fast.read_region((x, 0), level, (width, 20)),
                slow.read_region((x, 0), level, (width, 20)),
            )


class Counting:
    """Counts the tiles that are decoded, and remembers where to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.outs: list[Image] = []
        decode = TileFormat.decode

        def counted(form: TileFormat, data: bytes, out: Image) -> Image:
            self.outs.append(out)
            return decode(form, data, out)

        monkeypatch.setattr(TileFormat, "decode", counted)


def square(step: tuple[int, int], origin: tuple[int, int], side: int) -> npt.NDArray[np.int64]:
    corners = [(x, y) for x in range(side) for y in range(side)]
    return np.array(corners, np.int64) * step + origin


def test_each_tile_of_a_run_is_decoded_once(
    paths: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    xy = square(TILE, (10, 7), 4)
    out = np.empty((16, TILE[1], TILE[0], 3), np.uint8)
    with tiff.open_reader(paths["420"]) as reader:
        counting = Counting(monkeypatch)
        reader.read_regions(xy, 0, out)
        assert len(counting.outs) == 25
        reader.read_regions(xy[:4] + np.array([0, TILE[1] * 4]), 0, out[:4])
        assert len(counting.outs) == 25 + 8, "the tiles that runs share come from the cache"


def test_patches_beside_one_another_need_each_tile_once_whatever_the_cache(
    paths: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Used-up tiles go: room for the seam of two columns is enough for the whole slide."""
    monkeypatch.setattr(tiff, "CACHE_BYTES", 16 * TILE[0] * TILE[1] * 3)
    xy = square(TILE, (10, 7), 6)
    out = np.empty((6, TILE[1], TILE[0], 3), np.uint8)
    with tiff.open_reader(paths["420"]) as reader:
        counting = Counting(monkeypatch)
        for first in range(0, 36, 6):
            reader.read_regions(xy[first : first + 6], 0, out)
    assert len(counting.outs) == 7 * 7


def test_tiles_of_overlapping_regions_are_kept(
    paths: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    xy = square((TILE[0] // 2, TILE[1] // 2), (0, 0), 8)
    out = np.empty((8, TILE[1], TILE[0], 3), np.uint8)
    with tiff.open_reader(paths["420"]) as reader:
        counting = Counting(monkeypatch)
        for first in range(0, 64, 8):
            reader.read_regions(xy[first : first + 8], 0, out)
    assert len(counting.outs) == 5 * 5


def test_a_patch_that_is_a_tile_is_decoded_in_its_place(
    paths: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    xy = square(TILE, (0, 0), 3)
    out = np.empty((9, TILE[1], TILE[0], 3), np.uint8)
    with tiff.open_reader(paths["420"]) as reader:
        counting = Counting(monkeypatch)
        reader.read_regions(xy, 0, out)
    assert len(counting.outs) == 9
    assert all(np.shares_memory(place, out) for place in counting.outs)


@pytest.mark.parametrize("name", ["420", "aperio", "jpeg2000", "lzw-predictor", "zstd"])
def test_threads_share_it(pairs: dict[str, tuple[SlideReader, tiff.TiffReader]], name: str) -> None:
    slow, _ = pairs[name]
    runs = [square((40, 40), (x, y), 3) for x in (0, 33, 77) for y in (-20, 50, 111)]

    def read(xy: npt.NDArray[np.int64]) -> Image:
        out = np.empty((9, 60, 60, 3), np.uint8)
        fast.read_regions(xy, 0, out)
        return out

    expected = [[slow.read_region((x, y), 0, (60, 60)) for x, y in run.tolist()] for run in runs]
    with open_direct(Path(slow._path)) as fast, ThreadPoolExecutor(8) as pool:  # type: ignore[attr-defined]
        for got, want in zip(pool.map(read, runs * 6), expected * 6, strict=True):
            np.testing.assert_array_equal(got, want)


def copy_of(path: Path, tmp_path: Path) -> Path:
    copy = tmp_path / path.name
    copy.write_bytes(path.read_bytes())
    return copy


def spoil(path: Path, tile: int, change: Any) -> None:
    """Rewrites a tile's bytes in place with others of the same length."""
    level = read_layout(path).levels[0]
    offset, count = int(level.offsets[tile]), int(level.counts[tile])
    content = bytearray(path.read_bytes())
    new = change(bytes(content[offset : offset + count]))
    assert len(new) == count
    content[offset : offset + count] = new
    path.write_bytes(content)


@pytest.mark.parametrize("name", COMPRESSED)
@pytest.mark.parametrize("keep", [0.0, 0.3, 0.7, 0.95])
def test_a_tile_whose_end_is_zeros_is_an_error(
    paths: dict[str, Path], tmp_path: Path, name: str, keep: float
) -> None:
    path = copy_of(paths[name], tmp_path)
    spoil(path, 9, lambda data: data[: int(keep * len(data))].ljust(len(data), b"\0"))
    assert_tile_9_is_an_error(path)


@pytest.mark.parametrize("name", COMPRESSED)
@pytest.mark.parametrize("keep", [0.02, 0.3, 0.7, 0.95])
def test_a_tile_cut_short_is_an_error(
    paths: dict[str, Path], tmp_path: Path, name: str, keep: float
) -> None:
    path = copy_of(paths[name], tmp_path)
    faults.cut_tiles(path, tiles=[9], keep_fraction=keep)
    assert_tile_9_is_an_error(path)


@pytest.mark.parametrize("name", COMPRESSED)
def test_a_tile_of_noise_is_an_error(paths: dict[str, Path], tmp_path: Path, name: str) -> None:
    path = copy_of(paths[name], tmp_path)
    faults.corrupt_tiles(path, tiles=[9])
    assert_tile_9_is_an_error(path)


@pytest.mark.parametrize("name", ["420", "rgb", "aperio", "jpeg2000"])
@pytest.mark.parametrize("keep", [0.5, 0.9])
def test_a_tile_whose_stream_ends_early_is_an_error(
    paths: dict[str, Path], tmp_path: Path, name: str, keep: float
) -> None:
    path = copy_of(paths[name], tmp_path)
    spoil(
        path,
        9,
        lambda data: (data[: int(keep * len(data))] + b"\xff\xd9").ljust(len(data), b"\0"),
    )
    assert_tile_9_is_an_error(path)


def assert_tile_9_is_an_error(path: Path) -> None:
    """Tile 9 is the second of the second row of eight; its neighbours are read all the same."""
    place = rf"{path.name}: pixels at level 0 near \(64, 32\) cannot be decoded: "
    for fallback in (None, partial(openslide.open_reader, path)):
        with tiff.open_reader(path, fallback) as reader:
            assert reader.read_region((0, 0), 0, TILE).any()
            for xy, size in (((64, 32), TILE), ((70, 40), (9, 9)), ((0, 0), (130, 100))):
                with pytest.raises(SlideError, match=place if xy == (64, 32) else "decoded"):
                    reader.read_region(xy, 0, size)
            if fallback is None:  # OpenSlide's handle remembers its first error
                assert reader.read_region((128, 32), 0, TILE).any()


def test_bytes_in_front_of_a_jpegs_end_are_openslides_to_judge(
    tmp_path: Path, picture: Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OpenSlide does not look there, TurboJPEG does: the pixels must be OpenSlide's."""
    encode = slide_formats._jpeg
    monkeypatch.setattr(
        slide_formats, "_jpeg", lambda tile, form: encode(tile, form)[:-2] + b"\0" * 6 + b"\xff\xd9"
    )
    path = write_slide(tmp_path / "padded.tif", picture, FORMATS["420"])
    with tiff.open_reader(path) as alone, pytest.raises(SlideError, match="extraneous bytes"):
        alone.read_region((0, 0), 0, TILE)
    with openslide.open_reader(path) as slow, open_direct(path) as fast:
        np.testing.assert_array_equal(
            fast.read_region((5, 5), 0, (300, 200)), slow.read_region((5, 5), 0, (300, 200))
        )


@pytest.mark.parametrize("photometric", ["rgb", "ycbcr"])
@pytest.mark.parametrize("stored", ["rgb", "ycbcr"])
def test_the_tiffs_photometric_tag_overrules_the_jpegs_own_markers(
    tmp_path: Path, picture: Image, monkeypatch: pytest.MonkeyPatch, photometric: Any, stored: str
) -> None:
    """JFIF and Adobe segments in the tile say ``stored``, the TIFF may say otherwise."""

    def encode(tile: Image, form: SlideFormat) -> bytes:
        return bytes(
            imagecodecs.jpeg8_encode(
                np.ascontiguousarray(tile), 80, colorspace="rgb", outcolorspace=stored
            )
        )

    monkeypatch.setattr(slide_formats, "_jpeg", encode)
    form = SlideFormat(tile_px=TILE, photometric=photometric, subsampling="444")
    path = write_slide(tmp_path / "mislabelled.tif", picture, form)
    with openslide.open_reader(path) as slow, tiff.open_reader(path) as alone:
        expected = slow.read_region((5, 5), 0, (300, 200))
        np.testing.assert_array_equal(alone.read_region((5, 5), 0, (300, 200)), expected)
        as_painted = np.abs(expected.astype(int) - picture[5:205, 5:305]).mean() < 8
        assert as_painted == (stored == photometric), "the case is one where the tag matters"


def test_tiles_with_headers_of_their_own_are_decoded_by_them(
    tmp_path: Path, picture: Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode, kinds = slide_formats._jpeg, itertools.cycle([("420", 80), ("444", 30), ("420", 95)])

    def changing(tile: Image, form: SlideFormat) -> bytes:
        subsampling, quality = next(kinds)
        return encode(tile, replace(form, subsampling=subsampling, quality=quality))

    monkeypatch.setattr(slide_formats, "_jpeg", changing)
    path = write_slide(tmp_path / "changing.tif", picture, FORMATS["420"])
    with openslide.open_reader(path) as slow, tiff.open_reader(path) as alone:
        np.testing.assert_array_equal(
            alone.read_region((0, 0), 0, (WIDTH, HEIGHT)),
            slow.read_region((0, 0), 0, (WIDTH, HEIGHT)),
        )


@pytest.mark.parametrize("name", ["420", "deflate", "none"])
def test_a_tile_missing_from_a_plain_tiff_is_an_error(
    paths: dict[str, Path], tmp_path: Path, name: str
) -> None:
    path = copy_of(paths[name], tmp_path)
    faults.remove_tiles(path, tiles=[9])
    with open_direct(path) as reader:
        reader.read_region((128, 0), 0, TILE)
        for xy in ((64, 32), (20, 20)):
            with pytest.raises(SlideError, match=r"level 0 near \(64, 32\) are missing.*copy it"):
                reader.read_region(xy, 0, TILE)


@pytest.mark.parametrize("name", ["aperio", "jpeg2000"])
def test_tiles_that_an_aperio_scanner_left_out_are_painted_as_openslide_does(
    paths: dict[str, Path], tmp_path: Path, name: str
) -> None:
    path = copy_of(paths[name], tmp_path)
    faults.remove_tiles(path, level=2, tiles=[3])  # directory 1 is the thumbnail
    with openslide.open_reader(path) as slow, open_direct(path) as fast:
        for level, (width, height) in enumerate(slow.info.level_dimensions):
            np.testing.assert_array_equal(
                fast.read_region((0, 0), level, (width, height)),
                slow.read_region((0, 0), level, (width, height)),
            )
        assert fast._fallback is not None, "levels above the missing tile are OpenSlide's to paint"
    with tiff.open_reader(path) as alone:
        alone.read_region((0, 0), 0, TILE)
        with pytest.raises(SlideError, match="composed of several levels"):
            alone.read_region((0, 0), 2, TILE)


def test_a_file_cut_while_it_is_open_is_an_error(paths: dict[str, Path], tmp_path: Path) -> None:
    path = copy_of(paths["420"], tmp_path)
    with tiff.open_reader(path) as reader:
        faults.truncate_file(path, 0.1)
        with pytest.raises(SlideError, match="the file ends after"):
            reader.read_region((300, 300), 0, TILE)


def test_a_closed_reader_reads_nothing(paths: dict[str, Path]) -> None:
    reader = tiff.open_reader(paths["420"])
    reader.close()
    reader.close()
    with pytest.raises(SlideError, match="cannot be decoded"):
        reader.read_region((0, 0), 0, TILE)


def shared_slides() -> list[Path]:
    folder = Path(__file__).resolve().parents[3].parent / "shared" / "data" / "slides"
    return sorted([*folder.glob("*.svs"), *folder.glob("*.tif*")])


def test_slides_of_others_are_read_as_openslide_reads_them() -> None:
    if not shared_slides():
        pytest.skip("no slides of others beside the checkout, in shared/data/slides")
    rng = np.random.default_rng(0)
    for path in shared_slides():
        with openslide.open_reader(path) as slow, open_direct(path) as fast:
            assert fast.info == slow.info, path.name
            for _ in range(30):
                level = int(rng.integers(fast.info.num_levels))
                (width, height), down = fast.info.level_dimensions[level], EXACT[0]
                down = round(fast.info.level_downsamples[level])
                xy = (
                    int(rng.integers(-200, width + 50)) * down,
                    int(rng.integers(-200, height + 50)) * down,
                )
                np.testing.assert_array_equal(
                    fast.read_region(xy, level, (256, 200)),
                    slow.read_region(xy, level, (256, 200)),
                    f"{path.name} {level} {xy}",
                )

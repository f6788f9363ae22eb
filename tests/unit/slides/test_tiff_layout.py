"""Which TIFFs are read directly, and what is made of their tags."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from crane_ray.slides.readers import openslide, tiff
from crane_ray.slides.tiff.errors import StepAsideError
from crane_ray.slides.tiff.layout import read_layout
from crane_ray.testing import faults
from crane_ray.testing.pyramids import write_pyramid
from crane_ray.testing.slide_formats import SlideFormat, write_slide

PIXELS = np.random.default_rng(0).integers(0, 256, (96, 128, 3), np.uint8)
APERIO = "Aperio Image Library v11.2.1 \r\n128x96 [0,0 128x96] (64x32) J2K/KDU Q=70|"


def write(path: Path, pixels: npt.NDArray[Any] = PIXELS, **options: Any) -> Path:
    given_options = {"tile": (32, 64), "photometric": "rgb", "metadata": None} | options
    tifffile.imwrite(path, pixels, **given_options)
    return path


def refusal(path: Path) -> str:
    assert not tiff.detects(path)
    with pytest.raises(StepAsideError) as caught:
        read_layout(path)
    return str(caught.value)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"pixels": PIXELS[..., 0], "photometric": "minisblack"}, "BitsPerSample|Samples"),
        ({"pixels": PIXELS.astype(np.uint16)}, "BitsPerSample is"),
        ({"pixels": np.dstack([PIXELS, PIXELS[..., :1]])}, "BitsPerSample is|SamplesPerPixel is 4"),
        (
            {"pixels": np.moveaxis(PIXELS, -1, 0), "planarconfig": "separate"},
            "PlanarConfiguration is 2",
        ),
        ({"extratags": [(274, 3, 1, 3, True)]}, "Orientation is 3"),
        ({"compression": "lzma"}, "compression 34925"),
        ({"compression": "packbits"}, "compression 32773"),
        ({"description": APERIO + "AppMag = 20x"}, "AppMag in its description is '20x'"),
        ({"description": APERIO + "MPP = 0.25|Filtered"}, "'Filtered'"),
        ({"tile": None}, "format is unknown"),
    ],
)
def test_what_is_not_read_directly_is_refused_with_the_reason(
    tmp_path: Path, options: dict[str, Any], reason: str
) -> None:
    path = write(tmp_path / "a.tif", **options)
    with pytest.raises(StepAsideError, match=reason):
        read_layout(path)
    assert not tiff.detects(path)


def test_aperios_ycbcr_jpeg2000_is_openslides(tmp_path: Path) -> None:
    form = SlideFormat(codec="jpeg2000_ycbcr", vendor="aperio", tile_px=(64, 32))
    path = write_slide(tmp_path / "a.svs", PIXELS, form)
    assert openslide.detects(path)
    assert "compression 33003" in refusal(path)


def test_no_tiff_and_no_slide(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    path.write_bytes(b"no slide")
    assert refusal(path).startswith("its format is unknown; aperio and generic-tiff are")


@pytest.mark.parametrize("keep", [0.02, 0.3, 0.6, 0.9, 0.99])
def test_a_file_cut_short_is_refused(tmp_path: Path, keep: float) -> None:
    path = write_pyramid(tmp_path / "a.tif", np.tile(PIXELS, (4, 4, 1)), mpp=0.5, tile_px=64)
    faults.truncate_file(path, keep)
    refusal(path)


def test_a_tile_beyond_the_end_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif")
    with tifffile.TiffFile(path, mode="r+") as opened:
        tag = opened.pages[0].tags["TileOffsets"]
        tag.overwrite([*tag.value[:-1], 10_000_000])
    assert "beyond its end" in refusal(path)


def test_levels_that_are_not_in_order_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as writer:
        for number in range(2):
            writer.write(
                PIXELS, tile=(32, 64), photometric="rgb", metadata=None, subfiletype=number
            )
    assert "order of their sizes" in refusal(path)


def test_images_that_are_no_levels_are_left_out_as_openslide_does(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as writer:
        for size, kind, tile in (
            ((96, 128), 0, (32, 64)),
            ((24, 32), 1, (32, 64)),
            ((48, 64), 1, (32, 32)),
            ((80, 100), 0, (32, 64)),
            ((40, 50), 1, None),
        ):
            writer.write(
                PIXELS[: size[0], : size[1]],
                tile=tile,
                photometric="rgb",
                metadata=None,
                subfiletype=kind,
            )
    with openslide.open_reader(path) as slow:
        assert read_layout(path).info == slow.info
        assert slow.info.level_dimensions == ((128, 96), (64, 48), (32, 24))


numbers = st.one_of(
    st.decimals(0, 100, places=4).map(str),
    st.sampled_from(
        ["0", "20", "+.5", "0,499", "40.", "-3", "1e1", "", "nan", "0x10", "x", "0.5 um"]
    ),
)


@settings(deadline=None, max_examples=60)
@given(power=numbers, mpp=numbers, space=st.sampled_from(["", " "]))
def test_aperios_fields_are_read_as_openslide_reads_them(
    tmp_path_factory: pytest.TempPathFactory, power: str, mpp: str, space: str
) -> None:
    path = tmp_path_factory.mktemp("aperio") / "a.svs"
    description = f"{APERIO}AppMag{space}={space}{power}|Date = 1|MPP{space}={space}{mpp}"
    write(path, description=description, resolution=(123, 456), resolutionunit="CENTIMETER")
    try:
        info = read_layout(path).info
    except StepAsideError:
        assert {power, mpp} & {"1e1", "nan", "0x10", "x", "0.5 um"}
    else:
        with openslide.open_reader(path) as slow:
            assert info == slow.info


@settings(deadline=None, max_examples=60)
@given(
    x=st.tuples(st.integers(1, 2**32 - 1), st.integers(1, 2**32 - 1)),
    y=st.tuples(st.integers(0, 2**32 - 1), st.integers(1, 1000)),
    unit=st.sampled_from([1, 2, 3]),
)
def test_resolutions_are_read_as_openslide_reads_them(
    tmp_path_factory: pytest.TempPathFactory, x: tuple[int, int], y: tuple[int, int], unit: int
) -> None:
    path = tmp_path_factory.mktemp("plain") / "a.tif"
    write(path, resolution=(x, y), resolutionunit=unit)
    try:
        info = read_layout(path).info
    except StepAsideError:
        assert not y[0]
    else:
        with openslide.open_reader(path) as slow:
            assert info == slow.info

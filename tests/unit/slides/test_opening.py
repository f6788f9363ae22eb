from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import tifffile
from PIL import Image as PillowImage

from crane_ray.errors import ConfigError, SlideError
from crane_ray.slides.opening import open_slide
from crane_ray.slides.slide import Slide
from crane_ray.testing import faults
from crane_ray.testing.pyramids import write_pyramid

Image = npt.NDArray[np.uint8]


def refusal(path: Path | str) -> str:
    with pytest.raises(SlideError) as caught:
        open_slide(Slide("TCGA-1", str(path)))
    assert str(caught.value).startswith("slide TCGA-1: ")
    return str(caught.value)


def test_a_pyramid_is_read_directly_and_an_image_by_the_image_reader(
    slide_path: Path, tmp_path: Path
) -> None:
    with open_slide(Slide("a", str(slide_path))) as reader:
        assert reader.name == "tiff"
    for name in ("plain.png", "strips.tif"):
        PillowImage.new("RGB", (30, 20)).save(tmp_path / name)
        with open_slide(Slide("a", str(tmp_path / name))) as reader:
            assert reader.name == "image"


def test_what_the_direct_reader_does_not_take_goes_to_openslide(tmp_path: Path) -> None:
    path = tmp_path / "grey.tif"
    tifffile.imwrite(path, np.full((64, 64), 9, np.uint8), tile=(32, 32), photometric="minisblack")
    with open_slide(Slide("a", str(path))) as reader:
        assert reader.name == "openslide"
        assert (reader.read_region((0, 0), 0, (64, 64)) == 9).all()
    with pytest.raises(
        SlideError,
        match=r"slide a: grey\.tif cannot be read by --reader tiff: .*8-bit RGB.*--reader auto",
    ):
        open_slide(Slide("a", str(path)), reader="tiff")


@pytest.mark.parametrize("name", ["tiff", "openslide"])
def test_a_reader_can_be_asked_for(slide_path: Path, name: str) -> None:
    with open_slide(Slide("a", str(slide_path)), reader=name) as reader:
        assert reader.name == name
        between = reader.read_region((101, 51), 1, (20, 20))
        assert between.any(), "regions between pixels are read whichever is asked for"


def test_regions_between_pixels_are_those_of_openslide(slide_path: Path) -> None:
    slide = Slide("a", str(slide_path))
    with open_slide(slide) as fast, open_slide(slide, reader="openslide") as slow:
        assert np.array_equal(
            fast.read_region((101, 51), 1, (90, 70)), slow.read_region((101, 51), 1, (90, 70))
        )


@pytest.mark.parametrize("name", ["tiff", "openslide"])
def test_a_reader_asked_for_takes_no_other_format(tmp_path: Path, name: str) -> None:
    PillowImage.new("RGB", (30, 20)).save(tmp_path / "plain.png")
    with pytest.raises(SlideError, match=r"slide a: .*use --reader auto"):
        open_slide(Slide("a", str(tmp_path / "plain.png")), reader=name)


def test_there_is_no_reader_of_an_unknown_name(slide_path: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean tiff"):
        open_slide(Slide("a", str(slide_path)), reader="tif")


def test_a_reader_may_be_the_users_own(
    slide_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lab_of_tests").mkdir()
    (tmp_path / "lab_of_tests" / "reader.py").write_text(
        "from crane_ray.slides.readers import openslide\n"
        "def detects(path):\n    return path.name == 'painted.tif'\n"
        "def open_reader(path):\n"
        "    reader = openslide.open_reader(path)\n"
        "    reader.name = 'mine'\n"
        "    return reader\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with open_slide(Slide("a", str(slide_path)), reader="lab_of_tests.reader") as reader:
        assert reader.name == "mine"
    other = write_pyramid(tmp_path / "b.tif", np.zeros((64, 64, 3), np.uint8), mpp=0.5)
    with pytest.raises(SlideError, match=r"lab_of_tests\.reader does not know its content"):
        open_slide(Slide("a", str(other)), reader="lab_of_tests.reader")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    assert f"no such file on this node: {tmp_path}/gone.svs" in refusal(tmp_path / "gone.svs")


def test_a_uri_is_refused_with_a_way_out() -> None:
    assert "s3://bucket/a.svs is not a local path; slides are read" in refusal("s3://bucket/a.svs")


@pytest.mark.parametrize("name", ["a.svs", "a.tif", "a.png", "a"])
@pytest.mark.parametrize("content", [b"", b"no slide at all"])
def test_what_is_no_slide_is_named_with_its_size(tmp_path: Path, name: str, content: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    message = refusal(path)
    assert f"not a slide that can be read ({name}, {len(content)} bytes)" in message
    assert "came whole" in message


def test_a_folder_is_no_slide(tmp_path: Path) -> None:
    assert "not a slide that can be read" in refusal(tmp_path)


@pytest.mark.parametrize("keep_fraction", [0.001, 0.02, 0.3, 0.6, 0.9, 0.99, 0.9999])
@pytest.mark.parametrize("name", ["a.tif", "a.svs"])
def test_a_slide_cut_short_is_refused_wherever_it_ends(
    tmp_path: Path, tissue_image: Image, name: str, keep_fraction: float
) -> None:
    path = write_pyramid(tmp_path / name, tissue_image, mpp=0.5)
    faults.truncate_file(path, keep_fraction)
    message = refusal(path)
    hints = ("came whole", "cut short", "broken or incomplete")
    assert any(hint in message for hint in hints)


def test_a_tiled_tiff_that_lost_its_lower_levels_does_not_pass_for_an_image(
    tmp_path: Path, tissue_image: Image
) -> None:
    path = write_pyramid(tmp_path / "a.tif", tissue_image, mpp=0.5)
    with tifffile.TiffFile(path) as tiff:
        end_of_first = max(
            offset + count
            for offset, count in zip(
                tiff.pages[0].dataoffsets, tiff.pages[0].databytecounts, strict=True
            )
        )
    faults.truncate_file(path, (end_of_first + 1) / path.stat().st_size)
    with PillowImage.open(path) as whole:
        assert whole.size == (1024, 768), "Pillow would read it, and its scale would be lost"
    assert "cut short" in refusal(path)


def test_a_16_bit_image_is_refused_by_slide(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.zeros((20, 20, 3), np.uint16), photometric="rgb")
    assert "8-bit RGB or grey is needed" in refusal(path)


def test_slides_of_others_that_are_broken_are_refused() -> None:
    folder = Path(__file__).resolve().parents[3].parent / "shared" / "data" / "broken"
    if not folder.is_dir():
        pytest.skip(f"no broken slides of others at {folder}")
    for path in sorted(folder.iterdir()):
        assert path.name in refusal(path)


def test_a_slide_whose_companion_files_are_missing_says_so(tmp_path: Path) -> None:
    (tmp_path / "a.mrxs").write_bytes(b"\xff\xd8\xff\xe0 a thumbnail, its folder left behind")
    with pytest.raises(SlideError, match="came whole with its companion files"):
        open_slide(Slide("a", str(tmp_path / "a.mrxs")))

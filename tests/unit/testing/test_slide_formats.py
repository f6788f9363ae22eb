from pathlib import Path

import numpy as np
import openslide
import pytest
import tifffile

from crane_ray.testing.slide_formats import SlideFormat, write_slide

GRADIENT = np.stack(
    np.broadcast_arrays(np.linspace(0, 255, 150)[None], np.linspace(0, 255, 110)[:, None], 128.0),
    axis=-1,
).astype(np.uint8)
TILE = (64, 32)


@pytest.mark.parametrize(
    ("form", "compression", "photometric", "has_tables"),
    [
        (SlideFormat(), 7, 6, False),
        (SlideFormat(subsampling="440"), 7, 6, False),
        (SlideFormat(photometric="rgb"), 7, 2, False),
        (SlideFormat(shared_tables=True), 7, 6, True),
        (SlideFormat(photometric="rgb", shared_tables=True, vendor="aperio"), 7, 2, True),
        (SlideFormat(codec="jpeg2000", vendor="aperio"), 33005, 2, False),
        (SlideFormat(codec="lzw", predictor=True), 5, 2, False),
        (SlideFormat(codec="zstd"), 50000, 2, False),
        (SlideFormat(codec="deflate"), 8, 2, False),
        (SlideFormat(codec="none"), 1, 2, False),
    ],
)
def test_a_slide_is_what_its_format_says(
    tmp_path: Path, form: SlideFormat, compression: int, photometric: int, has_tables: bool
) -> None:
    form = SlideFormat(**{**vars(form), "tile_px": TILE, "quality": 95})
    path = write_slide(
        tmp_path / "a.svs", GRADIENT, form, level_sizes=((75, 55), (21, 15)), mpp=0.25
    )
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages[0].aspage()
        assert (page.compression, page.photometric) == (compression, photometric)
        assert (page.jpegtables is not None) == has_tables
        assert (page.tilewidth, page.tilelength) == TILE
        assert (page.predictor == 2) == form.predictor
    with openslide.OpenSlide(str(path)) as slide:
        assert slide.properties["openslide.vendor"] == form.vendor
        assert float(slide.properties["openslide.mpp-x"]) == pytest.approx(0.25)
        assert slide.level_dimensions == ((150, 110), (75, 55), (21, 15))
        assert ("thumbnail" in slide.associated_images) == (form.vendor == "aperio")
        pixels = np.asarray(slide.read_region((0, 0), 0, (150, 110)).convert("RGB"))
    difference = np.abs(pixels.astype(int) - GRADIENT)
    if form.codec in ("jpeg", "jpeg2000"):
        assert np.sqrt((difference**2).mean()) <= 3, "a PSNR of at least 38 dB"
        assert difference.max() <= 20
    else:
        assert not difference.any()

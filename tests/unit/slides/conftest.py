from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from crane_ray.slides.opening import open_slide
from crane_ray.slides.params import TissueParams
from crane_ray.slides.segmenters.saturation import segment
from crane_ray.slides.slide import Slide, SlideInfo
from crane_ray.slides.tissue import TissueContours
from crane_ray.testing.pyramids import write_pyramid

Image = npt.NDArray[np.uint8]

WIDTH, HEIGHT = 1024, 768
FINE = {"preset": "bwh_biopsy", "a_t": 0.02, "a_h": 0.002}
"""Areas small enough for slides of a million pixels."""


@pytest.fixture(scope="session")
def tissue_image() -> Image:
    """Three pieces on glass: one with a large and a small hole, a hook, one cut by the far edge."""
    tissue = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    cv2.ellipse(tissue, (300, 250), (220, 160), 20, 0, 360, (255,), -1)
    cv2.circle(tissue, (230, 220), 60, (0,), -1)
    cv2.circle(tissue, (400, 320), 25, (0,), -1)
    hook = np.array([[560, 60], [860, 60], [860, 130], [640, 130], [640, 420], [560, 420]])
    cv2.fillPoly(tissue, [hook], (255,))
    cv2.ellipse(tissue, (960, 620), (180, 130), 0, 0, 360, (255,), -1)
    rng = np.random.default_rng(0)
    stained = np.array([200, 110, 160]) + rng.integers(-20, 20, (HEIGHT, WIDTH, 3))
    return np.where(tissue[..., None] > 0, stained, 243).astype(np.uint8)


@pytest.fixture(scope="session")
def slide_path(tmp_path_factory: pytest.TempPathFactory, tissue_image: Image) -> Path:
    """The image as a slide of three levels at 0.5 um/px, without losses."""
    path = tmp_path_factory.mktemp("slides") / "painted.tif"
    return write_pyramid(path, tissue_image, mpp=0.5, compression="deflate")


@pytest.fixture(scope="session")
def painted_info(slide_path: Path) -> SlideInfo:
    with open_slide(Slide("painted", str(slide_path))) as reader:
        return reader.info


@pytest.fixture(scope="session")
def painted_tissue(slide_path: Path) -> TissueContours:
    with open_slide(Slide("painted", str(slide_path))) as reader:
        return segment(reader, TissueParams(**FINE, seg_level=1))

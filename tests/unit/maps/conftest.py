from pathlib import Path

import numpy as np
import pytest

from crane_ray.slides.tissue import TissueContour, TissueContours
from crane_ray.testing.pyramids import write_pyramid
from crane_ray.testing.slide_formats import SlideFormat, write_slide
from tests.unit.maps.slides import Image

WIDTH, HEIGHT = 1300, 900


@pytest.fixture(scope="session")
def image() -> Image:
    """Blotches of many colours, so that a shift by a pixel shows; pale ones, for JPEG's sake."""
    coarse = np.random.default_rng(0).integers(100, 170, (HEIGHT // 10, WIDTH // 10, 3))
    return coarse.repeat(10, axis=0).repeat(10, axis=1).astype(np.uint8)


@pytest.fixture(scope="session")
def slide_path(tmp_path_factory: pytest.TempPathFactory, image: Image) -> Path:
    """Levels of downsample 1, 2 and 4, without losses, 0.5 um/px."""
    path = tmp_path_factory.mktemp("maps") / "even.tif"
    return write_pyramid(path, image, mpp=0.5, num_levels=3, compression="deflate")


@pytest.fixture(scope="session")
def uneven_path(tmp_path_factory: pytest.TempPathFactory, image: Image) -> Path:
    """A second level of downsample 3.9 along x and 4.1 along y."""
    path = tmp_path_factory.mktemp("maps") / "uneven.tif"
    return write_slide(path, image, SlideFormat("deflate"), level_sizes=((333, 219),))


@pytest.fixture(scope="session")
def tissue() -> TissueContours:
    """A large piece with a hole in which there is a small piece, and one cut by the far edge."""

    def box(left: int, top: int, right: int, bottom: int) -> np.ndarray:
        corners = [(left, top), (right, top), (right, bottom), (left, bottom)]
        return np.array(corners, dtype=np.int32)

    hole = np.array([[300, 250], [520, 280], [480, 560], [280, 500]], dtype=np.int32)
    return TissueContours(
        (
            TissueContour(box(360, 340, 420, 420)),
            TissueContour(box(70, 90, 790, 780), (hole,)),
            TissueContour(np.array([[900, 100], [1299, 300], [1250, 880]], dtype=np.int32)),
        )
    )

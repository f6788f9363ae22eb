"""What a segmenter must hold to."""

from types import ModuleType
from typing import Self

import cv2
import numpy as np
import numpy.typing as npt

from crane_ray.slides.params import TissueParams
from crane_ray.slides.slide import SlideInfo
from crane_ray.slides.tissue import TissueContours
from crane_ray.testing.histology import PaintedSlide, paint_slide
from crane_ray.testing.truth import fill_ring

SIZE_PX = (1536, 1280)
MPP = 2.0
NUM_LEVELS = 3
MIN_OVERLAP = 0.6
"""Intersection over union with the painted tissue; contours of a level's frame reach 0.1."""

Pixels = npt.NDArray[np.uint8]
Area = npt.NDArray[np.bool_]


class ArrayReader:
    """A `SlideReader` over an image in memory and its halved levels."""

    name = "array"

    def __init__(self, image: Pixels, *, mpp: float = MPP, num_levels: int = NUM_LEVELS) -> None:
        self._levels = [image]
        for _ in range(num_levels - 1):
            height, width = (side // 2 for side in self._levels[-1].shape[:2])
            half = cv2.resize(self._levels[-1], (width, height), interpolation=cv2.INTER_AREA)
            self._levels.append(np.asarray(half, dtype=np.uint8))
        sizes = tuple((level.shape[1], level.shape[0]) for level in self._levels)
        self.info = SlideInfo(
            vendor="array",
            level_dimensions=sizes,
            level_downsamples=tuple(float(2**level) for level in range(num_levels)),
            mpp_xy=(mpp, mpp),
        )

    def read_region(self, xy: tuple[int, int], level: int, size: tuple[int, int]) -> Pixels:
        """See `SlideReader.read_region`."""
        (width, height), pixels = size, self._levels[level]
        left, top = (place // 2**level for place in xy)
        region = np.zeros((height, width, 3), dtype=np.uint8)
        inside = pixels[max(top, 0) : max(top + height, 0), max(left, 0) : max(left + width, 0)]
        down, right = max(-top, 0), max(-left, 0)
        region[down : down + inside.shape[0], right : right + inside.shape[1]] = inside
        return region

    def close(self) -> None:
        """Lets the pixels go."""
        self._levels = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def check_segmenter(module: ModuleType, params: TissueParams | None = None) -> None:
    """Holds a segmenter to ``segment(reader, params) -> TissueContours``.

    Args:
        module: the plug-in.
        params: for slides of 1536 x 1280 px; CLAM's for biopsies with smaller areas by default.

    Raises:
        AssertionError: contours that miss the tissue of painted slides (another frame than
            level-0 px, say), tissue on blank glass, other contours the second time, the reader
            closed, or ``keep_ids`` and ``exclude_ids`` not followed.
    """
    params = params or TissueParams(preset="bwh_biopsy", a_t=0.05, a_h=0.05)
    for seed in range(3):
        slide = paint_slide(np.random.default_rng(seed), size_px=SIZE_PX, mpp=MPP, num_fragments=3)
        with ArrayReader(slide.image) as reader:
            tissue: TissueContours = module.segment(reader, params)
            _check_rings(tissue)
            _check_overlap(tissue, slide)
            assert _same(module.segment(reader, params), tissue), (
                "the same slide gave other contours the second time"
            )
            _check_ids(module, reader, params, tissue)
    glass = np.full((*SIZE_PX[::-1], 3), 242, dtype=np.uint8)
    with ArrayReader(glass) as reader:
        assert not len(module.segment(reader, params)), "tissue was found on blank glass"


def _check_rings(tissue: TissueContours) -> None:
    assert isinstance(tissue, TissueContours), f"a {type(tissue).__name__}, not TissueContours"
    for contour in tissue.contours:
        for ring in (contour.outline, *contour.holes):
            assert ring.dtype == np.int32, f"a ring of {ring.dtype}, not int32"
            assert ring.ndim == 2, f"a ring of shape {ring.shape}, not (V, 2)"
            assert ring.shape[1] == 2, f"a ring of shape {ring.shape}, not (V, 2)"
            assert (ring >= 0).all(), "vertices off the slide"
            assert (ring <= SIZE_PX).all(), "vertices off the slide"


def _check_overlap(tissue: TissueContours, slide: PaintedSlide) -> None:
    found, painted = _area(tissue), slide.truth.tissue_mask(SIZE_PX) > 0
    overlap = (found & painted).sum() / (found | painted).sum()
    assert overlap >= MIN_OVERLAP, (
        f"contours and painted tissue overlap by {overlap:.2f}, {MIN_OVERLAP} is needed (are "
        "the contours in level-0 px?)"
    )


def _check_ids(
    module: ModuleType, reader: ArrayReader, params: TissueParams, tissue: TissueContours
) -> None:
    last = len(tissue) - 1
    for chosen in ({"keep_ids": (last,)}, {"exclude_ids": (0,)}):
        update = params.model_copy(update=chosen)
        expected = tissue.select(update.keep_ids, update.exclude_ids)
        assert _same(module.segment(reader, update), expected), f"{chosen} is not followed"


def _same(one: TissueContours, two: TissueContours) -> bool:
    return one.to_geojson() == two.to_geojson()


def _area(tissue: TissueContours) -> Area:
    mask = np.zeros(SIZE_PX[::-1], dtype=np.uint8)
    for contour in tissue.contours:
        fill_ring(mask, contour.outline.astype(np.float64), 255)
        for hole in contour.holes:
            fill_ring(mask, hole.astype(np.float64), 0)
    return mask > 0

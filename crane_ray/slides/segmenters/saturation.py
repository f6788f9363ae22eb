"""Tissue by colour saturation: CLAM's method (Lu et al., Nature Biomedical Engineering 2021).

Saturation of HSV, median blur, a fixed or Otsu's threshold, morphological closing, contours
and their holes filtered by area. Same slide, same parameters: the same contours as CLAM's, in
the same order.
"""

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from crane_ray.errors import SlideError
from crane_ray.slides.params import TissueParams
from crane_ray.slides.slide import SlideInfo, SlideReader
from crane_ray.slides.tissue import Ring, TissueContour, TissueContours

MAX_LEVEL_PIXELS = 100_000_000
REFERENCE_DOWNSAMPLE = 64
REFERENCE_PATCH_PX = 512


def segment(reader: SlideReader, params: TissueParams) -> TissueContours:
    """The slide's tissue in level-0 px; keep_ids and exclude_ids are applied.

    Raises:
        SlideError: the level is missing, too large to segment, or cannot be decoded.
    """
    level = segmentation_level(reader.info, params)
    rgb_HW3 = reader.read_region((0, 0), level, reader.info.level_dimensions[level])
    downsample_xy = reader.info.downsample_xy(level)
    contours = _contours(tissue_mask(rgb_HW3, params), downsample_xy, params)
    return TissueContours(tuple(contours)).select(params.keep_ids, params.exclude_ids)


def segmentation_level(info: SlideInfo, params: TissueParams) -> int:
    """The level that is segmented: the one asked for, else the best for a downsample of 64."""
    level = info.best_level(REFERENCE_DOWNSAMPLE) if params.seg_level < 0 else params.seg_level
    if level >= info.num_levels:
        raise SlideError(
            f"failed_seg: seg_level {level} asked for, the slide has levels 0 to "
            f"{info.num_levels - 1}; use seg_level -1"
        )
    width, height = info.level_dimensions[level]
    if width * height > MAX_LEVEL_PIXELS:
        raise SlideError(
            f"failed_seg: level {level} of {width} x {height} px is too large to segment "
            f"({MAX_LEVEL_PIXELS:,} px at most); set tissue.seg_level to a lower-resolution level "
            "or convert the slide to a pyramid"
        )
    return level


def tissue_mask(rgb_HW3: npt.NDArray[np.uint8], params: TissueParams) -> npt.NDArray[np.uint8]:
    """(H, W) uint8: 255 where the blurred saturation is above the threshold, else 0."""
    saturation = cv2.cvtColor(rgb_HW3, cv2.COLOR_RGB2HSV)[:, :, 1]
    blurred = cv2.medianBlur(np.ascontiguousarray(saturation), params.mthresh)
    otsu = cv2.THRESH_OTSU if params.use_otsu else 0
    threshold = 0 if params.use_otsu else params.sthresh
    _, mask = cv2.threshold(blurred, threshold, 255, cv2.THRESH_BINARY + otsu)
    if params.close > 0:
        kernel = np.ones((params.close, params.close), dtype=np.uint8)
        mask = cv2.morphologyEx(mask, cv2.MORPH_CLOSE, kernel)
    return np.asarray(mask, dtype=np.uint8)


def _contours(
    mask: npt.NDArray[np.uint8], downsample_xy: tuple[float, float], params: TissueParams
) -> list[TissueContour]:
    found, hierarchy = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    if hierarchy is None:
        return []
    rings = [np.asarray(ring)[:, 0, :] for ring in found]
    parents = np.asarray(hierarchy).reshape(-1, 4)[:, 3]
    areas = np.array([cv2.contourArea(ring) for ring in rings])
    unit = int(REFERENCE_PATCH_PX**2 / (downsample_xy[0] * downsample_xy[1]))
    kept = []
    for index in np.flatnonzero(parents == -1):
        holes = np.flatnonzero(parents == index)
        area = areas[index] - areas[holes].sum()
        if area == 0 or not area > params.a_t * unit:
            continue
        largest = holes[np.argsort(-areas[holes], kind="stable")][: params.max_n_holes]
        whole = [
            _to_level_0(rings[hole], downsample_xy)
            for hole in largest
            if areas[hole] > params.a_h * unit
        ]
        kept.append(TissueContour(_to_level_0(rings[index], downsample_xy), tuple(whole)))
    return kept


def _to_level_0(ring: Any, downsample_xy: tuple[float, float]) -> Ring:
    """(V, 2) ring of a level as int32 level-0 px, truncated as CLAM does."""
    return np.asarray(ring * np.array(downsample_xy), dtype=np.float64).astype(np.int32)

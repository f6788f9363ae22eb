"""Scores of slides for tests, and the painting of maps one patch after the other."""

from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from matplotlib import colormaps

from crane_ray.maps.percentiles import percentiles
from crane_ray.maps.scores import SlideScores
from crane_ray.slides.opening import open_slide
from crane_ray.slides.patches import PatchGrid, PatchSpec, patch_geometry
from crane_ray.slides.slide import Slide, SlideReader
from crane_ray.slides.tissue import TissueContours

Image = npt.NDArray[np.uint8]
"""(H, W, 3) RGB."""
HEADS = ("cell", "amr:yes")


def opened(path: Path) -> SlideReader:
    return open_slide(Slide("a", str(path)))


def lattice(
    size: tuple[int, int], step: int, *, begin: tuple[int, int] = (0, 0)
) -> npt.NDArray[np.int32]:
    """Corners over all of a slide, x outer and y inner, over its far edges too."""
    grid = np.meshgrid(*(np.arange(b, s, step) for b, s in zip(begin, size, strict=True)),
                       indexing="ij")  # fmt: skip
    return np.stack([axis.ravel() for axis in grid], axis=1).astype(np.int32)


def scores_of(
    xy: npt.NDArray[np.int32],
    *,
    footprint: float = 64,
    dimensions: tuple[int, int] = (1300, 900),
    seed: int = 0,
    mpp: float | None = 0.5,
) -> SlideScores:
    raw = np.random.default_rng(seed).normal(size=(len(HEADS), len(xy))).astype(np.float32)
    ranked = np.stack([percentiles(row) for row in raw]).astype(np.float32)
    return SlideScores("a", HEADS, xy, raw, ranked, footprint, dimensions, mpp)


def grid_of(scores: SlideScores, reader: SlideReader) -> PatchGrid:
    spec = PatchSpec(size_px=round(scores.footprint_px), level=0)
    geometry = patch_geometry(spec, reader.info, None)
    return PatchGrid(scores.slide_id, spec, geometry, scores.xy.astype(np.int64), scores.mpp)


def paint_one_by_one(
    slide: Image,
    scale_xy: tuple[float, float],
    scores: SlideScores,
    values: npt.NDArray[np.float64],
    *,
    cmap: str = "coolwarm",
    alpha: float = 0.4,
    threshold: float | None = None,
    overlap: float | None = None,
    tissue: TissueContours | None = None,
    holes: bool = True,
) -> Image:
    """A map as its description has it: patch by patch, on the whole slide at once.

    Args:
        slide: what lies beneath, at the map's size.
        scale_xy: map pixels per level-0 pixel.
        scores: of the slide.
        values: of each patch, 0 to 1.
        cmap: colour map.
        alpha: weight of the colours.
        threshold: binarises.
        overlap: blurs; the share of a patch that its neighbour covers.
        tissue: cuts what is painted.
        holes: whether its holes do so, too.
    """
    height, width = slide.shape[:2]
    corners = np.ceil(scores.xy * np.array(scale_xy)).astype(int)
    wide, high = np.ceil(scores.footprint_px * np.array(scale_xy)).astype(int).tolist()
    total, count = np.zeros((height, width)), np.zeros((height, width))
    painted = np.zeros((height, width), dtype=bool)
    for (x, y), value in zip(corners.tolist(), values.tolist(), strict=True):
        place = np.s_[y : y + high, x : x + wide]
        passed = threshold is None or value >= threshold
        painted[place] |= passed
        total[place] += value if threshold is None else float(passed)
        count[place] += 1
    mean = np.divide(total, count, out=np.zeros_like(total), where=count > 0)
    if threshold is not None:
        mean = np.around(mean)
    kernel = None
    if overlap is not None:
        kernel = (int(wide * (1 - overlap)) * 2 + 1, int(high * (1 - overlap)) * 2 + 1)
        mean = cv2.GaussianBlur(mean, kernel, 0)
    if tissue is not None:
        painted &= tissue_mask(tissue, (width, height), scale_xy, holes=holes)
    colours = (colormaps[cmap](mean) * 255)[..., :3].astype(np.uint8)
    map_ = np.where(painted[..., None], colours, slide)
    if kernel is not None:
        map_ = cv2.GaussianBlur(map_, kernel, 0)
    return np.asarray(cv2.addWeighted(map_, alpha, slide, 1 - alpha, 0))


def tissue_mask(
    tissue: TissueContours,
    size: tuple[int, int],
    scale_xy: tuple[float, float],
    *,
    holes: bool,
) -> npt.NDArray[np.bool_]:
    mask = np.zeros(size[::-1], dtype=np.uint8)

    def fill(ring: npt.NDArray[np.int32], value: int) -> None:
        cv2.drawContours(mask, [(ring * np.array(scale_xy)).astype(np.int32)], -1, value, -1)

    for contour in sorted(tissue.contours, key=lambda one: -cv2.contourArea(one.outline)):
        fill(contour.outline, 1)
        for hole in contour.holes if holes else ():
            fill(hole, 0)
    return mask.astype(bool)

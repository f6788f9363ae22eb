"""Segmentation and patch coordinates of a slide of 60,000 px square, beside a loop over points.

The slide is a picture in memory, so that no decoding is counted. The comparator segments with the
same calls of OpenCV and then asks ``cv2.pointPolygonTest`` of every point, one after the other.
"""

from functools import partial
from typing import Any, Self

import cv2
import numpy as np
import numpy.typing as npt

from crane_ray.slides.params import TissueParams
from crane_ray.slides.patches import PatchSpec, in_contour, patch_geometry, plan_patches
from crane_ray.slides.segmenters import saturation
from crane_ray.slides.slide import SlideInfo
from tests.benchmarks.table import Options, Row, interleaved, pinned

SIDE_PX, DOWNSAMPLE = 60_000, 32
SPEC = PatchSpec(size_px=256, level=0)
PARAMS = TissueParams(a_t=1, a_h=1)
LEVEL_PX = SIDE_PX // DOWNSAMPLE
TIMES, POINT_TIMES = 4.0, 50.0


class Picture:
    """A slide whose only small level is an array."""

    name = "picture"

    def __init__(self, pixels: npt.NDArray[np.uint8]) -> None:
        self._pixels = pixels
        sizes = ((SIDE_PX, SIDE_PX), (LEVEL_PX, LEVEL_PX))
        self.info = SlideInfo("synthetic", sizes, (1.0, float(DOWNSAMPLE)), (0.5, 0.5))

    def read_region(
        self, xy: tuple[int, int], level: int, size: tuple[int, int]
    ) -> npt.NDArray[np.uint8]:
        """The whole level, which is all that is asked for."""
        assert (xy, level, size) == ((0, 0), 1, (LEVEL_PX, LEVEL_PX))
        return self._pixels

    def close(self) -> None:
        """Nothing to close."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        pass


def tissue_picture() -> npt.NDArray[np.uint8]:
    """One lobed piece of tissue on glass, its outline of about 12,000 points, with holes."""
    angles = np.linspace(0, 2 * np.pi, 4000, endpoint=False)
    lobes = 0.3 + 0.02 * np.sin(7 * angles) + 0.02 * np.sin(97 * angles)
    points = LEVEL_PX * (0.5 + lobes[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1))
    picture = np.full((LEVEL_PX, LEVEL_PX, 3), 243, np.uint8)
    cv2.fillPoly(picture, [points.astype(np.int32)], (200, 120, 170))
    for x, y in ((0.4, 0.4), (0.6, 0.55), (0.45, 0.65)):
        cv2.circle(picture, (int(x * LEVEL_PX), int(y * LEVEL_PX)), 45, (243, 243, 243), -1)
    return picture


def measure(options: Options) -> list[Row]:
    """Two rows: all of it, and the point tests alone."""
    reader = Picture(tissue_picture())
    cv2.setNumThreads(1)
    rounds = 2 if options.quick else 5
    (ring, holes) = _rings(reader)[0]
    corners = _lattice(ring)
    with pinned(options.core):
        times = interleaved(
            {"ours": partial(_ours, reader), "loop": partial(_one_at_a_time, reader),
             "segmentation": partial(_rings, reader)},
            rounds,
        )  # fmt: skip
        tests = interleaved(
            {"ours": partial(_points, ring, corners), "loop": partial(_point_loop, ring, corners)},
            rounds,
        )
    assert np.array_equal(_ours(reader), _one_at_a_time(reader)), "coordinates differ"
    assert np.array_equal(_points(ring, corners), _point_loop(ring, corners)), "points differ"
    whole = times["loop"].best_s / times["ours"].best_s
    points = tests["loop"].best_s / tests["ours"].best_s
    size = f"{len(corners):,} candidates, {len(ring):,} vertices, {len(holes)} holes"
    return [
        Row(
            "segmentation + coordinates, 60,000 px square",
            1000 * times["ours"].best_s,
            "CPU-ms",
            f">= {TIMES:g}x, identical",
            whole >= TIMES,
            comparator=1000 * times["loop"].best_s,
            floor=1000 * times["segmentation"].best_s,
            ratio=whole,
            note=f"{size}; floor: segmentation alone",
        ),
        Row(
            "point tests (any of four a candidate)",
            1000 * tests["ours"].best_s,
            "CPU-ms",
            f">= {POINT_TIMES:g}x, identical",
            points >= POINT_TIMES,
            comparator=1000 * tests["loop"].best_s,
            ratio=points,
        ),
    ]


def _ours(reader: Picture) -> npt.NDArray[np.int64]:
    tissue = saturation.segment(reader, PARAMS)
    return plan_patches(tissue, reader.info, SPEC, PARAMS).xy


def _rings(reader: Picture) -> list[tuple[Any, list[Any]]]:
    """Outlines and their holes in level-0 px, by plain OpenCV."""
    pixels = reader.read_region((0, 0), 1, (LEVEL_PX, LEVEL_PX))
    saturation_HW = cv2.cvtColor(pixels, cv2.COLOR_RGB2HSV)[:, :, 1]
    blurred = cv2.medianBlur(np.ascontiguousarray(saturation_HW), PARAMS.mthresh)
    _, mask = cv2.threshold(blurred, PARAMS.sthresh, 255, cv2.THRESH_BINARY)
    kernel = np.ones((PARAMS.close, PARAMS.close), np.uint8)
    mask = cv2.morphologyEx(mask, cv2.MORPH_CLOSE, kernel)
    rings, tree = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    outlines = [n for n, links in enumerate(tree[0]) if links[3] == -1]
    return [
        (rings[n] * DOWNSAMPLE, [rings[m] * DOWNSAMPLE for m in _children(tree, n)])
        for n in outlines
    ]


def _children(tree: Any, outline: int) -> list[int]:
    return [n for n, links in enumerate(tree[0]) if links[3] == outline]


def _lattice(ring: Any) -> npt.NDArray[np.int64]:
    left, top, width, height = cv2.boundingRect(ring)
    xs = np.arange(left, left + width, SPEC.size_px)
    ys = np.arange(top, top + height, SPEC.size_px)
    return np.stack(np.meshgrid(xs, ys, indexing="ij"), axis=-1).reshape(-1, 2)


def _one_at_a_time(reader: Picture) -> npt.NDArray[np.int64]:
    """Kept where any of four points about a patch's centre is inside, and it is in no hole."""
    kept = []
    half = SPEC.size_px // 2
    for ring, holes in _rings(reader):
        for x, y in _lattice(ring).tolist():
            centre = (x + half, y + half)
            if _any_inside(ring, x, y) and not any(
                cv2.pointPolygonTest(hole, centre, False) > 0 for hole in holes
            ):
                kept.append((x, y))
    return np.array(kept, dtype=np.int64)


def _points(ring: Any, corners: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    geometry = patch_geometry(SPEC, SlideInfo("", ((SIDE_PX, SIDE_PX),), (1.0,)), None)
    return in_contour(ring[:, 0, :], corners, geometry, "four_pt")


def _point_loop(ring: Any, corners: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    return np.array([_any_inside(ring, x, y) for x, y in corners.tolist()])


def _any_inside(ring: Any, x: int, y: int) -> bool:
    """Whether any of four points about a patch's centre is inside or on the ring."""
    half = SPEC.size_px // 2
    near, far = half - half // 2, half + half // 2
    points = [(x + a, y + b) for a in (far, near) for b in (far, near)]
    return any(cv2.pointPolygonTest(ring, point, False) >= 0 for point in points)

"""Regions of high attention as GeoJSON polygons that QuPath opens."""

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from crane_ray.maps.cells import Cells, Ints, Rectangles
from crane_ray.maps.outlines import outlines
from crane_ray.maps.scores import SlideScores

COLOUR_RGB = (200, 0, 0)
"""Of the class in QuPath."""


@dataclass(frozen=True, eq=False)
class Region:
    """Cells of high attention that share edges."""

    rings: list[Ints]
    """The outline, then its holes: (V, 2) xy vertices in level-0 px, not repeating the first."""
    mean: float
    """Percentile, 0 to 1, over its area."""
    highest: float
    """Percentile, 0 to 1, of its highest cell."""
    area_px: int
    """Level-0 px."""


def find_regions(scores: SlideScores, head: str, at_least: float) -> list[Region]:
    """Where a head's percentile is at or above a threshold, largest region first.

    Patches that overlap are averaged wherever they lie over one another; patches that touch with
    an edge are one region, with a corner two. What reaches over the slide's edge is cut off.

    Args:
        scores: of the slide.
        head: which of their heads.
        at_least: percentile, 0 to 1.

    Raises:
        StoreError: there is no such head.
    """
    percentile_N = scores.of(head).astype(np.float64)
    low_N2, high_N2 = _corners(scores)
    regions = []
    # A float32 percentile may lie a hair below the number that it stands for.
    at_least = float(np.nextafter(np.float32(at_least), np.float32(-1)))
    for rows in _groups(low_N2, high_N2, scores.footprint_px):
        if percentile_N[rows].max() < at_least:
            continue
        patches = Rectangles(
            low_N2[rows], high_N2[rows], percentile_N[rows], np.ones(len(rows), dtype=np.bool_)
        )
        window = (*low_N2[rows].min(axis=0).tolist(), *high_N2[rows].max(axis=0).tolist())
        regions += _regions(patches.cells(*window), at_least)
    return sorted(regions, key=lambda region: (-region.area_px, region.rings[0][0].tolist()))


def regions_geojson(scores: SlideScores, head: str, at_least: float) -> dict[str, Any]:
    """A FeatureCollection of a head's regions in level-0 px; see `find_regions`."""
    found = find_regions(scores, head, at_least)
    return {
        "type": "FeatureCollection",
        "crane_ray": {"frame": "level-0 px", "head": head, "percentile_from": at_least},
        "features": [
            _feature(region, number, head, scores.mpp) for number, region in enumerate(found, 1)
        ],
    }


def _corners(scores: SlideScores) -> tuple[Ints, Ints]:
    """Patches in whole level-0 px, cut off at the slide's edges.

    A footprint that is no whole number has neighbours a rounded step apart: their edges, which
    may miss one another by a pixel, are moved together.
    """
    low = scores.xy.astype(np.int64)
    high = np.ceil(low + scores.footprint_px).astype(np.int64)
    if scores.footprint_px != round(scores.footprint_px):
        for axis in (0, 1):
            starts = np.unique(low[:, axis])
            place = np.searchsorted(starts, high[:, axis] - 1).clip(max=len(starts) - 1)
            near = np.abs(starts[place] - high[:, axis]) <= 1
            high[near, axis] = starts[place[near]]
    size = np.array(scores.dimensions)
    return low.clip(0, size), high.clip(0, size)


def _groups(low_N2: Ints, high_N2: Ints, footprint_px: float) -> list[Ints]:
    """Rows of patches such that those of two groups cannot touch.

    Patches are put into squares of about their own size and squares that touch belong together, so
    that what is cut into cells is one piece of tissue, not the slide.
    """
    if not len(low_N2):
        return []
    edge = max(1, int(np.ceil(footprint_px)))
    first, last = low_N2 // edge, high_N2 // edge
    width, height = (last.max(axis=0) + 1).tolist()
    squares = np.zeros((height, width), dtype=np.uint8)
    for x, y in ((first, first), (first, last), (last, first), (last, last)):
        squares[y[:, 1], x[:, 0]] = 1
    _, labels = cv2.connectedComponents(squares, connectivity=8)
    label_N = labels[first[:, 1], first[:, 0]]
    order = np.argsort(label_N, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(label_N[order])) + 1)


def _regions(cells: Cells, at_least: float) -> list[Region]:
    inside = cells.covered_YX & (cells.mean_YX >= at_least)
    area_YX = np.diff(cells.ys)[:, None] * np.diff(cells.xs)[None]
    inside &= area_YX > 0
    count, labels_YX = cv2.connectedComponents(inside.astype(np.uint8), connectivity=4)
    rings = outlines(labels_YX, cells.xs, cells.ys)
    label, area, mean = labels_YX[inside], area_YX[inside], cells.mean_YX[inside]
    areas = np.bincount(label, area, minlength=count)
    sums = np.bincount(label, area * mean, minlength=count)
    highest = np.zeros(count)
    np.maximum.at(highest, label, mean)
    return [
        Region(
            rings[number],
            float(sums[number] / areas[number]),
            float(highest[number]),
            int(areas[number]),
        )
        for number in range(1, count)
    ]


def _feature(region: Region, number: int, head: str, mpp: float | None) -> dict[str, Any]:
    measurements = {
        "Mean percentile": round(region.mean, 6),
        "Max percentile": round(region.highest, 6),
        "Area px^2": region.area_px,
    }
    if mpp is not None:
        measurements["Area um^2"] = round(region.area_px * mpp * mpp, 3)
    return {
        "type": "Feature",
        "properties": {
            "objectType": "annotation",
            "name": f"{head} {number}",
            "classification": {"name": f"High attention: {head}", "color": list(COLOUR_RGB)},
            "measurements": measurements,
        },
        "geometry": {
            "type": "Polygon",
            "coordinates": [np.concatenate([ring, ring[:1]]).tolist() for ring in region.rings],
        },
    }

"""What is laid over a slide: scores of patches, the patch grid, and the patches that stand out.

Scores go to the page as numbers, once a head, and are coloured there, so that opacity, colour map
and threshold answer at once: 120,000 patches are 0.96 MB of places and 0.48 MB a head.
"""

import threading
from collections import OrderedDict
from typing import Any

import numpy as np
import numpy.typing as npt

from crane_ray.errors import StoreError
from crane_ray.maps.scores import SlideScores, read_scores

KINDS = ("percentile", "raw")
HELD = 6
"""Slides whose scores stay in memory; 120,000 patches with four heads take 5 MB."""
MAX_EXTREMES = 48

Points = npt.NDArray[np.int32]


class ScoreFiles:
    """The scores of the slides looked at last; safe to use from several threads."""

    def __init__(self) -> None:
        self._held: OrderedDict[tuple[str, str], SlideScores] = OrderedDict()
        self._lock = threading.Lock()

    def read(self, path: str, version: str) -> SlideScores:
        """The scores in a file.

        Raises:
            StoreError: it is not there, or holds something else.
        """
        key = (path, version)
        with self._lock:
            if key in self._held:
                self._held.move_to_end(key)
                return self._held[key]
        scores = read_scores(path)
        with self._lock:
            self._held[key] = scores
            while len(self._held) > HELD:
                self._held.popitem(last=False)
        return scores


def describe(scores: SlideScores) -> dict[str, Any]:
    """What the page must know before it paints."""
    return {
        "heads": list(scores.heads),
        "count": len(scores),
        "footprint_px": scores.footprint_px,
        "cell_px": cell_px(scores.xy, scores.footprint_px),
        "raw_ranges": [_range(row) for row in scores.raw_HN],
    }


def cell_px(xy: Points, footprint_px: float) -> float:
    """Edge of the square to paint for a patch, level-0 px.

    The patch itself, unless patches overlap, as in dense maps: then the distance of neighbours, so
    that each score colours the middle of its patch and none hides another.
    """
    if len(xy) < 2:
        return footprint_px
    order = np.lexsort((xy[:, 0], xy[:, 1]))
    ordered = xy[order].astype(np.int64)
    steps = np.diff(ordered[:, 0])[np.diff(ordered[:, 1]) == 0]
    steps = steps[steps > 0]
    if not len(steps):
        return footprint_px
    return float(min(footprint_px, np.median(steps)))


def places(xy: Points) -> bytes:
    """x, y of each patch as little-endian int32."""
    return np.ascontiguousarray(xy, dtype="<i4").tobytes()


def values(scores: SlideScores, head: str, kind: str) -> bytes:
    """A head's scores as little-endian float32, in the order of the places.

    Raises:
        StoreError: no such head, or no such kind.
    """
    if kind not in KINDS:
        raise StoreError(f"kind {kind!r}: {' and '.join(KINDS)} are known")
    return np.ascontiguousarray(scores.of(head, kind), dtype="<f4").tobytes()


def extremes(scores: SlideScores, head: str, count: int, *, lowest: bool) -> list[dict[str, Any]]:
    """The patches with the highest or lowest scores that do not overlap one another.

    Raises:
        StoreError: no such head.
    """
    raw_N = scores.of(head, "raw")
    percentile_N = scores.of(head, "percentile")
    order = np.argsort(raw_N if lowest else -raw_N, kind="stable")
    chosen: list[int] = []
    for place in order:
        if len(chosen) == min(count, MAX_EXTREMES):
            break
        gaps = np.abs(scores.xy[chosen] - scores.xy[place]).max(axis=1)
        if not (gaps < scores.footprint_px).any():
            chosen.append(int(place))
    return [
        {
            "x": int(scores.xy[place, 0]),
            "y": int(scores.xy[place, 1]),
            "raw": float(raw_N[place]) if np.isfinite(raw_N[place]) else None,
            "percentile": float(percentile_N[place]),
        }
        for place in chosen
    ]


def _range(row_N: npt.NDArray[np.float32]) -> tuple[float, float] | None:
    finite = row_N[np.isfinite(row_N)]
    return (float(finite.min()), float(finite.max())) if len(finite) else None

"""What is painted where on a synthetic slide, and the GeoJSON that carries it.

Frame: level-0 pixels, xy, pixel i covering [i, i + 1). Rings are open: the last vertex joins
the first.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast, get_args

import cv2
import numpy as np
import numpy.typing as npt

from crane_ray import storage
from crane_ray.errors import ConfigError

Ring = npt.NDArray[np.float64]
"""(V, 2) xy vertices in level-0 px."""

Mask = npt.NDArray[np.uint8]
"""(H, W), 255 inside and 0 outside."""

LesionKind = Literal["cell", "amr", "quilty"]
LESION_KINDS: tuple[LesionKind, ...] = get_args(LesionKind)

TISSUE_NAME = "tissue"
"""Classification of tissue polygons in the GeoJSON; lesions carry their kind."""

_COLORS = {
    TISSUE_NAME: (0, 160, 0),
    "cell": (200, 0, 0),
    "amr": (220, 140, 0),
    "quilty": (0, 0, 200),
}
_SUBPIXEL_BITS = 4
"""Vertices are rasterised to 1/16 px."""


@dataclass(frozen=True, eq=False)
class TissuePolygon:
    """One tissue fragment: its outline, and the holes that show glass."""

    outline: Ring
    holes: tuple[Ring, ...] = ()


@dataclass(frozen=True, eq=False)
class Lesion:
    """One lesion: what it is, and the ring that bounds everything painted of it."""

    kind: LesionKind
    outline: Ring


@dataclass(frozen=True, eq=False)
class SlideTruth:
    """All that is known of a synthetic slide."""

    tissue: tuple[TissuePolygon, ...]
    lesions: tuple[Lesion, ...] = ()

    def lesions_of(self, kind: LesionKind) -> tuple[Lesion, ...]:
        """The lesions of one kind, in the order they were painted."""
        return tuple(lesion for lesion in self.lesions if lesion.kind == kind)

    def tissue_mask(self, size_px: tuple[int, int], downsample: float = 1.0) -> Mask:
        """Tissue as (H, W) uint8, 255 on tissue, 0 on glass and in holes.

        Args:
            size_px: (width, height) of the mask, in its own pixels.
            downsample: level-0 px per pixel of the mask.
        """
        mask = np.zeros(size_px[::-1], dtype=np.uint8)
        for polygon in self.tissue:
            fill_ring(mask, polygon.outline / downsample, 255)
            for hole in polygon.holes:
                fill_ring(mask, hole / downsample, 0)
        return mask

    def lesion_mask(
        self, size_px: tuple[int, int], kind: LesionKind, downsample: float = 1.0
    ) -> Mask:
        """Lesions of one kind as (H, W) uint8, 255 inside; arguments as in `tissue_mask`."""
        mask = np.zeros(size_px[::-1], dtype=np.uint8)
        for lesion in self.lesions_of(kind):
            fill_ring(mask, lesion.outline / downsample, 255)
        return mask


def fill_ring(
    plane: npt.NDArray[np.uint8], ring: Ring, value: int, *, smooth: bool = False
) -> None:
    """Fills a ring on a (H, W) uint8 plane in place, with anti-aliased edges if `smooth`."""
    # OpenCV's integer coordinates are pixel centres, ours are pixel corners.
    fixed = np.rint((ring - 0.5) * (1 << _SUBPIXEL_BITS)).astype(np.int32)
    line = cv2.LINE_AA if smooth else cv2.LINE_8
    cv2.fillPoly(plane, [fixed], color=(value,), lineType=line, shift=_SUBPIXEL_BITS)


def write_truth(path: Path, truth: SlideTruth) -> None:
    """Writes a slide's truth as a GeoJSON feature collection that QuPath opens as annotations."""
    collection = {"type": "FeatureCollection", "features": list(_features(truth))}
    storage.put_bytes(str(path), json.dumps(collection).encode())


def read_truth(path: Path) -> SlideTruth:
    """The truth that `write_truth` wrote, to the vertex.

    Raises:
        ConfigError: the file holds a classification that no synthetic slide has.
    """
    tissue: list[TissuePolygon] = []
    lesions: list[Lesion] = []
    for feature in json.loads(storage.read_bytes(str(path)))["features"]:
        name = feature["properties"]["classification"]["name"]
        rings = [np.asarray(ring, dtype=np.float64)[:-1] for ring in _coordinates(feature)]
        if name == TISSUE_NAME:
            tissue.append(TissuePolygon(rings[0], tuple(rings[1:])))
        elif name in LESION_KINDS:
            lesions.append(Lesion(cast(LesionKind, name), rings[0]))
        else:
            allowed = ", ".join((TISSUE_NAME, *LESION_KINDS))
            raise ConfigError(
                f"{path}: classification {name!r} is none of {allowed}; is it a truth file?"
            )
    return SlideTruth(tuple(tissue), tuple(lesions))


def _features(truth: SlideTruth) -> Iterator[dict[str, Any]]:
    for polygon in truth.tissue:
        yield _feature(TISSUE_NAME, (polygon.outline, *polygon.holes))
    for lesion in truth.lesions:
        yield _feature(lesion.kind, (lesion.outline,))


def _feature(name: str, rings: tuple[Ring, ...]) -> dict[str, Any]:
    # GeoJSON closes its rings: the first vertex stands at the end once more.
    closed = [np.vstack([ring, ring[:1]]).tolist() for ring in rings]
    return {
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": closed},
        "properties": {
            "objectType": "annotation",
            "classification": {"name": name, "color": _COLORS[name]},
        },
    }


def _coordinates(feature: dict[str, Any]) -> list[list[list[float]]]:
    return cast(list[list[list[float]]], feature["geometry"]["coordinates"])

"""TissueContours: where the tissue is, as polygons with holes; GeoJSON out and back in."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from crane_ray import storage
from crane_ray.errors import SlideError

Ring = npt.NDArray[np.int32]
"""(V, 2) int32 xy vertices in level-0 px; closed without repeating the first vertex."""

MIN_RING_VERTICES = 3
MAX_COORDINATE = 2**31 - 1
"""Vertices are int32."""


@dataclass(frozen=True)
class TissueContour:
    """One piece of tissue: its outline and the holes in it."""

    outline: Ring
    holes: tuple[Ring, ...] = ()


@dataclass(frozen=True)
class TissueContours:
    """All pieces of tissue of a slide, in the segmenter's order (which patches inherit)."""

    contours: tuple[TissueContour, ...] = ()

    def __len__(self) -> int:
        return len(self.contours)

    def select(self, keep_ids: tuple[int, ...], exclude_ids: tuple[int, ...]) -> "TissueContours":
        """Those contours named in keep_ids (all where it is empty) and not in exclude_ids."""
        kept = keep_ids or range(len(self.contours))
        return TissueContours(
            tuple(
                contour
                for index, contour in enumerate(self.contours)
                if index in kept and index not in exclude_ids
            )
        )

    def to_geojson(self) -> dict[str, Any]:
        """A FeatureCollection of polygons in level-0 px that QuPath opens as annotations.

        Rings are written vertex by vertex as they are, so that `from_geojson` gives back the
        same contours; ``crane_ray.fingerprint`` tells a file that was edited since.
        """
        features = [_feature(index, contour) for index, contour in enumerate(self.contours)]
        return {
            "type": "FeatureCollection",
            "crane_ray": {"frame": "level-0 px", "fingerprint": _fingerprint(features)},
            "features": features,
        }

    @classmethod
    def from_geojson(cls, tree: Mapping[str, Any]) -> "TissueContours":
        """Contours from a FeatureCollection, Feature, geometry, or list of Features (QuPath).

        Polygons and multipolygons count, in file order; vertices are rounded to whole pixels.

        Raises:
            SlideError: no GeoJSON, or coordinates that are no rings of points.
        """
        contours = []
        for rings in _polygons(tree):
            outline, *holes = [_ring(ring) for ring in rings]
            if len(outline) < MIN_RING_VERTICES:
                continue
            whole = tuple(hole for hole in holes if len(hole) >= MIN_RING_VERTICES)
            contours.append(TissueContour(outline, whole))
        return cls(tuple(contours))


def read_contours(path: str) -> TissueContours:
    """Contours from a GeoJSON file.

    Raises:
        SlideError: the file is not GeoJSON or holds no polygons that can be used.
    """
    try:
        return TissueContours.from_geojson(json.loads(storage.read_bytes(path)))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise SlideError(f"contours {path}: not usable GeoJSON: {error}") from error


def write_contours(path: str, tissue: TissueContours) -> None:
    """Writes the contours as GeoJSON, unless the file there was edited by somebody.

    An edited file that holds these very contours is left as it is: they were read from it, or
    from a copy.

    Raises:
        SlideError: the file there is not as crane-ray wrote it; it is left alone.
    """
    if storage.exists(path) and is_edited(path):
        if _holds(path, tissue):
            return
        raise SlideError(
            f"contours {path}: edited since they were written, and not overwritten; use them "
            "with --contours FOLDER, or move the file away to have the slide segmented anew"
        )
    storage.put_bytes(path, json.dumps(tissue.to_geojson()).encode())


def is_edited(path: str) -> bool:
    """True where a GeoJSON file's polygons are not those that crane-ray wrote into it."""
    try:
        tree = json.loads(storage.read_bytes(path))
        return bool(tree["crane_ray"]["fingerprint"] != _fingerprint(tree["features"]))
    except (ValueError, TypeError, KeyError):
        return True


def _holds(path: str, tissue: TissueContours) -> bool:
    try:
        found = read_contours(path)
    except SlideError:
        return False
    return found.to_geojson() == tissue.to_geojson()


def _feature(index: int, contour: TissueContour) -> dict[str, Any]:
    rings = [contour.outline, *contour.holes]
    return {
        "type": "Feature",
        "properties": {
            "objectType": "annotation",
            "name": f"tissue {index}",
            "classification": {"name": "Tissue", "color": [0, 160, 0]},
        },
        "geometry": {
            "type": "Polygon",
            "coordinates": [np.concatenate([ring, ring[:1]]).tolist() for ring in rings],
        },
    }


def _fingerprint(features: Any) -> str:
    geometry = [feature["geometry"] for feature in features]
    text = json.dumps(geometry, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _polygons(tree: Any) -> Iterable[list[Any]]:
    """The coordinates of every polygon, whatever wraps them."""
    if isinstance(tree, list):
        for item in tree:
            yield from _polygons(item)
        return
    kind = tree.get("type")
    if kind == "FeatureCollection":
        yield from _polygons(tree["features"])
    elif kind == "Feature":
        yield from _polygons(tree["geometry"])
    elif kind == "GeometryCollection":
        yield from _polygons(tree["geometries"])
    elif kind == "Polygon":
        yield tree["coordinates"]
    elif kind == "MultiPolygon":
        yield from tree["coordinates"]
    elif kind not in {"Point", "MultiPoint", "LineString", "MultiLineString"}:
        raise SlideError(f"a {kind!r} where a Feature or geometry is expected")


def _ring(points: Any) -> Ring:
    vertices = np.asarray(points, dtype=np.float64)
    if vertices.ndim != 2 or vertices.shape[1] < 2:
        raise ValueError(f"a ring is a list of [x, y] points, not of shape {vertices.shape}")
    if not (np.abs(vertices[:, :2]) < MAX_COORDINATE).all():
        raise ValueError("a ring's coordinates must be finite level-0 pixels")
    ring = np.rint(vertices[:, :2]).astype(np.int32)
    if len(ring) > 1 and (ring[0] == ring[-1]).all():
        ring = ring[:-1]
    return ring

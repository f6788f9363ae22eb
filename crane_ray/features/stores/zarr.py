"""Slides as Zarr v3 groups: ``features`` (N, D), ``coords`` (N, 2) int32, uncompressed chunks."""

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import zarr
from zarr.errors import ContainsArrayError, ContainsGroupError

from crane_ray import remote, storage
from crane_ray.errors import CraneError, StoreError
from crane_ray.features.store import Array, SlideHeader

Result = TypeVar("Result")

MISSING_COORD = -(2**31)
"""Fill values that no patch has (NaN for features): a missing chunk never reads as data."""


class ZarrFormat:
    """One group a slide; a chunk is ``chunk_rows`` rows (or all of a smaller slide's)."""

    def path(self, slides: str, slide_id: str) -> str:
        """See `SlideFormat.path`."""
        return storage.join(slides, f"{slide_id}.zarr")

    def write(self, path: str, header: SlideHeader, start: int, features: Array, xy: Array) -> None:
        """See `SlideFormat.write`; the arrays' metadata are written by whoever comes first."""
        rows = slice(start, start + len(features))

        def put() -> None:
            stored_features, stored_coords = _ensure(path, header)
            stored_features[rows] = features
            stored_coords[rows] = xy.astype(np.int32)

        try:
            _retrying(path, put)
        except Exception as error:
            if isinstance(error, CraneError) or not storage.is_storage_error(error):
                raise
            raise storage.write_error(path, error) from error

    def read(self, path: str, start: int, stop: int | None) -> tuple[Array, Array]:
        """See `SlideFormat.read`; storage that does not answer is no missing chunk."""

        def get() -> tuple[Array, Array]:
            place = remote.zarr_store(path) if storage.is_uri(path) else path
            group: Any = zarr.open_group(place, mode="r", zarr_format=3)
            return group["features"][start:stop], group["coords"][start:stop]

        try:
            features, xy = _retrying(path, get)
        except (*storage.MISSING, KeyError, ValueError, TypeError) as error:
            raise StoreError(f"{path}: arrays cannot be read: {error}") from error
        except Exception as error:
            if not storage.is_storage_error(error):
                raise
            raise storage.read_error(path, error) from error
        if np.isnan(features).any() or (xy == MISSING_COORD).any():
            raise StoreError(
                f"{path}: a chunk of rows {start} to {start + len(features)} is missing; run "
                "crane-ray verify on the store"
            )
        return features, xy


def _retrying(path: str, action: Callable[[], Result]) -> Result:
    """On URIs each request is tried again, which are too many for none to fail in one go."""
    return action() if storage.is_uri(path) else storage.retrying(action)


def _ensure(path: str, header: SlideHeader) -> tuple[Any, Any]:
    """The slide's two arrays, opened or made; making them twice writes the same bytes."""
    group: Any
    place = remote.zarr_store(path) if storage.is_uri(path) else path
    try:
        group = zarr.open_group(place, mode="r+", zarr_format=3)
    except FileNotFoundError:
        try:
            group = zarr.create_group(place, attributes=header.facts, zarr_format=3)
        except ContainsGroupError:
            group = zarr.open_group(place, mode="r+", zarr_format=3)
    if dict(group.attrs) != header.facts:
        raise StoreError(
            f"{path}: an interrupted run left arrays of other patches there; run the same "
            "command again, which clears them"
        )
    rows, chunk = header.num_patches, min(header.chunk_rows, header.num_patches)
    features = _array(group, "features", (rows, header.dim), chunk, header.dtype, fill=np.nan)
    coords = _array(group, "coords", (rows, 2), chunk, "int32", fill=MISSING_COORD)
    return features, coords


def _array(
    group: Any, name: str, shape: tuple[int, int], chunk: int, dtype: str, *, fill: float
) -> Any:
    if name in group:
        return group[name]
    layout = {"chunks": (chunk, shape[1]), "compressors": None, "fill_value": fill}
    try:
        return group.create_array(name, shape=shape, dtype=dtype, **layout)
    except ContainsArrayError:
        return group[name]


FORMAT = ZarrFormat()

"""Slides as Zarr v3 groups: ``features`` (N, D), ``coords`` (N, 2) int32, uncompressed chunks.

Any Zarr library opens them. They are written and read here without one: a chunk is the rows'
plain little-endian bytes in a file of its own, and two small JSON files say so, which takes a tenth
of the time that the library needs for a small slide and half of it for a large one.
"""

import json
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from io import BufferedIOBase
from typing import Any, cast

import numpy as np

from crane_ray import storage
from crane_ray.errors import StorageError, StoreError
from crane_ray.features.store import Array, SlideHeader, put_file

MISSING_COORD = -(2**31)
"""Fill values that no patch has (NaN for features): a missing chunk never reads as data."""
VERIFY = "; run crane-ray verify on the store"
REQUESTS_AT_ONCE = 8
"""Chunks that are fetched together from behind a URI; local ones are read one by one."""


class ZarrFormat:
    """One group a slide; a chunk is ``chunk_rows`` rows (or all of a smaller slide's)."""

    def path(self, slides: str, slide_id: str) -> str:
        """See `SlideFormat.path`."""
        return storage.join(slides, f"{slide_id}.zarr")

    def write(self, path: str, header: SlideHeader, start: int, features: Array, xy: Array) -> None:
        """See `SlideFormat.write`; whoever comes first writes the metadata, too."""
        _ensure(path, header)
        chunk = _chunk_rows(header)
        parts = (
            ("features", features.astype(_little(header.dtype), copy=False), np.nan),
            ("coords", xy.astype("<i4", copy=False), MISSING_COORD),
        )
        for name, rows, fill in parts:
            for first in range(0, len(rows), chunk):
                data = rows[first : first + chunk]
                if len(data) < chunk:
                    empty = np.full((chunk - len(data), rows.shape[1]), fill, rows.dtype)
                    data = np.concatenate([data, empty])
                number = (start + first) // chunk
                put_file(path, f"{name}/c/{number}/0", data.tobytes())

    def read(self, path: str, start: int, stop: int | None) -> tuple[Array, Array]:
        """See `SlideFormat.read`; storage that does not answer is no missing chunk."""
        return _read_rows(path, "features", start, stop), _read_rows(path, "coords", start, stop)


def _little(dtype: str) -> np.dtype[Any]:
    return np.dtype(dtype).newbyteorder("<")


def _chunk_rows(header: SlideHeader) -> int:
    return min(header.chunk_rows, header.num_patches)


def _ensure(path: str, header: SlideHeader) -> None:
    """Writes the metadata unless they are there; the group's come last and stand for all."""
    found = _read_json(storage.join(path, "zarr.json"))
    if found is None:
        rows, chunk = header.num_patches, _chunk_rows(header)
        _put_json(
            path,
            "features/zarr.json",
            _array_metadata((rows, header.dim), chunk, header.dtype, "NaN"),
        )
        _put_json(
            path,
            "coords/zarr.json",
            _array_metadata((rows, 2), chunk, "int32", MISSING_COORD),
        )
        facts = {"attributes": header.facts, "zarr_format": 3, "node_type": "group"}
        _put_json(path, "zarr.json", facts)
    elif found.get("attributes") != header.facts:
        raise StoreError(
            f"{path}: an interrupted run left arrays of other patches there; run the same "
            "command again, which clears them"
        )


def _array_metadata(
    shape: tuple[int, int], chunk: int, dtype: str, fill: str | int
) -> dict[str, Any]:
    """An array's zarr.json, in the order in which zarr-python writes it."""
    return {
        "shape": list(shape),
        "data_type": dtype,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [chunk, shape[1]]}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": fill,
        "codecs": [{"name": "bytes", "configuration": {"endian": "little"}}],
        "attributes": {},
        "zarr_format": 3,
        "node_type": "array",
        "storage_transformers": [],
    }


def _read_rows(path: str, name: str, start: int, stop: int | None) -> Array:
    """Rows [start, stop) of one array, each chunk read straight into its place."""
    metadata = _read_json(storage.join(path, name, "zarr.json"))
    try:
        assert metadata is not None
        (num_rows, width), dtype = metadata["shape"], np.dtype(metadata["data_type"])
        chunk = metadata["chunk_grid"]["configuration"]["chunk_shape"][0]
        expected = _array_metadata((num_rows, width), chunk, str(dtype), metadata["fill_value"])
        assert metadata == expected
    except (AssertionError, KeyError, IndexError, TypeError, ValueError) as error:
        state = "missing" if metadata is None else "not what crane-ray writes"
        raise StoreError(f"{path}: the metadata of {name} are {state}{VERIFY}") from error
    stop = num_rows if stop is None else min(stop, num_rows)
    rows = np.empty((max(stop - start, 0), width), dtype.newbyteorder("<"))

    def fill(number: int) -> None:
        first = max(start, number * chunk)
        last = min(stop, (number + 1) * chunk)
        place = rows[first - start : last - start]
        skipped = (first - number * chunk) * rows.strides[0]
        file = storage.join(path, name, f"c/{number}/0")
        _fill_from(file, place, skipped, size=chunk * rows.strides[0])

    _each(fill, range(start // chunk, -(-stop // chunk)), at_once=storage.is_uri(path))
    return rows.astype(dtype, copy=False)


def _fill_from(path: str, rows: Array, skipped: int, *, size: int) -> None:
    """Reads rows out of a chunk's file of ``size`` bytes, after so many bytes."""
    try:
        with storage.open_read(path) as file:
            found = file.seek(0, 2)
            file.seek(skipped)
            room = rows.data.cast("B")
            whole = found == size and cast(BufferedIOBase, file).readinto(room) == rows.nbytes
    except storage.MISSING as error:
        raise StoreError(f"{path}: the chunk is missing{VERIFY}") from error
    except OSError as error:
        if isinstance(error, StorageError):
            raise
        raise storage.read_error(path, error) from error
    if not whole:
        raise StoreError(f"{path}: the chunk has {found} bytes instead of {size}{VERIFY}")


def _each(action: Callable[[int], None], numbers: Iterable[int], *, at_once: bool) -> None:
    if at_once:
        with ThreadPoolExecutor(REQUESTS_AT_ONCE) as pool:
            list(pool.map(action, numbers))
    else:
        for number in numbers:
            action(number)


def _read_json(path: str) -> dict[str, Any] | None:
    """A JSON file's mapping; None where there is no such file."""
    try:
        with storage.open_read(path) as file:
            tree = json.loads(file.read())
    except storage.MISSING:
        return None
    except ValueError as error:
        raise StoreError(f"{path}: cannot be read: {error}{VERIFY}") from error
    except OSError as error:
        if isinstance(error, StorageError):
            raise
        raise storage.read_error(path, error) from error
    return tree if isinstance(tree, dict) else {}


def _put_json(path: str, name: str, tree: dict[str, Any]) -> None:
    put_file(path, name, json.dumps(tree, indent=2).encode())


FORMAT = ZarrFormat()

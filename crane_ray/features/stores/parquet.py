"""Slides as Parquet files: ``{slide_id}/part-{first row}.parquet``, one for each write.

Columns ``x``, ``y`` (int32, level-0 px) and ``features`` (fixed_size_binary of D little-endian
numbers), uncompressed, one row group a part. The slide's facts are in the schema's metadata under
the key ``crane_ray``. A part is named after its first row (nine digits), which every writer
knows; the row count of any whole part tells where the next one begins, so nothing is ever listed.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from crane_ray import storage
from crane_ray.errors import StoreError
from crane_ray.features.store import Array, SlideHeader, put_file

METADATA_KEY = b"crane_ray"
PAGE_BYTES = 64 * 2**20
"""A part is one page a column: a page's header buys nothing where no row is skipped."""
DAMAGED = (OSError, KeyError, ValueError, TypeError, IndexError, pa.ArrowException)
"""What pyarrow and we raise for a file that is not such a part, or not all of it."""


class ParquetFormat:
    """One folder a slide; a part is what was written at once: a shard of work."""

    def path(self, slides: str, slide_id: str) -> str:
        """See `SlideFormat.path`."""
        return storage.join(slides, slide_id)

    def write(self, path: str, header: SlideHeader, start: int, features: Array, xy: Array) -> None:
        """See `SlideFormat.write`; writing the same rows again puts the same bytes there."""
        for there in {0, start}:
            facts = _facts_there(path, there)
            if facts is not None and facts != header.facts:
                raise StoreError(
                    f"{path}: an interrupted run left arrays of other patches there; run the same "
                    "command again, which clears them"
                )
        put_file(path, _part_name(start), _encode(header, start, features, xy))

    def read(self, path: str, start: int, stop: int | None) -> tuple[Array, Array]:
        """See `SlideFormat.read`; opens just the parts that hold these rows."""
        try:
            return _read(path, start, stop)
        except DAMAGED as error:
            raise StoreError(
                f"{path}: rows {start} to {'the end' if stop is None else stop} cannot be read: "
                f"{error}; run crane-ray verify on the store"
            ) from error


@dataclass(frozen=True)
class _Rows:
    """Rows of one part, as read-only views of what pyarrow holds."""

    features: Array
    xy: Array
    wanted: int
    """Rows from the first that is asked for to the last, over all parts."""


def _part(path: str, start: int) -> str:
    return storage.join(path, _part_name(start))


def _part_name(start: int) -> str:
    return f"part-{start:09d}.parquet"


def _encode(header: SlideHeader, start: int, features: Array, xy: Array) -> bytes:
    stored = np.ascontiguousarray(features, dtype=np.dtype(header.dtype).newbyteorder("<"))
    width = stored.shape[1] * stored.itemsize
    about = {
        "dim": header.dim,
        "dtype": header.dtype,
        "facts": header.facts,
        "num_patches": header.num_patches,
        "start": start,
    }
    columns = [
        pa.array(np.ascontiguousarray(xy[:, 0], dtype=np.int32)),
        pa.array(np.ascontiguousarray(xy[:, 1], dtype=np.int32)),
        pa.FixedSizeBinaryArray.from_buffers(
            pa.binary(width), len(stored), [None, pa.py_buffer(stored)]
        ),
    ]
    schema = pa.schema(
        [
            pa.field("x", pa.int32(), nullable=False),
            pa.field("y", pa.int32(), nullable=False),
            pa.field("features", pa.binary(width), nullable=False),
        ],
        metadata={METADATA_KEY: json.dumps(about, sort_keys=True).encode()},
    )
    sink = pa.BufferOutputStream()
    pq.write_table(
        pa.table(columns, schema=schema),
        sink,
        row_group_size=max(1, len(stored)),
        compression="none",
        use_dictionary=False,
        write_statistics=False,
        data_page_size=PAGE_BYTES,
    )
    return bytes(sink.getvalue())


def _facts_there(path: str, start: int) -> Any:
    """The facts in the part at a row; None where there is no readable one."""
    try:
        with storage.open_read(_part(path, start)) as file:
            return _about(pq.read_schema(file))["facts"]
    except DAMAGED:
        return None


def _read(path: str, start: int, stop: int | None) -> tuple[Array, Array]:
    """The rows [start, stop), each copied once: from its part's page into its place."""
    at, features, xy = 0, np.empty((0, 0)), np.empty((0, 2), np.int32)
    for part in _parts(path, start, stop):
        if not at:
            features = np.empty((part.wanted, part.features.shape[1]), part.features.dtype)
            xy = np.empty((part.wanted, 2), np.int32)
        end = at + len(part.features)
        features[at:end], xy[at:end] = part.features, part.xy
        at = end
    return features, xy


def _parts(path: str, start: int, stop: int | None) -> Iterator[_Rows]:
    """The rows [start, stop), part by part."""
    at, facts = _first_part(path, start), None
    while True:
        table = _table(_part(path, at))
        about = _about(table.schema)
        if about["start"] != at or (facts is not None and about["facts"] != facts):
            raise ValueError(f"part {at} belongs to other arrays")
        facts, rows = about["facts"], len(table)
        end = about["num_patches"] if stop is None else stop
        if not rows:
            raise ValueError(f"part {at} is empty")
        yield _rows(table, about, slice(max(start - at, 0), min(end - at, rows)), end - start)
        at += rows
        if at >= end:
            return


def _first_part(path: str, start: int) -> int:
    """The first row of the part that holds a row; the first part tells how long parts are."""
    if start == 0 or storage.exists(_part(path, start)):
        return start
    with storage.open_read(_part(path, 0)) as file:
        return start - start % max(1, int(pq.read_metadata(file).num_rows))


def _table(part: str) -> pa.Table:
    if not storage.is_uri(part):  # mapped: a third faster than reading it into a buffer
        with pa.memory_map(part) as file:
            return pq.ParquetFile(file).read(use_threads=False)
    return pq.ParquetFile(pa.py_buffer(storage.read_bytes(part))).read(use_threads=False)


def _about(schema: pa.Schema) -> dict[str, Any]:
    about: dict[str, Any] = json.loads((schema.metadata or {})[METADATA_KEY])
    return about


def _rows(table: pa.Table, about: dict[str, Any], rows: slice, wanted: int) -> _Rows:
    xy = np.stack([_numbers(table[name], np.dtype("<i4"), 1)[rows, 0] for name in "xy"], axis=1)
    dtype = np.dtype(about["dtype"])
    features = _numbers(table["features"], dtype.newbyteorder("<"), about["dim"])
    return _Rows(features[rows].astype(dtype, copy=False), xy, wanted)


def _numbers(column: pa.ChunkedArray, dtype: np.dtype[Any], width: int) -> Array:
    """A column's bytes as (rows, width) numbers, without a copy where it is one chunk."""
    if column.null_count:
        raise ValueError("empty cells")
    chunks = []
    for chunk in column.chunks:
        whole = np.frombuffer(chunk.buffers()[1], dtype=dtype).reshape(-1, width)
        chunks.append(whole[chunk.offset : chunk.offset + len(chunk)])
    return chunks[0] if len(chunks) == 1 else np.concatenate(chunks)


FORMAT = ParquetFormat()

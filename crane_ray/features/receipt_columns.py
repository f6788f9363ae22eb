"""Receipts as Arrow columns: read from files in pieces, the last one of each shard, in order."""

import errno
import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from crane_ray import storage
from crane_ray.errors import StorageError, StoreError

Rows = npt.NDArray[np.int64]

PIECE_ROWS = 20_000
"""Rows of a file that are decompressed at once, and of its row groups, which are read whole."""
SORTED_AT_ONCE = 20_000
"""Receipts that are put in order at once; a sorted copy of all would double the memory."""

REPEATED = frozenset({"slide_id", "status", "coords_checksum", "error", "reader", "host", "run_id"})
"""Texts that many receipts share; held once in memory."""

Column = npt.NDArray[Any]


@dataclass(frozen=True)
class TableFile:
    """A Parquet file with columns of a schema, read some rows at a time."""

    path: str
    schema: pa.Schema
    what: str
    """What the file is, and what to do where it cannot be read: for errors."""
    hint: str
    defaults: Mapping[str, Any]
    """Values of columns that the file may lack, or have nulls in."""

    def num_rows(self) -> int:
        """How many rows it has.

        Raises:
            StoreError: it is no readable Parquet file.
            StorageError: it cannot be opened.
        """
        with self._opened() as parquet:
            return int(parquet.metadata.num_rows)

    def pieces(self, rows: int = PIECE_ROWS) -> Iterator[pa.Table]:
        """Tables of at most so many rows.

        Raises:
            StoreError: it is no readable Parquet file with these columns.
            StorageError: it cannot be opened.
        """
        with self._opened() as parquet:
            found = set(parquet.schema_arrow.names)
            names = [name for name in self.schema.names if name in found]
            # Asked for all row groups at once, Arrow reads the whole file before the first rows.
            for group in range(parquet.num_row_groups):
                batches = parquet.iter_batches(
                    rows, row_groups=[group], columns=names, use_threads=False
                )
                for batch in batches:
                    columns = [_column(batch, field, self.defaults) for field in self.schema]
                    yield pa.table(columns, self.schema.names).cast(self.schema)

    @contextmanager
    def _opened(self) -> Iterator[pq.ParquetFile]:
        try:
            with storage.open_read(self.path) as source:
                yield pq.ParquetFile(source)
        except FileNotFoundError as error:
            raise StorageError(f"{self.path}: is not there (any more)", errno.ENOENT) from error
        except (pa.ArrowException, KeyError, OSError) as error:
            if isinstance(error, OSError) and error.errno:  # of the file system, not of Arrow
                reason = error.strerror or error
                raise StorageError(f"{self.path}: cannot be read: {reason}", error.errno) from error
            raise StoreError(
                f"{self.path}: not a readable {self.what}: {error}; {self.hint}"
            ) from error


def merged(tables: Iterator[pa.Table], schema: pa.Schema) -> bytes:
    """A Parquet file of all rows of many tables, in groups of about `PIECE_ROWS`."""
    sink, held, rows = io.BytesIO(), list[pa.Table](), 0
    with pq.ParquetWriter(sink, schema) as writer:
        for table in tables:
            held.append(table)
            rows += len(table)
            if rows >= PIECE_ROWS:
                writer.write_table(pa.concat_tables(held))
                held, rows = [], 0
        if held:
            writer.write_table(pa.concat_tables(held))
    return sink.getvalue()


def last_receipts(files: Sequence[TableFile]) -> Iterator[dict[str, list[Any]]]:
    """Of all receipts the last one of each shard, as columns of values, for some whole slides.

    The files are read now. Slides come in the order of their ids, and so do the shards of each.

    Args:
        files: the receipts in the order they were written, with a schema in common.
    """
    columns = _Columns(files)
    return columns.parts() if columns.num_rows else iter(())


class _Columns:
    """Receipts as numpy columns, which Arrow's own would take twice the memory of.

    Repeated texts are numbers of the distinct ones, other texts bytes of equal length.
    """

    def __init__(self, files: Sequence[TableFile]) -> None:
        self._texts: dict[str, dict[str, int]] = {name: {} for name in REPEATED}
        self._columns: dict[str, Column] = {}
        self.num_rows = sum(file.num_rows() for file in files)
        start = 0
        for file in files:
            for piece in file.pieces():
                for name in piece.column_names:
                    self._put(name, start, self._compact(name, piece[name]))
                start += len(piece)

    def _put(self, name: str, start: int, values: Column) -> None:
        """Puts values where they belong in a column, which is allocated but once."""
        column = self._columns.get(name)
        if column is None:
            column = self._columns[name] = np.zeros(self.num_rows, dtype=values.dtype)
        elif column.dtype != values.dtype:  # a longer text
            wider = np.promote_types(column.dtype, values.dtype)
            column = self._columns[name] = column.astype(wider)
        column[start : start + len(values)] = values

    def _compact(self, name: str, column: pa.ChunkedArray) -> Column:
        if name in REPEATED:
            encoded = column.combine_chunks().dictionary_encode()
            known = self._texts[name]
            numbers = [
                known.setdefault(text, len(known)) for text in encoded.dictionary.to_pylist()
            ]
            return np.asarray(np.array(numbers, dtype=np.int32)[encoded.indices.to_numpy()])
        if column.type == pa.string():
            return np.asarray(column.cast(pa.binary()).to_numpy().astype(np.bytes_))
        return np.asarray(column.to_numpy())

    def parts(self) -> Iterator[dict[str, list[Any]]]:
        """The last receipts of each shard, for some whole slides at a time."""
        slides, rows = self.last_of_each_shard()
        starts = np.flatnonzero(np.diff(slides, prepend=-1))
        first_of_part = np.diff(starts // SORTED_AT_ONCE, prepend=-1) > 0
        for start, stop in pairwise([*starts[first_of_part].tolist(), len(rows)]):
            yield self.values(rows[start:stop])

    def values(self, rows: Rows) -> dict[str, list[Any]]:
        """Python values of some rows by column; equal texts of repeated ones are one object."""
        values = {}
        for name, column in self._columns.items():
            if name in REPEATED:
                texts = list(self._texts[name])
                values[name] = [texts[number] for number in column[rows].tolist()]
            elif column.dtype.kind == "S":
                values[name] = [text.decode() for text in column[rows].tolist()]
            else:
                values[name] = column[rows].tolist()
        return values

    def last_of_each_shard(self) -> tuple[Rows, Rows]:
        """Slide (place among the sorted ones) and row of each shard's last receipt, in order."""
        slide_ids = np.array(list(self._texts["slide_id"]), dtype=object)
        place = np.empty(len(slide_ids), dtype=np.int64)
        place[np.argsort(slide_ids)] = np.arange(len(slide_ids))
        keys = (place[self._columns["slide_id"]] << 32) | self._columns["shard"]
        rows = np.argsort(keys, kind="stable")
        keys = keys[rows]
        last = np.append(keys[1:] != keys[:-1], True)
        return keys[last] >> 32, rows[last]


def _column(table: pa.RecordBatch, field: pa.Field, defaults: Mapping[str, Any]) -> Any:
    there = field.name in table.schema.names
    if not there and field.name not in defaults:
        raise KeyError(f"it has no column {field.name}")
    default = pa.scalar(defaults.get(field.name), field.type)
    if not there:
        return pa.repeat(default, len(table))
    column = table[field.name]
    return pc.fill_null(column, default) if column.null_count and default.is_valid else column

"""Values of a dataclass as rows of a Parquet file, and back, without a dictionary for each."""

import io
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from crane_ray import storage
from crane_ray.errors import StoreError

AT_ONCE = 10_000
"""Rows that are Python objects at a time while a table is read."""


def write_table(path: str, rows: Iterable[object], schema: pa.Schema) -> None:
    """Writes rows in one piece; a row's attributes are the schema's columns.

    Raises:
        StorageError: it cannot be written.
    """
    write_arrow(path, arrow_table(list(rows), schema))


def arrow_table(rows: Sequence[object], schema: pa.Schema) -> pa.Table:
    """Rows as Arrow columns; a row's attributes are the schema's columns."""
    columns = {name: [getattr(row, name) for row in rows] for name in schema.names}
    return pa.table(columns, schema=schema)


def write_arrow(path: str, table: pa.Table, *, group_rows: int | None = None) -> None:
    """Writes an Arrow table in one piece, durably.

    Args:
        path: where to.
        table: what.
        group_rows: rows that a reader in pieces gets at once; Parquet's own number if not given.

    Raises:
        StorageError: it cannot be written.
    """
    sink = io.BytesIO()
    pq.write_table(table, sink, row_group_size=group_rows)
    storage.put_bytes(path, sink.getvalue(), durable=True)


def read_arrow(path: str, *, what: str, hint: str, schema: pa.Schema | None = None) -> pa.Table:
    """The Arrow table in a Parquet file.

    Raises:
        StoreError: it is no readable Parquet file; the message says ``what`` it is and the hint.
    """
    try:
        return pq.read_table(io.BytesIO(storage.read_bytes(path)), schema=schema)
    except (pa.ArrowInvalid, pa.ArrowIOError) as error:
        raise StoreError(f"{path}: not a readable {what}: {error}; {hint}") from error


def iter_rows(table: pa.Table, *, shared: frozenset[str] = frozenset()) -> Iterator[dict[str, Any]]:
    """The rows as dictionaries, one after the other.

    Args:
        table: the table.
        shared: text columns whose values repeat; each value is held once in memory.
    """
    for start in range(0, len(table), AT_ONCE):
        part = table.slice(start, AT_ONCE)
        columns = [
            _interned(column.to_pylist()) if name in shared else column.to_pylist()
            for name, column in zip(part.column_names, part.columns, strict=True)
        ]
        for values in zip(*columns, strict=True):
            yield dict(zip(part.column_names, values, strict=True))


def only(row: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """A row's values for the names given; None where it lacks one."""
    return {name: row.get(name) for name in names}


def _interned(values: list[str | None]) -> list[str | None]:
    return [value if value is None else sys.intern(value) for value in values]

"""What is in a store: receipts of shards in the ledger, whole slides in the index.

The driver alone writes both. The index follows from the ledger; a driver that dies between the
two loses nothing, since the next one reads the ledger first.
"""

import errno
import secrets
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, fields
from itertools import groupby
from typing import Any, Literal

import pyarrow as pa

from crane_ray import storage
from crane_ray.errors import StorageError
from crane_ray.features.receipt_columns import TableFile, last_receipts, merged
from crane_ray.tables import arrow_table, iter_rows, read_arrow, write_arrow

COMPACT_ABOVE = 64
"""Ledger files beyond which a new run merges them into one."""
MERGE_EVERY = 64
"""Files that a run writes before it merges them: a day of one a second would be 86,400, each of
which a resume opens, and an object store takes its time for each."""


READ_TRIES = 5
"""Times that the ledger's files are listed anew where one of them is gone when it is opened."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of one shard of a slide's patches."""

    slide_id: str
    shard: int
    status: Literal["ok", "error", "discarded"]
    """ok: written, checksum taken. error: not, for the reason given. discarded: was ok, is not
    to be used any more (damaged, or made from other coordinates)."""
    num_patches: int
    """Of the whole slide."""
    coords_checksum: str
    """Of the coordinates that the features belong to."""
    rows: int = 0
    checksum: str = ""
    error: str = ""
    fatal: bool = False
    """No other shard would do better (disk full, GPU too small): the run ends."""
    attempt: int = 1
    seconds: float = 0.0
    decode_wait_s: float = 0.0
    """Since the receipt before, how long the encoder waited for pixels to be decoded,"""
    encode_s: float = 0.0
    """worked,"""
    write_wait_s: float = 0.0
    """waited for storage to take features,"""
    staging_wait_s: float = 0.0
    """for the slide to be fetched,"""
    idle_s: float = 0.0
    """and had no shard to work on."""
    batch_size: int = 0
    reader: str = ""
    host: str = ""
    run_id: str = ""
    written: str = ""

    @classmethod
    def from_mapping(cls, row: Mapping[str, Any]) -> "Receipt":
        """A receipt from a record with its fields."""
        return cls(*(row.get(name) for name in RECEIPT_SCHEMA.names))  # type: ignore[arg-type]


RECEIPT_SCHEMA = pa.schema([
    ("slide_id", pa.string()), ("shard", pa.int32()), ("status", pa.string()),
    ("num_patches", pa.int64()), ("coords_checksum", pa.string()), ("rows", pa.int32()),
    ("checksum", pa.string()), ("error", pa.string()), ("fatal", pa.bool_()),
    ("attempt", pa.int32()), ("seconds", pa.float64()), ("decode_wait_s", pa.float64()),
    ("encode_s", pa.float64()), ("write_wait_s", pa.float64()), ("staging_wait_s", pa.float64()),
    ("idle_s", pa.float64()), ("batch_size", pa.int32()), ("reader", pa.string()),
    ("host", pa.string()), ("run_id", pa.string()), ("written", pa.string()),
])  # fmt: skip
"""In the order of the fields of `Receipt`."""

BRIEF = (
    "slide_id", "shard", "status", "num_patches", "coords_checksum", "checksum", "attempt",
    "seconds", "host", "written",
)  # fmt: skip
"""What a resume needs of receipts."""
BRIEF_SCHEMA = pa.schema([RECEIPT_SCHEMA.field(name) for name in BRIEF])

DEFAULTS = {field.name: field.default for field in fields(Receipt) if field.default is not MISSING}
"""Values of columns that an older version of this package did not write."""


class Ledger:
    """Receipts under ``ledger/*.parquet``, appended a file at a time, in order of file names."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self._last_ns = 0
        self._new: list[tuple[str, pa.Table]] = []

    def append(self, receipts: Iterable[Receipt]) -> None:
        """Adds receipts, if any, in one new file; now and then merges those that it wrote."""
        new = list(receipts)
        if not new:
            return
        path, table = self._new_file(), arrow_table(new, RECEIPT_SCHEMA)
        write_arrow(path, table)
        self._new.append((path, table))
        if len(self._new) >= MERGE_EVERY:
            files, tables = zip(*self._new, strict=True)
            self._new = []
            self._merge(files, iter(tables))

    def slides(self, *, brief: bool = False) -> Iterator[tuple[str, dict[int, Receipt]]]:
        """Each slide with the last receipt of each of its shards, a slide at a time.

        Brief receipts have what a resume needs of them (`BRIEF`), the rest at its defaults.
        """
        for columns in self.parts(brief=brief):
            rows = zip(*columns.values(), strict=True)
            receipts = (Receipt(**dict(zip(columns, row, strict=True))) for row in rows)
            for slide_id, shards in groupby(receipts, key=lambda receipt: receipt.slide_id):
                yield slide_id, {receipt.shard: receipt for receipt in shards}

    def parts(self, *, brief: bool = False) -> Iterator[dict[str, list[Any]]]:
        """The last receipt of each shard, as columns of values for some slides at a time.

        Slides come whole and in the order of their ids, and so do the shards of each. While this
        runs, a million shards take 150 MB if brief.

        Raises:
            StoreError: a file of the ledger cannot be read.
        """
        schema = BRIEF_SCHEMA if brief else RECEIPT_SCHEMA
        for attempt in range(READ_TRIES):
            files = storage.list_files(self.folder, ".parquet")
            try:
                return last_receipts([self._file(path, schema) for path in files])
            except StorageError as error:  # a driver at work may have merged it meanwhile
                if error.errno != errno.ENOENT or attempt == READ_TRIES - 1:
                    raise
        raise AssertionError

    def compact(self) -> None:
        """Merges many files into one that sorts before all later ones; loses no receipt."""
        files = storage.list_files(self.folder, ".parquet")
        if len(files) <= COMPACT_ABOVE:
            return
        self._new = []
        read = (self._file(path, RECEIPT_SCHEMA) for path in files)
        self._merge(files, (piece for file in read for piece in file.pieces()))

    def _merge(self, files: Sequence[str], tables: Iterator[pa.Table]) -> None:
        """Puts one file in the place of many that follow each other.

        It sorts before the last of them and has all of their receipts in order, so that a driver
        that dies before they are gone leaves the same receipt as the last of each shard.
        """
        last = files[-1].rsplit("/", 1)[-1].removesuffix(".parquet")
        path = storage.join(self.folder, f"{last}-merged.parquet")
        storage.put_bytes(path, merged(tables, RECEIPT_SCHEMA), durable=True)
        for file in files:
            storage.remove_tree(file)

    def _file(self, path: str, schema: pa.Schema) -> TableFile:
        hint = "take it out of the ledger; its shards are extracted again"
        return TableFile(path, schema, "ledger file", hint, DEFAULTS)

    def _new_file(self) -> str:
        """A name after all that are there, also where clocks of two drivers disagree."""
        if not self._last_ns:
            files = storage.list_files(self.folder, ".parquet")
            self._last_ns = int(files[-1].rsplit("/", 1)[-1].split("-")[0]) if files else 0
        self._last_ns = max(time.time_ns(), self._last_ns + 1)
        stamp = f"{self._last_ns:020d}-{secrets.token_hex(3)}"
        return storage.join(self.folder, f"{stamp}.parquet")


@dataclass(frozen=True, slots=True)
class IndexRow:
    """A whole, committed slide."""

    slide_id: str
    case_id: str
    num_patches: int
    dim: int
    mpp: float | None
    """The slide's level-0 resolution, um/px, where known."""
    coords_checksum: str
    checksums: tuple[str, ...]
    """SHA-256 of each shard, in order."""
    seconds: float = 0.0
    hosts: tuple[str, ...] = ()
    committed: str = ""
    """When the last of its shards was written."""

    def record(self) -> dict[str, Any]:
        """Its fields for an Arrow table, where a column of nothing but None has no type."""
        return {**asdict(self), "mpp": self.mpp or 0.0}


INDEX_SCHEMA = pa.schema(
    [
        ("slide_id", pa.string()),
        ("case_id", pa.string()),
        ("num_patches", pa.int64()),
        ("dim", pa.int32()),
        ("mpp", pa.float64()),
        ("coords_checksum", pa.string()),
        ("checksums", pa.list_(pa.string())),
        ("seconds", pa.float64()),
        ("hosts", pa.list_(pa.string())),
        ("committed", pa.string()),
    ]
)
LENGTH_SCHEMA = pa.schema([INDEX_SCHEMA.field(name) for name in ("slide_id", "num_patches")])

GROUP_SLIDES = 2_000
"""Slides whose rows are read from the index at once."""
REBUILD = (
    "move it away and run crane-ray extract again: it is rebuilt from the ledger, nothing is "
    "extracted twice"
)


class Index:
    """``index.parquet``: the slides that are there."""

    def __init__(self, path: str) -> None:
        self.path = path

    def read(self) -> dict[str, IndexRow]:
        """Committed slides by slide_id.

        Raises:
            StoreError: the file is there and cannot be read.
        """
        return {row.slide_id: row for row in self.rows()}

    def rows(self) -> Iterator[IndexRow]:
        """The same, one after the other in the order of slide_ids, without holding all of them.

        Raises:
            StoreError: the file is there and cannot be read.
        """
        for piece in self._pieces(INDEX_SCHEMA):
            yield from (index_row(row) for row in iter_rows(piece))

    def num_patches(self) -> dict[str, int]:
        """Patches of each committed slide by slide_id, in the order of slide_ids.

        Raises:
            StoreError: the file is there and cannot be read.
        """
        found: dict[str, int] = {}
        for piece in self._pieces(LENGTH_SCHEMA):
            found.update(zip(*(column.to_pylist() for column in piece.columns), strict=True))
        return found

    def read_table(self) -> pa.Table:
        """All of it as an Arrow table.

        Raises:
            StoreError: the file is there and cannot be read.
        """
        if not storage.exists(self.path):
            return INDEX_SCHEMA.empty_table()
        return read_arrow(self.path, what="index", hint=REBUILD, schema=INDEX_SCHEMA)

    def write(self, rows: Iterable[IndexRow]) -> None:
        """Replaces the index, sorted by slide_id, in one piece."""
        ordered = sorted(rows, key=lambda row: row.slide_id)
        self.write_table(index_table(ordered))

    def write_table(self, table: pa.Table) -> None:
        """Replaces the index by a table in the order of slide_ids, in one piece."""
        write_arrow(self.path, table, group_rows=GROUP_SLIDES)

    def _pieces(self, schema: pa.Schema) -> Iterator[pa.Table]:
        if storage.exists(self.path):
            file = TableFile(self.path, schema, "index", REBUILD, {"mpp": None})
            yield from file.pieces(GROUP_SLIDES)


def index_table(rows: Sequence[IndexRow]) -> pa.Table:
    """Index rows as Arrow columns."""
    columns = {name: [getattr(row, name) for row in rows] for name in INDEX_SCHEMA.names}
    return pa.table(columns, schema=INDEX_SCHEMA)


def index_row(record: dict[str, Any]) -> IndexRow:
    """An index row from a record with its fields; an mpp of 0 is none."""
    lists = {key: tuple(record[key] or ()) for key in ("checksums", "hosts")}
    return IndexRow(**{**record, **lists, "mpp": record["mpp"] or None})

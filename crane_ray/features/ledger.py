"""What is in a store: receipts of shards in the ledger, whole slides in the index.

The driver alone writes both. The index follows from the ledger; a driver that dies between the
two loses nothing, since the next one reads the ledger first.
"""

import secrets
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from crane_ray import storage
from crane_ray.tables import iter_rows, only, read_arrow, write_arrow, write_table

COMPACT_ABOVE = 64
"""Ledger files beyond which a new run merges them into one."""
SORTED_AT_ONCE = 20_000
"""Receipts that are put in order at once; a sorted copy of all would double the memory."""


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
    """Of these seconds, how long the encoder waited for pixels."""
    batch_size: int = 0
    reader: str = ""
    host: str = ""
    run_id: str = ""
    written: str = ""

    @classmethod
    def from_mapping(cls, row: Mapping[str, Any]) -> "Receipt":
        """A receipt from a record with its fields."""
        return cls(**only(row, (field.name for field in fields(cls))))


RECEIPT_SCHEMA = pa.schema(
    [
        ("slide_id", pa.string()),
        ("shard", pa.int32()),
        ("status", pa.string()),
        ("num_patches", pa.int64()),
        ("coords_checksum", pa.string()),
        ("rows", pa.int32()),
        ("checksum", pa.string()),
        ("error", pa.string()),
        ("fatal", pa.bool_()),
        ("attempt", pa.int32()),
        ("seconds", pa.float64()),
        ("decode_wait_s", pa.float64()),
        ("batch_size", pa.int32()),
        ("reader", pa.string()),
        ("host", pa.string()),
        ("run_id", pa.string()),
        ("written", pa.string()),
    ]
)
"""In the order of the fields of `Receipt`."""

BRIEF = (
    "slide_id", "shard", "status", "num_patches", "coords_checksum", "checksum", "attempt",
    "seconds", "host", "written",
)  # fmt: skip
BRIEF_SCHEMA = pa.schema([RECEIPT_SCHEMA.field(name) for name in BRIEF])

REPEATED = frozenset({"slide_id", "status", "coords_checksum", "error", "reader", "host", "run_id"})
"""Texts that many receipts share; held once in memory."""


class Ledger:
    """Receipts under ``ledger/*.parquet``, appended a file at a time, in order of file names."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self._last_ns = 0

    def append(self, receipts: Iterable[Receipt]) -> None:
        """Adds receipts in one new file; nothing to add writes nothing."""
        new = list(receipts)
        if new:
            write_table(self._new_file(), new, RECEIPT_SCHEMA)

    def slides(self, *, brief: bool = False) -> Iterator[tuple[str, dict[int, Receipt]]]:
        """Each slide with the last receipt of each of its shards, a slide at a time.

        Brief receipts have what a resume needs of them (`BRIEF`), the rest at its defaults.

        The table is held as Arrow columns, receipts as objects for one slide only: a million
        shards take 300 to 500 MB while this runs, and what the caller keeps afterwards.
        """
        slide_id, shards = "", dict[int, Receipt]()
        for receipt in self._by_slide(BRIEF_SCHEMA if brief else RECEIPT_SCHEMA):
            if shards and receipt.slide_id != slide_id:
                yield slide_id, shards
                shards = {}
            slide_id = receipt.slide_id
            shards[receipt.shard] = receipt
        if shards:
            yield slide_id, shards

    def _by_slide(self, schema: pa.Schema) -> Iterator[Receipt]:
        """All receipts, those of a slide together and in the order they were written."""
        files = storage.list_files(self.folder, ".parquet")
        if not files:
            return
        table = pa.concat_tables(self._table(file, schema) for file in files)
        ids = pa.table({"slide_id": table["slide_id"], "order": np.arange(len(table))})
        order = pc.sort_indices(ids, [("slide_id", "ascending"), ("order", "ascending")])
        for start in range(0, len(table), SORTED_AT_ONCE):
            part = table.take(order.slice(start, SORTED_AT_ONCE)).combine_chunks()
            for row in iter_rows(part, shared=REPEATED):
                yield Receipt(**row)

    def compact(self) -> None:
        """Merges many files into one that sorts before all later ones; loses no receipt."""
        files = storage.list_files(self.folder, ".parquet")
        if len(files) <= COMPACT_ABOVE:
            return
        last = files[-1].rsplit("/", 1)[-1].removesuffix(".parquet")
        merged = pa.concat_tables(self._table(file) for file in files)
        write_arrow(storage.join(self.folder, f"{last}-merged.parquet"), merged)
        for file in files:
            storage.remove_tree(file)

    def _table(self, file: str, schema: pa.Schema = RECEIPT_SCHEMA) -> pa.Table:
        hint = "take it out of the ledger; its shards are extracted again"
        return read_arrow(file, what="ledger file", hint=hint, schema=schema)

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


class Index:
    """``index.parquet``: the slides that are there."""

    def __init__(self, path: str) -> None:
        self.path = path

    def read(self) -> dict[str, IndexRow]:
        """Committed slides by slide_id.

        Raises:
            StoreError: the file is there and cannot be read.
        """
        if not storage.exists(self.path):
            return {}
        hint = (
            "move it away and run crane-ray extract again: it is rebuilt from the ledger, nothing "
            "is extracted twice"
        )
        table = read_arrow(self.path, what="index", hint=hint)
        rows = (index_row(row) for row in iter_rows(table))
        return {row.slide_id: row for row in rows}

    def write(self, rows: Iterable[IndexRow]) -> None:
        """Replaces the index, sorted by slide_id, in one piece."""
        ordered = sorted(rows, key=lambda row: row.slide_id)
        write_table(self.path, ordered, INDEX_SCHEMA)


class WrittenShards:
    """What the index needs of a slide's written shards: about 100 bytes for each, not a receipt."""

    __slots__ = ("_checksums", "_hosts", "_num_patches", "_seconds", "_written", "coords_checksum")

    def __init__(self, receipts: Iterable[Receipt] = ()) -> None:
        self._checksums: dict[int, bytes] = {}
        self._hosts: set[str] = set()
        self._num_patches = 0
        self._seconds = 0.0
        self._written = ""
        self.coords_checksum = ""
        for receipt in receipts:
            self.add(receipt)

    def add(self, receipt: Receipt) -> None:
        """Takes in a shard's ok receipt; the last one of a shard counts."""
        self._checksums[receipt.shard] = bytes.fromhex(receipt.checksum)
        self._hosts.add(receipt.host)
        self._num_patches = receipt.num_patches
        self._seconds += receipt.seconds
        self._written = max(self._written, receipt.written)
        self.coords_checksum = receipt.coords_checksum

    def __len__(self) -> int:
        return len(self._checksums)

    def __contains__(self, shard: int) -> bool:
        return shard in self._checksums

    def commit(self, slide_id: str, case_id: str, dim: int, mpp: float | None) -> IndexRow:
        """The index row of a slide all of whose shards are here."""
        return IndexRow(
            slide_id=slide_id,
            case_id=case_id,
            num_patches=self._num_patches,
            dim=dim,
            mpp=mpp,
            coords_checksum=self.coords_checksum,
            checksums=tuple(self._checksums[shard].hex() for shard in sorted(self._checksums)),
            seconds=round(self._seconds, 3),
            hosts=tuple(sorted(self._hosts)),
            committed=self._written,
        )


def index_row(record: dict[str, Any]) -> IndexRow:
    """An index row from a record with its fields."""
    lists = {key: tuple(record[key] or ()) for key in ("checksums", "hosts")}
    return IndexRow(**{**record, **lists})

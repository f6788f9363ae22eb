"""How far each slide of a store is, by its ledger, in little memory.

A cohort of 100,000 slides has a million shards and more; as objects their receipts would take
gigabytes of a driver that needs no more than this of them.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from crane_ray.features.ledger import Index, IndexRow, Ledger, Receipt, index_table

ROWS_AT_ONCE = 10_000
"""Index rows that are Python objects at a time."""


class WrittenShards:
    """What the index needs of a slide's written shards: 32 bytes each, not a receipt."""

    __slots__ = ("_digests", "_hosts", "_num_patches", "_seconds", "_there", "_written",
                 "coords_checksum")  # fmt: skip

    def __init__(self, receipts: Iterable[Receipt] = ()) -> None:
        self._there = 0
        """One bit a shard."""
        self._digests = b""
        """Of the shards that are there, in order."""
        self._hosts: tuple[str, ...] = ()
        self._num_patches = 0
        self._seconds = 0.0
        self._written = ""
        self.coords_checksum = ""
        for receipt in receipts:
            self.add(receipt)

    def add(self, receipt: Receipt) -> None:
        """Takes in a shard's ok receipt; the last one of a shard counts."""
        digest, bit = bytes.fromhex(receipt.checksum), 1 << receipt.shard
        before = (self._there & (bit - 1)).bit_count() * len(digest)
        after = before + (len(digest) if self._there & bit else 0)
        self._digests = self._digests[:before] + digest + self._digests[after:]
        self._there |= bit
        if receipt.host not in self._hosts:
            self._hosts = (*self._hosts, receipt.host)
        self._num_patches = receipt.num_patches
        self._seconds += receipt.seconds
        self._written = max(self._written, receipt.written)
        self.coords_checksum = receipt.coords_checksum

    @classmethod
    def from_columns(cls, columns: dict[str, list[Any]]) -> "WrittenShards":
        """Those of ok receipts by column, in the order of shards, each shard once."""
        written = cls()
        if columns["shard"]:
            written._there = sum(1 << shard for shard in columns["shard"])
            written._digests = bytes.fromhex("".join(columns["checksum"]))
            written._hosts = tuple(set(columns["host"]))
            written._num_patches = columns["num_patches"][-1]
            written._seconds = sum(columns["seconds"])
            written._written = max(columns["written"])
            written.coords_checksum = columns["coords_checksum"][-1]
        return written

    def __len__(self) -> int:
        return self._there.bit_count()

    def __contains__(self, shard: int) -> bool:
        return bool(self._there >> shard & 1)

    @property
    def num_patches(self) -> int:
        """Of the whole slide."""
        return self._num_patches

    def commit(self, slide_id: str, case_id: str, dim: int, mpp: float | None) -> IndexRow:
        """The index row of a slide all of whose shards are here."""
        digits, each = self._digests.hex(), 2 * len(self._digests) // len(self)
        return IndexRow(
            slide_id=slide_id,
            case_id=case_id,
            num_patches=self._num_patches,
            dim=dim,
            mpp=mpp,
            coords_checksum=self.coords_checksum,
            checksums=tuple(digits[n : n + each] for n in range(0, len(digits), each)),
            seconds=round(self._seconds, 3),
            hosts=tuple(sorted(self._hosts)),
            committed=self._written,
        )


@dataclass(frozen=True, slots=True)
class Standing:
    """What a ledger says of one slide."""

    slide_id: str
    written: WrittenShards
    coords_checksums: frozenset[str]
    """Of the written shards: several where its patches changed under way."""
    attempts: dict[int, int]
    """Failed attempts at shards that are not there."""


def standings(ledger: Ledger) -> Iterator[Standing]:
    """How far each slide of a ledger is, in the order of slide_ids."""
    for columns in ledger.parts(brief=True):
        slide_ids = columns["slide_id"]
        starts = [n for n, (one, other) in enumerate(pairwise(slide_ids), 1) if one != other]
        for start, stop in pairwise([0, *starts, len(slide_ids)]):
            yield _standing({name: values[start:stop] for name, values in columns.items()})


def _standing(columns: dict[str, list[Any]]) -> Standing:
    slide_id, states, attempts = columns["slide_id"][0], columns["status"], dict[int, int]()
    if any(state != "ok" for state in states):
        rows = zip(states, columns["shard"], columns["attempt"], strict=True)
        attempts = {shard: attempt for state, shard, attempt in rows if state == "error"}
        columns = {
            name: [value for value, state in zip(values, states, strict=True) if state == "ok"]
            for name, values in columns.items()
        }
    written = WrittenShards.from_columns(columns)
    return Standing(slide_id, written, frozenset(columns["coords_checksum"]), attempts)


class Committed:
    """The index while a run lasts: whole slides, new ones as objects and soon as Arrow columns.

    Opened, it goes through the index in step with the ledger: `known` and `settle` are called for
    slides in the order of their ids, then `end_of_ledger`. The index is not held in memory before
    something in it changes.
    """

    def __init__(self, index: Index) -> None:
        self._index = index
        self._old = _Walk(index.rows())
        self._table: pa.Table | None = None
        self._new: list[IndexRow] = []
        self._folded: list[pa.Table] = []
        self.changed = False
        """Whether the index on disk says something else."""

    def known(self, slide_id: str) -> IndexRow | None:
        """A slide's row in the index as it was found."""
        return self._old.find(slide_id)

    def settle(self, row: IndexRow) -> None:
        """This slide is whole; its row in the index may say so already."""
        if self.known(row.slide_id) == row:
            self._old.keep()
        else:
            self.add(row)

    def end_of_ledger(self) -> None:
        """Rows that were not settled are no longer true."""
        kept = self._old.end()
        if not kept.all():
            self._table = self._index.read_table().filter(pa.array(kept))
            self.changed = True

    def add(self, row: IndexRow) -> None:
        """One more slide is whole."""
        self._new.append(row)
        self.changed = True
        if len(self._new) >= ROWS_AT_ONCE:
            self._fold()

    def flush(self) -> None:
        """Writes the index if it changed.

        Raises:
            StorageError: it cannot be written.
        """
        if not self.changed:
            return
        self._fold()
        before = self._index.read_table() if self._table is None else self._table
        self._table = pa.concat_tables([before, *self._folded]).sort_by("slide_id")
        self._folded = []
        self._index.write_table(self._table)
        self.changed = False

    def _fold(self) -> None:
        if self._new:
            self._folded.append(index_table(self._new))
            self._new = []


class _Walk:
    """Goes once through an index in the order of slide_ids, and marks what stays true."""

    def __init__(self, rows: Iterator[IndexRow]) -> None:
        self._rows = rows
        self._row = next(rows, None)
        self._kept = [False]

    def find(self, slide_id: str) -> IndexRow | None:
        while self._row is not None and self._row.slide_id < slide_id:
            self._advance()
        return self._row if self._row is not None and self._row.slide_id == slide_id else None

    def keep(self) -> None:
        """The row that was found last stays."""
        self._kept[-1] = True

    def end(self) -> npt.NDArray[np.bool_]:
        """For each row of the index whether it stays."""
        while self._row is not None:
            self._advance()
        return np.array(self._kept[:-1], dtype=np.bool_)

    def _advance(self) -> None:
        self._row = next(self._rows, None)
        self._kept.append(False)

import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crane_ray.errors import StoreError
from crane_ray.features.ledger import Index, IndexRow, Ledger, Receipt
from crane_ray.features.receipt_columns import PIECE_ROWS
from crane_ray.features.standing import ROWS_AT_ONCE, Committed, WrittenShards, standings
from tests.unit.features.small_store import fake_receipt, make_cohort

SHA = "{:064x}".format


def ok(slide_id: str, shard: int, number: int = 0) -> Receipt:
    return Receipt(
        slide_id, shard, "ok", 99, "c", rows=4, checksum=SHA(number), seconds=0.25, host="h"
    )


@settings(deadline=None)
@given(st.permutations(range(9)), st.integers(0, 9), st.integers(0, 8))
def test_written_shards_in_any_order(order: list[int], count: int, again: int) -> None:
    written = WrittenShards(ok("a", shard, shard) for shard in order[:count])
    assert len(written) == count
    assert [shard in written for shard in range(9)] == [
        shard in order[:count] for shard in range(9)
    ]
    if again in order[:count]:
        written.add(ok("a", again, 1000))
        assert len(written) == count
    if count:
        wanted = sorted(order[:count])
        changed = [SHA(1000 if n == again else n) for n in wanted]
        assert written.commit("a", "", 4, None).checksums == tuple(changed)


@settings(deadline=None, max_examples=40)  # files are written
@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 4), st.integers(0, 2))))
def test_standings_are_those_of_the_last_receipts(
    tmp_path_factory: pytest.TempPathFactory, events: list[tuple[str, int, int]]
) -> None:
    ledger = Ledger(str(tmp_path_factory.mktemp("ledger")))
    last: dict[tuple[str, int], int] = {}
    for number, (slide_id, shard, kind) in enumerate(events):
        status = ("ok", "error", "discarded")[kind]
        receipt = Receipt(slide_id, shard, status, 99, "c", checksum=SHA(number), attempt=number)  # type: ignore[arg-type]
        ledger.append([receipt])
        last[slide_id, shard] = number
    found = {standing.slide_id: standing for standing in standings(ledger)}
    assert set(found) == {slide_id for slide_id, _ in last}
    for slide_id, standing in found.items():
        mine = {shard: n for (owner, shard), n in last.items() if owner == slide_id}
        whole = {shard for shard, n in mine.items() if events[n][2] == 0}
        assert {shard for shard in range(5) if shard in standing.written} == whole
        errors = {shard: n for shard, n in mine.items() if events[n][2] == 1}
        assert standing.attempts == errors
        if whole:
            checksums = standing.written.commit(slide_id, "", 1, None).checksums
            assert checksums == tuple(SHA(mine[shard]) for shard in sorted(whole))


def test_columns_that_a_file_lacks_have_their_default(tmp_path: Path) -> None:
    ledger = Ledger(str(tmp_path))
    ledger.append([ok("a", 0)])
    (path,) = tmp_path.iterdir()
    pq.write_table(pq.read_table(path).drop_columns(["encode_s", "batch_size", "reader"]), path)
    assert dict(ledger.slides()) == {"a": {0: ok("a", 0)}}
    nothing = pa.nulls(1, pa.float64())  # as files merged by an earlier version have it
    pq.write_table(pq.read_table(path).append_column("encode_s", nothing), path)
    assert dict(ledger.slides()) == {"a": {0: ok("a", 0)}}
    pq.write_table(pq.read_table(path).drop_columns(["checksum", "slide_id"]), path)
    with pytest.raises(StoreError, match=r"no column slide_id.*take it out"):
        list(ledger.slides())


def test_large_files_come_back_whole_and_in_order(tmp_path: Path) -> None:
    ledger, rng = Ledger(str(tmp_path)), random.Random(0)
    pieces = [(f"s{n:05d}", shard) for n in range(PIECE_ROWS // 4) for shard in range(6)]
    rng.shuffle(pieces)
    ledger.append(ok(slide_id, shard, int(slide_id[1:]) + shard) for slide_id, shard in pieces)
    found = list(standings(ledger))
    assert [standing.slide_id for standing in found] == sorted({slide_id for slide_id, _ in pieces})
    for standing in found[:: len(found) // 50]:
        first = int(standing.slide_id[1:])
        wanted = tuple(SHA(first + shard) for shard in range(6))
        assert standing.written.commit("", "", 1, None).checksums == wanted


def index_row(number: int, **fields: object) -> IndexRow:
    return IndexRow(f"s{number:06d}", "", 9, 4, 0.5, "c", (SHA(number),), **fields)  # type: ignore[arg-type]


def test_an_index_keeps_what_is_true_and_takes_what_is_new(tmp_path: Path) -> None:
    index = Index(str(tmp_path / "index.parquet"))
    count = 2 * ROWS_AT_ONCE + 10
    index.write(index_row(number) for number in range(count))
    before = (tmp_path / "index.parquet").read_bytes()

    same = Committed(index)
    for number in range(count):
        same.settle(index_row(number))
    same.end_of_ledger()
    same.flush()
    assert not same.changed
    assert (tmp_path / "index.parquet").read_bytes() == before

    other = Committed(index)
    for number in range(0, count + 5, 2):  # every second one went; some are new, one is different
        other.settle(index_row(number, seconds=1.0 if number == 4 else 0.0))
    other.end_of_ledger()
    for number in range(count + 6, count + 6 + ROWS_AT_ONCE + 3):
        other.add(index_row(number))
    other.flush()
    other.add(index_row(1))
    other.flush()
    wanted = {*range(0, count + 5, 2), *range(count + 6, count + 9 + ROWS_AT_ONCE), 1}
    assert list(index.read().values()) == [
        index_row(number, seconds=1.0 if number == 4 else 0.0) for number in sorted(wanted)
    ]


@pytest.mark.parametrize("written", [[], [0], [2], [0, 2], [1]])
def test_missing_patches_are_those_of_the_shards_that_are_listed(
    tmp_path: Path, written: list[int]
) -> None:
    cohort = make_cohort(tmp_path, 2)
    books = cohort.books()
    for shard in list(books.missing_shards()):
        if shard.slide_id == "a" and shard.shard in written:
            books.take(fake_receipt(shard))
    missing = list(books.missing_shards())
    assert len(missing) == 6 - len(written)
    rows = [cohort.store.shard_rows(shard.num_patches, shard.shard) for shard in missing]
    assert books.num_missing_patches() == sum(map(len, rows))

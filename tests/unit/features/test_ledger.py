import random
import time
from dataclasses import replace
from pathlib import Path

import pytest

from crane_ray import storage
from crane_ray.errors import StorageError, StoreError
from crane_ray.features.ledger import (
    COMPACT_ABOVE,
    MERGE_EVERY,
    RECEIPT_SCHEMA,
    Index,
    IndexRow,
    Ledger,
    Receipt,
)
from crane_ray.features.standing import WrittenShards


def receipt(slide_id: str, shard: int, **fields: object) -> Receipt:
    made = Receipt(slide_id, shard, "ok", 9, f"c{slide_id}", rows=4, checksum=f"{slide_id}{shard}")
    return replace(made, **fields)  # type: ignore[arg-type]


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(str(tmp_path / "ledger"))


def everything(ledger: Ledger) -> dict[str, dict[int, Receipt]]:
    slides = list(Ledger(ledger.folder).slides())
    assert len(dict(slides)) == len(slides), "a slide came twice"
    return dict(slides)


def num_files(ledger: Ledger) -> int:
    return len(list(Path(ledger.folder).iterdir()))


def test_an_empty_ledger_has_no_slides(ledger: Ledger) -> None:
    assert everything(ledger) == {}
    ledger.append([])
    ledger.compact()
    assert not Path(ledger.folder).exists()


def test_a_receipt_comes_back_as_it_was(ledger: Ledger) -> None:
    mine = Receipt(
        "Größe 1", 3, "error", 2**40, "c", 7, "sum", "why\nnot", True, 2, 1.25, 0.5,
        batch_size=256, reader="openslide", host="h:1", run_id="run",
        written="2025-01-01T00:00:00.000+00:00",
    )  # fmt: skip
    ledger.append([mine])
    assert everything(ledger) == {"Größe 1": {3: mine}}


def test_the_schema_has_the_order_of_the_fields() -> None:
    assert RECEIPT_SCHEMA.names == list(Receipt.__dataclass_fields__)


def test_the_last_receipt_wins(ledger: Ledger) -> None:
    ledger.append([receipt("a", 0, status="error"), receipt("a", 0, attempt=2)])
    assert everything(ledger)["a"][0].attempt == 2
    ledger.append([receipt("a", 0, status="discarded"), receipt("a", 1)])
    slides = everything(ledger)
    assert slides["a"][0].status == "discarded"
    assert slides["a"][1].status == "ok"


def test_the_last_one_wins_whatever_the_clocks_say(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger.append([receipt("a", 0)])
    monkeypatch.setattr(time, "time_ns", lambda: 10**9)
    behind = Ledger(ledger.folder)
    for attempt in range(2, 12):
        behind.append([receipt("a", 0, attempt=attempt)])
    assert everything(ledger)["a"][0].attempt == 11


def test_slides_come_whole_from_wherever_their_receipts_lie(ledger: Ledger) -> None:
    rng = random.Random(0)
    pieces = [(f"slide-{slide:03d}", shard) for slide in range(300) for shard in range(8)]
    rng.shuffle(pieces)
    for start in range(0, len(pieces), 500):
        ledger.append(receipt(*piece) for piece in pieces[start : start + 500])
    slides = everything(ledger)
    assert len(slides) == 300
    for slide_id, shards in slides.items():
        assert {shard: r.checksum for shard, r in shards.items()} == {
            shard: f"{slide_id}{shard}" for shard in range(8)
        }


def by_another_run(ledger: Ledger, *receipts: Receipt) -> None:
    """Receipts that a run which ended then wrote."""
    Ledger(ledger.folder).append(receipts)


def test_a_long_run_merges_what_it_wrote(ledger: Ledger) -> None:
    """Only that: receipts of earlier runs are left where they are, and in order."""
    by_another_run(ledger, receipt("a", 0, attempt=9), receipt("z", 1))
    for attempt in range(10, 10 + 3 * MERGE_EVERY + 5):
        ledger.append([receipt("a", 0, attempt=attempt), receipt(f"s{attempt}", attempt)])
        if attempt % MERGE_EVERY in {8, 9, 10}:  # before, at and after a merge
            assert everything(ledger)["a"][0].attempt == attempt
    assert num_files(ledger) == 1 + 3 + 5
    found = everything(ledger)
    assert set(found) == {"a", "z", *(f"s{n}" for n in range(10, 10 + 3 * MERGE_EVERY + 5))}
    ledger.compact()
    assert num_files(ledger) == 9


def test_a_ledger_is_read_whole_while_its_driver_merges_it(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    for shard in range(MERGE_EVERY - 1):
        ledger.append([receipt("a", shard)])
    list_files, merges = storage.list_files, 0

    def late(folder: str, suffix: str) -> list[str]:
        nonlocal merges
        files = list_files(folder, suffix)
        if merges == 0:  # between the reader's listing and its reading
            merges = 1
            ledger.append([receipt("a", MERGE_EVERY)])
        return files

    monkeypatch.setattr(storage, "list_files", late)
    assert len(everything(ledger)["a"]) == MERGE_EVERY
    monkeypatch.setattr(storage, "list_files", lambda *_: [f"{ledger.folder}/gone.parquet"])
    with pytest.raises(StorageError, match=r"gone\.parquet: is not there"):
        everything(ledger)


def test_compaction_loses_nothing_and_keeps_the_order(ledger: Ledger) -> None:
    for attempt in range(COMPACT_ABOVE):
        by_another_run(ledger, receipt("a", 0, attempt=attempt), receipt(f"s{attempt}", attempt))
    ledger.compact()
    assert num_files(ledger) == COMPACT_ABOVE
    ledger.append([receipt("a", 0, attempt=1000)])
    before = everything(ledger)
    ledger.compact()
    assert num_files(ledger) == 1
    assert everything(ledger) == before
    ledger.append([receipt("a", 0, attempt=1001)])
    assert everything(ledger)["a"][0].attempt == 1001
    for attempt in range(2000, 2000 + COMPACT_ABOVE):
        by_another_run(ledger, receipt("a", 0, attempt=attempt))
    Ledger(ledger.folder).compact()
    assert num_files(ledger) == 1
    assert everything(ledger)["a"][0].attempt == 2000 + COMPACT_ABOVE - 1


@pytest.mark.parametrize("by_itself", [False, True])
@pytest.mark.parametrize("survivors", [0, 1, 30, COMPACT_ABOVE - 1])
def test_a_compaction_may_be_killed_anywhere(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch, survivors: int, by_itself: bool
) -> None:
    """That of a new run, and the merging of what a run wrote itself."""
    write = ledger.append if by_itself else lambda new: by_another_run(ledger, *new)
    for attempt in range(MERGE_EVERY - 1 if by_itself else COMPACT_ABOVE + 1):
        write([receipt("a", 0, attempt=attempt), receipt(f"s{attempt}", attempt)])
    before, removed = everything(ledger), 0
    remove_tree = storage.remove_tree

    def killed(path: str) -> None:
        nonlocal removed
        if removed >= survivors:
            raise KeyboardInterrupt
        removed += 1
        remove_tree(path)

    monkeypatch.setattr(storage, "remove_tree", killed)
    with pytest.raises(KeyboardInterrupt):
        if by_itself:
            before["b"] = {7: receipt("b", 7)}
            ledger.append([receipt("b", 7)])
        ledger.compact()
    assert everything(ledger) == before
    ledger.append([receipt("a", 0, attempt=1000)])
    assert everything(ledger)["a"][0].attempt == 1000


@pytest.mark.parametrize("content", [b"", b"PAR1", b"no parquet" * 100])
def test_a_broken_file_is_a_clear_error(ledger: Ledger, content: bytes) -> None:
    ledger.append([receipt("a", 0)])
    (Path(ledger.folder) / "00000000000000000001-x.parquet").write_bytes(content)
    with pytest.raises(StoreError, match=r"1-x\.parquet: not a readable ledger file"):
        everything(ledger)


def test_unfinished_files_do_not_count(ledger: Ledger) -> None:
    ledger.append([receipt("a", 0)])
    (Path(ledger.folder) / ".123.x.parquet").write_bytes(b"half a fi")
    assert list(everything(ledger)) == ["a"]


def test_an_index_comes_back_sorted(tmp_path: Path) -> None:
    index = Index(str(tmp_path / "index.parquet"))
    assert index.read() == {}
    rows = [
        IndexRow("b", "case", 9, 4, None, "c", ("x", "y"), 1.5, ("h", "i"), "now"),
        IndexRow("a", "", 1, 4, 0.25, "d", ("z",)),
    ]
    index.write(iter(rows))
    assert list(index.read().values()) == [rows[1], rows[0]]
    index.write([])
    assert index.read() == {}


def test_a_broken_index_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "index.parquet").write_bytes(b"no parquet")
    with pytest.raises(StoreError, match="move it away"):
        Index(str(tmp_path / "index.parquet")).read()


def test_a_commit_follows_from_its_receipts() -> None:
    receipts = {
        1: receipt("a", 1, seconds=1.0, host="x", written="2"),
        0: receipt("a", 0, seconds=0.5, host="y", written="3"),
        2: receipt("a", 2, seconds=0.1, host="x", written="1"),
    }
    assert WrittenShards(receipts.values()).commit("a", "case", 4, 0.5) == IndexRow(
        "a", "case", 9, 4, 0.5, "ca", ("a0", "a1", "a2"), 1.6, ("x", "y"), "3"
    )

import random
from dataclasses import replace
from pathlib import Path

import pytest

from crane_ray.features import commits
from crane_ray.features.commits import Books
from crane_ray.features.extraction import Shard
from crane_ray.features.ledger import IndexRow
from crane_ray.slides.patches import PatchSpec
from tests.unit.features.small_store import (
    SPEC,
    Cohort,
    fake_receipt,
    files_below,
    make_cohort,
    pipeline,
)


@pytest.fixture
def cohort(tmp_path: Path) -> Cohort:
    return make_cohort(tmp_path, 3)


def take_all(books: Books) -> Books:
    for shard in list(books.missing_shards()):
        books.take(fake_receipt(shard))
    books.flush()
    return books


def lasting(index: dict[str, IndexRow]) -> dict[str, IndexRow]:
    """An index without what may differ from run to run."""
    return {
        slide_id: replace(row, seconds=0, hosts=(), committed="") for slide_id, row in index.items()
    }


def test_everything_is_committed_once(cohort: Cohort) -> None:
    books = cohort.books()
    shards = list(books.missing_shards())
    assert [(s.slide_id, s.shard) for s in shards] == [(i, n) for i in "abc" for n in range(3)]
    ended = [books.take(fake_receipt(shard)) for shard in shards]
    assert ended == [False, False, True] * 3
    books.flush()
    assert (books.done, books.skipped, books.failed, books.todo) == (set("abc"), set(), {}, {})
    row = cohort.store.index.read()["b"]
    assert (row.case_id, row.num_patches, row.dim, row.mpp) == ("case b", 21, 12, 0.5)
    assert row.checksums == tuple(fake_receipt(s).checksum for s in shards[3:6])
    assert row.committed == fake_receipt(shards[5]).written
    again = cohort.books()
    assert (again.done, again.skipped, again.todo) == (set(), set("abc"), {})
    assert list(again.missing_shards()) == []


def test_shards_come_back_in_any_order(cohort: Cohort) -> None:
    books = cohort.books()
    shards = list(books.missing_shards())
    random.Random(0).shuffle(shards)
    for shard in shards:
        books.take(fake_receipt(shard))
    books.flush()
    assert cohort.store.index.read()["a"].checksums == tuple(
        fake_receipt(s).checksum for s in sorted(shards, key=lambda s: s.shard) if s.slide_id == "a"
    )


def test_a_rerun_with_nothing_to_do_changes_no_file(cohort: Cohort) -> None:
    take_all(cohort.books())
    before = files_below(cohort.store.root)
    cohort.books().flush()
    assert files_below(cohort.store.root) == before


def test_a_lost_index_is_rebuilt(cohort: Cohort) -> None:
    take_all(cohort.books())
    index = cohort.store.index.read()
    Path(cohort.store.index.path).unlink()
    assert cohort.books().skipped == set("abc")
    assert cohort.store.index.read() == index


def test_unflushed_receipts_are_extracted_again(
    cohort: Cohort, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commits, "PROMPT_RECEIPTS", 0)
    monkeypatch.setattr(commits, "LEDGER_EVERY_S", 1e9)
    monkeypatch.setattr(commits, "INDEX_EVERY_S", 1e9)
    books = cohort.books()
    shards = list(books.missing_shards())
    for shard in shards[:5]:
        books.take(fake_receipt(shard))  # the first is flushed, the driver dies after the fifth
    assert list(cohort.books().missing_shards()) == shards[1:]


def test_an_interrupted_run_ends_like_an_undisturbed_one(tmp_path: Path) -> None:
    whole, torn = make_cohort(tmp_path / "1", 2), make_cohort(tmp_path / "2", 2)
    for cohort, stops in ((whole, [99]), (torn, [0, 2, 1, 99])):
        for stop in stops:
            books = cohort.books()
            with pipeline(cohort) as worker:
                for shard in list(books.missing_shards())[:stop]:
                    books.take(worker.extract(shard)[0])
            books.flush()
    index = lasting(whole.store.index.read())
    assert set(index) == {"a", "b"}
    assert index == lasting(torn.store.index.read())
    slides = [files_below(f"{cohort.store.root}/slides") for cohort in (whole, torn)]
    assert slides[0] == slides[1]
    assert all(not torn.store.damaged_shards(row) for row in torn.store.index.read().values())


def test_failed_slides_are_tried_again_with_a_growing_number(cohort: Cohort) -> None:
    for attempt in (1, 2, 3):
        books = cohort.books()
        shards = {shard: shard.attempt for shard in books.missing_shards()}
        broken = next(s for s in shards if (s.slide_id, s.shard) == ("b", 1))
        assert shards.pop(broken) == attempt
        assert set(shards.values()) <= {1}
        assert books.take(fake_receipt(broken, "unreadable")) is True
        assert books.failed == {"b": "unreadable"}
        assert books.take(fake_receipt(broken, "again")) is False
        for shard in shards:
            books.take(fake_receipt(shard))
        books.flush()
        assert sorted(cohort.store.index.read()) == ["a", "c"]
    books = cohort.books()
    assert [(s.slide_id, s.shard, s.attempt) for s in books.missing_shards()] == [("b", 1, 4)]
    take_all(books)
    assert cohort.books().skipped == set("abc")


def test_stale_slides_are_kept_unless_replaced(cohort: Cohort) -> None:
    take_all(cohort.books())
    before = cohort.store.index.read()
    cohort.patch("b", 13, offset=5)
    books = cohort.books()
    assert list(books.missing_shards()) == []
    assert "--replace-stale" in books.failed["b"]
    assert cohort.store.index.read() == before

    books = cohort.books(replace_stale=True)
    assert books.failed == {}
    assert sorted(cohort.store.index.read()) == ["a", "c"]
    assert [(s.slide_id, s.shard) for s in books.missing_shards()] == [("b", 0), ("b", 1)]
    take_all(books)
    row = cohort.store.index.read()["b"]
    assert (row.num_patches, len(row.checksums)) == (13, 2)
    assert row.coords_checksum == cohort.rows["b"].coords_checksum
    assert cohort.books().skipped == set("abc")


def test_an_interrupted_replacement_mixes_nothing(cohort: Cohort) -> None:
    take_all(cohort.books())
    cohort.patch("b", 21, offset=5)
    books = cohort.books(replace_stale=True)
    books.take(fake_receipt(next(books.missing_shards())))
    books.flush()
    again = cohort.books()
    assert [(s.slide_id, s.shard) for s in again.missing_shards()] == [("b", 1), ("b", 2)]
    take_all(again)
    new = cohort.rows["b"].coords_checksum or "?"
    assert all(text.endswith(new) for text in cohort.store.index.read()["b"].checksums)


def test_partly_extracted_stale_slides_are_not_finished_with_other_patches(cohort: Cohort) -> None:
    books = cohort.books()
    books.take(fake_receipt(next(books.missing_shards())))
    books.flush()
    cohort.patch("a", 21, offset=5)
    books = cohort.books()
    assert "a" in books.failed
    assert {s.slide_id for s in books.missing_shards()} == {"b", "c"}
    assert "a" not in cohort.store.index.read()
    assert len([s for s in cohort.shards() if s.slide_id == "a"]) == 0
    assert len(list(cohort.books(replace_stale=True).missing_shards())) == 9


@pytest.mark.parametrize(("num_patches", "offset"), [(30, 0), (9, 0), (21, 3)])
def test_arrays_of_other_patches_without_a_receipt_are_cleared(
    tmp_path: Path, num_patches: int, offset: int
) -> None:
    """The driver died before its first receipt, and the slide was patched anew."""
    cohort, plain = make_cohort(tmp_path / "1", 1), make_cohort(tmp_path / "2", 1)
    with pipeline(cohort) as worker:
        worker.extract(cohort.shards()[0])
    for one in (cohort, plain):
        one.patch("a", num_patches, offset)
    errors = []
    for one in (cohort, cohort, plain):
        books = one.books()
        with pipeline(one) as worker:
            for shard in list(books.missing_shards()):
                books.take(worker.extract(shard)[0])
        books.flush()
        errors.append(books.failed.get("a", ""))
    assert "arrays of other patches" in errors[0]
    assert errors[1:] == ["", ""]
    assert lasting(cohort.store.index.read()) == lasting(plain.store.index.read())
    slides = [files_below(f"{one.store.root}/slides") for one in (cohort, plain)]
    assert slides[0] == slides[1]


def test_slides_that_cannot_be_extracted_say_why(cohort: Cohort) -> None:
    other = PatchSpec(size_px=128, level=0).fingerprint()
    assert other != SPEC.fingerprint()
    cohort.rows["a"] = replace(cohort.rows["a"], spec_fingerprint=other)
    cohort.rows["b"] = replace(cohort.rows["b"], status="failed", reason="cut short")
    cohort.rows["c"] = replace(cohort.rows["c"], num_patches=None)
    cohort.rows["d"] = replace(cohort.rows["c"], slide_id="d", status="no_tissue")
    books = cohort.books()
    assert "another size or scale" in books.failed["a"]
    assert books.failed["b"] == "failed in patching: cut short"
    assert "--seg-only" in books.failed["c"]
    assert "d" not in books.failed
    assert list(books.missing_shards()) == []


def test_a_slide_that_left_the_workspace_stays_as_it_was(cohort: Cohort) -> None:
    take_all(cohort.books())
    before = cohort.store.index.read()
    del cohort.rows["a"]
    cohort.rows["b"] = replace(cohort.rows["b"], status="failed", reason="gone")
    books = cohort.books()
    assert books.skipped == {"c"}
    assert cohort.store.index.read() == before


def test_receipts_of_unknown_slides_end_nothing(cohort: Cohort) -> None:
    books = cohort.books()
    stranger = Shard("z", "", "", 1, "0", 0)
    assert books.take(fake_receipt(stranger)) is False
    assert books.done == set()

"""One pass over the slides for several stores: each shard is sent once, with those that miss it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crane_ray.features.commits import Books
from crane_ray.features.extraction import Shard
from crane_ray.features.joint import JointBooks
from crane_ray.slides.workspace import SlideRow, Workspace
from tests.unit.features.small_store import (
    NUM_PATCHES,
    SPEC,
    Cohort,
    fake_receipt,
    make_store,
)

SLIDES = ("d", "a", "c")
"""In the workspace's order, which is not that of their names."""
SHARDS = 3


@pytest.fixture
def cohort(tmp_path: Path) -> Cohort:
    return cohort_at(tmp_path)


def cohort_at(root: Path) -> Cohort:
    """Rows of a workspace, no slides."""
    rows = {
        slide_id: SlideRow(
            slide_id,
            f"/{slide_id}.tif",
            "ok",
            num_patches=NUM_PATCHES,
            coords_checksum=slide_id * 16,
            spec_fingerprint=SPEC.fingerprint(),
        )
        for slide_id in SLIDES
    }
    return Cohort(Workspace(str(root)), rows, make_store(root / "one"))


def open_books(cohort: Cohort, root: Path, *names: str) -> list[Books]:
    stores = [make_store(root / name) for name in names]
    return [Books(store, cohort.workspace, cohort.rows) for store in stores]


def joint(cohort: Cohort, root: Path, *names: str) -> JointBooks:
    return JointBooks(open_books(cohort, root, *names), cohort.rows)


def sent(books: JointBooks) -> dict[tuple[str, int], tuple[int, ...]]:
    """Stores by shard."""
    shards = list(books.missing_shards())
    found = {(shard.slide_id, shard.shard): shard.outputs for shard in shards}
    assert len(found) == len(shards), "each shard once"
    return found


EVERY = [(slide_id, shard) for slide_id in SLIDES for shard in range(SHARDS)]


def test_new_stores_miss_everything(cohort: Cohort, tmp_path: Path) -> None:
    books = joint(cohort, tmp_path, "one", "two", "three")
    assert sent(books) == dict.fromkeys(EVERY, (0, 1, 2))
    assert list(sent(books)) == EVERY, "slide by slide, in the workspace's order"
    assert books.num_missing_patches() == 3 * NUM_PATCHES
    assert books.todo() == list(SLIDES)


def test_one_store_is_as_without_the_others(cohort: Cohort, tmp_path: Path) -> None:
    (alone,) = open_books(cohort, tmp_path, "one")
    assert list(joint(cohort, tmp_path, "one").missing_shards()) == list(alone.missing_shards())


@settings(deadline=None, max_examples=30)
@given(had=st.lists(st.sets(st.sampled_from(EVERY)), min_size=1, max_size=3))
def test_each_shard_goes_to_the_stores_that_miss_it(
    tmp_path_factory: pytest.TempPathFactory, had: list[set[tuple[str, int]]]
) -> None:
    root = tmp_path_factory.mktemp("joint")
    cohort = cohort_at(root)
    names = [str(number) for number in range(len(had))]
    for books, done in zip(open_books(cohort, root, *names), had, strict=True):
        for shard in list(books.missing_shards()):
            if (shard.slide_id, shard.shard) in done:
                books.take(fake_receipt(shard))
        books.flush()
    again = joint(cohort, root, *names)
    expected = {
        key: tuple(place for place, done in enumerate(had) if key not in done) for key in EVERY
    }
    found = sent(again)
    assert found == {key: places for key, places in expected.items() if places}
    assert list(found) == [key for key in EVERY if key in found]
    assert again.todo() == [one for one in SLIDES if any(key[0] == one for key in found)]
    rows = {0: 8, 1: 8, 2: NUM_PATCHES - 16}
    missing = [sum(rows[key[1]] for key in EVERY if key not in done) for done in had]
    assert again.num_missing_patches() == max(missing)


def test_a_slide_ends_once_when_the_last_store_has_it(cohort: Cohort, tmp_path: Path) -> None:
    books = joint(cohort, tmp_path, "one", "two")
    shards = [shard for shard in books.missing_shards() if shard.slide_id == "a"]
    ends = [
        (shard.shard, place)
        for shard in shards
        for place in shard.outputs
        if books.take(fake_receipt(shard), place)
    ]
    assert ends == [(SHARDS - 1, 1)]
    assert not books.failed("a")
    assert books.todo() == ["d", "c"]
    assert [one.done for one in books.books] == [{"a"}, {"a"}]


def test_a_slide_that_one_store_has_ends_with_the_other(cohort: Cohort, tmp_path: Path) -> None:
    (two,) = open_books(cohort, tmp_path, "two")
    for shard in list(two.missing_shards()):
        two.take(fake_receipt(shard))
    two.flush()
    books = joint(cohort, tmp_path, "one", "two")
    assert sent(books) == dict.fromkeys(EVERY, (0,))
    shards = [shard for shard in books.missing_shards() if shard.slide_id == "c"]
    assert [books.take(fake_receipt(shard), 0) for shard in shards] == [False, False, True]


def test_a_failure_for_one_store_leaves_the_other_its_slide(cohort: Cohort, tmp_path: Path) -> None:
    books = joint(cohort, tmp_path, "one", "two")
    shards = [shard for shard in books.missing_shards() if shard.slide_id == "d"]
    ends = []
    for shard in shards:
        ends.append(books.take(fake_receipt(shard, "no luck"), 0))
        ends.append(books.take(fake_receipt(shard), 1))
    assert ends == [False] * 5 + [True]
    assert books.failed("d")
    assert books.books[0].failed == {"d": "no luck"}
    assert books.books[1].done == {"d"}
    assert not books.failed("a")
    books.flush()
    again = joint(cohort, tmp_path, "one", "two")
    missing = {shard: shard.outputs for shard in again.missing_shards() if shard.slide_id == "d"}
    assert set(missing.values()) == {(0,)}
    assert {shard.attempt for shard in missing} == {2}


def test_the_attempts_of_a_shard_are_those_of_the_store_that_had_most(
    cohort: Cohort, tmp_path: Path
) -> None:
    books = joint(cohort, tmp_path, "one", "two")
    for shard in list(books.missing_shards())[:2]:
        books.take(fake_receipt(shard, "no luck"), shard.shard)
    books.flush()
    again = joint(cohort, tmp_path, "one", "two").missing_shards()
    assert [shard.attempt for shard in again] == [2, 2, 1] + [1] * 6


def test_a_slide_that_fails_for_all_stores_ends_with_the_last(
    cohort: Cohort, tmp_path: Path
) -> None:
    books = joint(cohort, tmp_path, "one", "two")
    shards = [shard for shard in books.missing_shards() if shard.slide_id == "d"]
    ends = [
        books.take(fake_receipt(shard, "no luck"), place) for shard in shards for place in (0, 1)
    ]
    assert ends == [False, True, False, False, False, False]
    assert books.todo() == ["a", "c"]


def test_a_slide_can_be_given_up_for_the_stores_that_miss_it(
    cohort: Cohort, tmp_path: Path
) -> None:
    books = joint(cohort, tmp_path, "one", "two")
    for shard in list(books.books[0].missing_shards()):
        if shard.slide_id == "a":
            books.take(fake_receipt(shard), 0)
    books.fail("a", "the actor died")
    assert books.books[0].failed == {}
    assert books.books[1].failed == {"a": "the actor died"}
    assert books.failed("a")
    assert books.todo() == ["d", "c"]


def test_what_fails_while_shards_are_sent_costs_no_other_store_its_shards(
    cohort: Cohort, tmp_path: Path
) -> None:
    """Shards are made as the stream asks for them, receipts come meanwhile."""
    books = joint(cohort, tmp_path, "one", "two")
    shards: Iterator[Shard] = books.missing_shards()
    first = next(shards)
    books.take(fake_receipt(first, "no luck"), 0)
    rest = list(shards)
    places = [shard.outputs for shard in rest if shard.slide_id == first.slide_id]
    assert len(places) == SHARDS - 1
    assert all(1 in outputs for outputs in places)
    assert {shard.outputs for shard in rest if shard.slide_id != first.slide_id} == {(0, 1)}

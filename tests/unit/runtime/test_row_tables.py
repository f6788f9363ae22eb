"""A table that tasks fill: what came back is in it and counted, however the run ends."""

from collections.abc import Generator, Iterable
from typing import Any

import pytest

from crane_ray.errors import StorageError
from crane_ray.runtime.reporting import Silent
from crane_ray.runtime.row_tables import RowTable
from crane_ray.slides.workspace import SlideRow


class Disk:
    """What was written last."""

    def __init__(self) -> None:
        self.rows: dict[str, SlideRow] = {}

    def write(self, rows: Iterable[SlideRow]) -> None:
        self.rows = {row.slide_id: row for row in rows}


def fill(table: RowTable[SlideRow], results: list[dict[str, Any]], slide_ids: list[str]) -> None:
    table.fill(
        iter(results),
        lambda block: block,
        kwargs={},
        row_of=lambda result: None if result.get("same") else SlideRow.from_mapping(result),
        dead=lambda slide_id: SlideRow(slide_id, "/x", "failed", reason="died"),
        slide_ids=slide_ids,
    )


def no_cluster(
    tasks: Iterable[Any], task: Any, *, kwargs: Any
) -> Generator[dict[str, Any], None, None]:
    """What was sent comes back."""
    yield from tasks


def result(slide_id: str, status: str = "ok", **more: Any) -> dict[str, Any]:
    return {"slide_id": slide_id, "uri": "/x", "status": status, "reason": "", "fatal": ""} | more


def test_rows_that_came_back_are_written_and_counted() -> None:
    disk = Disk()
    before = {
        "old": SlideRow("old", "/x", "ok", num_patches=9),
        "same": SlideRow("same", "/x", "ok", num_patches=7),
        "other": SlideRow("other", "/x", "ok"),
    }
    table = RowTable(before, disk.write, Silent(), stream=no_cluster)
    sent = ["a", "b", "c", "same", "killer"]
    came = [
        result("a", num_patches=5),
        result("b", "failed", reason="cut short"),
        result("c", "no_tissue", reason="glass"),
        result("same", same=True),
    ]
    fill(table, came, sent)
    table.close()
    assert set(disk.rows) == {"old", "other", *sent}
    summary = table.summary("patch", "/cohort", ["old", *sent], sent)
    assert summary.counts() == {
        "done": 1, "skipped": 2, "no_tissue": 1, "failed": 2, "patches": 5,
    }  # fmt: skip
    assert {slide.slide_id: slide.reason for slide in summary.left_out} == {
        "b": "cut short", "c": "glass", "killer": "died",
    }  # fmt: skip


def test_what_cannot_be_written_ends_the_run_and_what_came_before_stays() -> None:
    disk = Disk()
    table = RowTable[SlideRow]({}, disk.write, Silent(), stream=no_cluster)
    with pytest.raises(StorageError, match="disk is full"):
        fill(table, [result("a"), result("b", fatal="disk is full"), result("c")], ["a", "b", "c"])
    table.close()
    assert set(disk.rows) == {"a"}
    summary = table.summary("patch", "/cohort", ["a", "b", "c"], ["a", "b", "c"])
    assert (summary.done, summary.left_out) == (1, [])


def test_slides_that_were_sent_and_are_not_back_do_not_count_as_done_before() -> None:
    table = RowTable({"a": SlideRow("a", "/x", "ok")}, Disk().write, Silent())
    assert table.summary("patch", "/cohort", ["a"], ["a"]).skipped == 0
    assert table.summary("patch", "/cohort", ["a"], []).skipped == 1

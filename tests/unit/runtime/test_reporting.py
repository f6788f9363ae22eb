"""What is left to say at the end of a run."""

from crane_ray.manifest import LeftOut
from crane_ray.runtime.reporting import Summary


def test_slides_that_are_left_out_are_counted_by_status() -> None:
    summary = Summary("patch", "/w", done=2, skipped=1, patches=7)
    assert summary.counts() == {
        "done": 2, "skipped": 1, "no_tissue": 0, "failed": 0, "patches": 7
    }  # fmt: skip
    summary.leave_out("a", "no such file")
    summary.leave_out("b", "no tissue found", "no_tissue")
    summary.leave_out("c", "out of memory", "failed")
    assert (summary.counts()["failed"], summary.counts()["no_tissue"]) == (2, 1)
    assert summary.failures == [
        LeftOut(slide_id="a", status="failed", reason="no such file"),
        LeftOut(slide_id="c", status="failed", reason="out of memory"),
    ]
    assert [slide.slide_id for slide in summary.left_out] == ["a", "b", "c"]

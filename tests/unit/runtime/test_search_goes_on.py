"""A search that was submitted again goes on with the files that travelled with it."""

import pytest

from crane_ray.runtime.tuning import _are_same

FIRST = "/tmp/ray/session_1/runtime_resources/working_dir_files/_ray_pkg_1/task-own.yaml"
AGAIN = "/tmp/ray/session_2/runtime_resources/working_dir_files/_ray_pkg_2/task-own.yaml"


@pytest.mark.parametrize(
    ("before", "now", "same"),
    [
        ("/a/own.yaml", "/a/own.yaml", True),
        ("/a/own.yaml", "/b/own.yaml", False),
        (FIRST, AGAIN, True),
        ("/a/own.yaml", AGAIN, True),
        ("/a/other.yaml", AGAIN, False),
        ({"lr": 1}, AGAIN, False),
    ],
)
def test_copies_of_one_file_are_the_same(before: object, now: object, same: bool) -> None:
    assert _are_same("task", before, now) == same


def test_other_settings_are_compared_as_they_are() -> None:
    assert not _are_same("splits", FIRST, AGAIN)

"""docs/reliability.md promises what a test shows, and names every test that kills something."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "reliability.md").read_text()
PROMISES, _, NOT_PROMISED = PAGE.partition("\n## Not promised\n")
TEST = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")
NAMED = {f"{file}::{name}" for file, name in TEST.findall(PAGE)}
ROWS = [line for line in PROMISES.splitlines() if line.startswith("| ")]
HEAD_AND_RULE = re.compile(r"\| (failure|what is asked for) \|")


def marks_of(source: str) -> dict[str, bool]:
    """The tests of a module by name: whether each is marked as chaos, by itself or as a whole."""
    tree = ast.parse(source)
    marks = (
        node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "pytestmark"
    )
    whole = any(_is_chaos(mark) for mark in marks)
    return {
        node.name: whole or any(map(_is_chaos, node.decorator_list))
        for node in tree.body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }


def _is_chaos(mark: ast.expr) -> bool:
    return re.search(r"\bmark\.chaos\b", ast.unparse(mark)) is not None


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("def test_a(): ...\ndef helper(): ...", {"test_a": False}),
        (
            "@pytest.mark.chaos\ndef test_a(): 1\ndef test_b(): 1",
            {"test_a": True, "test_b": False},
        ),
        ("pytestmark = pytest.mark.chaos\ndef test_a(): ...", {"test_a": True}),
        ("pytestmark = [pytest.mark.ray, pytest.mark.chaos]\ndef test_a(): ...", {"test_a": True}),
        ("pytestmark = pytest.mark.ray\ndef test_a(): 'mark.chaos'", {"test_a": False}),
    ],
)
def test_marks_are_seen_on_tests_and_on_modules(source: str, found: dict[str, bool]) -> None:
    assert marks_of(source) == found


@pytest.mark.parametrize("file", sorted({name.split("::")[0] for name in NAMED}))
def test_every_test_that_is_named_exists(file: str) -> None:
    found = marks_of((ROOT / file).read_text())
    named = {name.split("::")[1] for name in NAMED if name.startswith(f"{file}::")}
    assert named
    assert not named - found.keys()


def test_nothing_that_looks_like_a_test_escapes_the_check() -> None:
    assert len(re.findall(r"\w\.py::", PAGE)) == len(TEST.findall(PAGE)) > 50


def test_every_test_that_kills_something_is_named() -> None:
    chaos = {
        f"{path.relative_to(ROOT)}::{name}"
        for path in (ROOT / "tests" / "ray").glob("test_*.py")
        for name, marked in marks_of(path.read_text()).items()
        if marked
    }
    assert len(chaos) > 10
    assert not chaos - NAMED


def test_every_promise_names_a_test_and_says_what_to_do() -> None:
    promises = [row for row in ROWS if not HEAD_AND_RULE.match(row)]
    assert len(promises) > 30
    for row in promises:
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        assert len(cells) == 5, row
        assert all(cells), row
        assert TEST.search(cells[-1]), row


def test_what_is_not_shown_is_said() -> None:
    assert len(re.findall(r"^- \*\*", NOT_PROMISED, re.MULTILINE)) > 5
    assert not TEST.search(NOT_PROMISED)

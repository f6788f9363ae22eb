import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crane_ray.cohort.labels import read_labels
from crane_ray.cohort.tasks import MISSING, TaskSpec
from tests.unit.cohort.tables import only

CELL = TaskSpec(
    name="cell",
    column="label_cell",
    classes=("no_cell", "cell"),
    aliases={"acr": "cell"},
    ignore=("unsure",),
)


def test_classes_aliases_ignored_and_empty_cells() -> None:
    cells = ["cell", "no_cell", "acr", "unsure", "", "NaN", "n/a"]
    read = read_labels(cells, CELL)
    assert read.labels_S.tolist() == [1, 0, 1, MISSING, MISSING, MISSING, MISSING]
    assert not read.problem
    masked = only(read.findings, "masked_labels")
    assert masked.severity == "note"
    assert "4 slides of 7" in masked.message
    assert "3 empty, 1 ignored 'unsure'" in masked.message


def test_labels_outside_the_map_are_told_with_counts_and_what_would_do() -> None:
    read = read_labels(["cell", "no cell", "no cell", "zebra", "none"], CELL)
    assert "4 rows of 5" in read.problem
    assert "'no cell' (2), nearest 'no_cell'" in read.problem
    assert "'zebra' (1)" in read.problem
    assert "Expected: 'no_cell', 'cell', 'acr', 'unsure'" in read.problem
    assert "Found besides: 'cell' (1)" in read.problem
    assert "--normalise-labels accepts 'no cell'" in read.problem


def test_normalising_is_not_offered_where_it_would_not_help() -> None:
    assert "--normalise-labels" not in read_labels(["zebra"], CELL).problem


def test_normalising_says_what_it_changed() -> None:
    cells = ["No-Cell", "no cell", "no cell", "CELL", "cell", "Unsure"]
    read = read_labels(cells, CELL, normalise=True)
    assert read.labels_S.tolist() == [0, 0, 0, 1, 1, MISSING]
    note = only(read.findings, "normalised_labels")
    assert "'no cell' -> 'no_cell' (2)" in note.message
    assert note.names == ("CELL", "No-Cell", "Unsure", "no cell")


def test_normalising_does_not_choose_between_classes() -> None:
    task = TaskSpec(name="t", column="c", classes=("a b", "a-b"))
    assert read_labels(["a_b"], task, normalise=True).problem
    assert read_labels(["a b", "a-b"], task, normalise=True).labels_S.tolist() == [0, 1]


def test_a_minus_is_no_dash() -> None:
    task = TaskSpec(name="t", column="c", classes=("0", "1"))
    assert read_labels(["-1"], task, normalise=True).problem


@pytest.mark.parametrize("cells", [["0", "1"], ["0.0", "1.0"]])
def test_whole_numbers(cells: list[str]) -> None:
    task = TaskSpec(name="t", column="c", classes=("0", "1"))
    assert read_labels(cells, task).labels_S.tolist() == [0, 1]


def test_a_class_may_be_called_na() -> None:
    task = TaskSpec(name="t", column="c", classes=("na", "present"))
    assert read_labels(["na", ""], task).labels_S.tolist() == [0, MISSING]


def test_a_class_that_nobody_has_is_a_warning() -> None:
    absent = only(read_labels(["cell", "acr"], CELL).findings, "absent_classes")
    assert absent.severity == "warning"
    assert absent.names == ("no_cell",)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.sampled_from(["no_cell", "cell", "acr", "unsure", ""]), min_size=1))
def test_a_class_index_points_at_the_label(cells: list[str]) -> None:
    read = read_labels(cells, CELL)
    for cell, index in zip(cells, read.labels_S.tolist(), strict=True):
        expected = {"acr": "cell"}.get(cell, cell)
        assert (CELL.classes[index] if index != MISSING else "") == (
            expected if expected in CELL.classes else ""
        )

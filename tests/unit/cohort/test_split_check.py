from pathlib import Path

import pytest

from crane_ray.cohort.cohort import Cohort, read_cohort
from crane_ray.cohort.split_check import check_parts, check_splits
from crane_ray.cohort.splits import Split, read_splits
from crane_ray.cohort.tasks import TaskSet, TaskSpec
from tests.unit.cohort.tables import SHARED, cohort_of, kinds, only

KIDNEY = SHARED / "bags/tcga_kidney"
GOOD = Split(("1", "2", "3", "4"), ("5", "6"), ("7", "8"))


@pytest.fixture
def cohort(tmp_path: Path) -> Cohort:
    # cases A (1, 2), B (3, 4), C..F (5..8); labels a and b by turns
    cases = ["A", "A", "B", "B", "C", "D", "E", "F"]
    rows = [f"{case},{row},{'ab'[row % 2]}" for row, case in enumerate(cases, 1)]
    return cohort_of(tmp_path, rows)


def test_sound_splits_have_no_findings(cohort: Cohort) -> None:
    assert check_splits({0: GOOD}, cohort, [f"{row}.h5" for row in range(1, 9)]) == []
    assert check_splits({0: GOOD}, None) == []


@pytest.mark.parametrize(
    ("split", "kind", "severity", "names"),
    [
        (Split(("1", "3", "4"), ("2", "5", "6"), GOOD.test), "shared_cases", "error", ("A",)),
        (Split((*GOOD.train, "7"), GOOD.val, GOOD.test), "shared_slides", "error", ("7",)),
        (Split((*GOOD.train, "2"), GOOD.val, GOOD.test), "repeated_slides", "error", ("2",)),
        (Split((*GOOD.train, "x"), GOOD.val, GOOD.test), "unlabelled", "warning", ("x",)),
        (Split(("1", "2"), GOOD.val, GOOD.test), "in_no_part", "note", ("3", "4")),
        (Split(GOOD.train, GOOD.val, ()), "empty_parts", "error", ()),
        (Split(GOOD.train, ("x", "y"), GOOD.test), "empty_parts", "error", ()),
        (Split(("1", "3"), GOOD.val, GOOD.test), "one_class_parts", "error", ()),
        (Split(GOOD.train, ("5",), GOOD.test), "one_class_parts", "warning", ()),
    ],
)
def test_each_defect_is_found(
    cohort: Cohort, split: Split, kind: str, severity: str, names: tuple[str, ...]
) -> None:
    finding = only(check_splits({0: GOOD, 1: split}, cohort), kind)
    assert (finding.severity, finding.names) == (severity, names)
    assert "fold 1" in finding.message
    assert "fold 0" not in finding.message


def test_patients_in_two_parts_need_no_labels() -> None:
    split = Split(("1",), ("2",), ("3",))
    assert kinds(check_parts({0: split}, {"1": "A", "2": "B", "3": "A"})) == {"shared_cases"}
    assert check_parts({0: split}, {"1": "A", "2": "B", "3": "C"}) == []


def test_slides_without_features_are_named_and_may_empty_a_part(cohort: Cohort) -> None:
    some = [slide for slide in cohort.slide_ids if slide not in GOOD.val]
    findings = check_splits({0: GOOD}, cohort, some)
    assert only(findings, "without_features").names == ("5", "6")
    assert "fold 0 val (2 slides, none usable)" in only(findings, "empty_parts").message
    assert findings[0].severity == "error"


def test_one_class_is_judged_by_the_slides_that_have_features(cohort: Cohort) -> None:
    findings = check_splits({0: GOOD}, cohort, ["1", "3", "5", "6", "7", "8"])
    assert "fold 0 train, task kind: b" in only(findings, "one_class_parts").message


def test_test_parts_that_overlap_and_those_that_are_one(cohort: Cohort) -> None:
    other = Split(("1", "2", "3", "4"), ("5", "8"), ("7", "6"))
    overlap = only(check_splits({0: GOOD, 1: other}, cohort), "test_overlap")
    assert (overlap.severity, overlap.names) == ("warning", ("E",))
    assert "1 case of 3" in overlap.message
    assert only(check_splits({0: GOOD, 1: other}, None), "test_overlap").names == ("7",)
    locked = Split(("5", "6", "3", "4"), ("1", "2"), GOOD.test)
    assert only(check_splits({0: GOOD, 1: locked}, cohort), "one_test_set").severity == "note"


def test_a_class_missing_from_a_part(tmp_path: Path) -> None:
    task_set = TaskSet(
        name="three", tasks=(TaskSpec(name="kind", column="label", classes=("a", "b", "c")),)
    )
    rows = [f"P{row},{row},{label}" for row, label in enumerate("abcabab", 1)]
    cohort = cohort_of(tmp_path, rows, task_set)
    split = Split(("1", "2", "3"), ("4", "5"), ("6", "7"))
    absent = only(check_splits({0: split}, cohort), "absent_classes")
    assert "2 parts" in absent.message
    assert "fold 0 val, task kind: no c" in absent.message


def test_what_is_the_same_in_every_fold_is_said_once(cohort: Cohort) -> None:
    bad = Split((*GOOD.train, "x"), GOOD.val, GOOD.test)
    assert "(in every fold)" in only(check_splits({0: bad, 1: bad}, cohort), "unlabelled").message


@pytest.mark.skipif(not KIDNEY.exists(), reason="no TCGA kidney bags in ../shared/data")
def test_the_kidney_splits_share_patients_and_name_slides_without_label() -> None:
    task = TaskSpec(name="subtype", column="oncotree_code", classes=("CCRCC", "PRCC", "CHRCC"))
    task_set = TaskSet(name="kidney", tasks=(task,))
    cohort = read_cohort(str(KIDNEY / "labels.csv"), task_set)
    assert len(cohort.slide_ids) == 905
    assert cohort.findings == ()
    splits = read_splits(str(KIDNEY / "splits"))
    findings = check_splits(splits, cohort)
    shared = only(findings, "shared_cases")
    assert shared.severity == "error"
    assert len(shared.names) == 23
    assert "fold 0: 10, fold 1: 11, fold 2: 9" in shared.message
    assert len(only(findings, "unlabelled").names) == 26
    assert kinds(findings) == {"shared_cases", "unlabelled", "test_overlap"}

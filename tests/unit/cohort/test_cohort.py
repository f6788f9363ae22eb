import random
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crane_ray.cohort.cohort import Cohort, read_cohort, with_features
from crane_ray.cohort.tasks import MISSING, load_task_set
from crane_ray.errors import ConfigError
from tests.unit.cohort.tables import SHARED, TWO, cohort_of, kinds, one_task, only, write

ROWS = (
    "site,slide_id,case_id,label_cell,label_amr\n"
    "H1,s3.svs,B,cell,no_amr\n"
    "H1,s1,A,no_cell,\n"
    "H2,s2.SVS,A,cell,amr\n"
    "H2,s4,C,,\n"
    "H2,s5,C,,unsure\n"
)


@pytest.fixture
def cohort(tmp_path: Path) -> Cohort:
    return read_cohort(write(tmp_path, ROWS), TWO)


def test_columns_rows_and_labels(cohort: Cohort) -> None:
    assert list(cohort.table.columns[:3]) == ["slide_id", "case_id", "source"]
    assert set(cohort.table.columns[3:]) == {"site", "label_cell", "label_amr"}
    assert list(cohort.table.index) == [0, 1, 2]
    assert cohort.slide_ids == ("s3", "s1", "s2")
    assert cohort.case_ids == ("B", "A", "A")
    assert set(cohort.table["source"]) == {""}
    assert cohort.labels_ST.dtype == np.int64
    assert cohort.labels_ST.tolist() == [[1, 0], [0, MISSING], [1, 1]]


def test_rows_without_any_label_are_left_out_by_name(cohort: Cohort) -> None:
    dropped = only(cohort.findings, "unlabelled")
    assert dropped.severity == "warning"
    assert dropped.names == ("s4", "s5")
    assert "2 slides of 5" in dropped.message


def test_cases_and_their_slides_and_labels(cohort: Cohort) -> None:
    assert cohort.case_slides() == {"A": ("s1", "s2"), "B": ("s3",)}
    cases, labels_CT = cohort.case_labels("max")
    assert cases == ("A", "B")
    assert labels_CT.tolist() == [[1, 1], [1, 0]]
    assert cohort.case_labels("majority")[1].tolist() == [[0, 1], [1, 0]]


@settings(deadline=None, max_examples=60)
@given(labels=st.lists(st.sampled_from([MISSING, 0, 1, 2]), min_size=1, max_size=8))
def test_a_cases_label_is_the_greatest_or_the_most_frequent(labels: list[int]) -> None:
    spelled = {MISSING: "", 0: "a", 1: "b", 2: "c"}
    known = [label for label in labels if label != MISSING]
    cohort = _cohort_of_one_case([spelled[label] for label in labels])
    (greatest,) = cohort.case_labels("max")[1][0]
    (frequent,) = cohort.case_labels("majority")[1][0]
    assert greatest == max(known, default=MISSING)
    counts = Counter(known)
    assert frequent == (
        min(label for label in counts if counts[label] == max(counts.values()))
        if known
        else MISSING
    )


def _cohort_of_one_case(labels: list[str]) -> Cohort:
    import pandas as pd

    index = {"": MISSING, "a": 0, "b": 1, "c": 2}
    table = pd.DataFrame(
        {"slide_id": [f"s{place}" for place in range(len(labels))], "case_id": "A", "source": ""}
    )
    labels_ST = np.array([[index[label]] for label in labels], dtype=np.int64)
    return Cohort(one_task("a", "b", "c"), table, labels_ST)


def test_a_subset_keeps_the_tables_order_and_renumbers(cohort: Cohort) -> None:
    some = cohort.subset(iter(["s2.tiff", "s3", "unknown"]))
    assert some.slide_ids == ("s3", "s2")
    assert list(some.table.index) == [0, 1]
    assert some.labels_ST.tolist() == [[1, 0], [1, 1]]


def test_conflicting_labels_of_a_patient_are_named(cohort: Cohort) -> None:
    conflict = only(cohort.findings, "conflicting_labels")
    assert conflict.names == ("A",)
    assert "task cell: 1 case of 2" in conflict.message
    assert "A: no_cell and cell" in conflict.message


def test_a_case_in_two_spellings_is_a_warning_with_both(tmp_path: Path) -> None:
    rows = ["TEST-1,a,a", "test_1,b,b", "TEST-2,c,a"]
    spelled = only(cohort_of(tmp_path, rows).findings, "case_spelled_twice")
    assert spelled.severity == "warning"
    assert spelled.names == ("TEST-1", "test_1")
    assert "'TEST-1' and 'test_1'" in spelled.message


def test_a_clean_table_has_no_findings(tmp_path: Path) -> None:
    assert cohort_of(tmp_path, ["A,1,a", "B,2,b"]).findings == ()


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (["A,s1,a", "A,s1.svs,a"], "1 slide there more than once: s1 in row 2, s1.svs in row 3"),
        (["A,s1,a", ",s2,b"], "no case_id in row 3"),
        (["A,,a", "B,s2,b", "C,,b"], "no slide_id in row 2, 4"),
        (["A,s1,", "B,s2,nan"], "none of its 2 rows"),
        (["A,s1,a", "B,s2,c"], "'c' \\(1\\)"),
    ],
)
def test_rows_that_cannot_be_used(tmp_path: Path, rows: list[str], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        cohort_of(tmp_path, rows)


def test_a_missing_label_column_is_named_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no column label .*task kind.*did you mean Label"):
        cohort_of(tmp_path, ["A,s1,a"], header="case_id,slide_id,Label")


def test_problems_of_all_tasks_are_told_at_once(tmp_path: Path) -> None:
    path = write(tmp_path, "slide_id,case_id,label_cell,label_amr\n1,A,no cell,no amr\n")
    with pytest.raises(ConfigError, match=r"(?s)task cell.*task amr"):
        read_cohort(path, TWO)
    assert read_cohort(path, TWO, normalise=True).labels_ST.tolist() == [[0, 0]]


def test_a_filter_chooses_rows_before_they_are_judged(tmp_path: Path) -> None:
    rows = ["A,s1,a,1", "A,s1,zebra,0", ",,a,0", "B,s2,b,1.0"]
    task_set = one_task().model_copy(update={"filter": {"use": ("1",)}})
    cohort = cohort_of(tmp_path, rows, task_set, header="case_id,slide_id,label,use")
    assert cohort.slide_ids == ("s1", "s2")
    assert "2 rows of 4" in only(cohort.findings, "filtered").message


def test_a_filter_that_leaves_nothing_says_what_there_is(tmp_path: Path) -> None:
    task_set = one_task().model_copy(update={"filter": {"use": ("yes",)}})
    with pytest.raises(ConfigError, match="use should be 'yes'; found: '1' \\(2\\)"):
        cohort_of(tmp_path, ["A,1,a,1", "B,2,b,1"], task_set, header="case_id,slide_id,label,use")
    with pytest.raises(ConfigError, match="no column use"):
        cohort_of(tmp_path, ["A,1,a"], task_set)


def test_the_source_column_is_kept(tmp_path: Path) -> None:
    rows = ["A,1,a,x", "B,2,b,"]
    cohort = cohort_of(tmp_path, rows, header="case_id,slide_id,label,source")
    assert cohort.table["source"].tolist() == ["x", ""]


def test_features_and_labels_meet_whatever_the_extension(cohort: Cohort) -> None:
    kept = with_features(cohort, ["s3.h5", "s1.svs", "other"])
    assert kept.slide_ids == ("s3", "s1")
    assert kept.labels_ST.tolist() == [[1, 0], [0, MISSING]]
    without = only(kept.findings, "without_features")
    assert (without.severity, without.names) == ("warning", ("s2",))
    unused = only(kept.findings, "features_without_label")
    assert (unused.severity, unused.names) == ("note", ("other",))
    assert kinds(cohort.findings) < kinds(kept.findings)


def test_features_beside_a_table_of_cases_are_not_said_to_lack_a_label(cohort: Cohort) -> None:
    blank = replace(cohort, labels_ST=np.full_like(cohort.labels_ST, MISSING))
    found = only(with_features(blank, [*blank.slide_ids, "x"]).findings, "features_without_label")
    assert "1 slide with features beside the table (x)" in found.message


def test_features_of_exactly_the_slides_add_nothing(cohort: Cohort) -> None:
    assert with_features(cohort, cohort.slide_ids).findings == cohort.findings


def test_another_spelling_among_the_features_is_pointed_out(cohort: Cohort) -> None:
    kept = with_features(cohort, ["s3", "S_1", "s2"])
    assert "s1" in only(kept.findings, "without_features").names
    kept = with_features(cohort, ["S3", "s1", "s2"])
    assert "s3 may be S3" in only(kept.findings, "without_features").message


def test_no_slide_with_features_shows_both_spellings(cohort: Cohort) -> None:
    with pytest.raises(ConfigError, match="table says 's3', the features 'x1'"):
        with_features(cohort, ["x2", "x1"])
    with pytest.raises(ConfigError, match="none of any slide"):
        with_features(cohort, [])


@pytest.mark.skipif(not SHARED.exists(), reason="no CRANE tables in ../shared/data")
def test_cranes_own_table_is_refused_until_its_spelling_is_accepted() -> None:
    path, task_set = str(SHARED / "crane/CardiacDummy_MTL.csv"), load_task_set("cardiac-mtl")
    with pytest.raises(ConfigError, match=r"'no cell' \(6\), nearest 'no_cell'.*--normalise"):
        read_cohort(path, task_set)
    cohort = read_cohort(path, task_set, normalise=True)
    assert cohort.labels_ST.shape == (15, 3)
    assert (cohort.labels_ST == 1).sum(axis=0).tolist() == [9, 3, 3]
    assert (cohort.labels_ST == MISSING).sum() == 0


def test_a_cases_slides_do_not_depend_on_the_order_of_cases(tmp_path: Path) -> None:
    rows = [f"C{number % 7},s{number},a" for number in range(40)]
    random.Random(1).shuffle(rows)
    slides = cohort_of(tmp_path, rows).case_slides()
    assert list(slides) == sorted(slides)
    for case, own in slides.items():
        in_table = [row.split(",")[1] for row in rows if row.startswith(f"{case},")]
        assert list(own) == in_table

from pathlib import Path

import pytest

from crane_ray.cohort.strata import NO_LABEL, sites_of_cases, strata_of_column, strata_of_tasks
from crane_ray.errors import ConfigError
from tests.unit.cohort.small_strata import strata_of
from tests.unit.cohort.tables import TWO, cohort_of, one_task

HEADER = "case_id,slide_id,label_cell,label_amr"


def test_one_tasks_strata_are_its_classes_in_order(tmp_path: Path) -> None:
    rows = ["B,1,c", "A,2,a", "A,3,c", "A,4,a"]
    cohort = cohort_of(tmp_path, rows, one_task("c", "b", "a"))
    strata = strata_of_tasks(cohort)
    assert (strata.case_ids, strata.names) == (("A", "B"), ("c", "b", "a"))
    assert strata.stratum_C.tolist() == [2, 0]
    assert [own.tolist() for own in strata.members()] == [[1], [], [0]]
    tie = cohort_of(tmp_path, rows[:-1], one_task("c", "b", "a"))
    assert strata_of_tasks(tie, "majority").stratum_C.tolist() == [0, 0]


def test_several_tasks_strata_are_their_combinations(tmp_path: Path) -> None:
    rows = ["A,1,cell,amr", "B,2,no_cell,", "C,3,cell,amr", "D,4,no_cell,amr"]
    strata = strata_of_tasks(cohort_of(tmp_path, rows, TWO, header=HEADER))
    assert strata.names == (f"no_cell + amr: {NO_LABEL}", "no_cell + amr", "cell + amr")
    assert strata.stratum_C.tolist() == [2, 0, 2, 1]


def test_any_column_can_be_the_strata(tmp_path: Path) -> None:
    rows = ["A,1,a,x", "A,2,a,y", "A,3,a,x", "B,4,b,"]
    cohort = cohort_of(tmp_path, rows, header="case_id,slide_id,label,scanner")
    strata = strata_of_column(cohort, "scanner")
    assert strata.names == (NO_LABEL, "x", "y")
    assert strata.stratum_C.tolist() == [2, 0]
    assert strata_of_column(cohort, "scanner", "majority").stratum_C.tolist() == [1, 0]
    tie = cohort_of(tmp_path, rows[:2], header="case_id,slide_id,label,scanner")
    assert strata_of_column(tie, "scanner", "majority").stratum_C.tolist() == [0]
    with pytest.raises(ConfigError, match=r"--strata grade: no such column.*scanner"):
        strata_of_column(cohort, "grade")


def test_sites_are_one_a_case(tmp_path: Path) -> None:
    header = "case_id,slide_id,label,site"
    cohort = cohort_of(tmp_path, ["A,1,a,X", "A,2,a,X", "B,3,b,Y"], header=header)
    assert sites_of_cases(cohort, "site") == {"A": "X", "B": "Y"}
    with pytest.raises(ConfigError, match=r"1 case with slides of several sites.*A: X, Y"):
        sites_of_cases(cohort_of(tmp_path, ["A,1,a,X", "A,2,a,Y"], header=header), "site")
    with pytest.raises(ConfigError, match="slide 2: no site"):
        sites_of_cases(cohort_of(tmp_path, ["A,1,a,X", "A,2,a,"], header=header), "site")
    with pytest.raises(ConfigError, match="--sites hospital: no such column"):
        sites_of_cases(cohort, "hospital")


def test_small_strata_are_named_with_their_sizes() -> None:
    strata = strata_of(9, 2)
    assert strata.small([], "all") == []
    (finding,) = strata.small([1], "all")
    assert finding.severity == "warning"
    assert "1 stratum with too few cases for all: stratum-1 (2)" in finding.message

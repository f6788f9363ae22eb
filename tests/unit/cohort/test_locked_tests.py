from pathlib import Path

import pytest

from crane_ray.cohort.cohort import Cohort
from crane_ray.cohort.locked_tests import lock_test, locked_text
from crane_ray.cohort.strata import strata_of_tasks
from crane_ray.errors import ConfigError
from tests.unit.cohort.tables import cohort_of, write


@pytest.fixture
def cohort(tmp_path: Path) -> Cohort:
    rows = [f"C{row // 2},s{row},{'ab'[row // 2 % 2]}" for row in range(20)]
    return cohort_of(tmp_path, rows)


def locked(cohort: Cohort, given: str) -> list[str]:
    strata = strata_of_tasks(cohort)
    cases = lock_test(given, cohort, strata, seed=1, sites=None)
    return [strata.case_ids[case] for case in cases]


def test_slides_and_cases_of_a_file_lock_their_case(cohort: Cohort, tmp_path: Path) -> None:
    assert locked(cohort, write(tmp_path, "C3\ns0.svs\n\n s1\n", "ids.txt")) == ["C0", "C3"]


def test_what_is_written_locks_the_same(cohort: Cohort, tmp_path: Path) -> None:
    names = locked(cohort, "0.4")
    assert len(names) == 4
    assert locked(cohort, write(tmp_path, locked_text(names), "locked_test.csv")) == sorted(names)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("C1\nC99\n", "1 id unknown \\(C99\\).*such as C0"),
        ("case_id\n", "no id in it"),
        ("\n".join(f"C{row}" for row in range(10)), "names every case"),
    ],
)
def test_files_that_lock_nothing_or_all(
    cohort: Cohort, tmp_path: Path, text: str, words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        locked(cohort, write(tmp_path, text, "ids.txt"))


@pytest.mark.parametrize("given", ["0", "1", "1.5", "-0.1", "nan"])
def test_impossible_fractions(cohort: Cohort, given: str) -> None:
    with pytest.raises(ConfigError, match="between 0 and 1"):
        locked(cohort, given)


def test_neither_a_fraction_nor_a_file(cohort: Cohort, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="neither a fraction"):
        locked(cohort, str(tmp_path / "none.txt"))

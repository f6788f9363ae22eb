from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from crane_ray.cohort.cohort import read_cohort
from crane_ray.cohort.splits import Split, read_splits, split_files, write_splits
from crane_ray.cohort.tasks import load_task_set
from crane_ray.errors import ConfigError
from tests.unit.cohort.tables import SHARED, TWO, cohort_of

SLIDES = st.lists(st.text('abc1-," é', min_size=1).map(str.strip).filter(bool), unique=True)


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40, deadline=None
)
@given(parts=st.tuples(SLIDES, SLIDES, SLIDES))
def test_what_is_written_is_read_back(
    tmp_path: Path, parts: tuple[list[str], list[str], list[str]]
) -> None:
    split = Split(*(tuple(part) for part in parts))
    cohort = cohort_of(tmp_path, ["A,1,a", "B,2,b"])
    folder = tmp_path / "splits"
    write_splits(str(folder), {3: split}, cohort)
    assert read_splits(str(folder)) == {3: split}
    (folder / "splits_3.csv").unlink()
    if len({slide for part in parts for slide in part}) == sum(map(len, parts)):
        assert read_splits(str(folder)) == {3: split}


@pytest.mark.skipif(not SHARED.exists(), reason="no CRANE splits in ../shared/data")
@pytest.mark.parametrize(("table", "task"), [("MTL", "cardiac-mtl"), ("Grade", "cardiac-grade")])
def test_published_files_are_written_byte_for_byte(table: str, task: str) -> None:
    folder = SHARED / f"crane/splits/{task}_100"
    labels = SHARED / f"crane/CardiacDummy_{table}Split.csv"
    cohort = read_cohort(str(labels), load_task_set(f"{task}-strata"))
    files = split_files(read_splits(str(folder)), cohort)
    assert len(files) == 3
    for name, text in files.items():
        assert (folder / name).read_bytes() == text.encode()


def test_the_descriptor_counts_each_task(tmp_path: Path) -> None:
    header = "case_id,slide_id,label_cell,label_amr"
    rows = ["A,1,cell,amr", "B,2,no_cell,", "C,3,cell,no_amr"]
    cohort = cohort_of(tmp_path, rows, TWO, header=header)
    files = split_files({0: Split(("1", "2"), ("unknown",), ("3",))}, cohort)
    assert files["splits_0_descriptor.csv"].splitlines() == [
        ",train,val,test",
        "cell: no_cell,1,0,0",
        "cell: cell,1,0,1",
        "amr: no_amr,0,0,1",
        "amr: amr,1,0,0",
    ]


def test_other_peoples_files(tmp_path: Path) -> None:
    (tmp_path / "splits_0.csv").write_text("train,val,test\na.svs,c.tif,\nb,,\n")
    (tmp_path / "splits_10.csv").write_text("\ufeff,test,train,val\n0,3.0,1.0,2.0\n1,,4.0,\n")
    (tmp_path / "splits_2_bool.csv").write_text(
        ",train,val,test\n7,True,False,False\n8,False,False,True\n"
    )
    (tmp_path / "splits_0_bool.csv").write_text(",train,val,test\nother,True,False,False\n")
    (tmp_path / "notes.csv").write_text("x\n")
    found = read_splits(str(tmp_path))
    assert list(found) == [0, 2, 10]
    assert found[0] == Split(("a", "b"), ("c",), ())
    assert found[2] == Split(("7",), (), ("8",))
    assert found[10] == Split(("1", "4"), ("2",), ("3",))
    assert list(read_splits(str(tmp_path), [10])) == [10]


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("splits_0.csv", "", "not a readable CSV"),
        ("splits_0.csv", "a,b\n1,2\n", "no column train, val, test.*found: a, b"),
        ("splits_0_bool.csv", ",train,val,test\na,yes,no,no\n", "True or False, not 'yes'"),
        ("splits_1.csv", ",train,val,test\n", "no splits_0.csv \\(folds there: 1\\)"),
        ("other.csv", "a\n", "no splits_0.csv, splits_1.csv"),
    ],
)
def test_files_that_are_no_splits(tmp_path: Path, name: str, text: str, words: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError, match=words):
        read_splits(str(tmp_path), None if name == "other.csv" else [0])


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="none: no splits_0"):
        read_splits(str(tmp_path / "none"))

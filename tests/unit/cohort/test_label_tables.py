from pathlib import Path

import pandas as pd
import pytest

from crane_ray.cohort.label_tables import nearest, read_label_table
from crane_ray.errors import ConfigError
from tests.unit.cohort.tables import write


def test_csv_cells_stay_text_and_know_their_row(tmp_path: Path) -> None:
    text = "\ufeffcase_id, slide_id ,y\n007,a , 1.50\n\n008,b\n"
    table = read_label_table(write(tmp_path, text))
    assert list(table.rows.columns) == ["case_id", "slide_id", "y"]
    assert table.rows.to_dict("list") == {
        "case_id": ["007", "008"], "slide_id": ["a", "b"], "y": ["1.50", ""],
    }  # fmt: skip
    assert list(table.rows.index) == [2, 4]


def test_parquet_and_csv_of_the_same_table_read_alike(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {"case_id": [7, None], "slide_id": ["a", "b"], "y": [1, 0], "z": [None, "x"]}
    )
    frame.to_csv(tmp_path / "t.csv")
    frame.to_parquet(tmp_path / "t.parquet")
    csv, parquet = (read_label_table(str(tmp_path / f"t.{kind}")) for kind in ("csv", "parquet"))
    assert csv.rows.to_dict("list") == parquet.rows.to_dict("list")
    assert csv.rows["case_id"].tolist() == ["7", ""]
    assert list(csv.rows.columns) == ["case_id", "slide_id", "y", "z"]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "empty"),
        (b" \n\n", "empty"),
        (b"case_id,slide_id\nM\xfcller,a\n", "not UTF-8.*0xfc in line 2"),
        (b"case_id,slide_id\n\0,a\n", "NUL"),
        (b"case_id,slide_id\na,b,c\n", "row 2 has 3 cells, the header has 2"),
        (b'case_id,slide_id\n"a,b\n', "not valid CSV"),
        (b"case_id,slide_id\n", "no row below the header"),
        (b"case_id,slide_id,y,y\na,b,c,d\n", "column y is there more than once"),
        (b"case_id;slide_id\na;b\n", "semicolons"),
        (b"case_id,slideid\na,b\n", "no column slide_id.*did you mean slideid"),
        (b"x,slide_id\na,b\n", "no column case_id.*Columns there: x, slide_id"),
    ],
)
def test_a_table_that_cannot_be_used_is_told_apart(tmp_path: Path, data: bytes, words: str) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(data)
    with pytest.raises(ConfigError, match=f"(?s){words}"):
        read_label_table(str(path))


def test_what_is_no_table_is_told(tmp_path: Path) -> None:
    (tmp_path / "t.parquet").write_bytes(b"PAR1 and nothing of the kind")
    with pytest.raises(ConfigError, match="Parquet"):
        read_label_table(str(tmp_path / "t.parquet"))
    with pytest.raises(ConfigError, match="no such file"):
        read_label_table(str(tmp_path / "none.csv"))
    with pytest.raises(ConfigError, match="a folder"):
        read_label_table(str(tmp_path))


def test_the_nearest_word_ignores_case_and_separators() -> None:
    assert nearest("No Cell", ["cell", "no_cell"]) == "no_cell"
    assert nearest("zebra", ["cell", "no_cell"]) is None

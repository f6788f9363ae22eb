from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from crane_ray.errors import ConfigError, StoreError
from crane_ray.evaluation.predictions import SCHEMA, Predictions
from tests.unit.evaluation.made_up import BINARY, THREE, predict, table_of

ROW: dict[str, Any] = {
    "fold": 0, "split": "test", "slide_id": "s1", "case_id": "c1", "task": "amr", "label": 1,
    "num_classes": 2, "p": [0.25, 0.75], "logit": [0.0, 1.0986],
}  # fmt: skip


def rows(*changes: dict[str, Any]) -> pa.Table:
    listed = [ROW | {"slide_id": f"s{index}"} | change for index, change in enumerate(changes)]
    return pa.Table.from_pylist(listed, schema=SCHEMA)


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    both = Predictions.concat(
        [predict(BINARY, fold=2), predict(THREE), Predictions(rows({"label": None}))]
    )
    path = str(tmp_path / "run" / "predictions.parquet")
    both.to_parquet(path)
    assert Predictions.from_parquet(path).table.equals(both.table)
    assert pq.read_schema(path).field("p").type == pa.list_(pa.float64())


def test_logits_become_probabilities_and_a_missing_label_null() -> None:
    made = Predictions.from_logits(
        np.array([[0.0, np.log(3)], [1000.0, 0.0]], dtype=np.float64),
        [1, -1],
        fold=-1,
        split="external",
        task="amr",
        slide_ids=["a", "b"],
        case_ids=["x", "y"],
    )
    assert made.table["label"].to_pylist() == [1, None]
    assert made.table["fold"].to_pylist() == [-1, -1]
    arrays = made.arrays("amr")
    np.testing.assert_allclose(arrays.probabilities_NC, [[0.25, 0.75], [1.0, 0.0]], atol=1e-12)
    assert arrays.labels_N.tolist() == [1, -1]
    assert arrays.labelled().slide_ids_N.tolist() == ["a"]


def test_selecting_keeps_the_rows_asked_for() -> None:
    parts = [
        predict(task, 4, fold=fold, split=split)
        for task in (BINARY, THREE)
        for fold in (0, 3)
        for split in ("val", "test")
    ]
    both = Predictions.concat(parts)
    assert both.folds() == [0, 3]
    assert both.splits() == ["test", "val"]
    assert both.tasks() == ["amr", "grade"]
    chosen = both.select(fold=3, split="val", task="grade")
    assert chosen.table.equals(predict(THREE, 4, fold=3, split="val").table)
    assert len(both.select(fold=3)) == 16
    assert len(both.select(fold=9)) == 0


def test_arrays_of_an_unknown_task_names_those_there_are() -> None:
    with pytest.raises(ConfigError, match=r"task nope: no predictions of it; there are: amr"):
        predict(BINARY).arrays("nope")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"p": [0.3, 0.6]}, r"p does not sum to 1 within 0\.0001 in 1 of 2 rows; .* slide s1"),
        ({"p": [0.2, 0.7998]}, "p does not sum"),
        ({"p": [float("nan"), 1.0]}, "p is not finite"),
        ({"p": [None, 1.0]}, "p is not finite"),
        ({"logit": [float("inf"), 1.0]}, "logit is not finite"),
        ({"p": [-0.1, 1.1]}, "p has a negative probability"),
        ({"p": [0.2, 0.3, 0.5]}, "p has not num_classes values"),
        ({"logit": [0.2]}, "logit has not num_classes values"),
        ({"p": None}, "p is null"),
        ({"label": 2}, "label is outside 0 to num_classes - 1; a missing one must be null"),
        ({"label": -1}, "label is outside"),
        ({"fold": -2}, "fold is below -1"),
        ({"split": "tests"}, "split is none of train, val, test, external"),
        ({"case_id": ""}, "no case_id"),
        ({"num_classes": 1, "p": [1.0], "logit": [0.0], "label": 0}, "num_classes is below 2"),
        (
            {"num_classes": 3, "p": [0.2, 0.3, 0.5], "logit": [0.0, 0.0, 0.0]},
            "task amr has 2 classes in some rows and 3 in others",
        ),
        ({"slide_id": "s0"}, "fold 0 test slide s0 task amr is there 2 times"),
    ],
)
def test_a_row_that_cannot_be_used_is_named(change: dict[str, Any], message: str) -> None:
    Predictions(rows({}, {}))
    with pytest.raises(ConfigError, match=message):
        Predictions(rows({}, change))


def test_sums_within_the_tolerance_pass() -> None:
    assert len(Predictions(rows({"p": [0.25, 0.75009]}))) == 1


def test_a_missing_column_and_a_column_of_another_kind() -> None:
    with pytest.raises(ConfigError, match="no column logit"):
        Predictions(rows({}).drop_columns(["logit"]))
    table = rows({}).drop_columns(["fold"]).append_column("fold", pa.array(["first"]))
    with pytest.raises(ConfigError, match="a column of another kind"):
        Predictions(table)


def test_other_columns_are_left_out() -> None:
    assert Predictions(rows({}).append_column("note", pa.array(["x"]))).table.schema == SCHEMA


def test_files_that_are_no_predictions(tmp_path: Path) -> None:
    path = tmp_path / "predictions.parquet"
    path.write_bytes(b"no parquet")
    with pytest.raises(StoreError, match="not a readable table of predictions"):
        Predictions.from_parquet(str(path))
    pq.write_table(pa.table({"x": [1]}), path)
    with pytest.raises(ConfigError, match=rf"{path.name}: predictions: no column fold"):
        Predictions.from_parquet(str(path))
    later = rows({}).replace_schema_metadata({b"crane_ray_predictions": b"2"})
    pq.write_table(later, path)
    with pytest.raises(ConfigError, match="predictions of format 2, known is 1"):
        Predictions.from_parquet(str(path))


def test_nothing_is_a_table_too() -> None:
    empty = Predictions.concat([])
    assert len(empty) == 0
    assert empty.folds() == []
    assert len(table_of([[0.5, 0.5]], [0], slides=["a"], cases=["b"])) == 1

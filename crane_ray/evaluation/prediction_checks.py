"""Whether a table of predictions can be evaluated; errors name the row."""

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from crane_ray.errors import ConfigError

SPLITS = ("train", "val", "test", "external")
"""The parts that predictions may belong to."""

SUM_TOLERANCE = 1e-4
"""How far a row's probabilities may sum from 1: bf16 networks' softmax in float32 stays below."""

KEY = ("fold", "split", "slide_id", "case_id", "task")
"""What tells rows apart."""


def check_rows(table: pa.Table) -> None:
    """Nothing, where every row of the table can be used.

    Args:
        table: with the columns of `predictions.SCHEMA`.

    Raises:
        ConfigError: naming the first row that cannot be used.
    """
    for name in table.column_names:
        if name != "label":
            _refuse(table, np.asarray(table[name].is_null()), f"{name} is null; give a value")
    _refuse(table, _values(table, "fold") < -1, "fold is below -1 (which is the ensemble)")
    _refuse(
        table,
        ~np.asarray(pc.is_in(table["split"], value_set=pa.array(SPLITS))),
        f"split is none of {', '.join(SPLITS)}",
    )
    _refuse(table, np.asarray(pc.equal(table["case_id"], "")), "no case_id; give the patient's")
    classes_N = _values(table, "num_classes")
    _refuse(table, classes_N < 2, "num_classes is below 2")
    labels_N = table["label"].fill_null(0).to_numpy()
    wrong_N = (labels_N < 0) | (labels_N >= classes_N)
    _refuse(table, wrong_N, "label is outside 0 to num_classes - 1; a missing one must be null")
    _check_lists(table, classes_N)
    _check_class_counts(table)
    _check_unique(table)


def _check_lists(table: pa.Table, classes_N: npt.NDArray[np.int32]) -> None:
    for name in ("p", "logit"):
        lengths_N = pc.list_value_length(table[name]).to_numpy()
        _refuse(table, lengths_N != classes_N, f"{name} has not num_classes values")
        bad = ~np.isfinite(_flat(table, name))
        _refuse(table, _any_of(bad, classes_N), f"{name} is not finite")
    p = _flat(table, "p")
    _refuse(table, _any_of(p < 0, classes_N), "p has a negative probability")
    sums_N = np.add.reduceat(p, _starts(classes_N)) if len(p) else p
    wrong_N = np.abs(sums_N - 1) > SUM_TOLERANCE
    _refuse(table, wrong_N, f"p does not sum to 1 within {SUM_TOLERANCE:g}")


def _check_class_counts(table: pa.Table) -> None:
    counts = table.group_by("task").aggregate([("num_classes", "min"), ("num_classes", "max")])
    for row in counts.to_pylist():
        least, most = row["num_classes_min"], row["num_classes_max"]
        if least != most:
            raise ConfigError(
                f"predictions: task {row['task']} has {least} classes in some rows and {most} in "
                "others; predictions of different networks are in one table: keep them apart"
            )


def _check_unique(table: pa.Table) -> None:
    counts = table.group_by(list(KEY)).aggregate([([], "count_all")])
    twice = counts.filter(pc.greater(counts["count_all"], 1))
    if len(twice):
        row = twice.slice(0, 1).to_pylist()[0]
        raise ConfigError(
            f"predictions: {_row_name(row)} is there {row['count_all']} times"
            f"{f', and {len(twice) - 1} others more than once' if len(twice) > 1 else ''}; "
            "keep one row a fold, split, slide or case, and task"
        )


def _refuse(table: pa.Table, bad_N: npt.NDArray[np.bool_], reason: str) -> None:
    if not bad_N.any():
        return
    row = table.slice(int(bad_N.argmax()), 1).to_pylist()[0]
    values = {name: row[name] for name in ("label", "num_classes", "p", "logit")}
    raise ConfigError(
        f"predictions: {reason} in {int(bad_N.sum())} of {len(table)} rows; first: "
        f"{_row_name(row)}: {values}"
    )


def _row_name(row: dict[str, object]) -> str:
    bag = f"slide {row['slide_id']}" if row["slide_id"] else f"case {row['case_id']}"
    return f"fold {row['fold']} {row['split']} {bag} task {row['task']}"


def _values(table: pa.Table, name: str) -> npt.NDArray[np.int32]:
    return np.asarray(table[name].to_numpy())


def _flat(table: pa.Table, name: str) -> npt.NDArray[np.float64]:
    # A null inside a list becomes NaN here, which is refused as not finite.
    return np.asarray(pc.list_flatten(table[name]).to_numpy(), dtype=np.float64)


def _starts(counts_N: npt.NDArray[np.int32]) -> npt.NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum(counts_N, dtype=np.int64)[:-1]])


def _any_of(bad: npt.NDArray[np.bool_], counts_N: npt.NDArray[np.int32]) -> npt.NDArray[np.bool_]:
    if not len(counts_N):
        return bad
    return np.logical_or.reduceat(bad, _starts(counts_N))

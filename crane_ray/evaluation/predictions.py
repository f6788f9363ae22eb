"""Predictions: what every fold's network says of every slide or case, in one long table.

Shapes: N rows, C classes of a task.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from crane_ray.cohort.tasks import MISSING
from crane_ray.errors import ConfigError
from crane_ray.evaluation.prediction_checks import check_rows
from crane_ray.tables import read_arrow, write_arrow

ENSEMBLE = -1
"""The fold of predictions that are means over folds."""

FORMAT = b"1"
"""Version of predictions.parquet, kept in the metadata of its schema."""

SCHEMA = pa.schema(
    [
        ("fold", pa.int32()),
        ("split", pa.string()),
        ("slide_id", pa.string()),
        ("case_id", pa.string()),
        ("task", pa.string()),
        ("label", pa.int32()),
        ("num_classes", pa.int32()),
        ("p", pa.list_(pa.float64())),
        ("logit", pa.list_(pa.float64())),
    ],
    metadata={b"crane_ray_predictions": FORMAT},
)
"""Columns of predictions.parquet. slide_id is "" where the bag is a case; label is a class index,
null where it is missing; p and logit have one value a class."""

SMALLEST = float(np.finfo(np.float32).tiny)
"""What stands for a probability of zero before its logarithm is taken: networks are float32."""


@dataclass(frozen=True, eq=False)
class PredictionArrays:
    """The rows of one task as arrays."""

    labels_N: npt.NDArray[np.int64]
    """Class indices; MISSING (-1) where there is none."""
    probabilities_NC: npt.NDArray[np.float64]
    logits_NC: npt.NDArray[np.float64]
    slide_ids_N: npt.NDArray[np.object_]
    """Bare slide ids; "" where the bag is a case."""
    case_ids_N: npt.NDArray[np.object_]
    folds_N: npt.NDArray[np.int64]
    splits_N: npt.NDArray[np.object_]

    @classmethod
    def of(cls, table: pa.Table) -> Self:
        """The rows of a table with the columns of `SCHEMA`, all of one task."""
        return cls(
            labels_N=table["label"].fill_null(MISSING).to_numpy().astype(np.int64),
            probabilities_NC=_matrix(table, "p"),
            logits_NC=_matrix(table, "logit"),
            slide_ids_N=np.array(table["slide_id"].to_pylist(), dtype=object),
            case_ids_N=np.array(table["case_id"].to_pylist(), dtype=object),
            folds_N=table["fold"].to_numpy().astype(np.int64),
            splits_N=np.array(table["split"].to_pylist(), dtype=object),
        )

    def __len__(self) -> int:
        return len(self.labels_N)

    def rows(self, chosen_N: npt.NDArray[np.bool_]) -> "PredictionArrays":
        """The rows where ``chosen_N`` is true."""
        arrays = {field.name: getattr(self, field.name)[chosen_N] for field in fields(self)}
        return PredictionArrays(**arrays)

    def labelled(self) -> "PredictionArrays":
        """The rows that have a label."""
        return self.rows(self.labels_N != MISSING)


@dataclass(frozen=True, eq=False)
class Predictions:
    """A validated table of predictions with the columns of `SCHEMA`.

    Raises:
        ConfigError: a column is missing or of another kind; probabilities that are not finite,
            negative, too many or too few, or do not sum to 1 within 1e-4; a label outside the
            task's classes; a task with two numbers of classes; a row that is there twice.
    """

    table: pa.Table

    def __post_init__(self) -> None:
        object.__setattr__(self, "table", _shaped(self.table))
        check_rows(self.table)

    def __len__(self) -> int:
        return len(self.table)

    @classmethod
    def from_logits(
        cls,
        logits_NC: npt.ArrayLike,
        labels_N: npt.ArrayLike,
        *,
        fold: int,
        split: str,
        task: str,
        slide_ids: Sequence[str],
        case_ids: Sequence[str],
    ) -> Self:
        """The predictions of one fold, split and task; probabilities are the logits' softmax.

        Args:
            logits_NC: (N, C) float, any floating dtype.
            labels_N: (N,) class indices, MISSING (-1) where there is none.
            fold: which fold's network made them.
            split: train, val, test or external.
            task: name of the task.
            slide_ids: N bare slide ids; "" where the bag is a case.
            case_ids: N case ids.
        """
        logits = np.asarray(logits_NC, dtype=np.float64)
        num_rows, num_classes = logits.shape
        labels = np.asarray(labels_N)
        return cls(
            pa.table(
                {
                    "fold": pa.array(np.full(num_rows, fold, dtype=np.int32)),
                    "split": [split] * num_rows,
                    "slide_id": list(slide_ids),
                    "case_id": list(case_ids),
                    "task": [task] * num_rows,
                    "label": pa.array(labels, mask=labels == MISSING),
                    "num_classes": pa.array(np.full(num_rows, num_classes, dtype=np.int32)),
                    "p": list(softmax(logits)),
                    "logit": list(logits),
                }
            )
        )

    @classmethod
    def concat(cls, parts: Iterable["Predictions"]) -> Self:
        """All rows of all parts, one after the other; no parts make an empty table."""
        return cls(pa.concat_tables([SCHEMA.empty_table(), *(part.table for part in parts)]))

    @classmethod
    def from_parquet(cls, path: str) -> Self:
        """The predictions in a predictions.parquet.

        Raises:
            StoreError: it is no Parquet file.
            ConfigError: it does not hold predictions, or those of a later version.
        """
        hint = "give a predictions.parquet that crane-ray wrote"
        table = read_arrow(path, what="table of predictions", hint=hint)
        written = (table.schema.metadata or {}).get(b"crane_ray_predictions", FORMAT)
        if written != FORMAT:
            raise ConfigError(
                f"{path}: predictions of format {written.decode()}, known is {FORMAT.decode()}; "
                "read it with the crane-ray that wrote it, or a newer one"
            )
        try:
            return cls(table)
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from error

    def to_parquet(self, path: str) -> None:
        """Writes predictions.parquet in one piece.

        Raises:
            StorageError: it cannot be written.
        """
        write_arrow(path, self.table)

    def select(
        self, *, fold: int | None = None, split: str | None = None, task: str | None = None
    ) -> "Predictions":
        """The rows of one fold, split or task, in their order; None takes all."""
        wanted = {"fold": fold, "split": split, "task": task}
        table = self.table
        for name, value in wanted.items():
            if value is not None:
                table = table.filter(
                    pc.equal(table[name], pa.scalar(value, SCHEMA.field(name).type))
                )
        return _trusted(table)

    def folds(self) -> list[int]:
        """The folds, sorted; ENSEMBLE (-1) among them where there are means over folds."""
        return sorted(self.table["fold"].unique().to_pylist())

    def splits(self) -> list[str]:
        """The splits, sorted."""
        return sorted(self.table["split"].unique().to_pylist())

    def tasks(self) -> list[str]:
        """The names of the tasks, in the table's order."""
        names: list[str] = self.table["task"].unique().to_pylist()
        return names

    def arrays(self, task: str) -> PredictionArrays:
        """The rows of one task as arrays.

        Raises:
            ConfigError: there is none of that task.
        """
        table = self.select(task=task).table
        if not len(table):
            raise ConfigError(
                f"task {task}: no predictions of it; there are: {', '.join(self.tasks()) or 'none'}"
            )
        return PredictionArrays.of(table)


def softmax(logits_NC: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Probabilities (N, C) of logits (N, C)."""
    powers_NC = np.exp(logits_NC - logits_NC.max(axis=1, keepdims=True))
    return np.asarray(powers_NC / powers_NC.sum(axis=1, keepdims=True))


def log_probabilities(probabilities_NC: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Finite logits (N, C) whose softmax is the probabilities (N, C)."""
    return np.log(np.maximum(probabilities_NC, SMALLEST))


def _shaped(table: pa.Table) -> pa.Table:
    """The table with the columns of the schema in its order and types, others left out."""
    absent = [name for name in SCHEMA.names if name not in table.column_names]
    if absent:
        raise ConfigError(
            f"predictions: no column {', '.join(absent)}; needed are {', '.join(SCHEMA.names)}"
        )
    try:
        return table.select(SCHEMA.names).cast(SCHEMA).combine_chunks()
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise ConfigError(f"predictions: a column of another kind: {error}") from error


def _trusted(table: pa.Table) -> Predictions:
    """Predictions of rows that were validated before."""
    predictions = object.__new__(Predictions)
    object.__setattr__(predictions, "table", table.combine_chunks())
    return predictions


def _matrix(table: pa.Table, name: str) -> npt.NDArray[np.float64]:
    flat: Any = pc.list_flatten(table[name]).to_numpy()
    return np.asarray(flat, dtype=np.float64).reshape(len(table), -1)

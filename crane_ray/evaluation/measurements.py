"""Evaluation: every number with its interval, as metrics.json, metrics.csv and rows to show."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

import pandas as pd

from crane_ray import storage
from crane_ray.errors import ConfigError, StoreError
from crane_ray.evaluation.intervals import CONFIDENCE

FORMAT = 1
"""Version of metrics.json and metrics.csv."""

WHOLE = ""
"""The group of all slides."""

ENSEMBLED = "ensemble"
"""The fold of the mean probability over folds."""

MEAN = "mean"
"""The fold of the mean over folds."""

SPREAD = "sd"
"""The fold of the standard deviation over folds."""

COLUMNS = (
    "fold", "split", "task", "group", "metric", "value", "low", "high", "num_slides", "num_cases",
    "note",
)  # fmt: skip
"""Columns of metrics.csv."""

SHOWN = {
    "auc": "AUC",
    "balanced_accuracy": "balanced accuracy",
    "accuracy": "accuracy",
    "f1_macro": "macro F1",
    "kappa": "kappa",
    "ece": "ECE",
}
"""Metrics of the short table and their headings."""


@dataclass(frozen=True)
class Measurement:
    """One metric of one task, of one fold and split, and of one group of slides."""

    fold: str
    """"0", "1", ..., "ensemble", or over the folds "mean" and "sd"."""
    split: str
    task: str
    group: str
    """"" for all slides, else "site=A"."""
    metric: str
    value: float | None
    """None where it is undefined; the note says why."""
    num_slides: int | None
    """Labelled slides; None where bags are cases."""
    num_cases: int
    low: float | None = None
    """The interval's ends; None where there is none."""
    high: float | None = None
    num_valid: int = 0
    """Bootstrap replicates in which the metric is defined; the interval is theirs."""
    note: str = ""


@dataclass(frozen=True)
class Evaluation:
    """All measurements of a table of predictions."""

    measurements: tuple[Measurement, ...]
    num_replicates: int
    seed: int

    def find(
        self, metric: str, *, task: str, split: str = "test", fold: str = "mean", group: str = ""
    ) -> Measurement:
        """One measurement.

        Raises:
            ConfigError: there is none like that.
        """
        for row in self.measurements:
            if (row.metric, row.task, row.split) != (metric, task, split):
                continue
            if (row.fold, row.group) == (fold, group):
                return row
        raise ConfigError(
            f"{metric} of task {task}, fold {fold}, {split}, group {group or 'all'}: not among the "
            "measurements; metrics.csv lists those there are"
        )

    def frame(self) -> pd.DataFrame:
        """The measurements as the tidy table of metrics.csv; numbers of slides are nullable."""
        frame = pd.DataFrame([asdict(row) for row in self.measurements], columns=list(COLUMNS))
        numbers = {"value": "float64", "low": "float64", "high": "float64"}
        return frame.astype({**numbers, "num_slides": "Int64", "num_cases": "Int64"})

    def tree(self) -> dict[str, Any]:
        """The content of metrics.json: tasks, splits, folds, metrics; groups beside them."""
        tree: dict[str, Any] = {
            "format": FORMAT,
            "confidence": CONFIDENCE,
            "num_replicates": self.num_replicates,
            "seed": self.seed,
            "tasks": {},
            "groups": {},
        }
        for row in self.measurements:
            top = tree["groups"].setdefault(row.group, {}) if row.group else tree["tasks"]
            node = top.setdefault(row.task, {}).setdefault(row.split, {}).setdefault(row.fold, {})
            node[row.metric] = {
                "value": row.value,
                "low": row.low,
                "high": row.high,
                "num_valid": row.num_valid,
                "num_slides": row.num_slides,
                "num_cases": row.num_cases,
                "note": row.note,
            }
        return tree

    @classmethod
    def from_tree(cls, tree: Mapping[str, Any]) -> Self:
        """The evaluation whose `tree` it is; groups come after all slides."""
        whole = [(WHOLE, task, below) for task, below in tree["tasks"].items()]
        grouped = [
            (group, task, below)
            for group, tasks in tree["groups"].items()
            for task, below in tasks.items()
        ]
        found = [
            Measurement(fold=fold, split=split, task=task, group=group, metric=metric, **facts)
            for group, task, splits in (*whole, *grouped)
            for split, folds in splits.items()
            for fold, metrics in folds.items()
            for metric, facts in metrics.items()
        ]
        return cls(tuple(found), tree["num_replicates"], tree["seed"])

    @classmethod
    def read(cls, folder: str) -> Self | None:
        """The evaluation in a folder's metrics.json; None where there is none.

        Raises:
            StoreError: the file is there and cannot be used.
        """
        path = storage.join(folder, "metrics.json")
        if not storage.exists(path):
            return None
        try:
            tree = json.loads(storage.read_bytes(path))
            if tree["format"] != FORMAT:
                raise StoreError(
                    f"{path}: format {tree['format']}, known is {FORMAT}; update crane-ray"
                )
            return cls.from_tree(tree)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise StoreError(f"{path}: holds no metrics: {error}; move it away") from error

    def write(self, folder: str) -> None:
        """Writes metrics.json and metrics.csv.

        Raises:
            StorageError: they cannot be written.
        """
        text = json.dumps(self.tree(), indent=1, allow_nan=False) + "\n"
        storage.put_bytes(storage.join(folder, "metrics.json"), text.encode())
        table = self.frame().to_csv(index=False, lineterminator="\n")
        storage.put_bytes(storage.join(folder, "metrics.csv"), table.encode())


def metrics_rows(
    evaluation: Evaluation, *, split: str = "test", folds: bool = True
) -> list[dict[str, str]]:
    """Rows of text for a table on a screen: task, fold, group, slides, cases and `SHOWN` metrics.

    Args:
        evaluation: the measurements.
        split: which part's.
        folds: single folds too, where there is a mean or an ensemble of them.
    """
    keys = dict.fromkeys(
        (row.task, row.group, row.fold)
        for row in evaluation.measurements
        if row.split == split and row.metric in SHOWN
    )
    summarised = {(task, group) for task, group, fold in keys if not fold.isdigit()}
    cells = {
        (row.task, row.group, row.fold, row.metric): row
        for row in evaluation.measurements
        if row.split == split
    }
    rows = []
    for task, group, fold in keys:
        if fold.isdigit() and not folds and (task, group) in summarised:
            continue
        first = cells[task, group, fold, "auc"]
        slides = "" if first.num_slides is None else str(first.num_slides)
        row = {"task": task, "fold": fold, "group": group or "all"}
        row |= {"slides": slides, "cases": str(first.num_cases)}
        row |= {
            heading: shown(cells[task, group, fold, metric]) for metric, heading in SHOWN.items()
        }
        rows.append(row)
    return rows


def shown(row: Measurement) -> str:
    """A measurement as ``0.912 [0.853, 0.961]``; a dash where it is undefined."""
    if row.value is None:
        return "-"
    if row.low is None or row.high is None:
        return f"{row.value:.3f}"
    return f"{row.value:.3f} [{row.low:.3f}, {row.high:.3f}]"

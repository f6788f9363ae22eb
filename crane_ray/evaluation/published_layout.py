"""The result files of CRANE and CLAM, so that notebooks which read them go on working.

File and column names are theirs; what is in them comes from our predictions. A set of one task
has CLAM's columns, a set of several CRANE's, with tasks numbered from 1 in their order. Bags that
are cases are named by case_id where slides are by slide_id. Ensembles have no place here.
"""

import io
import math
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from crane_ray import storage
from crane_ray.cohort.tasks import MISSING, TaskSpec
from crane_ray.errors import ConfigError
from crane_ray.evaluation.metrics import task_metrics
from crane_ray.evaluation.predictions import ENSEMBLE, Predictions


@dataclass(frozen=True)
class _Bag:
    """What the network says of one bag in one task."""

    label: int
    probabilities_C: npt.NDArray[np.float64]


def write_experiment(folder: str, exp_code: str, settings: Mapping[str, object]) -> None:
    """Writes ``experiment_{exp_code}.txt``: the settings as a Python dictionary on one line."""
    path = storage.join(folder, f"experiment_{exp_code}.txt")
    storage.put_bytes(path, f"{dict(settings)}\n".encode())


def write_split_copy(folder: str, fold: int, content: bytes) -> None:
    """Writes ``splits_{fold}.csv``, the copy of the split file that the fold was trained with."""
    storage.put_bytes(storage.join(folder, f"splits_{fold}.csv"), content)


def write_fold_results(
    folder: str, predictions: Predictions, tasks: Sequence[TaskSpec], *, fold: int
) -> None:
    """Writes ``split_{fold}_results.pkl``: what the fold's network says of its test part.

    A dictionary: the bag's name to ``slide_id`` (a 0-d text array), ``prob`` ((1, C) float64) and
    ``label`` (int, -1 where missing). With several tasks ``prob_task{n}`` and ``label_task{n}``
    for each. The arrays unpickle with any version of numpy. Nothing here reads pickles.

    Raises:
        ConfigError: the fold has no test predictions.
    """
    bags = _bags(predictions.select(fold=fold, split="test"), tasks)
    if not bags:
        raise ConfigError(f"fold {fold}: no test predictions; predict its test part first")
    results: dict[str, dict[str, Any]] = {}
    for name, by_task in bags.items():
        results[name] = {"slide_id": np.array(name)}
        for number, bag in by_task.items():
            ending = _ending(number, tasks)
            results[name] |= {
                f"prob{ending}": bag.probabilities_C[None],
                f"label{ending}": bag.label,
            }
    sink = io.BytesIO()
    _Pickler(sink).dump(results)
    storage.put_bytes(storage.join(folder, f"split_{fold}_results.pkl"), sink.getvalue())


def write_summary(
    folder: str,
    predictions: Predictions,
    tasks: Sequence[TaskSpec],
    *,
    folds: Sequence[int],
    num_folds: int,
) -> None:
    """Writes ``summary.csv``: each fold's AUC and accuracy in test and val, blank if undefined.

    Fewer folds than the experiment has go to ``summary_partial_{first}_{last + 1}.csv``.
    """
    whole = len(folds) == num_folds
    name = "summary.csv" if whole else f"summary_partial_{min(folds)}_{max(folds) + 1}.csv"
    columns: dict[str, Any] = {"folds": list(folds)}
    for number, task in enumerate(tasks, start=1):
        start = _start(number, tasks)
        parts = {
            split: [_auc_acc(predictions.select(fold=fold, split=split), task) for fold in folds]
            for split in ("test", "val")
        }
        for place, metric in enumerate(("auc", "acc")):
            for split, values in parts.items():
                columns[f"{start}{split}_{metric}"] = [value[place] for value in values]
    # The unnamed index column is part of the published file.
    _put_csv(storage.join(folder, name), pd.DataFrame(columns), index=True)


def write_evaluation(folder: str, predictions: Predictions, tasks: Sequence[TaskSpec]) -> None:
    """Writes an ``EVAL_{code}`` folder: ``fold_{i}.csv`` for each fold, and ``summary.csv``.

    Columns with one task: slide_id, Y, Y_hat, p_0, p_1, ...; with several: slide_id, and for each
    Y_task{n}, Y_hat_task{n}, p0_task{n}, p1_task{n}, ... A missing label is blank. The summary has
    test_auc and test_acc, whichever part was evaluated, as published.

    Args:
        folder: where.
        predictions: the part that was evaluated (select a split first), of any folds.
        tasks: the tasks in order.
    """
    folds = [fold for fold in predictions.folds() if fold != ENSEMBLE]
    columns: dict[str, Any] = {"folds": folds}
    for fold in folds:
        rows = _eval_rows(predictions.select(fold=fold), tasks)
        _put_csv(storage.join(folder, f"fold_{fold}.csv"), rows, index=False)
    for number, task in enumerate(tasks, start=1):
        start = _start(number, tasks)
        values = [_auc_acc(predictions.select(fold=fold), task) for fold in folds]
        columns[f"{start}test_auc"] = [auc for auc, _ in values]
        columns[f"{start}test_acc"] = [accuracy for _, accuracy in values]
    _put_csv(storage.join(folder, "summary.csv"), pd.DataFrame(columns), index=True)


def _eval_rows(predictions: Predictions, tasks: Sequence[TaskSpec]) -> pd.DataFrame:
    bags = _bags(predictions, tasks)
    is_slide = any(predictions.table["slide_id"].to_pylist())
    columns: dict[str, Any] = {"slide_id" if is_slide else "case_id": list(bags)}
    for number, task in enumerate(tasks, start=1):
        ending = _ending(number, tasks)
        found = [by_task.get(number) for by_task in bags.values()]
        labels = [bag.label if bag and bag.label != MISSING else None for bag in found]
        predicted = [int(bag.probabilities_C.argmax()) if bag else None for bag in found]
        columns[f"Y{ending}"] = pd.array(labels, dtype="Int64")
        columns[f"Y_hat{ending}"] = pd.array(predicted, dtype="Int64")
        for index in range(task.num_classes):
            name = f"p_{index}" if len(tasks) == 1 else f"p{index}{ending}"
            columns[name] = [bag.probabilities_C[index] if bag else math.nan for bag in found]
    return pd.DataFrame(columns)


def _bags(predictions: Predictions, tasks: Sequence[TaskSpec]) -> dict[str, dict[int, _Bag]]:
    """What is said of each bag, by its name and the task's number, in the table's order."""
    bags: dict[str, dict[int, _Bag]] = {}
    for number, task in enumerate(tasks, start=1):
        selected = predictions.select(task=task.name)
        if not len(selected):
            continue
        rows = selected.arrays(task.name)
        for index, (slide, case) in enumerate(zip(rows.slide_ids_N, rows.case_ids_N, strict=True)):
            bag = _Bag(int(rows.labels_N[index]), rows.probabilities_NC[index])
            bags.setdefault(slide or case, {})[number] = bag
    return bags


def _auc_acc(predictions: Predictions, task: TaskSpec) -> tuple[float, float]:
    """AUC (macro one-vs-rest over the classes present) and accuracy, NaN where undefined."""
    selected = predictions.select(task=task.name)
    if not len(selected):
        return math.nan, math.nan
    rows = selected.arrays(task.name)
    values = task_metrics(rows.labels_N, rows.probabilities_NC).values
    auc, accuracy = values["auc"], values["accuracy"]
    return math.nan if auc is None else auc, math.nan if accuracy is None else accuracy


def _ending(number: int, tasks: Sequence[TaskSpec]) -> str:
    return f"_task{number}" if len(tasks) > 1 else ""


def _start(number: int, tasks: Sequence[TaskSpec]) -> str:
    return f"task{number}_" if len(tasks) > 1 else ""


def _put_csv(path: str, frame: pd.DataFrame, *, index: bool) -> None:
    storage.put_bytes(path, frame.to_csv(index=index, lineterminator="\n").encode())


class _Pickler(pickle.Pickler):
    """Pickles arrays as calls of ``numpy.array``.

    The default names a private module that numpy 2 renamed, and CLAM's environment has numpy 1.
    """

    def reducer_override(self, obj: object) -> Any:
        """How to make an array again; the default for everything else."""
        if isinstance(obj, np.ndarray):
            return np.array, (obj.tolist(), obj.dtype.str)
        return NotImplemented

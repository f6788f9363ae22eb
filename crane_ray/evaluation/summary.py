"""Predictions to numbers: every task, fold, split and subgroup, with intervals.

The plain call: ``evaluate(predictions, task_set.tasks).write(folder)``. Add
``ensemble(predictions)`` to the table for the folds' mean probability, and take ``by_case`` of it
for patients instead of slides.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from crane_ray.cohort.tasks import TaskSpec
from crane_ray.errors import ConfigError
from crane_ray.evaluation.measurements import (
    ENSEMBLED,
    WHOLE,
    Evaluation,
    Measurement,
    metrics_rows,
)
from crane_ray.evaluation.measuring import Place, measure, measure_mean
from crane_ray.evaluation.predictions import ENSEMBLE, PredictionArrays, Predictions
from crane_ray.evaluation.scoring import CALIBRATED, FoldFacts, Scored, fold_facts

__all__ = ["Evaluation", "Measurement", "check_thresholds", "evaluate", "metrics_rows"]

SPLIT_ORDER = ("test", "external", "val", "train")
"""Splits as results list them: what counts first."""

UNNAMED = "(none)"
"""The value of slides that a subgroup table does not name, or has an empty cell for."""

Groups = Mapping[str, Mapping[str, str]]
"""Subgroup tables: a name (site) to each slide's or case's value."""


def evaluate(
    predictions: Predictions,
    tasks: Sequence[TaskSpec],
    *,
    by: Groups | None = None,
    thresholds: Mapping[str, float] | None = None,
    num_replicates: int = 1000,
    seed: int = 0,
) -> Evaluation:
    """Every metric of every task, fold, split and subgroup.

    Metrics are those of `metrics.task_metrics`, and besides: ece, brier and log_loss after
    temperature scaling (``_calibrated``), and for two classes sensitivity and specificity at the
    threshold with the best Youden index (``_at_youden``). Temperature and threshold are fitted on
    the fold's own val part, and are None with a note where that is not in the table, so an
    external cohort's table needs the run's val rows too. Folds are
    followed by their mean and standard deviation, in which the ensemble has no part. Rows without
    a label are left out. Intervals are 95 % percentiles of a bootstrap of patients.

    Args:
        predictions: of slides or of cases, any folds and splits.
        tasks: the tasks to evaluate; rows of others are not looked at.
        by: subgroup tables; a slide is looked up by its slide_id, else its case_id.
        thresholds: for tasks of two classes, a threshold of class 1's probability, reported as
            ``_at_given``.
        num_replicates: of the bootstrap; 0 for no intervals.
        seed: of the bootstrap.

    Raises:
        ConfigError: a task without predictions, or with another number of classes; a threshold
            of no such task; a subgroup table that names none of the slides.
    """
    check_thresholds(thresholds or {}, tasks)
    measurements: list[Measurement] = []
    for task in tasks:
        rows = predictions.arrays(task.name)
        _check_classes(rows, task)
        facts = _facts_of_folds(rows, task, (thresholds or {}).get(task.name))
        measurements += _fitted(facts, rows, task)
        for group, chosen_N in _groups(rows, by or {}):
            for split in SPLIT_ORDER:
                part = rows.rows(chosen_N & (rows.splits_N == split))
                place = Place(split, task, group, num_replicates, seed)
                measurements += _measure_split(part, facts, place)
    return Evaluation(tuple(measurements), num_replicates, seed)


def _measure_split(
    part: PredictionArrays, facts: Mapping[int, FoldFacts], place: Place
) -> list[Measurement]:
    """Every fold that has rows, then mean and standard deviation where two folds or more have."""
    scored = {
        int(fold): Scored(
            _fold_name(fold),
            part.rows(part.folds_N == fold).labelled(),
            facts[fold],
            place.task.classes,
        )
        for fold in np.unique(part.folds_N)
    }
    found = {fold: measure(rows, place) for fold, rows in scored.items()}
    ensemble = found.pop(ENSEMBLE, [])
    together = [row for rows in found.values() for row in rows]
    if len(found) > 1:
        together += measure_mean([scored[fold] for fold in found], list(found.values()), place)
    return together + ensemble


def _facts_of_folds(
    rows: PredictionArrays, task: TaskSpec, threshold: float | None
) -> dict[int, FoldFacts]:
    facts = {}
    for fold in np.unique(rows.folds_N):
        val = rows.rows((rows.folds_N == fold) & (rows.splits_N == "val")).labelled()
        facts[int(fold)] = fold_facts(val, task, fold=_fold_name(fold), threshold=threshold)
    return facts


def _fitted(
    facts: Mapping[int, FoldFacts], rows: PredictionArrays, task: TaskSpec
) -> Iterator[Measurement]:
    """The temperature and the thresholds that each fold's val part chose."""
    for fold, fact in facts.items():
        val = rows.rows((rows.folds_N == fold) & (rows.splits_N == "val")).labelled()
        slides = len({slide for slide in val.slide_ids_N if slide})
        values = {"temperature": fact.temperature, "threshold": fact.thresholds.get("youden")}
        for metric, value in values.items():
            if value is not None:
                yield Measurement(
                    fold=_fold_name(fold),
                    split="val",
                    task=task.name,
                    group=WHOLE,
                    metric=metric,
                    value=value,
                    num_slides=slides or None,
                    num_cases=len(set(val.case_ids_N)),
                    note=fact.notes.get(CALIBRATED[0], "") if metric == "temperature" else "",
                )


def _groups(rows: PredictionArrays, by: Groups) -> Iterator[tuple[str, npt.NDArray[np.bool_]]]:
    """All slides, then each value of each subgroup table, sorted."""
    yield WHOLE, np.ones(len(rows), dtype=np.bool_)
    for name, table in by.items():
        found = [
            table.get(slide, table.get(case))
            for slide, case in zip(rows.slide_ids_N, rows.case_ids_N, strict=True)
        ]
        if all(value is None for value in found):
            raise ConfigError(
                f"groups by {name}: none of the {len(rows)} slides and their cases is in the "
                f"table; first slide {rows.slide_ids_N[0] or '(case)'} of case "
                f"{rows.case_ids_N[0]}; give bare slide ids or case ids"
            )
        values_N = np.array([value or UNNAMED for value in found], dtype=object)
        for value in sorted(set(values_N)):
            yield f"{name}={value}", values_N == value


def _fold_name(fold: int) -> str:
    return ENSEMBLED if fold == ENSEMBLE else str(fold)


def check_thresholds(thresholds: Mapping[str, float], tasks: Sequence[TaskSpec]) -> None:
    """Refuses thresholds that cannot be applied; jobs ask before any work starts.

    Raises:
        ConfigError: one is of no task with two classes, or is no probability.
    """
    binary = sorted(task.name for task in tasks if task.num_classes == 2)
    for name, value in thresholds.items():
        if name not in binary:
            raise ConfigError(
                f"threshold of task {name}: not a task of two classes; those are: "
                f"{', '.join(binary) or 'none'}"
            )
        if not 0 <= value <= 1:
            raise ConfigError(f"threshold of task {name}: {value} is no probability from 0 to 1")


def _check_classes(rows: PredictionArrays, task: TaskSpec) -> None:
    num_classes = rows.probabilities_NC.shape[1]
    if num_classes != task.num_classes:
        raise ConfigError(
            f"task {task.name}: predictions of {num_classes} classes, the task has "
            f"{task.num_classes} ({', '.join(task.classes)}); give the task set that the network "
            "was trained with"
        )

"""From the networks' predictions to a table a patient: probabilities, decisions, the grade.

Shapes: F folds, B cases, C classes of a task.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from crane_ray.cohort.tasks import TaskSpec
from crane_ray.evaluation.calibration import calibrated_probabilities, fit_temperature
from crane_ray.evaluation.predictions import Predictions


def calibrated_ensemble(
    predictions: Predictions, val: Predictions, task: TaskSpec
) -> tuple[dict[str, npt.NDArray[np.float64]], bool]:
    """Each case's (C,) probabilities, the mean over folds, and whether all are calibrated.

    A fold's logits are divided by the temperature that fits its own val part; where there are no
    val predictions of a fold they stay as they are.

    Args:
        predictions: of cases, by any folds.
        val: of the val parts of the same folds; may be empty.
        task: whose probabilities.
    """
    sums: dict[str, npt.NDArray[np.float64]] = {}
    folds, calibrated = predictions.select(task=task.name).folds(), True
    for fold in folds:
        rows = predictions.select(fold=fold).arrays(task.name)
        known = val.select(fold=fold, task=task.name)
        fitted = None
        if len(known):
            arrays = known.arrays(task.name)
            fitted = fit_temperature(arrays.labels_N, arrays.logits_NC)
        calibrated = calibrated and fitted is not None
        found_BC = calibrated_probabilities(rows.logits_NC, fitted.value if fitted else 1.0)
        for case, values_C in zip(rows.case_ids_N, found_BC, strict=True):
            sums[case] = sums.get(case, 0) + values_C / len(folds)
    return sums, calibrated


def assessment_table(
    tasks: Sequence[TaskSpec],
    probabilities: Mapping[str, Mapping[str, npt.NDArray[np.float64]]],
    thresholds: Mapping[str, float],
) -> pd.DataFrame:
    """A row a case: ``p_{task}_{class}`` for each class, and ``decision_{task}``.

    The decision is the most probable class; with a threshold of a task of two classes it is class 1
    from that probability on.

    Args:
        tasks: in order.
        probabilities: (C,) by task and case.
        thresholds: by task.
    """
    cases = sorted({case for found in probabilities.values() for case in found})
    columns: dict[str, object] = {"case_id": list(cases)}
    for task in tasks:
        values = [probabilities[task.name][case] for case in cases]
        values_BC = np.array(values, dtype=np.float64).reshape(len(cases), len(task.classes))
        for place, name in enumerate(task.classes):
            columns[f"p_{task.name}_{name}"] = values_BC[:, place]
        decided_B = values_BC.argmax(axis=1)
        if task.name in thresholds:
            decided_B = (values_BC[:, 1] >= thresholds[task.name]).astype(int)
        columns[f"decision_{task.name}"] = [task.classes[place] for place in decided_B]
    return pd.DataFrame(columns)


def with_grades(
    table: pd.DataFrame, grades: pd.DataFrame, findings: Mapping[str, str]
) -> pd.DataFrame:
    """The table with the grade's columns, blank for cases without a finding that is graded.

    Args:
        table: of the assessment.
        grades: of the grade, for the same cases.
        findings: by task whose finding is graded, the class that is none.
    """
    graded = pd.Series(False, index=table.index)
    for task, none in findings.items():
        graded |= table[f"decision_{task}"] != none
    asked = grades[grades["case_id"].isin(table.loc[graded, "case_id"])]
    return table.merge(asked, on="case_id", how="left", validate="one_to_one")


def of_all_cases(
    table: pd.DataFrame, slides: Mapping[str, Sequence[str]], reasons: Mapping[str, str]
) -> pd.DataFrame:
    """The table with a row of every case, blank where none of its slides could be used.

    Columns in the order of reading: case_id, ``num_slides`` that were used, ``num_left_out``, each
    task's decision, then the probabilities, and ``left_out``: which slides were not used, and why.

    Args:
        table: of the cases of which something is said.
        slides: of each case, sorted by case.
        reasons: by slide that was left out, why.
    """
    whole = table.set_index("case_id").reindex(list(slides))
    missing = [[slide for slide in own if slide in reasons] for own in slides.values()]
    facts = {
        "case_id": list(slides),
        "num_slides": [
            len(own) - len(out) for own, out in zip(slides.values(), missing, strict=True)
        ],
        "num_left_out": [len(out) for out in missing],
    }
    decisions = [name for name in map(str, whole) if name.startswith("decision_")]
    others = [name for name in map(str, whole) if name not in decisions]
    told = ["; ".join(f"{slide}: {reasons[slide]}" for slide in out) for out in missing]
    return pd.concat(
        [pd.DataFrame(facts), whole[[*decisions, *others]].reset_index(drop=True)], axis=1
    ).assign(left_out=told)

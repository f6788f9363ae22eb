"""Means of predictions: over folds (the ensemble), and over the slides of a case.

Shapes: N rows, G groups of rows, C classes.
"""

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from crane_ray.cohort.tasks import MISSING
from crane_ray.errors import ConfigError
from crane_ray.evaluation.predictions import (
    ENSEMBLE,
    PredictionArrays,
    Predictions,
    log_probabilities,
)


def ensemble(predictions: Predictions) -> Predictions:
    """The mean probability over folds for each split, slide (or case) and task, as fold -1.

    The folds that have a row for a slide in a split are averaged: all of them for an external
    cohort; for the test split those in which the slide was in test. Rows that are an ensemble
    already are left out. The logit is the logarithm of the mean probability.

    Raises:
        ConfigError: two folds have different labels for one slide and task.
    """
    table = predictions.table.filter(pc.not_equal(predictions.table["fold"], ENSEMBLE))
    one_fold = pa.array(np.full(len(table), ENSEMBLE, dtype=np.int32))
    return _averaged(table.set_column(0, "fold", one_fold), labels_agree=True)


def by_case(predictions: Predictions) -> Predictions:
    """Case-level predictions: the mean probability over the slides of a case.

    A case's label is the largest of its slides' labels (CRANE's and CLAM's default), missing
    where all are. Its slide_id is "" and its logit the logarithm of the mean probability. Rows
    whose bag was a case already stay what they are.

    Raises:
        ConfigError: a case has rows of slides and a row of its own in one fold, split and task.
    """
    table = predictions.table
    is_slide = pc.not_equal(table["slide_id"], "")
    slides = table.filter(is_slide)
    nameless = slides.set_column(2, "slide_id", pa.array([""] * len(slides), pa.string()))
    cases = Predictions(table.filter(pc.invert(is_slide)))
    return Predictions.concat([_averaged(nameless, labels_agree=False), cases])


def _averaged(table: pa.Table, *, labels_agree: bool) -> Predictions:
    """One row for each fold, split, slide, case and task, sorted; tasks in the table's order."""
    parts = []
    for task in table["task"].unique().to_pylist():
        rows = table.filter(pc.equal(table["task"], task))
        parts.append(_averaged_task(rows, task, labels_agree=labels_agree))
    return Predictions.concat(parts)


def _averaged_task(table: pa.Table, task: str, *, labels_agree: bool) -> Predictions:
    keys = table.select(["fold", "split", "slide_id", "case_id"]).to_pandas()
    group_N = keys.groupby(list(keys.columns), sort=True).ngroup().to_numpy()
    first_G = np.unique(group_N, return_index=True)[1]
    rows = PredictionArrays.of(table)
    labels_G = _largest(rows.labels_N, group_N)
    if labels_agree:
        _refuse_two_labels(keys, rows.labels_N, labels_G[group_N], task)
    counts_G = np.bincount(group_N)
    p_GC = np.stack(
        [np.bincount(group_N, weights=p_N) / counts_G for p_N in rows.probabilities_NC.T], axis=1
    )
    named = keys.iloc[first_G]
    return Predictions(
        pa.table(
            {
                **{str(name): pa.array(named[name], from_pandas=True) for name in named},
                "task": [task] * len(first_G),
                "label": pa.array(labels_G, mask=labels_G == MISSING),
                "num_classes": [p_GC.shape[1]] * len(first_G),
                "p": list(p_GC),
                "logit": list(log_probabilities(p_GC)),
            }
        )
    )


def _largest(
    labels_N: npt.NDArray[np.int64], group_N: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """The largest label of each group; MISSING, the lowest value there is, where all are."""
    labels_G = np.full(int(group_N.max()) + 1, MISSING, dtype=np.int64)
    np.maximum.at(labels_G, group_N, labels_N)
    return labels_G


def _refuse_two_labels(
    keys: pd.DataFrame,
    labels_N: npt.NDArray[np.int64],
    largest_N: npt.NDArray[np.int64],
    task: str,
) -> None:
    differs_N = (labels_N != MISSING) & (labels_N != largest_N)
    if differs_N.any():
        at = int(differs_N.argmax())
        row = keys.iloc[at]
        raise ConfigError(
            f"predictions: {row['split']} slide {row['slide_id'] or '(case)'} of case "
            f"{row['case_id']}, task {task}: label {labels_N[at]} in one fold, {largest_N[at]} in "
            "another; these folds were not made with one label table"
        )

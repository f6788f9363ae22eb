"""Metrics of one task, weighted, for one set of slides or for many bootstrap replicates of it.

Shapes: R replicates, N slides (or cases), C classes, K columns that are summed over slides.

Where a class is absent: metrics that average over classes (macro AUC and average precision,
balanced accuracy, macro F1) are over the classes that are present, and need two of them. A metric
that cannot be defined is None, with the reason. In a replicate a metric is over the same classes
as in the whole, and is NaN where the replicate lacks one of them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from crane_ray.cohort.tasks import MISSING
from crane_ray.evaluation.decisions import decision_metrics, ratio, threshold_metrics
from crane_ray.evaluation.ranking import auc_and_average_precision

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

NUM_BINS = 15
"""Bins of the calibration error (Guo et al., ICML 2017)."""

OVER_CLASSES = ("auc", "average_precision", "balanced_accuracy", "f1_macro")
"""Metrics that are means over the classes present, where a task has more than two."""

CALIBRATION = ("ece", "brier", "log_loss")
"""Metrics of the probabilities themselves, which temperature scaling improves."""


@dataclass(frozen=True)
class TaskMetrics:
    """The metrics of one task."""

    values: dict[str, float | None]
    """Each metric's value, None where it is undefined."""
    undefined: dict[str, str]
    """Why, for each metric that is None."""
    absent: tuple[str, ...]
    """Classes without a labelled slide."""


def task_metrics(
    labels_N: npt.ArrayLike,
    probabilities_NC: npt.ArrayLike,
    *,
    thresholds: Mapping[str, float] | None = None,
    weights_N: npt.ArrayLike | None = None,
    classes: Sequence[str] | None = None,
) -> TaskMetrics:
    """All metrics of a task.

    Binary: auc and average_precision (of class 1), accuracy, balanced_accuracy, f1 (of class 1),
    f1_macro, sensitivity, specificity, kappa, ece, brier, log_loss, and for each threshold
    sensitivity_at_{name} and specificity_at_{name}. More classes: auc and average_precision are
    macro one-vs-rest, auc_micro is added, and instead of f1, sensitivity and specificity, which
    are class 1's, there are auc_of_{class}, sensitivity_of_{class} and specificity_of_{class}.

    The predicted class is the most probable one, the first of equals; at a threshold class 1 is
    predicted where its probability is at or above. kappa is quadratically weighted; ece is of the
    top label in 15 bins of equal width; brier is the mean squared distance to the label, halved
    for two classes, so that it is (p1 - label)^2.

    Args:
        labels_N: class indices; slides with MISSING (-1) are left out.
        probabilities_NC: (N, C), rows sum to 1.
        thresholds: names and thresholds of class 1's probability, for two classes.
        weights_N: not negative; ones where not given. Slides with 0 are left out.
        classes: names of the classes; their indices where not given.
    """
    labels = np.asarray(labels_N, dtype=np.int64)
    probabilities = np.asarray(probabilities_NC, dtype=np.float64)
    weights = np.ones(len(labels)) if weights_N is None else np.asarray(weights_N, np.float64)
    used = (labels != MISSING) & (weights > 0)
    labels, probabilities = labels[used], probabilities[used]
    num_classes = probabilities.shape[1]
    names = _class_names(num_classes, classes)
    replicates = replicate_metrics(
        labels, probabilities, weights[None, used], thresholds=thresholds, classes=names
    )
    values = {
        name: None if np.isnan(value[0]) else float(value[0]) for name, value in replicates.items()
    }
    counts_C = np.bincount(labels, minlength=num_classes)
    present = [name for name, count in zip(names, counts_C, strict=True) if count]
    return TaskMetrics(
        values=values,
        undefined={
            name: _why_undefined(name, names, present) for name in values if values[name] is None
        },
        absent=tuple(name for name in names if name not in present),
    )


def replicate_metrics(
    labels_N: IntArray,
    probabilities_NC: FloatArray,
    weights_RN: FloatArray,
    *,
    thresholds: Mapping[str, float] | None = None,
    classes: Sequence[str] | None = None,
) -> dict[str, FloatArray]:
    """Each metric of `task_metrics` in each replicate, (R,), NaN where it is undefined.

    Args:
        labels_N: class indices, none missing.
        probabilities_NC: rows sum to 1.
        weights_RN: how often a slide counts in a replicate.
        thresholds: as `task_metrics` takes them.
        classes: as `task_metrics` takes them.
    """
    num_classes = probabilities_NC.shape[1]
    names = _class_names(num_classes, classes)
    if not len(labels_N):
        nothing = np.full(len(weights_RN), np.nan)
        return dict.fromkeys(_metric_names(names, thresholds or {}), nothing)
    values = _ranking(labels_N, probabilities_NC, weights_RN, names)
    values |= decision_metrics(labels_N, probabilities_NC, weights_RN, names)
    values |= calibration_metrics(labels_N, probabilities_NC, weights_RN)
    if num_classes == 2:
        for name, threshold in (thresholds or {}).items():
            sensitivity_R, specificity_R = threshold_metrics(
                labels_N, probabilities_NC[:, 1], weights_RN, threshold
            )
            values[f"sensitivity_at_{name}"] = sensitivity_R
            values[f"specificity_at_{name}"] = specificity_R
    return values


def calibration_metrics(
    labels_N: IntArray, probabilities_NC: FloatArray, weights_RN: FloatArray
) -> dict[str, FloatArray]:
    """ece, brier and log_loss in each replicate, (R,), NaN where it has no slides."""
    num_classes = probabilities_NC.shape[1]
    rows = np.arange(len(labels_N))
    confidence_N = probabilities_NC.max(axis=1)
    correct_N = probabilities_NC.argmax(axis=1) == labels_N
    gap_NK = np.zeros((len(labels_N), NUM_BINS))
    gap_NK[rows, confidence_bins(confidence_N)] = correct_N - confidence_N
    error_N = ((probabilities_NC - np.eye(num_classes)[labels_N]) ** 2).sum(axis=1)
    smallest = float(np.finfo(np.float64).eps)
    surprise_N = -np.log(np.clip(probabilities_NC[rows, labels_N], smallest, 1 - smallest))
    total_R = weights_RN.sum(axis=1)
    return {
        "ece": ratio(np.abs(weights_RN @ gap_NK).sum(axis=1), total_R),
        "brier": ratio(weights_RN @ error_N, total_R) / (2 if num_classes == 2 else 1),
        "log_loss": ratio(weights_RN @ surprise_N, total_R),
    }


def confidence_bins(confidence_N: FloatArray, num_bins: int = NUM_BINS) -> IntArray:
    """The bin of each confidence; bins are (i / num_bins, (i + 1) / num_bins]."""
    bins_N = np.ceil(confidence_N * num_bins).astype(np.int64) - 1
    return np.clip(bins_N, 0, num_bins - 1)


def _ranking(
    labels_N: IntArray,
    probabilities_NC: FloatArray,
    weights_RN: FloatArray,
    classes: Sequence[str],
) -> dict[str, FloatArray]:
    num_classes = probabilities_NC.shape[1]
    pairs = [
        auc_and_average_precision(labels_N == index, probabilities_NC[:, index], weights_RN)
        for index in range(num_classes)
        if num_classes > 2 or index == 1
    ]
    if num_classes == 2:
        return {"auc": pairs[0][0], "average_precision": pairs[0][1]}
    micro_R, _ = auc_and_average_precision(
        np.eye(num_classes, dtype=bool)[labels_N].ravel(),
        probabilities_NC.ravel(),
        np.repeat(weights_RN, num_classes, axis=1),
    )
    present = np.unique(labels_N)
    values = {
        "auc": np.mean([pairs[index][0] for index in present], axis=0),
        "auc_micro": micro_R,
        "average_precision": np.mean([pairs[index][1] for index in present], axis=0),
    }
    return values | {
        f"auc_of_{name}": auc_R for name, (auc_R, _) in zip(classes, pairs, strict=True)
    }


def _class_names(num_classes: int, classes: Sequence[str] | None) -> list[str]:
    return [str(index) for index in range(num_classes)] if classes is None else list(classes)


def _metric_names(classes: Sequence[str], thresholds: Mapping[str, float]) -> list[str]:
    """The metrics of a task, which are asked of one made-up slide."""
    made_up_NC = np.full((1, len(classes)), 1 / len(classes))
    made_up = (np.array([0]), made_up_NC, np.ones((1, 1)))
    return list(replicate_metrics(*made_up, thresholds=thresholds, classes=classes))


def _why_undefined(metric: str, names: Sequence[str], present: Sequence[str]) -> str:
    if not present:
        return "no labelled slides"
    if metric == "kappa":
        return f"labels and predictions are all of class {present[0]}"
    for absent in names:
        if absent not in present and _needs(metric, absent, names):
            return f"no slide of class {absent}"
    return f"only class {present[0]} is present"


def _needs(metric: str, name: str, names: Sequence[str]) -> bool:
    """Whether a metric is of the class called ``name``, and has no value without it."""
    if len(names) > 2:
        return metric.endswith(f"_of_{name}")
    of_positive = metric == "f1" or metric.startswith("sensitivity")
    return of_positive if name == names[1] else metric.startswith("specificity")

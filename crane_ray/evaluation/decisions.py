"""Metrics of decisions: which class is predicted, weighted, for many replicates at once.

Shapes: R replicates, N slides (or cases), C classes, K cells of the confusion matrix.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


def decision_metrics(
    labels_N: IntArray,
    probabilities_NC: FloatArray,
    weights_RN: FloatArray,
    classes: Sequence[str],
) -> dict[str, FloatArray]:
    """Metrics of the predicted class in each replicate, (R,), NaN where they are undefined.

    Args:
        labels_N: class indices, at least one, none missing.
        probabilities_NC: the most probable class is predicted, the first of equals.
        weights_RN: how often a slide counts in a replicate.
        classes: names, by which classes are called where there are more than two.
    """
    num_classes = probabilities_NC.shape[1]
    predicted_N = probabilities_NC.argmax(axis=1)
    confusion_RCC = _confusion(labels_N, predicted_N, weights_RN, num_classes)
    present = np.unique(labels_N)
    hits_RC = np.diagonal(confusion_RCC, axis1=1, axis2=2)
    labelled_RC, predicted_RC = confusion_RCC.sum(axis=2), confusion_RCC.sum(axis=1)
    recall_RC = ratio(hits_RC, labelled_RC)
    f1_RC = ratio(2 * hits_RC, np.where(labelled_RC > 0, labelled_RC + predicted_RC, 0.0))
    values = {
        "accuracy": ratio(hits_RC.sum(axis=1), labelled_RC.sum(axis=1)),
        "balanced_accuracy": recall_RC[:, present].mean(axis=1),
        "f1_macro": f1_RC[:, present].mean(axis=1),
        "kappa": _quadratic_kappa(confusion_RCC),
    }
    if len(present) < 2:
        values |= dict.fromkeys(("balanced_accuracy", "f1_macro"), np.full(len(weights_RN), np.nan))
    if num_classes == 2:
        return values | {"f1": f1_RC[:, 1]} | _at_one_class(confusion_RCC, 1, "")
    for index, name in enumerate(classes):
        values |= _at_one_class(confusion_RCC, index, f"_of_{name}")
    return values


def threshold_metrics(
    labels_N: IntArray, probabilities_N: FloatArray, weights_RN: FloatArray, threshold: float
) -> tuple[FloatArray, FloatArray]:
    """Sensitivity (R,) and specificity (R,) where class 1 is predicted at or above a threshold."""
    predicted_N = (probabilities_N >= threshold).astype(np.int64)
    found = _at_one_class(_confusion(labels_N, predicted_N, weights_RN, 2), 1, "")
    return found["sensitivity"], found["specificity"]


def _at_one_class(confusion_RCC: FloatArray, index: int, ending: str) -> dict[str, FloatArray]:
    """Sensitivity and specificity of one class against the rest."""
    of_class_RC = confusion_RCC[:, index]
    # Summed without the class, not as a difference: weights that are no whole numbers would leave
    # a remainder where there is none of the rest.
    rest_RC = np.delete(confusion_RCC, index, axis=1).sum(axis=1)
    elsewhere_R = np.delete(rest_RC, index, axis=1).sum(axis=1)
    return {
        f"sensitivity{ending}": ratio(of_class_RC[:, index], of_class_RC.sum(axis=1)),
        f"specificity{ending}": ratio(elsewhere_R, rest_RC.sum(axis=1)),
    }


def _confusion(
    labels_N: IntArray, predicted_N: IntArray, weights_RN: FloatArray, num_classes: int
) -> FloatArray:
    """Weights (R, C, C) by label and predicted class."""
    cells_NK = np.eye(num_classes * num_classes)[labels_N * num_classes + predicted_N]
    return np.asarray(weights_RN @ cells_NK).reshape(-1, num_classes, num_classes)


def _quadratic_kappa(confusion_RCC: FloatArray) -> FloatArray:
    """Cohen's kappa with quadratic weights (Cohen, 1968): 1 - observed / expected disagreement."""
    index = np.arange(confusion_RCC.shape[1])
    distance_CC = (index[:, None] - index[None, :]) ** 2.0
    observed_R = np.einsum("rij,ij->r", confusion_RCC, distance_CC)
    labelled_RC, predicted_RC = confusion_RCC.sum(axis=2), confusion_RCC.sum(axis=1)
    expected_R = np.einsum("ri,rj,ij->r", labelled_RC, predicted_RC, distance_CC)
    return 1 - ratio(observed_R * labelled_RC.sum(axis=1), expected_R)


def ratio(numerator: FloatArray, denominator: FloatArray) -> FloatArray:
    """The quotient, NaN where the denominator is 0."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(denominator > 0, numerator / denominator, np.nan))

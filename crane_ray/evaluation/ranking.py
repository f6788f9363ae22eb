"""Area under the ROC curve and average precision, weighted, for many replicates at once.

Shapes: R replicates, N slides, G distinct scores.
"""

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]


def auc_and_average_precision(
    positive_N: npt.NDArray[np.bool_], scores_N: FloatArray, weights_RN: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """AUC (R,) and average precision (R,), NaN in replicates without a positive or a negative.

    AUC is the weighted share of (positive, negative) pairs in which the positive scores higher,
    a tie counting half. Average precision is the sum over distinct scores, from the highest, of
    precision at the score times the recall gained there (no interpolation, as scikit-learn).

    Args:
        positive_N: which slides are positive.
        scores_N: the higher, the more positive.
        weights_RN: how often a slide counts in a replicate; not negative.
    """
    order = np.argsort(-scores_N, kind="stable")
    sorted_N = scores_N[order]
    starts_G = np.flatnonzero(np.r_[True, sorted_N[1:] != sorted_N[:-1]])
    weights_RN = np.take(weights_RN, order, axis=1)
    positives_RN = weights_RN * positive_N[order]
    if len(starts_G) < len(sorted_N):
        weights_RN = np.add.reduceat(weights_RN, starts_G, axis=1)
        positives_RN = np.add.reduceat(positives_RN, starts_G, axis=1)
    above_RG = np.cumsum(weights_RN, axis=1)
    positives_above_RG = np.cumsum(positives_RN, axis=1)
    num_R = positives_above_RG[:, -1]
    num_negatives_R = (weights_RN - positives_RN).sum(axis=1)
    undefined_R = (num_R <= 0) | (num_negatives_R <= 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        pairs_R = np.einsum(
            "rg,rg->r", weights_RN - positives_RN, positives_above_RG - 0.5 * positives_RN
        )
        auc_R = pairs_R / (num_R * num_negatives_R)
        # Scores at the top that a replicate lacks have 0 of 0 above them and gain no recall.
        precision_RG = positives_above_RG / np.where(above_RG > 0, above_RG, 1.0)
        average_R = np.einsum("rg,rg->r", positives_RN, precision_RG) / num_R
    return np.where(undefined_R, np.nan, auc_R), np.where(undefined_R, np.nan, average_R)


def youden_threshold(
    labels_N: npt.NDArray[np.int64],
    probabilities_N: FloatArray,
    weights_N: FloatArray | None = None,
) -> float | None:
    """The threshold with the largest sensitivity + specificity - 1; None with one class alone.

    A slide is positive when its probability is at or above the threshold. Thresholds lie halfway
    between neighbouring distinct probabilities; of several that are equally good the one nearest
    to 0.5 is taken.

    Args:
        labels_N: 0 or 1; rows with another label (missing) are left out.
        probabilities_N: of class 1.
        weights_N: not negative; ones where not given.
    """
    weights = np.ones(len(labels_N)) if weights_N is None else weights_N
    used = (labels_N >= 0) & (weights > 0)
    values_G, group = np.unique(probabilities_N[used], return_inverse=True)
    positive = labels_N[used] == 1
    if positive.all() or not positive.any():
        return None
    weights = weights[used]
    positives_G = np.bincount(group, weights=weights * positive, minlength=len(values_G))
    negatives_G = np.bincount(group, weights=weights * ~positive, minlength=len(values_G))
    sensitivity_G = np.cumsum(positives_G[::-1])[::-1] / positives_G.sum()
    false_alarms_G = np.cumsum(negatives_G[::-1])[::-1] / negatives_G.sum()
    youden_G = sensitivity_G - false_alarms_G
    lower_G = np.r_[values_G[0], values_G[:-1]]
    thresholds_G = (values_G + lower_G) / 2
    best = np.flatnonzero(youden_G >= youden_G.max() - 1e-12)
    return float(thresholds_G[best[np.abs(thresholds_G[best] - 0.5).argmin()]])

"""Whether probabilities mean what they say: temperature scaling and the reliability table.

Shapes: N slides, C classes.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from crane_ray.cohort.tasks import MISSING
from crane_ray.evaluation.metrics import NUM_BINS, confidence_bins
from crane_ray.evaluation.predictions import softmax

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

BOUNDS = (0.05, 20.0)
"""Temperatures that are looked at; a best one outside says that the logits are no use."""

STEPS = 60
"""Halvings of the logarithm of the bounds: far below float64's resolution of a temperature."""


@dataclass(frozen=True)
class Temperature:
    """What logits are divided by, so that their softmax is calibrated."""

    value: float
    note: str = ""
    """What a reader of calibrated numbers should know; "" where the fit is an ordinary one."""


@dataclass(frozen=True)
class ReliabilityBin:
    """Slides of like confidence."""

    low: float
    """Confidence above this ..."""
    high: float
    """... up to this."""
    num_slides: int
    confidence: float | None
    """Mean probability of the predicted class; None in an empty bin."""
    accuracy: float | None
    """Share of slides whose predicted class is the label; None in an empty bin."""


def fit_temperature(labels_N: npt.ArrayLike, logits_NC: npt.ArrayLike) -> Temperature | None:
    """The temperature with the smallest negative log likelihood; None without a labelled slide.

    Guo et al., ICML 2017. The likelihood is convex in 1 / temperature, so the sign of its slope
    is bisected between the bounds. Deviation: where every slide is classified without an error,
    the likelihood only grows with colder temperatures and has no best one; a few validation
    slides of that kind say nothing about confidence, and the temperature stays 1.

    Args:
        labels_N: class indices; slides with MISSING (-1) are left out.
        logits_NC: the validation part's logits.
    """
    labels = np.asarray(labels_N, dtype=np.int64)
    logits = np.asarray(logits_NC, dtype=np.float64)[labels != MISSING]
    labels = labels[labels != MISSING]
    if not len(labels):
        return None
    # Softmax does not see a shift; what is left is how far each class lies below the true one.
    margins_NC = logits - logits[np.arange(len(labels)), labels][:, None]
    if np.all((margins_NC < 0).sum(axis=1) == logits.shape[1] - 1):
        return Temperature(1.0, "val is classified without an error: temperature stays 1")
    coldest, hottest = BOUNDS
    if _slope(margins_NC, 1 / hottest) >= 0:
        return Temperature(hottest, f"temperature at its upper bound {hottest:g}")
    if _slope(margins_NC, 1 / coldest) <= 0:
        return Temperature(coldest, f"temperature at its lower bound {coldest:g}")
    low, high = np.log(1 / hottest), np.log(1 / coldest)
    for _ in range(STEPS):
        middle = (low + high) / 2
        if _slope(margins_NC, float(np.exp(middle))) > 0:
            high = middle
        else:
            low = middle
    return Temperature(float(np.exp(-(low + high) / 2)))


def calibrated_probabilities(logits_NC: npt.ArrayLike, temperature: float) -> FloatArray:
    """The softmax (N, C) of logits divided by the temperature."""
    return softmax(np.asarray(logits_NC, dtype=np.float64) / temperature)


def reliability_table(
    labels_N: npt.ArrayLike, probabilities_NC: npt.ArrayLike, *, num_bins: int = NUM_BINS
) -> tuple[ReliabilityBin, ...]:
    """Confidence and accuracy in bins of equal width, empty ones included.

    Args:
        labels_N: class indices; slides with MISSING (-1) are left out.
        probabilities_NC: rows sum to 1.
        num_bins: how many.
    """
    labels = np.asarray(labels_N, dtype=np.int64)
    probabilities = np.asarray(probabilities_NC, dtype=np.float64)[labels != MISSING]
    labels = labels[labels != MISSING]
    confidence_N = probabilities.max(axis=1)
    correct_N = (probabilities.argmax(axis=1) == labels).astype(np.float64)
    bins_N = confidence_bins(confidence_N, num_bins)
    table = []
    for index in range(num_bins):
        inside = bins_N == index
        filled = bool(inside.any())
        table.append(
            ReliabilityBin(
                low=index / num_bins,
                high=(index + 1) / num_bins,
                num_slides=int(inside.sum()),
                confidence=float(confidence_N[inside].mean()) if filled else None,
                accuracy=float(correct_N[inside].mean()) if filled else None,
            )
        )
    return tuple(table)


def _slope(margins_NC: FloatArray, inverse: float) -> float:
    """Derivative of the mean negative log likelihood by the inverse temperature."""
    return float((softmax(margins_NC * inverse) * margins_NC).sum(axis=1).mean())

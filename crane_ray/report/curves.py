"""ROC and precision-recall curves as points, each exactly as far as its data goes.

Shapes: N slides (or cases), P points of a curve.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

MANY = 400
"""Curves with more points are thinned before they are drawn."""


@dataclass(frozen=True, eq=False)
class Curve:
    """Points from left to right; steps are points with the same x."""

    x_P: FloatArray
    y_P: FloatArray

    @property
    def area(self) -> float:
        """Below the straight lines between its points."""
        return float(np.sum(np.diff(self.x_P) * (self.y_P[1:] + self.y_P[:-1]) / 2))


def roc_curve(positive_N: npt.NDArray[np.bool_], scores_N: FloatArray) -> Curve | None:
    """True-positive rate by false-positive rate; None where there is one class alone.

    A point a distinct score, joined by straight lines: equal scores of both classes make a slope,
    as they count half in the AUC, which is the area.
    """
    true_G, false_G = _counts_above(positive_N, scores_N)
    if not true_G[-1] or not false_G[-1]:
        return None
    return Curve(np.r_[0.0, false_G / false_G[-1]], np.r_[0.0, true_G / true_G[-1]])


def precision_recall_curve(positive_N: npt.NDArray[np.bool_], scores_N: FloatArray) -> Curve | None:
    """Precision by recall, in steps; None where there is one class alone.

    The precision at a recall is that of the highest threshold which reaches it: lines between
    points would promise what no threshold gives (Davis and Goadrich, ICML 2006). The area is the
    average precision.
    """
    true_G, false_G = _counts_above(positive_N, scores_N)
    if not true_G[-1] or not false_G[-1]:
        return None
    gained_G = np.diff(true_G, prepend=0.0) > 0  # else the same recall at a lower precision
    recall_G = true_G[gained_G] / true_G[-1]
    precision_G = (true_G / (true_G + false_G))[gained_G]
    # From each recall back to the one before lies its own precision.
    return Curve(np.r_[0.0, np.repeat(recall_G, 2)[:-1]], np.repeat(precision_G, 2))


def mean_curve(curves: Sequence[Curve]) -> Curve:
    """The vertical mean of curves, exact at every step of each; its area is their mean area.

    Args:
        curves: at least one, all over the same range of x.
    """
    places = np.unique(np.concatenate([curve.x_P for curve in curves]))
    limits = np.mean([_limits(curve, places) for curve in curves], axis=0)
    return Curve(np.repeat(places, 2), limits.T.ravel())


def thinned(points: Sequence[tuple[float, float]], step: float = 0.4) -> list[tuple[float, float]]:
    """Points of a drawing, fewer where there are very many, none moved further than half a step.

    Args:
        points: in px.
        step: of the lattice that crowded points are moved to.
    """
    if len(points) <= MANY:
        return list(points)
    lattice = np.rint(np.asarray(points) / step)
    keep = np.r_[True, np.any(np.diff(lattice, axis=0) != 0, axis=1)]
    lattice = lattice[keep]
    ways = np.diff(lattice, axis=0)
    turns = ways[1:, 0] * ways[:-1, 1] != ways[1:, 1] * ways[:-1, 0]
    lattice = lattice[np.r_[True, turns, True]] if len(lattice) > 2 else lattice
    return [(float(x), float(y)) for x, y in lattice * step]


def _counts_above(
    positive_N: npt.NDArray[np.bool_], scores_N: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """True and false positives at each distinct score, from the highest; (0,) of no slides."""
    if not len(scores_N):
        return np.zeros(1), np.zeros(1)
    order = np.argsort(-scores_N, kind="stable")
    sorted_N, positive_N = scores_N[order], positive_N[order]
    last_G = np.r_[np.flatnonzero(np.diff(sorted_N)), len(sorted_N) - 1]
    true_G = np.cumsum(positive_N)[last_G].astype(np.float64)
    return true_G, last_G + 1 - true_G


def _limits(curve: Curve, places: FloatArray) -> FloatArray:
    """What a curve tends to from the left and from the right of each place, (2, places)."""
    starts = np.flatnonzero(np.r_[True, np.diff(curve.x_P) > 0])
    ends = np.r_[starts[1:], len(curve.x_P)] - 1
    first, last = curve.y_P[starts], curve.y_P[ends]
    x = curve.x_P[starts]
    at = np.clip(np.searchsorted(x, places, side="right") - 1, 0, len(x) - 1)
    after = np.minimum(at + 1, len(x) - 1)
    width = np.where(x[after] > x[at], x[after] - x[at], 1.0)
    between = last[at] + (first[after] - last[at]) * (places - x[at]) / width
    exact = x[at] == places
    return np.where(exact, np.stack([first[at], last[at]]), between)

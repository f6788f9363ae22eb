"""Patient-level bootstrap: how far a metric would wander with other patients of the same kind.

Cases are drawn with replacement, each with all its slides (Field and Welsh, 2007: the cluster
bootstrap), since slides of one patient are no independent witnesses. Intervals are percentiles.

Shapes: R replicates, N rows, P cases.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

CONFIDENCE = 0.95
"""Share of the replicates that an interval covers."""

VALUES_AT_ONCE = 1 << 19
"""Weights that are held at a time, 4 MB: larger pieces leave the processor's cache."""

Statistic = Callable[[FloatArray], dict[str, FloatArray]]
"""Counts of each case in each replicate (R, P) to metrics (R,), NaN where undefined."""


@dataclass(frozen=True)
class Interval:
    """A 95 % percentile interval."""

    low: float | None
    """None where no replicate has the metric."""
    high: float | None
    num_valid: int
    """Replicates in which the metric is defined; the others are left out."""


@dataclass(frozen=True)
class Clusters:
    """Which case each row belongs to."""

    cases: tuple[str, ...]
    """The cases, sorted, so that the draw does not depend on the order of rows."""
    index_N: npt.NDArray[np.int64]
    """Each row's case, as its place in ``cases``."""

    def weights(self, counts_RP: FloatArray) -> FloatArray:
        """How often each row counts (R, N) when its case is drawn that often."""
        return np.take(counts_RP, self.index_N, axis=1)


def clusters(case_ids_N: Sequence[str] | npt.NDArray[np.object_], cases: Sequence[str]) -> Clusters:
    """The clusters of rows.

    Args:
        case_ids_N: each row's case.
        cases: the cases that are drawn from, a superset of the rows', sorted.
    """
    place = {case: index for index, case in enumerate(cases)}
    return Clusters(tuple(cases), np.array([place[case] for case in case_ids_N], dtype=np.int64))


def bootstrap(
    statistic: Statistic, num_cases: int, *, num_rows: int, num_replicates: int, seed: int
) -> dict[str, FloatArray]:
    """Each metric in each replicate, (num_replicates,).

    Args:
        statistic: makes metrics of counts.
        num_cases: P, cases to draw from; so many are drawn.
        num_rows: rows that a replicate weighs, by which the work is cut in pieces.
        num_replicates: how many.
        seed: of the draw; the same seed and cases give the same replicates.
    """
    generator = np.random.default_rng(seed)
    shares_P = np.full(num_cases, 1 / num_cases)
    step = max(1, VALUES_AT_ONCE // max(num_rows, 1))
    pieces = []
    for start in range(0, num_replicates, step):
        size = min(step, num_replicates - start)
        counts_RP = generator.multinomial(num_cases, shares_P, size=size).astype(np.float64)
        pieces.append(statistic(counts_RP))
    if not pieces:
        return {}
    return {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}


def interval(values_R: FloatArray) -> Interval:
    """The middle 95 % of the replicates in which the metric is defined."""
    valid = values_R[~np.isnan(values_R)]
    if not len(valid):
        return Interval(None, None, 0)
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(valid, [tail, 1 - tail])
    return Interval(float(low), float(high), len(valid))

"""Scored slides: every metric of a fold's rows, in the whole and in bootstrap replicates.

Shapes: R replicates, N rows, P cases.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from crane_ray.cohort.tasks import TaskSpec
from crane_ray.evaluation.calibration import calibrated_probabilities, fit_temperature
from crane_ray.evaluation.intervals import Interval, bootstrap, clusters, interval
from crane_ray.evaluation.metrics import CALIBRATION, calibration_metrics, replicate_metrics
from crane_ray.evaluation.predictions import PredictionArrays
from crane_ray.evaluation.ranking import youden_threshold

FloatArray = npt.NDArray[np.float64]

CALIBRATED = tuple(f"{name}_calibrated" for name in CALIBRATION)
"""Metrics after temperature scaling."""

AT_YOUDEN = ("sensitivity_at_youden", "specificity_at_youden")
"""Metrics at the threshold that val chose, of tasks with two classes."""


@dataclass(frozen=True)
class FoldFacts:
    """What is fitted on a fold's val part, for numbers of its other parts."""

    temperature: float | None = None
    thresholds: Mapping[str, float] = field(default_factory=dict)
    notes: Mapping[str, str] = field(default_factory=dict)
    """For metrics that depend on it: why it is not there, or how it came out."""
    val_cases: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Scored:
    """The labelled rows of one fold, split, task and group."""

    fold: str
    rows: PredictionArrays
    facts: FoldFacts
    classes: tuple[str, ...]

    def replicates(self, weights_RN: FloatArray) -> dict[str, FloatArray]:
        """Every metric in every replicate, (R,), NaN where it is undefined."""
        rows = self.rows
        values = replicate_metrics(
            rows.labels_N,
            rows.probabilities_NC,
            weights_RN,
            thresholds=self.facts.thresholds,
            classes=self.classes,
        )
        if self.facts.temperature is not None and len(rows):
            p_NC = calibrated_probabilities(rows.logits_NC, self.facts.temperature)
            calibrated = calibration_metrics(rows.labels_N, p_NC, weights_RN)
            values |= {f"{name}_calibrated": value_R for name, value_R in calibrated.items()}
        return values

    def values(self) -> dict[str, float]:
        """Every metric of the rows, NaN where it is undefined."""
        once = self.replicates(np.ones((1, len(self.rows))))
        return {name: float(value[0]) for name, value in once.items()}


def fold_facts(
    val: PredictionArrays, task: TaskSpec, *, fold: str, threshold: float | None
) -> FoldFacts:
    """Temperature and thresholds for a fold.

    Args:
        val: the labelled rows of its val part, none where there is no such part.
        task: the task.
        fold: its name, for the notes.
        threshold: one that the user chose, of class 1's probability.
    """
    notes: dict[str, str] = {}
    thresholds = {} if threshold is None else {"given": threshold}
    temperature = fit_temperature(val.labels_N, val.logits_NC)
    missing = f"no labelled val part in fold {fold}" if not len(val) else ""
    notes |= dict.fromkeys(CALIBRATED, temperature.note if temperature else missing)
    if task.num_classes == 2:
        youden = youden_threshold(val.labels_N, val.probabilities_NC[:, 1])
        if youden is None:
            reason = missing or f"val of fold {fold} has one class alone"
            notes |= dict.fromkeys(AT_YOUDEN, reason)
        else:
            thresholds["youden"] = youden
    cases = frozenset(val.case_ids_N)
    return FoldFacts(temperature.value if temperature else None, thresholds, notes, cases)


def mean_intervals(
    parts: Sequence[Scored], *, num_replicates: int, seed: int
) -> dict[str, Interval]:
    """Intervals of each metric's mean over the parts that have it, patients drawn for all at once.

    There are none without replicates, nor for fewer than two cases, which say nothing about others.
    """
    filled = [part for part in parts if len(part.rows)]
    cases = sorted({case for part in filled for case in part.rows.case_ids_N})
    if len(cases) < 2 or not num_replicates:
        return {}
    drawn = [clusters(part.rows.case_ids_N, cases) for part in filled]
    defined = [
        {name for name, value in part.values().items() if not np.isnan(value)} for part in filled
    ]

    def statistic(counts_RP: FloatArray) -> dict[str, FloatArray]:
        found: dict[str, list[FloatArray]] = {}
        for part, case, names in zip(filled, drawn, defined, strict=True):
            for name, value_R in part.replicates(case.weights(counts_RP)).items():
                if name in names:
                    found.setdefault(name, []).append(value_R)
        return {name: np.mean(values, axis=0) for name, values in found.items()}

    replicates = bootstrap(
        statistic,
        len(cases),
        num_rows=max(part.rows.probabilities_NC.size for part in filled) // 2,
        num_replicates=num_replicates,
        seed=seed,
    )
    return {name: interval(values_R) for name, values_R in replicates.items()}

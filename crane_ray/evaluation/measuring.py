"""From scored slides to measurements: values, intervals, and what a reader must be told."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from crane_ray.cohort.tasks import TaskSpec
from crane_ray.evaluation.intervals import Interval
from crane_ray.evaluation.measurements import MEAN, SPREAD, Measurement
from crane_ray.evaluation.metrics import OVER_CLASSES, task_metrics
from crane_ray.evaluation.scoring import AT_YOUDEN, CALIBRATED, Scored, mean_intervals

SMALL_GROUP = 10
"""Groups with fewer cases are flagged: one patient moves their numbers by a tenth and more."""


@dataclass(frozen=True)
class Place:
    """Where measurements belong, and how their intervals are drawn."""

    split: str
    task: TaskSpec
    group: str
    num_replicates: int
    seed: int


def measure(scored: Scored, place: Place) -> list[Measurement]:
    """All metrics of one fold's rows, with patient-level intervals."""
    values = scored.values()
    expected = [*CALIBRATED, *(AT_YOUDEN if place.task.num_classes == 2 else ())]
    values |= {name: math.nan for name in expected if name not in values}
    intervals = mean_intervals([scored], num_replicates=place.num_replicates, seed=place.seed)
    reasons = _reasons(scored, place)
    found = []
    for name, value in values.items():
        notes = [reasons.get(name, ""), _interval_note(value, intervals.get(name), place)]
        found.append(
            _measurement(name, value, [scored], place, interval=intervals.get(name), notes=notes)
        )
    return found


def measure_mean(
    parts: Sequence[Scored], by_fold: Sequence[Sequence[Measurement]], place: Place
) -> list[Measurement]:
    """Mean and standard deviation (n - 1) of every metric over folds.

    The mean's interval draws patients once for all folds, since folds may share them. Folds in
    which a metric is undefined are left out, and named.

    Args:
        parts: each fold's rows.
        by_fold: each fold's measurements.
        place: where they belong.
    """
    intervals = mean_intervals(parts, num_replicates=place.num_replicates, seed=place.seed)
    values = {(row.metric, row.fold): row.value for rows in by_fold for row in rows}
    found = []
    for name in dict.fromkeys(metric for metric, _ in values):
        defined = [value for key, value in values.items() if key[0] == name and value is not None]
        out = [part.fold for part in parts if values.get((name, part.fold)) is None]
        left_out = f"undefined in fold {', '.join(out)}" if out else ""
        mean = float(np.mean(defined)) if defined else math.nan
        spread = float(np.std(defined, ddof=1)) if len(defined) > 1 else math.nan
        drawn = intervals.get(name)
        notes = [left_out, _interval_note(mean, drawn, place)]
        alone = "" if len(defined) > 1 else "needs two folds"
        found += [
            _measurement(name, mean, parts, place, fold=MEAN, interval=drawn, notes=notes),
            _measurement(name, spread, parts, place, fold=SPREAD, notes=[left_out, alone]),
        ]
    return found


def _measurement(
    name: str,
    value: float,
    parts: Sequence[Scored],
    place: Place,
    *,
    notes: Sequence[str],
    interval: Interval | None = None,
    fold: str | None = None,
) -> Measurement:
    slides = {slide for part in parts for slide in part.rows.slide_ids_N if slide}
    cases = {case for part in parts for case in part.rows.case_ids_N}
    small = f"small group: {len(cases)} cases" if place.group and len(cases) < SMALL_GROUP else ""
    defined = not math.isnan(value)
    return Measurement(
        fold=parts[0].fold if fold is None else fold,
        split=place.split,
        task=place.task.name,
        group=place.group,
        metric=name,
        value=value if defined else None,
        low=interval.low if interval and defined else None,
        high=interval.high if interval and defined else None,
        num_slides=len(slides) or (0 if not cases else None),
        num_cases=len(cases),
        num_valid=interval.num_valid if interval and defined else 0,
        note="; ".join(note for note in (small, *notes) if note),
    )


def _reasons(scored: Scored, place: Place) -> dict[str, str]:
    """What is to be said of a metric: why it is undefined, or what it leaves out."""
    rows, task = scored.rows, place.task
    found = task_metrics(
        rows.labels_N,
        rows.probabilities_NC,
        thresholds=scored.facts.thresholds,
        classes=task.classes,
    )
    reasons = {name: note for name, note in scored.facts.notes.items() if note}
    if not len(rows):
        reasons |= dict.fromkeys(CALIBRATED, "no labelled slides")
    if found.absent and task.num_classes > 2:
        absent = f"over the classes present; absent: {', '.join(found.absent)}"
        reasons |= dict.fromkeys(OVER_CLASSES, absent)
    # Leaking splits, and the ensemble, whose folds have each other's test cases in val.
    shared = scored.facts.val_cases & {*rows.case_ids_N}
    if shared:
        told = f"fitted on val, where {len(shared)} of these cases are"
        for name in (*CALIBRATED, *AT_YOUDEN):
            reasons[name] = f"{reasons[name]}; {told}" if name in reasons else told
    return reasons | found.undefined


def _interval_note(value: float, interval: Interval | None, place: Place) -> str:
    if math.isnan(value) or not place.num_replicates:
        return ""
    if interval is None:
        return "a single case: no interval"
    if interval.num_valid < place.num_replicates:
        return f"interval of {interval.num_valid} of {place.num_replicates} replicates"
    return ""

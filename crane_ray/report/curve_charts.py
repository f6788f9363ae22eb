"""ROC and precision-recall curves of a task as drawings: each fold thin, their mean thick."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from crane_ray.evaluation.measurements import Measurement
from crane_ray.evaluation.predictions import PredictionArrays
from crane_ray.pages.drawing import INK, Frame, element, line, nothing, svg
from crane_ray.pages.scales import Scale
from crane_ray.report.curves import (
    Curve,
    mean_curve,
    precision_recall_curve,
    roc_curve,
    thinned,
)
from crane_ray.report.looks import (
    QUIET,
    SQUARE_PX,
    THICK,
    THIN,
    Entry,
    Look,
    legend,
    legend_height,
    look_of,
)
from crane_ray.report.results import TaskResults
from crane_ray.report.wording import class_name, rate_text, with_interval

LEFT, RIGHT, TOP, BOTTOM = 50, 18, 34, 50
CHANCE, PREVALENCE, ENSEMBLE_DASH = "5 4", "1 3", "1 2"
"""Dashes."""
SHARES = Scale("linear", 0.0, 1.0)

Maker = Callable[..., Curve | None]


@dataclass(frozen=True, eq=False)
class ClassCurves:
    """One class against the others: a curve a fold, and what the legend says."""

    name: str
    curves: tuple[Curve, ...]
    look: Look
    ensemble: Curve | None = None
    area: float | None = None
    measured: Measurement | None = None
    """Its area with an interval, where that was measured."""
    prevalence: float | None = None
    """Share of the class among the labelled rows."""


def roc_chart(results: TaskResults) -> str:
    """The ROC curves of a task's classes, one against the rest; of two classes the second's."""
    series = class_curves(results, roc_curve, "auc")
    title = f"ROC curves: {results.task.name}"
    if not any(one.curves for one in series):
        return nothing(f"roc-{results.place}", title, _why_none(results))
    entries = [_entry(one, "AUC", results, len(series)) for one in series if one.curves]
    entries += _common(results, series, "chance", CHANCE)
    guide = [((0.0, 0.0), (1.0, 1.0))]
    words = ("1 \u2212 specificity (false-positive rate)", "sensitivity (true-positive rate)")
    key = f"roc-{results.place}"
    return _chart((key, title), series, entries, guides=guide, dash=CHANCE, words=words)


def precision_recall_chart(results: TaskResults) -> str:
    """The precision-recall curves of a task's classes; of two classes the second's."""
    series = class_curves(results, precision_recall_curve, "average_precision")
    title = f"Precision-recall curves: {results.task.name}"
    if not any(one.curves for one in series):
        return nothing(f"pr-{results.place}", title, _why_none(results))
    entries = [_entry(one, "AP", results, len(series)) for one in series if one.curves]
    entries += _common(results, series, "prevalence (chance)", PREVALENCE)
    guide = [
        ((0.0, one.prevalence), (1.0, one.prevalence))
        for one in series
        if one.prevalence is not None
    ]
    words = ("recall (sensitivity)", "precision (positive predictive value)")
    key = f"pr-{results.place}"
    return _chart((key, title), series, entries, guides=guide, dash=PREVALENCE, words=words)


def class_curves(results: TaskResults, make: Maker, metric: str) -> list[ClassCurves]:
    """Each class's curves, of every fold that has the class and another one.

    Args:
        results: of the task.
        make: `roc_curve` or `precision_recall_curve`.
        metric: its area's name among the measurements.
    """
    num_classes = results.task.num_classes
    found = []
    for index in range(num_classes) if num_classes > 2 else (1,):
        name = results.task.classes[index]
        curves = [_curve(results.of_fold(fold), index, make) for fold in results.folds]
        there = tuple(curve for curve in curves if curve is not None)
        measured = results.overall(metric if num_classes == 2 else f"{metric}_of_{name}")
        positive_N = results.rows.labels_N == index
        found.append(
            ClassCurves(
                name=name,
                curves=there,
                look=look_of(index if num_classes > 2 else 0),
                # Of several classes it would lie over all the others.
                ensemble=_curve(results.ensemble, index, make) if num_classes == 2 else None,
                area=float(np.mean([curve.area for curve in there])) if there else None,
                measured=measured if measured and measured.value is not None else None,
                prevalence=float(positive_N.mean()) if len(positive_N) else None,
            )
        )
    return found


def _curve(rows: PredictionArrays, index: int, make: Maker) -> Curve | None:
    return make(rows.labels_N == index, rows.probabilities_NC[:, index])


def _entry(one: ClassCurves, area: str, results: TaskResults, num_series: int) -> Entry:
    """A class in the legend: its area, over how many folds, and its interval."""
    assert one.area is not None
    value = f"{area} {rate_text(one.area)}"
    text = f"{class_name(one.name)}: {value}" if num_series > 1 else value
    folds = len(one.curves)
    note = f"mean of {folds} folds" if folds > 1 else "one fold"
    left = len(results.folds) - folds
    note += f", undefined in {left}" if left else ""
    if one.measured is not None and one.measured.low is not None:
        interval = with_interval(one.measured).partition(" ")[2]
        note = f"{'95 % interval ' if num_series == 1 else ''}{interval}, {note}"
    return Entry(text, one.look.stroke, one.look.dash, note=note)


def _common(
    results: TaskResults, series: Sequence[ClassCurves], guide: str, dash: str
) -> list[Entry]:
    entries = []
    if any(len(one.curves) > 1 for one in series):
        entries.append(Entry("each fold", series[0].look.stroke, width=THIN))
    for one in series:
        if one.ensemble is not None:
            words = f"ensemble of the folds: {rate_text(one.ensemble.area)}"
            entries.append(Entry(words, INK, ENSEMBLE_DASH, 2.0))
    return [*entries, Entry(guide, QUIET, dash, 1.2)]


def _chart(
    name: tuple[str, str],
    series: Sequence[ClassCurves],
    entries: Sequence[Entry],
    *,
    guides: Sequence[tuple[tuple[float, float], tuple[float, float]]],
    dash: str,
    words: tuple[str, str],
) -> str:
    """Both kinds of curves: a square with a legend below it."""
    key, title = name
    square = LEFT + SQUARE_PX + RIGHT
    floor = TOP + SQUARE_PX + BOTTOM
    frame = Frame(square, floor, SHARES, SHARES, LEFT, RIGHT, TOP, BOTTOM)
    drawn = frame.axes(*words, x_ticks=SHARES.ticks())
    for start, end in guides:
        places = [(frame.at_x(x), frame.at_y(y)) for x, y in (start, end)]
        drawn += line(places, stroke=QUIET, stroke_width=1.2, stroke_dasharray=dash)
    for one in series:
        thin = {"stroke": one.look.stroke, "stroke_width": THIN, "stroke_opacity": "0.5"}
        if len(one.curves) > 1:
            drawn += "".join(_drawn(frame, curve, **thin) for curve in one.curves)
    for one in series:
        if one.curves:
            mean = mean_curve(one.curves) if len(one.curves) > 1 else one.curves[0]
            drawn += _drawn(frame, mean, stroke=one.look.stroke, stroke_width=THICK,
                            stroke_dasharray=one.look.dash)  # fmt: skip
        if one.ensemble is not None:
            drawn += _drawn(frame, one.ensemble, stroke=INK, stroke_width=2.0,
                            stroke_dasharray=ENSEMBLE_DASH)  # fmt: skip
    drawn += element("g", legend(entries, LEFT, floor + 4))
    size = (square, floor + 8 + legend_height(entries))
    about = "; ".join(f"{entry.text} ({entry.note})" for entry in entries if entry.note)
    return svg(key, size, title=title, about=about, body=drawn)


def _drawn(frame: Frame, curve: Curve, **attributes: object) -> str:
    points = [(frame.at_x(x), frame.at_y(y)) for x, y in zip(curve.x_P, curve.y_P, strict=True)]
    return line(thinned(points), stroke_linejoin="round", **attributes)


def _why_none(results: TaskResults) -> str:
    if not len(results.rows):
        return f"No {results.bag} of the {results.split} part has a label for this task."
    return (
        f"Not defined: no fold's {results.split} part has labels of two classes."
        if len(results.folds) > 1
        else f"Not defined: the {results.split} part has labels of one class alone."
    )

"""Metrics, intervals and classes in words, the same in tables and drawings."""

from crane_ray.evaluation.measurements import Measurement
from crane_ray.pages.drawing import shortened

METRICS = {
    "auc": "AUC (area under the ROC curve)",
    "auc_micro": "AUC, micro-averaged",
    "average_precision": "average precision",
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "f1": "F1",
    "f1_macro": "macro F1",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "kappa": "kappa, quadratically weighted",
    "ece": "expected calibration error (ECE)",
    "brier": "Brier score",
    "log_loss": "log loss",
}
"""Metrics by their name in metrics.csv."""

MACRO = {
    "auc": "AUC, macro one-vs-rest",
    "average_precision": "average precision, macro one-vs-rest",
    "balanced_accuracy": "balanced accuracy (mean sensitivity)",
}
"""The same where a task has more than two classes."""

DASH = "\u2013"
MINUS = "\u2212"


def metric_name(metric: str, *, classes: tuple[str, ...]) -> str:
    """A metric in words, with the class that it is of."""
    many = len(classes) > 2
    stem, of, name = metric.partition("_of_")
    if of:
        return f"{METRICS.get(stem, stem).partition(' (')[0]} of {name}"
    stem, calibrated, _ = metric.partition("_calibrated")
    if calibrated:
        return f"{metric_name(stem, classes=classes)} after temperature scaling"
    stem, at, where = metric.partition("_at_")
    if at:
        place = {"youden": "the val part's Youden threshold", "given": "the threshold given"}
        return f"{METRICS.get(stem, stem)} at {place.get(where, where)}"
    if many and metric in MACRO:
        return MACRO[metric]
    own = {"auc", "average_precision", "f1", "sensitivity", "specificity"}
    words = METRICS.get(metric, metric.replace("_", " "))
    if not many and metric in own and metric != "auc":
        words += f" of {classes[1]}"
    return words


def rate_text(value: float) -> str:
    """Three decimals, with a proper minus and no negative zero."""
    text = f"{value:.3f}"
    return "0.000" if text == "-0.000" else text.replace("-", MINUS)


def with_interval(row: Measurement | None) -> str:
    """``0.912 [0.853, 0.961]``; a dash where it is undefined."""
    if row is None or row.value is None:
        return DASH
    if row.low is None or row.high is None:
        return rate_text(row.value)
    return f"{rate_text(row.value)} [{rate_text(row.low)}, {rate_text(row.high)}]"


def class_name(name: str, width: float = 200) -> str:
    """A class where there is little room."""
    return shortened(name, width)


def percent(share: float) -> str:
    """A share as a whole per cent; what is neither none nor all never reads so."""
    if 0 < share < 0.005:
        return "<1 %"
    if 0.995 < share < 1:
        return ">99 %"
    return f"{share:.0%}".replace("%", " %")

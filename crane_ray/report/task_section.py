"""All that a report says of one task."""

from crane_ray.pages.document import wide
from crane_ray.pages.drawing import element, escaped
from crane_ray.report.calibration_chart import calibration_chart
from crane_ray.report.confusion_chart import confusion_chart
from crane_ray.report.curve_charts import precision_recall_chart, roc_chart
from crane_ray.report.distribution_chart import distribution_chart
from crane_ray.report.forest_chart import forest_chart, groups_left_out
from crane_ray.report.mistakes_section import Pictures, mistakes_section
from crane_ray.report.notes import CURVES_NOTE, calibration_note, decisions_note, forest_note
from crane_ray.report.results import TaskResults
from crane_ray.report.tables import calibration_table, folds_table, groups_table, metrics_table
from crane_ray.report.wording import METRICS

TASK_PARTS = {
    "curves": "Discrimination",
    "decisions": "Decisions and probabilities",
    "calibration": "Calibration",
    "folds": "Folds and subgroups",
    "metrics": "All metrics",
    "errors": "Most confident errors",
}
"""The parts by their key, in order."""


def task_section(found: TaskResults, pictures: Pictures, why_none: str) -> str:
    """Curves, decisions, calibration, folds and subgroups, metrics and errors.

    Args:
        found: the results of the task.
        pictures: of errors.
        why_none: in words, why there are none of any.
    """
    contents = {
        "curves": (CURVES_NOTE, _side_by_side(roc_chart(found), precision_recall_chart(found))),
        "decisions": (
            decisions_note(found),
            _side_by_side(confusion_chart(found), distribution_chart(found)),
        ),
        "calibration": (
            calibration_note(found),
            _side_by_side(calibration_chart(found), element("div", calibration_table(found))),
        ),
        "folds": (forest_note(found), _folds(found)),
        "metrics": ("", _metrics(found)),
        "errors": ("", mistakes_section(found, pictures, why_none)),
    }
    parts = []
    for key, name in TASK_PARTS.items():
        note, content = contents[key]
        said = element("p", escaped(note), class_="note") if note else ""
        heading = element("h3", escaped(name))
        whole = "whole" if key in ("curves", "decisions", "calibration") else None
        name_of = f"task-{found.place}-{key}"
        parts.append(element("section", heading, said, content, id=name_of, class_=whole))
    return "".join(parts)


def _side_by_side(*charts: str) -> str:
    return element("div", *charts, class_="charts")


def _folds(found: TaskResults) -> str:
    """Forest plots of the AUC, and where most subgroups have none, of the accuracy; tables."""
    content = forest_chart(found, "auc", METRICS["auc"])
    without, _ = groups_left_out(found, "auc")
    if 2 * without >= len(found.groups) > 0:
        content += forest_chart(found, "accuracy", METRICS["accuracy"])
    if not found.folds:
        return content
    content += wide("Folds", folds_table(found))
    return content + (wide("Subgroups", groups_table(found)) if found.groups else "")


def _metrics(found: TaskResults) -> str:
    if not found.metrics:
        return element("p", "This run has no metrics.json.", class_="note")
    return wide("All metrics", metrics_table(found))

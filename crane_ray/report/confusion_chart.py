"""Confusion matrices: how often each class was taken for each, as counts and shares of rows."""

import numpy as np
import numpy.typing as npt

from crane_ray.evaluation.predictions import PredictionArrays
from crane_ray.pages.drawing import INK, SOFT, element, label, nothing, shortened, svg, tip
from crane_ray.report.results import TaskResults
from crane_ray.report.wording import percent

LEFT, TOP, WIDTH = 118, 58, 412
"""Room for names of the true and of the predicted classes, and the drawing's width, px."""
MOST_PX, LEAST_PX = 96, 34
"""Sides of a cell."""
DARK = (31, 95, 122)
"""RGB of a cell with all of its row."""


def confusion(rows: PredictionArrays) -> npt.NDArray[np.int64]:
    """(C, C) counts: rows are true classes, columns the most probable ones, of ties the first."""
    num = rows.probabilities_NC.shape[1]
    predicted_N = rows.probabilities_NC.argmax(axis=1)
    flat = np.bincount(rows.labels_N * num + predicted_N, minlength=num * num)
    return flat.reshape(num, num)


def confusion_chart(results: TaskResults) -> str:
    """The matrix of all folds' decisions together; darker cells have more of their row."""
    key, title = f"confusion-{results.place}", f"Confusion matrix: {results.task.name}"
    if not len(results.rows):
        why = f"No {results.bag} of the {results.split} part has a label for this task."
        return nothing(key, title, why)
    counts, classes = confusion(results.rows), results.task.classes
    side = max(LEAST_PX, min(MOST_PX, (WIDTH - LEFT) / len(classes)))
    width = max(WIDTH, LEFT + side * len(classes)) + 8
    height = TOP + side * len(classes) + 8
    drawn = label(LEFT, 14, "predicted class", font_weight=600)
    drawn += label(LEFT - 10, TOP - 14, "true class", font_weight=600, text_anchor="end")
    for place, name in enumerate(classes):
        middle = LEFT + side * (place + 0.5)
        drawn += label(middle, TOP - 14, shortened(name, side - 4), text_anchor="middle")
        y = TOP + side * (place + 0.5)
        drawn += label(LEFT - 10, y + 1, shortened(name, LEFT - 16), text_anchor="end")
        total = f"n = {counts[place].sum()}"
        drawn += label(LEFT - 10, y + 16, total, font_size=11, fill=SOFT, text_anchor="end")
    for true in range(len(classes)):
        for predicted in range(len(classes)):
            at = (LEFT + side * predicted, TOP + side * true)
            drawn += _cell(counts, (true, predicted), at, side, classes)
    return svg(key, (width, height), title=title, about=_about(counts, classes), body=drawn)


def _cell(
    counts: npt.NDArray[np.int64],
    which: tuple[int, int],
    at: tuple[float, float],
    side: float,
    classes: tuple[str, ...],
) -> str:
    true, predicted = which
    count, of = int(counts[which]), int(counts[true].sum())
    share = count / of if of else 0.0
    mixed = (round(255 + (part - 255) * share * 0.92) for part in DARK)
    fill = "#" + "".join(f"{part:02x}" for part in mixed)
    ink, soft = ("#fff", "#fff") if share > 0.5 else (INK, INK if share > 0.15 else SOFT)
    x, y = at[0] + side / 2, at[1] + side / 2
    right = true == predicted
    size = 17 if side > 50 else 12
    told = f"{classes[true]} predicted as {classes[predicted]}: {count} of {of}"
    return element(
        "g",
        tip(told),
        element("rect", x=float(at[0] + 1), y=float(at[1] + 1), width=float(side - 2),
                height=float(side - 2), fill=fill, stroke=INK if right else "#c9ced6",
                stroke_width=1.4 if right else 0.8),
        label(x, y + (0 if of else 5), str(count) if of else "\u2013", font_size=size,
              fill=ink, text_anchor="middle", font_weight=600 if right else None),
        label(x, y + 16, percent(share), font_size=11 if side > 50 else 9, fill=soft,
              text_anchor="middle") if of else "",
    )  # fmt: skip


def _about(counts: npt.NDArray[np.int64], classes: tuple[str, ...]) -> str:
    return "; ".join(
        f"of {counts[true].sum()} {classes[true]}, "
        + ", ".join(f"{counts[true, other]} as {name}" for other, name in enumerate(classes))
        for true in range(len(classes))
    )

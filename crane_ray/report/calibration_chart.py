"""Whether confidence means what it says: the reliability diagram, before and after scaling."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from crane_ray.evaluation.calibration import (
    ReliabilityBin,
    calibrated_probabilities,
    reliability_table,
)
from crane_ray.pages.drawing import SOFT, Frame, element, label, line, nothing, svg, tip
from crane_ray.pages.scales import Scale
from crane_ray.report.looks import (
    GREY,
    QUIET,
    SQUARE_PX,
    Entry,
    Look,
    legend,
    legend_height,
    mark,
)
from crane_ray.report.results import TaskResults
from crane_ray.report.wording import rate_text, with_interval

LEFT, RIGHT, TOP, BOTTOM = 50, 18, 34, 50
BARS_PX = 64
"""Height of the counts below the diagram."""

BEFORE = Look("#1f5f7a", None, "circle")
AFTER = Look("#a34a12", "6 3", "square")


@dataclass(frozen=True)
class Reliability:
    """The bins of all folds' rows together."""

    before: tuple[ReliabilityBin, ...]
    after: tuple[ReliabilityBin, ...] | None
    """With each fold's probabilities after its own temperature; None where a fold has none."""


def reliability(results: TaskResults) -> Reliability:
    """The reliability tables of a task, the rows of all folds in one."""
    rows = results.rows
    before = reliability_table(rows.labels_N, rows.probabilities_NC)
    if not results.folds or set(results.folds) - set(results.temperatures):
        return Reliability(before, None)
    parts = [results.of_fold(fold) for fold in results.folds]
    scaled = [
        calibrated_probabilities(part.logits_NC, results.temperatures[fold])
        for fold, part in zip(results.folds, parts, strict=True)
    ]
    labels_N = np.concatenate([part.labels_N for part in parts])
    return Reliability(before, reliability_table(labels_N, np.concatenate(scaled)))


def calibration_chart(results: TaskResults) -> str:
    """Accuracy by confidence, and how many predictions each bin has."""
    key, title = f"calibration-{results.place}", f"Calibration: {results.task.name}"
    if not len(results.rows):
        why = f"No {results.bag} of the {results.split} part has a label for this task."
        return nothing(key, title, why)
    found = reliability(results)
    tables = [(found.before, BEFORE)] + ([(found.after, AFTER)] if found.after else [])
    floor = TOP + SQUARE_PX + BOTTOM + BARS_PX
    width = LEFT + SQUARE_PX + RIGHT
    lowest = min(it.low for table, _ in tables for it in table if it.num_slides)
    x, y = Scale("linear", lowest, 1.0), Scale("linear", 0.0, 1.0)
    frame = Frame(width, floor, x, y, LEFT, RIGHT, TOP, BOTTOM + BARS_PX)
    drawn = frame.axes("", "accuracy", x_ticks=())
    diagonal = [(frame.at_x(at), frame.at_y(at)) for at in (lowest, 1.0)]
    drawn += line(diagonal, stroke=QUIET, stroke_width=1.2, stroke_dasharray="5 4")
    for table, look in tables:
        drawn += _reliability_line(frame, table, look)
    drawn += _counts(frame, tables)
    entries = _entries(results, calibrated=found.after is not None)
    drawn += legend(entries, LEFT, floor + 6)
    size = (width, floor + 10 + legend_height(entries))
    return svg(key, size, title=title, about=_about(found), body=drawn)


def _reliability_line(frame: Frame, table: Sequence[ReliabilityBin], look: Look) -> str:
    filled = [it for it in table if it.confidence is not None and it.accuracy is not None]
    points = [(frame.at_x(it.confidence or 0), frame.at_y(it.accuracy or 0)) for it in filled]
    drawn = line(points, stroke=look.stroke, stroke_width=1.2, stroke_dasharray=look.dash,
                 stroke_opacity="0.75")  # fmt: skip
    for it, (x, y) in zip(filled, points, strict=True):
        few = it.num_slides < 5
        shape = mark(
            look.mark, x, y, 4,
            fill="#fff" if few else look.stroke, stroke=look.stroke, stroke_width=1.6,
        )  # fmt: skip
        said = f"confidence {it.confidence:.3f}, accuracy {it.accuracy:.3f}, n = {it.num_slides}"
        drawn += element("g", tip(said), shape)
    return drawn


def _counts(frame: Frame, tables: Sequence[tuple[Sequence[ReliabilityBin], Look]]) -> str:
    """Bars of the bins' counts below the diagram, side by side, with the largest ones' numbers."""
    base, most = (
        frame.floor + 14 + BARS_PX,
        max(it.num_slides for table, _ in tables for it in table),
    )
    drawn = label(frame.left - 8, frame.floor + 27, "n", fill=SOFT, text_anchor="end")
    drawn += label(frame.left - 8, base, "0", fill=SOFT, text_anchor="end")
    for place, (table, look) in enumerate(tables):
        for it in table:
            if not it.num_slides:
                continue
            left, right = frame.at_x(it.low), frame.at_x(it.high)
            room = (right - left - 3) / len(tables)
            high = max(1.0, (BARS_PX - 16) * it.num_slides / most)
            x = left + 1.5 + place * room
            hollow = look is AFTER
            drawn += element(
                "g",
                tip(f"{it.low:.2f} to {it.high:.2f}: n = {it.num_slides}"),
                element("rect", x=float(x), y=float(base - high), width=float(max(room - 1, 1)),
                        height=float(high), fill="#fff" if hollow else look.stroke,
                        stroke=look.stroke, stroke_width=1),
                label(x + room / 2, base - high - 3, it.num_slides, fill=SOFT, font_size=9,
                      text_anchor="middle"),
            )  # fmt: skip
    drawn += line([(frame.left, base), (frame.wall, base)], stroke="#9aa1ab", stroke_width=1)
    for tick in frame.x.ticks():
        text = f"{tick:g}"
        drawn += label(frame.at_x(tick), base + 16, text, fill=SOFT, text_anchor="middle")
    middle = (frame.left + frame.wall) / 2
    words = "confidence (probability of the predicted class)"
    return drawn + label(middle, base + 33, words, fill=SOFT, text_anchor="middle")


def _entries(results: TaskResults, *, calibrated: bool) -> list[Entry]:
    entries = [
        Entry("as predicted", BEFORE.stroke, BEFORE.dash, 1.8, BEFORE.mark,
              note=_scores(results, "")),
    ]  # fmt: skip
    if calibrated:
        values = sorted(results.temperatures.values())
        low, high = f"{values[0]:.3g}", f"{values[-1]:.3g}"
        span = low if low == high else f"{low} to {high}"
        entries.append(
            Entry(f"after temperature scaling, T {span}", AFTER.stroke,
                  AFTER.dash, 1.8, AFTER.mark, note=_scores(results, "_calibrated"))
        )  # fmt: skip
    else:
        entries.append(Entry("no temperature: a fold has no labelled val part", GREY, width=0))
    entries.append(Entry("perfectly calibrated", QUIET, "5 4", 1.2))
    entries.append(Entry("bin of fewer than 5", "#59606b", None, 0, "circle", hollow=True))
    return entries


def _scores(results: TaskResults, suffix: str) -> str:
    found = []
    for name, metric in (("ECE", "ece"), ("Brier", "brier")):
        row = results.overall(metric + suffix)
        if row is not None and row.value is not None:
            found.append(f"{name} {with_interval(row)}")
    return ", ".join(found)


def _about(found: Reliability) -> str:
    def told(table: Sequence[ReliabilityBin]) -> str:
        return ", ".join(
            f"{rate_text(it.confidence)} to {rate_text(it.accuracy)} (n = {it.num_slides})"
            for it in table
            if it.confidence is not None and it.accuracy is not None
        )

    words = f"Confidence to accuracy: {told(found.before)}"
    return words + (f"; after temperature scaling: {told(found.after)}" if found.after else "")

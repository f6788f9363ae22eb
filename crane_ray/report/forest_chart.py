"""Forest plots: one metric of all, of each fold and of each subgroup, with its interval."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from crane_ray.evaluation.measurements import Measurement
from crane_ray.evaluation.measuring import SMALL_GROUP
from crane_ray.pages.drawing import INK, SOFT, element, label, line, nothing, shortened, svg, tip
from crane_ray.pages.scales import Scale
from crane_ray.report.looks import QUIET, mark
from crane_ray.report.results import TaskResults
from crane_ray.report.wording import with_interval

WIDTH, NAMES, COUNTS, VALUES = 860, 210, 104, 176
"""Of the whole, and of the columns for names, counts and numbers, px."""
TOP, ROW_PX, BOTTOM = 34, 25, 40
MOST_GROUPS = 30
"""Rows of subgroups that are drawn, those with the most cases; the table has the others."""
DOT = "#1f5f7a"


@dataclass(frozen=True)
class Row:
    """A line of the plot."""

    name: str
    measured: Measurement | None
    kind: str = "group"
    """``all``, ``fold`` or ``group``."""


def forest_rows(results: TaskResults, metric: str) -> list[Row]:
    """All, the folds if there are several, and the largest subgroups that have the metric."""
    rows = [Row(f"all, {results.averaged}", results.overall(metric), "all")]
    if len(results.folds) > 1:
        rows += [Row(f"fold {fold}", results.at(metric, fold), "fold") for fold in results.folds]
    ensemble = results.at(metric, "ensemble")
    if ensemble is not None:
        rows.append(Row("ensemble of the folds", ensemble, "all"))
    return rows + [Row(group, row) for group, row in _shown_groups(results, metric).items()]


def groups_left_out(results: TaskResults, metric: str) -> tuple[int, int]:
    """Subgroups that the plot leaves out: those without the metric, and those that are too many."""
    defined = _defined_groups(results, metric)
    return len(results.groups) - len(defined), max(0, len(defined) - MOST_GROUPS)


def _defined_groups(results: TaskResults, metric: str) -> dict[str, Measurement]:
    found = {group: results.overall(metric, group) for group in results.groups}
    return {group: row for group, row in found.items() if row and row.value is not None}


def _shown_groups(results: TaskResults, metric: str) -> dict[str, Measurement]:
    defined = _defined_groups(results, metric)
    largest = sorted(defined, key=lambda group: -defined[group].num_cases)[:MOST_GROUPS]
    return {group: row for group, row in defined.items() if group in largest}


def forest_chart(results: TaskResults, metric: str, name: str) -> str:
    """The plot of one metric, an axis for all its rows."""
    key = f"forest-{metric}-{results.place}"
    title = f"{name} by fold and subgroup: {results.task.name}"
    rows = forest_rows(results, metric)
    held = [row.measured for row in rows if row.measured and row.measured.value is not None]
    if not held:
        return nothing(key, title, f"{name} is not defined for any fold or subgroup.")
    x = _scale(held)
    floor = TOP + ROW_PX * len(rows)
    left, right = NAMES + COUNTS, WIDTH - VALUES

    def at(value: float) -> float:
        return left + (x.place(value) or 0.0) * (right - left)

    drawn = label(left - 14, 16, "slides / cases", fill=SOFT, font_size=11, text_anchor="end")
    heading = f"{name.partition(' (')[0]} [95 % interval]"
    drawn += label(WIDTH - 4, 16, heading, fill=SOFT, font_size=11, text_anchor="end")
    drawn += _uprights(rows[0].measured, at, floor, chance=metric == "auc" and x.low <= 0.5)
    for place, row in enumerate(rows):
        drawn += _row(row, TOP + ROW_PX * (place + 0.5), at)
    drawn += line([(left, floor), (right, floor)], stroke="#9aa1ab", stroke_width=1)
    for tick in x.ticks():
        drawn += label(at(tick), floor + 17, f"{tick:g}", fill=SOFT, text_anchor="middle")
    drawn += label((left + right) / 2, floor + 34, name, fill=SOFT, text_anchor="middle")
    about = "; ".join(f"{row.name}: {with_interval(row.measured)}" for row in rows)
    return svg(key, (WIDTH, floor + BOTTOM), title=title, about=about, body=drawn)


def _uprights(
    overall: Measurement | None, at: Callable[[float], float], floor: float, *, chance: bool
) -> str:
    """Lines through all rows: at the value of all, and at what chance gives."""
    drawn = ""
    if overall is not None and overall.value is not None:
        place = at(overall.value)
        drawn += line([(place, TOP - 6), (place, floor)], stroke=QUIET, stroke_width=1,
                      stroke_dasharray="3 3")  # fmt: skip
    if chance:
        drawn += line([(at(0.5), TOP - 6), (at(0.5), floor)], stroke=QUIET, stroke_width=1.2)
        drawn += label(at(0.5), TOP - 10, "chance", fill=SOFT, font_size=11, text_anchor="middle")
    return drawn


def _row(row: Row, y: float, at: Callable[[float], float]) -> str:
    found = row.measured
    bold = 600 if row.kind == "all" else None
    drawn = label(0, y + 4, shortened(row.name, NAMES - 8, 13), font_size=13, font_weight=bold)
    left, right = NAMES + COUNTS, WIDTH - VALUES
    if found is None or found.value is None:
        why = found.note if found is not None and found.note else "not measured"
        drawn += label(left, y + 4, f"undefined: {shortened(why, right - left + 100)}",
                       fill=SOFT, font_size=12, font_style="italic")  # fmt: skip
        return drawn
    slides = "" if found.num_slides is None else f"{found.num_slides} / "
    drawn += label(left - 14, y + 4, f"{slides}{found.num_cases}", fill=SOFT, text_anchor="end")
    small = row.kind == "group" and found.num_cases < SMALL_GROUP
    if found.low is not None and found.high is not None:
        ends = [(at(found.low), y), (at(found.high), y)]
        drawn += line(ends, stroke=DOT, stroke_width=1.6)
        for end, _ in ends:
            drawn += line([(end, y - 4), (end, y + 4)], stroke=DOT, stroke_width=1.6)
    shape = {"all": "diamond", "fold": "circle", "group": "square"}[row.kind]
    size = 5.6 if row.kind == "all" else 4.2
    drawn += mark(shape, at(found.value), y, size, fill="#fff" if small else DOT,
                  stroke=DOT, stroke_width=1.6)  # fmt: skip
    drawn += label(WIDTH - 4, y + 4, with_interval(found), text_anchor="end", fill=INK,
                   font_weight=bold)  # fmt: skip
    told = f"{row.name}: {with_interval(found)}" + (f"; {found.note}" if found.note else "")
    return element("g", tip(told), drawn)


def _scale(held: Sequence[Measurement]) -> Scale:
    ends = [end for row in held for end in (row.low, row.value, row.high) if end is not None]
    low, high = min(ends), max(ends)
    room = max(0.04 * (high - low), (0.1 - (high - low)) / 2)
    # Metrics that are shares have no room beyond 0 and 1.
    bottom, top = max(low - room, min(0.0, low)), min(high + room, max(1.0, high))
    return Scale("linear", bottom, top)

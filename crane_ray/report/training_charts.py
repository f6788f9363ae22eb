"""How training went: losses and the val part's AUC by epoch, a line a fold."""

from collections.abc import Callable, Sequence

from crane_ray.mil.history import Epoch
from crane_ray.pages.drawing import INK, Frame, label, line, nothing, spread, svg
from crane_ray.pages.scales import Scale, infer_scale
from crane_ray.report.curves import thinned
from crane_ray.report.looks import QUIET, Entry, legend, look_of, mark
from crane_ray.report.results import FoldCourse, RunResults

SIZE = (540, 340)
TRAIN_DASH = "2 3"
NAMED = 16
"""Folds that are named at the ends of their lines; of more, only the first and last fit."""

NO_HISTORY = "Losses by epoch were not kept by this run, nor are its TensorBoard events there."


def loss_chart(run: RunResults) -> str:
    """The loss of the training part, dotted, and of the val part, with the chosen epoch."""
    title = "Loss by epoch"
    kept = [course for course in run.courses if course.history]
    if not kept:
        return nothing("loss", title, NO_HISTORY)
    train = {it.fold: _series(it, lambda epoch: epoch.train_loss) for it in kept}
    val = {it.fold: _series(it, lambda epoch: epoch.val_loss) for it in kept}
    values = [value for series in (*train.values(), *val.values()) for _, value in series]
    if not values:
        return nothing("loss", title, NO_HISTORY)
    frame = _frame(kept, values)
    drawn = frame.axes("epoch", "loss", x_ticks=_whole(frame.x))
    for place, course in enumerate(kept):
        look = look_of(place)
        drawn += _line(frame, train[course.fold], stroke=look.stroke, stroke_width=1.2,
                       stroke_dasharray=TRAIN_DASH, stroke_opacity="0.8")  # fmt: skip
        drawn += _line(frame, val[course.fold], stroke=look.stroke, stroke_width=1.8)
        drawn += _chosen(frame, course, val[course.fold] or train[course.fold], look.mark)
    ends = {it.fold: (val[it.fold] or train[it.fold])[-1] for it in kept
            if val[it.fold] or train[it.fold]}  # fmt: skip
    drawn += _named(frame, ends)
    entries = [
        Entry("val part", INK, width=1.8),
        Entry("training part", INK, TRAIN_DASH, 1.2),
        Entry("the epoch whose weights are kept", INK, None, 0, "circle", hollow=True),
    ]
    drawn += legend(entries, frame.left, SIZE[1] + 2)
    about = "; ".join(_told(course, val[course.fold] or train[course.fold]) for course in kept)
    return svg("loss course", (SIZE[0], SIZE[1] + 56), title=title, about=about, body=drawn)


def auc_charts(run: RunResults, most: int = 6) -> list[str]:
    """For each task, its AUC on the val part by epoch; of so many tasks at most."""
    kept = [course for course in run.courses if course.history]
    charts = []
    for place, task in enumerate(run.tasks[:most]):
        series = {it.fold: _auc_series(it, task.name) for it in kept}
        there = [it for it in kept if series[it.fold]]
        title = f"AUC of the val part: {task.name}"
        if not kept:
            continue
        if not there:
            why = f"{task.name}: no fold's val part has two classes."
            charts.append(nothing(f"val-auc-{place}", title, why))
            continue
        values = [value for one in series.values() for _, value in one]
        frame = _frame(there, [*values, 1.0])
        drawn = frame.axes("epoch", title, x_ticks=_whole(frame.x))
        if frame.y.low <= 0.5:
            y = frame.at_y(0.5)
            drawn += line([(frame.left, y), (frame.wall, y)], stroke=QUIET, stroke_width=1.2,
                          stroke_dasharray="5 4")  # fmt: skip
        for index, course in enumerate(there):
            look = look_of(kept.index(course))
            own = series[course.fold]
            drawn += _line(frame, own, stroke=look.stroke, stroke_width=1.6)
            drawn += _chosen(frame, course, own, look_of(index).mark)
        drawn += _named(frame, {it.fold: series[it.fold][-1] for it in there})
        about = "; ".join(_told(course, series[course.fold]) for course in there)
        charts.append(svg(f"val-auc-{place} course", SIZE, title=title, about=about, body=drawn))
    return charts


def _auc_series(course: FoldCourse, task: str) -> list[tuple[int, float]]:
    return _series(course, lambda epoch: epoch.val_auc.get(task))


def _series(course: FoldCourse, of: Callable[[Epoch], float | None]) -> list[tuple[int, float]]:
    """Epochs, counted from 1 as people do, and their values."""
    found = [(epoch.epoch + 1, of(epoch)) for epoch in course.history]
    return [(epoch, value) for epoch, value in found if value is not None]


def _frame(kept: Sequence[FoldCourse], values: Sequence[float]) -> Frame:
    last = max(course.history[-1].epoch + 1 for course in kept)
    x = Scale("linear", 1, max(last, 2))
    y = infer_scale(values)
    low, high = y.low, y.high
    room = 0.05 * (high - low) or 0.05
    return Frame(*SIZE, x, Scale("linear", low - room if low > 0 else low, high + room), right=70)


def _whole(scale: Scale) -> list[float]:
    """Ticks at whole epochs, the first among them."""
    return [1, *(tick for tick in scale.ticks() if tick == int(tick) and tick > 1)]


def _line(frame: Frame, series: Sequence[tuple[int, float]], **attributes: object) -> str:
    if len(series) == 1:
        epoch, value = series[0]
        stroke = attributes["stroke"]
        return mark("circle", frame.at_x(epoch), frame.at_y(value), 2, fill=stroke)
    points = [(frame.at_x(epoch), frame.at_y(value)) for epoch, value in series]
    return line(thinned(points), stroke_linejoin="round", **attributes)


def _chosen(
    frame: Frame, course: FoldCourse, series: Sequence[tuple[int, float]], shape: str
) -> str:
    best = int(course.outcome.get("best_epoch", -1)) + 1
    at = [(epoch, value) for epoch, value in series if epoch == best]
    if not at:
        return ""
    x, y = frame.at_x(at[0][0]), frame.at_y(at[0][1])
    return mark("circle", x, y, 4.6, fill="#fff", stroke=INK, stroke_width=1.8)


def _named(frame: Frame, ends: dict[int, tuple[int, float]]) -> str:
    """The folds' numbers beside the ends of their lines, no two over each other."""
    folds = list(ends)
    if len(folds) > NAMED:
        folds = [folds[0], folds[-1]]
    places = [frame.at_y(ends[fold][1]) for fold in folds]
    drawn = ""
    for fold, y in zip(folds, spread(places, 14, frame.top, frame.floor), strict=True):
        epoch, value = ends[fold]
        thread = [(frame.at_x(epoch) + 3, frame.at_y(value)), (frame.wall + 14, y)]
        drawn += line(thread, stroke="#aab0b8", stroke_width=0.8)
        drawn += label(frame.wall + 17, y + 4, f"fold {fold}")
    return drawn


def _told(course: FoldCourse, series: Sequence[tuple[int, float]]) -> str:
    if not series:
        return f"fold {course.fold}: none"
    best = int(course.outcome.get("best_epoch", -1)) + 1
    kept = f", epoch {best} kept" if best > 0 else ""
    return (
        f"fold {course.fold}: {series[0][1]:.3f} to {series[-1][1]:.3f} in "
        f"{series[-1][0]} epochs{kept}"
    )

"""How a search went: its history, its best trials' learning, and what mattered, as SVG text."""

import math
from collections.abc import Sequence

from crane_ray.pages.drawing import (
    INK,
    SOFT,
    Frame,
    element,
    label,
    line,
    nothing,
    shortened,
    spread,
    svg,
    tip,
)
from crane_ray.pages.scales import Scale, colour, infer_scale
from crane_ray.search.importance import Importance
from crane_ray.search.leaderboard import Leaderboard, Trial
from crane_ray.search.wording import objective_text, short_names

SIZE = (560, 330)
"""Of the charts that lie side by side, px."""

DOT = colour(0.8)
BAR = colour(0.6)
FAILED = "#8f2d1f"
DASHES = "6 4"
CROWD = 100
"""From so many trials on, dots are small."""


def history_chart(leaderboard: Leaderboard) -> str:
    """Objective by order of start, with the best so far and the default config.

    Done is a full dot, stopped an empty one; a trial without a score lies below the axis, failed
    as a cross, otherwise as a dash.
    """
    title = "History: " + leaderboard.metric
    scored = sorted(leaderboard.scored, key=lambda trial: trial.number)
    if not leaderboard.trials:
        return nothing("history", title, "The search has no trial yet.")
    values = [_score(trial) for trial in scored]
    last = max(trial.number for trial in leaderboard.trials)
    frame = Frame(*SIZE, Scale("linear", -0.5, last + 0.5), infer_scale(values).padded(), bottom=66)
    lowest = frame.floor + 16
    ticks = [tick for tick in Scale("linear", 0, max(last, 1)).ticks() if tick == int(tick)]
    drawn = frame.axes("trial, in order of start", _words(leaderboard), x_ticks=ticks, below=22)
    drawn += _lines_of_history(leaderboard, scored, frame)
    for trial in leaderboard.trials:
        x = frame.at_x(trial.number)
        y = lowest if trial.score is None else frame.at_y(trial.score)
        best = trial is leaderboard.best
        drawn += _mark(trial, x, y, best=best, size=4.2 if last < CROWD else 3.0)
    if len(scored) < len(leaderboard.trials):
        drawn += label(frame.left - 8, lowest + 4, "no value", fill=SOFT, text_anchor="end")
    return svg("history", SIZE, title=title, about=_story(leaderboard), body=drawn)


def learning_chart(leaderboard: Leaderboard, most: int = 10) -> str:
    """Objective by epoch of the best trials and of the default config."""
    title = f"Learning curves: {leaderboard.metric}"
    chosen = [trial for trial in leaderboard.scored if _curve(trial)][:most]
    default = leaderboard.baseline_trial
    if default is not None and default not in chosen and _curve(default):
        chosen.append(default)
    if not chosen:
        return nothing("learning", title, "No trial with a value reported its epochs.")
    curves = [_curve(trial) for trial in chosen]
    values = [value for curve in curves for _, value in curve]
    epochs = infer_scale([epoch for curve in curves for epoch, _ in curve])
    x = Scale("linear", epochs.low, max(epochs.high, epochs.low + 1))
    frame = Frame(*SIZE, x, infer_scale(values).padded())
    ticks = [tick for tick in x.ticks() if tick == int(tick)]
    drawn = frame.axes("epoch", _words(leaderboard), x_ticks=ticks)
    shares = _shares(leaderboard)
    # The best last, so that it lies over the others.
    for trial, curve in reversed(list(zip(chosen, curves, strict=True))):
        drawn += _learning_line(leaderboard, trial, curve, frame, shares[trial.trial_id])
    drawn += _names_at_ends(leaderboard, chosen, [curve[-1] for curve in curves], frame)
    about = "; ".join(
        f"trial {trial.number} from {objective_text(curve[0][1])} to "
        f"{objective_text(curve[-1][1])} in {len(curve)} epochs"
        for trial, curve in zip(chosen, curves, strict=True)
    )
    return svg("learning", SIZE, title=title, about=about, body=drawn)


def importance_chart(importance: Importance) -> str:
    """A bar a param; how it was found and from how many trials is for the page to say."""
    title = "Importance of the params"
    if importance.shares is None:
        return nothing("importance", title, f"Not measured: {importance.reason}.")
    names = short_names(tuple(importance.shares))
    step, left, width = 30, 170, 560
    room = width - left - 60
    most = max(importance.shares.values()) or 1.0
    drawn = line([(left, 4), (left, 8 + step * len(names))], stroke=SOFT, stroke_width=1)
    for place, (path, share) in enumerate(importance.shares.items()):
        y, long = 8 + step * place, room * share / most
        bar = element("rect", x=left, y=y + 5, width=float(long), height=step - 12, fill=BAR)
        name = shortened(names[path], left - 14, 13)
        drawn += element(
            "g",
            tip(f"{path}: {share:.1%}; {importance.ranges.get(path, '')}"),
            label(left - 10, y + 18, name, text_anchor="end", font_size=13),
            bar,
            label(left + long + 8, y + 18, f"{share:.0%}", font_size=13),
        )
    about = "; ".join(f"{path} {share:.0%}" for path, share in importance.shares.items())
    return svg("importance", (width, 14 + step * len(names)), title=title, about=about, body=drawn)


def _lines_of_history(leaderboard: Leaderboard, scored: Sequence[Trial], frame: Frame) -> str:
    default, best = leaderboard.baseline_trial, leaderboard.best
    if best is None:
        return ""
    better = max if leaderboard.mode == "max" else min
    steps, reached = [], _score(scored[0])
    for trial in scored:
        x, before = frame.at_x(trial.number), reached
        reached = better(reached, _score(trial))
        steps += [(x, frame.at_y(before)), (x, frame.at_y(reached))]
    steps.append((frame.wall, frame.at_y(reached)))
    drawn = line(steps, stroke=INK, stroke_width=1.8, stroke_linejoin="round")
    named = {"best": best}
    if default is not None and default.score is not None:
        y = frame.at_y(default.score)
        drawn += line([(frame.left, y), (frame.wall, y)], stroke=SOFT, stroke_width=1.5,
                      stroke_dasharray=DASHES)  # fmt: skip
        named["default"] = default
    places = [frame.at_y(_score(trial)) for trial in named.values()]
    rows = spread(places, 32, frame.top, frame.floor - 14)
    for (name, trial), y in zip(named.items(), rows, strict=True):
        x = frame.wall + 8
        drawn += label(x, y + 2, f"{name} {objective_text(_score(trial))}", font_weight=600)
        drawn += label(x, y + 16, f"trial {trial.number}", fill=SOFT, font_size=11)
    return drawn


def _mark(trial: Trial, x: float, y: float, *, best: bool, size: float) -> str:
    shape = {"stroke": DOT, "stroke_width": 1.8}
    if trial.score is None and trial.status == "failed":
        cross = f"M{x - 4:.1f},{y - 4:.1f}l8,8m0,-8l-8,8"
        drawn = element("path", d=cross, fill="none", **{**shape, "stroke": FAILED})
    elif trial.score is None:
        drawn = line([(x - 5, y), (x + 5, y)], stroke=SOFT, stroke_width=2)
    else:
        fill = "#fff" if trial.status == "stopped" else DOT
        drawn = element("circle", cx=float(x), cy=float(y), r=size, fill=fill, **shape)
        if best:
            drawn += element("circle", cx=float(x), cy=float(y), r=8.0, fill="none", stroke=INK)
    # A wider target than the mark for a pointer to find.
    reach = element("circle", cx=float(x), cy=float(y), r=9.0, fill="transparent")
    return element("g", tip(_says(trial)), drawn, reach, class_="mark", data_trial=trial.number)


def _learning_line(
    leaderboard: Leaderboard,
    trial: Trial,
    curve: Sequence[tuple[int, float]],
    frame: Frame,
    share: float,
) -> str:
    points = [(frame.at_x(epoch), frame.at_y(value)) for epoch, value in curve]
    best, default = trial is leaderboard.best, trial.trial_id == leaderboard.baseline
    stroke = SOFT if trial.score is None else colour(share)
    end_x, end_y = points[-1]
    fill = "#fff" if trial.status == "stopped" else stroke
    return element(
        "g",
        tip(_says(trial)),
        line(points, stroke=stroke, stroke_width=3.2 if best else 1.6, stroke_linejoin="round",
             stroke_dasharray=DASHES if default else None, class_="curve"),
        element("circle", cx=float(end_x), cy=float(end_y), r=3.4, fill=fill, stroke=stroke,
                stroke_width=1.6),
        class_="mark",
        data_trial=trial.number,
    )  # fmt: skip


def _names_at_ends(
    leaderboard: Leaderboard,
    chosen: Sequence[Trial],
    ends: Sequence[tuple[int, float]],
    frame: Frame,
) -> str:
    """The trials' numbers beside the curves, no two over each other, with a thread to the end."""
    places = [frame.at_y(value) for _, value in ends]
    drawn = ""
    for trial, (epoch, value), y in zip(
        chosen, ends, spread(places, 15, frame.top, frame.floor), strict=True
    ):
        words = f"trial {trial.number}"
        if trial is leaderboard.best:
            words += ", best"
        elif trial.trial_id == leaderboard.baseline:
            words += ", default"
        thread = [(frame.at_x(epoch) + 5, frame.at_y(value)), (frame.wall + 20, y)]
        drawn += element(
            "g",
            line(thread, stroke="#aab0b8", stroke_width=0.8),
            label(frame.wall + 24, y + 4, words,
                  font_weight=600 if trial is leaderboard.best else None),
            class_="mark",
            data_trial=trial.number,
        )  # fmt: skip
    return drawn


def _shares(leaderboard: Leaderboard) -> dict[str, float]:
    """Each trial's place from 0, the worst score, to 1, the best."""
    scale = infer_scale([trial.score for trial in leaderboard.scored])
    places = {trial.trial_id: scale.place(trial.score) or 0.0 for trial in leaderboard.trials}
    up = leaderboard.mode == "max"
    return {name: place if up else 1 - place for name, place in places.items()}


def _curve(trial: Trial) -> list[tuple[int, float]]:
    return [(epoch, value) for epoch, value in trial.history if math.isfinite(value)]


def _score(trial: Trial) -> float:
    assert trial.score is not None
    return trial.score


def _words(leaderboard: Leaderboard) -> str:
    better = "higher" if leaderboard.mode == "max" else "lower"
    return f"{shortened(leaderboard.metric, 300)} ({better} is better)"


def _says(trial: Trial) -> str:
    value = "no value" if trial.value is None else objective_text(trial.value)
    return f"trial {trial.number}: {value}, {trial.status}"


def _story(leaderboard: Leaderboard) -> str:
    best = leaderboard.best
    if best is None:
        return f"{len(leaderboard.trials)} trials, none with a value"
    return (
        f"{len(leaderboard.trials)} trials, {len(leaderboard.scored)} with a value; the best is "
        f"{objective_text(_score(best))}, of trial {best.number}"
    )

"""Parallel coordinates: every trial as a line across its params to its objective, as SVG text."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from crane_ray.pages.drawing import (
    SOFT,
    element,
    label,
    line,
    nothing,
    shortened,
    svg,
    tip,
)
from crane_ray.pages.scales import Scale, colour, infer_scale
from crane_ray.pages.wording import number_text, value_text
from crane_ray.search.leaderboard import Leaderboard, Trial
from crane_ray.search.wording import objective_text, short_names

TOP, BOTTOM, LEFT, RIGHT = 58, 340, 96, 72
NARROWEST = 130
"""Between two axes, px: room for the names of choices."""
WIDTH = 1000
NONE_AT = BOTTOM + 24
"""Where lines of trials without a number on an axis cross it."""
WITHIN = 0.5
"""Share of a choice's room over which its lines are fanned out, so that none hides another."""

CROWD = 100
"""From so many trials on, lines are faint."""


@dataclass(frozen=True)
class _Axis:
    """An axis of the drawing."""

    name: str
    path: str
    """"" for the objective."""
    scale: Scale
    x: float
    room: float
    """For its name, px."""
    heights: Mapping[str, float]
    """trial_id to where its line crosses, px."""
    up: bool = True
    """Larger numbers lie higher."""


def parallel_chart(leaderboard: Leaderboard) -> str:
    """A line a trial with a score, across all params that differ; darker is better, the best thick.

    The last axis is the objective, the better end up. Choices have names, wide ranges of positive
    numbers a logarithm.
    """
    title = f"Params and {leaderboard.metric}"
    scored = leaderboard.scored
    if not scored:
        return nothing("parallel", title, "No trial has a value.")
    axes = _axes(leaderboard, scored)
    if len(axes) < 2:
        return nothing("parallel", title, "No param differs between the trials.")
    width = axes[-1].x + RIGHT
    drawn = "".join(_draw_axis(axis) for axis in axes)
    # Worst first, so that the best lies over all.
    for trial in reversed(scored):
        drawn += _draw_trial(trial, axes, leaderboard)
    for axis in axes:
        drawn += _draw_ticks(axis)
    best = scored[0]
    about = f"{len(scored)} trials. The best, trial {best.number}: " + "; ".join(
        f"{axis.path} {value_text(best.params.get(axis.path))}" for axis in axes[:-1]
    )
    height = BOTTOM + (44 if any(axis.scale.has_none for axis in axes) else 14)
    return svg("parallel", (width, height), title=title, about=about, body=drawn)


def _axes(leaderboard: Leaderboard, scored: Sequence[Trial]) -> list[_Axis]:
    paths = leaderboard.varied_paths()
    names = short_names(paths)
    step = max(NARROWEST, (WIDTH - LEFT - RIGHT) / max(1, len(paths)))
    axes = []
    for place, path in enumerate(paths):
        scale = infer_scale(trial.params.get(path) for trial in scored)
        heights = _heights(scale, path, scored)
        axes.append(_Axis(names[path], path, scale, LEFT + place * step, step - 14, heights))
    scale = infer_scale(trial.score for trial in scored)
    up = leaderboard.mode == "max"
    heights = {trial.trial_id: _at(scale, trial.score, up=up) for trial in scored}
    x = LEFT + len(paths) * step
    axes.append(_Axis(leaderboard.metric, "", scale, x, step - 14, heights, up))
    return axes


def _heights(scale: Scale, path: str, scored: Sequence[Trial]) -> dict[str, float]:
    heights = {trial.trial_id: _at(scale, trial.params.get(path)) for trial in scored}
    if scale.kind != "words":
        return heights
    room = (BOTTOM - TOP) / len(scale.keys) * WITHIN
    for middle in set(heights.values()):
        # Best first, as the scored are.
        there = [name for name, height in heights.items() if height == middle]
        for place, name in enumerate(there):
            share = place / (len(there) - 1) - 0.5 if len(there) > 1 else 0.0
            heights[name] = middle + share * min(room, 5.0 * len(there))
    return heights


def _at(scale: Scale, value: object, *, up: bool = True) -> float:
    place = scale.place(value)
    if place is None:
        return NONE_AT
    # The first choice is the topmost, the smallest number the lowest.
    from_top = place if scale.kind == "words" or not up else 1 - place
    return TOP + from_top * (BOTTOM - TOP)


def _draw_axis(axis: _Axis) -> str:
    drawn = line([(axis.x, TOP), (axis.x, BOTTOM)], stroke="#9aa1ab", stroke_width=1)
    note = "logarithmic" if axis.scale.kind == "log" else ""
    if not axis.path:
        note = "best on top" + (", logarithmic" if note else "")
    words = shortened(axis.name, min(axis.room, 2 * RIGHT), 13)
    middle = {"text_anchor": "middle"}
    head = label(axis.x, TOP - 34, words, font_size=13, font_weight=600, **middle)
    head += label(axis.x, TOP - 17, note, fill=SOFT, font_size=11, **middle) if note else ""
    return drawn + element("g", tip(axis.path or axis.name), head)


def _draw_ticks(axis: _Axis) -> str:
    """Numbers and names, over the lines, with a white edge that keeps them readable there."""
    edge = {"stroke": "#fff", "stroke_width": 4, "paint_order": "stroke",
            "stroke_linejoin": "round"}  # fmt: skip
    # Left of the first axis there are no lines.
    first = axis.x == LEFT
    side: dict[str, object] = {"text_anchor": "end" if first else "start", **edge}
    x = axis.x + (-9 if first else 9)
    drawn = ""
    if axis.scale.kind == "words":
        room = LEFT - 12 if first else axis.room - 30
        for place, word in enumerate(axis.scale.words):
            y = TOP + (place + 0.5) / len(axis.scale.words) * (BOTTOM - TOP)
            drawn += element("g", tip(word), label(x, y + 4, shortened(word, room), **side))
        return drawn
    for tick in axis.scale.ticks():
        y = _at(axis.scale, tick, up=axis.up)
        drawn += line([(axis.x - 3, y), (axis.x + 3, y)], stroke="#9aa1ab", stroke_width=1)
        drawn += label(x, y + 4, number_text(tick), **side)
    if axis.scale.has_none:
        drawn += label(x, NONE_AT + 4, "none", **side)
    return drawn


def _draw_trial(trial: Trial, axes: Sequence[_Axis], leaderboard: Leaderboard) -> str:
    points = [(axis.x, axis.heights[trial.trial_id]) for axis in axes]
    path = f"M{points[0][0]:.1f},{points[0][1]:.1f}"
    for (x0, y0), (x1, y1) in pairwise(points):
        bend = (x1 - x0) * 0.38
        path += f"C{x0 + bend:.1f},{y0:.1f} {x1 - bend:.1f},{y1:.1f} {x1:.1f},{y1:.1f}"
    best = trial is leaderboard.best
    opacity = "0.85" if len(leaderboard.trials) < CROWD else "0.5"
    top = axes[-1].heights[trial.trial_id]
    share = 1 - (top - TOP) / (BOTTOM - TOP)
    score = objective_text(trial.score or 0.0)
    return element(
        "g",
        tip(f"trial {trial.number}: {score}, {trial.status}"),
        element("path", class_="curve", d=path, fill="none", stroke=colour(share),
                stroke_width=4.0 if best else 1.5, stroke_linecap="round",
                stroke_opacity=None if best else opacity),
        element("path", d=path, fill="none", stroke="transparent", stroke_width=9),
        class_="mark",
        data_trial=trial.number,
    )  # fmt: skip

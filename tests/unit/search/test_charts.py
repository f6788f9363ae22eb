import math
from collections import Counter
from dataclasses import replace
from typing import Any
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crane_ray.search.charts import history_chart, importance_chart, learning_chart
from crane_ray.search.importance import Importance, measure_importance
from crane_ray.search.leaderboard import Leaderboard
from crane_ray.search.parallel import parallel_chart
from tests.unit.search.made_up import board, made_up_search, trial

SVG = "{http://www.w3.org/2000/svg}"
CHARTS = (history_chart, learning_chart, parallel_chart)
BOTH = pytest.mark.parametrize("mode", ["max", "min"])


def read(drawn: str) -> Element:
    return ElementTree.fromstring(drawn)


def words(root: Element) -> list[str]:
    return [text.text or "" for text in root.iter(f"{SVG}text")]


def marks(root: Element) -> dict[int, Element]:
    found = [one for one in root.iter(f"{SVG}g") if "data-trial" in one.attrib]
    return {int(one.attrib["data-trial"]): one for one in found}


def spot(mark: Element) -> tuple[float, float]:
    """Where a mark of the history lies."""
    circle = mark.findall(f"{SVG}circle")[-1]
    return float(circle.attrib["cx"]), float(circle.attrib["cy"])


PARAMS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters())
TRIALS = st.lists(
    st.tuples(
        st.none() | st.floats(),
        st.sampled_from(["done", "stopped", "failed", "unfinished"]),
        st.dictionaries(st.sampled_from(["a.b", "a.c", "<d>"]), PARAMS),
        st.lists(st.tuples(st.integers(0, 99), st.floats()), max_size=3),
    ),
    max_size=6,
)


@settings(max_examples=40)
@given(TRIALS, st.sampled_from(["max", "min"]), st.text(st.characters(), max_size=9))
def test_every_search_can_be_drawn(facts: list[Any], mode: str, metric: str) -> None:
    trials = [
        trial(n, value, status=status, params=params, history=tuple(history))
        for n, (value, status, params, history) in enumerate(facts)
    ]
    leaderboard = replace(board(*trials, mode=mode, baseline="trial-000"), metric=metric)
    for chart in CHARTS:
        root = read(chart(leaderboard))
        assert root.tag == f"{SVG}svg"
        assert root[0].text and root[1].text
        drawn = ElementTree.tostring(root, encoding="unicode")
        assert ">nan" not in drawn and '"nan' not in drawn and ",nan" not in drawn


def test_every_trial_is_in_the_history_and_its_shape_says_how_it_ended() -> None:
    leaderboard = made_up_search()
    found = marks(read(history_chart(leaderboard)))
    assert set(found) == {one.number for one in leaderboard.trials}
    for one in leaderboard.trials:
        mark = found[one.number]
        dots = [dot for dot in mark.findall(f"{SVG}circle") if dot.get("fill") != "transparent"]
        shapes = {
            "done": any(dot.get("fill") not in ("#fff", "none") for dot in dots),
            "stopped": any(dot.get("fill") == "#fff" for dot in dots),
            "failed": mark.find(f"{SVG}path") is not None,
            "unfinished": mark.find(f"{SVG}polyline") is not None,
        }
        assert [status for status, on in shapes.items() if on] == [one.status]


@BOTH
def test_the_history_puts_larger_values_higher_and_failures_below_all(mode: str) -> None:
    leaderboard = made_up_search(mode=mode)
    found = marks(read(history_chart(leaderboard)))
    scored = sorted(leaderboard.scored, key=lambda one: one.score or 0.0)
    heights = [spot(found[one.number])[1] for one in scored]
    assert heights == sorted(heights, reverse=True)
    failed = [spot(found[one.number])[1] for one in leaderboard.trials if one.score is None]
    assert min(failed) > max(heights)
    across = [spot(found[number])[0] for number in sorted(found)]
    assert across == sorted(across)


@BOTH
def test_the_line_of_the_best_so_far_never_gets_worse(mode: str) -> None:
    root = read(history_chart(made_up_search(mode=mode)))
    steps = next(one for one in root.iter(f"{SVG}polyline") if one.get("stroke-linejoin"))
    heights = [float(point.split(",")[1]) for point in steps.attrib["points"].split()]
    assert heights == sorted(heights, reverse=mode == "max")
    assert len(set(heights)) > 2


def test_the_default_config_has_a_dashed_line_with_its_name() -> None:
    leaderboard = made_up_search()
    default = leaderboard.baseline_trial
    assert default is not None
    root = read(history_chart(leaderboard))
    dashed = [one for one in root.iter(f"{SVG}polyline") if one.get("stroke-dasharray")]
    height = spot(marks(root)[0])[1]
    assert [point.split(",")[1] for point in dashed[0].attrib["points"].split()] == [
        f"{height:.1f}"
    ] * 2
    assert f"default {default.value:.4f}" in words(root)
    bare = read(history_chart(replace(leaderboard, baseline=None)))
    assert not [one for one in bare.iter(f"{SVG}polyline") if one.get("stroke-dasharray")]


@BOTH
def test_the_best_line_across_the_params_is_thick_dark_and_ends_on_top(mode: str) -> None:
    leaderboard = made_up_search(mode=mode)
    found = marks(read(parallel_chart(leaderboard)))
    assert set(found) == {one.number for one in leaderboard.scored}
    ends, widths, colours = {}, {}, {}
    for number, mark in found.items():
        curve = mark.find(f"{SVG}path")
        assert curve is not None
        ends[number] = float(curve.attrib["d"].split(",")[-1])
        widths[number] = float(curve.attrib["stroke-width"])
        colours[number] = curve.attrib["stroke"]
    best = leaderboard.best
    assert best is not None
    assert min(ends, key=lambda n: ends[n]) == best.number
    assert max(widths, key=lambda n: widths[n]) == best.number
    assert Counter(widths.values())[widths[best.number]] == 1
    assert colours[best.number] == "#440154"
    assert list(found)[-1] == best.number, "another line lies over the best"
    order = [ends[one.number] for one in leaderboard.scored]
    assert order == sorted(order)


def test_axes_are_the_params_that_differ_with_the_names_of_choices() -> None:
    leaderboard = made_up_search()
    same = tuple(replace(one, params={**one.params, "seed": 7}) for one in leaderboard.trials)
    said = words(read(parallel_chart(replace(leaderboard, trials=same))))
    assert {"model.name", "optim.lr", "bags.level", "macro AUC, val"} <= set(said)
    assert {"crane", "clam_sb", "case", "slide", "none", "logarithmic", "1e-4"} <= set(said)
    assert "seed" not in said


def test_a_trial_without_a_number_crosses_below_the_axis() -> None:
    trials = [trial(n, n / 20, params={"a": None if n == 3 else n / 10}) for n in range(12)]
    root = read(parallel_chart(board(*trials)))
    starts = {}
    for number, mark in marks(root).items():
        curve = mark.find(f"{SVG}path")
        assert curve is not None
        starts[number] = float(curve.attrib["d"][1:].split("C")[0].split(",")[1])
    assert max(starts, key=lambda n: starts[n]) == 3
    assert starts[3] > starts[0]
    assert "none" in words(root)


def test_lines_through_one_choice_do_not_hide_each_other() -> None:
    trials = [trial(n, n / 20, params={"a": "x" if n % 2 else "y"}) for n in range(12)]
    starts = []
    for mark in marks(read(parallel_chart(board(*trials)))).values():
        curve = mark.find(f"{SVG}path")
        assert curve is not None
        starts.append(curve.attrib["d"].split("C")[0])
    assert len(set(starts)) == 12


def test_learning_curves_are_the_ten_best_and_the_default() -> None:
    leaderboard = made_up_search(60)
    found = set(marks(read(learning_chart(leaderboard))))
    best = {one.number for one in leaderboard.scored[:10]}
    assert found == best | {0}
    assert 0 not in best
    assert set(marks(read(learning_chart(leaderboard, most=3)))) == {
        *(one.number for one in leaderboard.scored[:3]), 0,
    }  # fmt: skip


def test_the_default_config_is_drawn_once_where_it_is_among_the_best() -> None:
    leaderboard = made_up_search()
    assert leaderboard.baseline_trial in leaderboard.scored[:10]
    root = read(learning_chart(leaderboard))
    assert len([one for one in root.iter(f"{SVG}polyline") if one.get("class") == "curve"]) == 10


def test_a_gap_in_a_history_is_left_out() -> None:
    history = ((0, 0.5), (1, math.nan), (2, 0.7))
    root = read(learning_chart(board(trial(0, 0.7, history=history))))
    curve = marks(root)[0].find(f"{SVG}polyline") or next(root.iter(f"{SVG}polyline"))
    assert "nan" not in curve.attrib["points"]


def test_bars_are_as_long_as_the_shares() -> None:
    importance = Importance({"a.lr": 0.6, "a.b": 0.3, "a.c": 0.1}, num_trials=20, num_best=5)
    root = read(importance_chart(importance))
    bars = [float(one.attrib["width"]) for one in root.iter(f"{SVG}rect")]
    assert [bar / bars[0] for bar in bars] == pytest.approx([1, 0.5, 1 / 6], abs=1e-3)
    assert {"a.lr", "60%", "a.b", "30%", "10%"} <= set(words(root))


@pytest.mark.parametrize(
    ("leaderboard", "said"),
    [
        (board(), ("no trial yet", "No trial with a value", "No trial has a value")),
        (board(trial(0, None)), ("in order", "No trial with a value", "No trial has a value")),
        (board(trial(0, 0.5)), ("in order", "No trial with a value", "No param differs")),
    ],
    ids=["empty", "failed", "one"],
)
def test_what_cannot_be_drawn_is_said(leaderboard: Leaderboard, said: tuple[str, ...]) -> None:
    for chart, sentence in zip(CHARTS, said, strict=True):
        assert any(sentence in text for text in words(read(chart(leaderboard))))
    importance = importance_chart(measure_importance(leaderboard))
    assert any("Not measured" in text for text in words(read(importance)))

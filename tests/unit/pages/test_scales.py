import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crane_ray.pages.scales import Scale, colour, infer_scale

NUMBERS = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(10**400), 10**400)
ANY = NUMBERS | st.none() | st.booleans() | st.text(max_size=5) | st.just(math.nan)


@given(st.lists(ANY, min_size=1, max_size=20))
def test_every_value_has_its_place_and_those_left_out_are_none(values: list[Any]) -> None:
    scale = infer_scale(values)
    for value in values:
        place = scale.place(value)
        if place is None:
            assert value is None
            assert scale.has_none
        else:
            assert 0 <= place <= 1


@given(st.lists(st.floats(1e-9, 1e9), min_size=2, max_size=20, unique=True))
def test_larger_numbers_lie_further_up(values: list[float]) -> None:
    scale = infer_scale(values)
    places = [scale.place(value) or 0.0 for value in sorted(values)]
    assert places == sorted(places)
    assert (places[0], places[-1]) == (0.0, 1.0)


@given(st.lists(NUMBERS, min_size=2, max_size=8), st.booleans())
def test_ticks_lie_on_the_axis(values: list[Any], padded: bool) -> None:
    scale = infer_scale(values)
    scale = scale.padded() if padded else scale
    ticks = scale.ticks()
    assert ticks == sorted(ticks)
    assert len(ticks) <= 10
    for tick in ticks:
        assert -1e-6 <= (scale.place(tick) or 0.0) <= 1 + 1e-6


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [(0.0, 1.0, [0, 0.2, 0.4, 0.6, 0.8, 1]), (0.71, 0.88, [0.75, 0.8, 0.85]),
     (0.0, 20.0, [0, 5, 10, 15, 20]), (3.0, 3.0, [3])],
)  # fmt: skip
def test_ticks_are_round(low: float, high: float, ticks: list[float]) -> None:
    assert Scale("linear", low, high).ticks() == ticks


def test_ticks_of_a_logarithm_are_powers_of_ten_or_the_steps_between() -> None:
    assert Scale("log", 1e-6, 1e-2).ticks() == [1e-6, 1e-5, 1e-4, 1e-3, 1e-2]
    assert Scale("log", 1.2e-5, 6e-4).ticks() == [3e-5, 1e-4, 3e-4]


def test_values_drawn_by_logarithm_are_placed_by_it_and_those_drawn_evenly_are_not() -> None:
    random = np.random.default_rng(0)
    assert infer_scale((10 ** random.uniform(-5, -3, 40)).tolist()).kind == "log"
    even = [0.001, *random.uniform(0.0, 0.5, 200).tolist()]
    assert max(even) / min(even) > 50
    assert infer_scale(even).kind == "linear"


@pytest.mark.parametrize(
    ("values", "kind"),
    [([1e-5, 1e-4, 1e-3], "log"), ([1e-4, 3e-4, 1e-3], "linear"), ([-1, 1, 100], "linear"),
     ([0, 1, 100], "linear"), ([True, False], "words"), ([1, True], "words"), (["a"], "words"),
     ([None], "words"), ([], "words"), ([1, "auto"], "words"), ([None, 1.0, 5.0], "words"),
     ([math.inf, 1.0], "words"), ([None, *range(10)], "linear")],
)  # fmt: skip
def test_kinds_are_inferred(values: list[Any], kind: str) -> None:
    assert infer_scale(values).kind == kind


def test_choices_tell_types_apart_and_have_an_order() -> None:
    scale = infer_scale(["b", 2, "2", True, None, False, 10, "a", 2])
    assert scale.words == ("none", "false", "true", "2", "10", "2", "a", "b")
    assert len({scale.place(value) for value in (2, "2", True, None)}) == 4
    assert scale.place("c") is None


def test_a_range_without_width_lies_in_the_middle_and_is_padded() -> None:
    scale = infer_scale([0.5, 0.5])
    assert scale.place(0.5) == 0.5
    wide = scale.padded()
    assert wide.low < 0.5 < wide.high
    assert wide.place(0.5) == pytest.approx(0.5)


def test_ranges_are_described() -> None:
    assert infer_scale([1e-5, 1e-4, 1e-3]).describe() == "1e-5 to 0.001, by logarithm"
    assert infer_scale([0, 0.5]).describe() == "0 to 0.5"
    assert infer_scale(["b", None]).describe() == "one of none, b"


def luminance(colour_text: str) -> float:
    channels = [int(colour_text[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_better_is_darker_all_the_way_and_the_worst_still_shows_on_white() -> None:
    shades = [luminance(colour(share)) for share in np.linspace(0, 1, 50)]
    assert all(before > after for before, after in pairwise(shades))
    assert 1.05 / (shades[0] + 0.05) > 2
    assert colour(1) == "#440154"
    assert colour(7) == colour(1)
    assert colour(-7) == colour(0)

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crane_ray.errors import ConfigError
from crane_ray.search.domains import FORMS, Choice, Span, parse_domain

NUMBERS = st.floats(-1e6, 1e6, allow_nan=False)


@settings(max_examples=100, deadline=None)
@given(st.tuples(NUMBERS, NUMBERS).filter(lambda ends: ends[0] < ends[1]), NUMBERS)
def test_a_span_holds_what_lies_between_its_ends(ends: tuple[float, float], value: float) -> None:
    low, high = ends
    span = parse_domain("a", {"uniform": [low, high]})
    assert span == Span(low, high)
    assert span.holds(value) == (low <= value <= high)
    assert span.holds(span.nearest(value))
    assert all(span.holds(end) for end in span.examples())


@settings(max_examples=60, deadline=None)
@given(st.integers(-20, 20), st.integers(1, 30), st.floats(-100, 100))
def test_whole_numbers_stay_whole(low: int, width: int, value: float) -> None:
    span = parse_domain("a", {"randint": [low, low + width]})
    nearest = span.nearest(value)
    assert isinstance(nearest, int)
    assert low <= nearest <= low + width
    assert not span.holds(low + 0.5)
    assert all(isinstance(end, int) for end in span.examples())


@settings(max_examples=60, deadline=None)
@given(st.floats(-10, 20))
def test_steps_are_kept(value: float) -> None:
    span = parse_domain("a", {"quniform": [0, 1, 0.3]})
    assert span.holds(span.nearest(value))
    assert span.holds(0.6)
    assert not span.holds(0.5)
    assert not span.holds(1.0), "0, 0.3, 0.6, 0.9 are its values"


def test_numbers_that_yaml_takes_for_text_are_numbers() -> None:
    assert parse_domain("lr", {"loguniform": ["1e-5", "1e-3"]}) == Span(1e-5, 1e-3, log=True)
    assert parse_domain("n", {"lograndint": [1, "1e3"]}) == Span(1, 1000, log=True, whole=True)


def test_a_choice_tells_values_of_several_types_apart() -> None:
    choice = parse_domain("a", {"choice": [None, True, 1, "1", 0.5]})
    assert choice == Choice((None, True, 1, "1", 0.5))
    assert [choice.holds(value) for value in (None, True, 1, 1.0, "1", False)] == [
        True, True, True, False, True, False,
    ]  # fmt: skip
    assert choice.nearest("anything") == "anything"


@pytest.mark.parametrize(
    ("tree", "words"),
    [
        (0.5, "0.5 is no distribution"),
        ({"uniform": [0, 1], "choice": [1]}, "is no distribution"),
        ({"normal": [0, 1]}, "there is no distribution normal; known: uniform,"),
        ({"uniform": 0.5}, "uniform takes [low, high], not 0.5"),
        ({"uniform": [0, 1, 2]}, "uniform takes [low, high], not [0, 1, 2]"),
        ({"uniform": [0, "high"]}, "uniform takes [low, high], not [0, 'high']"),
        ({"uniform": [0, math.inf]}, "uniform takes [low, high]"),
        ({"uniform": [False, True]}, "uniform takes [low, high]"),
        ({"uniform": [1, 1]}, "uniform from 1 to 1 has nothing between"),
        ({"uniform": [1, 0]}, "uniform from 1 to 0 has nothing between"),
        ({"loguniform": [0, 1]}, "loguniform begins at 0"),
        ({"randint": [0.5, 2]}, "randint takes [low, high], whole numbers"),
        ({"quniform": [0, 1]}, "quniform takes [low, high, step]"),
        ({"quniform": [0, 1, 2]}, "a step of 2 does not fit 0 to 1"),
        ({"quniform": [0, 1, 0]}, "a step of 0 does not fit"),
        ({"choice": []}, "there is nothing to choose from"),
        ({"choice": ["a", "a"]}, "'a' is listed twice"),
        ({"choice": [["a"]]}, "['a'] is no single value"),
    ],
)
def test_mistakes_say_what_is_wrong(tree: object, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_domain("model.dropout", tree)
    assert str(caught.value).startswith("space model.dropout: ")
    assert words in str(caught.value)


def test_every_form_is_explained() -> None:
    for kind in FORMS:
        with pytest.raises(ConfigError, match=kind):
            parse_domain("a", {kind: "x"})

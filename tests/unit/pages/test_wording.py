import pytest
from hypothesis import given
from hypothesis import strategies as st

from crane_ray.pages.wording import duration_text, key_of, number_text, value_text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (0.25, "0.25"), (1e-5, "1e-5"), (3e-4, "3e-4"), (1.23456e-4, "1.235e-4"),
     (-2e-7, "-2e-7"), (12000, "12000"), (12345.6, "12346"), (1e20, "1e20"), (8, "8"),
     (0.001, "0.001"), (1.0, "1"), (float("-inf"), "-inf"), (float("nan"), "nan")],
)  # fmt: skip
def test_numbers_have_four_digits(value: float, text: str) -> None:
    assert number_text(value) == text


@given(st.floats(-1e300, 1e300))
def test_numbers_keep_their_size(value: float) -> None:
    assert float(number_text(value)) == pytest.approx(value, rel=6e-4)


@pytest.mark.parametrize(
    ("value", "text"), [(None, "none"), (True, "true"), (False, "false"), (4, "4"), ("x", "x")]
)
def test_values_read_as_in_a_config(value: object, text: str) -> None:
    assert value_text(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0, "0.0 s"), (9.96, "10 s"), (59.4, "59 s"), (59.6, "1 min 00 s"), (185, "3 min 05 s"),
     (7800, "2 h 10 min"), (200_000, "2 d 7 h"), (float("nan"), "unknown")],
)  # fmt: skip
def test_times_have_two_units(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text


def test_keys_tell_types_apart() -> None:
    assert len({key_of(value) for value in (1, True, "1", None, "null")}) == 5

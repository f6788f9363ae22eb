"""Where an encoder's time went, and what is said of it."""

import re
from dataclasses import asdict, fields
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crane_ray.cli.options import flagged_fields
from crane_ray.features.clock import Clock, Shares, State
from crane_ray.features.ledger import Receipt
from crane_ray.features.verdict import LIMITS, MEASURED_FROM_S, judge
from crane_ray.runtime.jobs import ExtractJob

STATES = get_args(State)
CLOCK = "crane_ray.features.clock.time.perf_counter"


class Hands:
    """A clock's hands, moved by the test."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def hands(monkeypatch: pytest.MonkeyPatch) -> Hands:
    hands = Hands()
    monkeypatch.setattr(CLOCK, hands)
    return hands


def whole(shares: Shares) -> float:
    return sum(map(float, asdict(shares).values()))


def test_there_is_a_share_a_column_and_an_advice_for_every_state() -> None:
    assert {one.name for one in fields(Shares)} == set(STATES) == set(LIMITS)
    assert set(STATES) <= {one.name for one in fields(Receipt)}
    assert len({limit for limit, _ in LIMITS.values()}) == len(STATES)


def test_time_goes_to_the_state_that_it_was_spent_in(hands: Hands) -> None:
    measured = Clock()
    hands.now += 2
    measured.spend("idle_s")
    hands.now += 3
    measured.spend("encode_s")
    hands.now += 4
    measured.spend("encode_s")
    assert measured.take() == Shares(idle_s=2, encode_s=7)
    hands.now += 1
    assert measured.take() == Shares(), "what is not spent yet waits for its state"
    measured.spend("write_wait_s")
    assert measured.take() == Shares(write_wait_s=1)


def test_a_part_of_the_time_can_be_spent(hands: Hands) -> None:
    measured = Clock()
    begun = hands.now
    hands.now += 10
    measured.spend("idle_s", until=begun + 4)
    measured.spend("decode_wait_s", until=begun + 3)  # before what is spent: nothing
    measured.spend("staging_wait_s", until=begun + 9)
    measured.spend("decode_wait_s")
    assert measured.take() == Shares(idle_s=4, staging_wait_s=5, decode_wait_s=1)


@settings(deadline=None)
@given(
    steps=st.lists(
        st.tuples(st.floats(0, 100), st.sampled_from(STATES), st.none() | st.floats(-1, 1)),
        max_size=40,
    ),
    takes=st.sets(st.integers(0, 40)),
)
def test_the_shares_add_up_to_the_time_that_passed(
    steps: list[tuple[float, State, float | None]], takes: set[int]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        hands = Hands()
        patch.setattr(CLOCK, hands)
        measured, total, begun = Clock(), Shares(), hands.now
        for number, (seconds, state, part) in enumerate(steps):
            before = hands.now
            hands.now += seconds
            if part is not None:
                measured.spend(state, until=before + part * seconds)
            measured.spend(state)
            if number in takes:
                total.add(measured.take())
        total.add(measured.take())
        assert whole(total) == pytest.approx(hands.now - begun, abs=1e-6)
        assert min(asdict(total).values()) >= 0


def test_shares_are_added_and_rounded() -> None:
    shares = Shares(encode_s=1.23456, idle_s=0.0004)
    shares.add(Shares(encode_s=1, staging_wait_s=2))
    assert shares == Shares(encode_s=2.23456, idle_s=0.0004, staging_wait_s=2)
    assert shares.rounded() == {**asdict(Shares()), "encode_s": 2.235, "staging_wait_s": 2}


@pytest.mark.parametrize(
    ("state", "limit", "setting"),
    [
        ("encode_s", "encoding", "--precision"),
        ("decode_wait_s", "decoding", "actors.cpus"),
        ("staging_wait_s", "staging", "--cache-gb"),
        ("write_wait_s", "storage", "--store"),
        ("idle_s", "scheduling", "--actors"),
    ],
)
def test_the_largest_share_is_the_limit(state: str, limit: str, setting: str) -> None:
    shares = Shares(**dict.fromkeys(STATES, 1.0))
    setattr(shares, state, 6.0)
    verdict = judge(shares)
    assert verdict is not None
    assert (verdict.limit, verdict.share) == (limit, 0.6)
    assert verdict.words == f"{limit} is the limit (60% of the encoders' time)"
    assert setting in verdict.advice


def test_the_advice_names_options_that_there_are() -> None:
    known = {field.flag.name for field in flagged_fields(ExtractJob)}
    named = set(re.findall(r"--[a-z-]+", " ".join(advice for _, advice in LIMITS.values())))
    assert len(named) >= 4
    assert named <= known


def test_nothing_is_said_before_enough_was_measured() -> None:
    assert judge(Shares()) is None
    assert judge(Shares(encode_s=MEASURED_FROM_S * 0.5, idle_s=MEASURED_FROM_S * 0.49)) is None
    assert judge(Shares(encode_s=MEASURED_FROM_S * 0.5, idle_s=MEASURED_FROM_S * 0.51)) is not None

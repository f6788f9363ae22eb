import warnings
from dataclasses import replace

import numpy as np
import optuna
import pytest

from crane_ray.search.importance import FEWEST_TRIALS, measure_importance
from crane_ray.search.leaderboard import Leaderboard, Trial
from tests.unit.search.made_up import board, made_up_search, trial


def merit(value: object) -> float:
    """What a value of a param is worth."""
    if isinstance(value, float):
        return float(np.log10(value))
    return 1.0 if value == "crane" else -9.0


def decided_by(path: str, num_trials: int = 120) -> Leaderboard:
    """A search in which one param alone makes the value."""
    random = np.random.default_rng(5)
    trials = []
    for number in range(num_trials):
        params: dict[str, object] = {
            "optim.lr": float(10 ** random.uniform(-5, -3)),
            "model.dropout": float(random.uniform(0, 0.5)),
            "model.name": str(random.choice(["crane", "clam_sb", "mean_pool"])),
            "optim.clip": None if random.random() < 0.4 else float(random.uniform(1, 9)),
        }
        trials.append(trial(number, merit(params[path]) + random.normal(0, 0.01), params=params))
    return board(*trials)


@pytest.mark.parametrize("path", ["optim.lr", "model.dropout", "model.name", "optim.clip"])
def test_the_param_that_decides_has_the_largest_share(path: str) -> None:
    shares = measure_importance(decided_by(path)).shares
    assert shares is not None
    assert next(iter(shares)) == path
    assert shares[path] > 0.4


@pytest.mark.parametrize("num_trials", [12, 24, 61])
def test_shares_sum_to_one_and_go_from_large_to_small(num_trials: int) -> None:
    importance = measure_importance(made_up_search(num_trials))
    assert importance.shares is not None
    shares = list(importance.shares.values())
    assert sum(shares) == pytest.approx(1)
    assert all(share >= 0 for share in shares)
    assert shares == sorted(shares, reverse=True)
    assert set(importance.shares) == set(importance.ranges)
    assert importance.num_best <= importance.num_trials // 2


def test_lower_is_better_where_the_search_says_so() -> None:
    up, down = made_up_search(40), made_up_search(40, mode="min")
    assert measure_importance(up).shares == pytest.approx(measure_importance(down).shares)
    # The same values read the wrong way round are another question.
    wrong = measure_importance(replace(down, mode="max"))
    assert wrong.shares != pytest.approx(measure_importance(up).shares)


def scored(num: int, params: list[dict[str, object]] | None = None) -> tuple[Trial, ...]:
    return tuple(
        trial(n, n / 10, params=params[n] if params else {"a": n, "b": n % 3}) for n in range(num)
    )


@pytest.mark.parametrize(
    ("leaderboard", "reason"),
    [
        (board(), "0 of the trials have a value"),
        (board(*scored(FEWEST_TRIALS - 1)), "7 of the trials have a value"),
        (board(*scored(9, [{"a": 1}] * 9)), "no param differs"),
        (board(*scored(9, [{"a": n} for n in range(9)])), "a is the only param"),
        (board(*(replace(one, value=0.5) for one in scored(9))), "the same value"),
        (board(*(replace(one, value=float(one.number > 7)) for one in scored(9))), "worst value"),
    ],
)
def test_where_shares_would_mean_nothing_the_reason_is_given(
    leaderboard: Leaderboard, reason: str
) -> None:
    importance = measure_importance(leaderboard)
    assert importance.shares is None
    assert reason in importance.reason


def test_eight_trials_are_enough() -> None:
    importance = measure_importance(board(*scored(FEWEST_TRIALS)))
    assert importance.shares is not None
    assert importance.num_best == 4


def test_trials_without_a_value_have_no_say() -> None:
    leaderboard = decided_by("optim.lr")
    failed = tuple(
        trial(900 + n, 99.0, status="failed", params={"model.dropout": 0.5, "only.here": n})
        for n in range(20)
    )
    with_failed = replace(leaderboard, trials=leaderboard.trials + failed)
    assert measure_importance(with_failed) == measure_importance(leaderboard)


def test_the_ranges_are_those_of_the_trials() -> None:
    ranges = measure_importance(made_up_search()).ranges
    assert ranges["bags.level"] == "one of case, slide"
    assert ranges["instances.num_sampled"] == "one of none, 4, 8"
    assert ranges["optim.lr"].endswith("by logarithm")


def test_values_of_several_types_are_choices() -> None:
    values = [1, True, "1", None, 1.5, "a", 1, True, "a", None]
    params = [{"mixed": value, "x": n % 4} for n, value in enumerate(values)]
    importance = measure_importance(board(*scored(10, params)))
    assert importance.shares is not None
    assert importance.ranges["mixed"] == "one of none, true, 1, 1.5, 1, a"


def test_optuna_says_nothing_and_is_left_as_it_was(capfd: pytest.CaptureFixture[str]) -> None:
    # One trial alone without a number is what Optuna warns of.
    params: list[dict[str, object]] = [
        {"x": None if n == 3 else n / 10, "y": n % 4} for n in range(20)
    ]
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.DEBUG)
    try:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            assert measure_importance(board(*scored(20, params))).shares is not None
        assert optuna.logging.get_verbosity() == optuna.logging.DEBUG
    finally:
        optuna.logging.set_verbosity(before)
    assert not said
    assert capfd.readouterr() == ("", "")

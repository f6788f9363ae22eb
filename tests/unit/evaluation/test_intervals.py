import math

import numpy as np
import numpy.typing as npt
import pytest

from crane_ray.evaluation.intervals import bootstrap, clusters, interval
from crane_ray.evaluation.predictions import PredictionArrays, Predictions
from crane_ray.evaluation.scoring import FoldFacts, Scored, mean_intervals
from tests.unit.evaluation.made_up import BINARY, predict, table_of

FloatArray = npt.NDArray[np.float64]


def one(rows: PredictionArrays) -> Scored:
    return Scored("0", rows, FoldFacts(), BINARY.classes)


def answers(correct: list[int], slides_of_case: int = 1) -> PredictionArrays:
    """Cases that a network calls right (1) or wrong (0), each with so many like slides."""
    repeated = np.repeat(correct, slides_of_case)
    p = [[0.8, 0.2] if right else [0.2, 0.8] for right in repeated]
    cases = np.repeat([f"c{index:03d}" for index in range(len(correct))], slides_of_case)
    slides = [f"s{index}" for index in range(len(p))]
    return table_of(p, [0] * len(p), slides=slides, cases=list(cases)).arrays("amr")


def test_accuracy_has_the_interval_of_the_binomial() -> None:
    rows = answers([1] * 70 + [0] * 30)
    found = mean_intervals([one(rows)], num_replicates=4000, seed=3)["accuracy"]
    chances = [math.comb(100, k) * 0.7**k * 0.3 ** (100 - k) for k in range(101)]
    low, high = np.searchsorted(np.cumsum(chances), [0.025, 0.975]) / 100
    assert found.low == pytest.approx(low, abs=0.011)
    assert found.high == pytest.approx(high, abs=0.011)
    assert found.num_valid == 4000


def test_slides_of_one_patient_do_not_narrow_the_interval() -> None:
    once = mean_intervals([one(answers([1] * 30 + [0] * 10))], num_replicates=300, seed=1)
    often = mean_intervals([one(answers([1] * 30 + [0] * 10, 7))], num_replicates=300, seed=1)
    assert once["accuracy"] == often["accuracy"]
    assert once["brier"].low == pytest.approx(often["brier"].low)


def test_the_order_of_rows_does_not_matter_but_the_seed_does() -> None:
    rows = predict(BINARY, 30, slides_of_case=2).arrays("amr")
    order = np.random.default_rng(0).permutation(len(rows))
    shuffled = PredictionArrays(**{key: value[order] for key, value in vars(rows).items()})
    first, again, other = (
        mean_intervals([one(which)], num_replicates=200, seed=seed)["auc"]
        for which, seed in ((rows, 5), (shuffled, 5), (rows, 6))
    )
    assert first.low == pytest.approx(again.low, abs=1e-12)
    assert first.high == pytest.approx(again.high, abs=1e-12)
    assert (first.low, first.high) != (other.low, other.high)


def test_pieces_change_nothing() -> None:
    def statistic(counts_RP: FloatArray) -> dict[str, FloatArray]:
        return {"first": counts_RP[:, 0]}

    small = bootstrap(statistic, 9, num_rows=9, num_replicates=50, seed=2)["first"]
    large = bootstrap(statistic, 9, num_rows=1 << 18, num_replicates=50, seed=2)["first"]
    np.testing.assert_array_equal(small, large)
    assert len(small) == 50


def test_cases_are_drawn_with_replacement_and_rows_follow_them() -> None:
    groups = clusters(["b", "a", "b"], ["a", "b", "c"])
    drawn: list[FloatArray] = []

    def statistic(counts_RP: FloatArray) -> dict[str, FloatArray]:
        drawn.append(counts_RP)
        return {"sum": counts_RP.sum(axis=1)}

    sums = bootstrap(statistic, 3, num_rows=3, num_replicates=40, seed=0)["sum"]
    assert set(sums) == {3.0}
    weights = groups.weights(drawn[0])
    np.testing.assert_array_equal(weights[:, 0], weights[:, 2])
    np.testing.assert_array_equal(weights[:, 1], drawn[0][:, 0])
    assert len(np.unique(drawn[0], axis=0)) > 5


def test_replicates_without_a_class_are_left_out_and_counted() -> None:
    p = [[0.1, 0.9], *([[0.8, 0.2]] * 4)]
    names = list("abcde")
    rows = table_of(p, [1, 0, 0, 0, 0], slides=names, cases=names).arrays("amr")
    found = mean_intervals([one(rows)], num_replicates=2000, seed=0)
    # A draw of 5 lacks the one positive with (4/5)^5 = 0.328, all negatives with (1/5)^5 = 0.0003.
    assert found["auc"].num_valid / 2000 == pytest.approx(1 - 0.328, abs=0.03)
    assert (found["auc"].low, found["auc"].high) == (1.0, 1.0)
    assert found["accuracy"].num_valid == 2000


def test_an_interval_covers_what_it_says() -> None:
    values = np.r_[np.arange(1001.0), np.nan]
    found = interval(values)
    assert (found.low, found.high) == pytest.approx((25.0, 975.0))
    assert found.num_valid == 1001
    nothing = interval(np.array([np.nan]))
    assert (nothing.low, nothing.high, nothing.num_valid) == (None, None, 0)


def test_intervals_cover_the_truth_for_clustered_slides() -> None:
    # Accuracy differs between patients (mean 0.7); pretending that slides are independent would
    # cover it in far fewer experiments.
    generator = np.random.default_rng(7)
    covered, by_slide = 0, 0
    for _ in range(100):
        skill = generator.beta(1.4, 0.6, size=40)
        correct = (generator.random((40, 6)) < skill[:, None]).astype(np.float64)
        means = correct.mean(axis=1)

        def statistic(counts_RP: FloatArray, means: FloatArray = means) -> dict[str, FloatArray]:
            return {"accuracy": counts_RP @ means / counts_RP.sum(axis=1)}

        sizes = {"num_rows": 40, "num_replicates": 300, "seed": 0}
        found = interval(bootstrap(statistic, 40, **sizes)["accuracy"])
        assert found.low is not None
        assert found.high is not None
        covered += found.low <= 0.7 <= found.high
        spread = 1.96 * np.sqrt(correct.mean() * (1 - correct.mean()) / correct.size)
        by_slide += abs(correct.mean() - 0.7) <= spread
    assert 88 <= covered <= 99
    assert by_slide < 80


def test_no_interval_without_others_to_compare_with() -> None:
    rows = predict(BINARY, 1, slides_of_case=4).arrays("amr")
    assert mean_intervals([one(rows)], num_replicates=10, seed=0) == {}
    several = predict(BINARY, 4).arrays("amr")
    assert mean_intervals([one(several)], num_replicates=0, seed=0) == {}
    empty = several.rows(np.zeros(len(several), dtype=bool))
    assert mean_intervals([one(empty)], num_replicates=10, seed=0) == {}


def test_the_mean_of_like_folds_has_the_interval_of_one() -> None:
    rows = predict(BINARY, 25).arrays("amr")
    alone = mean_intervals([one(rows)], num_replicates=200, seed=0)
    twice = mean_intervals([one(rows), one(rows)], num_replicates=200, seed=0)
    assert twice["auc"].low == pytest.approx(alone["auc"].low, abs=1e-12)
    # Folds of different patients are more to go by.
    other = Predictions.concat([predict(BINARY, 25, split="val")]).arrays("amr")
    both = mean_intervals([one(rows), one(other)], num_replicates=400, seed=0)["brier"]
    single = alone["brier"]
    assert both.high is not None
    assert both.low is not None
    assert single.high is not None
    assert single.low is not None
    assert both.high - both.low < 0.9 * (single.high - single.low)

"""Percentiles: ranks over their number, equal scores alike, as counted one by one."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crane_ray.errors import ConfigError
from crane_ray.maps.percentiles import percentiles

SCORES = st.lists(st.integers(-5, 5).map(float), min_size=1, max_size=40)


def counted(score: float, reference: list[float]) -> float:
    """The mean rank among equals, or the number below, over the number of references."""
    ranks = [rank for rank, other in enumerate(sorted(reference), 1) if other == score]
    rank = sum(ranks) / len(ranks) if ranks else sum(other < score for other in reference)
    return rank / len(reference)


@given(SCORES, SCORES)
def test_each_is_what_counting_gives(scores: list[float], reference: list[float]) -> None:
    own = percentiles(np.array(scores))
    np.testing.assert_allclose(own, [counted(score, scores) for score in scores], rtol=1e-15)
    other = percentiles(np.array(scores), np.array(reference))
    np.testing.assert_allclose(other, [counted(score, reference) for score in scores], rtol=1e-15)


@given(SCORES, SCORES)
def test_they_lie_between_0_and_1_and_keep_the_order(
    scores: list[float], reference: list[float]
) -> None:
    for found in (
        percentiles(np.array(scores)),
        percentiles(np.array(scores), np.array(reference)),
    ):
        assert found.min() >= 0
        assert found.max() <= 1
        order = np.argsort(scores, kind="stable")
        assert (np.diff(found[order]) >= 0).all()


@given(SCORES)
def test_they_do_not_depend_on_the_scale_of_scores(scores: list[float]) -> None:
    raw = np.array(scores)
    np.testing.assert_array_equal(percentiles(raw), percentiles(np.exp(raw)))
    np.testing.assert_array_equal(percentiles(raw), percentiles(raw, raw))


def test_the_highest_of_different_scores_has_1() -> None:
    np.testing.assert_array_equal(percentiles(np.array([3.0, 1.0, 2.0, 0.0])), [1, 0.5, 0.75, 0.25])


def test_what_has_no_percentile_is_refused() -> None:
    assert len(percentiles(np.zeros(0))) == 0
    with pytest.raises(ConfigError, match="no numbers"):
        percentiles(np.array([1.0, np.nan]))
    with pytest.raises(ConfigError, match="no numbers"):
        percentiles(np.array([1.0]), np.array([np.nan]))
    with pytest.raises(ConfigError, match="at least one"):
        percentiles(np.array([1.0]), np.zeros(0))

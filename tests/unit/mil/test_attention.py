"""Softmax, maxima and sums over packed bags; attention networks under them."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from crane_ray.mil.attention import GatedAttention, PlainAttention, attend
from crane_ray.mil.segments import Segments

SIZES = st.lists(st.integers(1, 9), min_size=1, max_size=7)
CPU = torch.device("cpu")


def scores(rows: int, sizes: list[int], seed: int, scale: float = 1.0) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    return torch.from_numpy(scale * rng.normal(size=(rows, sum(sizes))))


@settings(max_examples=40, deadline=None)
@given(sizes=SIZES, seed=st.integers(0, 999), scale=st.sampled_from([1e-3, 1.0, 1e4]))
def test_softmax_is_each_bags_own(sizes: list[int], seed: int, scale: float) -> None:
    scores_HN = scores(3, sizes, seed, scale)
    found = Segments.of(sizes, CPU).softmax(scores_HN)
    ends = np.cumsum(sizes)[:-1].tolist()
    for own, bag in zip(
        np.split(found.numpy(), ends, 1), np.split(scores_HN.numpy(), ends, 1), strict=True
    ):
        e = np.exp(bag - bag.max(axis=1, keepdims=True))
        np.testing.assert_allclose(own, e / e.sum(axis=1, keepdims=True), rtol=1e-12, atol=1e-300)


def test_softmax_of_float32_neither_overflows_nor_vanishes() -> None:
    scores_HN = torch.tensor([[3e38, 3e38, -3e38, -3e38, -3e38]])
    found = Segments.of([2, 3], CPU).softmax(scores_HN)
    torch.testing.assert_close(found, torch.tensor([[0.5, 0.5, 1 / 3, 1 / 3, 1 / 3]]))


@settings(max_examples=40, deadline=None)
@given(sizes=SIZES, seed=st.integers(0, 999))
def test_sums_are_the_same_both_ways(sizes: list[int], seed: int) -> None:
    segments = Segments.of(sizes, CPU)
    weights_HN, hidden_NE = scores(2, sizes, seed), scores(5, sizes, seed + 1).T
    expected = np.stack(
        [
            weights_HN[:, segments.bag_N == place].numpy()
            @ hidden_NE[segments.bag_N == place].numpy()
            for place in range(len(sizes))
        ]
    )
    for pool in (segments.pool, segments.pool_by_bag, segments.pool_at_once):
        np.testing.assert_allclose(pool(weights_HN, hidden_NE).numpy(), expected, atol=1e-12)


@settings(max_examples=40, deadline=None)
@given(sizes=SIZES, seed=st.integers(0, 999))
def test_argmax_is_each_bags_first_highest(sizes: list[int], seed: int) -> None:
    values_N = scores(1, sizes, seed)[0].round()  # many of them tie
    found = Segments.of(sizes, CPU).argmax(values_N).tolist()
    ends = np.cumsum(sizes)
    expected = [
        int(end - size + np.argmax(values_N.numpy()[end - size : end]))
        for end, size in zip(ends, sizes, strict=True)
    ]
    assert found == expected


def test_nan_stays_with_its_bag() -> None:
    segments = Segments.of([2, 2], CPU)
    scores_HN = torch.tensor([[0.0, 1.0, torch.nan, 1.0]])
    attention_HN = segments.softmax(scores_HN)
    assert attention_HN.isnan().tolist() == [[False, False, True, True]]
    assert segments.argmax(scores_HN[0]).tolist() == [1, 2]
    pooled_BHE = segments.pool_by_bag(attention_HN, torch.ones(4, 3))
    assert pooled_BHE.isnan().any(dim=2).tolist() == [[False], [True]]


@pytest.mark.parametrize("kind", [GatedAttention, PlainAttention])
@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_dropout_works_in_training_alone(
    kind: type[GatedAttention] | type[PlainAttention], dropout: float
) -> None:
    torch.manual_seed(0)
    attention = kind(6, 64, 2, dropout)
    hidden_NE = torch.randn(5, 6)
    in_training = [attention.train()(hidden_NE) for _ in range(2)]
    assert torch.equal(*in_training) == (dropout == 0)
    in_evaluation = [attention.eval()(hidden_NE) for _ in range(2)]
    assert torch.equal(*in_evaluation)


def test_gradients_of_packed_softmax_are_right() -> None:
    scores_HN = scores(2, [3, 1, 4], 5).requires_grad_()
    hidden_NE = scores(3, [3, 1, 4], 6).T.contiguous().requires_grad_()

    def pooled(scores_HN: torch.Tensor, hidden_NE: torch.Tensor) -> torch.Tensor:
        return attend(scores_HN, hidden_NE, [3, 1, 4])[1]

    assert torch.autograd.gradcheck(pooled, (scores_HN, hidden_NE))

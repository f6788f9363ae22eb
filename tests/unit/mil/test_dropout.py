"""Dropout on a CPU: independent, unbiased, scaled, and repeatable."""

import numpy as np
import pytest
import torch
from torch.func import vmap

from crane_ray.mil.dropout import Dropout, keep_mask

SIDE = 1000


def seeded_mask(share: float, dtype: torch.dtype = torch.float64, seed: int = 0) -> torch.Tensor:
    torch.manual_seed(seed)
    return keep_mask(torch.empty(SIDE, SIDE, dtype=dtype), share)


@pytest.mark.parametrize("share", [0.25, 0.5, 0.1, 0.3, 1 / 256, 255 / 256, 0.9])
def test_the_share_is_dropped_and_the_mean_stays(share: float) -> None:
    mask = seeded_mask(share)
    found = (mask == 0).double().mean().item()
    deviation = np.sqrt(share * (1 - share)) / SIDE
    assert abs(found - share) < 5 * deviation
    scale = mask.max().item()
    assert set(mask.flatten().tolist()) == {0.0, scale}
    assert scale == pytest.approx(1 / (1 - share), rel=1e-3)
    assert abs(mask.mean().item() - 1) < 5 * deviation * scale


def test_a_share_below_the_finest_level_still_drops_without_bias() -> None:
    mask = seeded_mask(1e-9)
    assert mask.max().item() == pytest.approx(65536 / 65535, rel=1e-12)
    assert 0 < (mask == 0).sum().item() < 100


@pytest.mark.parametrize("share", [0.25, 0.3])
def test_values_are_dropped_independently(share: float) -> None:
    """Of neighbours, of the eight values of a word, of other rows, and of the next call."""
    dropped = (seeded_mask(share) == 0).double().numpy().ravel() - share
    again = (keep_mask(torch.empty(SIDE, SIDE), share) == 0).double().numpy().ravel() - share
    num, variance = len(dropped), share * (1 - share)
    for lag in (1, 2, 3, 4, 5, 6, 7, 8, 16, 624, SIDE):
        correlation = (dropped[:-lag] * dropped[lag:]).mean() / variance
        assert abs(correlation) < 5 / np.sqrt(num), lag
    assert abs((dropped * again).mean() / variance) < 5 / np.sqrt(num)
    by_place = dropped[: num // 8 * 8].reshape(-1, 8).mean(axis=0)
    assert np.abs(by_place).max() < 5 * np.sqrt(variance * 8 / num)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_values_and_gradients_meet_the_same_mask(dtype: torch.dtype) -> None:
    values = torch.full((37, 5), 3.0, dtype=dtype, requires_grad=True)
    torch.manual_seed(1)
    found = Dropout(0.25)(values)
    torch.manual_seed(1)
    mask = keep_mask(values, 0.25)
    assert found.dtype == dtype
    assert torch.equal(found, values * mask)
    found.sum().backward()
    assert values.grad is not None
    assert torch.equal(values.grad, mask)


def test_nothing_is_dropped_in_evaluation_or_of_nothing() -> None:
    values = torch.rand(4, 3)
    assert Dropout(0.5).eval()(values) is values
    assert torch.equal(Dropout(0.0)(values), values)
    assert Dropout(0.5)(torch.empty(0, 3)).shape == (0, 3)


def test_the_generator_of_torch_decides() -> None:
    assert torch.equal(seeded_mask(0.25, seed=3), seeded_mask(0.25, seed=3))
    assert not torch.equal(seeded_mask(0.25, seed=3), seeded_mask(0.25, seed=4))


def test_networks_of_a_batch_draw_their_own() -> None:
    weights = torch.ones(2, 4, 64)
    drop = Dropout(0.5)
    found = vmap(lambda one: drop(torch.ones(32, 4) @ one), randomness="different")(weights)
    assert not torch.equal(found[0], found[1])
    assert {0.0, 8.0} == set(found.flatten().tolist())

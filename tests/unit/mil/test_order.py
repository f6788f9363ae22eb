from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crane_ray.cohort.tasks import MISSING
from crane_ray.mil.order import draw_counts, epoch_draws, epoch_order

UNIVERSES = st.lists(st.text("abc123", min_size=1, max_size=4), unique=True, max_size=30).map(
    sorted
)
SEEDS = st.integers(0, 1000)


@settings(max_examples=50, deadline=None)
@given(UNIVERSES, SEEDS, SEEDS)
def test_an_epoch_sees_every_bag_once(universe: list[str], seed: int, epoch: int) -> None:
    counts = draw_counts(dict.fromkeys(universe, 0), seed=seed, epoch=epoch, weighted=False)
    order = epoch_order(counts, seed=seed, epoch=epoch)
    assert sorted(order) == universe


@settings(max_examples=100, deadline=None)
@given(UNIVERSES.flatmap(lambda ids: st.tuples(st.just(ids), st.data())), SEEDS, SEEDS)
def test_a_fold_sees_its_bags_in_the_order_of_the_whole_cohort(
    universe_and_data: tuple[list[str], st.DataObject], seed: int, epoch: int
) -> None:
    universe, data = universe_and_data
    counts = {bag: data.draw(st.integers(0, 4)) for bag in universe}
    part = {bag: data.draw(st.integers(0, counts[bag])) for bag in universe}
    whole = epoch_draws(counts, seed=seed, epoch=epoch)
    order = epoch_order(part, seed=seed, epoch=epoch)
    assert order == [bag for bag, number in whole if number < part[bag]]
    assert Counter(order) == Counter({bag: count for bag, count in part.items() if count})


def test_orders_depend_on_seed_and_epoch_and_on_nothing_else() -> None:
    universe = [f"s{number:02}" for number in range(20)]
    counts = dict.fromkeys(universe, 1)
    orders = {
        (seed, epoch): tuple(epoch_order(counts, seed=seed, epoch=epoch))
        for seed in range(3)
        for epoch in range(3)
    }
    assert len(set(orders.values())) == 9
    np.random.seed(3)
    backwards = dict(reversed(counts.items()))
    assert orders[1, 2] == tuple(epoch_order(backwards, seed=1, epoch=2))


def test_every_place_is_equally_likely_for_a_bag() -> None:
    universe = ["a", "b", "c", "d"]
    places = Counter(
        epoch_order(dict.fromkeys(universe, 1), seed=1, epoch=epoch).index("a")
        for epoch in range(4000)
    )
    assert all(abs(places[place] / 4000 - 0.25) < 0.03 for place in range(4))


def test_weighted_sampling_draws_every_class_equally_often() -> None:
    classes = {f"s{number}": 0 if number < 90 else 1 + number % 2 for number in range(100)}
    drawn = Counter[int]()
    for epoch in range(300):
        counts = draw_counts(classes, seed=2, epoch=epoch, weighted=True)
        assert sum(counts.values()) == 100
        assert min(counts.values()) > 0
        for bag, count in counts.items():
            drawn[classes[bag]] += count
    assert all(drawn[name] / 30_000 == pytest.approx(1 / 3, abs=0.02) for name in range(3))


def test_weighted_sampling_draws_bags_without_a_class_as_often_as_they_are_frequent() -> None:
    classes = {f"s{number}": (MISSING, 0, 0, 0, 1)[number % 5] for number in range(100)}
    drawn = Counter[int]()
    for epoch in range(300):
        for bag, count in draw_counts(classes, seed=0, epoch=epoch, weighted=True).items():
            drawn[classes[bag]] += count
    assert drawn[MISSING] / 30_000 == pytest.approx(0.2, abs=0.02)
    assert drawn[0] / 30_000 == pytest.approx(0.4, abs=0.02)
    assert drawn[1] / 30_000 == pytest.approx(0.4, abs=0.02)
    nothing = dict.fromkeys("ab", MISSING)
    assert sum(draw_counts(nothing, seed=0, epoch=0, weighted=True).values()) == 2


def test_bags_that_are_drawn_often_lie_anywhere_in_the_epoch() -> None:
    universe = [f"s{number:02}" for number in range(40)]
    counts = {bag: 10 if bag == "s00" else 1 for bag in universe}
    late = sum(epoch_order(counts, seed=4, epoch=epoch)[24:].count("s00") for epoch in range(200))
    assert late / 2000 == pytest.approx(25 / 49, abs=0.05)

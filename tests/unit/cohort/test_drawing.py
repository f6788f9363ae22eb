import math
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crane_ray.cohort.cohort import read_cohort
from crane_ray.cohort.drawing import (
    CLAM_SHARES,
    CRANE_SHARES,
    PARTS,
    CaseFold,
    Shares,
    draw_held_out,
    draw_monte_carlo,
)
from crane_ray.cohort.splits import read_splits
from crane_ray.cohort.strata import Strata, strata_of_tasks
from crane_ray.cohort.tasks import load_task_set
from crane_ray.errors import ConfigError
from tests.unit.cohort.small_strata import any_strata, strata_of
from tests.unit.cohort.tables import SHARED

Names = dict[str, list[str]]


def named(strata: Strata, fold: CaseFold) -> Names:
    return {part: [strata.case_ids[case] for case in fold.part(part)] for part in PARTS}


def by_the_book(
    strata: Strata, shares: Shares, k: int, seed: int, label_frac: float, *, hold_out: bool
) -> Iterator[Names]:
    """The algorithm as it is described, on names, with numpy's global generator."""
    state = np.random.get_state()
    rule = math.floor if shares.rounding == "floor" else round
    groups = [
        sorted(
            case for case, own in zip(strata.case_ids, strata.stratum_C, strict=True) if own == s
        )
        for s in range(len(strata.names))
    ]
    kept: list[str] = []
    if hold_out:
        np.random.seed(seed)
        for group in groups:
            if group:
                kept += list(np.random.choice(group, rule(len(group) * shares.test), replace=False))
    np.random.seed(seed)
    for _ in range(k):
        fold: Names = {"train": [], "val": [], "test": list(kept)}
        for group in groups:
            left = sorted(set(group) - set(kept))
            if not left:
                continue
            val = np.random.choice(left, rule(len(group) * shares.val), replace=False)
            left = sorted(set(left) - set(val))
            test: list[str] = []
            if not hold_out and left:
                wanted = rule(len(group) * shares.test)
                test = list(np.random.choice(left, wanted, replace=False))
            left = sorted(set(left) - set(test))
            fold["val"] += list(val)
            fold["test"] += test
            fold["train"] += left[: math.ceil(len(left) * label_frac)]
        yield {part: [str(name) for name in names] for part, names in fold.items()}
    np.random.set_state(state)


@pytest.mark.parametrize("shares", [CRANE_SHARES, CLAM_SHARES], ids=["crane", "clam"])
@pytest.mark.parametrize("hold_out", [False, True])
@pytest.mark.parametrize("label_frac", [1.0, 0.25])
def test_folds_are_those_of_the_algorithm_as_described(
    shares: Shares, hold_out: bool, label_frac: float
) -> None:
    strata = strata_of(33, 15, 25, 8, 0)
    held_out = draw_held_out(strata, shares, 7) if hold_out else None
    folds = draw_monte_carlo(strata, shares, k=3, seed=7, label_frac=label_frac, held_out=held_out)
    expected = list(by_the_book(strata, shares, 3, 7, label_frac, hold_out=hold_out))
    assert [named(strata, fold) for fold in folds] == expected


@pytest.mark.skipif(not SHARED.exists(), reason="no CRANE splits in ../shared/data")
@pytest.mark.parametrize(("table", "task"), [("MTL", "cardiac-mtl"), ("Grade", "cardiac-grade")])
def test_cranes_published_splits_come_out(table: str, task: str) -> None:
    cohort = read_cohort(
        str(SHARED / f"crane/CardiacDummy_{table}Split.csv"), load_task_set(f"{task}-strata")
    )
    strata, slides = strata_of_tasks(cohort), cohort.case_slides()
    (fold,) = draw_monte_carlo(strata, CRANE_SHARES, k=1, seed=1)
    published = read_splits(str(SHARED / f"crane/splits/{task}_100"))[0]
    for part in PARTS:
        drawn = [slide for case in named(strata, fold)[part] for slide in slides[case]]
        assert tuple(drawn) == published.part(part)


@settings(deadline=None, max_examples=40)
@given(any_strata(), st.integers(0, 2**32 - 1), st.sampled_from([CRANE_SHARES, CLAM_SHARES]))
def test_no_patient_is_in_two_parts_and_shares_are_exact(
    strata: Strata, seed: int, shares: Shares
) -> None:
    for fold in draw_monte_carlo(strata, shares, k=2, seed=seed):
        together = np.concatenate([fold.part(part) for part in PARTS])
        assert sorted(together) == list(range(len(strata.case_ids)))
        for own, (num_val, num_test) in zip(strata.members(), shares.counts(strata), strict=True):
            assert len(np.intersect1d(own, fold.val)) == num_val
            assert len(np.intersect1d(own, fold.test)) == num_test


@settings(deadline=None, max_examples=40)
@given(any_strata(), st.integers(0, 1000))
def test_a_held_out_test_part_is_the_same_in_all_folds_and_in_nothing_else(
    strata: Strata, seed: int
) -> None:
    held_out = draw_held_out(strata, CRANE_SHARES, seed)
    for fold in draw_monte_carlo(strata, CRANE_SHARES, k=3, seed=seed, held_out=held_out):
        assert fold.test.tolist() == held_out
        assert not set(held_out) & {*fold.train.tolist(), *fold.val.tolist()}
        assert len(fold.train) + len(fold.val) + len(held_out) == len(strata.case_ids)


def test_numpys_own_generator_is_neither_used_nor_changed() -> None:
    strata = strata_of(30, 30)

    def draw() -> list[Names]:
        folds = draw_monte_carlo(strata, CRANE_SHARES, k=2, seed=3)
        return [named(strata, fold) for fold in folds]

    np.random.seed(11)
    first = draw()
    number = np.random.random()
    np.random.seed(11)
    assert np.random.random() == number
    assert draw() == first


def test_folds_and_seeds_differ() -> None:
    strata = strata_of(30, 30)
    folds = [
        tuple(fold.test.tolist())
        for seed in (1, 2)
        for fold in draw_monte_carlo(strata, CRANE_SHARES, k=2, seed=seed)
    ]
    assert len(set(folds)) == 4


def test_crane_cuts_off_and_clam_rounds_half_to_even() -> None:
    strata = strata_of(9, 15, 25)
    assert CRANE_SHARES.counts(strata) == [(0, 1), (1, 3), (2, 5)]
    assert CLAM_SHARES.counts(strata) == [(1, 1), (2, 2), (2, 2)]


def test_a_stratum_too_small_for_its_shares_is_named() -> None:
    with pytest.raises(ConfigError, match="stratum stratum-0: 3 cases cannot give 2 to val"):
        list(draw_monte_carlo(strata_of(3), Shares(0.6, 0.6, "round"), k=1, seed=1))


def test_val_may_not_need_more_than_a_held_out_set_leaves() -> None:
    with pytest.raises(ConfigError, match="5 cases of a stratum are to go to val, 4 are left"):
        list(
            draw_monte_carlo(
                strata_of(10), Shares(0.5, 0.1, "floor"), k=1, seed=1, held_out=range(6)
            )
        )

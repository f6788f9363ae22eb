import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from crane_ray.cohort.drawing import PARTS, CaseFold
from crane_ray.cohort.folds import FoldPlan, balanced_parts, draw_folds, draw_locked
from crane_ray.cohort.strata import Strata
from crane_ray.errors import ConfigError
from tests.unit.cohort.small_strata import any_strata, strata_of


def counts(strata: Strata, cases: np.ndarray) -> list[int]:
    return [int(np.count_nonzero(strata.stratum_C[cases] == s)) for s in range(len(strata.names))]


def same(one: list[CaseFold], other: list[CaseFold]) -> bool:
    pairs = zip(one, other, strict=True)
    return all(np.array_equal(a.part(part), b.part(part)) for a, b in pairs for part in PARTS)


@settings(deadline=None, max_examples=40)
@given(any_strata(), st.integers(2, 6), st.integers(0, 1000))
def test_test_parts_are_disjoint_cover_everyone_and_share_strata_fairly(
    strata: Strata, k: int, seed: int
) -> None:
    assume(k <= len(strata.case_ids))
    folds = list(draw_folds(strata, FoldPlan(k, seed=seed)))
    everyone = list(range(len(strata.case_ids)))
    assert sorted(np.concatenate([fold.test for fold in folds])) == everyone
    for fold in folds:
        together = np.concatenate([fold.part(part) for part in PARTS])
        assert sorted(together) == everyone
        assert len(fold.val)
        assert len(fold.train)
        assert len(fold.test)
    by_stratum = np.array([counts(strata, fold.test) for fold in folds])
    assert (np.ptp(by_stratum, axis=0) <= 1).all()


@settings(deadline=None, max_examples=40)
@given(any_strata(least=3), st.integers(2, 5), st.sampled_from([0.1, 0.2, 0.3]))
def test_val_has_its_share_of_each_stratum(strata: Strata, k: int, share: float) -> None:
    assume(k <= len(strata.case_ids))
    for fold in draw_folds(strata, FoldPlan(k, val_frac=share)):
        rest = np.concatenate([fold.train, fold.val])
        for own, drawn, left in zip(
            strata.members(), counts(strata, fold.val), counts(strata, rest), strict=True
        ):
            assert drawn == min(max(round(len(own) * share), 1), max(left - 1, 0))


def test_strata_of_two_do_not_make_val_large() -> None:
    strata = strata_of(*[2] * 30, 40)
    for fold in draw_folds(strata, FoldPlan(5)):
        assert len(fold.val) == 4


def test_val_is_drawn_from_anybody_where_all_strata_are_small() -> None:
    for fold in draw_folds(strata_of(1, 1, 2, 1, 2), FoldPlan(3)):
        assert len(fold.val) == 1


@settings(deadline=None, max_examples=40)
@given(any_strata(), st.integers(0, 100))
def test_the_same_seed_draws_the_same_whatever_numpys_state(strata: Strata, seed: int) -> None:
    assert same(
        list(draw_folds(strata, FoldPlan(2, seed=seed, label_frac=0.5))),
        list(draw_folds(strata, FoldPlan(2, seed=seed, label_frac=0.5))),
    )


def test_another_seed_draws_others() -> None:
    strata = strata_of(20, 20)
    one, other = (list(draw_folds(strata, FoldPlan(4, seed=seed))) for seed in (1, 2))
    assert not same(one, other)


@settings(deadline=None, max_examples=40)
@given(any_strata(least=1), st.floats(0.01, 1))
def test_label_frac_thins_each_stratum_of_train_alone(strata: Strata, share: float) -> None:
    whole = draw_folds(strata, FoldPlan(2))
    first = next(whole)
    thin = next(draw_folds(strata, FoldPlan(2, label_frac=share)))
    assert np.array_equal(first.test, thin.test)
    assert np.array_equal(first.val, thin.val)
    assert set(thin.train.tolist()) <= set(first.train.tolist())
    for before, after in zip(counts(strata, first.train), counts(strata, thin.train), strict=True):
        assert after == math.ceil(before * share)


@settings(deadline=None, max_examples=40)
@given(st.data())
def test_a_site_is_in_one_test_part_only(data: st.DataObject) -> None:
    strata = data.draw(any_strata(least=2))
    names = data.draw(
        st.lists(
            st.sampled_from("ABCDEFGH"),
            min_size=len(strata.case_ids),
            max_size=len(strata.case_ids),
        )
    )
    sites = dict(zip(strata.case_ids, names, strict=True))
    k = data.draw(st.integers(2, 3))
    assume(len(set(names)) >= k)
    folds = list(draw_folds(strata, FoldPlan(k), sites=sites))
    where: dict[str, set[int]] = {}
    for number, fold in enumerate(folds):
        assert len(fold.test)
        for case in fold.test:
            where.setdefault(sites[strata.case_ids[case]], set()).add(number)
    assert all(len(own) == 1 for own in where.values())
    assert sum(len(fold.test) for fold in folds) == len(strata.case_ids)


def test_sites_are_dealt_so_that_labels_balance() -> None:
    # two sites of each kind: those of a kind must not come together
    counts_GS = np.array([[10, 0], [10, 0], [0, 10], [0, 10]], dtype=float)
    for seed in range(5):
        part_G = balanced_parts(counts_GS, 2, np.random.default_rng(seed))
        assert part_G[0] != part_G[1]
        assert part_G[2] != part_G[3]


def test_too_few_cases_or_sites_for_the_folds() -> None:
    with pytest.raises(ConfigError, match="-k 5: there are 4 cases"):
        list(draw_folds(strata_of(4), FoldPlan(5)))
    strata = strata_of(10)
    with pytest.raises(ConfigError, match="-k 3: there are 2 sites"):
        sites = {case: "AB"[place % 2] for place, case in enumerate(strata.case_ids)}
        list(draw_folds(strata, FoldPlan(3), sites=sites))


@settings(deadline=None, max_examples=40)
@given(any_strata(least=4), st.integers(2, 3))
def test_a_locked_test_set_is_every_folds_test_and_the_others_take_turns_as_val(
    strata: Strata, k: int
) -> None:
    locked = draw_locked(strata, 0.25, 1)
    folds = list(draw_folds(strata, FoldPlan(k), locked=locked))
    others = sorted(set(range(len(strata.case_ids))) - set(locked))
    assert sorted(np.concatenate([fold.val for fold in folds])) == others
    for fold in folds:
        assert fold.test.tolist() == sorted(locked)
        assert sorted([*fold.train, *fold.val]) == others


def test_a_locked_fraction_is_one_of_each_stratum() -> None:
    strata = strata_of(50, 30, 10)
    assert counts(strata, np.array(draw_locked(strata, 0.2, 3))) == [10, 6, 2]


def test_a_locked_fraction_of_sites_takes_whole_sites() -> None:
    strata = strata_of(30, 30)
    sites = {case: f"site-{place % 12}" for place, case in enumerate(strata.case_ids)}
    locked = draw_locked(strata, 0.25, 1, sites)
    inside = {sites[strata.case_ids[case]] for case in locked}
    outside = {sites[case] for case in strata.case_ids} - inside
    assert len(locked) == 15
    assert {sites[strata.case_ids[case]] for case in range(60) if case not in locked} == outside


def test_a_fraction_that_locks_nobody_is_refused() -> None:
    with pytest.raises(ConfigError, match="would lock 0 of 1 cases"):
        draw_locked(strata_of(1), 0.5, 1)
    with pytest.raises(ConfigError, match="all cases are of one site"):
        draw_locked(strata_of(2), 0.5, 1, {"case-0": "A", "case-1": "A"})

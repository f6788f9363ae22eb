"""Cross-validation folds: disjoint test parts that cover every case, strata in equal shares.

Shapes: G groups of cases (cases, or sites), S strata.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from crane_ray.cohort.drawing import PARTS, CaseFold, Cases
from crane_ray.cohort.strata import Strata
from crane_ray.errors import ConfigError

Counts = npt.NDArray[np.float64]


@dataclass(frozen=True)
class FoldPlan:
    """What folds should be like."""

    k: int
    val_frac: float = 0.1
    """Share of all cases of a stratum that goes to val."""
    label_frac: float = 1.0
    """Share of a stratum's training cases that stays."""
    seed: int = 1


def draw_folds(
    strata: Strata,
    plan: FoldPlan,
    *,
    sites: Mapping[str, str] | None = None,
    locked: Sequence[int] = (),
) -> Iterator[CaseFold]:
    """Folds of a stratified group k-fold: the group is the case, or its site.

    Fold i's test part is the i-th of k parts of all cases; val is drawn from the rest by strata,
    the remainder trains. With a locked test set the k parts are of the other cases and take turns
    as val, and the locked set is every fold's test part.

    Args:
        strata: the cases and their strata.
        plan: number of folds, shares and seed.
        sites: each case's site, where those of a site are to stay in one of the k parts. Val and
            train may share sites (val chooses the epoch, test is what generalises).
        locked: the cases of a locked test set.

    Raises:
        ConfigError: there are fewer cases or sites than folds.
    """
    rng = np.random.default_rng(plan.seed)
    free = np.setdiff1d(np.arange(len(strata.case_ids)), np.array(locked, dtype=np.int64))
    fold_C = np.full(len(strata.case_ids), -1)
    fold_C[free] = _deal(strata, free, plan.k, rng, sites)
    for fold in range(plan.k):
        part, rest = np.flatnonzero(fold_C == fold), free[fold_C[free] != fold]
        if len(locked):
            train, val, test = rest, part, np.array(sorted(locked), dtype=np.int64)
        else:
            val = _drawn(strata, rest, plan.val_frac, rng)
            train, test = np.setdiff1d(rest, val), part
        yield CaseFold(_thinned(strata, train, plan.label_frac, rng), val, test)


def draw_locked(
    strata: Strata, fraction: float, seed: int, sites: Mapping[str, str] | None = None
) -> list[int]:
    """A test set to be locked away: about a fraction of each stratum, or of the sites' cases.

    Raises:
        ConfigError: the fraction leaves nothing on one side.
    """
    rng = np.random.default_rng([seed, 0x10C])
    everyone = np.arange(len(strata.case_ids))
    if sites is not None and len(set(sites.values())) < 2:
        raise ConfigError(
            f"--locked-test {fraction:g}: all cases are of one site, and whole sites are locked "
            "with --method sites; use --method kfold"
        )
    if sites is None:
        locked = _drawn(strata, everyone, fraction, rng)
    else:
        parts = max(2, min(round(1 / fraction), len(set(sites.values()))))
        part_C = _deal(strata, everyone, parts, rng, sites)
        sizes = np.bincount(part_C, minlength=parts)
        locked = everyone[part_C == np.abs(sizes / len(everyone) - fraction).argmin()]
    if not 0 < len(locked) < len(everyone):
        raise ConfigError(
            f"--locked-test {fraction:g}: would lock {len(locked)} of {len(everyone)} cases; "
            "there must be some on either side"
        )
    return [int(case) for case in locked]


def balanced_parts(counts_GS: Counts, k: int, rng: np.random.Generator) -> Cases:
    """(G,) the part, of k, of each group, so that parts have equal shares of each stratum.

    Greedy, the largest groups first, equals in random order: a group goes where it adds the least
    to the sum of squares of the shares, then where there are the fewest cases. For groups of one
    case a stratum's counts differ by at most one between parts.

    Args:
        counts_GS: (G, S) cases of each stratum in each group.
        k: number of parts.
        rng: breaks ties among equals.
    """
    share_GS = counts_GS / np.maximum(counts_GS.sum(axis=0), 1)
    sizes = counts_GS.sum(axis=1)
    shuffled = rng.permutation(len(sizes))
    order = shuffled[np.argsort(-sizes[shuffled], kind="stable")]
    held_KS, cases_K = np.zeros((k, counts_GS.shape[1])), np.zeros(k)
    part_G = np.empty(len(sizes), dtype=np.int64)
    for group in order:
        growth_K = (2 * held_KS + share_GS[group]) @ share_GS[group]
        cheapest = np.flatnonzero(growth_K <= growth_K.min() + 1e-12)
        part = cheapest[cases_K[cheapest].argmin()]
        part_G[group] = part
        held_KS[part] += share_GS[group]
        cases_K[part] += sizes[group]
    return part_G


def _deal(
    strata: Strata,
    cases: Cases,
    k: int,
    rng: np.random.Generator,
    sites: Mapping[str, str] | None,
) -> Cases:
    """The part of each of the cases; those of a site stay together."""
    names = [strata.case_ids[case] for case in cases]
    groups = names if sites is None else [sites[name] for name in names]
    known, group_of = np.unique(np.array(groups, dtype=object).astype(str), return_inverse=True)
    if len(known) < k:
        what = "cases" if sites is None else "sites"
        raise ConfigError(
            f"-k {k}: there are {len(known)} {what}, and each of the {k} folds needs one of its "
            "own; draw fewer folds"
        )
    counts_GS = np.zeros((len(known), len(strata.names)))
    np.add.at(counts_GS, (group_of, strata.stratum_C[cases]), 1)
    return balanced_parts(counts_GS, k, rng)[group_of]


def _drawn(strata: Strata, cases: Cases, share: float, rng: np.random.Generator) -> Cases:
    """Of each stratum a share of all its cases, out of those given; at least one of three.

    Where every stratum is too small for that, any of the cases.
    """
    drawn = [np.empty(0, dtype=np.int64)]
    for own in strata.members():
        there = np.intersect1d(own, cases)
        wanted = max(round(len(own) * share), int(share > 0 and len(own) >= len(PARTS)))
        drawn.append(rng.permutation(there)[: min(wanted, max(len(there) - 1, 0))])
    together = np.concatenate(drawn)
    if share > 0 and not len(together):
        wanted = max(round(len(strata.case_ids) * share), 1)
        together = rng.permutation(cases)[: min(wanted, len(cases) - 1)]
    return np.sort(together)


def _thinned(strata: Strata, cases: Cases, share: float, rng: np.random.Generator) -> Cases:
    """Of each stratum a share of the cases given, rounded up."""
    if share == 1:
        return cases
    kept = [np.empty(0, dtype=np.int64)]
    for own in strata.members():
        there = np.intersect1d(own, cases)
        kept.append(rng.permutation(there)[: math.ceil(len(there) * share)])
    return np.sort(np.concatenate(kept))

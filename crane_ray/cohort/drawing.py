"""CRANE's and CLAM's way to draw splits, number by number, so that old experiments repeat.

Patients are the sorted unique case_ids, drawn stratum by stratum with numpy's legacy generator,
seeded once; slides follow their patient. Folds are drawn anew each time (Monte Carlo), so that
their test parts overlap: k of them are no k-fold cross-validation.

Sources: Lu et al. 2021 (CLAM), Lipkova et al. 2022 (CRANE); their published split files. Deviation:
the generator is our own of the same stream, so that a caller's numpy state is neither used nor
changed.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from crane_ray.cohort.strata import Strata
from crane_ray.errors import ConfigError

Cases = npt.NDArray[np.int64]
Part = Literal["train", "val", "test"]
PARTS: tuple[Part, ...] = ("train", "val", "test")


@dataclass(frozen=True, eq=False)
class CaseFold:
    """The cases of a fold's parts, as places in the strata's case_ids, in the order drawn."""

    train: Cases
    val: Cases
    test: Cases

    def part(self, name: Part) -> Cases:
        """The cases of one part."""
        return {"train": self.train, "val": self.val, "test": self.test}[name]


@dataclass(frozen=True)
class Shares:
    """How many cases of a stratum are drawn for val and test."""

    val: float
    test: float
    rounding: Literal["floor", "round"]
    """CRANE cuts off, CLAM rounds (half to even)."""

    def counts(self, strata: Strata) -> list[tuple[int, int]]:
        """(val, test) cases of each stratum.

        Raises:
            ConfigError: a stratum has too few cases.
        """
        rule = np.floor if self.rounding == "floor" else np.round
        counts = []
        for name, own in zip(strata.names, strata.members(), strict=True):
            num_val, num_test = int(rule(len(own) * self.val)), int(rule(len(own) * self.test))
            if num_val + num_test > len(own):
                raise ConfigError(
                    f"stratum {name}: {len(own)} cases cannot give {num_val} to val and {num_test} "
                    "to test; lower --val-frac or --test-frac"
                )
            counts.append((num_val, num_test))
        return counts


CRANE_SHARES = Shares(0.1, 0.2, "floor")
CLAM_SHARES = Shares(0.1, 0.1, "round")


def draw_monte_carlo(
    strata: Strata,
    shares: Shares,
    *,
    k: int,
    seed: int,
    label_frac: float = 1.0,
    held_out: Sequence[int] | None = None,
) -> Iterator[CaseFold]:
    """Folds as CRANE and CLAM draw them.

    Args:
        strata: the cases and their strata.
        shares: what goes to val and test.
        k: number of folds.
        seed: of the generator, for all folds together.
        label_frac: of each stratum's training cases only the first share stays.
        held_out: cases that are every fold's test part and are drawn for no other; without them
            each fold draws its own.

    Raises:
        ConfigError: a stratum has too few cases.
    """
    counts = shares.counts(strata)
    generator = np.random.RandomState(seed)
    kept_apart = np.array(held_out or (), dtype=np.int64)
    open_cases = [np.setdiff1d(own, kept_apart) for own in strata.members()]
    for _ in range(k):
        train: list[Cases] = []
        val: list[Cases] = []
        test: list[Cases] = []
        for (num_val, num_test), cases in zip(counts, open_cases, strict=True):
            if num_val > len(cases):
                raise ConfigError(
                    f"{num_val} cases of a stratum are to go to val, {len(cases)} are left beside "
                    "the test set that is kept; lower --val-frac"
                )
            val.append(_choice(generator, cases, num_val))
            rest = np.setdiff1d(cases, val[-1])
            if held_out is None:
                test.append(_choice(generator, rest, num_test))
                rest = np.setdiff1d(rest, test[-1])
            train.append(rest[: math.ceil(len(rest) * label_frac)])
        fold_test = kept_apart if held_out is not None else _joined(test)
        yield CaseFold(_joined(train), _joined(val), fold_test)


def draw_held_out(strata: Strata, shares: Shares, seed: int) -> list[int]:
    """One test part for all folds: ``hold_out_test``, by patient.

    The generator is seeded for this draw and again for the folds, and the folds' val counts are
    those of all cases: so do CRANE's programs. Deviation from CLAM's: those hand the places of the
    drawn patients' slides on as if they were patients', so that with several slides a patient
    others are held out than were drawn. No published split that was drawn so is at hand: this
    rests on what the programs say, not on their files.

    Raises:
        ConfigError: a stratum has too few cases.
    """
    generator = np.random.RandomState(seed)
    drawn = [
        _choice(generator, own, num_test)
        for own, (_, num_test) in zip(strata.members(), shares.counts(strata), strict=True)
    ]
    return [int(case) for case in _joined(drawn)]


def _choice(generator: np.random.RandomState, cases: Cases, number: int) -> Cases:
    """Draws without replacement; a stratum without cases takes nothing from the generator."""
    if not len(cases):
        return cases
    return np.asarray(generator.choice(cases, number, replace=False), dtype=np.int64)


def _joined(parts: Sequence[Cases]) -> Cases:
    return np.concatenate([np.empty(0, dtype=np.int64), *parts])

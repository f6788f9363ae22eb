"""Strata: the groups of cases that every part of a split should hold in equal shares.

Shapes: C cases, S strata.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from crane_ray.cohort.cohort import CaseLabel, Cohort
from crane_ray.cohort.findings import Finding, counted
from crane_ray.cohort.tasks import MISSING
from crane_ray.errors import ConfigError

NO_LABEL = "(none)"


@dataclass(frozen=True, eq=False)
class Strata:
    """The cases of a cohort and the stratum of each."""

    case_ids: tuple[str, ...]
    """Sorted."""
    names: tuple[str, ...]
    """Of the strata, in the order in which they are drawn."""
    stratum_C: npt.NDArray[np.int64]
    """(C,) each case's place in ``names``."""

    def members(self) -> list[npt.NDArray[np.int64]]:
        """The cases (their places in case_ids, ascending) of each stratum."""
        return [np.flatnonzero(self.stratum_C == place) for place in range(len(self.names))]

    def small(self, places: Sequence[int], why: str) -> list[Finding]:
        """A warning about strata that have too few cases to be in every part.

        Args:
            places: of those strata.
            why: what they cannot be in, and what would have to be otherwise.
        """
        if not places:
            return []
        told = ", ".join(
            f"{self.names[place]} ({np.count_nonzero(self.stratum_C == place)})" for place in places
        )
        return [
            Finding(
                "warning",
                "small_strata",
                f"{counted(len(places), 'stratum', 'strata')} with too few cases for {why}: "
                f"{told}; merge strata, collect more cases, or draw fewer folds",
                tuple(self.names[place] for place in places),
            )
        ]


def strata_of_tasks(cohort: Cohort, how: CaseLabel = "max") -> Strata:
    """Strata by the label of a cohort's only task, or the combination of the labels of several.

    A single task's strata are its classes in order, also those without a case. Combinations are
    those that occur, in the order of their classes; a missing label is a value of its own.

    Args:
        cohort: the labelled slides.
        how: which label counts for a case whose slides differ.
    """
    case_ids, labels_CT = cohort.case_labels(how)
    tasks = cohort.task_set.tasks
    if len(tasks) == 1:
        return Strata(case_ids, tasks[0].classes, labels_CT[:, 0])
    combinations, stratum_C = np.unique(labels_CT, axis=0, return_inverse=True)
    names = tuple(
        " + ".join(
            f"{task.name}: {NO_LABEL}" if index == MISSING else task.classes[index]
            for task, index in zip(tasks, combination, strict=True)
        )
        for combination in combinations.tolist()
    )
    return Strata(case_ids, names, stratum_C.reshape(-1).astype(np.int64))


def strata_of_column(cohort: Cohort, column: str, how: CaseLabel = "max") -> Strata:
    """Strata by any column of the table, in the order of its sorted values.

    Args:
        cohort: the labelled slides.
        column: the column's name; an empty cell is a value of its own.
        how: which value counts for a case whose slides differ: the last in order, or the one that
            most slides have.

    Raises:
        ConfigError: there is no such column.
    """
    cells = column_of(cohort, column, "--strata")
    names = sorted(set(cells))
    place_of = {name: place for place, name in enumerate(names)}
    by_case: dict[str, list[int]] = {}
    for case, cell in zip(cohort.case_ids, cells, strict=True):
        by_case.setdefault(case, []).append(place_of[cell])
    case_ids = tuple(sorted(by_case))
    merge = max if how == "max" else _most_frequent
    stratum_C = np.array([merge(by_case[case]) for case in case_ids], dtype=np.int64)
    return Strata(case_ids, tuple(name or NO_LABEL for name in names), stratum_C)


def sites_of_cases(cohort: Cohort, column: str) -> dict[str, str]:
    """The site of each case.

    Raises:
        ConfigError: there is no such column, a slide has no site, or a case is from two.
    """
    cells = column_of(cohort, column, "--sites")
    sites: dict[str, set[str]] = {}
    for slide, case, site in zip(cohort.slide_ids, cohort.case_ids, cells, strict=True):
        if not site:
            raise ConfigError(
                f"slide {slide}: no site in column {column}; site-preserving folds need one for "
                "every slide: fill it in, or use --method kfold"
            )
        sites.setdefault(case, set()).add(site)
    several = {case: sorted(own) for case, own in sites.items() if len(own) > 1}
    if several:
        case, own = min(several.items())
        raise ConfigError(
            f"{counted(len(several), 'case')} with slides of several sites in column {column} "
            f"({case}: {', '.join(own)}); a case can be in one fold only: give each case one site"
        )
    return {case: next(iter(own)) for case, own in sites.items()}


def column_of(cohort: Cohort, column: str, flag: str) -> list[str]:
    """The cells of a column of the table.

    Raises:
        ConfigError: there is no such column.
    """
    if column not in cohort.table.columns:
        raise ConfigError(
            f"{flag} {column}: no such column in the table; there are: "
            f"{', '.join(map(str, cohort.table.columns))}"
        )
    return [str(cell) for cell in cohort.table[column]]


def _most_frequent(places: Sequence[int]) -> int:
    counts = Counter(places)
    return min(counts, key=lambda place: (-counts[place], place))

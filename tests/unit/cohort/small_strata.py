"""Strata made up for the tests of drawing."""

import numpy as np
from hypothesis import strategies as st

from crane_ray.cohort.strata import Strata


def strata_of(*sizes: int, mixed: bool = True) -> Strata:
    """Strata of these sizes; a case's place in the order of ids tells nothing of its stratum."""
    labels = np.repeat(np.arange(len(sizes)), sizes)
    if mixed:
        labels = labels[np.random.default_rng(0).permutation(len(labels))]
    width = len(str(len(labels)))
    case_ids = tuple(f"case-{number:0{width}}" for number in range(len(labels)))
    return Strata(case_ids, tuple(f"stratum-{place}" for place in range(len(sizes))), labels)


def any_strata(least: int = 0, most: int = 40) -> st.SearchStrategy[Strata]:
    sizes = st.lists(st.integers(least, most), min_size=1, max_size=5).filter(
        lambda some: sum(some) >= 4
    )
    return sizes.map(lambda some: strata_of(*some))

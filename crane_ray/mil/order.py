"""The order in which bags are seen: the same for a bag whichever folds train on it.

One permutation of the whole cohort an epoch; a fold sees the bags of its training part in that
order. So folds that train together read each bag once, and see what they would see alone.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt


def epoch_passes(
    universe: Sequence[str], *, seed: int, epoch: int, num_passes: int = 1
) -> list[list[str]]:
    """Permutations of all bags of a cohort.

    Args:
        universe: the cohort's bag ids, sorted.
        seed: of the experiment.
        epoch: counted from 0.
        num_passes: how often the most frequent bag is drawn (more than once with weighted
            sampling alone).
    """
    generator = np.random.default_rng([seed, epoch, 0])
    return [[universe[n] for n in generator.permutation(len(universe))] for _ in range(num_passes)]


def draw_counts(
    classes: Mapping[str, int], *, seed: int, epoch: int, weighted: bool
) -> dict[str, int]:
    """How often each bag of a training part is seen in an epoch.

    Args:
        classes: class of each bag, in any order.
        seed: of the experiment.
        epoch: counted from 0.
        weighted: draw as many bags as there are, with replacement, every class equally likely
            (CLAM's ``weighted_sample``); else each bag once.
    """
    bags = sorted(classes)
    if not weighted:
        return dict.fromkeys(bags, 1)
    of_class: npt.NDArray[np.int64] = np.array([classes[bag] for bag in bags])
    _, inverse, sizes = np.unique(of_class, return_inverse=True, return_counts=True)
    probabilities = 1.0 / (sizes[inverse] * len(sizes))
    generator = np.random.default_rng([seed, epoch, 1])
    counts = generator.multinomial(len(bags), probabilities / probabilities.sum())
    return {bag: int(count) for bag, count in zip(bags, counts, strict=True) if count}


def epoch_order(
    universe: Sequence[str], counts: Mapping[str, int], *, seed: int, epoch: int
) -> list[str]:
    """The bags of a training part in the order in which an epoch sees them."""
    passes = epoch_passes(
        universe, seed=seed, epoch=epoch, num_passes=max(counts.values(), default=1)
    )
    return [
        bag for number, bags in enumerate(passes) for bag in bags if counts.get(bag, 0) > number
    ]

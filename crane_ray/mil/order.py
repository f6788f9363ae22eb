"""The order in which bags are seen: the same for a bag whichever folds train on it.

One order of the whole cohort an epoch; a fold sees the bags of its training part in that order. So
folds that train together read each bag once, and see what they would see alone.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from crane_ray.cohort.tasks import MISSING


def epoch_draws(
    universe: Sequence[str], *, seed: int, epoch: int, num_draws: int = 1
) -> list[tuple[str, int]]:
    """All bags of a cohort, each with the number of the draw (0, 1, ...), in an epoch's order.

    Second and further draws of a bag lie anywhere in the order, not after all first ones: weighted
    sampling would end each epoch with bags of the rare classes alone. Asking for more draws leaves
    the order of the others as it is.

    Args:
        universe: the cohort's bag ids, sorted.
        seed: of the experiment.
        epoch: counted from 0.
        num_draws: how often the most frequent bag is drawn (more than once with weighted
            sampling alone).
    """
    generator = np.random.default_rng([seed, epoch, 0])
    keys = generator.random((num_draws, len(universe))).ravel()
    places = np.argsort(keys, kind="stable").tolist()
    return [(universe[place % len(universe)], place // len(universe)) for place in places]


def draw_counts(
    classes: Mapping[str, int], *, seed: int, epoch: int, weighted: bool
) -> dict[str, int]:
    """How often each bag of a training part is seen in an epoch.

    Args:
        classes: class index of each bag, in any order; `MISSING` where it has none.
        seed: of the experiment.
        epoch: counted from 0.
        weighted: draw as many bags as there are, with replacement, every class equally likely
            (CLAM's ``weighted_sample``), bags without a class as likely as they are frequent; else
            each bag once.
    """
    bags = sorted(classes)
    if not weighted:
        return dict.fromkeys(bags, 1)
    class_B = np.array([classes[bag] for bag in bags])
    has_class_B = class_B != MISSING
    probabilities_B = np.full(len(bags), 1.0 / len(bags))
    if has_class_B.any():
        _, place_B, sizes = np.unique(class_B[has_class_B], return_inverse=True, return_counts=True)
        probabilities_B[has_class_B] = has_class_B.mean() / (sizes[place_B] * len(sizes))
    generator = np.random.default_rng([seed, epoch, 1])
    counts = generator.multinomial(len(bags), probabilities_B / probabilities_B.sum())
    return {bag: int(count) for bag, count in zip(bags, counts, strict=True) if count}


def epoch_order(
    universe: Sequence[str], counts: Mapping[str, int], *, seed: int, epoch: int
) -> list[str]:
    """The bags of a training part in the order in which an epoch sees them."""
    draws = epoch_draws(universe, seed=seed, epoch=epoch, num_draws=max(counts.values(), default=1))
    return [bag for bag, number in draws if counts.get(bag, 0) > number]

"""The order in which bags are seen: the same for a bag whichever folds train on it.

Each draw of a bag has a place of its own in an epoch's order, which depends on nothing but its
name, the seed and the epoch. So folds that train together read each bag once and see what they
would see alone, and a slide that comes or goes leaves the order of the others as it is.
"""

import hashlib
from collections.abc import Mapping

import numpy as np

from crane_ray.cohort.tasks import MISSING


def epoch_draws(counts: Mapping[str, int], *, seed: int, epoch: int) -> list[tuple[str, int]]:
    """Bags, each with the number of the draw (0, 1, ...), in an epoch's order.

    Second and further draws of a bag lie anywhere in the order, not after all first ones: weighted
    sampling would end each epoch with bags of the rare classes alone. Asking for more draws leaves
    the order of the others as it is.

    Args:
        counts: how often each bag is drawn, in any order.
        seed: of the experiment.
        epoch: counted from 0.
    """
    begun = hashlib.blake2b(f"{seed} {epoch} ".encode(), digest_size=8)

    def place(draw: tuple[str, int]) -> tuple[bytes, tuple[str, int]]:
        digest = begun.copy()
        digest.update(f"{draw[1]} {draw[0]}".encode())
        return digest.digest(), draw

    return sorted(
        ((bag, number) for bag, count in counts.items() for number in range(count)), key=place
    )


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


def epoch_order(counts: Mapping[str, int], *, seed: int, epoch: int) -> list[str]:
    """The bags of a training part in the order in which an epoch sees them."""
    return [bag for bag, _ in epoch_draws(counts, seed=seed, epoch=epoch)]

"""The most confident errors of a task: whom to look at first."""

from dataclasses import dataclass

import numpy as np

from crane_ray.report.results import TaskResults

MOST = 6


@dataclass(frozen=True)
class Mistake:
    """A bag that a fold's network took for another class."""

    task: str
    slide_id: str
    """"" where the bag is a case."""
    case_id: str
    fold: int
    true: str
    predicted: str
    probability: float
    """Of the predicted class, as the network gives it."""
    probability_of_true: float
    other_folds: int = 0
    """Other folds' networks that judged it, and were wrong, too."""
    num_folds: int = 1
    """Folds that judged it."""


def mistakes_of(results: TaskResults, most: int = MOST) -> list[Mistake]:
    """The errors with the highest probability of the wrong class; each bag once, at its worst.

    Args:
        results: of the task.
        most: how many.
    """
    rows, classes = results.rows, results.task.classes
    predicted_N = rows.probabilities_NC.argmax(axis=1)
    wrong_N = predicted_N != rows.labels_N
    confidence_N = rows.probabilities_NC.max(axis=1)
    bags = list(zip(rows.slide_ids_N, rows.case_ids_N, strict=True))
    judged: dict[tuple[str, str], int] = {}
    failed: dict[tuple[str, str], int] = {}
    for bag, wrong in zip(bags, wrong_N, strict=True):
        judged[bag] = judged.get(bag, 0) + 1
        failed[bag] = failed.get(bag, 0) + int(wrong)
    found: dict[tuple[str, str], Mistake] = {}
    # Equally confident ones in the order of their names, so that a rerun shows the same.
    order = sorted(np.flatnonzero(wrong_N), key=lambda row: (-confidence_N[row], bags[row]))
    for row in order:
        if len(found) == most:
            break
        bag = bags[row]
        if bag not in found:
            found[bag] = Mistake(
                task=results.task.name,
                slide_id=str(bag[0]),
                case_id=str(bag[1]),
                fold=int(rows.folds_N[row]),
                true=classes[rows.labels_N[row]],
                predicted=classes[predicted_N[row]],
                probability=float(confidence_N[row]),
                probability_of_true=float(rows.probabilities_NC[row, rows.labels_N[row]]),
                other_folds=failed[bag] - 1,
                num_folds=judged[bag],
            )
    return list(found.values())


def num_mistakes(results: TaskResults) -> int:
    """Decisions of all folds that are wrong."""
    rows = results.rows
    return int((rows.probabilities_NC.argmax(axis=1) != rows.labels_N).sum())

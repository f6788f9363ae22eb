"""What may be wrong with the cases of a table: one in two spellings, one with two diagnoses."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from crane_ray.cohort.findings import Finding, counted, some
from crane_ray.cohort.slide_ids import spelling_key
from crane_ray.cohort.tasks import MISSING, TaskSet


def two_spellings(case_ids: Sequence[str]) -> list[Finding]:
    """Cases whose ids differ in case, spaces, dashes and underscores alone."""
    spelled: dict[str, set[str]] = {}
    for case in case_ids:
        spelled.setdefault(spelling_key(case), set()).add(case)
    twice = [sorted(names) for names in spelled.values() if len(names) > 1]
    if not twice:
        return []
    told = [" and ".join(map(repr, names)) for names in twice]
    return [
        Finding(
            "warning",
            "case_spelled_twice",
            f"{counted(len(twice), 'case')} perhaps in two spellings: {some(told)}; they count as "
            "different patients and may come to different parts of a split: mend the table",
            tuple(name for names in twice for name in names),
        )
    ]


def conflicting_labels(
    task_set: TaskSet, case_ids: Sequence[str], labels_ST: npt.NDArray[np.int64]
) -> list[Finding]:
    """Cases whose slides do not have the same label of a task, task by task."""
    findings = []
    for place, task in enumerate(task_set.tasks):
        labels: dict[str, set[int]] = {}
        for case, label in zip(case_ids, labels_ST[:, place].tolist(), strict=True):
            if label != MISSING:
                labels.setdefault(case, set()).add(label)
        names = sorted(case for case, own in labels.items() if len(own) > 1)
        if not names:
            continue
        told = [f"{case}: {_classes(task.classes, labels[case])}" for case in names[:3]]
        findings.append(
            Finding(
                "warning",
                "conflicting_labels",
                f"task {task.name}: {counted(len(names), 'case')} of {len(labels):,} whose slides "
                f"differ in their label ({'; '.join(told)}); slides keep theirs, a case counts as "
                "the highest class (or the majority, as asked for)",
                tuple(names),
            )
        )
    return findings


def _classes(classes: Sequence[str], indices: set[int]) -> str:
    return " and ".join(classes[index] for index in sorted(indices))

"""How many slides and cases a cohort has of each class."""

from collections import Counter
from typing import Any

from crane_ray.cohort.cohort import Cohort
from crane_ray.cohort.tasks import MISSING


def class_counts(cohort: Cohort) -> dict[str, Any]:
    """Slides and cases, in all and by task and class, as JSON can hold them.

    A case counts once in each class that one of its slides has. ``classes`` has for each task
    ``[name, slides, cases]`` of each class, and last those without a label, named None.
    """
    cases = cohort.case_ids
    by_task = {}
    for place, task in enumerate(cohort.task_set.tasks):
        labels = cohort.labels_ST[:, place].tolist()
        slides = Counter(labels)
        of_cases = Counter(label for label, _ in set(zip(labels, cases, strict=True)))
        places = [*enumerate(task.classes), (MISSING, None)]
        by_task[task.name] = [[name, slides[label], of_cases[label]] for label, name in places]
    return {"slides": len(cohort.slide_ids), "cases": len(set(cases)), "classes": by_task}

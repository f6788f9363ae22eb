import numpy as np
import pandas as pd

from crane_ray.cohort.cohort import Cohort
from crane_ray.cohort.counts import class_counts
from crane_ray.cohort.tasks import TaskSet, TaskSpec


def test_slides_and_cases_are_counted_by_class_and_those_without_a_label() -> None:
    tasks = (TaskSpec(name="a", column="a", classes=("x", "y")),)
    table = pd.DataFrame({"slide_id": list("1234"), "case_id": list("pppq"), "source": ""})
    labels = np.array([[0], [0], [1], [-1]])
    found = class_counts(Cohort(TaskSet(name="s", tasks=tasks), table, labels))
    assert (found["slides"], found["cases"]) == (4, 2)
    # Case p has slides of both classes.
    assert found["classes"] == {"a": [["x", 2, 1], ["y", 1, 1], [None, 1, 1]]}

"""What a trial is judged by: a number of val parts.

Shapes: B bags, T tasks, C classes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from crane_ray.cohort.tasks import TaskSpec
from crane_ray.errors import ConfigError
from crane_ray.evaluation.metrics import task_metrics
from crane_ray.evaluation.predictions import softmax

LOSS = "loss"
MODES: Mapping[str, Literal["max", "min"]] = {
    "auc": "max",
    "average_precision": "max",
    "balanced_accuracy": "max",
    "accuracy": "max",
    "f1_macro": "max",
    "kappa": "max",
    LOSS: "min",
    "log_loss": "min",
    "brier": "min",
    "ece": "min",
}
"""The metrics that can be searched by, and which way is better."""


@dataclass(frozen=True)
class Objective:
    """A metric of one task, or its mean over several; or the val loss, which is of all tasks."""

    metric: str
    tasks: tuple[TaskSpec, ...]
    """All heads of the networks, in order."""
    task: str | None = None
    """The one that counts; the mean over tasks where None."""

    @property
    def mode(self) -> Literal["max", "min"]:
        """Which way is better."""
        return MODES[self.metric]

    @property
    def worst(self) -> float:
        """The objective of trials that have none, for searchers."""
        return -1e9 if self.mode == "max" else 1e9

    @property
    def words(self) -> str:
        """For people."""
        if self.metric == LOSS:
            return "val loss"
        of = self.task or ("mean over tasks" if len(self.tasks) > 1 else self.tasks[0].name)
        return f"val {self.metric} ({of})"

    def of_tasks(
        self, labels_BT: npt.NDArray[np.int64], logits: Mapping[str, npt.NDArray[np.float64]]
    ) -> dict[str, float]:
        """The metric of each task in a val part; tasks in which it is undefined are left out.

        Args:
            labels_BT: (B, T) class indices, `MISSING` where there is none.
            logits: (B, C) by task.
        """
        name = "auc" if self.metric == LOSS else self.metric
        found = {}
        for place, task in enumerate(self.tasks):
            metrics = task_metrics(labels_BT[:, place], softmax(logits[task.name]))
            value = metrics.values[name]
            if value is not None:
                found[f"{name} {task.name}"] = value
        return found

    def combine(self, val_loss: float, of_tasks: Mapping[str, float]) -> float | None:
        """The objective of a val part; None where it is undefined."""
        if self.metric == LOSS:
            return val_loss
        if self.task is not None:
            return of_tasks.get(f"{self.metric} {self.task}")
        values = [value for name, value in of_tasks.items() if name.startswith(f"{self.metric} ")]
        return float(np.mean(values)) if values else None


def make_objective(metric: str, task: str | None, tasks: Sequence[TaskSpec]) -> Objective:
    """The objective of a config.

    Raises:
        ConfigError: there is no such metric or task.
    """
    if metric not in MODES:
        raise ConfigError(f"--metric {metric}: a search cannot go by it; known: {', '.join(MODES)}")
    names = [one.name for one in tasks]
    if task is not None and task not in names:
        raise ConfigError(f"objective.task {task}: no such task; there are: {', '.join(names)}")
    if task is not None and metric == LOSS:
        raise ConfigError(
            f"objective.task {task}: the val loss is that of all tasks; leave the task out, or "
            "give --metric log_loss"
        )
    return Objective(metric, tuple(tasks), task)

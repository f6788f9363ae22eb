"""Classifiers of one or several tasks, with the names that CRANE's state dicts have.

Shapes: B bags, H pooled rows, E embedding, C classes.
"""

from collections.abc import Sequence

import torch
from torch import nn

from crane_ray.cohort.tasks import TaskSpec
from crane_ray.errors import ConfigError
from crane_ray.mil.aggregator import Aggregator, MILOutput
from crane_ray.mil.parts import merge_logits


class MultiTaskAggregator(Aggregator):
    """An aggregator with a Linear a task: ``classifier_1..T``, or ``classifier`` for one task."""

    def __init__(self, tasks: Sequence[TaskSpec], hidden_dim: int) -> None:
        super().__init__()
        names = [f"classifier_{place}" for place in range(1, len(tasks) + 1)]
        self.classifiers_by_task = dict(
            zip(
                [task.name for task in tasks],
                names if len(tasks) > 1 else ["classifier"],
                strict=True,
            )
        )
        for task, name in zip(tasks, self.classifiers_by_task.values(), strict=True):
            self.add_module(name, nn.Linear(hidden_dim, task.num_classes))

    def classify(self, pooled_BHE: torch.Tensor) -> dict[str, torch.Tensor]:
        """(B, C) logits by task: of a row of its own each, or all of the only row."""
        num_rows = pooled_BHE.shape[1]
        return {
            task: self.get_submodule(name)(pooled_BHE[:, place % num_rows])
            for place, (task, name) in enumerate(self.classifiers_by_task.items())
        }

    def merge(self, parts: Sequence[MILOutput]) -> dict[str, torch.Tensor]:
        """See `MergesParts`."""
        num_rows = len(parts[0].scores_HN)
        tasks = enumerate(self.classifiers_by_task)
        return merge_logits(parts, {task: [place % num_rows] for place, task in tasks})


def only_task(aggregator: str, tasks: Sequence[TaskSpec]) -> TaskSpec:
    """The task of an aggregator that takes one.

    Raises:
        ConfigError: there are several.
    """
    if len(tasks) != 1:
        names = ", ".join(task.name for task in tasks)
        raise ConfigError(
            f"model {aggregator}: takes exactly one task, not {len(tasks)} ({names}); take crane "
            "or mean_pool, which have several heads, or train one network a task"
        )
    return tasks[0]

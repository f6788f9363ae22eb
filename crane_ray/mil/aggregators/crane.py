"""CRANE's network: two embedding layers, an attention row and a classifier for each task.

Lipkova et al., Nature Medicine 2022: assessment with three binary tasks, grading with one. Any
number of tasks and classes works.
"""

from collections.abc import Sequence

import torch

from crane_ray.cohort.tasks import TaskSpec
from crane_ray.mil.aggregator import MILOutput
from crane_ray.mil.attention import attend, attention_net, initialise
from crane_ray.mil.configs import ModelConfig
from crane_ray.mil.heads import MultiTaskAggregator
from crane_ray.mil.segments import check_bags


class Crane(MultiTaskAggregator):
    """Attention MIL with a head a task on embeddings that they share."""

    def __init__(self, config: ModelConfig, dim: int, tasks: Sequence[TaskSpec]) -> None:
        super().__init__(tasks, config.hidden_dim)
        self.dim = dim
        self.heads = tuple(task.name for task in tasks)
        self.attention_net = attention_net(
            config, dim, num_layers=2, num_heads=len(tasks), size="big"
        )
        initialise(self)

    def forward(self, features_ND: torch.Tensor, sizes_B: Sequence[int] | None = None) -> MILOutput:
        """See `Aggregator`."""
        check_bags(features_ND, self.dim, sizes_B)
        scores_HN, hidden_NE = self.attention_net(features_ND)
        attention_HN, pooled_BHE = attend(scores_HN, hidden_NE, sizes_B)
        return MILOutput(self.classify(pooled_BHE), scores_HN, attention_HN, hidden_NE)


def build(config: ModelConfig, dim: int, tasks: Sequence[TaskSpec]) -> Crane:
    """A fresh network; the attention is big (384) where no size is given."""
    return Crane(config, dim, tasks)

"""Mean pooling: one embedding layer, the mean over a bag's patches, a classifier for each task.

The plain peer that attention is measured against. It is not CLAM's or CRANE's, so its state dict
has a key of its own: ``embedding.0``.
"""

from collections.abc import Sequence

import torch
from torch import nn

from crane_ray.cohort.tasks import TaskSpec
from crane_ray.mil.aggregator import MILOutput
from crane_ray.mil.attention import attend, embedding, initialise, refuse_attention
from crane_ray.mil.configs import ModelConfig
from crane_ray.mil.heads import MultiTaskAggregator
from crane_ray.mil.segments import check_bags


class MeanPool(MultiTaskAggregator):
    """Mean of embeddings, with one row of uniform attention that all tasks share."""

    def __init__(self, config: ModelConfig, dim: int, tasks: Sequence[TaskSpec]) -> None:
        refuse_attention(config)
        super().__init__(tasks, config.hidden_dim)
        self.dim = dim
        self.heads = ("mean",)
        self.embedding = nn.Sequential(*embedding(dim, config))
        initialise(self)

    def forward(self, features_ND: torch.Tensor, sizes_B: Sequence[int] | None = None) -> MILOutput:
        """See `Aggregator`; scores are zero, attention is one over the bag's patches."""
        check_bags(features_ND, self.dim, sizes_B)
        hidden_NE = self.embedding(features_ND)
        scores_HN = features_ND.new_zeros(1, len(features_ND))
        attention_HN, pooled_BHE = attend(scores_HN, hidden_NE, sizes_B)
        return MILOutput(self.classify(pooled_BHE), scores_HN, attention_HN, hidden_NE)


def build(config: ModelConfig, dim: int, tasks: Sequence[TaskSpec]) -> MeanPool:
    """A fresh network.

    Raises:
        ConfigError: the config gives widths of an attention.
    """
    return MeanPool(config, dim, tasks)

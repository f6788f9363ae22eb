"""CLAM with a single branch: one attention row for all classes of one task.

Lu et al., Nature Biomedical Engineering 2021.
"""

from collections.abc import Sequence

import torch
from torch import nn

from crane_ray.cohort.tasks import TaskSpec
from crane_ray.mil.aggregator import MILOutput
from crane_ray.mil.attention import attend, attention_net, initialise
from crane_ray.mil.configs import ModelConfig
from crane_ray.mil.heads import only_task
from crane_ray.mil.instances import ClusteringAggregator
from crane_ray.mil.parts import merge_logits
from crane_ray.mil.segments import check_bags


class ClamSB(ClusteringAggregator):
    """One embedding layer, one attention row, one Linear, and instance clustering."""

    def __init__(self, config: ModelConfig, dim: int, task: TaskSpec) -> None:
        super().__init__(config, task)
        self.dim = dim
        self.heads = (task.name,)
        self.attention_net = attention_net(config, dim, num_layers=1, num_heads=1, size="small")
        self.classifiers = nn.Linear(config.hidden_dim, task.num_classes)
        initialise(self)

    def forward(self, features_ND: torch.Tensor, sizes_B: Sequence[int] | None = None) -> MILOutput:
        """See `Aggregator`."""
        check_bags(features_ND, self.dim, sizes_B)
        scores_HN, hidden_NE = self.attention_net(features_ND)
        attention_HN, pooled_BHE = attend(scores_HN, hidden_NE, sizes_B)
        logits = {self.heads[0]: self.classifiers(pooled_BHE[:, 0])}
        return MILOutput(logits, scores_HN, attention_HN, hidden_NE)

    def merge(self, parts: Sequence[MILOutput]) -> dict[str, torch.Tensor]:
        """See `MergesParts`."""
        return merge_logits(parts, {self.heads[0]: [0]})


def build(config: ModelConfig, dim: int, tasks: Sequence[TaskSpec]) -> ClamSB:
    """A fresh network; the attention is small (256) where no size is given.

    Raises:
        ConfigError: there is more than one task.
    """
    return ClamSB(config, dim, only_task("clam_sb", tasks))

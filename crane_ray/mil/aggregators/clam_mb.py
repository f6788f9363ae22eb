"""CLAM with several branches: an attention row for each class of one task.

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


class ClamMB(ClusteringAggregator):
    """One embedding layer, a row and a Linear to one logit a class, and instance clustering."""

    def __init__(self, config: ModelConfig, dim: int, task: TaskSpec) -> None:
        super().__init__(config, task)
        self.dim = dim
        self.task_name = task.name
        self.heads = tuple(f"{task.name}:{name}" for name in task.classes)
        self.attention_net = attention_net(
            config, dim, num_layers=1, num_heads=task.num_classes, size="small"
        )
        self.classifiers = nn.ModuleList(nn.Linear(config.hidden_dim, 1) for _ in task.classes)
        initialise(self)

    def forward(self, features_ND: torch.Tensor, sizes_B: Sequence[int] | None = None) -> MILOutput:
        """See `Aggregator`."""
        check_bags(features_ND, self.dim, sizes_B)
        scores_HN, hidden_NE = self.attention_net(features_ND)
        attention_HN, pooled_BHE = attend(scores_HN, hidden_NE, sizes_B)
        logits_BC = torch.cat(
            [linear(pooled_BHE[:, place]) for place, linear in enumerate(self.classifiers)], dim=1
        )
        return MILOutput({self.task_name: logits_BC}, scores_HN, attention_HN, hidden_NE)

    def merge(self, parts: Sequence[MILOutput]) -> dict[str, torch.Tensor]:
        """See `MergesParts`; each class has the row of its own."""
        return merge_logits(parts, {self.task_name: range(len(self.heads))})


def build(config: ModelConfig, dim: int, tasks: Sequence[TaskSpec]) -> ClamMB:
    """A fresh network; the attention is small (256) where no size is given.

    Raises:
        ConfigError: there is more than one task.
    """
    return ClamMB(config, dim, only_task("clam_mb", tasks))

"""The protocol of aggregators: from the features of bags to logits by task, with attention.

Shapes: N patches of all bags of a step together, B bags, D feature length, H attention rows,
C classes, T tasks.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from crane_ray.cohort.tasks import TaskSpec
from crane_ray.mil.configs import ModelConfig
from crane_ray.plugins import load_plugin

PACKAGE = "crane_ray.mil.aggregators"


@dataclass(frozen=True)
class MILOutput:
    """What an aggregator says of B bags."""

    logits: dict[str, torch.Tensor]
    """(B, C) by task name."""
    scores_HN: torch.Tensor
    """(H, N) attention before the softmax over a bag's patches."""
    attention_HN: torch.Tensor
    """(H, N) attention; each row sums to one over the patches of a bag."""
    hidden_NE: torch.Tensor | None = None
    """(N, E) patch embeddings, for losses of single patches."""

    def split(self, sizes_B: Sequence[int]) -> list["MILOutput"]:
        """The outputs of the bags, one by one, of an output for bags of these sizes."""
        scores = self.scores_HN.split_with_sizes(sizes_B, dim=1)
        attention = self.attention_HN.split_with_sizes(sizes_B, dim=1)
        hidden: Sequence[torch.Tensor | None] = [None] * len(sizes_B)
        if self.hidden_NE is not None:
            hidden = self.hidden_NE.split_with_sizes(sizes_B)
        return [
            MILOutput(
                {task: logits_BC[place : place + 1] for task, logits_BC in self.logits.items()},
                *parts,
            )
            for place, parts in enumerate(zip(scores, attention, hidden, strict=True))
        ]


class Aggregator(nn.Module, ABC):
    """A network over bags of patch features. State dict keys are those of the published ones."""

    heads: tuple[str, ...]
    """Name of each attention row: a task, or task:class."""

    @abstractmethod
    def forward(self, features_ND: torch.Tensor, sizes_B: Sequence[int] | None = None) -> MILOutput:
        """The output for bags that lie one after the other.

        Args:
            features_ND: (N, D) float features.
            sizes_B: patches of each bag; one bag of all of them where not given. That path is made
                of tensor operations alone, so that `torch.func.vmap` goes over many networks.
        """

    def auxiliary_loss(self, output: MILOutput, labels_T: torch.Tensor) -> torch.Tensor | None:
        """A further loss of one bag (instance clustering), or None.

        Args:
            output: of one bag.
            labels_T: (T,) int64 class indices, `MISSING` where there is none.
        """
        return None


def build_aggregator(config: ModelConfig, dim: int, tasks: Sequence[TaskSpec]) -> Aggregator:
    """The network of a config, with fresh weights from torch's generator.

    A plug-in is a module with ``build(config, dim, tasks)``.

    Args:
        config: which network.
        dim: length of a patch's features.
        tasks: the heads, in order.

    Raises:
        ConfigError: there is no such aggregator, or it cannot have these tasks.
    """
    aggregator: Aggregator = load_plugin(PACKAGE, config.name).build(config, dim, tuple(tasks))
    return aggregator

"""Max pooling (CLAM's ``mil``): the logits of the patch with the highest probability.

Of two classes that is the probability of the second (the positive one), of more than two the
highest of any class. State dict keys: ``fc.0`` and, for two classes, ``classifier``, else
``classifiers``.
"""

from collections.abc import Sequence

import torch
from torch import nn

from crane_ray.cohort.tasks import TaskSpec
from crane_ray.mil.aggregator import Aggregator, MILOutput
from crane_ray.mil.attention import at_least_float32, embedding, initialise, refuse_attention
from crane_ray.mil.configs import ModelConfig
from crane_ray.mil.heads import only_task
from crane_ray.mil.segments import Segments, check_bags


class MaxPool(Aggregator):
    """Every patch is classified; one decides for its bag."""

    def __init__(self, config: ModelConfig, dim: int, task: TaskSpec) -> None:
        super().__init__()
        refuse_attention(config)
        self.dim = dim
        self.heads = (task.name,)
        self.head_name = "classifier" if task.num_classes == 2 else "classifiers"
        self.fc = nn.Sequential(*embedding(dim, config))
        self.add_module(self.head_name, nn.Linear(config.hidden_dim, task.num_classes))
        initialise(self)

    def forward(self, features_ND: torch.Tensor, sizes_B: Sequence[int] | None = None) -> MILOutput:
        """See `Aggregator`; scores are probabilities, the deciding patch has all attention."""
        check_bags(features_ND, self.dim, sizes_B)
        hidden_NE = self.fc(features_ND)
        logits_NC = self.get_submodule(self.head_name)(hidden_NE)
        scores_N = _scores(at_least_float32(logits_NC))
        if sizes_B is None:
            chosen_B = scores_N.argmax(dim=0, keepdim=True)
        else:
            chosen_B = Segments.of(sizes_B, features_ND.device).argmax(scores_N)
        places_N = torch.arange(len(features_ND), device=features_ND.device)
        attention_N = (places_N == chosen_B[:, None]).any(dim=0).to(scores_N.dtype)
        logits_BC = logits_NC.index_select(0, chosen_B)
        return MILOutput({self.heads[0]: logits_BC}, scores_N[None], attention_N[None], hidden_NE)

    def merge(self, parts: Sequence[MILOutput]) -> dict[str, torch.Tensor]:
        """See `crane_ray.mil.parts.MergesParts`: the part with the highest score decides."""
        highest_P = torch.stack([part.scores_HN.amax() for part in parts])
        return parts[int(highest_P.argmax())].logits


def _scores(logits_NC: torch.Tensor) -> torch.Tensor:
    """(N,) probability by which a patch is chosen."""
    probabilities_NC = logits_NC.softmax(dim=1)
    if logits_NC.shape[1] == 2:
        return probabilities_NC[:, 1]
    return probabilities_NC.amax(dim=1)


def build(config: ModelConfig, dim: int, tasks: Sequence[TaskSpec]) -> MaxPool:
    """A fresh network.

    Raises:
        ConfigError: there is more than one task, or the config gives widths of an attention.
    """
    return MaxPool(config, dim, only_task("max_pool", tasks))

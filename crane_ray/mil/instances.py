"""CLAM's instance clustering: patches at the ends of the attention are told apart.

Shapes: N patches of a bag, H attention rows, E embedding, C classes, K patches at one end.
"""

import torch
from torch import nn

from crane_ray.cohort.tasks import MISSING, TaskSpec
from crane_ray.mil.aggregator import Aggregator, MILOutput
from crane_ray.mil.configs import InstanceConfig, ModelConfig
from crane_ray.mil.losses import classification_loss


class ClusteringAggregator(Aggregator):
    """An aggregator of one task with an instance classifier a class."""

    def __init__(self, config: ModelConfig, task: TaskSpec) -> None:
        super().__init__()
        self.instances = config.instances
        self.instance_classifiers = nn.ModuleList(
            nn.Linear(config.hidden_dim, 2) for _ in task.classes
        )
        # Published files have them in any case. Without a gradient they are no part of what is
        # trained, nor of what workers wait for.
        self.instance_classifiers.requires_grad_(config.instances.enabled)

    def auxiliary_loss(self, output: MILOutput, labels_T: torch.Tensor) -> torch.Tensor | None:
        """The instance loss of one bag; zero where it has no label; see `Aggregator`."""
        if not self.instances.enabled:
            return None
        return instance_loss(output, labels_T[0], self.instance_classifiers, self.instances)


def instance_loss(
    output: MILOutput,
    label: torch.Tensor,
    classifiers: nn.ModuleList,
    config: InstanceConfig,
) -> torch.Tensor:
    """The clustering loss of one bag.

    The true class's instance classifier is to call the K most attended patches of its row
    positive and the K least attended negative. With subtyping, the other classes' are to call
    the K most attended of their rows negative, and the sum is divided by C. K shrinks to the
    patches that there are (deviation: CLAM fails on such bags). Every class is computed and the
    label selects, so that labels may differ between networks under `torch.func.vmap`.

    Args:
        output: of the bag; its one row of scores is everyone's, or each class has a row.
        label: int64 scalar, `MISSING` if there is none.
        classifiers: C Linears of (E, 2): not this class, this class.
        config: K, loss and subtyping.

    Returns:
        A scalar, float32 or wider; zero without gradient where the label is missing.
    """
    assert output.hidden_NE is not None
    num_classes, num_patches = len(classifiers), len(output.hidden_NE)
    k = min(config.num_patches, num_patches)
    scores_HN = output.scores_HN.detach()
    ends_HK = torch.cat(
        [scores_HN.topk(k, dim=1, largest=largest).indices for largest in (True, False)], dim=1
    )
    ends_CK = ends_HK.expand(num_classes, -1)
    logits_CK2 = torch.stack(
        [linear(output.hidden_NE[ends_CK[place]]) for place, linear in enumerate(classifiers)]
    )
    is_top_K = torch.arange(2 * k, device=label.device) < k
    of_true_C = _losses(logits_CK2, is_top_K, config)
    is_true_C = torch.arange(num_classes, device=label.device) == label
    if config.subtyping:
        of_others_C = _losses(logits_CK2[:, :k], ~is_top_K[:k], config)
        total = torch.where(is_true_C, of_true_C, of_others_C).sum() / num_classes
    else:
        total = torch.where(is_true_C, of_true_C, 0).sum()
    return torch.where(label == MISSING, 0, total)


def _losses(
    logits_CK2: torch.Tensor, is_positive_K: torch.Tensor, config: InstanceConfig
) -> torch.Tensor:
    """(C,) mean loss over patches of each class's classifier."""
    targets_CK = is_positive_K.long().expand(logits_CK2.shape[:2])
    losses = classification_loss(logits_CK2.flatten(0, 1), targets_CK.flatten(), config.loss)
    return losses.reshape(targets_CK.shape).mean(dim=1)

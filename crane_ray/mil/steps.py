"""The loss of an optimiser's step.

Shapes: N patches, D feature length, B bags, T tasks, C classes.
"""

from collections.abc import Sequence

import torch

from crane_ray.cohort.tasks import MISSING
from crane_ray.mil.aggregator import Aggregator, MILOutput
from crane_ray.mil.bags import Bag, labels_tensor
from crane_ray.mil.losses import multi_task_loss
from crane_ray.mil.prediction import Study, precision
from crane_ray.mil.run import FoldRun


def step_loss(
    run: FoldRun,
    parts: Sequence[torch.Tensor],
    mine: Sequence[Bag],
    step: Sequence[Bag],
    *,
    study: Study,
) -> torch.Tensor:
    """The loss of a fold's network for bags.

    Args:
        run: the fold.
        parts: (N, D) features of each bag.
        mine: the bags.
        step: all bags of the optimiser's step, the other workers' too.
        study: config and tasks.
    """
    device = parts[0].device
    features_ND = parts[0] if len(parts) == 1 else torch.cat(list(parts))
    sizes_B = [len(part) for part in parts]
    with precision(study):
        output = run.network(features_ND, sizes_B if len(parts) > 1 else None)
        return bags_loss(
            run.network,
            output,
            sizes_B,
            labels_tensor(mine).to(device),
            num_labelled_T=num_labelled(step).to(device),
            num_bags=len(step),
            study=study,
            class_weights=run.class_weights,
        )


def num_labelled(bags: Sequence[Bag]) -> torch.Tensor:
    """(T,) int64: bags that have a label, by task."""
    return (labels_tensor(bags) != MISSING).sum(dim=0)


def bags_loss(
    network: Aggregator,
    output: MILOutput,
    sizes_B: Sequence[int],
    labels_BT: torch.Tensor,
    *,
    num_labelled_T: torch.Tensor,
    num_bags: int,
    study: Study,
    class_weights: dict[str, torch.Tensor],
) -> torch.Tensor:
    """The loss of bags: that of their labels, and their share of the instance loss.

    Args:
        network: that made the output.
        output: of these bags.
        sizes_B: patches of each.
        labels_BT: (B, T) class indices.
        num_labelled_T: (T,) bags with labels in the whole step.
        num_bags: bags of the whole step.
        study: config and tasks.
        class_weights: (C,) by task, or none.
    """
    config = study.config
    loss = multi_task_loss(
        output.logits,
        labels_BT,
        study.tasks,
        kind=config.training.bag_loss,
        class_weights=class_weights or None,
        num_labelled_T=num_labelled_T,
    )
    if not config.model.instances.enabled:
        return loss
    outputs = [output] if len(sizes_B) == 1 else output.split(sizes_B)
    pieces = [
        network.auxiliary_loss(one, labels_T)
        for one, labels_T in zip(outputs, labels_BT, strict=True)
    ]
    found = [piece for piece in pieces if piece is not None]
    if not found:
        return loss
    share = config.model.instances.weight
    return (1 - share) * loss + share * torch.stack(found).sum() / num_bags

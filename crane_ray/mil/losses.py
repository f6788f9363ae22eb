"""Losses of bags and patches: cross entropy, smooth top-1 SVM, and their sum over masked tasks.

Shapes: B bags (or patches), C classes, T tasks.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

import torch

from crane_ray.cohort.tasks import MISSING, TaskSpec

LossKind = Literal["ce", "svm"]


def multi_task_loss(
    logits: Mapping[str, torch.Tensor],
    labels_BT: torch.Tensor,
    tasks: Sequence[TaskSpec],
    *,
    kind: LossKind = "ce",
    class_weights: Mapping[str, torch.Tensor] | None = None,
    num_labelled_T: torch.Tensor | None = None,
) -> torch.Tensor:
    """The weighted mean over tasks of the mean loss over each task's labelled bags.

    A task's share is its weight over the sum of all tasks' weights, whether or not they have
    labels here. A missing label has exactly zero gradient; NaN logits make the loss NaN, with a
    label or without.

    Args:
        logits: (B, C) by task name.
        labels_BT: (B, T) int64 class indices, `MISSING` where there is none.
        tasks: the heads, in the order of labels.
        kind: cross entropy or smooth top-1 SVM.
        class_weights: (C,) factors by task name on the loss of bags of each class; the mean over
            bags does not divide by them.
        num_labelled_T: (T,) labelled bags of the whole step, where this is one worker's part of
            it: the parts' losses and gradients then add up to the step's.

    Returns:
        A scalar, float32 or wider.
    """
    is_labelled_BT = labels_BT != MISSING
    if num_labelled_T is None:
        num_labelled_T = is_labelled_BT.sum(dim=0)
    sum_weights = sum(task.weight for task in tasks)
    losses = []
    for place, task in enumerate(tasks):
        labels_B = labels_BT[:, place].clamp(min=0)
        losses_B = classification_loss(logits[task.name], labels_B, kind)
        if class_weights is not None and task.name in class_weights:
            losses_B = losses_B * class_weights[task.name].to(losses_B.dtype)[labels_B]
        # a product, not a selection: it would hide NaN where the label is missing
        masked = (losses_B * is_labelled_BT[:, place]).sum()
        share = task.weight / sum_weights
        losses.append(share * masked / num_labelled_T[place].clamp(min=1))
    return torch.stack(losses).sum()


def classification_loss(
    logits_BC: torch.Tensor, labels_B: torch.Tensor, kind: LossKind
) -> torch.Tensor:
    """(B,) losses, float32 or wider, of (B, C) logits for (B,) class indices.

    ``svm`` is the smooth top-1 SVM of Berrada et al. (Smooth Loss Functions for Deep Top-k
    Classification, ICLR 2018) with k = 1, temperature 1 and margin 1: the log-sum-exp over
    classes of the score and, for wrong classes, the margin, less the right class's score. That
    is the cross entropy of logits whose wrong classes are higher by the margin.
    """
    scores_BC = logits_BC.to(torch.promote_types(logits_BC.dtype, torch.float32))
    if kind == "svm":
        classes_C = torch.arange(logits_BC.shape[1], device=logits_BC.device)
        scores_BC = scores_BC + (classes_C != labels_B[:, None])
    log_probabilities_BC = scores_BC.log_softmax(dim=1)
    return -log_probabilities_BC.gather(1, labels_B[:, None])[:, 0]

"""A bag whose patches go through a network part by part, for bags that are large.

A patch's score depends on that patch alone, and a linear classifier of a weighted mean is the
weighted mean of its outputs: the logits of a bag are those of its parts, each weighted by the
part's share of the attention.

Shapes: P parts, H attention rows, N patches of a part, C classes of a task.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

import torch

from crane_ray.mil.aggregator import MILOutput


@runtime_checkable
class MergesParts(Protocol):
    """An aggregator that can put a bag together from its parts."""

    def merge(self, parts: Sequence[MILOutput]) -> dict[str, torch.Tensor]:
        """(1, C) logits by task of a bag, from the outputs for its consecutive parts."""
        ...


def merge_logits(
    parts: Sequence[MILOutput], rows: Mapping[str, Sequence[int]]
) -> dict[str, torch.Tensor]:
    """(1, C) float64 logits by task of a bag, from those of its parts.

    Args:
        parts: outputs for consecutive parts of one bag.
        rows: of each task the attention row of each class, or one row for all of them.
    """
    mass_PH = torch.stack([part.scores_HN.double().logsumexp(dim=1) for part in parts])
    share_PH = mass_PH.softmax(dim=0)
    merged = {}
    for task, rows_C in rows.items():
        logits_PC = torch.cat([part.logits[task].double() for part in parts])
        merged[task] = (share_PH[:, list(rows_C)] * logits_PC).sum(dim=0, keepdim=True)
    return merged

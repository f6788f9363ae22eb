"""What networks say of whole bags, in plain torch.

Shapes: N patches, D feature length, B bags, C classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from crane_ray.cohort.tasks import TaskSpec
from crane_ray.mil.aggregator import Aggregator
from crane_ray.mil.bags import Bag, BagReader, labels_tensor
from crane_ray.mil.configs import ExperimentConfig
from crane_ray.mil.losses import multi_task_loss
from crane_ray.mil.run import Logits
from crane_ray.mil.workers import Worker

PACKED_PATCHES = 8192
"""Patches of a forward pass where bags are only looked at."""


@dataclass(frozen=True)
class Study:
    """What all folds of an experiment share."""

    config: ExperimentConfig
    tasks: tuple[TaskSpec, ...]
    reader: BagReader


def precision(study: Study) -> torch.autocast:
    """The context of forward passes."""
    reader = study.reader
    enabled = study.config.training.precision == "bf16"
    return torch.autocast(reader.device.type, dtype=torch.bfloat16, enabled=enabled)


@torch.inference_mode()
def predict(
    network: Aggregator, bags: Sequence[Bag], study: Study, *, worker: Worker | None = None
) -> Logits:
    """(B, C) float64 logits by task of whole bags, in their order.

    Several workers share the work, and each gets the whole.
    """
    worker = worker or Worker()
    mine = bags[worker.rank :: worker.world]
    found: dict[str, list[torch.Tensor]] = {task.name: [] for task in study.tasks}
    network.eval()
    for group in _groups(mine, study.reader):
        parts = [study.reader.read(bag) for bag in group]
        with precision(study):
            output = network(
                parts[0] if len(parts) == 1 else torch.cat(parts),
                [len(part) for part in parts] if len(parts) > 1 else None,
            )
        for task, logits in output.logits.items():
            found[task].append(logits.double())
    own = {
        task.name: torch.cat(found[task.name]).cpu().numpy()
        if found[task.name]
        else np.empty((0, task.num_classes))
        for task in study.tasks
    }
    shares = worker.gather(own)
    whole = {task.name: np.empty((len(bags), task.num_classes)) for task in study.tasks}
    for rank, share in enumerate(shares):
        for name, logits in share.items():
            whole[name][rank :: worker.world] = logits
    return whole


def _groups(bags: Sequence[Bag], reader: BagReader) -> list[list[Bag]]:
    """Small bags together, up to `PACKED_PATCHES`."""
    groups: list[list[Bag]] = []
    held = PACKED_PATCHES
    for bag in bags:
        size = reader.num_patches(bag)
        if held + size > PACKED_PATCHES:
            groups.append([])
            held = 0
        groups[-1].append(bag)
        held += size
    return groups


def part_loss(logits: Logits, bags: Sequence[Bag], study: Study) -> float | None:
    """The unweighted loss of a part's labels, each task's mean over its labelled bags.

    None of a part without bags. CLAM's and CRANE's early stopping look at it.
    """
    if not bags:
        return None
    tensors = {task: torch.from_numpy(values) for task, values in logits.items()}
    kind = study.config.training.bag_loss
    return float(multi_task_loss(tensors, labels_tensor(bags), study.tasks, kind=kind))

"""What each worker of a training gets of a cluster. Imports no ray."""

from collections.abc import Sequence
from dataclasses import dataclass

from crane_ray.cohort.findings import counted
from crane_ray.runtime.pools import Node
from crane_ray.runtime.study_jobs import TrainJob

SHARED_GPU = 0.25
"""Of a GPU that a fold gets: one bag at a time leaves most of it idle."""


@dataclass(frozen=True)
class Share:
    """What a worker gets, and how many folds train at a time."""

    cpus: int
    gpus: float
    at_once: int
    """Folds (groups of them, with --grouped-folds) that the cluster has room for; 0 for none."""


def plan_share(job: TrainJob, nodes: Sequence[Node], num_folds: int) -> Share:
    """CPUs and GPUs of a worker, so that all folds train at once as far as the cluster goes.

    A worker lies on one node. As many workers as can be are placed first; what CPUs are then left
    over is shared out between them.
    """
    groups = 1 if job.grouped_folds else max(num_folds, 1)
    gpus = _gpus_each(job, nodes)
    room = _room(nodes, job.workers.cpus or 1, gpus)
    wanted = max(min(groups * job.workers.count, room), 1)
    cpus = job.workers.cpus or max(
        (
            cpus
            for cpus in range(1, int(max((node.cpus for node in nodes), default=1)) + 1)
            if _room(nodes, cpus, gpus) >= wanted
        ),
        default=1,
    )
    least = job.workers.min_count or job.workers.count
    at_once = max(room // job.workers.count, int(room >= least))
    return Share(cpus, gpus, min(groups, at_once))


def too_small(job: TrainJob, nodes: Sequence[Node], share: Share) -> str:
    """Why no fold can begin on these nodes; empty where one can."""
    if share.at_once:
        return ""
    least = job.workers.min_count or job.workers.count
    what = counted(least, "worker")
    size = counted(share.cpus, "CPU") + (f" and {share.gpus:g} GPU" if share.gpus else "")
    there = ", ".join(f"{node.cpus:g} CPUs {node.gpus:g} GPUs" for node in nodes) or "none"
    return (
        f"training: the cluster has no room for {what} of {size} (nodes: {there}); lower "
        "--workers, workers.cpus or --gpus-per-fold, or give --address of a larger one"
    )


def _gpus_each(job: TrainJob, nodes: Sequence[Node]) -> float:
    if job.workers.gpus is not None:
        return job.workers.gpus
    if not any(node.gpus for node in nodes):
        return 0.0
    alone = job.workers.count > 1 or job.grouped_folds
    return 1.0 if alone else SHARED_GPU


def _room(nodes: Sequence[Node], cpus: int, gpus: float) -> int:
    """Workers of a size that nodes have room for."""
    by_cpus = [int(node.cpus // cpus) for node in nodes]
    if not gpus:
        return sum(by_cpus)
    return sum(
        min(most, int(node.gpus / gpus + 1e-9)) for most, node in zip(by_cpus, nodes, strict=True)
    )

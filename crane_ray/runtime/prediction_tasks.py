"""What trained networks say of bags, a Ray task a fold."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pyarrow as pa
import ray
import torch
from ray.exceptions import RayError, RayTaskError

from crane_ray.cohort.splits import Split
from crane_ray.errors import ClusterError, CraneError
from crane_ray.evaluation.predictions import Predictions
from crane_ray.manifest import LeftOut
from crane_ray.mil.checkpoints import load_checkpoint
from crane_ray.runtime.studies import StudyData, study_provenance
from crane_ray.runtime.trained import predict_bags, require_features
from crane_ray.runtime.worker_metrics import measured_task


def predict_on_cluster(
    data: StudyData,
    paths: Mapping[int, str],
    splits: Mapping[int, Split],
    parts: Sequence[str],
    *,
    advance: Callable[[int], object] = lambda done: None,
) -> tuple[dict[int, Predictions], list[LeftOut]]:
    """The predictions of each fold's network, and the slides whose features cannot be used.

    Args:
        data: the bags; their tasks are those of the networks.
        paths: the checkpoint of each fold.
        splits: of each fold.
        parts: of the splits; ``external`` is their test part under that name.
        advance: told how many folds are done, after each.

    Raises:
        CraneError: what a task came upon, or its worker was lost.
    """
    task = ray.remote(num_cpus=1)(measured_task(predict_task))
    whole = ray.put(data)
    waiting = {
        fold: task.remote(whole, fold, path, splits[fold], parts) for fold, path in paths.items()
    }
    found, left_out = {}, list[LeftOut]()
    for fold, reference in waiting.items():
        table, left_out = _result(reference)
        found[fold] = Predictions(table)
        advance(len(found))
    return found, left_out


def _result(reference: Any) -> tuple[pa.Table, list[LeftOut]]:
    try:
        found = ray.get(reference)
    except RayTaskError:  # a mistake of ours, whose traceback is of use
        raise
    except RayError as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[-1]
        raise ClusterError(
            f"prediction: a worker was lost each time that it was tried ({reason}); look at the "
            "nodes' memory"
        ) from error
    if isinstance(found, CraneError):
        raise found
    table, left_out = found
    return table, left_out


def predict_task(data: StudyData, fold: int, path: str, split: Split, parts: Sequence[str]) -> Any:
    """The predictions of one fold's network and the slides left out, or the error."""
    torch.set_num_threads(1)
    try:
        tasks = data.cohort.task_set.tasks
        checkpoint = load_checkpoint(path, tasks=tasks)
        require_features(checkpoint, path, study_provenance(data))
        pack = data.pack()
        tables = []
        for part in parts:
            slides = split.test if part == "external" else getattr(split, part)
            tables += predict_bags(
                checkpoint,
                data.part(slides, pack),
                pack,
                tasks=tasks,
                fold=fold,
                split=part,
                level=data.config.level,
            )
        return Predictions.concat(tables).table, list(pack.left_out)
    except CraneError as error:
        return error

"""Trained networks judged on a part of a cohort, a Ray task a fold."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import ray
import torch

from crane_ray import storage
from crane_ray.cohort.findings import Finding
from crane_ray.cohort.splits import Split, read_splits
from crane_ray.cohort.tasks import TaskSet, load_task_set
from crane_ray.errors import ConfigError, CraneError
from crane_ray.evaluation.averaging import ensemble
from crane_ray.evaluation.measurements import metrics_rows
from crane_ray.evaluation.predictions import Predictions
from crane_ray.evaluation.published_layout import write_evaluation
from crane_ray.evaluation.summary import evaluate
from crane_ray.manifest import LeftOut, RunManifest
from crane_ray.mil.checkpoints import load_checkpoint
from crane_ray.runtime.cluster import connected
from crane_ray.runtime.evaluation_jobs import EvaluateJob
from crane_ray.runtime.results import subgroups
from crane_ray.runtime.studies import StudyData, load_study, study_provenance
from crane_ray.runtime.trained import find_checkpoints, predict_bags, require_features

PARTS = ("train", "val", "test")


@dataclass
class EvaluationSummary:
    """What came of an evaluation."""

    folder: str
    split: str
    rows: list[dict[str, str]] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)
    findings: tuple[Finding, ...] = ()


def run_evaluation(job: EvaluateJob) -> EvaluationSummary:
    """Predicts with each fold's network, and writes predictions, metrics and CLAM's files.

    Raises:
        ConfigError: networks, labels, splits and features do not fit together.
        StorageError: results cannot be written.
    """
    paths = find_checkpoints(job.model, job.fold_numbers())
    task_set = _task_set(job, paths)
    data = load_study(job.bags, task_set)
    splits = _splits(job, data, list(paths))
    folder = _folder(job)
    summary = EvaluationSummary(folder, job.split, findings=data.cohort.findings)
    manifest = RunManifest.start("evaluate", job)
    with connected(job.cluster):
        predictions = _predicted(job, data, paths, splits, summary)
    judged = Predictions.concat([predictions, *_ensembles(job, predictions)])
    fitted = _fitted_on_val(job, judged)
    evaluation = evaluate(
        fitted,
        task_set.tasks,
        by=subgroups(data, job.by),
        thresholds=job.thresholds or None,
        num_replicates=job.num_replicates,
    )
    judged.to_parquet(storage.join(folder, "predictions.parquet"))
    evaluation.write(folder)
    if job.split != "all":
        write_evaluation(folder, predictions, task_set.tasks)
    storage.put_bytes(storage.join(folder, "config.yaml"), job.to_yaml().encode())
    finished = manifest.finish(
        "failures" if summary.left_out else "done",
        counts={"slides": len(data.cohort.slide_ids), "left_out": len(summary.left_out)},
        left_out=summary.left_out,
        facts={"checkpoints": paths, "features": study_provenance(data)},
    )
    path = storage.join(folder, "manifest.json")
    storage.put_bytes(path, finished.model_dump_json(indent=2).encode(), durable=True)
    shown = PARTS if job.split == "all" else (job.split,)
    summary.rows = [
        {"part": part, **row} for part in shown for row in metrics_rows(evaluation, split=part)
    ]
    return summary


def _task_set(job: EvaluateJob, paths: Mapping[int, str]) -> TaskSet:
    if job.task is not None:
        return load_task_set(job.task)
    first = load_checkpoint(next(iter(paths.values())))
    if first.format != "crane-ray":
        raise ConfigError(
            f"--model {job.model}: a checkpoint of {first.format} does not say what its classes "
            "are; give --task, the task set it was trained with"
        )
    return TaskSet(name="checkpoint", tasks=first.tasks)


def _splits(job: EvaluateJob, data: StudyData, folds: Sequence[int]) -> dict[int, Split]:
    if job.split == "external":
        whole = Split((), (), data.cohort.slide_ids)
        return dict.fromkeys(folds, whole)
    place = job.splits or (job.model if storage.kind_of(job.model) == "folder" else None)
    if place is None:
        raise ConfigError(
            f"--split {job.split}: a checkpoint alone has no splits; give --splits FOLDER, or "
            "--split external for all slides"
        )
    return read_splits(place, folds)


def _folder(job: EvaluateJob) -> str:
    run = storage.name_of(job.model).rsplit(".", 1)[0]
    code = job.eval_code or f"{run}_{job.split}"
    folder = storage.join(job.results, f"EVAL_{code}")
    if storage.exists(storage.join(folder, "manifest.json")) and not job.overwrite:
        raise ConfigError(
            f"results {folder}: there is an evaluation already; --overwrite writes in its place, "
            "--eval-code gives this one another name"
        )
    return folder


def _predicted(
    job: EvaluateJob,
    data: StudyData,
    paths: Mapping[int, str],
    splits: Mapping[int, Split],
    summary: EvaluationSummary,
) -> Predictions:
    task = ray.remote(num_cpus=1)(predict_task)
    whole = ray.put(data)
    parts = PARTS if job.split == "all" else (job.split,)
    waiting = [task.remote(whole, fold, path, splits[fold], parts) for fold, path in paths.items()]
    tables = []
    for reference in waiting:
        result = ray.get(reference)
        if isinstance(result, CraneError):
            raise result
        table, summary.left_out = result
        tables.append(Predictions(table))
    return Predictions.concat(tables)


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
        if not tables:
            raise ConfigError(
                f"fold {fold}: its {' and '.join(parts)} part has no bag with features and labels; "
                "look at crane-ray splits --check"
            )
        return Predictions.concat(tables).table, list(pack.left_out)
    except CraneError as error:
        return error


def _ensembles(job: EvaluateJob, predictions: Predictions) -> list[Predictions]:
    return [ensemble(predictions)] if job.ensemble else []


def _fitted_on_val(job: EvaluateJob, predictions: Predictions) -> Predictions:
    """With the run's own predictions of val, to which temperatures and thresholds are fitted."""
    path = storage.join(job.model, "predictions.parquet")
    if "val" in predictions.splits() or not storage.exists(path):
        return predictions
    folds, tasks = set(predictions.folds()), set(predictions.tasks())
    kept = Predictions.from_parquet(path).select(split="val")
    wanted = [
        kept.select(fold=fold, task=task)
        for fold in kept.folds()
        for task in kept.tasks()
        if fold in folds and task in tasks
    ]
    return Predictions.concat([predictions, *wanted])

"""Trained networks judged on a part of a cohort, a Ray task a fold."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import pyarrow as pa
import ray
import torch
from ray.exceptions import RayError, RayTaskError

from crane_ray import storage
from crane_ray.cohort.cohort import Cohort
from crane_ray.cohort.findings import Finding, counted, some
from crane_ray.cohort.split_check import check_splits
from crane_ray.cohort.splits import SPLIT_FILE, Split, read_splits
from crane_ray.cohort.tasks import TaskSet, load_task_set
from crane_ray.errors import ClusterError, ConfigError, CraneError
from crane_ray.evaluation.averaging import ensemble
from crane_ray.evaluation.measurements import metrics_rows
from crane_ray.evaluation.predictions import Predictions
from crane_ray.evaluation.published_layout import write_evaluation
from crane_ray.evaluation.summary import evaluate
from crane_ray.manifest import LeftOut, RunManifest
from crane_ray.mil.checkpoints import Checkpoint, load_checkpoint
from crane_ray.runtime.cluster import connected
from crane_ray.runtime.evaluation_jobs import EvaluateJob
from crane_ray.runtime.results import subgroups
from crane_ray.runtime.studies import (
    StudyData,
    attach_features,
    load_labels,
    study_provenance,
)
from crane_ray.runtime.trained import find_checkpoints, predict_bags, require_features

PARTS = ("train", "val", "test")
ABOUT_PARTS = frozenset({"unlabelled", "without_features", "shared_slides", "shared_cases"})
"""Of what may be wrong with splits, what makes numbers wrong or parts smaller."""


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
    first = load_checkpoint(next(iter(paths.values())))
    task_set = _task_set(job, first)
    labelled = load_labels(job.bags, task_set)
    data = attach_features(labelled, job.bags)
    splits = _splits(job, data, list(paths))
    folder = _folder(job)
    subgroups(data, job.by)  # for its error: the columns are needed at the end
    findings = (
        *data.cohort.findings,
        *_about_splits(job, labelled, data, splits),
        *_about_level(job, first),
    )
    summary = EvaluationSummary(folder, job.split, findings=findings)
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
        facts={
            "checkpoints": paths,
            "features": study_provenance(data),
            "findings": [asdict(finding) for finding in summary.findings],
        },
    )
    finished.save(storage.join(folder, "manifest.json"))
    shown = PARTS if job.split == "all" else (job.split,)
    summary.rows = [
        {"part": part, **row} for part in shown for row in metrics_rows(evaluation, split=part)
    ]
    return summary


def _task_set(job: EvaluateJob, first: Checkpoint) -> TaskSet:
    if job.task is not None:
        return load_task_set(job.task)
    if not first.names_classes:
        raise ConfigError(
            f"--model {job.model}: a state dict does not say what its classes are; give --task, "
            "the task set it was trained with"
        )
    rows = first.provenance.get("filter", {})
    return TaskSet(name="checkpoint", tasks=first.tasks, filter=rows)


def _about_splits(
    job: EvaluateJob, labelled: Cohort, data: StudyData, splits: Mapping[int, Split]
) -> list[Finding]:
    """Slides of the part that cannot be judged, and such that were trained on."""
    if job.split == "external":
        return _seen_in_training(job, data)
    said = {finding.kind for finding in data.cohort.findings}
    found = check_splits(splits, labelled, data.cohort.slide_ids)
    return [finding for finding in found if finding.kind in ABOUT_PARTS - said]


def _seen_in_training(job: EvaluateJob, data: StudyData) -> list[Finding]:
    """Slides and cases of an external cohort that the run itself was trained on."""
    if storage.kind_of(job.model) != "folder":
        return []
    copies = [it for it in storage.list_files(job.model, ".csv") if SPLIT_FILE.search(it)]
    splits = read_splits(job.model).values() if copies else ()
    used = {slide for split in splits for slide in (*split.train, *split.val)}
    names = tuple(slide for slide in data.cohort.slide_ids if slide in used)
    if not names:
        return []
    message = (
        f"{counted(len(names), 'slide')} of {len(data.cohort.slide_ids):,} in the run's own train "
        f"or val parts ({some(names)}); what networks were trained on tells nothing of others: "
        "take them out of the table, or give --split test"
    )
    return [Finding("error", "seen_in_training", message, names)]


def _about_level(job: EvaluateJob, first: Checkpoint) -> list[Finding]:
    trained = first.provenance.get("bag_level", job.bags.level)
    if trained == job.bags.level:
        return []
    message = (
        f"the networks were trained on bags of a {trained} each, and are judged on bags of a "
        f"{job.bags.level} each; --bag-level {trained} is what they were trained on"
    )
    return [Finding("note", "other_bag_level", message)]


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
    run = storage.name_of(job.model).removesuffix(".safetensors").removesuffix(".pt")
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
    found = [Predictions(_result(reference, summary)) for reference in waiting]
    empty = [fold for fold, table in zip(paths, found, strict=True) if not len(table)]
    if len(empty) == len(paths):
        raise ConfigError(
            f"--split {job.split}: no fold has a bag with features and labels there; look at "
            "crane-ray splits --check"
        )
    if empty:
        message = (
            f"{counted(len(empty), 'fold')} without a bag in the {job.split} part: "
            f"{some(list(map(str, empty)), 12)}; metrics are those of the others"
        )
        summary.findings += (Finding("warning", "empty_parts", message),)
    return Predictions.concat(found)


def _result(reference: Any, summary: EvaluationSummary) -> pa.Table:
    """The table of a `predict_task`; the summary learns of the slides left out.

    Raises:
        CraneError: what the task came upon, or its worker was lost.
    """
    try:
        found = ray.get(reference)
    except RayTaskError:  # a mistake of ours, whose traceback is of use
        raise
    except RayError as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[-1]
        raise ClusterError(
            f"evaluation: a worker was lost each time that it was tried ({reason}); look at the "
            "nodes' memory"
        ) from error
    if isinstance(found, CraneError):
        raise found
    table, summary.left_out = found
    return table


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

"""Trained networks judged on a part of a cohort."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

from crane_ray import storage
from crane_ray.cohort.counts import class_counts
from crane_ray.cohort.findings import Finding, counted, some
from crane_ray.cohort.splits import Split, read_splits
from crane_ray.cohort.tasks import TaskSet, load_task_set
from crane_ray.errors import ConfigError
from crane_ray.evaluation.averaging import ensemble
from crane_ray.evaluation.measurements import Evaluation, metrics_rows
from crane_ray.evaluation.predictions import Predictions
from crane_ray.evaluation.published_layout import write_evaluation
from crane_ray.evaluation.summary import check_thresholds, evaluate
from crane_ray.manifest import LeftOut, RunManifest
from crane_ray.mil.checkpoints import Checkpoint, load_checkpoint
from crane_ray.runtime.cluster import connected
from crane_ray.runtime.evaluation_findings import evaluation_findings
from crane_ray.runtime.evaluation_jobs import EvaluateJob
from crane_ray.runtime.landmarks import landmarks_of
from crane_ray.runtime.prediction_tasks import predict_on_cluster
from crane_ray.runtime.reports import try_report
from crane_ray.runtime.results import subgroups
from crane_ray.runtime.studies import (
    StudyData,
    attach_features,
    load_labels,
    study_provenance,
)
from crane_ray.runtime.trained import find_checkpoints, val_predictions

PARTS = ("train", "val", "test")


@dataclass
class EvaluationSummary:
    """What came of an evaluation."""

    folder: str
    split: str
    rows: list[dict[str, str]] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)
    findings: tuple[Finding, ...] = ()
    report: str = ""
    """Path of the page."""
    notes: list[str] = field(default_factory=list)
    """What a person should know besides."""


def run_evaluation(job: EvaluateJob) -> EvaluationSummary:
    """Predicts with each fold's network, and writes predictions, metrics and CLAM's files.

    Raises:
        ConfigError: networks, labels, splits and features do not fit together.
        StorageError: results cannot be written.
    """
    paths = find_checkpoints(job.model, job.fold_numbers())
    first = load_checkpoint(next(iter(paths.values())))
    task_set = _task_set(job, first)
    check_thresholds(job.thresholds, task_set.tasks)
    labelled = load_labels(job.bags, task_set)
    data = attach_features(labelled, job.bags)
    splits = _splits(job, data, list(paths))
    subgroups(data, job.by)  # for its error: the columns are needed at the end
    findings = evaluation_findings(job, labelled, data, splits, first.provenance)
    summary = EvaluationSummary(_folder(job), job.split, findings=findings)
    manifest = RunManifest.start("evaluate", job)
    with manifest.told(), connected(job.cluster, landmarks_of("evaluate", job)):
        predictions = _predicted(job, data, paths, splits, summary)
    evaluation = _judge(job, data, predictions, summary)
    outcome = "failures" if summary.left_out else "done"
    finished = manifest.finish(outcome, **_record(data, paths, summary))
    finished.save(storage.join(summary.folder, "manifest.json"))
    if job.report:
        summary.report = try_report(summary.folder, summary.notes.append)
    summary.rows = [
        {"part": part, **row}
        for part in _parts(job)
        for row in metrics_rows(evaluation, split=part)
    ]
    return summary


def _record(
    data: StudyData, paths: Mapping[int, str], summary: EvaluationSummary
) -> dict[str, object]:
    """What the manifest says."""
    return {
        "counts": {"slides": len(data.cohort.slide_ids), "left_out": len(summary.left_out)},
        "left_out": summary.left_out,
        "facts": {
            "checkpoints": {
                str(fold): {"path": path, "fingerprint": load_checkpoint(path).fingerprint}
                for fold, path in paths.items()
            },
            "features": study_provenance(data),
            "findings": [asdict(finding) for finding in summary.findings],
            "tasks": [task.model_dump(mode="json") for task in data.cohort.task_set.tasks],
            "cohort": class_counts(data.cohort),
        },
    }


def _judge(
    job: EvaluateJob, data: StudyData, predictions: Predictions, summary: EvaluationSummary
) -> Evaluation:
    """The metrics of predictions; they, the predictions and the published files are written."""
    tasks, folder = data.cohort.task_set.tasks, summary.folder
    judged = Predictions.concat([predictions, *_ensembles(job, predictions)])
    evaluation = evaluate(
        _fitted_on_val(job, judged),
        tasks,
        by=subgroups(data, job.by),
        thresholds=job.thresholds or None,
        num_replicates=job.num_replicates,
    )
    if job.overwrite:  # or fold_7.csv of an evaluation with more folds would lie beside these
        storage.remove_tree(folder)
    judged.to_parquet(storage.join(folder, "predictions.parquet"))
    evaluation.write(folder)
    write_evaluation(folder, predictions, tasks)
    storage.put_bytes(storage.join(folder, "config.yaml"), job.to_yaml().encode())
    return evaluation


def _parts(job: EvaluateJob) -> Sequence[str]:
    return PARTS if job.split == "all" else (job.split,)


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
    found, summary.left_out = predict_on_cluster(data, paths, splits, _parts(job))
    empty = [fold for fold, predictions in found.items() if not len(predictions)]
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
    return Predictions.concat(found.values())


def _ensembles(job: EvaluateJob, predictions: Predictions) -> list[Predictions]:
    return [ensemble(predictions)] if job.ensemble else []


def _fitted_on_val(job: EvaluateJob, predictions: Predictions) -> Predictions:
    """With the run's own predictions of val, to which temperatures and thresholds are fitted."""
    if "val" in predictions.splits():
        return predictions
    folds, tasks = set(predictions.folds()), set(predictions.tasks())
    kept = val_predictions(job.model, job.bags.level)
    wanted = [
        kept.select(fold=fold, task=task)
        for fold in kept.folds()
        for task in kept.tasks()
        if fold in folds and task in tasks
    ]
    return Predictions.concat([predictions, *wanted])

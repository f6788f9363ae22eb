"""Networks trained on the folds of a cohort: checked, trained, and their results gathered."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace

import torch

from crane_ray import storage
from crane_ray.cohort.cohort import Cohort
from crane_ray.cohort.counts import class_counts
from crane_ray.cohort.findings import Finding
from crane_ray.cohort.split_check import check_splits
from crane_ray.cohort.splits import Split, read_splits
from crane_ray.cohort.tasks import load_task_set
from crane_ray.errors import ConfigError
from crane_ray.manifest import RunManifest, concluded
from crane_ray.mil.aggregator import build_aggregator
from crane_ray.runtime.cluster import address_of, connected
from crane_ray.runtime.fold_tasks import train_on_cluster
from crane_ray.runtime.folds import (
    FoldKey,
    FoldOutcome,
    FoldWork,
    begin_fold,
    ended_folds,
    read_outcome,
    require_same_fold,
)
from crane_ray.runtime.landmarks import landmarks_of
from crane_ray.runtime.measured_studies import measured_training
from crane_ray.runtime.pools import Node
from crane_ray.runtime.reports import try_report
from crane_ray.runtime.results import subgroups, write_results
from crane_ray.runtime.shares import Share, plan_share, too_small
from crane_ray.runtime.studies import (
    StudyData,
    attach_features,
    load_labels,
    study_provenance,
)
from crane_ray.runtime.study_jobs import TrainJob
from crane_ray.runtime.tracking import require_packages, tracked
from crane_ray.runtime.training_course import (
    Course,
    SilentTraining,
    TrainingReporter,
    TrainingSummary,
)


def run_training(job: TrainJob, reporter: TrainingReporter | None = None) -> TrainingSummary:
    """Trains every fold (and seed), then writes predictions, metrics and the published files.

    A fold that cannot be trained, whose loss is not finite or whose workers are lost, and slides
    whose features cannot be used, are recorded; the others go on.

    Raises:
        ConfigError: table, splits, features, network or cluster cannot be used together, or there
            is a run of that name already.
        StoreError: a run that should go on was another one.
        StorageError: results cannot be written.
    """
    begun = time.perf_counter()
    work, keys, summary = _checked(job, reporter or SilentTraining())
    name, settings = storage.name_of(summary.folders[0]), job.model_dump(mode="json")
    reporter, manifest = measured_training(name, reporter), RunManifest.start("train", job)
    with manifest.told(), connected(job.cluster, landmarks_of("train", job)) as nodes:
        work = _prepare(job, work)
        with (
            _recorded(manifest, work, summary),
            tracked(job.tracking, name, settings, reporter.note) as trackers,
        ):
            left = _unfinished(work, keys, summary)
            if left:
                share = _share(job, nodes, len(left), reporter)
                course = Course(summary, reporter, trackers, work.folders)
                train_on_cluster(job, work, left, share, course)
            else:
                reporter.note("all folds were trained before; their results are written anew")
            summary.outcomes.sort(key=lambda outcome: (outcome.seed, outcome.fold))
            summary.rows = write_results(job, work, summary.outcomes)
    if job.report:
        found = [try_report(folder, reporter.note) for folder in summary.folders]
        summary.reports = [path for path in found if path]
    summary.seconds = round(time.perf_counter() - begun, 1)
    return summary


def _checked(
    job: TrainJob, reporter: TrainingReporter
) -> tuple[FoldWork, list[FoldKey], TrainingSummary]:
    """What is to be trained, if all that the job names fits together; findings are reported."""
    require_packages(job.tracking)
    task_set = load_task_set(job.task)
    labelled = load_labels(job.bags, task_set)
    data = attach_features(labelled, job.bags)
    subgroups(data, job.by)  # for its error: the columns are needed at the end
    with torch.device("meta"):
        build_aggregator(job.model, 8, task_set.tasks)
    splits = read_splits(job.splits, job.fold_numbers())
    findings = study_findings(labelled, data, splits)
    for finding in findings:
        reporter.note(f"{finding.severity}: {finding.message}")
    work = _work(job, data, splits)
    keys = [FoldKey(seed, fold) for seed in work.folders for fold in splits]
    _require_free(job, work, keys)
    return work, keys, TrainingSummary(list(work.folders.values()), findings=findings)


def study_findings(
    labelled: Cohort, data: StudyData, splits: Mapping[int, Split]
) -> tuple[Finding, ...]:
    """What was noticed about the cohort, then about the splits, each thing once."""
    cohort = data.cohort.findings
    said = {finding.kind: set(finding.names) for finding in cohort}
    return (
        *cohort,
        *(
            finding
            for finding in check_splits(splits, labelled, data.cohort.slide_ids)
            if not (finding.names and said.get(finding.kind, set()) >= set(finding.names))
        ),
    )


def _work(job: TrainJob, data: StudyData, splits: Mapping[int, Split]) -> FoldWork:
    code, first = job.exp_code or data.cohort.task_set.name, job.training.seed
    seeds = range(first, first + job.seeds)
    return FoldWork(
        data=data,
        experiment=job.experiment,
        splits=splits,
        folders={seed: storage.join(job.results, f"{code}_s{seed}") for seed in seeds},
        provenance=study_provenance(data),
        predict_train=job.predict_train,
        checkpoint_every_s=job.checkpoint_every_s,
    )


def _require_free(job: TrainJob, work: FoldWork, keys: Sequence[FoldKey]) -> None:
    """Refuses runs that are there already, unless this job may go on with them or replace them."""
    if job.overwrite:
        return
    for folder in work.folders.values():
        if storage.exists(storage.join(folder, "config.yaml")) and not job.resume:
            raise ConfigError(
                f"results {folder}: there is a run already; --resume goes on with it, --overwrite "
                "begins it anew, --exp-code gives this one another name"
            )
    for key in keys:
        require_same_fold(work, key)


def _prepare(job: TrainJob, work: FoldWork) -> FoldWork:
    """Makes the runs' folders ready; the work knows the folds that other jobs trained, too."""
    written = job.model_copy(update={"resume": False, "overwrite": False})
    others: set[int] = set()
    for folder in work.folders.values():
        if job.overwrite:
            storage.remove_tree(folder)
        storage.put_bytes(storage.join(folder, "config.yaml"), written.to_yaml().encode())
        others |= ended_folds(folder) - work.splits.keys()
    there = set(read_splits(job.splits)) if others else set()
    elsewhere = read_splits(job.splits, others & there) if others & there else {}
    for seed in work.folders:
        for fold in work.splits:
            begin_fold(work, FoldKey(seed, fold))
    return replace(work, splits={**work.splits, **elsewhere})


def _unfinished(work: FoldWork, keys: Sequence[FoldKey], summary: TrainingSummary) -> list[FoldKey]:
    """The folds that are yet to be trained; what came of the others goes to the summary."""
    left = []
    for key in (FoldKey(seed, fold) for seed in work.folders for fold in work.splits):
        outcome = read_outcome(work, key)
        if outcome is not None and not (outcome.failure and key in keys):
            summary.outcomes.append(outcome)
        elif key in keys:
            left.append(key)
            storage.remove_tree(storage.join(work.folder(key), "outcome.json"))  # it failed
    return left


def _share(
    job: TrainJob, nodes: Sequence[Node], num_folds: int, reporter: TrainingReporter
) -> Share:
    share = plan_share(job, nodes, num_folds)
    problem = too_small(job, nodes, share)
    if problem and address_of(job.cluster) is None:
        raise ConfigError(problem)
    if problem:  # an autoscaler may bring nodes
        reporter.note(f"warning: {problem}; waiting for it to grow")
    return share


@contextmanager
def _recorded(manifest: RunManifest, work: FoldWork, summary: TrainingSummary) -> Iterator[None]:
    """A manifest.json in each run's folder, finished however the run ends."""

    def conclude(outcome: str, reason: str) -> None:
        if outcome == "done" and (summary.failures or summary.left_out):
            outcome = "failures"
        for seed, folder in work.folders.items():
            own = [it for it in summary.outcomes if it.seed == seed]
            finished = manifest.finish(outcome, error=reason, **_record(own, work, summary))
            finished.save(storage.join(folder, "manifest.json"))

    with concluded(conclude):
        yield


def _record(
    outcomes: Sequence[FoldOutcome], work: FoldWork, summary: TrainingSummary
) -> dict[str, object]:
    """What a manifest says of one run."""
    return {
        "counts": {
            "folds": len(outcomes),
            "failed_folds": sum(bool(it.failure) for it in outcomes),
            "slides": len(work.data.cohort.slide_ids),
            "left_out": len(summary.left_out),
        },
        "left_out": summary.left_out,
        "facts": {
            "findings": [asdict(finding) for finding in summary.findings],
            "failures": [it.failure for it in outcomes if it.failure],
            "seconds_by_fold": {str(it.fold): it.seconds for it in outcomes},
            "features": dict(work.provenance),
            "tasks": [task.model_dump(mode="json") for task in work.tasks],
            "cohort": class_counts(work.data.cohort),
        },
    }

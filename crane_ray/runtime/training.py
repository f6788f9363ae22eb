"""Folds on a cluster: a Ray task a fold, or a Ray Train run for a fold of several workers."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import ray
import torch
from ray.exceptions import RayError

from crane_ray import storage
from crane_ray.cohort.findings import Finding
from crane_ray.cohort.split_check import check_splits
from crane_ray.cohort.splits import Split, read_splits
from crane_ray.cohort.tasks import TaskSet, load_task_set
from crane_ray.errors import ClusterError, ConfigError, CraneError
from crane_ray.manifest import LeftOut, RunManifest
from crane_ray.mil.aggregator import build_aggregator
from crane_ray.mil.workers import DistributedWorker
from crane_ray.runtime.cluster import connected
from crane_ray.runtime.folds import FoldKey, FoldOutcome, FoldWork, read_outcome, train_folds
from crane_ray.runtime.mailbox import Mailbox, post
from crane_ray.runtime.pools import Node
from crane_ray.runtime.results import write_results
from crane_ray.runtime.studies import StudyData, load_study, study_provenance
from crane_ray.runtime.study_jobs import TrainJob
from crane_ray.runtime.tracking import Tracker, open_trackers

POLL_S = 0.5
SHARED_GPU = 0.25
"""Of a GPU that a fold gets: one bag at a time leaves most of it idle."""


class TrainingReporter(Protocol):
    """Told how a training is going."""

    def begin(self, keys: Sequence[FoldKey], epochs: int) -> None:
        """Training starts."""
        ...

    def epoch(self, message: dict[str, Any]) -> None:
        """A fold's epoch is over; see `folds` for what the message has."""
        ...

    def finished(self, outcome: FoldOutcome) -> None:
        """A fold is over."""
        ...

    def note(self, text: str) -> None:
        """Something a person should know."""
        ...

    def end(self) -> None:
        """Training is over, well or not."""
        ...


class SilentTraining:
    """A reporter that says nothing."""

    def begin(self, keys: Sequence[FoldKey], epochs: int) -> None:
        """Says nothing."""

    def epoch(self, message: dict[str, Any]) -> None:
        """Says nothing."""

    def finished(self, outcome: FoldOutcome) -> None:
        """Says nothing."""

    def note(self, text: str) -> None:
        """Says nothing."""

    def end(self) -> None:
        """Says nothing."""


@dataclass
class TrainingSummary:
    """What came of a training."""

    folders: list[str]
    """Of the runs, one a seed."""
    outcomes: list[FoldOutcome] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)
    findings: tuple[Finding, ...] = ()
    rows: list[dict[str, str]] = field(default_factory=list)
    """Of the metrics table on the test parts."""
    seconds: float = 0.0

    @property
    def failures(self) -> list[str]:
        """Folds that failed, in words."""
        return [outcome.failure for outcome in self.outcomes if outcome.failure]


def run_training(job: TrainJob, reporter: TrainingReporter | None = None) -> TrainingSummary:
    """Trains every fold (and seed), then writes predictions, metrics and the published files.

    A fold whose loss is not finite, and slides whose features cannot be used, are recorded; the
    others go on.

    Raises:
        ConfigError: table, splits, features or network cannot be used together.
        StoreError: there is a run of that name already, or one with another config.
        StorageError: results cannot be written.
    """
    begun = time.perf_counter()
    reporter = reporter or SilentTraining()
    task_set = load_task_set(job.task)
    data = load_study(job.bags, task_set)
    splits = read_splits(job.splits, job.fold_numbers())
    findings = (*data.cohort.findings, *check_splits(splits, data.cohort))
    for finding in findings:
        reporter.note(f"{finding.severity}: {finding.message}")
    with torch.device("meta"):
        build_aggregator(job.model, 8, task_set.tasks)
    work = _work(job, task_set, data, splits)
    keys = [FoldKey(seed, fold) for seed in work.folders for fold in splits]
    done = _prepare(job, work, keys)
    summary = TrainingSummary(list(work.folders.values()), list(done), findings=findings)
    left = [key for key in keys if not any(_is(outcome, key) for outcome in done)]
    with _recorded(job, work, summary):
        with connected(job.cluster) as nodes, _tracked(job, work) as trackers:
            if left:
                course = _Course(summary, reporter, trackers, work.folders)
                _train(job, work, left, plan_share(job, nodes, len(left)), course)
        summary.outcomes.sort(key=lambda outcome: (outcome.seed, outcome.fold))
        summary.rows = write_results(job, work, summary.outcomes)
    summary.seconds = round(time.perf_counter() - begun, 1)
    return summary


def _work(
    job: TrainJob, task_set: TaskSet, data: StudyData, splits: Mapping[int, Split]
) -> FoldWork:
    code, first = job.exp_code or task_set.name, job.training.seed
    seeds = range(first, first + job.seeds)
    return FoldWork(
        data=data,
        experiment=job.experiment,
        splits=splits,
        folders={seed: storage.join(job.results, f"{code}_s{seed}") for seed in seeds},
        provenance=study_provenance(data),
        predict_train=job.predict_train,
        checkpoint_every_s=job.checkpoint_every_s,
        gpu_share=0.0,
    )


def _prepare(job: TrainJob, work: FoldWork, keys: Sequence[FoldKey]) -> list[FoldOutcome]:
    """Makes the runs' folders ready, and returns what earlier runs finished."""
    for folder in work.folders.values():
        if not storage.exists(storage.join(folder, "config.yaml")):
            continue
        if job.overwrite:
            storage.remove_tree(folder)
        elif not job.resume:
            raise ConfigError(
                f"results {folder}: there is a run already; --resume goes on with it, --overwrite "
                "begins it anew, --exp-code gives this one another name"
            )
    found = [read_outcome(work, key) for key in keys]
    for folder in work.folders.values():
        storage.put_bytes(storage.join(folder, "config.yaml"), job.to_yaml().encode())
    return [outcome for outcome in found if outcome is not None]


def _is(outcome: FoldOutcome, key: FoldKey) -> bool:
    return (outcome.seed, outcome.fold) == (key.seed, key.fold)


@contextmanager
def _recorded(job: TrainJob, work: FoldWork, summary: TrainingSummary) -> Iterator[None]:
    """A manifest.json in each run's folder, finished however the run ends."""
    manifest = RunManifest.start("train", job)
    outcome, reason = "error", ""
    try:
        yield
        outcome = "failures" if summary.failures or summary.left_out else "done"
    except KeyboardInterrupt:
        outcome = "stopped"
        raise
    except Exception as error:
        reason = str(error)
        raise
    finally:
        finished = manifest.finish(
            outcome,
            error=reason,
            counts={
                "folds": len(summary.outcomes),
                "failed_folds": len(summary.failures),
                "slides": len(work.data.cohort.slide_ids),
                "left_out": len(summary.left_out),
            },
            left_out=summary.left_out,
            facts={
                "findings": [
                    {"severity": found.severity, "kind": found.kind, "message": found.message}
                    for found in summary.findings
                ],
                "failures": summary.failures,
                "features": dict(work.provenance),
            },
        )
        for folder in work.folders.values():
            path = storage.join(folder, "manifest.json")
            storage.put_bytes(path, finished.model_dump_json(indent=2).encode(), durable=True)


@contextmanager
def _tracked(job: TrainJob, work: FoldWork) -> Iterator[list[Tracker]]:
    name = storage.name_of(next(iter(work.folders.values())))
    with ExitStack() as stack:
        trackers = open_trackers(job.tracking, name, job.model_dump(mode="json"))
        for tracker in trackers:
            stack.callback(tracker.close)
        yield trackers


@dataclass(frozen=True)
class Share:
    """What a worker gets of the cluster."""

    cpus: int
    gpus: float


def plan_share(job: TrainJob, nodes: Sequence[Node], num_folds: int) -> Share:
    """CPUs and GPUs of a worker: all folds at once, as far as the cluster goes."""
    has_gpus = any(node.gpus for node in nodes)
    gpus = job.workers.gpus
    if gpus is None:
        alone = job.workers.count > 1 or job.grouped_folds
        gpus = (1.0 if alone else SHARED_GPU) if has_gpus else 0.0
    total, largest = sum(node.cpus for node in nodes), max(node.cpus for node in nodes)
    workers = job.workers.count * (1 if job.grouped_folds else num_folds)
    cpus = job.workers.cpus or max(1, min(int(total // workers), int(largest)))
    return Share(cpus, gpus)


@dataclass
class _Course:
    """Those who want to know how it goes."""

    summary: TrainingSummary
    reporter: TrainingReporter
    trackers: Sequence[Tracker]
    folders: Mapping[int, str]

    def epochs(self, messages: Sequence[dict[str, Any]]) -> None:
        for message in messages:
            self.reporter.epoch(message)
            for tracker in self.trackers:
                tracker.epoch(self.folders[message["seed"]], message)

    def finished(self, outcomes: Sequence[FoldOutcome], left_out: Sequence[LeftOut]) -> None:
        known = {slide.slide_id for slide in self.summary.left_out}
        self.summary.left_out += [slide for slide in left_out if slide.slide_id not in known]
        for outcome in outcomes:
            self.summary.outcomes.append(outcome)
            self.reporter.finished(outcome)


def _train(
    job: TrainJob, work: FoldWork, keys: Sequence[FoldKey], share: Share, course: _Course
) -> None:
    mailbox = Mailbox()
    groups = [list(keys)] if job.grouped_folds else [[key] for key in keys]
    course.reporter.begin(keys, job.training.epochs)
    try:
        whole = ray.put(replace(work, gpu_share=share.gpus))
        waiting = [_submit(job, whole, group, share, mailbox) for group in groups]
        while waiting:
            ready, waiting = ray.wait(waiting, timeout=POLL_S)
            course.epochs(mailbox.take())
            for reference in ready:
                course.finished(*_result(reference))
        course.epochs(mailbox.take())
    finally:
        course.reporter.end()


def _submit(job: TrainJob, work: Any, keys: list[FoldKey], share: Share, mailbox: Mailbox) -> Any:
    if job.workers.count > 1:
        task = ray.remote(num_cpus=0, max_retries=job.workers.max_failures)(distributed_task)
        return task.remote(work, keys[0], job.workers, share, mailbox.address)
    task = ray.remote(
        num_cpus=share.cpus, num_gpus=share.gpus, max_retries=job.workers.max_failures
    )(fold_task)
    return task.remote(work, keys, share, mailbox.address)


def _result(reference: Any) -> tuple[list[FoldOutcome], tuple[LeftOut, ...]]:
    try:
        result = ray.get(reference)
    except RayError as error:
        reason = str(error).strip().splitlines()[-1]
        raise ClusterError(
            f"training: a fold's worker was lost each time it was tried ({reason}); look at the "
            "nodes' memory, then go on with --resume"
        ) from error
    if isinstance(result, CraneError):
        raise result
    outcomes, left_out = result
    return outcomes, left_out


def fold_task(work: FoldWork, keys: list[FoldKey], share: Share, box: Any) -> Any:
    """Trains folds in this process: their outcomes and the slides left out, or the error."""
    torch.set_num_threads(share.cpus)
    try:
        outcomes = train_folds(
            work, keys, tell=lambda message: post(box, message), grouped=len(keys) > 1
        )
        return outcomes, work.data.pack().left_out
    except CraneError as error:
        return error


def distributed_task(work: FoldWork, key: FoldKey, workers: Any, share: Share, box: Any) -> Any:
    """Trains one fold on several workers with Ray Train; returns as `fold_task`."""
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    resources: dict[str, float] = {"CPU": share.cpus}
    if share.gpus:
        resources["GPU"] = share.gpus
    least = workers.min_count or workers.count
    place = storage.join(work.folder(key), "ray_train")
    trainer = TorchTrainer(
        worker_loop,
        train_loop_config={"work": work, "key": key, "share": share, "box": box},
        scaling_config=ScalingConfig(
            num_workers=workers.count if least == workers.count else (least, workers.count),
            use_gpu=share.gpus > 0,
            resources_per_worker=resources,
        ),
        run_config=RunConfig(
            name="run",
            storage_path=place,
            failure_config=FailureConfig(
                max_failures=workers.max_failures, controller_failure_limit=workers.max_failures
            ),
        ),
    )
    try:
        trainer.fit()
    except Exception as error:
        found = _crane_error(error)
        if found is None:
            raise
        return found
    outcome = read_outcome(work, key, failed=True)
    assert outcome is not None
    storage.remove_tree(place)
    return [outcome], work.data.pack().left_out


def worker_loop(config: dict[str, Any]) -> None:
    """What each worker of a Ray Train run does."""
    torch.set_num_threads(config["share"].cpus)
    work, box = config["work"], config["box"]
    train_folds(
        work, [config["key"]], worker=DistributedWorker(), tell=lambda message: post(box, message)
    )


def _crane_error(error: BaseException) -> CraneError | None:
    """The user's mistake behind what Ray Train raised, if it is one."""
    failures = getattr(error, "worker_failures", None) or {}
    for candidate in (*failures.values(), error.__cause__, error):
        cause = getattr(candidate, "cause", candidate)
        if isinstance(cause, CraneError):
            return cause
    return None

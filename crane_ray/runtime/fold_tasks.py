"""Folds on a cluster: a Ray task a fold, or a Ray Train run for a fold of several workers."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import ray
import torch
from ray.exceptions import RayError, RayTaskError

from crane_ray import remote, storage
from crane_ray.errors import ClusterError, ConfigError, CraneError
from crane_ray.mil.workers import DistributedWorker
from crane_ray.runtime.fold_training import train_folds
from crane_ray.runtime.folds import FoldKey, FoldOutcome, FoldWork, read_outcome
from crane_ray.runtime.mailbox import Mailbox, Sender, drivers_node
from crane_ray.runtime.shares import Share
from crane_ray.runtime.study_jobs import TrainJob, WorkersConfig
from crane_ray.runtime.training_course import Course
from crane_ray.runtime.worker_metrics import measured_task

log = logging.getLogger(__name__)

POLL_S = 0.5
STOP_S = 10
"""What the end of a job waits for workers to be gone."""


def train_on_cluster(
    job: TrainJob, work: FoldWork, keys: Sequence[FoldKey], share: Share, course: Course
) -> None:
    """Trains folds, all at once as far as the cluster goes; `course` is told of each.

    A fold whose worker is lost each time that it is tried fails; the others go on.

    Raises:
        CraneError: features, disk or devices that no fold can use.
    """
    mailbox = Mailbox()
    groups = [list(keys)] if job.grouped_folds else [[key] for key in keys]
    # Ray lets single tasks wait; a Ray Train run that waits for its workers gives up.
    at_once = max(share.at_once, 1) if job.workers.count > 1 else len(groups)
    running: dict[Any, list[FoldKey]] = {}
    course.reporter.begin(keys, job.training.epochs)
    try:
        whole = ray.put(replace(work, gpu_share=share.gpus))
        while groups or running:
            while groups and len(running) < at_once:
                group = groups.pop(0)
                running[_submit(job, whole, group, share, mailbox)] = group
            ready, _ = ray.wait(list(running), timeout=POLL_S)
            course.told(mailbox.take())
            for reference in ready:
                course.finished(_outcomes(reference, running.pop(reference), work))
        course.told(mailbox.take())
    finally:
        _stop(running)
        course.reporter.end()


def _stop(running: Mapping[Any, object]) -> None:
    """Ends folds that nobody waits for: a Ray that outlives the job would train them to the end."""
    for reference in running:
        ray.cancel(reference, force=True)
    if running:
        ray.wait(list(running), num_returns=len(running), timeout=STOP_S)


def _submit(job: TrainJob, work: Any, keys: list[FoldKey], share: Share, mailbox: Mailbox) -> Any:
    if job.workers.count > 1:
        task = ray.remote(
            num_cpus=0,
            max_retries=job.workers.max_failures,
            scheduling_strategy=drivers_node(),  # with Ray Train's controller
        )(measured_task(distributed_task))
        return task.remote(work, keys[0], job.workers, share, mailbox.address)
    task = ray.remote(
        num_cpus=share.cpus, num_gpus=share.gpus, max_retries=job.workers.max_failures
    )(measured_task(fold_task))
    return task.remote(work, keys, share, mailbox.address)


def _outcomes(reference: Any, keys: Sequence[FoldKey], work: FoldWork) -> list[FoldOutcome]:
    try:
        result = ray.get(reference)
    except RayTaskError:  # a mistake of ours, whose traceback is of use
        raise
    except RayError as error:
        result = _lost(_last_line(error))
    if isinstance(result, ClusterError):
        return [
            FoldOutcome(
                key.seed, key.fold, work.fingerprint(key), failure=f"fold {key.fold}: {result}"
            )
            for key in keys
        ]
    if isinstance(result, CraneError):
        raise result
    outcomes: list[FoldOutcome] = result
    return outcomes


def _lost(reason: str) -> ClusterError:
    return ClusterError(
        f"its worker was lost each time that it was tried ({reason}); look at the nodes' memory, "
        "then go on with --resume"
    )


def _last_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[-1].strip()


def fold_task(
    work: FoldWork, keys: list[FoldKey], share: Share, box: Any
) -> list[FoldOutcome] | CraneError:
    """Trains folds in this process: their outcomes, or the error that is that of all."""
    torch.set_num_threads(share.cpus)
    tell = Sender(box)
    try:
        return train_folds(work, keys, tell=tell, grouped=len(keys) > 1)
    except CraneError as error:
        return error
    finally:
        tell.flush()


def distributed_task(
    work: FoldWork, key: FoldKey, workers: WorkersConfig, share: Share, box: Any
) -> list[FoldOutcome] | CraneError:
    """Trains one fold on several workers with Ray Train; returns as `fold_task`."""
    from ray.train.torch import TorchTrainer

    outcome = read_outcome(work, key)
    if outcome is None:
        place = storage.join(work.folder(key), "ray_train")
        trainer = TorchTrainer(
            worker_loop,
            train_loop_config={"work": work, "key": key, "share": share, "box": box},
            **train_configs(workers, share, place),
        )
        try:
            trainer.fit()
        except Exception as error:  # Ray Train's own kinds, with those of workers inside
            log.info("Ray Train ended", exc_info=True)
            return _crane_error(error) or _lost(_last_line(error))
        storage.remove_tree(place)
        outcome = read_outcome(work, key)
    if outcome is None:
        path = _problem_path(work, key)
        problem = storage.read_bytes(path).decode()
        storage.remove_tree(path)
        return ConfigError(problem)
    return [outcome]


def train_configs(
    workers: WorkersConfig, share: Share, place: str, callbacks: Sequence[Any] = ()
) -> dict[str, Any]:
    """How Ray Train places workers, what it does when one dies, and where it keeps its notes."""
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig

    resources: dict[str, float] = {"CPU": share.cpus}
    if share.gpus:
        resources["GPU"] = share.gpus
    least = workers.min_count or workers.count
    place, filesystem = remote.arrow_filesystem(place)
    return {
        "torch_config": TorchConfig(backend="nccl" if share.gpus >= 1 else "gloo"),
        "scaling_config": ScalingConfig(
            num_workers=workers.count if least == workers.count else (least, workers.count),
            use_gpu=share.gpus > 0,
            resources_per_worker=resources,
        ),
        "run_config": RunConfig(
            name="run",
            storage_path=place,
            storage_filesystem=filesystem,
            callbacks=list(callbacks),
            failure_config=FailureConfig(
                max_failures=workers.max_failures, controller_failure_limit=workers.max_failures
            ),
        ),
    }


def worker_loop(config: dict[str, Any]) -> None:
    """What each worker of a Ray Train run does."""
    use_worker_device(config["share"])
    work, key, tell, worker = (
        config["work"],
        config["key"],
        Sender(config["box"]),
        DistributedWorker(),
    )
    try:
        train_folds(work, [key], worker=worker, tell=tell)
    except ConfigError as error:  # of all workers: no reason for Ray Train to try it again
        if worker.rank == 0:
            storage.put_bytes(_problem_path(work, key), str(error).encode())
    tell.flush()


def use_worker_device(share: Share) -> None:
    """Gives torch what Ray Train gave this worker."""
    torch.set_num_threads(share.cpus)
    if share.gpus:
        from ray.train.torch import get_device

        torch.cuda.set_device(get_device())  # a node's workers see all of its GPUs


def _problem_path(work: FoldWork, key: FoldKey) -> str:
    """What is wrong for each fold alike, left by the workers of this one."""
    return storage.join(work.folder(key), "problem.txt")


def _crane_error(error: BaseException) -> CraneError | None:
    """The user's mistake behind what Ray Train raised, if it is one."""
    failures = getattr(error, "worker_failures", None) or {}
    for candidate in (*failures.values(), error.__cause__, error):
        cause = getattr(candidate, "cause", candidate)
        if isinstance(cause, CraneError):
            return cause
    return None

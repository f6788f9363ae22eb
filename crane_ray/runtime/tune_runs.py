"""Trials on a cluster, by Ray Tune: searchers, schedulers, and what it is told of trials."""

import logging
import os
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

import torch
from ray import train, tune
from ray.tune import Callback
from ray.tune.schedulers import (
    ASHAScheduler,
    FIFOScheduler,
    PopulationBasedTraining,
    TrialScheduler,
)
from ray.tune.search import BasicVariantGenerator

from crane_ray import remote, storage
from crane_ray.mil.workers import DistributedWorker
from crane_ray.runtime.fold_tasks import train_configs, use_worker_device
from crane_ray.runtime.search_jobs import TuneJob
from crane_ray.runtime.trials import TrialWork, run_trial
from crane_ray.search.book import TrialBook, finished_trial
from crane_ray.search.domains import Choice, Domain
from crane_ray.search.space import Space

NAME = "tune"
"""Tune's own folder in a search's."""
LITTLE = {"cpu": 0, "memory": 2**20}
"""What a trial that only watches its workers takes of a node; they take what they need."""
SNAPSHOT_S = "5"

_books: list[TrialBook] = []


class _Watch(Callback):  # type: ignore[misc]
    """Passes on what becomes of trials.

    Tune pickles its callbacks and, on resuming, takes the old ones out again; so this one has no
    state, and looks for the book of the search that is going on.
    """

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        _books[-1].started(trial.trial_id, trial.config)

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **_: Any
    ) -> None:
        _books[-1].told(trial.trial_id, _own(result))

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        _books[-1].ended(trial.trial_id)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        lines = str(trial.get_error() or "").strip().splitlines()
        _books[-1].ended(trial.trial_id, lines[-1].strip() if lines else "its worker was lost")


OURS = ("objective", "epochs", "over", "failure", "saved", "val_loss")


def _own(result: Mapping[str, Any]) -> dict[str, Any]:
    """What the trial said, without what Tune adds."""
    return {name: result[name] for name in result if name in OURS or " " in name}


def run_tune(job: TuneJob, space: Space, work: TrialWork, book: TrialBook) -> None:
    """Runs a search, or goes on with it, to its end."""
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"  # with verbose=0 the old one says nothing
    os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"  # ours says how to go on
    os.environ.setdefault("TUNE_GLOBAL_CHECKPOINT_S", SNAPSHOT_S)
    trainable = _trainable(job, work)
    place, filesystem = remote.arrow_filesystem(work.folder)
    path = storage.join(place, NAME)
    _books.append(book)
    # What Tune logs as an error is the trace of a trial that is tried again or recorded as failed.
    log = logging.getLogger("ray.tune")
    level = log.level
    log.setLevel(logging.CRITICAL)
    try:
        if job.resume and tune.Tuner.can_restore(path, storage_filesystem=filesystem):
            tuner = tune.Tuner.restore(path, trainable, storage_filesystem=filesystem)
        else:
            tuner = tune.Tuner(
                trainable,
                param_space=_param_space(job, space),
                tune_config=_tune_config(job, space, work),
                run_config=tune.RunConfig(
                    name=NAME,
                    storage_path=place,
                    storage_filesystem=filesystem,
                    failure_config=tune.FailureConfig(max_failures=job.workers.max_failures),
                    checkpoint_config=tune.CheckpointConfig(num_to_keep=4),
                    callbacks=[_Watch(), *_trackers(job, work)],
                    verbose=0,
                ),
            )
        tuner.fit()
    finally:
        log.setLevel(level)
        _books.remove(book)


def _trainable(job: TuneJob, work: TrialWork) -> Any:
    if job.workers.count > 1:
        return tune.with_resources(
            tune.with_parameters(distributed_trial, work=work, job=job), LITTLE
        )
    resources = {"cpu": work.share.cpus, "gpu": work.share.gpus}
    return tune.with_resources(tune.with_parameters(single_trial, work=work), resources)


def _tune_config(job: TuneJob, space: Space, work: TrialWork) -> tune.TuneConfig:
    at_once = job.search.max_concurrent
    if job.workers.count > 1:  # Tune does not see what Ray Train's workers take
        at_once = min(at_once or work.share.at_once, max(work.share.at_once, 1))
    return tune.TuneConfig(
        metric="objective",
        mode=work.objective.mode,
        search_alg=_searcher(job, space),
        scheduler=_scheduler(job, space),
        num_samples=1 if job.searcher == "grid" else job.num_trials,
        max_concurrent_trials=at_once,
        reuse_actors=job.workers.count == 1,  # torch takes seconds to import
    )


def _param_space(job: TuneJob, space: Space) -> dict[str, Any]:
    if job.searcher == "grid":
        return {
            path: tune.grid_search(list(domain.values))
            for path, domain in space.domains.items()
            if isinstance(domain, Choice)
        }
    return {path: _distribution(domain) for path, domain in space.domains.items()}


def _distribution(domain: Domain) -> Any:
    if isinstance(domain, Choice):
        return tune.choice(list(domain.values))
    low, high = domain.low, domain.high
    if domain.whole:  # Tune leaves the upper end out
        kind = tune.lograndint if domain.log else tune.randint
        return kind(int(low), int(high) + 1)
    if domain.step:
        return tune.quniform(low, high, domain.step)
    return tune.loguniform(low, high) if domain.log else tune.uniform(low, high)


def _searcher(job: TuneJob, space: Space) -> Any:
    points = [job.baseline(space)] if job.search.baseline and job.baseline(space) else None
    if job.searcher == "optuna":
        optuna = import_module("optuna")
        from ray.tune.search.optuna import OptunaSearch

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        sampler = optuna.samplers.TPESampler(
            seed=job.search.seed,
            n_startup_trials=max(min(job.num_trials // 3, 10), 1),
            constant_liar=True,  # trials that still run count as bad: others are tried elsewhere
        )
        return OptunaSearch(sampler=sampler, points_to_evaluate=points)
    if job.searcher == "grid":  # has the config's own values if the space holds them
        points = None
    return BasicVariantGenerator(points_to_evaluate=points, random_state=job.search.seed)


def _scheduler(job: TuneJob, space: Space) -> TrialScheduler:
    config = job.scheduler
    if config.name == "asha":
        return ASHAScheduler(
            time_attr="epochs",
            max_t=job.training.epochs,
            grace_period=min(config.grace_epochs, job.training.epochs),
            reduction_factor=config.reduction_factor,
        )
    if config.name == "pbt":
        return PopulationBasedTraining(
            time_attr="training_iteration",
            perturbation_interval=config.interval_epochs,
            hyperparam_mutations={
                path: list(domain.values) if isinstance(domain, Choice) else _distribution(domain)
                for path, domain in space.domains.items()
            },
            custom_explore_fn=space.clipped,
        )
    return FIFOScheduler()


def _trackers(job: TuneJob, work: TrialWork) -> list[Any]:
    found: list[Any] = []
    if job.tracking.tensorboard:
        from ray.tune.logger import TBXLoggerCallback

        found.append(TBXLoggerCallback())
    if job.tracking.wandb:
        from ray.air.integrations.wandb import WandbLoggerCallback

        found.append(WandbLoggerCallback(project=job.tracking.wandb))
    if job.tracking.mlflow:
        from ray.air.integrations.mlflow import MLflowLoggerCallback

        name = storage.name_of(work.folder)
        found.append(MLflowLoggerCallback(tracking_uri=job.tracking.mlflow, experiment_name=name))
    return found


def single_trial(params: dict[str, Any], work: TrialWork) -> None:
    """A trial of one worker, in Tune's own."""
    torch.set_num_threads(work.share.cpus)
    if _is_over(params, work):
        return

    def report(numbers: dict[str, Any], folder: str | None) -> None:
        checkpoint = tune.Checkpoint.from_directory(folder) if folder else None
        tune.report(numbers, checkpoint=checkpoint)

    _go_on(tune.get_checkpoint(), lambda resume: run_trial(work, params, report, resume=resume))


def distributed_trial(params: dict[str, Any], work: TrialWork, job: TuneJob) -> None:
    """A trial of several workers: Ray Train inside of Tune."""
    from ray.train.torch import TorchTrainer
    from ray.tune.integration.ray_train import TuneReportCallback

    if _is_over(params, work):
        return
    place = storage.join(work.folder, "workers", tune.get_context().get_trial_id())
    trainer = TorchTrainer(
        trial_worker,
        train_loop_config={"params": params, "work": work},
        **train_configs(job.workers, work.share, place, callbacks=[TuneReportCallback()]),
    )
    trainer.fit()
    storage.remove_tree(place)


def trial_worker(config: dict[str, Any]) -> None:
    """What each worker of a trial does."""
    work: TrialWork = config["work"]
    use_worker_device(work.share)

    def report(numbers: dict[str, Any], folder: str | None) -> None:
        checkpoint = train.Checkpoint.from_directory(folder) if folder else None
        train.report(numbers, checkpoint=checkpoint)

    def go(resume: str | None) -> None:
        run_trial(work, config["params"], report, resume=resume, worker=DistributedWorker())

    _go_on(train.get_checkpoint(), go)


def _go_on(checkpoint: Any, run: Callable[[str | None], None]) -> None:
    if checkpoint is None:
        run(None)
        return
    with checkpoint.as_directory() as folder:
        run(folder)


def _is_over(params: Mapping[str, Any], work: TrialWork) -> bool:
    """Says once more what came of a trial that ended before Tune took note of it."""
    trial = finished_trial(work.folder, tune.get_context().get_trial_id())
    if trial is None or dict(params) != dict(trial.params):
        return False
    worst = work.objective.worst if trial.value is None else trial.value
    numbers = {"objective": worst, "epochs": trial.epochs, "over": True, "failure": trial.error}
    tune.report({**trial.metrics, **numbers})
    return True

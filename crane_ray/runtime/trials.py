"""One trial of a search: a network (or one a fold) trained and judged by its val parts.

Imports no ray: a trial reports to a function that it is given, and goes on from a folder.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from tempfile import TemporaryDirectory
from time import monotonic
from typing import Any

import numpy as np

from crane_ray import storage
from crane_ray.cohort.splits import Split
from crane_ray.errors import ConfigError, CraneError
from crane_ray.mil.bags import labels_tensor
from crane_ray.mil.loop import SingleEngine, train
from crane_ray.mil.prediction import Study
from crane_ray.mil.run import EpochReport, FoldRun, load_run, save_run
from crane_ray.mil.workers import Worker
from crane_ray.runtime.fold_training import open_study, start_fold
from crane_ray.runtime.folds import FoldKey, FoldWork
from crane_ray.runtime.shares import Share
from crane_ray.runtime.studies import StudyData
from crane_ray.runtime.study_jobs import BagsConfig, TrainJob
from crane_ray.search.objective import Objective
from crane_ray.search.space import apply

COURSE = "course.json"
STATE = "a trial of a search"
"""In place of an experiment's fingerprint: a trial may go on with another one's weights."""

Report = Callable[[dict[str, Any], str | None], None]
"""Told of each epoch in numbers, and now and then of a folder to go on from."""


@dataclass(frozen=True)
class TrialWork:
    """All that a worker needs to run trials; small, since features come from the pack."""

    tree: Mapping[str, Any]
    """The training config's; a trial's settings go on top of it."""
    studies: Mapping[str, StudyData]
    """Bags of the train and val parts, by `study_key`."""
    splits: Mapping[int, Split]
    """Without test parts."""
    objective: Objective
    folder: str
    """Of the search."""
    share: Share
    checkpoint_every: int | None = None
    """Epochs between checkpoints; seconds of the config where None."""

    def job(self, params: Mapping[str, Any]) -> TrainJob:
        """The config of a trial."""
        return TrainJob.model_validate(apply(self.tree, params))


def study_key(bags: BagsConfig) -> str:
    """Names the bags that a config means."""
    return bags.canonical_json()


@dataclass
class _Course:
    """How a trial has gone: each fold's numbers, epoch by epoch."""

    objective: Objective
    folds: dict[int, list[dict[str, Any]]] = field(default_factory=dict)

    def note(self, report: EpochReport) -> None:
        assert report.val_loss is not None  # of empty val parts, which no search has
        labels_BT = labels_tensor(report.val_bags).numpy()
        of_tasks = self.objective.of_tasks(labels_BT, report.val_logits)
        value = self.objective.combine(report.val_loss, of_tasks)
        if value is None:
            raise ConfigError(
                f"fold {report.fold}: {self.objective.words} is undefined in its val part, which "
                "has one class alone; choose another --metric, or draw other splits"
            )
        numbers = {"objective": value, "val_loss": report.val_loss, **of_tasks}
        self.folds.setdefault(report.fold, []).append(numbers)

    def numbers(self, runs: Sequence[FoldRun]) -> dict[str, float]:
        """Of the networks that training would keep if it ended now; the mean over folds."""
        kept = [self.folds[run.bags.fold][run.best_epoch] for run in runs]
        names = [name for name in kept[0] if all(name in one for one in kept)]
        return {name: float(np.mean([one[name] for one in kept])) for name in names}

    def save(self, runs: Sequence[FoldRun], folder: str) -> None:
        storage.put_bytes(storage.join(folder, COURSE), json.dumps(self.folds).encode())
        for run in runs:
            save_run(run, _state_path(folder, run), STATE)

    def load(self, runs: Sequence[FoldRun], folder: str) -> None:
        read = json.loads(storage.read_bytes(storage.join(folder, COURSE)))
        self.folds = {int(fold): numbers for fold, numbers in read.items()}
        for run in runs:
            load_run(run, _state_path(folder, run), STATE)


def _state_path(folder: str, run: FoldRun) -> str:
    return storage.join(folder, f"state_{run.bags.fold}.pt")


def run_trial(
    work: TrialWork,
    params: Mapping[str, Any],
    report: Report,
    *,
    resume: str | None = None,
    worker: Worker | None = None,
) -> None:
    """Trains the networks of a trial, one epoch of all folds after the other.

    Each report has ``objective``, ``epochs`` (so far), further numbers of the val part, in the last
    one ``over``, and ``saved`` in one with a folder. A trial that cannot go on ends with a report
    that has a ``failure`` and no objective but the worst.

    Args:
        work: what all trials share.
        params: the trial's settings.
        report: told of each epoch.
        resume: folder to go on from.
        worker: this one of several.
    """
    worker = worker or Worker()
    try:
        _Trial(work, params, report, worker).run(resume)
    except CraneError as error:
        worst = work.objective.worst
        report({"objective": worst, "epochs": 0, "over": True, "failure": str(error)}, None)


class _Trial:
    def __init__(
        self, work: TrialWork, params: Mapping[str, Any], report: Report, worker: Worker
    ) -> None:
        self._job = work.job(params)
        self._work, self._report, self._worker = work, report, worker
        folds = FoldWork(
            data=work.studies[study_key(self._job.bags)],
            experiment=self._job.experiment,
            splits=work.splits,
            folders={},
            provenance={},
            gpu_share=work.share.gpus,
        )
        self._study = open_study(folds, worker)
        seed = self._job.training.seed
        self._runs = [start_fold(FoldKey(seed, fold), folds, self._study) for fold in work.splits]
        self._course = _Course(work.objective)
        self._told = -1
        self._saved = monotonic()

    def run(self, resume: str | None) -> None:
        if resume is not None:
            self._course.load(self._runs, resume)
            for run in self._runs:
                _use_settings(run, self._study)
        engine = SingleEngine(self._study, self._worker)
        train(self._runs, engine, self._study, report=self._course.note, keep=self._keep)
        if self._told < 0:  # nothing was left to train
            self._tell(max(run.next_epoch for run in self._runs) - 1, over=True)

    def _keep(self, run: FoldRun) -> None:
        """Called for each fold once all of them are through an epoch."""
        for one in self._runs:
            if one.failure:
                raise ConfigError(one.failure)
        epoch = run.next_epoch - 1
        if epoch > self._told:
            last = epoch + 1 == self._job.training.epochs
            self._tell(epoch, over=last or all(one.over for one in self._runs))

    def _tell(self, epoch: int, *, over: bool) -> None:
        self._told = epoch
        numbers = {**self._course.numbers(self._runs), "epochs": epoch + 1, "over": over}
        if self._worker.rank or not (over or self._is_due(epoch)):
            self._report(numbers, None)
            return
        with TemporaryDirectory(prefix="crane-trial-") as folder:
            self._course.save(self._runs, folder)
            self._report({**numbers, "saved": True}, folder)
        self._saved = monotonic()

    def _is_due(self, epoch: int) -> bool:
        if self._work.checkpoint_every is not None:
            return (epoch + 1) % self._work.checkpoint_every == 0
        return monotonic() >= self._saved + self._job.checkpoint_every_s


def _use_settings(run: FoldRun, study: Study) -> None:
    """The optimiser's settings are this trial's, whoever's weights it goes on with."""
    optim = study.config.training.optim
    for group in run.optimizer.param_groups:
        group["lr"], group["weight_decay"] = optim.lr, optim.weight_decay
        if "momentum" in group:
            group["momentum"] = optim.momentum

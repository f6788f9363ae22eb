"""The training of folds, from packed features to checkpoint and predictions. Imports no ray."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from crane_ray import storage
from crane_ray.errors import ConfigError, CraneError, StoreError
from crane_ray.evaluation.metrics import task_metrics
from crane_ray.evaluation.predictions import softmax
from crane_ray.mil.bags import BagReader, labels_tensor
from crane_ray.mil.history import Epoch
from crane_ray.mil.loop import SingleEngine, train
from crane_ray.mil.prediction import Study
from crane_ray.mil.run import (
    EpochReport,
    FoldBags,
    FoldRun,
    load_run,
    save_run,
    start_run,
)
from crane_ray.mil.turns import grouped_engine
from crane_ray.mil.workers import Worker
from crane_ray.runtime.fold_results import finish_fold
from crane_ray.runtime.folds import FoldKey, FoldOutcome, FoldWork, read_outcome, write_outcome

RESIDENT_SHARE = 0.5
"""Of a GPU's free memory, for features that stay there; times the fraction a fold has."""
TELL_EVERY_S = 1.0
"""Between messages about packing."""

Tell = Callable[[dict[str, Any]], None]
"""Passes a small message to whoever watches: its ``kind`` is ``packing`` or ``epoch``."""


def train_folds(
    work: FoldWork,
    keys: Sequence[FoldKey],
    *,
    worker: Worker | None = None,
    tell: Tell = lambda message: None,
    grouped: bool = False,
) -> list[FoldOutcome]:
    """Trains folds to their end and writes their checkpoints and predictions.

    A fold that was interrupted goes on from its last checkpoint, one that ended stays as it is. A
    fold that cannot be trained (a part without bags, a loss that is not finite, more than a GPU
    holds) ends with its `failure`, and the others go on. Several keys are trained as one batched
    network if ``grouped``, else one after the other.

    Raises:
        CraneError: no fold could do better: features, disk or device cannot be used.
    """
    worker = worker or Worker()
    done = {key: outcome for key in keys if (outcome := read_outcome(work, key))}
    left = [key for key in keys if key not in done]
    if left:
        study = open_study(work, worker, tell)
        groups = [left] if grouped else [[key] for key in left]
        for group in groups:
            done |= {it.key: it for it in _train_group(group, work, study, worker, tell)}
    return [done[key] for key in keys]


def open_study(work: FoldWork, worker: Worker, tell: Tell = lambda message: None) -> Study:
    """Config, tasks and packed features of folds, on this process's device.

    Workers fail together, since one alone would let the others wait for it.

    Raises:
        CraneError: features, disk or device cannot be used.
    """
    study, problem = None, None
    try:
        study = _open_here(work, tell)
    except CraneError as error:
        problem = error
    for found in worker.gather(problem):
        if found is not None:
            raise found
    assert study is not None
    return study


def _open_here(work: FoldWork, tell: Tell) -> Study:
    device = _device(work)
    pack = work.data.pack(_Packing(len(work.data.cohort.slide_ids), tell).advance)
    reader = BagReader(
        pack,
        device=device,
        max_patches=work.experiment.training.max_patches,
        resident_bytes=_resident_bytes(device, work.gpu_share),
    )
    return Study(work.experiment, work.tasks, reader)


def _train_group(
    keys: Sequence[FoldKey], work: FoldWork, study: Study, worker: Worker, tell: Tell
) -> list[FoldOutcome]:
    begun, pack = time.perf_counter(), study.reader.pack
    problem = ""
    try:
        runs = {key: _start(key, work, study) for key in keys}
        _train(runs, work, study, worker, tell)
        outcomes = [finish_fold(key, run, work, study, worker) for key, run in runs.items()]
    except (ConfigError, StoreError) as error:  # of this group alone; the same in every worker
        problem = str(error)
    except torch.OutOfMemoryError as error:
        if worker.world > 1:  # the others wait for this one: Ray Train ends and tries them again
            raise
        problem = _too_large(keys, error)
    if problem:
        outcomes = [
            FoldOutcome(key.seed, key.fold, work.fingerprint(key), failure=problem) for key in keys
        ]
    seconds = round(time.perf_counter() - begun, 1)
    outcomes = [replace(it, seconds=seconds, left_out=pack.left_out) for it in outcomes]
    if worker.rank == 0:
        for outcome in outcomes:
            write_outcome(work, outcome)
            storage.remove_tree(work.state_path(outcome.key))
    return outcomes


def _too_large(keys: Sequence[FoldKey], error: torch.OutOfMemoryError) -> str:
    folds = ", ".join(dict.fromkeys(str(key.fold) for key in keys))
    return (
        f"fold {folds}: the GPU's memory is too small ({str(error).splitlines()[0]}); give "
        "--gpus-per-fold 1, or --max-patches, or leave out --grouped-folds or --bags-per-step"
    )


def start_fold(key: FoldKey, work: FoldWork, study: Study) -> FoldRun:
    """A fold before its first epoch."""
    pack, split = study.reader.pack, work.splits[key.fold]
    bags = FoldBags(key.fold, work.data.part(split.train, pack), work.data.part(split.val, pack))
    return start_run(
        bags,
        work.experiment,
        work.tasks,
        dim=pack.dim,
        device=study.reader.device,
        seed=key.seed,
    )


def _start(key: FoldKey, work: FoldWork, study: Study) -> FoldRun:
    run = start_fold(key, work, study)
    load_run(run, work.state_path(key), work.fingerprint(key))
    return run


def _train(
    runs: Mapping[FoldKey, FoldRun], work: FoldWork, study: Study, worker: Worker, tell: Tell
) -> None:
    folds = list(runs.values())
    engine = grouped_engine(study, folds) if len(folds) > 1 else SingleEngine(study, worker)

    def report(epoch: EpochReport) -> None:
        if worker.rank == 0:
            message = _message(epoch, study)
            runs[FoldKey(epoch.seed, epoch.fold)].history.append(_epoch(message).numbers())
            tell(message)

    train(folds, engine, study, report=report, keep=_Keeper(work, runs, worker))


class _Keeper:
    """Saves folds now and then: how far they are, so that another worker can go on."""

    def __init__(self, work: FoldWork, runs: Mapping[FoldKey, FoldRun], worker: Worker) -> None:
        self._work, self._worker = work, worker
        self._keys = {id(run): key for key, run in runs.items()}
        self._saved = dict.fromkeys(runs, time.monotonic())

    def __call__(self, run: FoldRun) -> None:
        key = self._keys[id(run)]
        due = time.monotonic() >= self._saved[key] + self._work.checkpoint_every_s
        if self._worker.rank == 0 and (due or run.over):
            save_run(run, self._work.state_path(key), self._work.fingerprint(key))
            self._saved[key] = time.monotonic()


class _Packing:
    """Tells now and then how much is packed."""

    def __init__(self, num_slides: int, tell: Tell) -> None:
        self._done, self._all, self._tell = 0, num_slides, tell
        self._next = 0.0

    def advance(self) -> None:
        self._done += 1
        if time.monotonic() >= self._next or self._done == self._all:
            self._tell({"kind": "packing", "done": self._done, "all": self._all})
            self._next = time.monotonic() + TELL_EVERY_S


def _message(epoch: EpochReport, study: Study) -> dict[str, Any]:
    """An epoch in numbers: losses, and each task's AUC on the val part."""
    aucs: dict[str, float] = {}
    finite = epoch.val_loss is not None and math.isfinite(epoch.val_loss)
    labels_BT = labels_tensor(epoch.val_bags).numpy() if finite else None
    for place, task in enumerate(study.tasks):
        if labels_BT is None:
            continue
        probabilities = softmax(epoch.val_logits[task.name])
        auc = task_metrics(labels_BT[:, place], probabilities).values["auc"]
        if auc is not None:
            aucs[task.name] = auc
    return {
        "kind": "epoch",
        "fold": epoch.fold,
        "seed": epoch.seed,
        "epoch": epoch.epoch,
        "train_loss": epoch.train_loss,
        "val_loss": epoch.val_loss,
        "best_epoch": epoch.best_epoch,
        "val_auc": aucs,
        "seconds": epoch.seconds,
    }


def _epoch(message: dict[str, Any]) -> Epoch:
    return Epoch(message["epoch"], message["train_loss"], message["val_loss"], message["val_auc"])


def _device(work: FoldWork) -> torch.device:
    if not work.gpu_share:
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise ConfigError(
            "training: a GPU was asked for, and torch sees none on this node; install its CUDA "
            "build there, or give --gpus-per-fold 0"
        )
    return torch.device("cuda")


def _resident_bytes(device: torch.device, share: float) -> int:
    if device.type != "cuda":
        return 0
    free, _ = torch.cuda.mem_get_info()
    return int(free * RESIDENT_SHARE * min(share, 1.0))

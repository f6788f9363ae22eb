"""The training of folds, from packed features to checkpoint and predictions. Imports no ray."""

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from crane_ray import storage
from crane_ray.cohort.splits import Split
from crane_ray.cohort.tasks import TaskSpec
from crane_ray.errors import CraneError, StoreError
from crane_ray.evaluation.metrics import task_metrics
from crane_ray.evaluation.predictions import Predictions, softmax
from crane_ray.mil.bags import Bag, BagReader, labels_tensor
from crane_ray.mil.checkpoints import save_checkpoint, save_published
from crane_ray.mil.configs import ExperimentConfig
from crane_ray.mil.grouped import GroupedEngine
from crane_ray.mil.loop import SingleEngine, Study, predict, train
from crane_ray.mil.pack import Pack
from crane_ray.mil.run import EpochReport, FoldBags, FoldRun, load_run, save_run, start_run
from crane_ray.mil.workers import Worker
from crane_ray.runtime.studies import StudyData

RESIDENT_SHARE = 0.5
"""Of a GPU's free memory, for features that stay there; times the fraction a fold has."""


@dataclass(frozen=True)
class FoldKey:
    """One network of an experiment."""

    seed: int
    fold: int

    @property
    def name(self) -> str:
        """For people."""
        return f"fold {self.fold}" + (f" (seed {self.seed})" if self.seed >= 0 else "")


@dataclass(frozen=True)
class FoldOutcome:
    """What came of a fold."""

    seed: int
    fold: int
    epochs: int
    best_epoch: int
    best_loss: float | None
    stopped_early: bool
    failure: str
    num_train: int
    num_val: int
    num_test: int
    seconds: float
    fingerprint: str


@dataclass(frozen=True)
class FoldWork:
    """All that a worker needs to train folds; small, since features come from the pack."""

    data: StudyData
    experiment: ExperimentConfig
    splits: Mapping[int, Split]
    folders: Mapping[int, str]
    """Folder of the run, by seed."""
    provenance: Mapping[str, Any]
    predict_train: bool
    checkpoint_every_s: float
    gpu_share: float
    """Of the device a worker has; 0 trains on CPUs."""

    @property
    def tasks(self) -> tuple[TaskSpec, ...]:
        """The heads."""
        return self.data.cohort.task_set.tasks

    def folder(self, key: FoldKey) -> str:
        """Where a fold keeps its own files."""
        return storage.join(self.folders[key.seed], "folds", str(key.fold))

    def fingerprint(self, key: FoldKey) -> str:
        """16 hex digits of all that a fold's weights depend on, but for the features' numbers."""
        split, cohort = self.splits[key.fold], self.data.cohort
        digest = hashlib.sha256(self.experiment.canonical_json().encode())
        digest.update(cohort.task_set.canonical_json().encode())
        digest.update(repr((key.seed, self.data.config.level, sorted(self.provenance))).encode())
        digest.update(json.dumps(self.provenance, sort_keys=True).encode())
        digest.update(repr((split.train, split.val, split.test)).encode())
        digest.update(repr((cohort.slide_ids, cohort.case_ids)).encode())
        digest.update(cohort.labels_ST.tobytes())
        return digest.hexdigest()[:16]


Tell = Callable[[dict[str, Any]], None]
"""Passes a small message to whoever watches."""


def train_folds(
    work: FoldWork,
    keys: Sequence[FoldKey],
    *,
    worker: Worker | None = None,
    tell: Tell = lambda message: None,
    grouped: bool = False,
) -> list[FoldOutcome]:
    """Trains folds to their end and writes their checkpoints and predictions.

    A fold that was interrupted goes on from its last checkpoint. Several keys are trained as one
    batched network if ``grouped``, else one after the other.

    Raises:
        CraneError: features, a checkpoint of another run, or a split that cannot be used.
    """
    worker = worker or Worker()
    device = _device(work)
    pack = work.data.pack()
    study = Study(
        work.experiment,
        work.tasks,
        BagReader(
            pack,
            device=device,
            max_patches=work.experiment.training.max_patches,
            resident_bytes=_resident_bytes(device, work.gpu_share),
        ),
        tuple(sorted(bag.bag_id for bag in work.data.bags)),
    )
    together = [list(keys)] if grouped else [[key] for key in keys]
    return [outcome for group in together for outcome in _train(group, work, study, worker, tell)]


def _train(
    keys: Sequence[FoldKey], work: FoldWork, study: Study, worker: Worker, tell: Tell
) -> list[FoldOutcome]:
    begun = time.perf_counter()
    runs = {key: _start(key, work, study) for key in keys}
    for key, run in runs.items():
        load_run(run, _state_path(work, key), work.fingerprint(key))
    folds = list(runs.values())
    engine = GroupedEngine(study, folds) if len(folds) > 1 else SingleEngine(study, worker)
    keeper = _Keeper(work, runs, worker)

    def report(epoch: EpochReport) -> None:
        if worker.rank == 0:
            tell(_message(epoch, study))

    train(folds, engine, study, report=report, keep=keeper)
    outcomes = []
    for key, run in runs.items():
        if not run.failure:
            _finish(key, run, work, study, worker)
        outcomes.append(_outcome(key, run, work, study.reader.pack, begun))
        if worker.rank == 0:
            _write_outcome(work, key, outcomes[-1])
    return outcomes


def _start(key: FoldKey, work: FoldWork, study: Study) -> FoldRun:
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
            path = _state_path(self._work, key)
            save_run(run, path, self._work.fingerprint(key))
            self._saved[key] = time.monotonic()


def _message(epoch: EpochReport, study: Study) -> dict[str, Any]:
    """An epoch in numbers: losses, and each task's AUC on the val part."""
    labels_BT = labels_tensor(epoch.val_bags).numpy() if epoch.val_bags else None
    aucs: dict[str, float] = {}
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


def _finish(key: FoldKey, run: FoldRun, work: FoldWork, study: Study, worker: Worker) -> None:
    """Predicts with the best weights and writes checkpoint and predictions."""
    run.network.load_state_dict(run.best_weights)
    split, pack = work.splits[key.fold], study.reader.pack
    parts = {"val": run.bags.val, "test": work.data.part(split.test, pack)}
    if work.predict_train:
        parts = {"train": run.bags.train, **parts}
    found = [
        table
        for part, bags in parts.items()
        for table in bag_predictions(
            predict(run.network, bags, study, worker=worker),
            bags,
            study.tasks,
            fold=key.fold,
            split=part,
            level=work.data.config.level,
        )
    ]
    if worker.rank:
        return
    folder = work.folder(key)
    Predictions.concat(found).to_parquet(storage.join(folder, "predictions.parquet"))
    stem = storage.join(work.folders[key.seed], f"s_{key.fold}_checkpoint")
    provenance = {
        "features_of": dict(work.provenance),
        "fold": key.fold,
        "seed": key.seed,
        "fingerprint": work.fingerprint(key),
        "best_epoch": run.best_epoch,
    }
    save_published(f"{stem}.pt", run.network)
    save_checkpoint(
        stem,
        run.network,
        work.experiment.model,
        dim=study.reader.pack.dim,
        tasks=study.tasks,
        provenance=provenance,
    )


def bag_predictions(
    logits: Mapping[str, Any],
    bags: Sequence[Bag],
    tasks: Sequence[TaskSpec],
    *,
    fold: int,
    split: str,
    level: str,
) -> list[Predictions]:
    """What a network says of bags, a table a task; none of no bags."""
    if not bags:
        return []
    return [
        Predictions.from_logits(
            logits[task.name],
            [bag.labels_T[place] for bag in bags],
            fold=fold,
            split=split,
            task=task.name,
            slide_ids=[bag.bag_id if level == "slide" else "" for bag in bags],
            case_ids=[bag.case_id for bag in bags],
        )
        for place, task in enumerate(tasks)
    ]


def _outcome(key: FoldKey, run: FoldRun, work: FoldWork, pack: Pack, begun: float) -> FoldOutcome:
    return FoldOutcome(
        seed=key.seed,
        fold=key.fold,
        epochs=run.next_epoch,
        best_epoch=run.best_epoch,
        best_loss=run.best_loss if run.best_epoch >= 0 and run.bags.val else None,
        stopped_early=run.stopped,
        failure=run.failure,
        num_train=len(run.bags.train),
        num_val=len(run.bags.val),
        num_test=len(work.data.part(work.splits[key.fold].test, pack)),
        seconds=round(time.perf_counter() - begun, 1),
        fingerprint=work.fingerprint(key),
    )


def _write_outcome(work: FoldWork, key: FoldKey, outcome: FoldOutcome) -> None:
    """The last file of a fold: it is done once this is there."""
    path = storage.join(work.folder(key), "outcome.json")
    storage.put_bytes(path, json.dumps(asdict(outcome), indent=1).encode(), durable=True)


def read_outcome(work: FoldWork, key: FoldKey, *, failed: bool = False) -> FoldOutcome | None:
    """What came of a fold; None where it did not end, or failed (unless ``failed`` asks for that).

    Raises:
        StoreError: it belongs to a run with another config, table or split.
    """
    path = storage.join(work.folder(key), "outcome.json")
    if not storage.exists(path):
        return None
    outcome = FoldOutcome(**json.loads(storage.read_bytes(path)))
    if outcome.fingerprint != work.fingerprint(key):
        raise StoreError(
            f"{path}: {key.name} was trained with another config, table, split or features; give "
            "another --exp-code, or --overwrite to begin anew"
        )
    return None if outcome.failure and not failed else outcome


def _state_path(work: FoldWork, key: FoldKey) -> str:
    return storage.join(work.folder(key), "state.pt")


def _device(work: FoldWork) -> torch.device:
    if not work.gpu_share:
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise CraneError(
            "training: a GPU was asked for, and torch sees none on this node; install its CUDA "
            "build there, or give --gpus-per-fold 0"
        )
    return torch.device("cuda")


def _resident_bytes(device: torch.device, share: float) -> int:
    if device.type != "cuda":
        return 0
    free, _ = torch.cuda.mem_get_info()
    return int(free * RESIDENT_SHARE * min(share, 1.0))

"""What a trained fold leaves behind: networks, predictions, its course. Imports no ray."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from crane_ray import storage
from crane_ray.evaluation.predictions import Predictions
from crane_ray.mil.bags import Bag
from crane_ray.mil.checkpoints import save_checkpoint, save_published
from crane_ray.mil.history import write_history
from crane_ray.mil.pack import Pack
from crane_ray.mil.prediction import Study, predict
from crane_ray.mil.run import FoldRun, Logits
from crane_ray.mil.workers import Worker
from crane_ray.runtime.folds import FoldKey, FoldOutcome, FoldWork
from crane_ray.runtime.trained import bag_predictions


def finish_fold(
    key: FoldKey, run: FoldRun, work: FoldWork, study: Study, worker: Worker
) -> FoldOutcome:
    """What came of a fold; one that did not fail leaves checkpoint and predictions."""
    failure = run.failure
    if worker.rank == 0:
        write_history(work.folder(key), run.history)
    test = work.data.part(work.splits[key.fold].test, study.reader.pack)
    if not failure:
        run.network.load_state_dict(run.best_weights)
        parts = {"val": run.bags.val, "test": test}
        if work.predict_train:
            parts = {"train": run.bags.train, **parts}
        logits = {
            part: predict(run.network, bags, study, worker=worker) for part, bags in parts.items()
        }
        failure = _not_finite(run, parts, logits)
        if not failure and worker.rank == 0:
            _save_predictions(key, work, parts, logits)
            _save_networks(key, run, work, study.reader.pack)
    return FoldOutcome(
        key.seed,
        key.fold,
        work.fingerprint(key),
        failure=failure,
        epochs=run.next_epoch,
        best_epoch=run.best_epoch,
        best_loss=run.best_loss if math.isfinite(run.best_loss) else None,
        stopped_early=run.stopped,
        num_train=len(run.bags.train),
        num_val=len(run.bags.val),
        num_test=len(test),
    )


def _not_finite(
    run: FoldRun, parts: Mapping[str, Sequence[Bag]], logits: Mapping[str, Logits]
) -> str:
    """What is the matter with a network that says nothing of some bag; empty if nothing is."""
    for part, bags in parts.items():
        for values_BC in logits[part].values():
            finite_B = np.isfinite(values_BC).all(axis=1)
            if not finite_B.all():
                bag = bags[int(np.argmin(finite_B))]
                return (
                    f"fold {run.bags.fold}: what its network says of {part} bag {bag.bag_id} is no "
                    "finite number; lower --lr, or look at that bag's features"
                )
    return ""


def _save_predictions(
    key: FoldKey,
    work: FoldWork,
    parts: Mapping[str, Sequence[Bag]],
    logits: Mapping[str, Logits],
) -> None:
    level = work.data.config.level
    found = [
        table
        for part, bags in parts.items()
        for table in bag_predictions(
            logits[part], bags, work.tasks, fold=key.fold, split=part, level=level
        )
    ]
    Predictions.concat(found).to_parquet(storage.join(work.folder(key), "predictions.parquet"))


def _save_networks(key: FoldKey, run: FoldRun, work: FoldWork, pack: Pack) -> None:
    stem = storage.join(work.folders[key.seed], f"s_{key.fold}_checkpoint")
    provenance = {
        "features_of": dict(work.provenance),
        "fold": key.fold,
        "seed": key.seed,
        "fingerprint": work.fingerprint(key),
        "best_epoch": run.best_epoch,
        "bag_level": work.data.config.level,
        "filter": work.data.cohort.task_set.model_dump(mode="json")["filter"],
        "precision": work.experiment.training.precision,
    }
    save_published(f"{stem}.pt", run.network)
    save_checkpoint(
        stem,
        run.network,
        work.experiment.model,
        dim=pack.dim,
        tasks=work.tasks,
        provenance=provenance,
    )

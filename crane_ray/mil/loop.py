"""The training loop: plain torch, for one fold or several, reporting to a function it is given.

Shapes: N patches, D feature length, B bags, T tasks, C classes.
"""

import hashlib
import time
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import torch

from crane_ray.cohort.tasks import MISSING
from crane_ray.errors import ConfigError, StoreError
from crane_ray.mil.bags import Bag
from crane_ray.mil.order import draw_counts, epoch_order
from crane_ray.mil.prediction import Study, part_loss, predict
from crane_ray.mil.run import EpochReport, FoldRun, Logits
from crane_ray.mil.steps import step_loss
from crane_ray.mil.workers import Worker


class Engine(Protocol):
    """How an epoch of folds is computed."""

    def train_epoch(self, runs: Sequence[FoldRun], epoch: int) -> list[float]:
        """The mean training loss of each; a fold whose loss is not finite has its `failure` set."""
        ...

    def evaluate(self, runs: Sequence[FoldRun]) -> list[Logits]:
        """The logits of each fold's val part."""
        ...


def train(
    runs: Sequence[FoldRun],
    engine: Engine,
    study: Study,
    *,
    report: Callable[[EpochReport], None] = lambda report: None,
    keep: Callable[[FoldRun], None] = lambda run: None,
) -> None:
    """Trains folds to their end, all at the same epoch.

    Args:
        runs: fresh ones, or such that were loaded after the same epoch.
        engine: how an epoch is computed.
        study: config, tasks and features.
        report: told of each epoch of each fold.
        keep: called after each epoch of each fold, to save it.
    """
    _check(runs, study)
    active = [run for run in runs if not run.over]
    num_epochs = study.config.training.epochs
    first = min((run.next_epoch for run in active), default=num_epochs)
    for epoch in range(first, num_epochs):
        begun = time.perf_counter()
        now = [run for run in active if run.next_epoch == epoch and not run.over]
        if not now:  # one that stopped was behind those that are left
            continue
        losses = engine.train_epoch(now, epoch)
        sound = [(run, loss) for run, loss in zip(now, losses, strict=True) if not run.failure]
        found = engine.evaluate([run for run, _ in sound])
        for (run, train_loss), logits in zip(sound, found, strict=True):
            val_loss = _close_epoch(run, logits, study)
            if not run.failure:
                seconds = time.perf_counter() - begun
                report(_report(run, epoch, (train_loss, val_loss), logits, seconds))
        for run in now:
            keep(run)
        if all(run.over for run in active):
            break


def _close_epoch(run: FoldRun, logits: Logits, study: Study) -> float | None:
    """Ends an epoch of a fold; the loss of its val part, None where it has none."""
    val_loss = part_loss(logits, run.bags.val, study)
    if val_loss is None or np.isfinite(val_loss):
        run.close_epoch(val_loss, study.config)
        return val_loss
    finite_B = np.all([np.isfinite(values).all(axis=1) for values in logits.values()], axis=0)
    bag = run.bags.val[int(np.argmin(finite_B))]
    run.failure = (
        f"fold {run.bags.fold}: the val loss is {val_loss} in epoch {run.next_epoch} at bag "
        f"{bag.bag_id}; lower --lr, or look at that bag's features"
    )
    return val_loss


def _report(
    run: FoldRun,
    epoch: int,
    losses: tuple[float, float | None],
    logits: Logits,
    seconds: float,
) -> EpochReport:
    train_loss, val_loss = losses
    return EpochReport(
        fold=run.bags.fold,
        seed=run.seed,
        epoch=epoch,
        train_loss=train_loss,
        val_loss=val_loss,
        best_epoch=run.best_epoch,
        val_bags=run.bags.val,
        val_logits=logits,
        seconds=seconds,
    )


def _check(runs: Sequence[FoldRun], study: Study) -> None:
    for run in runs:
        if not _is_labelled(run.bags.train):
            raise ConfigError(
                f"fold {run.bags.fold}: its training part has no bag with features and labels; "
                "look at crane-ray splits --check"
            )
        if study.config.training.stopping.enabled and not _is_labelled(run.bags.val):
            raise ConfigError(
                f"fold {run.bags.fold}: its val part has no bag with features and labels, and "
                "early stopping needs one; mend the split, or give --no-early-stopping"
            )


def _is_labelled(bags: Sequence[Bag]) -> bool:
    return any(label != MISSING for bag in bags for label in bag.labels_T)


class SingleEngine:
    """One fold at a time, on one device, or as one of several workers."""

    def __init__(self, study: Study, worker: Worker | None = None) -> None:
        self._study = study
        self._worker = worker or Worker()
        self._bags_per_step = study.config.training.bags_per_step or self._worker.world
        if self._bags_per_step < self._worker.world:
            raise ConfigError(
                f"--bags-per-step {self._bags_per_step}: {self._worker.world} workers need at "
                "least one bag each in a step; raise it, or lower --workers"
            )

    def train_epoch(self, runs: Sequence[FoldRun], epoch: int) -> list[float]:
        """See `Engine`."""
        return [self._train_fold(run, epoch) for run in runs]

    def evaluate(self, runs: Sequence[FoldRun]) -> list[Logits]:
        """See `Engine`."""
        return [
            predict(run.network, run.bags.val, self._study, worker=self._worker) for run in runs
        ]

    def _train_fold(self, run: FoldRun, epoch: int) -> float:
        bags = fold_order(run, self._study, epoch)
        self._check_same(run, bags, epoch)
        size, rank, world = self._bags_per_step, self._worker.rank, self._worker.world
        steps = [bags[start : start + size] for start in range(0, len(bags), size)]
        losses = torch.zeros(len(steps), device=self._study.reader.device)
        torch.manual_seed(epoch_seed(run.seed, epoch) + rank)  # of dropout
        run.network.train()
        for step, loss in zip(steps, losses, strict=True):
            run.optimizer.zero_grad(set_to_none=True)
            mine = step[rank::world]
            if mine:
                value = self._step_loss(run, mine, step, epoch)
                value.backward()  # type: ignore[no-untyped-call]
                loss.copy_(value.detach())
            self._worker.sum_gradients(run.network.parameters(), loss)
            run.optimizer.step()
        return settle_losses(run, losses, steps, epoch)

    def _check_same(self, run: FoldRun, bags: Sequence[Bag], epoch: int) -> None:
        """Refuses workers that would train on other bags: they would wait for each other forever.

        A slide that one node could not pack, or a checkpoint that another did not see.
        """
        number = self._study.reader.num_patches
        text = repr((run.bags.fold, run.seed, epoch, [(bag, number(bag)) for bag in bags]))
        digest = hashlib.sha256(text.encode()).hexdigest()
        if len(set(self._worker.gather(digest))) > 1:
            raise StoreError(
                f"fold {run.bags.fold}: its workers have other bags or checkpoints in epoch "
                f"{epoch}; empty the --pack-folder of each node, and see that all reach the same "
                "features and results"
            )

    def _step_loss(
        self, run: FoldRun, mine: Sequence[Bag], step: Sequence[Bag], epoch: int
    ) -> torch.Tensor:
        reader, seed = self._study.reader, self._study.config.training.seed
        parts = [reader.sample(bag, seed=seed, epoch=epoch) for bag in mine]
        return step_loss(run, parts, mine, step, study=self._study)


def fold_counts(run: FoldRun, study: Study, epoch: int) -> dict[str, int]:
    """How often an epoch sees each training bag of a fold."""
    config = study.config.training
    classes = {bag.bag_id: bag.labels_T[0] for bag in run.bags.train}
    return draw_counts(classes, seed=config.seed, epoch=epoch, weighted=config.weighted_sample)


def fold_order(run: FoldRun, study: Study, epoch: int) -> list[Bag]:
    """The training bags of a fold in the order in which an epoch sees them.

    It depends on the experiment's seed: runs of other seeds have other weights, not another order.
    """
    by_id = {bag.bag_id: bag for bag in run.bags.train}
    counts, seed = fold_counts(run, study, epoch), study.config.training.seed
    return [by_id[name] for name in epoch_order(counts, seed=seed, epoch=epoch)]


def epoch_seed(seed: int, epoch: int) -> int:
    """A seed of torch's generator for an epoch."""
    return int(np.random.SeedSequence([seed, epoch]).generate_state(1)[0])


def settle_losses(
    run: FoldRun, losses: torch.Tensor, steps: Sequence[Sequence[Bag]], epoch: int
) -> float:
    """The mean of an epoch's losses, looked at once; one that is not finite ends the fold."""
    values = losses.double().cpu().numpy()
    finite = np.isfinite(values)
    if not finite.all():
        step = int(np.argmin(finite))
        names = ", ".join(bag.bag_id for bag in steps[step])
        run.failure = (
            f"fold {run.bags.fold}: the loss is {values[step]} in epoch {epoch} at bag {names}; "
            "lower --lr, or look at that bag's features"
        )
    return float(values.mean()) if len(values) else 0.0

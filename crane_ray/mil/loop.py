"""The training loop: plain torch, for one fold or several, reporting to a function it is given.

Shapes: N patches, D feature length, B bags, T tasks, C classes, G folds trained together.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch

from crane_ray.cohort.tasks import TaskSpec
from crane_ray.errors import ConfigError
from crane_ray.mil.aggregator import Aggregator, MILOutput
from crane_ray.mil.bags import Bag, BagReader, labels_tensor
from crane_ray.mil.configs import ExperimentConfig
from crane_ray.mil.losses import multi_task_loss
from crane_ray.mil.order import draw_counts, epoch_order
from crane_ray.mil.run import EpochReport, FoldRun, Logits
from crane_ray.mil.workers import Worker

PACKED_PATCHES = 8192
"""Patches of a forward pass where bags are only looked at."""


@dataclass(frozen=True)
class Study:
    """What all folds of an experiment share."""

    config: ExperimentConfig
    tasks: tuple[TaskSpec, ...]
    reader: BagReader
    universe: tuple[str, ...]
    """The ids of all bags of the cohort, sorted: they fix the order of every epoch."""


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
    for epoch in range(min((run.next_epoch for run in active), default=0), _epochs(study)):
        now = [run for run in active if run.next_epoch == epoch]
        begun = time.perf_counter()
        losses = engine.train_epoch(now, epoch)
        found = engine.evaluate(now)
        for run, train_loss, logits in zip(now, losses, found, strict=True):
            if not run.failure:
                val_loss = part_loss(logits, run.bags.val, study)
                run.close_epoch(val_loss, study.config)
                seconds = time.perf_counter() - begun
                bags = run.bags
                report(
                    EpochReport(
                        bags.fold, run.seed, epoch, train_loss, val_loss, run.best_epoch,
                        bags.val, logits, seconds,
                    )
                )  # fmt: skip
            keep(run)
        active = [run for run in active if not run.over]
        if not active:
            break


def _epochs(study: Study) -> int:
    return study.config.training.epochs


def _check(runs: Sequence[FoldRun], study: Study) -> None:
    for run in runs:
        if not run.bags.train:
            raise ConfigError(
                f"fold {run.bags.fold}: its training part has no bag with features and labels; "
                "look at crane-ray splits --check"
            )
        if study.config.training.stopping.enabled and not run.bags.val:
            raise ConfigError(
                f"fold {run.bags.fold}: its val part has no bag with features and labels, and "
                "early stopping needs one; mend the split, or give --no-early-stopping"
            )


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

    def _step_loss(
        self, run: FoldRun, mine: Sequence[Bag], step: Sequence[Bag], epoch: int
    ) -> torch.Tensor:
        reader = self._study.reader
        seed = self._study.config.training.seed
        parts = [reader.sample(bag, seed=seed, epoch=epoch) for bag in mine]
        features_ND = parts[0] if len(parts) == 1 else torch.cat(parts)
        sizes_B = [len(part) for part in parts]
        with precision(self._study):
            output = run.network(features_ND, sizes_B if len(parts) > 1 else None)
            return bags_loss(
                run.network,
                output,
                sizes_B,
                labels_tensor(mine).to(reader.device),
                num_labelled_T=num_labelled(step).to(reader.device),
                num_bags=len(step),
                study=self._study,
                class_weights=run.class_weights,
            )


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
    return [by_id[name] for name in epoch_order(study.universe, counts, seed=seed, epoch=epoch)]


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


def precision(study: Study) -> torch.autocast:
    """The context of forward passes."""
    reader = study.reader
    enabled = study.config.training.precision == "bf16"
    return torch.autocast(reader.device.type, dtype=torch.bfloat16, enabled=enabled)


def num_labelled(bags: Sequence[Bag]) -> torch.Tensor:
    """(T,) int64: bags that have a label, by task."""
    return (labels_tensor(bags) >= 0).sum(dim=0)


def bags_loss(
    network: Aggregator,
    output: MILOutput,
    sizes_B: Sequence[int],
    labels_BT: torch.Tensor,
    *,
    num_labelled_T: torch.Tensor,
    num_bags: int,
    study: Study,
    class_weights: dict[str, torch.Tensor],
) -> torch.Tensor:
    """The loss of bags: that of their labels, and their share of the instance loss.

    Args:
        network: that made the output.
        output: of these bags.
        sizes_B: patches of each.
        labels_BT: (B, T) class indices.
        num_labelled_T: (T,) bags with labels in the whole step.
        num_bags: bags of the whole step.
        study: config and tasks.
        class_weights: (C,) by task, or none.
    """
    config = study.config
    loss = multi_task_loss(
        output.logits,
        labels_BT,
        study.tasks,
        kind=config.training.bag_loss,
        class_weights=class_weights or None,
        num_labelled_T=num_labelled_T,
    )
    if not config.model.instances.enabled:
        return loss
    pieces = [
        network.auxiliary_loss(one, labels_T)
        for one, labels_T in zip(_split(output, sizes_B), labels_BT, strict=True)
    ]
    found = [piece for piece in pieces if piece is not None]
    if not found:
        return loss
    share = config.model.instances.weight
    return (1 - share) * loss + share * torch.stack(found).sum() / num_bags


def _split(output: MILOutput, sizes_B: Sequence[int]) -> list[MILOutput]:
    """The output of each bag."""
    if len(sizes_B) == 1:
        return [output]
    sizes = list(sizes_B)
    hidden = (
        [None] * len(sizes) if output.hidden_NE is None else torch.split(output.hidden_NE, sizes)
    )
    return [
        replace(
            output,
            logits={task: values[place : place + 1] for task, values in output.logits.items()},
            scores_HN=scores,
            attention_HN=attention,
            hidden_NE=rows,
        )
        for place, (scores, attention, rows) in enumerate(
            zip(
                torch.split(output.scores_HN, sizes, dim=1),
                torch.split(output.attention_HN, sizes, dim=1),
                hidden,
                strict=True,
            )
        )
    ]


@torch.inference_mode()
def predict(
    network: Aggregator, bags: Sequence[Bag], study: Study, *, worker: Worker | None = None
) -> Logits:
    """(B, C) float64 logits by task of whole bags, in their order.

    Several workers share the work, and each gets the whole.
    """
    worker = worker or Worker()
    mine = bags[worker.rank :: worker.world]
    found: dict[str, list[torch.Tensor]] = {task.name: [] for task in study.tasks}
    network.eval()
    for group in _groups(mine, study.reader):
        parts = [study.reader.read(bag) for bag in group]
        with precision(study):
            output = network(
                parts[0] if len(parts) == 1 else torch.cat(parts),
                [len(part) for part in parts] if len(parts) > 1 else None,
            )
        for task, logits in output.logits.items():
            found[task].append(logits.double())
    own = {
        task.name: torch.cat(found[task.name]).cpu().numpy()
        if found[task.name]
        else np.empty((0, task.num_classes))
        for task in study.tasks
    }
    shares = worker.gather(own)
    whole = {task.name: np.empty((len(bags), task.num_classes)) for task in study.tasks}
    for rank, share in enumerate(shares):
        for name, logits in share.items():
            whole[name][rank :: worker.world] = logits
    return whole


def _groups(bags: Sequence[Bag], reader: BagReader) -> list[list[Bag]]:
    """Small bags together, up to `PACKED_PATCHES`."""
    groups: list[list[Bag]] = []
    held = PACKED_PATCHES
    for bag in bags:
        size = reader.num_patches(bag)
        if held + size > PACKED_PATCHES:
            groups.append([])
            held = 0
        groups[-1].append(bag)
        held += size
    return groups


def part_loss(logits: Logits, bags: Sequence[Bag], study: Study) -> float | None:
    """The unweighted loss of a part's labels, each task's mean over its labelled bags.

    None of a part without bags. CLAM's and CRANE's early stopping look at it.
    """
    if not bags:
        return None
    tensors = {task: torch.from_numpy(values) for task, values in logits.items()}
    kind = study.config.training.bag_loss
    return float(multi_task_loss(tensors, labels_tensor(bags), study.tasks, kind=kind))

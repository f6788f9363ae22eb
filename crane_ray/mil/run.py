"""FoldRun: one network in training, with its optimiser, its bags and its early stopping."""

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from crane_ray import storage
from crane_ray.cohort.tasks import MISSING, TaskSpec
from crane_ray.errors import StoreError
from crane_ray.features.torch_files import load_tensors
from crane_ray.mil.aggregator import Aggregator, build_aggregator
from crane_ray.mil.bags import Bag
from crane_ray.mil.configs import ExperimentConfig, OptimConfig

Logits = Mapping[str, npt.NDArray[np.float64]]
"""(B, C) by task name."""
NUMBERS = ("next_epoch", "best_loss", "best_epoch", "waited", "stopped", "failure")
"""What a `FoldRun` has besides tensors that changes."""
UNREADABLE = (RuntimeError, ValueError, KeyError, TypeError, AttributeError)
"""What torch says of files that are cut short, or hold something else."""


@dataclass(frozen=True)
class FoldBags:
    """The bags of one fold."""

    fold: int
    train: tuple[Bag, ...]
    val: tuple[Bag, ...] = ()


@dataclass(frozen=True)
class EpochReport:
    """What a fold's epoch came to."""

    fold: int
    seed: int
    epoch: int
    """Counted from 0."""
    train_loss: float
    val_loss: float | None
    """None where there is no val part."""
    best_epoch: int
    val_bags: tuple[Bag, ...]
    val_logits: Logits
    seconds: float


@dataclass
class FoldRun:
    """One fold in training."""

    bags: FoldBags
    seed: int
    network: Aggregator
    optimizer: torch.optim.Optimizer
    class_weights: dict[str, torch.Tensor]
    next_epoch: int = 0
    best_loss: float = math.inf
    best_epoch: int = -1
    waited: int = 0
    best_weights: dict[str, torch.Tensor] = field(default_factory=dict)
    stopped: bool = False
    """By early stopping."""
    history: list[dict[str, Any]] = field(default_factory=list)
    """Numbers of each epoch so far, for whoever keeps them; the last of an epoch counts."""
    failure: str = ""
    """Why it cannot go on, if so."""

    @property
    def over(self) -> bool:
        """Whether it trains no longer."""
        return self.stopped or bool(self.failure)

    def close_epoch(self, val_loss: float | None, config: ExperimentConfig) -> None:
        """Takes note of an epoch's outcome: whether it is the best, and whether to stop."""
        stopping = config.training.stopping
        if not stopping.enabled or (val_loss is not None and val_loss <= self.best_loss):
            self.best_loss = math.inf if val_loss is None else val_loss
            self.best_epoch, self.waited = self.next_epoch, 0
            self.best_weights = copied(self.network)
        else:
            self.waited += 1
        late = self.next_epoch > stopping.min_epochs
        self.stopped = stopping.enabled and self.waited >= stopping.patience and late
        self.next_epoch += 1


def start_run(
    bags: FoldBags,
    config: ExperimentConfig,
    tasks: Sequence[TaskSpec],
    *,
    dim: int,
    device: torch.device | str = "cpu",
    seed: int | None = None,
) -> FoldRun:
    """A fold before its first epoch; weights depend on the seed alone.

    Args:
        bags: of the fold.
        config: network and recipe.
        tasks: the heads.
        dim: length of a feature vector.
        device: where it trains.
        seed: in place of the recipe's.
    """
    number = config.training.seed if seed is None else seed
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(number)
        network = build_aggregator(config.model, dim, tasks)
    network.to(device)
    weights = {}
    if config.training.class_weights == "balanced":
        weights = {
            name: values.to(device) for name, values in balanced_weights(bags.train, tasks).items()
        }
    return FoldRun(bags, number, network, make_optimizer(network, config.training.optim), weights)


def balanced_weights(bags: Sequence[Bag], tasks: Sequence[TaskSpec]) -> dict[str, torch.Tensor]:
    """(C,) float32 weights by task: inverse frequencies, with a mean of one over the bags.

    A class without bags has the weight 1: it never meets a loss.
    """
    weights = {}
    for place, task in enumerate(tasks):
        found = [bag.labels_T[place] for bag in bags if bag.labels_T[place] != MISSING]
        counts = np.bincount(found, minlength=task.num_classes)
        present = max((counts > 0).sum(), 1)
        values = np.where(counts > 0, len(found) / (present * np.maximum(counts, 1)), 1.0)
        weights[task.name] = torch.tensor(values, dtype=torch.float32)
    return weights


def make_optimizer(network: nn.Module, config: OptimConfig) -> torch.optim.Optimizer:
    """The optimiser of a network, fused where torch has it."""
    parameters = [weights for weights in network.parameters() if weights.requires_grad]
    if config.name == "sgd":
        return torch.optim.SGD(
            parameters,
            lr=config.lr,
            momentum=config.momentum,
            weight_decay=config.weight_decay,
            fused=True,
        )
    kind = torch.optim.Adam if config.name == "adam" else torch.optim.AdamW
    return kind(parameters, lr=config.lr, weight_decay=config.weight_decay, fused=True)


def copied(network: Aggregator) -> dict[str, torch.Tensor]:
    """A network's state, independent of what becomes of it."""
    return {name: values.detach().clone() for name, values in network.state_dict().items()}


def save_run(run: FoldRun, path: str, fingerprint: str) -> None:
    """Writes all that a fold needs to go on, in one piece.

    Raises:
        StorageError: it cannot be written.
    """
    state = {
        "fingerprint": fingerprint,
        "network": run.network.state_dict(),
        "optimizer": run.optimizer.state_dict(),
        "best_weights": run.best_weights,
        "numbers": {name: getattr(run, name) for name in NUMBERS},
        "history": run.history,
    }
    sink = io.BytesIO()
    torch.save(state, sink)
    storage.put_bytes(path, sink.getvalue())


def load_run(run: FoldRun, path: str, fingerprint: str) -> bool:
    """Brings a fold to where `save_run` left it; False where nothing was saved.

    Raises:
        StoreError: what is there belongs to another experiment, or cannot be read.
    """
    if not storage.exists(path):
        return False
    device = next(run.network.parameters()).device
    try:
        source = io.BytesIO(storage.read_bytes(path))
        state: dict[str, Any] = load_tensors(source, device=device)
        if state["fingerprint"] != fingerprint:
            raise StoreError(
                f"{path}: belongs to a run with another config, table or split; give another "
                "--exp-code, or --overwrite to begin anew"
            )
        run.network.load_state_dict(state["network"])
        run.optimizer.load_state_dict(state["optimizer"])
        run.best_weights = state["best_weights"]
        for name in NUMBERS:
            setattr(run, name, state["numbers"][name])
        run.history = state.get("history", [])  # which earlier versions did not keep
    except StoreError:
        raise
    except UNREADABLE as error:
        reason = str(error).strip().split("\n", maxsplit=1)[0]
        raise StoreError(f"{path}: cannot be read: {reason}; --overwrite begins anew") from error
    return True

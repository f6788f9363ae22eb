"""Several processes that train one network together: data parallel over the bags of a step."""

from collections.abc import Iterable
from typing import Any

import torch
import torch.distributed


class Worker:
    """The only process, or one of several (see `DistributedWorker`)."""

    rank = 0
    world = 1

    def sum_gradients(self, parameters: Iterable[torch.nn.Parameter], loss: torch.Tensor) -> None:
        """Makes gradients and loss those of the whole step, in place."""

    def gather(self, value: Any) -> list[Any]:
        """The value of each process, in the order of ranks."""
        return [value]


class DistributedWorker(Worker):
    """A process of torch.distributed's default group.

    Gradients are summed in one message a step (a network has about a million weights). A step's
    loss is divided by what the whole step has, so the sum is that of one process. Weights that no
    process used keep no gradient, as in one process; so the optimisers agree.
    """

    def __init__(self) -> None:
        self.rank = torch.distributed.get_rank()
        self.world = torch.distributed.get_world_size()

    def sum_gradients(self, parameters: Iterable[torch.nn.Parameter], loss: torch.Tensor) -> None:
        """See `Worker`."""
        weights = list(parameters)
        used = torch.tensor([float(one.grad is not None) for one in weights], device=loss.device)
        own = [torch.zeros_like(one) if one.grad is None else one.grad for one in weights]
        flat = torch.cat([*(one.flatten() for one in own), used, loss.detach().reshape(1)])
        torch.distributed.all_reduce(flat)
        loss.copy_(flat[-1])
        sizes = [one.numel() for one in weights]
        *gradients, counts, _ = torch.split(flat, [*sizes, len(weights), 1])
        for one, gradient, count in zip(weights, gradients, counts.tolist(), strict=True):
            one.grad = gradient.view_as(one) if count else None

    def gather(self, value: Any) -> list[Any]:
        """See `Worker`."""
        values: list[Any] = [None] * self.world
        torch.distributed.all_gather_object(values, value)
        return values

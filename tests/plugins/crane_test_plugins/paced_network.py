"""A network that trains as fast as a test orders it to, and dies where a test orders that.

Orders: ``halt`` is the steps that a network trains before it waits for the order's end, followed
by the dropouts of the networks that this is about (all, where there are none); ``deadly value``
and ``deadly dropout`` are those of bags' features and of networks that kill their process.
"""

import os
import time
from collections.abc import Sequence
from itertools import count
from typing import Any

import torch

from crane_ray.cohort.tasks import TaskSpec
from crane_ray.mil.aggregator import Aggregator, build_aggregator
from crane_ray.mil.configs import ModelConfig

from .faults import note, order


def build(config: ModelConfig, dim: int, tasks: Sequence[TaskSpec]) -> Aggregator:
    """A network of CRANE's, whose training is as ordered."""
    network = build_aggregator(config.model_copy(update={"name": "crane"}), dim, tasks)
    network.register_forward_pre_hook(_Pace(config.dropout))
    return network


class _Pace:
    """Comes before each forward pass of a network."""

    def __init__(self, dropout: float) -> None:
        self._dropout, self._steps = dropout, count()

    def __call__(self, network: torch.nn.Module, inputs: tuple[Any, ...]) -> None:
        if network.training:
            self._die(inputs[0])
            self._wait(next(self._steps))
            note("steps", str(os.getpid()))

    def _die(self, features_ND: torch.Tensor) -> None:
        value, dropout = order("deadly value"), order("deadly dropout")
        if (value and float(features_ND.max()) >= float(value)) or dropout == str(self._dropout):
            note("deaths", str(os.getpid()))
            os._exit(1)

    def _wait(self, steps: int) -> None:
        if self._halts(steps):
            note("halted", str(os.getpid()))
        while self._halts(steps):
            time.sleep(0.02)

    def _halts(self, steps: int) -> bool:
        most, *dropouts = order("halt").split() or [""]
        return (
            bool(most) and steps >= int(most) and (not dropouts or str(self._dropout) in dropouts)
        )

"""Encoders prepared on the cluster: their cards, weights and best precision.

All of it happens in tasks, since torch would take half a gigabyte of the driver's memory.
"""

from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from crane_ray.errors import CraneError
from crane_ray.features.encoder import EncoderCard, EncoderConfig, Precision
from crane_ray.features.weights import Weights, fetch_weights
from crane_ray.plugins import load_plugin

ENCODERS = "crane_ray.features.encoders"


@dataclass(frozen=True)
class PreparedEncoder:
    """An encoder whose weights wait in the object store for its actors."""

    card: EncoderCard
    label: str
    sha256: str
    weights: "ray.ObjectRef[Weights]"

    @property
    def is_random(self) -> bool:
        """True where the weights are seeded random ones."""
        return self.label.startswith("random seed")


def prepare_encoder(config: EncoderConfig) -> PreparedEncoder:
    """The card and weights of an encoder, fetched once, on the driver's own node.

    Raises:
        ConfigError: no such encoder or weights, or they cannot be fetched.
    """
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    task = ray.remote(num_cpus=0, num_returns=2, max_retries=0, scheduling_strategy=here)(_prepare)
    told, weights = task.remote(config)
    card, label, sha256 = _get(told)
    return PreparedEncoder(card, label, sha256, weights)


def best_precision(*, on_gpu: bool) -> Precision:
    """bf16 where a node of the kind that will encode computes in it natively, else fp32."""
    task = ray.remote(num_cpus=0, num_gpus=0.01 if on_gpu else 0)(_hardware_precision)
    found: Precision = _get(task.remote(on_gpu=on_gpu))
    return found


def _prepare(config: EncoderConfig) -> tuple[tuple[EncoderCard, str, str], Weights]:
    card: EncoderCard = load_plugin(ENCODERS, config.name).CARD
    weights = fetch_weights(config, card)
    return (card, weights.label, weights.sha256), weights


def _hardware_precision(*, on_gpu: bool) -> Precision:
    from crane_ray.features.torch_encoder import default_precision

    return default_precision(on_gpu=on_gpu)


def _get(ref: Any) -> Any:
    """The result of a task, or the user's mistake that it met, without Ray's wrapping."""
    try:
        return ray.get(ref)
    except RayTaskError as error:
        if isinstance(error.cause, CraneError):
            raise error.cause from None
        raise

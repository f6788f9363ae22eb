"""Encoders prepared on the cluster: their cards, weights and best precision.

What needs torch happens in tasks, since it would take half a gigabyte of the driver's memory.
Weights are looked for in the driver, which has the user's environment: variables that name files,
and the log-in of the hub.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from crane_ray.errors import CraneError
from crane_ray.features.cards import ENCODERS, check_requirements
from crane_ray.features.encoder import EncoderCard, EncoderConfig, Precision
from crane_ray.features.weights import (
    LARGE_BYTES,
    Weights,
    WeightSource,
    find_weights,
    read_weights,
)
from crane_ray.plugins import load_plugin


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
    here = _task_on(ray.get_runtime_context().get_node_id())
    card: EncoderCard = _get(here(_card).remote(config.name))
    source = find_weights(config, card)
    by_path = _is_large(source) and _seen_everywhere(source.path)
    told, weights = here(_read, num_returns=2).remote(config, card, source, by_path)
    label, sha256 = _get(told)
    return PreparedEncoder(card, label, sha256, weights)


def best_precision(*, on_gpu: bool) -> Precision:
    """bf16 where a node of the kind that will encode computes in it natively, else fp32."""
    task = ray.remote(num_cpus=0, num_gpus=0.01 if on_gpu else 0)(_hardware_precision)
    found: Precision = _get(task.remote(on_gpu=on_gpu))
    return found


def _card(name: str) -> EncoderCard:
    card: EncoderCard = load_plugin(ENCODERS, name).CARD
    check_requirements(name, card)
    return card


def _read(
    config: EncoderConfig, card: EncoderCard, source: WeightSource, by_path: bool
) -> tuple[tuple[str, str], Weights]:
    weights = read_weights(config, card, source, by_path=by_path)
    return (weights.label, weights.sha256), weights


def _is_large(source: WeightSource) -> bool:
    path = Path(source.path)
    return bool(source.path) and path.is_file() and path.stat().st_size > LARGE_BYTES


def _seen_everywhere(path: str) -> bool:
    """True where each node sees the file with the size that it has here.

    Nodes that join later read it, too, and say so where they cannot; the bytes of a file that
    not all see go through the object store.
    """
    size = Path(path).stat().st_size
    nodes = [node["NodeID"] for node in ray.nodes() if node["Alive"]]
    sizes = ray.get([_task_on(node)(_size).remote(path) for node in nodes])
    return all(found == size for found in sizes)


def _size(path: str) -> int | None:
    return Path(path).stat().st_size if Path(path).is_file() else None


def _task_on(node: str) -> Any:
    """Makes tasks that run on one node."""
    place = NodeAffinitySchedulingStrategy(node, soft=False)

    def remote(function: Any, **options: Any) -> Any:
        return ray.remote(num_cpus=0, max_retries=0, scheduling_strategy=place, **options)(function)

    return remote


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

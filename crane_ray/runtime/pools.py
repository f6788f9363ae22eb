"""How many encoder actors a cluster carries, and what each of them gets. Imports no ray."""

from dataclasses import dataclass

from crane_ray.errors import ConfigError
from crane_ray.runtime.jobs import ActorConfig

CPUS_PER_ACTOR = 4
"""Of an actor that encodes on CPUs; convolutions gain little from more threads."""


@dataclass(frozen=True)
class Node:
    """What one node of a cluster offers."""

    cpus: float
    gpus: float = 0


@dataclass(frozen=True)
class Pool:
    """A pool of equal actors."""

    count: int
    cpus: int
    gpus: float
    memory: int | None = None


def plan_pool(config: ActorConfig, nodes: tuple[Node, ...]) -> Pool:
    """Encoder actors for a cluster: one a GPU, or as many as its CPUs carry.

    An actor lives on one node, so that it is sized by nodes and not by the cluster's sum. An
    explicit count is taken at its word: an autoscaler may still bring the nodes.

    Raises:
        ConfigError: no node can hold an actor of the size asked for.
    """
    gpus = config.gpus
    if gpus is None:
        gpus = 1.0 if any(node.gpus >= 1 for node in nodes) else 0.0
    carriers = [node for node in nodes if node.gpus >= gpus and node.cpus >= (config.cpus or 1)]
    if not carriers and config.count is None:
        raise ConfigError(
            f"actors: {gpus:g} GPUs and {config.cpus or 1} CPUs asked for an actor, and no node "
            f"has them (nodes: {_words(nodes)}); lower actors.gpus or actors.cpus, use another "
            "cluster (--address), or give actors.count where an autoscaler will add nodes"
        )
    cpus = config.cpus or _cpus_each(carriers, gpus, config.count)
    fitting = sum(_fits(node, cpus, gpus) for node in carriers)
    memory = int(config.memory_gb * 2**30) if config.memory_gb else None
    return Pool(config.count or fitting, cpus, gpus, memory)


def _cpus_each(carriers: list[Node], gpus: float, count: int | None) -> int:
    if gpus:
        shares = [int(node.cpus * gpus / node.gpus) for node in carriers]
        return max(1, min(shares, default=1))
    largest = max((int(node.cpus) for node in carriers), default=1)
    whole = sum(int(node.cpus) for node in carriers)
    return max(1, min(CPUS_PER_ACTOR, largest, whole // (count or 1)))


def _fits(node: Node, cpus: int, gpus: float) -> int:
    by_cpus = int(node.cpus // cpus)
    return min(by_cpus, int(node.gpus / gpus)) if gpus else by_cpus


def _words(nodes: tuple[Node, ...]) -> str:
    return ", ".join(f"{node.cpus:g} CPUs {node.gpus:g} GPUs" for node in nodes) or "none"

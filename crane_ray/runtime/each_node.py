"""Small tasks on named nodes of a cluster, none of which is waited for beyond a limit."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from crane_ray.preflight.report import Node
from crane_ray.runtime.landmarks import Landmark, unseen

LOOK_WAIT_S = 60.0
"""A node has to start a process for the look, which takes seconds, and much longer where all of its
cores are busy; one that still has not answered is passed over."""

Placed = tuple[str, Node]
"""Ray's id of a node, and what is known of it."""


def alive_nodes() -> list[Placed]:
    """The nodes of the cluster by their names, each of which is given once."""
    found = []
    for node in ray.nodes():
        if node["Alive"]:
            offers = node["Resources"]
            name = f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})"
            store = int(offers.get("object_store_memory", 0))
            cpus, gpus = offers.get("CPU", 0.0), offers.get("GPU", 0.0)
            found.append((node["NodeID"], Node(name, cpus, gpus, store)))
    names = [node.name for _, node in found]
    return [
        (key, node if names.count(node.name) == 1 else replace(node, name=f"{node.name} {key[:6]}"))
        for key, node in sorted(found, key=lambda one: (one[1].name, one[0]))
    ]


def on_node(key: str, **resources: int) -> Any:
    """A decorator: makes a function a task of that node alone."""
    place = NodeAffinitySchedulingStrategy(key, soft=False)
    return ray.remote(max_retries=0, scheduling_strategy=place, **resources)


def answers(tasks: Sequence[Any], timeout_s: float, too_late: str) -> list[tuple[Any, str]]:
    """The result of each task, or why there is none."""
    if not tasks:
        return []
    ready, late = ray.wait(list(tasks), num_returns=len(tasks), timeout=timeout_s)
    for task in late:
        ray.cancel(task, force=True)
    there = set(ready)
    return [_answer(task) if task in there else (None, too_late) for task in tasks]


def _answer(task: Any) -> tuple[Any, str]:
    try:
        return ray.get(task), ""
    except RayError as error:  # the last line says what was raised there
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        return None, lines[-1][:400] if lines else type(error).__name__


@dataclass(frozen=True)
class Looked:
    """What nodes see, by their names."""

    unseen: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """A line for each path that a node does not see."""
    silent: Mapping[str, str] = field(default_factory=dict)
    """Why a node did not say."""


def look_on_each_node(landmarks: Sequence[Landmark], wait_s: float = LOOK_WAIT_S) -> Looked:
    """Asks every node that tasks may run on, but the driver's own, what it sees of the driver's.

    The tasks need no CPU, so that busy nodes answer, too.
    """
    own = ray.get_runtime_context().get_node_id()
    asked = [
        (key, node.name) for key, node in alive_nodes() if key != own and node.cpus + node.gpus
    ]
    tasks = [on_node(key, num_cpus=0)(unseen).remote(list(landmarks)) for key, _ in asked]
    told = answers(tasks, wait_s, f"no answer within {wait_s:g} s")
    named = [(name, *answer) for (_, name), answer in zip(asked, told, strict=True)]
    return Looked(
        {name: lines for name, lines, _ in named if lines},
        {name: problem for name, _, problem in named if problem},
    )

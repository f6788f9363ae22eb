"""Small tasks on named nodes of a cluster, none of which is waited for beyond a limit."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from crane_ray.errors import ClusterError
from crane_ray.preflight.report import Node
from crane_ray.runtime.landmarks import Landmark, View, not_seen, view
from crane_ray.version import __version__

log = logging.getLogger(__name__)

LOOK_WAIT_S = 60.0
"""A node has to start a process for the look, which takes seconds, and much longer where all of its
cores are busy; one that still has not answered is passed over."""
NO_SUCH_CODE = ("ModuleNotFoundError", "ImportError", "AttributeError")
"""How a node fails whose Python has no crane-ray, or one of another time."""

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


def require_alike(landmarks: Sequence[Landmark], wait_s: float = LOOK_WAIT_S) -> None:
    """Asks every node that tasks may run on, but the driver's own, whether it is like that one.

    The tasks need no CPU, so that busy nodes answer, too. A node that does not answer is noted.

    Raises:
        ClusterError: a node does not see what the driver's sees, or has no crane-ray or another.
    """
    own = ray.get_runtime_context().get_node_id()
    asked = [
        (key, node.name) for key, node in alive_nodes() if key != own and node.cpus + node.gpus
    ]
    tasks = [on_node(key, num_cpus=0)(view).remote(list(landmarks)) for key, _ in asked]
    told = answers(tasks, wait_s, f"no answer within {wait_s:g} s")
    problems = [
        line
        for (_, name), (found, silence) in zip(asked, told, strict=True)
        for line in _problems(name, found, silence)
    ]
    if problems:
        raise ClusterError("\n".join([*problems, "Nothing was done."]))


def _problems(name: str, found: View | None, silence: str) -> Iterator[str]:
    """What keeps a node from taking part."""
    if found is None and not silence.startswith(NO_SUCH_CODE):
        log.error("node %s: %s; crane-ray doctor looks at all nodes", name, silence)
    elif found is None or found.version != __version__:
        there = silence if found is None else f"crane-ray {found.version}"
        yield (
            f"node {name} cannot take part: {there}; install this node's crane-ray {__version__} "
            "in the Python that Ray runs there (the same image), or take it out of the cluster"
        )
    elif found.unseen:
        yield not_seen(name, found.unseen)

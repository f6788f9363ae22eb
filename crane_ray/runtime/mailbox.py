"""Small messages from workers to the driver, for what is shown; nothing else depends on them."""

from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy


class _Box:
    """Keeps messages until they are asked for."""

    def __init__(self) -> None:
        self._messages: list[dict[str, Any]] = []

    def put(self, message: dict[str, Any]) -> None:
        self._messages.append(message)

    def take(self) -> list[dict[str, Any]]:
        messages, self._messages = self._messages, []
        return messages


class Mailbox:
    """The driver's side; `address` goes to workers, who `post` to it."""

    def __init__(self) -> None:
        # On the driver's own node: on another one it would die with it.
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        self.address: Any = ray.remote(num_cpus=0, scheduling_strategy=here)(_Box).remote()

    def take(self) -> list[dict[str, Any]]:
        """The messages since the last call; none where the box is lost."""
        try:
            messages: list[dict[str, Any]] = ray.get(self.address.take.remote(), timeout=10)
        except (RayError, TimeoutError):
            return []
        return messages


def post(address: Any, message: dict[str, Any]) -> None:
    """Sends a message, without waiting for it."""
    address.put.remote(message)

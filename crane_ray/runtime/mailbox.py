"""Small messages from workers to the driver, for what is shown; nothing else depends on them."""

from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

FLUSH_S = 10
"""What a worker that is done waits for its last message to arrive."""


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
    """The driver's side; `address` goes to workers, who post to it with a `Sender`."""

    def __init__(self) -> None:
        self.address: Any = ray.remote(num_cpus=0, scheduling_strategy=drivers_node())(
            _Box
        ).remote()

    def take(self) -> list[dict[str, Any]]:
        """The messages since the last call; none where the box is lost."""
        try:
            messages: list[dict[str, Any]] = ray.get(self.address.take.remote(), timeout=10)
        except (RayError, TimeoutError):
            return []
        return messages


class Sender:
    """The workers' side: messages go one after the other, and nobody waits for them."""

    def __init__(self, address: Any) -> None:
        self._address = address
        self._last: Any = None

    def __call__(self, message: dict[str, Any]) -> None:
        """Sends a message."""
        self._last = self._address.put.remote(message)

    def flush(self) -> None:
        """Returns when all messages arrived, or will not."""
        if self._last is not None:
            ray.wait([self._last], timeout=FLUSH_S)


def drivers_node() -> NodeAffinitySchedulingStrategy:
    """Places what must live as long as the driver: on another node it would die with that."""
    return NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)

"""The actors of one wave: what each has to do, and which gets the next block."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import count
from typing import Any

import pyarrow as pa


@dataclass(eq=False, slots=True)
class Node:
    """A machine."""

    number: int
    rate: float
    """Patches a second of each of its actors."""
    is_spot: bool
    there: bool = True


@dataclass(eq=False, slots=True)
class Call:
    """A block at an actor."""

    block: pa.Table
    arrives: float
    retries: int
    began: float = 0.0


@dataclass(eq=False, slots=True)
class Actor:
    """One process of a pool; its calls' shards are done one after the other, in order."""

    node: Node
    calls: deque[Call] = field(default_factory=deque)
    up: bool = False
    since: float = 0.0
    life: int = 0
    """Counts its deaths: what was to happen to an earlier life does not."""


class Pool:
    """Equal actors, and the blocks that wait for one."""

    def __init__(self, nodes: Sequence[Node], wave: Sequence[pa.Table], calls: int) -> None:
        self.actors = [Actor(node) for node in nodes]
        self.on: dict[int, list[Actor]] = {}
        for actor in self.actors:
            self.on.setdefault(actor.node.number, []).append(actor)
        self.waiting = deque(wave)
        self.in_flight = 0
        self._most = calls
        self._free: list[tuple[int, int, int, Actor]] = []
        self._order = count()

    @property
    def is_done(self) -> bool:
        """Nothing waits and nothing is under way."""
        return not self.waiting and not self.in_flight

    def offer(self, actor: Actor) -> None:
        """An actor may have room for a call."""
        if actor.up and len(actor.calls) < self._most:
            entry = (len(actor.calls), next(self._order), actor.life, actor)
            heappush(self._free, entry)

    def least_busy(self) -> Actor | None:
        """The actor with the fewest calls, as Ray Data chooses; None where all are full."""
        while self._free:
            calls, _, life, actor = self._free[0]
            if actor.up and actor.life == life and len(actor.calls) == calls:
                return actor
            heappop(self._free)
        return None

    def assign(self, actor: Actor, call: Call) -> None:
        """Gives an actor a call."""
        actor.calls.append(call)
        self.in_flight += 1
        self.offer(actor)

    def end(self, actor: Actor) -> Call:
        """The actor's first call is over."""
        self.in_flight -= 1
        call = actor.calls.popleft()
        self.offer(actor)
        return call

    def drop(self, actor: Actor, *, all_calls: bool) -> int:
        """An actor died: its calls that may not be tried again are gone; returns how many."""
        kept = [] if all_calls else [call for call in actor.calls if call.retries]
        for call in kept:
            call.retries -= 1
        dropped = len(actor.calls) - len(kept)
        actor.calls = deque(kept)
        self.in_flight -= dropped
        return dropped


def records(block: pa.Table) -> list[dict[str, Any]]:
    """The shards of a block."""
    found: list[dict[str, Any]] = block.to_pylist()
    return found

"""A cluster of nodes in virtual time that takes the place of `stream_actors`.

As Ray does: a block goes to the actor with the fewest calls; an actor that dies takes all its calls
with it, which are tried again on it once it is back, as often as retries allow, and are gone then.
"""

from collections import Counter, defaultdict
from collections.abc import Generator, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from heapq import heappop, heappush
from itertools import count, islice
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from crane_ray.runtime.actors import RESULT_SCHEMA
from crane_ray.runtime.streams import ActorSize, Row, wave_blocks
from tests.simulation.clock import DriverClock
from tests.simulation.cohorts import SHARD_ROWS, Faults
from tests.simulation.pool import Actor, Call, Node, Pool, records

BEGAN = datetime(2025, 1, 1, tzinfo=UTC)
Kind = Literal["up", "end", "die", "lost", "back"]


@dataclass(frozen=True)
class Hardware:
    """Nodes, and how they misbehave."""

    nodes: int
    actors_a_node: int = 1
    rate: float = 3800.0
    """Patches a second of an actor."""
    slow_share: float = 0.0
    slower: float = 3.0
    """Times that slow nodes take longer."""
    spot_share: float = 0.0
    """Of nodes that come and go."""
    life_s: float = 3600.0
    """Of a spot node, in the mean (exponential)."""
    away_s: float = 120.0
    """Until another one takes its place."""
    unnoticed: float = 0.5
    """Share of lost nodes on which Ray spends all retries before it is known that they are gone."""
    start_s: float = 30.0
    """From an actor's start to its first shard."""
    block_s: float = 0.0
    """CPU-seconds of the driver that Ray Data takes for a block."""

    @property
    def num_actors(self) -> int:
        """One a GPU."""
        return self.nodes * self.actors_a_node


class SimulatedCluster:
    """Nodes that live on through all waves and rounds of a run."""

    def __init__(
        self, hardware: Hardware, faults: Faults, clock: DriverClock, *, seed: int = 0
    ) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        """Of actors: ``up``, of that ``useful`` and ``lost``; starting is no part of ``up``."""
        self.counts: Counter[str] = Counter()
        """Of what happened: waves, blocks, receipts, dropped calls, deaths, lost nodes."""
        self.marks: dict[str, float] = {}
        """When no block of the first round waited any more, and when it ended."""
        self.now = 0.0
        self._hardware, self._faults, self._clock = hardware, faults, clock
        self._rng = np.random.default_rng(seed)
        self._events: list[tuple[float, int, Kind, Any, int]] = []
        self._order = count()
        self._nodes = self._make_nodes()
        self._retries = 0
        self._pool = Pool([], [], 1)

    @property
    def rate(self) -> float:
        """Patches a second of all nodes together, were they always there."""
        return sum(node.rate for node in self._nodes) * self._hardware.actors_a_node

    def stream(
        self,
        blocks: Iterable[pa.Table],
        actor: type,
        *,
        kwargs: dict[str, Any],
        size: ActorSize,
        calls: int = 1,
        retries: int = 0,
    ) -> Generator[Row, None, None]:
        """The results of blocks in order of completion, as from `stream_actors`."""
        remaining, self._retries = iter(blocks), retries
        while True:
            with self._clock.working("plan", self.now):
                wave = list(islice(remaining, wave_blocks(size.count)))
            if not wave:
                break
            self._open(wave, min(size.count, len(wave)), calls)
            del wave
            while not self._pool.is_done:
                table = self._step(str(kwargs.get("run_id", "")))
                if table is not None:
                    with self._clock.working("receipts", self.now):
                        yield from table.to_pylist()
            self._close()
        self.now = max(self.now, self._clock.free)
        self.marks.setdefault("first round", self.now)

    def _make_nodes(self) -> list[Node]:
        wanted, nodes = self._hardware, []
        slow, spot = self._rng.random(wanted.nodes), self._rng.random(wanted.nodes)
        for number in range(wanted.nodes):
            rate = wanted.rate / (wanted.slower if slow[number] < wanted.slow_share else 1)
            node = Node(number, rate, bool(spot[number] < wanted.spot_share))
            nodes.append(node)
            if node.is_spot:
                self._later(float(self._rng.exponential(wanted.life_s)), "lost", node)
        return nodes

    def _open(self, wave: list[pa.Table], num_actors: int, calls: int) -> None:
        """Starts actors, on nodes that are there if those are enough."""
        self.counts["waves"] += 1
        self.counts["blocks"] += len(wave)
        order = [self._nodes[place] for place in self._rng.permutation(len(self._nodes))]
        order.sort(key=lambda node: not node.there)
        places = [node for _ in range(self._hardware.actors_a_node) for node in order]
        self._pool = Pool(places[:num_actors], wave, calls)
        for actor in self._pool.actors:
            self._later(self._clock.free + self._hardware.start_s, "up", actor, actor.life)

    def _close(self) -> None:
        for actor in self._pool.actors:
            self._down(actor)
        self._pool = Pool([], [], 1)

    def _step(self, run_id: str) -> pa.Table | None:
        """The next thing that happens; receipts where it is the end of a block."""
        self.now, _, kind, who, life = heappop(self._events)
        if isinstance(who, Actor) and who.life != life:
            return None
        match kind:
            case "up":
                self._up(who)
            case "die":
                self._die(who)
            case "lost":
                self._lose(who)
            case "back":
                self._return(who)
            case "end":
                call = self._pool.end(who)
                self.seconds["useful"] += self.now - call.began
                self._begin(who)
                self._dispatch()
                return self._receipts(who, call, run_id)
        return None

    def _dispatch(self) -> None:
        pool = self._pool
        while pool.waiting and (actor := pool.least_busy()) is not None:
            sent = self._clock.spend("ray", self.now, self._hardware.block_s)
            pool.assign(actor, Call(pool.waiting.popleft(), sent, self._retries))
            if len(actor.calls) == 1:
                self._begin(actor)
            if not pool.waiting:
                self.marks.setdefault("all sent", self.now)

    def _begin(self, actor: Actor) -> None:
        """An actor turns to its next call: when that ends, or kills it."""
        if not actor.calls:
            return
        call, patches = actor.calls[0], 0
        call.began = max(self.now, call.arrives)
        kind: Kind = "end"
        for record in records(call.block):
            if record["slide_id"] in self._faults.killers:
                kind = "die"
                break
            patches += num_rows(record)
        self._later(call.began + patches / actor.node.rate, kind, actor, actor.life)

    def _up(self, actor: Actor) -> None:
        if not actor.node.there:
            return  # it is started once a node is back
        actor.up, actor.since = True, self.now
        self._begin(actor)
        self._pool.offer(actor)
        self._dispatch()

    def _down(self, actor: Actor) -> None:
        if actor.up:
            self.seconds["up"] += self.now - actor.since
            if actor.calls:
                self.seconds["lost"] += max(0.0, self.now - actor.calls[0].began)
        actor.up = False
        actor.life += 1

    def _die(self, actor: Actor) -> None:
        self.counts["deaths"] += 1
        self._down(actor)
        self.counts["dropped"] += self._pool.drop(actor, all_calls=False)
        self._later(self.now + self._hardware.start_s, "up", actor, actor.life)

    def _lose(self, node: Node) -> None:
        node.there = False
        self.counts["lost nodes"] += 1
        self._later(self.now + self._hardware.away_s, "back", node)
        unnoticed = self._rng.random() < self._hardware.unnoticed
        for actor in self._pool.on.get(node.number, ()):
            self._down(actor)
            self.counts["dropped"] += self._pool.drop(actor, all_calls=unnoticed)

    def _return(self, node: Node) -> None:
        node.there = True
        self._later(self.now + float(self._rng.exponential(self._hardware.life_s)), "lost", node)
        for actor in self._pool.on.get(node.number, ()):
            actor.life += 1  # one that was to start before the node was back does not
            self._later(self.now + self._hardware.start_s, "up", actor, actor.life)

    def _later(self, at: float, kind: Kind, who: Node | Actor, life: int = 0) -> None:
        heappush(self._events, (at, next(self._order), kind, who, life))

    def _receipts(self, actor: Actor, call: Call, run_id: str) -> pa.Table:
        """What the actor sends back."""
        same = {
            "host": f"node-{actor.node.number:04d}:1", "run_id": run_id, "reader": "openslide",
            "batch_size": 256, "fatal": False,
            "written": (BEGAN + timedelta(seconds=self.now)).isoformat(timespec="milliseconds"),
        }  # fmt: skip
        rows = [
            {**same, **receipt_columns(record, actor.node.rate, self._faults), "output": place}
            for record in records(call.block)
            for place in record["outputs"]
        ]
        self.counts["receipts"] += len(rows)
        return pa.Table.from_pylist(rows, RESULT_SCHEMA)


def num_rows(shard: dict[str, Any]) -> int:
    """Patches of a shard."""
    return min(SHARD_ROWS, int(shard["num_patches"]) - int(shard["shard"]) * SHARD_ROWS)


def receipt_columns(shard: dict[str, Any], rate: float, faults: Faults) -> dict[str, Any]:
    """What of a receipt differs from shard to shard."""
    names = ("slide_id", "shard", "num_patches", "coords_checksum", "attempt")
    rows, is_bad = num_rows(shard), shard["slide_id"] in faults.bad and shard["shard"] == 0
    zeros = dict.fromkeys(("decode_wait_s", "write_wait_s", "staging_wait_s", "idle_s"), 0.0)
    return {
        **{name: shard[name] for name in names},
        **zeros,
        "status": "error" if is_bad else "ok",
        "error": "tile 7 cannot be decoded" if is_bad else "",
        "rows": 0 if is_bad else rows,
        "checksum": "" if is_bad else checksum_of(shard["slide_id"], shard["shard"]),
        "seconds": rows / rate,
        "encode_s": rows / rate,
    }


def checksum_of(slide_id: str, shard: int) -> str:
    """The same whoever encodes a shard."""
    return sha256(f"{slide_id}/{shard}".encode()).hexdigest()

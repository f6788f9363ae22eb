"""Extractions whose actors, drivers and nodes go at random, and nodes come; all end well."""

import random
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tests.ray.clusters import NUM_SHARDS, Nodes, is_alive, kill, pid_of, wait_for_receipts
from tests.ray.helpers import finish, tree_digest

Event = Literal["actor", "driver", "node", "arrival"]
"""What is killed; or nodes arrive in place of those that were."""
MOST_KILLS = 3
"""In a round; more deaths of one slide's actors would rightly be held against the slide."""
ARRIVES = 0.75
"""The chance that a node that is killed is replaced in the same round."""


@dataclass
class Round:
    """One extraction: what happens once how many receipts are there."""

    seed: int
    events: list[tuple[int, Event]] = field(init=False)
    seconds_a_batch: float = field(init=False)
    log: list[str] = field(default_factory=list)
    """What really happened."""

    def __post_init__(self) -> None:
        self._chance = chance = random.Random(self.seed)
        kinds: list[Event] = ["actor", "driver", "node"]
        kills = [chance.choice(kinds) for _ in range(chance.randint(1, MOST_KILLS))]
        self.events = [(chance.randrange(1, NUM_SHARDS), event) for event in kills]
        for count in [count for count, event in self.events if event == "node"]:
            if chance.random() < ARRIVES:
                self.events.append((chance.randint(count, NUM_SHARDS - 1), "arrival"))
        self.events.sort(key=lambda one: (one[0], one[1] == "arrival"))
        self.seconds_a_batch = chance.choice([0.0, 0.05, 0.15])

    def run(self, nodes: Nodes, work: Path, store: Path, undisturbed: dict[str, str]) -> None:
        """Raises AssertionError, with all that is needed to repeat it, unless nothing is lost."""
        nodes.order(seconds_a_batch=str(self.seconds_a_batch))
        process = nodes.extract(work, store)
        for count, event in self.events:
            process = self._strike(count, event, nodes, process, work=work, store=store)
        status, output = finish(process)
        assert status == 0, f"{self}\n{output}"
        assert tree_digest(store / "slides") == undisturbed, f"{self}\n{output}"

    def _strike(
        self,
        count: int,
        event: Event,
        nodes: Nodes,
        process: "subprocess.Popen[str]",
        *,
        work: Path,
        store: Path,
    ) -> "subprocess.Popen[str]":
        """Kills, or adds nodes, once there are so many receipts; the process that goes on."""
        found = wait_for_receipts(process, store, count)
        if process.poll() is not None:
            self.log.append(f"over before {count} receipts")
            return process
        if event == "arrival":
            arrived = nodes.complete()
            self.log.append(f"{arrived} nodes arrived at {len(found)}")
            return process
        if event == "driver":
            process.kill()
            finish(process)
            self.log.append(f"driver {process.pid} at {len(found)}")
            return nodes.extract(work, store)
        workers = sorted({pid_of(receipt) for receipt in found})
        killable = nodes.may_be_lost if event == "node" else is_alive
        victims = [worker for worker in workers if killable(worker)]
        if not victims:
            self.log.append(f"no {event} to kill at {len(found)}")
        elif event == "node":
            nodes.kill_node_of(self._chance.choice(victims))
            self.log.append(f"node at {len(found)}")
        else:
            kill(self._chance.choice(victims))
            self.log.append(f"actor at {len(found)}")
        return process

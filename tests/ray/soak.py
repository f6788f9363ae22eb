"""Extractions whose actors, drivers and nodes are killed at random, and run to their end."""

import random
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tests.ray.clusters import NUM_SHARDS, Nodes, is_alive, kill, pid_of, wait_for_receipts
from tests.ray.helpers import finish, tree_digest

Victim = Literal["actor", "driver", "node"]
MOST_KILLS = 3
"""In a round; more deaths of one slide's actors would rightly be held against the slide."""


@dataclass
class Round:
    """One extraction: what is killed once how many receipts are there."""

    seed: int
    kills: list[tuple[int, Victim]] = field(init=False)
    seconds_a_batch: float = field(init=False)
    log: list[str] = field(default_factory=list)
    """What really happened."""

    def __post_init__(self) -> None:
        self._chance = chance = random.Random(self.seed)
        victims: list[Victim] = ["actor", "driver", "node"]
        counts = [chance.randrange(1, NUM_SHARDS) for _ in range(chance.randint(1, MOST_KILLS))]
        self.kills = [(count, chance.choice(victims)) for count in sorted(counts)]
        self.seconds_a_batch = chance.choice([0.0, 0.05, 0.15])

    def run(self, nodes: Nodes, work: Path, store: Path, undisturbed: dict[str, str]) -> None:
        """Raises AssertionError, with all that is needed to repeat it, unless nothing is lost."""
        nodes.order(seconds_a_batch=str(self.seconds_a_batch))
        process = nodes.extract(work, store)
        for count, victim in self.kills:
            process = self._strike(count, victim, nodes, process, work=work, store=store)
        status, output = finish(process)
        assert status == 0, f"{self}\n{output}"
        assert tree_digest(store / "slides") == undisturbed, f"{self}\n{output}"

    def _strike(
        self,
        count: int,
        victim: Victim,
        nodes: Nodes,
        process: "subprocess.Popen[str]",
        *,
        work: Path,
        store: Path,
    ) -> "subprocess.Popen[str]":
        """Kills once there are so many receipts; the process that goes on."""
        found = wait_for_receipts(process, store, count)
        if process.poll() is not None:
            self.log.append(f"over before {count} receipts")
            return process
        if victim == "driver":
            process.kill()
            finish(process)
            self.log.append(f"driver {process.pid} at {len(found)}")
            return nodes.extract(work, store)
        workers = sorted({pid_of(receipt) for receipt in found})
        killable = nodes.may_be_lost if victim == "node" else is_alive
        victims = [worker for worker in workers if killable(worker)]
        if not victims:
            self.log.append(f"no {victim} to kill at {len(found)}")
        elif victim == "node":
            nodes.kill_node_of(self._chance.choice(victims))
            self.log.append(f"node at {len(found)}")
        else:
            kill(self._chance.choice(victims))
            self.log.append(f"actor at {len(found)}")
        return process

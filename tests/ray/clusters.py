"""A Ray cluster of three nodes on one machine, whose nodes, workers and storage tests can fail."""

import os
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ray.cluster_utils import Cluster

from crane_ray.features.ledger import Receipt
from crane_ray.slides.opening import open_slide
from crane_ray.slides.patch_files import write_patches
from crane_ray.slides.patches import PatchGrid, PatchSpec, patch_geometry
from crane_ray.slides.slide import Slide
from crane_ray.slides.workspace import SlideRow, Workspace
from crane_ray.testing.pyramids import write_pyramid
from tests.ray.faults import VARIABLE, Faults
from tests.ray.helpers import command, free_ports, receipts, wait_for

NODES = 3
PACED = "crane_test_plugins.paced_colour"
QUICK_DETECTION = {
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "1000",
    "RAY_health_check_failure_threshold": "3",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "1",
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "30",
}
SPEC = PatchSpec(size_px=32, level=0)
SIDE_PX = 512
NUM_SLIDES = 8
NUM_PATCHES = (2300, 400, 4200)
"""Of successive slides, over and over: two shards, one and three."""
NUM_SHARDS = sum(-(-NUM_PATCHES[n % 3] // 2048) for n in range(NUM_SLIDES))


@dataclass
class Nodes:
    """A cluster under test: commands run on it, nodes are killed and added back."""

    cluster: Cluster
    faults: Faults

    def extract(self, work: Path, store: Path, *words: str) -> "subprocess.Popen[str]":
        """``crane-ray extract`` on the cluster."""
        fixed = [
            "extract", "--work", str(work), "--store", str(store), "--encoder", PACED,
            "--weights", "random", "--precision", "fp32", "--batch-size", "256",
            "--address", self.cluster.address,
        ]  # fmt: skip
        return command(*fixed, *words)

    def order(self, **faults: str) -> None:
        """Puts faults in force in place of all others; words are joined by underscores."""
        self.faults.order(**faults)

    def noted(self, name: str) -> list[str]:
        """What faults wrote down."""
        return self.faults.noted(name)

    def kill_node_of(self, worker: int) -> None:
        """A machine without power: the node, and every process on it, is gone at once."""
        self.kill_node(
            next(node for node in self.cluster.worker_nodes if worker in _below(_raylet(node)))
        )

    def kill_node(self, node: Any) -> None:
        """As `kill_node_of`, of a node as the cluster lists it."""
        processes = _below(_raylet(node))
        for process in processes:  # stopped first, so that none notices that the others die
            kill(process, signal.SIGSTOP)
        self.cluster.remove_node(node, allow_graceful=False)
        for process in processes:
            kill(process)

    def may_be_lost(self, worker: int) -> bool:
        """True for a worker of a node that may be killed: not that of the drivers."""
        return any(worker in _below(_raylet(node)) for node in self.cluster.worker_nodes)

    def complete(self) -> int:
        """Adds what nodes are missing, and says how many."""
        missing = NODES - len(self.cluster.list_all_nodes())
        for _ in range(missing):
            self.cluster.add_node(**_node())
        return missing


@contextmanager
def three_nodes(folder: Path, *, quick_detection: bool = True) -> Iterator[Nodes]:
    """A cluster of three nodes with one CPU each, gone at the end.

    Quick to notice that a node is gone, it takes one for gone, too, that a busy machine keeps from
    answering for seconds: not for benchmarks.
    """
    settings = dict(QUICK_DETECTION) if quick_detection else {}
    faults = Faults(folder / "faults")
    faults.folder.mkdir()
    settings[VARIABLE] = str(faults.folder)
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    cluster = Cluster()
    try:
        # Sockets need short paths.
        with tempfile.TemporaryDirectory(prefix="r", dir="/tmp", ignore_cleanup_errors=True) as tmp:
            # Ray tries the dashboard's port also where none is wanted, and leaves one that is taken
            # open.
            head = {"dashboard_port": free_ports(1)[0], "include_dashboard": False}
            cluster.add_node(**_node(), **head, temp_dir=tmp)
            nodes = Nodes(cluster, faults)
            nodes.complete()
            yield nodes
            cluster.shutdown()
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _node() -> dict[str, Any]:
    # The port that agents usually take is another Ray's on a machine with several.
    return {
        "num_cpus": 1,
        "object_store_memory": 80 * 2**20,
        "dashboard_agent_listen_port": free_ports(1)[0],
    }


def _raylet(node: Any) -> int:
    return int(node.all_processes["raylet"][0].process.pid)


def _below(process: int) -> list[int]:
    """A process and all that descend from it."""
    table, found = _table(), [process]
    for one in found:
        found += [pid for pid, parent in table.items() if parent == one]
    return found


def _table() -> dict[int, int]:
    """The parent of each process that is not dead."""
    words = ["ps", "-axo", "pid=,ppid=,stat="]
    rows = subprocess.run(words, capture_output=True, text=True, check=True).stdout.splitlines()
    found = (row.split() for row in rows)
    return {int(pid): int(parent) for pid, parent, state in found if not state.startswith("Z")}


def kill(process: int, with_signal: int = signal.SIGKILL) -> None:
    """Sends a signal; a process that is gone already is as good."""
    with suppress(ProcessLookupError):
        os.kill(process, with_signal)


def is_alive(process: int) -> bool:
    """True for a process that can still be killed."""
    return process in _table()


def pid_of(receipt: Receipt) -> int:
    """The process of the actor that wrote a receipt."""
    return int(receipt.host.rsplit(":", 1)[1])


def wait_for_receipts(
    process: "subprocess.Popen[str]",
    store: Path,
    count: int,
    *,
    among: Callable[[int], bool] = lambda worker: True,
) -> list[Receipt]:
    """The receipts of a run once so many came from workers of a kind; fewer where it ended."""
    found: list[Receipt] = []
    judged: dict[int, bool] = {}

    def counts(receipt: Receipt) -> bool:
        worker = pid_of(receipt)
        if worker not in judged:
            judged[worker] = among(worker)
        return judged[worker]

    def enough() -> bool:
        found[:] = receipts(str(store))
        return sum(map(counts, found)) >= count or process.poll() is not None

    wait_for(enough, f"{count} receipts", timeout_s=240)
    return found


def patched_workspace(root: Path) -> Path:
    """Slides of noise with one to three shards of patches each; made without Ray."""
    rows = [_patched_slide(root, number) for number in range(NUM_SLIDES)]
    Workspace(str(root)).write_slides(rows)
    return root


def _patched_slide(root: Path, number: int) -> SlideRow:
    slide_id, rng = f"slide_{number}", np.random.default_rng(number)
    image = rng.integers(0, 256, (SIDE_PX // 8, SIDE_PX // 8, 3), dtype=np.uint8)
    path = root / "cohort" / f"{slide_id}.tif"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_pyramid(path, image.repeat(8, axis=0).repeat(8, axis=1), mpp=0.5)
    num_patches = NUM_PATCHES[number % len(NUM_PATCHES)]
    places = np.arange(num_patches)
    xy = np.stack([places // 70 * 6, places % 70 * 6], axis=1).astype(np.int64)
    with open_slide(Slide(slide_id, str(path))) as reader:
        grid = PatchGrid(slide_id, SPEC, patch_geometry(SPEC, reader.info, 0.5), xy)
        write_patches(Workspace(str(root)).patches(slide_id), grid, reader.info, "")
    return SlideRow(
        slide_id,
        str(path),
        "ok",
        case_id=f"case {number}",
        mpp=0.5,
        num_patches=num_patches,
        spec_fingerprint=SPEC.fingerprint(),
        coords_checksum=grid.checksum(),
    )

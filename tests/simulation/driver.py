"""The driver's own code (plan, blocks, books, summary) on a simulated cluster."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from crane_ray.features.commits import Books
from crane_ray.features.joint import JointBooks
from crane_ray.features.store import FeatureStore
from crane_ray.runtime.extraction import Run, extract_missing, summarise
from crane_ray.runtime.jobs import ExtractJob
from crane_ray.runtime.lanes import Lane, patched_slides
from crane_ray.runtime.pools import Pool
from crane_ray.runtime.reporting import Reporter, Silent, Summary
from crane_ray.slides.workspace import SlideRow, Workspace
from tests.simulation.clock import DriverClock
from tests.simulation.cluster import Hardware, SimulatedCluster
from tests.simulation.cohorts import Faults


@dataclass(frozen=True)
class Course:
    """What came of a simulated run."""

    cluster: SimulatedCluster
    clock: DriverClock
    books: JointBooks
    summary: Summary
    ideal_s: float
    """All patches at the speed of all nodes, were they always there, after the actors' start."""

    @property
    def seconds(self) -> float:
        """Virtual time from the first plan to the last commit."""
        return max(self.cluster.now, self.clock.free)


def simulate(
    root: Path,
    hardware: Hardware,
    faults: Faults | None = None,
    *,
    clock: DriverClock | None = None,
    seed: int = 0,
) -> Course:
    """Extracts what is missing of a workspace (`write_cohort`) on a simulated cluster."""
    faults, clock = faults or Faults(), clock or DriverClock()
    cluster = SimulatedCluster(hardware, faults, clock, seed=seed)
    with clock.working("open", 0.0):
        run, rows = open_run(root, hardware, cluster, clock)
        patches = run.books.num_missing_patches()
    extract_missing(run)
    with clock.working("close", cluster.now):
        run.books.flush()
        summary = summarise(run, rows)
    ideal_s = hardware.start_s + patches / cluster.rate
    return Course(cluster, clock, run.books, summary, ideal_s)


def open_run(
    root: Path, hardware: Hardware, cluster: SimulatedCluster, clock: DriverClock
) -> tuple[Run, dict[str, SlideRow]]:
    """A run as `run_extraction` makes it, without encoders."""
    workspace, store = Workspace(str(root)), FeatureStore.open(str(root / "store"))
    rows = patched_slides(workspace)
    store.ledger.compact()
    books = JointBooks([Books(store, workspace, rows, clock=clock)], rows)
    pool = Pool(hardware.num_actors, cpus=12, gpus=1)
    lane = Lane(cast(Any, SimpleNamespace(weights=None)), store)
    config = ExtractJob(work=str(root))
    run = Run(
        config, "20250101T000000-abcdef", pool, [lane], books, Silent(),
        stream=cluster.stream, live=_not_live,
    )  # fmt: skip
    return run, rows


@contextmanager
def _not_live(reporter: Reporter) -> Iterator[Any]:
    yield SimpleNamespace(address=None)

"""The driver on simulated clusters: nothing is lost or done twice, whatever comes and goes."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from crane_ray import storage
from crane_ray.features.store import FeatureStore
from crane_ray.runtime.extraction import CALLS, DEAD_WORKER
from crane_ray.runtime.packing import SHARE
from tests.simulation.clock import DriverClock
from tests.simulation.cluster import Hardware, checksum_of
from tests.simulation.cohorts import (
    SHARD_ROWS,
    Faults,
    skewed_slides,
    slide_name,
    slide_row,
    write_cohort,
)
from tests.simulation.driver import Course, simulate

ROUGH = Hardware(
    nodes=100, slow_share=0.1, spot_share=0.4, life_s=150.0, away_s=20.0, start_s=5.0
)  # fmt: skip
"""Spot nodes that hardly live for longer than the whole run."""


@pytest.fixture(autouse=True, scope="module")
def no_waits_for_the_disk() -> Iterator[None]:
    """What is written once is there for the next process; a power cut is not simulated."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.fsync", lambda file: None)
        yield


def receipts(root: Path) -> list[dict[str, Any]]:
    """All that were ever written to the ledger, repeated ones, too."""
    files = sorted((root / "store" / "ledger").iterdir())
    return [row for file in files for row in pq.read_table(file).to_pylist()]


def committed(root: Path) -> dict[str, tuple[str, ...]]:
    """The checksums of whole slides."""
    index = FeatureStore.open(str(root / "store")).index.read()
    return {slide_id: row.checksums for slide_id, row in index.items()}


def expected(patches: list[int], faults: Faults) -> dict[str, tuple[str, ...]]:
    """The checksums of all slides that can be extracted."""
    names = {slide_name(number): -(-count // SHARD_ROWS) for number, count in enumerate(patches)}
    return {
        name: tuple(checksum_of(name, shard) for shard in range(shards))
        for name, shards in names.items()
        if name not in faults.bad | faults.killers
    }


def reasons(course: Course) -> dict[str, str]:
    """Why slides failed."""
    return {slide.slide_id: slide.reason for slide in course.summary.failures}


def test_whatever_comes_and_goes_every_slide_is_whole_or_failed_with_its_reason(
    tmp_path: Path,
) -> None:
    patches = skewed_slides(300, 10, seed=1)
    faults = Faults.drawn([slide_name(n) for n in range(300)], bad=0.02, killers=2, seed=1)
    write_cohort(tmp_path, patches)
    course = simulate(tmp_path, ROUGH, faults, seed=1)
    counts = course.cluster.counts
    assert counts["lost nodes"] > 10 and counts["deaths"] >= 8 and counts["dropped"] > 10
    failed, there = reasons(course), committed(tmp_path)
    assert faults.bad | faults.killers <= failed.keys()
    assert {failed[name] for name in faults.killers} == {DEAD_WORKER}
    assert all("tile 7" in failed[name] for name in faults.bad)
    given_up = failed.keys() - faults.bad - faults.killers
    assert {failed[name] for name in given_up} <= {DEAD_WORKER}
    wanted = expected(patches, faults)
    assert there == {name: sums for name, sums in wanted.items() if name not in given_up}
    ok = Counter((row["slide_id"], row["shard"]) for row in receipts(tmp_path) if row["rows"])
    assert set(ok.values()) == {1}
    assert counts["receipts"] == len(receipts(tmp_path))


def test_slides_given_up_for_lost_nodes_alone_are_whole_after_the_same_command(
    tmp_path: Path,
) -> None:
    """No node lives as long as the largest slide takes at once: runs go on, none repeats."""
    patches = [100 * SHARD_ROWS] * 4
    write_cohort(tmp_path, patches)
    hardware = Hardware(
        10, spot_share=1.0, life_s=10.0, away_s=5.0, unnoticed=1.0, start_s=1.0
    )  # fmt: skip
    before, given_up = set[tuple[str, int]](), list[int]()
    for seed in range(40):
        course = simulate(tmp_path, hardware, seed=seed)
        rows = receipts(tmp_path)
        now = {(row["slide_id"], row["shard"]) for row in rows if row["rows"]}
        assert before <= now and len(now) == len(rows)
        before = now
        given_up.append(len(reasons(course)))
        if not given_up[-1]:
            break
    assert given_up[0] > 0 and given_up[-1] == 0
    assert committed(tmp_path) == expected(patches, Faults())


def test_the_same_seed_is_the_same_run(tmp_path: Path) -> None:
    courses = []
    for name in ("a", "b"):
        write_cohort(tmp_path / name, skewed_slides(60, 6, seed=3))
        courses.append(simulate(tmp_path / name, replace(ROUGH, nodes=20), seed=3))
    assert courses[0].seconds == courses[1].seconds
    assert courses[0].cluster.counts == courses[1].cluster.counts
    assert receipts(tmp_path / "a") == receipts(tmp_path / "b")


@settings(deadline=None, max_examples=25)
@given(
    patches=st.lists(st.integers(1, 30 * SHARD_ROWS), min_size=1, max_size=40),
    nodes=st.integers(1, 30),
    slow=st.sampled_from([0.0, 0.3]),
)
def test_encoders_end_together(patches: list[int], nodes: int, slow: float) -> None:
    """None is idle while blocks wait; the last calls of each are a share of the work, or shards."""
    hardware = Hardware(nodes, slow_share=slow, start_s=10.0)
    with TemporaryDirectory() as folder:
        write_cohort(Path(folder), patches)
        course = simulate(Path(folder), hardware)
    slowest = hardware.rate / (hardware.slower if slow else 1)
    block = max(SHARD_ROWS, sum(patches) / (SHARE * nodes))
    assert course.cluster.marks["all sent"] <= course.ideal_s + 1e-6
    assert course.seconds <= course.ideal_s + CALLS[True] * block / slowest + 1e-6
    assert course.cluster.seconds["lost"] == 0


def test_a_slide_that_kills_costs_no_other_slide(tmp_path: Path) -> None:
    patches = [SHARD_ROWS * 20] * 30
    faults = Faults(killers=frozenset({slide_name(7)}))
    write_cohort(tmp_path, patches)
    course = simulate(tmp_path, Hardware(4, start_s=10.0), faults)
    assert reasons(course) == {slide_name(7): DEAD_WORKER}
    assert course.cluster.counts["dropped"] > 3, "nobody was in the killer's company"
    assert committed(tmp_path) == expected(patches, faults)


@settings(deadline=None, max_examples=10)
@given(seed=st.integers(0, 10**6), away_s=st.floats(1.0, 60.0))
@example(seed=5, away_s=20.0)
@example(seed=26, away_s=20.0)
def test_an_actor_works_on_one_shard_at_a_time(seed: int, away_s: float) -> None:
    """Also where nodes are away for less than an actor takes to start, at the begin of a wave."""
    hardware = Hardware(
        6, spot_share=1.0, life_s=40.0, away_s=away_s, unnoticed=1.0, start_s=30.0
    )  # fmt: skip
    with TemporaryDirectory() as folder:
        write_cohort(Path(folder), [20 * SHARD_ROWS] * 12)
        faults = Faults(killers=frozenset({slide_name(3)}))
        seconds = simulate(Path(folder), hardware, faults, seed=seed).cluster.seconds
    assert 0 < seconds["useful"] <= seconds["up"] - seconds["lost"] + 1e-6


class Killed(BaseException):
    """The driver's process is gone."""


@contextmanager
def killed_after(operations: int) -> Iterator[Callable[[], int]]:
    """Ends the driver before one of its writes and removals; says how many there were."""
    done = 0

    def mortal(operation: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            nonlocal done
            if done >= operations:
                raise Killed
            done += 1
            return operation(*args, **kwargs)

        return run

    with pytest.MonkeyPatch.context() as patch:
        for name in ("put_bytes", "remove_tree"):
            patch.setattr(storage, name, mortal(getattr(storage, name)))
        yield lambda: done


@settings(deadline=None, max_examples=20)
@given(
    seed=st.integers(0, 99),
    lives=st.lists(st.floats(0.0, 1.0), min_size=1, max_size=3),
    prompt=st.booleans(),
)
def test_a_driver_killed_anywhere_and_run_again_ends_like_an_undisturbed_one(
    seed: int, lives: list[float], prompt: bool
) -> None:
    """Each life ends somewhere in what it would have written."""
    patches = skewed_slides(12, 4, seed=seed)
    faults = Faults.drawn([slide_name(n) for n in range(12)], bad=0.1, killers=1, seed=seed)
    hardware = Hardware(5, slow_share=0.2, start_s=5.0)
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        root = Path(folder)
        patch.setattr("crane_ray.features.ledger.MERGE_EVERY", 4)
        if not prompt:  # once a second, as from the 500th receipt on
            patch.setattr("crane_ray.features.commits.PROMPT_RECEIPTS", 0)
        write_cohort(root, patches)
        with killed_after(10**9) as whole:
            write_cohort(root / "other", patches)
            simulate(root / "other", hardware, faults, seed=seed)
        for life in lives:
            with killed_after(int(life * whole())), suppress(Killed):
                simulate(root, hardware, faults, seed=seed)
        course = simulate(root, hardware, faults, seed=seed + 1)
        assert committed(root) == expected(patches, faults) == committed(root / "other")
        assert reasons(course).keys() == faults.bad | faults.killers


def test_a_busy_driver_takes_its_time_from_the_clock() -> None:
    cpu = iter([5.0, 6.0, 7.5])
    clock = DriverClock(lambda: next(cpu))
    assert clock() == 0
    with clock.working("receipts", at=100.0):
        assert clock() == 101.0
    assert (clock.free, clock.spent["receipts"]) == (102.5, 2.5)
    assert clock.spend("ray", at=50.0, seconds=1.0) == 103.5
    assert clock.spend("ray", at=200.0, seconds=1.0) == 201.0


def test_a_slow_driver_is_what_a_large_cluster_waits_for(tmp_path: Path) -> None:
    """At 20 blocks a second a hundred GPUs are not kept busy, and the simulation says so."""
    patches = [SHARD_ROWS * 10] * 200
    courses = []
    for block_s in (0.0, 0.05):
        root = tmp_path / str(block_s)
        write_cohort(root, patches)
        courses.append(simulate(root, Hardware(100, start_s=0.0, block_s=block_s)))
    fast, slow = courses
    assert fast.seconds < 1.2 * fast.ideal_s
    assert slow.seconds >= slow.cluster.counts["blocks"] * 0.05 > 2 * fast.seconds


def test_skewed_slides_are_skewed() -> None:
    patches = skewed_slides(20_000, 10, seed=0)
    shards = [-(-count // SHARD_ROWS) for count in patches]
    assert 9 < sum(shards) / len(shards) < 11
    assert min(patches) <= 20 and max(shards) == 300
    assert sum(sorted(shards)[-2000:]) > 0.3 * sum(shards)
    assert slide_row(3, 5).slide_id == slide_name(3)

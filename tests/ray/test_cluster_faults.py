"""Nodes, actors, drivers and storage fail in mid-run on three nodes; the features never differ."""

import json
import os
import random
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from crane_ray.features.store import FeatureStore
from crane_ray.testing.cohorts import SyntheticCohort
from tests.ray.clusters import (
    NUM_SHARDS,
    NUM_SLIDES,
    Nodes,
    patched_workspace,
    pid_of,
    three_nodes,
    wait_for_receipts,
)
from tests.ray.faults import FAULTY_DISK, POISONED_READER
from tests.ray.helpers import command, finish, receipts, tree_digest, wait_for
from tests.ray.soak import Round
from tests.unit.maps.small_maps import make_small_maps

pytestmark = [pytest.mark.ray, pytest.mark.chaos]

HALT = "11"
"""Batches of an actor, enough for the first of the two blocks that it is sent at once; then it
waits for the test to do its harm."""
TWO = ("--actors", "2")
"""Where no node dies: actors take seconds to start, and the machine may have two cores."""
POISON = "slide_1"
"""With one shard: a further one would only be further deaths, each of which is seconds of start."""
MOST_DEATHS = 2 + 3
"""Its block is sent twice; then the slide is tried alone."""


@pytest.fixture(scope="module")
def cluster(isolated_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    with three_nodes(tmp_path_factory.mktemp("cluster")) as nodes:
        yield nodes


@pytest.fixture
def nodes(cluster: Nodes) -> Nodes:
    """The cluster, whole and without faults."""
    cluster.order()
    cluster.complete()
    return cluster


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return patched_workspace(tmp_path_factory.mktemp("work"))


@pytest.fixture(scope="module")
def undisturbed(
    cluster: Nodes, work: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    """The digests of all files of a run that nothing disturbed."""
    root = tmp_path_factory.mktemp("undisturbed")
    cluster.order()
    status, output = finish(cluster.extract(work, root))
    assert status == 0, output
    assert len(receipts(str(root))) == NUM_SHARDS
    return tree_digest(root / "slides")


def test_a_node_that_dies_for_good_costs_time_alone(
    nodes: Nodes, work: Path, undisturbed: dict[str, str], tmp_path: Path
) -> None:
    """No node takes its place, so that the pool never has the actors it began with again."""
    nodes.order(batches_before_a_halt=HALT)
    process = nodes.extract(work, tmp_path)
    found = wait_for_receipts(process, tmp_path, 1, among=nodes.may_be_lost)
    lost = next(pid_of(one) for one in found if nodes.may_be_lost(pid_of(one)))
    nodes.kill_node_of(lost)
    nodes.order()
    status, output = finish(process)
    assert status == 0, output
    assert "Traceback" not in output
    assert len(nodes.cluster.list_all_nodes()) == 2
    assert {pid_of(receipt) for receipt in receipts(str(tmp_path))} > {lost}
    assert tree_digest(tmp_path / "slides") == undisturbed


def test_a_slide_that_kills_its_actors_fails_alone_after_a_few_tries(
    nodes: Nodes, work: Path, undisturbed: dict[str, str], tmp_path: Path
) -> None:
    nodes.order(poison=POISON)
    status, output = finish(nodes.extract(work, tmp_path, *TWO, "--reader", POISONED_READER))
    assert status == 1, output
    assert f"{POISON}: the actor died each time it was tried" in output
    assert "Traceback" not in output
    deaths = nodes.noted("deaths")
    assert 1 < len(deaths) == len(set(deaths)) <= MOST_DEATHS
    others = {f"slide_{number}" for number in range(NUM_SLIDES)} - {POISON}
    assert set(FeatureStore.open(str(tmp_path)).slide_ids()) == others
    left_out = json.loads(_last_manifest(work).read_text())["left_out"]
    assert [slide["slide_id"] for slide in left_out] == [POISON]
    assert tree_digest(tmp_path / "slides") == {
        name: digest for name, digest in undisturbed.items() if not name.startswith(POISON)
    }
    nodes.order()
    status, output = finish(nodes.extract(work, tmp_path, *TWO, "--reader", POISONED_READER))
    assert status == 0, output
    assert tree_digest(tmp_path / "slides") == undisturbed


def test_a_driver_that_is_killed_and_run_again_goes_on(
    nodes: Nodes, work: Path, undisturbed: dict[str, str], tmp_path: Path
) -> None:
    """At once and on the same cluster, where the first one's actors may still be."""
    nodes.order(batches_before_a_halt=HALT)
    process = nodes.extract(work, tmp_path)
    wait_for_receipts(process, tmp_path, 1)
    process.kill()
    finish(process)
    nodes.order()
    before = {(one.slide_id, one.shard): one.written for one in receipts(str(tmp_path))}
    assert 1 <= len(before) < NUM_SHARDS
    status, output = finish(nodes.extract(work, tmp_path))
    assert status == 0, output
    after = {(one.slide_id, one.shard): one.written for one in receipts(str(tmp_path))}
    assert len(after) == NUM_SHARDS
    assert {key: after[key] for key in before} == before
    assert tree_digest(tmp_path / "slides") == undisturbed


def test_storage_that_fails_now_and_then_fails_nothing(
    nodes: Nodes, work: Path, undisturbed: dict[str, str], tmp_path: Path
) -> None:
    nodes.order(writes_that_fail="11", reads_that_fail="40")
    words = [*TWO, "--set", f"layout={FAULTY_DISK}", "--reader", POISONED_READER]
    status, output = finish(nodes.extract(work, tmp_path, *words))
    assert status == 0, output
    failed = nodes.noted("failed writes")
    assert {_part_of_store(path, tmp_path) for path in failed} >= {"slides", "ledger"}
    assert nodes.noted("failed reads")
    assert len(receipts(str(tmp_path))) == NUM_SHARDS
    assert tree_digest(tmp_path / "slides") == undisturbed


def test_a_disk_that_fills_up_ends_the_run_and_space_mends_it(
    nodes: Nodes, work: Path, undisturbed: dict[str, str], tmp_path: Path
) -> None:
    nodes.order(batches_before_a_halt=HALT)
    words = [*TWO, "--set", f"layout={FAULTY_DISK}"]
    process = nodes.extract(work, tmp_path, *words)
    wait_for_receipts(process, tmp_path, 1)
    nodes.order(full_disk="yes")
    status, output = finish(process)
    assert status == 2, output
    assert "disk is full; free space and run the same command again" in output
    assert "Traceback" not in output
    assert nodes.noted("refused")
    assert json.loads(_last_manifest(work).read_text())["outcome"] == "error"
    kept = {(one.slide_id, one.shard) for one in receipts(str(tmp_path)) if one.status == "ok"}
    assert 1 <= len(kept) < NUM_SHARDS
    nodes.order()
    status, output = finish(nodes.extract(work, tmp_path, *words))
    assert status == 0, output
    assert tree_digest(tmp_path / "slides") == undisturbed


def test_an_actor_that_dies_in_mid_write_leaves_nothing_behind(
    nodes: Nodes, work: Path, undisturbed: dict[str, str], tmp_path: Path
) -> None:
    nodes.order(**{"death_in_mid-write": "features/c/0"})
    status, output = finish(nodes.extract(work, tmp_path, *TWO, "--set", f"layout={FAULTY_DISK}"))
    assert status == 0, output
    assert nodes.noted("deaths in mid-write")
    assert tree_digest(tmp_path / "slides") == undisturbed
    assert not (tmp_path / "unfinished").exists()


@pytest.mark.parametrize("verb", ["patch", "heatmap"])
def test_a_node_that_dies_with_a_slide_in_hand_costs_time_alone(
    verb: str, nodes: Nodes, cohort: SyntheticCohort, tmp_path: Path
) -> None:
    """Each node has a slide; none takes the place of the node that dies."""
    words = ["patch", "--slides", str(cohort.slides_csv), "--preset", "bwh_biopsy"]
    out, kinds = "--work", ["patches", "contours", "masks", "stitches"]
    if verb == "heatmap":
        small = make_small_maps(tmp_path, num_slides=4)
        words = ["heatmap", "--work", str(small.work), "--model", str(small.run)]
        out, kinds = "--out", ["scores", "pictures", "regions"]
    words += ["--reader", POISONED_READER, "--address", nodes.cluster.address]
    words += [out, str(tmp_path / "out")]
    status, output = finish(command(*words))
    assert status == 0, output
    undisturbed = [tree_digest(tmp_path / "out" / kind) for kind in kinds]
    assert all(undisturbed)
    shutil.rmtree(tmp_path / "out")  # to the same place once more: patch files tell of it
    nodes.order(hold="everything")
    process = command(*words)
    held: list[int] = []

    def one_can_be_lost() -> bool:
        held[:] = [pid for pid in nodes.faults.held() if nodes.may_be_lost(pid)]
        return bool(held) or process.poll() is not None

    wait_for(one_can_be_lost, "a worker that has a slide, on a node that can be lost", 240)
    nodes.kill_node_of(held[0])
    nodes.order()
    status, output = finish(process)
    assert status == 0, output
    assert "Traceback" not in output
    assert len(nodes.cluster.list_all_nodes()) == 2
    assert [tree_digest(tmp_path / "out" / kind) for kind in kinds] == undisturbed


def test_whatever_is_killed_whenever(
    nodes: Nodes, work: Path, undisturbed: dict[str, str], tmp_path: Path
) -> None:
    """For 8 s; CRANE_SOAK_S has it go on longer, CRANE_SOAK_SEED repeats a round first."""
    ends = time.monotonic() + float(os.environ.get("CRANE_SOAK_S", "8"))
    seed = int(os.environ.get("CRANE_SOAK_SEED") or random.SystemRandom().randrange(10**6))
    rounds = 0
    while not rounds or time.monotonic() < ends:
        nodes.complete()
        one = Round(seed + rounds)
        one.run(nodes, work, tmp_path / str(rounds), undisturbed)
        print(f"round {rounds}, seed {one.seed}: {'; '.join(one.log)}")
        rounds += 1


def _last_manifest(work: Path) -> Path:
    return max((work / "manifests").glob("*extract*.json"))


def _part_of_store(path: str, store: Path) -> str:
    inside = re.match(re.escape(f"{store}/") + "([^/]+)", path)
    return inside.group(1) if inside else "elsewhere"

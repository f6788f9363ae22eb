"""Extraction on a real local Ray: features, reruns, refusals, and what is left when things die."""

import dataclasses
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from crane_ray.errors import RecipeMismatchError, StoreError
from crane_ray.features.store import FeatureStore
from crane_ray.runtime.extraction import run_extraction
from crane_ray.runtime.jobs import ExtractJob, PatchJob, VerifyJob
from crane_ray.runtime.patching import run_patching
from crane_ray.runtime.verification import run_verification
from crane_ray.slides.batches import read_patch
from crane_ray.slides.opening import open_slide
from crane_ray.slides.patch_files import read_patches
from crane_ray.slides.slide import Slide
from crane_ray.slides.workspace import Workspace
from crane_ray.testing.cohorts import SyntheticCohort
from crane_ray.testing.faults import corrupt_tiles
from tests.ray.clusters import is_alive, kill
from tests.ray.helpers import (
    SLOW,
    command,
    finish,
    processes_below,
    receipts,
    tree_digest,
    wait_for,
)

pytestmark = pytest.mark.ray


def job(work: Path, **more: object) -> ExtractJob:
    settings = {
        "work": str(work),
        "encoder.name": SLOW,
        "encoder.weights": "random",
        "encoder.precision": "fp32",
        "encoder.batch_size": 256,
    }
    return ExtractJob.load(overrides=[*settings.items(), *more.items()])


@pytest.fixture(scope="session")
def patched(
    cohort: SyntheticCohort, tmp_path_factory: pytest.TempPathFactory, local_ray: None
) -> Path:
    """Four slides with one to three shards of small, overlapping patches each."""
    work = tmp_path_factory.mktemp("patched")
    settings = {
        "slides.source": str(cohort.slides_csv),
        "work": str(work),
        "tissue.preset": "bwh_biopsy",
        "patch.size_px": 32,
        "patch.step_px": 16,
        "pictures": False,
    }
    assert not run_patching(PatchJob.load(overrides=settings.items())).failures
    return work


@pytest.fixture
def work(patched: Path, tmp_path: Path) -> Path:
    """A patched workspace of the test's own, without features."""
    return Path(shutil.copytree(patched, tmp_path / "work"))


@pytest.fixture(scope="session")
def undisturbed(patched: Path, tmp_path_factory: pytest.TempPathFactory, local_ray: None) -> Path:
    """The store of a run that nothing disturbed."""
    root = tmp_path_factory.mktemp("undisturbed")
    assert not run_extraction(job(patched, store=str(root))).failures
    return root


def index_without_times(root: Path) -> list[object]:
    index = FeatureStore.open(str(root)).index.read()
    rows = [dataclasses.asdict(row) for row in index.values()]
    return [
        {key: row[key] for key in row if key not in {"seconds", "hosts", "committed"}}
        for row in rows
    ]


def test_features_are_those_of_the_patches_in_the_order_of_the_coordinates(
    undisturbed: Path, patched: Path, cohort: SyntheticCohort
) -> None:
    store = FeatureStore.open(str(undisturbed))
    assert store.slide_ids() == [slide.slide_id for slide in cohort.slides]
    assert max(store.num_shards(row.num_patches) for row in store.index.read().values()) > 1
    slide = cohort.slides[0]
    found = store.read(slide.slide_id)
    grid = read_patches(Workspace(str(patched)).patches(slide.slide_id), slide.slide_id)
    assert (found.xy == grid.xy).all()
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    with open_slide(Slide(slide.slide_id, str(slide.path))) as reader:
        for row in (0, len(grid) // 2, len(grid) - 1):
            pixels = read_patch(reader, grid, row).astype(np.float64) / 255
            quadrants = ((pixels - mean) / std).reshape(2, 16, 2, 16, 3).mean(axis=(1, 3))
            expected = quadrants.transpose(2, 0, 1).ravel()
            np.testing.assert_allclose(found.features[row], expected, rtol=1e-4, atol=1e-4)


def test_a_rerun_has_nothing_to_do_and_another_recipe_is_refused(
    work: Path, undisturbed: Path, tmp_path: Path, local_ray: None
) -> None:
    root = Path(shutil.copytree(undisturbed, tmp_path / "store"))
    before = tree_digest(root / "slides")
    again = run_extraction(job(work, store=str(root)))
    assert (again.done, again.skipped, again.patches) == (0, 4, 0)
    assert tree_digest(root / "slides") == before
    with pytest.raises(RecipeMismatchError) as refusal:
        run_extraction(job(work, store=str(root), **{"encoder.input_size": 64}))
    assert "encoder.input_size_px: 32 in the store, 64 asked for" in str(refusal.value)
    assert tree_digest(root / "slides") == before


def test_the_driver_never_loads_torch(work: Path, undisturbed: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(undisturbed, tmp_path / "store"))
    code = (
        "import sys; from crane_ray.cli.main import call; status = call(sys.argv[1:]); "
        "sys.exit(status or int('torch' in sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *_extract(work, root)],
        text=True, capture_output=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_slide_that_cannot_be_decoded_fails_alone_and_succeeds_once_mended(
    work: Path, cohort: SyntheticCohort, undisturbed: Path, tmp_path: Path, local_ray: None
) -> None:
    bad = cohort.slides[1].path
    saved = bad.read_bytes()
    store = tmp_path / "store"
    try:
        corrupt_tiles(bad, tiles=[8])
        first = run_extraction(job(work, store=str(store)))
    finally:
        bad.write_bytes(saved)
    assert first.done == 3
    assert [slide.slide_id for slide in first.failures] == [cohort.slides[1].slide_id]
    assert "cannot be decoded" in first.failures[0].reason
    assert cohort.slides[1].slide_id not in FeatureStore.open(str(store)).slide_ids()
    second = run_extraction(job(work, store=str(store)))
    assert (second.done, second.skipped, second.failures) == (1, 3, [])
    assert tree_digest(store / "slides") == tree_digest(undisturbed / "slides")
    assert index_without_times(store) == index_without_times(undisturbed)


def test_a_full_disk_ends_the_run_with_a_message(work: Path, tmp_path: Path) -> None:
    root = tmp_path / "store"
    process = command(*_extract(work, root), "--set", "layout=crane_test_plugins.full_disk")
    status, output = finish(process, timeout_s=120)
    assert status == 2, output
    assert "disk is full; free space and run the same command again" in output
    assert "Traceback" not in output
    assert FeatureStore.open(str(root)).slide_ids() == []
    ended = max((work / "manifests").glob("*extract*.json"))
    assert '"outcome": "error"' in ended.read_text()


def test_an_unpatched_workspace_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="run crane-ray patch"):
        run_extraction(job(tmp_path))


def test_verify_finds_every_damage_and_repair_makes_it_good(
    work: Path, undisturbed: Path, tmp_path: Path, local_ray: None
) -> None:
    root = Path(shutil.copytree(undisturbed, tmp_path / "store"))
    whole = run_verification(VerifyJob(store=str(root)))
    assert (whole.done, whole.failures) == (4, [])
    chunks = sorted((root / "slides").glob("*/features/c/*/0"))
    flipped, lost = chunks[0], chunks[-1]
    data = bytearray(flipped.read_bytes())
    data[10] ^= 1
    flipped.write_bytes(data)
    lost.unlink()
    found = run_verification(VerifyJob(store=str(root), repair=True))
    hurt = {
        path.relative_to(root / "slides").parts[0].removesuffix(".zarr") for path in (flipped, lost)
    }
    assert {slide.slide_id for slide in found.failures} == hurt
    assert set(FeatureStore.open(str(root)).slide_ids()).isdisjoint(hurt)
    run_extraction(job(work, store=str(root)))
    assert tree_digest(root / "slides") == tree_digest(undisturbed / "slides")
    assert not run_verification(VerifyJob(store=str(root))).failures


@pytest.mark.chaos
def test_an_actor_killed_in_mid_run_is_replaced_and_nothing_is_lost(
    work: Path, undisturbed: Path, tmp_path: Path
) -> None:
    root = tmp_path / "store"
    process = command(*_extract(work, root), SLOW_COLOUR_S="0.4")
    wait_for(lambda: bool(receipts(str(root))), "the first receipt")
    victim = int(receipts(str(root))[0].host.rsplit(":", 1)[1])
    os.kill(victim, signal.SIGKILL)
    status, output = finish(process)
    assert status == 0, output
    hosts = {receipt.host.rsplit(":", 1)[1] for receipt in receipts(str(root))}
    assert str(victim) in hosts
    assert len(hosts) > 1
    assert tree_digest(root / "slides") == tree_digest(undisturbed / "slides")
    assert index_without_times(root) == index_without_times(undisturbed)


@pytest.mark.chaos
@pytest.mark.parametrize("dies", ["driver", "cluster"])
def test_a_driver_killed_in_mid_run_loses_nothing_and_repeats_nothing(
    dies: str, work: Path, undisturbed: Path, tmp_path: Path
) -> None:
    """Alone, or with its whole cluster, as a machine without power; the next has a new one."""
    root = tmp_path / "store"
    process = command(*_extract(work, root), SLOW_COLOUR_S="0.4")
    wait_for(lambda: len(receipts(str(root))) >= 2, "two receipts")
    everything = [pid for pid, _ in processes_below(process.pid)]
    assert len(everything) > 3
    if dies == "cluster":
        for number in (signal.SIGSTOP, signal.SIGKILL):  # so that none notices how others die
            for pid in everything:
                kill(pid, number)
    process.kill()
    finish(process)
    before = {(r.slide_id, r.shard): r.run_id for r in receipts(str(root))}
    status, output = finish(command(*_extract(work, root)))
    assert status == 0, output
    after = {(r.slide_id, r.shard): r.run_id for r in receipts(str(root))}
    assert len(before) < len(after)
    assert {key: after[key] for key in before} == before
    assert tree_digest(root / "slides") == tree_digest(undisturbed / "slides")
    assert index_without_times(root) == index_without_times(undisturbed)


def test_interrupt_stops_cleanly_and_what_is_committed_stays(
    work: Path, undisturbed: Path, tmp_path: Path
) -> None:
    root = tmp_path / "store"
    process = command(*_extract(work, root), SLOW_COLOUR_S="0.4")
    wait_for(lambda: len(receipts(str(root))) >= 2, "two receipts")
    process.send_signal(signal.SIGINT)
    status, output = finish(process)
    assert status == 130, output
    assert "stopped; what is committed stays" in output
    assert "Traceback" not in output
    stopped = max((work / "manifests").glob("*extract*.json"))
    assert '"outcome": "stopped"' in stopped.read_text()
    status, output = finish(command(*_extract(work, root)))
    assert status == 0, output
    assert tree_digest(root / "slides") == tree_digest(undisturbed / "slides")


def test_a_scheduler_stops_all_processes_and_what_is_committed_stays(
    work: Path, undisturbed: Path, tmp_path: Path
) -> None:
    """Slurm sends SIGTERM to every process of a job, those of its Ray as well."""
    root = tmp_path / "store"
    process = command(*_extract(work, root), SLOW_COLOUR_S="0.4")
    wait_for(lambda: len(receipts(str(root))) >= 2, "two receipts")
    everything = [pid for pid, _ in processes_below(process.pid)]
    assert len(everything) > 3
    for pid in everything:
        kill(pid, signal.SIGTERM)
    status, output = finish(process)
    assert status == 143, output
    assert "stopped; what is committed stays" in output
    stopped = max((work / "manifests").glob("*extract*.json"))
    assert '"outcome": "stopped"' in stopped.read_text()
    wait_for(lambda: not any(map(is_alive, everything)), "the end of its Ray")
    status, output = finish(command(*_extract(work, root)))
    assert status == 0, output
    assert tree_digest(root / "slides") == tree_digest(undisturbed / "slides")


def _extract(work: Path, root: Path) -> list[str]:
    return [
        "extract", "--work", str(work), "--store", str(root), "--encoder", SLOW,
        "--weights", "random", "--precision", "fp32", "--batch-size", "256", "--cpus", "2",
    ]  # fmt: skip

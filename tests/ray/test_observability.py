"""Runs as those see them who watch many: metrics on the nodes' pages, logs in JSON."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import ray

from crane_ray.manifest import RunManifest
from crane_ray.runtime.folds import FoldKey, FoldOutcome
from crane_ray.runtime.measured_studies import measured_search, measured_training
from crane_ray.runtime.metrics import METRICS
from crane_ray.search.leaderboard import Trial
from crane_ray.testing.cohorts import SyntheticCohort
from tests.ray.helpers import SLOW, command, finish, wait_for
from tests.ray.metrics_page import Sample, read_metrics, total

pytestmark = pytest.mark.ray
BROKEN = "broken"
P = "ray_crane_ray_"


@dataclass(frozen=True)
class Watched:
    """A run, and what was seen of it."""

    status: int
    records: list[dict[str, Any]]
    """Of the driver."""
    manifest: RunManifest
    names: set[str]
    """Of the metrics that were exported while it ran."""
    before: list[Sample]
    after: list[Sample]

    def grown(self, name: str, **labels: str) -> float:
        """By how much a counter grew."""
        name = f"{P}{name}_total"
        return total(self.after, name, **labels) - total(self.before, name, **labels)

    def event(self, name: str) -> list[dict[str, Any]]:
        """The driver's records of an event."""
        return [one for one in self.records if one.get("event") == name]


def watch(work: Path, verb: str, *words: str) -> Watched:
    """A verb in JSON on this session's Ray, its metrics read until it ends."""
    address = ray.get_runtime_context().gcs_address
    before, names = read_metrics(), set[str]()
    fixed = ["--work", str(work), "--address", address, "--log-format", "json"]
    process = command(verb, *fixed, *words)

    def over() -> bool:
        names.update(one.name for one in read_metrics())
        return process.poll() is not None

    wait_for(over, verb, timeout_s=240)
    status, output = finish(process)
    records = [json.loads(line) for line in output.splitlines()]
    path = max((work / "manifests").glob(f"*-{verb}-*.json"))
    manifest = RunManifest.model_validate_json(path.read_text())
    return Watched(status, records, manifest, names, before, read_metrics())


def worker_records(run_id: str) -> list[dict[str, Any]]:
    """What workers logged of a run, in Ray's session logs of this node."""
    node = ray._private.worker.global_worker.node
    lines = (
        line
        for path in Path(node.get_logs_dir_path()).glob("worker-*.err")
        for line in path.read_text().splitlines()
        if run_id in line
    )
    return [json.loads(line) for line in lines]


@pytest.fixture(scope="module")
def slides(cohort: SyntheticCohort, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two slides, and a file that is none."""
    folder = tmp_path_factory.mktemp("watched") / "slides"
    folder.mkdir()
    for slide in cohort.slides[:2]:
        shutil.copy(slide.path, folder)
    (folder / f"{BROKEN}.svs").write_bytes(b"no slide at all")
    return folder


@pytest.fixture(scope="module")
def work(slides: Path) -> Path:
    return slides.parent / "work"


@pytest.fixture(scope="module")
def patched(work: Path, slides: Path, local_ray: None) -> Watched:
    options = ["--preset", "bwh_biopsy", "--patch-size", "32", "--stage"]
    cache = ["--cache-folder", str(work.parent / "cache"), "--cache-gb", "1"]
    return watch(work, "patch", "--slides", str(slides), *options, *cache)


@pytest.fixture(scope="module")
def extracted(work: Path, patched: Watched) -> Watched:
    encoder = ["--encoder", SLOW, "--weights", "random", "--precision", "fp32"]
    return watch(work, "extract", *encoder, "--batch-size", "64")


def test_every_line_is_json_and_one_names_the_broken_slide_with_its_reason(
    patched: Watched,
) -> None:
    assert patched.status == 1
    (failure,) = patched.event("failure")
    assert failure["slide_id"] == BROKEN
    assert failure["level"] == "error"
    assert "not a slide that can be read" in failure["reason"]
    assert failure["run_id"] == patched.manifest.run_id
    assert [one["slides"] for one in patched.event("stage_end")] == [3]
    (end,) = patched.event("end")
    assert (end["done"], end["failed"], end["run_id"]) == (2, 1, patched.manifest.run_id)
    assert not patched.event("text"), "nothing was meant for people alone"


def test_workers_logs_say_which_slide_run_and_node_they_are_about(
    patched: Watched, extracted: Watched
) -> None:
    records = worker_records(patched.manifest.run_id)
    by_slide = {one["slide_id"]: one for one in records if "status" in one}
    assert by_slide[BROKEN]["level"] == "warning"
    assert "not a slide" in by_slide[BROKEN]["reason"]
    assert {one["status"] for name, one in by_slide.items() if name != BROKEN} == {"ok"}
    (node,) = ray.nodes()
    for record in records:
        assert record["verb"] == "patch"
        assert record["node_id"] == node["NodeID"]
        assert record["job_id"]
    shards = [one for one in worker_records(extracted.manifest.run_id) if "shard" in one]
    assert {one["slide_id"] for one in shards} == by_slide.keys() - {BROKEN}
    assert sum(one["patches"] for one in shards) == extracted.manifest.counts["patches"]


def test_counters_are_the_manifests_numbers(patched: Watched, extracted: Watched) -> None:
    assert patched.grown("slides", verb="patch", status="failed") == 1
    assert patched.grown("slides", verb="patch", status="done") == 2
    assert patched.grown("staged_slides") == patched.grown("cache_leases") == 3
    num_patches = extracted.manifest.counts["patches"]
    assert num_patches > 0
    assert extracted.grown("patches", encoder=SLOW) == num_patches
    assert extracted.grown("run_patches", verb="extract") == num_patches
    assert extracted.grown("shards", encoder=SLOW, status="ok") == 2
    assert extracted.grown("shards", status="error") == 0
    seconds = extracted.manifest.facts["seconds of the encoders"]
    for state, value in seconds.items():
        grown = extracted.grown("encoder_seconds", state=state.removesuffix("_s"))
        assert grown == pytest.approx(value, abs=0.002)
    assert extracted.grown("encoder_seconds", state="encode") > 0


def test_every_metric_is_exported_under_its_name(patched: Watched, extracted: Watched) -> None:
    names = patched.names | extracted.names
    missing = {metric.exported for metric in METRICS.values()} - names
    of_training = {f"{P}{name}" for name in ("folds_left", "loss", "trials_left")} | {
        f"{P}{name}_total" for name in ("folds", "epochs", "epoch_seconds", "trials")
    }
    assert missing <= of_training
    _train_and_search(lambda: missing <= {one.name for one in read_metrics()})
    samples = read_metrics()
    assert total(samples, f"{P}epochs_total", run="watched_s1") == 1
    assert total(samples, f"{P}folds_total", status="failed") >= 1


def _train_and_search(seen: Callable[[], bool]) -> None:
    """A training's and a search's course, as their drivers hear of it."""
    training, search = measured_training("watched_s1", None), measured_search(None)
    training.begin([FoldKey(1, 0), FoldKey(1, 1)], 2)
    epoch = {"seed": 1, "fold": 0, "epoch": 0, "train_loss": 0.5, "val_loss": 0.25, "seconds": 0.1}
    training.epoch(epoch)
    training.finished(FoldOutcome(1, 1, "", failure="lost"))
    search.begin("search", 2, "loss")
    search.trial(Trial("a", 0, {}, "done", 0.5, {}, epochs=1, seconds=1.0))
    try:
        wait_for(seen, "the metrics of a training and of a search")
    finally:
        training.end()
        search.end()

"""Verbs of a row a slide, whose drivers are killed and stopped: in the end nothing differs."""

import json
import shutil
import signal
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import ray

from crane_ray.cli.main import call
from crane_ray.maps.folder import MapRow, MapsFolder
from crane_ray.runtime.exchange import run_export
from crane_ray.runtime.exchange_jobs import ExportJob
from crane_ray.slides.workspace import SlideRow, Workspace
from crane_ray.testing.cohorts import SyntheticCohort
from tests.ray.faults import FAULTY_DISK, POISONED_READER, Faults
from tests.ray.helpers import command, finish, receipts, tree_digest, wait_for
from tests.unit.features.test_clam_files import make_slide, put_slide
from tests.unit.maps.small_maps import make_small_maps

pytestmark = [pytest.mark.ray, pytest.mark.chaos, pytest.mark.usefixtures("local_ray")]

NUM_SLIDES, SHARDS = 4, 3
Rows = dict[str, dict[str, Any]]
RECORDS = ("manifests/", "slides.parquet", "index.parquet", "ledger/", "config", "patch.yaml")
"""What tells of a run and when it was, beside its results."""


@dataclass(frozen=True)
class Verb:
    """A command over some slides, of which one is held while the others are done."""

    words: list[str]
    """Without the folder of its results."""
    out: str
    """The option of that folder."""
    held: str
    """In a path or name that belongs to just one of the slides."""
    rows: Callable[[Path], Rows]
    """What is recorded of slides in a folder, without times."""
    num_kept: Callable[[Path], int]
    """Slides that a run whose driver is killed would not do again."""


def of_patch(root: Path, cohort: SyntheticCohort) -> Verb:
    words = ["patch", "--slides", str(cohort.slides_csv), "--preset", "bwh_biopsy"]

    def rows(folder: Path) -> Rows:
        return without_times(Workspace(str(folder)).read_slides())

    words += ["--reader", POISONED_READER]
    return Verb(words, "--work", cohort.slides[1].slide_id, rows, lambda folder: len(rows(folder)))


def of_heatmap(root: Path, cohort: SyntheticCohort) -> Verb:
    small = make_small_maps(root, num_slides=4)
    words = ["heatmap", "--work", str(small.work), "--model", str(small.run)]

    def rows(folder: Path) -> Rows:
        return without_times(MapsFolder(str(folder)).read_index())

    words += ["--reader", POISONED_READER]
    return Verb(words, "--out", "b", rows, lambda folder: len(rows(folder)))


def without_times(rows: Mapping[str, SlideRow | MapRow]) -> Rows:
    return {name: asdict(row) | {"seconds": 0} for name, row in rows.items()}


def small_store(root: Path, layout: str = "zarr") -> Path:
    store, _ = make_slide(root, layout)
    for number in range(3):
        rng = np.random.default_rng(number)
        features = rng.normal(size=(5 + 7 * number, 12)).astype(np.float16)
        xy = rng.integers(0, 9999, (len(features), 2)).astype(np.int32)
        put_slide(store, f"slide {number}", features, xy)
    return root


def of_export(root: Path, cohort: SyntheticCohort) -> Verb:
    words = ["export", "clam", "--store", str(small_store(root / "store", FAULTY_DISK))]

    def num_kept(folder: Path) -> int:
        return len(list(folder.glob("pt_files/*.pt")))

    return Verb(words, "--to", "slide 0.pt", lambda folder: {}, num_kept)


def of_import(root: Path, cohort: SyntheticCohort) -> Verb:
    made, clam = small_store(root / "store"), root / "clam"
    run_export(ExportJob(store=str(made), to=str(clam)))
    words = ["import", "features", "--from", str(clam), "--encoder", "quadrants"]

    def rows(folder: Path) -> Rows:
        table = pd.read_parquet(folder / "index.parquet")
        kept = table.drop(columns=["seconds", "hosts", "committed"]).set_index("slide_id")
        records = kept.astype(str).T.to_dict()
        return {str(name): {**record} for name, record in records.items()}

    words += ["--layout", FAULTY_DISK]
    return Verb(words, "--store", "slide 0", rows, lambda folder: len(receipts(str(folder))))


VERBS = {"patch": of_patch, "heatmap": of_heatmap, "export": of_export, "import": of_import}


@pytest.mark.parametrize("name", VERBS)
def test_a_run_that_is_killed_and_then_stopped_ends_like_one_that_nothing_disturbed(
    name: str, faults: Faults, cohort: SyntheticCohort, tmp_path: Path
) -> None:
    """At once and on the same cluster, where tasks of the run before may still be."""
    verb, out = VERBS[name](tmp_path, cohort), tmp_path / "out"
    assert call([*verb.words, verb.out, str(out)]) == 0
    undisturbed = results(out), verb.rows(out)
    assert len(undisturbed[0]) >= NUM_SLIDES
    shutil.rmtree(out)  # to the same place once more: patch files tell of it
    faults.order(hold=verb.held)
    process = start(verb, out, faults)
    process.kill()
    finish(process)
    kept = verb.num_kept(out)
    process = start(verb, out, faults)
    process.send_signal(signal.SIGINT)
    status, output = finish(process)
    assert status == 130, output
    assert "Traceback" not in output
    assert [manifest["outcome"] for manifest in manifests(out)] == ["running", "stopped"]
    assert 1 <= kept <= verb.num_kept(out) < NUM_SLIDES * SHARDS
    faults.order()
    assert call([*verb.words, verb.out, str(out)]) == 0
    counts = manifests(out)[-1]["counts"]
    assert counts["skipped"] >= 1
    assert counts["done"] + counts["skipped"] == NUM_SLIDES
    assert (results(out), verb.rows(out)) == undisturbed


def start(verb: Verb, out: Path, faults: Faults) -> "subprocess.Popen[str]":
    """A run that has done something, and of which one slide is held."""
    address = ray.get_runtime_context().gcs_address
    held = len(faults.held())
    process = command(*verb.words, verb.out, str(out), "--address", address)

    def waits() -> bool:
        half = len(faults.held()) > held and verb.num_kept(out) > 0
        return half or process.poll() is not None

    wait_for(waits, "a slide that is held", timeout_s=240)
    return process


def manifests(folder: Path) -> list[dict[str, Any]]:
    """Those of the runs on a folder, the first one first."""
    found = [json.loads(path.read_text()) for path in (folder / "manifests").glob("*.json")]
    return sorted(found, key=lambda manifest: str(manifest["started"]))


def results(folder: Path) -> dict[str, str]:
    """Digests of what a run is for."""
    digests = tree_digest(folder)
    return {name: one for name, one in digests.items() if not name.startswith(RECORDS)}

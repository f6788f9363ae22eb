"""Jobs through the Ray Jobs API, on a real head that the test starts and ends by its id."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from crane_ray.features.store import FeatureStore
from crane_ray.slides.workspace import Workspace
from crane_ray.testing.cohorts import SyntheticCohort
from tests.ray.clusters import (
    NUM_SHARDS,
    PACED,
    is_alive,
    patched_workspace,
    pid_of,
    wait_for_receipts,
)
from tests.ray.faults import VARIABLE, Faults
from tests.ray.helpers import (
    PLUGINS,
    ROOT,
    SLOW,
    command,
    finish,
    free_ports,
    receipts,
    wait_for,
)
from tests.unit.runtime.small_study import make_study

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def dashboard(isolated_home: Path) -> Iterator[str]:
    """The dashboard of a head whose PATH does not lead to the environment Ray runs in."""
    port, gcs, agent = free_ports(3)
    with tempfile.TemporaryDirectory(prefix="r", dir="/tmp") as temporary:
        head = subprocess.Popen(
            [
                sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block",
                "--port", str(gcs), "--dashboard-port", str(port), "--num-cpus", "2",
                "--dashboard-agent-listen-port", str(agent),
                "--object-store-memory", "100000000", "--temp-dir", temporary,
            ],
            env={**os.environ, "PATH": "/usr/bin:/bin", "PYTHONPATH": str(PLUGINS)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip
        address = f"http://127.0.0.1:{port}"
        try:
            wait_for(lambda: _answers(address) or head.poll() is not None, "the head")
            assert head.poll() is None
            yield address
        finally:
            os.killpg(head.pid, signal.SIGINT)
            try:
                head.wait(timeout=10)
            except subprocess.TimeoutExpired:
                os.killpg(head.pid, signal.SIGKILL)
                head.wait(timeout=60)


def _answers(address: str) -> bool:
    try:
        return requests.get(f"{address}/api/version", timeout=2).status_code in {200, 401, 403}
    except requests.ConnectionError:
        return False


def test_patch_and_extract_as_submitted_jobs(
    dashboard: str, cohort: SyntheticCohort, tmp_path: Path
) -> None:
    work = tmp_path / "work"
    words = ["--work", str(work), "--address", dashboard]
    slides = ["--slides", str(cohort.slides_csv), "--preset", "bwh_biopsy", "--no-pictures"]
    status, output = finish(command("submit", "patch", *slides, *words))
    assert status == 0, output
    assert "slides done" in output
    assert len(Workspace(str(work)).read_slides()) == 4
    encoder = ["--encoder", SLOW, "--weights", "random", "--precision", "fp32"]
    status, output = finish(command("submit", "extract", *encoder, *words))
    assert status == 0, output
    assert len(FeatureStore.open(str(work / "features" / "slow_colour")).slide_ids()) == 4
    entry = [
        sys.executable, "-m", "ray.scripts.scripts", "job", "submit", "--address", dashboard,
        "--working-dir", str(ROOT / "jobs"), "--",
        sys.executable, "extract.py", "--work", str(work), *encoder,
    ]  # fmt: skip
    done = subprocess.run(entry, text=True, capture_output=True, timeout=240, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "done before (skipped)" in done.stdout


@pytest.mark.chaos
def test_a_job_that_is_stopped_ends_with_its_workers_and_the_same_submit_goes_on(
    dashboard: str, tmp_path: Path
) -> None:
    work, faults = patched_workspace(tmp_path / "work"), Faults(tmp_path / "faults")
    faults.folder.mkdir()
    faults.order(batches_before_a_halt="11")
    environment = tmp_path / "environment.yaml"
    environment.write_text(f"env_vars: {{{VARIABLE}: {faults.folder}}}\n")
    words = [
        "submit", "extract", "--work", str(work), "--store", str(tmp_path / "store"), "--encoder",
        PACED, "--weights", "random", "--precision", "fp32", "--batch-size", "256",
        "--runtime-env", str(environment), "--address", dashboard,
    ]  # fmt: skip
    follower = command(*words, "--job-id", "to-be-stopped")
    found = wait_for_receipts(follower, tmp_path / "store", 1)
    status, output = finish(command("jobs", "stop", "to-be-stopped", "--address", dashboard))
    assert status == 0, output
    assert "the same submit goes on" in output
    status, output = finish(follower)
    assert status == 130, output
    assert "stopped; what is committed stays" in output  # its own last words: it was not killed
    assert "job to-be-stopped: stopped" in output
    (manifest,) = (work / "manifests").glob("*extract*.json")
    assert json.loads(manifest.read_text())["outcome"] == "stopped"
    workers = {pid_of(receipt) for receipt in found}
    wait_for(lambda: not any(map(is_alive, workers)), "the end of its workers")
    before = {(one.slide_id, one.shard): one.written for one in receipts(str(tmp_path / "store"))}
    assert 1 <= len(before) < NUM_SHARDS
    faults.order()
    status, output = finish(command(*words))
    assert status == 0, output
    after = {(one.slide_id, one.shard): one.written for one in receipts(str(tmp_path / "store"))}
    assert len(after) == NUM_SHARDS
    assert {key: after[key] for key in before} == before


def test_a_search_as_a_submitted_job(dashboard: str, tmp_path: Path) -> None:
    study, space = make_study(tmp_path / "study"), tmp_path / "space.yaml"
    space.write_text("dropout: {choice: [0.0]}\n")
    words = study.words(tmp_path, "--space", str(space), "--searcher", "grid", verb="tune")
    status, output = finish(command("submit", *words, "--address", dashboard))
    assert status == 0, output
    assert "trial 0: done after 4 epochs" in output
    assert (tmp_path / "own_search" / "best.yaml").exists()


def test_the_exit_status_and_the_reason_of_a_failing_job_come_back(
    dashboard: str, tmp_path: Path
) -> None:
    status, output = finish(
        command("submit", "extract", "--work", str(tmp_path), "--address", dashboard)
    )
    assert status == 2, output
    assert "run crane-ray patch" in output


def test_a_path_that_is_not_there_ends_a_job_before_its_verb_begins(
    dashboard: str, tmp_path: Path
) -> None:
    words = ["--work", str(tmp_path), "--weights", "/nowhere/uni.bin", "--job-id", "early"]
    status, output = finish(command("submit", "extract", *words, "--address", dashboard))
    assert status == 2, output
    assert "encoder.weights /nowhere/uni.bin: is neither on the cluster nor" in output
    status, output = finish(command("jobs", "list", "--address", dashboard))
    assert status == 0, output
    (row,) = (line for line in output.splitlines() if " early " in line)
    assert [cell.strip() for cell in row.split("\u2502")[2:4]] == ["extract", "failed"]
    status, output = finish(command("jobs", "logs", "erly", "--address", dashboard))
    assert status == 2
    assert "did you mean early?" in output


def test_where_no_dashboard_answers_the_message_says_so(tmp_path: Path) -> None:
    words = ["submit", "extract", "--work", str(tmp_path), "--address"]
    status, output = finish(command(*words, "http://127.0.0.1:9"))
    assert status == 2
    assert "no Ray dashboard answers there" in output
    status, output = finish(command(*words, "127.0.0.1:6379"))
    assert status == 2
    assert "http://HEAD:8265" in output

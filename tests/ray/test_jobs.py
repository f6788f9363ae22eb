"""Jobs through the Ray Jobs API, on a real head that the test starts and ends by its id."""

import subprocess
import sys
from pathlib import Path

import pytest

from crane_ray.features.store import FeatureStore
from crane_ray.slides.workspace import Workspace
from crane_ray.testing.cohorts import SyntheticCohort
from tests.ray.helpers import ROOT, SLOW, command, finish
from tests.unit.runtime.small_study import make_study

pytestmark = pytest.mark.ray


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

"""Jobs through the Ray Jobs API, on a real cluster whose nodes the tests start and end by id."""

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from crane_ray.cli.submission import JOBS
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
from tests.ray.heads import submit
from tests.ray.helpers import LONG, ROOT, SLOW, command, finish, receipts, wait_for
from tests.unit.runtime.small_study import QUICK, make_study

pytestmark = pytest.mark.ray


@dataclass
class Elsewhere:
    """A directory that jobs are submitted from, with the task of a small study in it."""

    folder: Path
    shared: Path
    """What the cluster sees, too."""
    cohort: SyntheticCohort
    address: str

    def submit_all(self, jobs: Mapping[str, Sequence[str]]) -> dict[str, str]:
        """What jobs say, by their names; they run side by side, and each ends well.

        A name is that of its verb; words of the command follow it.
        """
        shared = {name: [word.format(**self.places()) for word in jobs[name]] for name in jobs}
        running = {
            name: submit(self.folder, self.address, *name.split(), *words)
            for name, words in shared.items()
        }
        ended = {name: finish(process) for name, process in running.items()}
        assert {name: status for name, (status, _) in ended.items()} == dict.fromkeys(jobs, 0), (
            "\n".join(output for status, output in ended.values() if status)
        )
        return {name: output for name, (_, output) in ended.items()}

    def places(self) -> dict[str, str]:
        """What words of a command may name."""
        return {
            "s": str(self.shared),
            "slides": str(self.cohort.slides_csv),
            "labels": str(self.cohort.labels_csv),
            "store": str(self.shared / "work" / "features" / "slow_colour"),
            "run": f"{self.shared}/results/cardiac-mtl_s1",
        }


@pytest.fixture
def elsewhere(dashboard: str, cohort: SyntheticCohort, tmp_path: Path) -> Elsewhere:
    made = Elsewhere(tmp_path / "home", tmp_path / "shared", cohort, dashboard)
    made.folder.mkdir()
    study = make_study(made.shared / "study")
    study.task.rename(made.folder / "own.yaml")
    (made.folder / "space.yaml").write_text("dropout: {choice: [0.0]}\n")
    first, second, val, test = (slide.slide_id for slide in cohort.slides)
    (made.shared / "splits").mkdir()
    text = f",train,val,test\n0,{first},{val},{test}\n1,{second},,\n"
    (made.shared / "splits" / "splits_0.csv").write_text(text)
    return made


SETTINGS = [f"--set={key}={value}" for key, value in QUICK.items()]
BAGS = ["--labels", "{labels}", "--features", "{store}", "--pack-folder", "{s}/packs"]
STUDY = ["--task", "own.yaml", "--labels", "{s}/study/labels.csv"]
STEPS: tuple[dict[str, list[str]], ...] = (
    {
        "patch": ["--slides", "{slides}", "--work", "{s}/work", "--preset", "bwh_biopsy",
                  "--patch-size", "64"],
        "splits": [*STUDY, "-k", "2", "--val-frac", "0.3", "--out", "{s}/drawn"],
        "doctor": ["--work", "{s}", "--no-measure"],
    },
    {
        "extract": ["--work", "{s}/work", "--encoder", SLOW, "--weights", "random",
                    "--precision", "fp32"],
        "tune": [*STUDY, "--features", "{s}/study/features", "--pack-folder", "{s}/packs",
                 "--splits", "{s}/drawn", "--results", "{s}/tuned", "--space", "space.yaml",
                 "--searcher", "grid", *SETTINGS],
        "plan": ["--work", "{s}/work", "--patches-a-second", "9", "--cpus", "3"],
    },
    {
        "train": ["--task", "cardiac-mtl", *BAGS, "--splits", "{s}/splits", "--results",
                  "{s}/results", *SETTINGS],
        "verify": ["--store", "{store}"],
        "export clam": ["--store", "{store}", "--to", "{s}/clam"],
        "import coords": ["--from", "{s}/work", "--slides", "{slides}", "--work", "{s}/again"],
    },
    {
        "evaluate": ["--model", "{run}", *BAGS, "--results", "{s}/eval"],
        "assess": ["--model", "{run}", "--cases", "{labels}", *BAGS[2:], "--out", "{s}/assessed"],
        "heatmap": ["--model", "{run}", "--work", "{s}/work"],
        "import features": ["--from", "{s}/clam", "--store", "{s}/taken", "--encoder", "own",
                            "--patch-size", "64", "--mpp", "0.5"],
        "report": ["--run", "{run}", "--out", "{s}/page.html"],
    },
)  # fmt: skip
"""Every verb, as soon as what it needs is there."""
LEFT = (
    "work/slides.parquet", "drawn/splits_1.csv", "work/features/slow_colour/index.parquet",
    "tuned/own_search/best.yaml", "results/cardiac-mtl_s1/report.html",
    "clam/pt_files/slide_0000.pt", "again/slides.parquet", "eval/*/report.html",
    "assessed/assessment.parquet", "work/heatmaps/cardiac-mtl_s1/scores", "taken/index.parquet",
    "page.html",
)  # fmt: skip


def test_slides_are_patched_and_extracted_by_jobs_from_elsewhere(elsewhere: Elsewhere) -> None:
    first, second, *_ = STEPS
    elsewhere.submit_all({"patch": first["patch"]})
    said = elsewhere.submit_all({"extract": second["extract"]})
    assert "slides done" in said["extract"]
    assert not [name for name in LEFT[:3:2] if not list(elsewhere.shared.glob(name))]
    entry = [
        sys.executable, "-m", "ray.scripts.scripts", "job", "submit", "--address",
        elsewhere.address, "--working-dir", str(ROOT / "jobs"), "--", sys.executable, "extract.py",
        "--work", str(elsewhere.shared / "work"), "--encoder", SLOW, "--weights", "random",
        "--precision", "fp32",
    ]  # fmt: skip
    done = subprocess.run(entry, text=True, capture_output=True, timeout=240, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "done before (skipped)" in done.stdout


@LONG
def test_all_verbs_are_submitted_from_elsewhere_with_only_the_address(elsewhere: Elsewhere) -> None:
    assert {verb for step in STEPS for verb in step} == set(JOBS) - {"demo"}  # all of them in one
    said: dict[str, str] = {}
    for step in STEPS:
        said |= elsewhere.submit_all(step)
    assert [name for name in LEFT if not list(elsewhere.shared.glob(name))] == []
    assert sorted(path.name for path in elsewhere.folder.iterdir()) == ["own.yaml", "space.yaml"]
    assert "nothing on 3 nodes will break a run" in said["doctor"]
    assert "slides done" in said["extract"]
    assert "trial 0: done after 4 epochs" in said["tune"]
    best = yaml.safe_load((elsewhere.shared / "tuned/own_search/best.yaml").read_text())
    assert Path(best["task"]).is_file(), "it is to be trained with"


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
    assert "http://127.0.0.1:8265" in output

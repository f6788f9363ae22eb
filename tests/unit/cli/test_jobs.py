"""``crane-ray jobs`` as a user sees it, over a Jobs API that is none."""

import json
import time
from pathlib import Path

import pytest
import yaml

from crane_ray.cli import job_check
from crane_ray.cli.main import call
from tests.unit.runtime.fake_jobs import FakeJobs, details

ADDRESS = "http://head:8265"
EXTRACT = {
    "crane_ray_verb": "extract",
    "crane_ray_version": "1",
    "crane_ray_config": "0123456789abcdef",
    "crane_ray_work": "/shared/[cohort]/work",
}


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> FakeJobs:
    """Three jobs: one failed, one runs, one is somebody else's."""
    fake = FakeJobs()
    began = int(time.time() * 1000) - 3_600_000
    end = began + 61_000
    fake.jobs = {
        "second": details("second", "RUNNING", start_time=began + 1000, metadata=EXTRACT),
        "first": details(
            "first", "FAILED", start_time=began, end_time=end, driver_exit_code=2, metadata=EXTRACT
        ),
        "third": details("third", start_time=end, end_time=end + 1000, driver_exit_code=0),
    }
    fake.logs = {"first": ["a line\n", "[bold]\n"]}
    monkeypatch.setattr("crane_ray.runtime.job_client.JobSubmissionClient", fake)
    monkeypatch.setattr("crane_ray.cli.console.console.width", 200)
    return fake


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    """Exit status and output."""
    status = call(["jobs", *words, "--address", ADDRESS])
    return status, capsys.readouterr().out


def test_the_list_has_a_row_a_job_in_order(
    jobs: FakeJobs, capsys: pytest.CaptureFixture[str]
) -> None:
    status, output = run(capsys, "list")
    assert status == 0
    rows = [
        [cell.strip() for cell in line.split("│")[1:-1]]
        for line in output.splitlines()
        if line.startswith("│")
    ]
    assert [row[0] for row in rows] == ["first", "second", "third"]
    first, second, third = rows
    assert first[1:3] == ["extract", "failed"]
    assert first[4:] == ["0:01:01", "2", "0123456789abcdef", "work /shared/[cohort]/work"]
    assert second[2] == "running" and second[4].startswith("0:59") and second[5] == "-"
    assert third[1:3] == ["-", "succeeded"] and third[5] == "0"


def test_a_cluster_without_jobs_says_so(jobs: FakeJobs, capsys: pytest.CaptureFixture[str]) -> None:
    jobs.jobs = {}
    assert run(capsys, "list") == (
        0, f"no jobs on {ADDRESS}; crane-ray submit VERB starts one\n",
    )  # fmt: skip


def test_logs_are_shown_as_they_are(jobs: FakeJobs, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "logs", "first") == (0, "a line\n[bold]\n")
    status, output = run(capsys, "logs", "first", "--follow")
    assert (status, output) == (2, "a line\n[bold]\njob first: failed, exit status 2\n")
    assert "running, its log is empty so far" in run(capsys, "logs", "second")[1]


@pytest.mark.parametrize("verb", ["logs", "stop"])
def test_of_an_unknown_job_the_nearest_is_named(
    verb: str, jobs: FakeJobs, capsys: pytest.CaptureFixture[str]
) -> None:
    status, output = run(capsys, verb, "secnd")
    assert status == 2
    assert "job secnd: no such job" in output and "did you mean second?" in output
    assert jobs.stopped == []


def test_who_stops_following_is_told_that_the_job_goes_on(
    jobs: FakeJobs, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("crane_ray.runtime.submitted.follow_job", interrupt)
    status, output = run(capsys, "logs", "second", "--follow")
    assert (status, jobs.stopped) == (130, [])
    assert output.startswith("no longer following; the job goes on\nfollow it with: crane-ray jobs")
    assert "what is committed stays" not in output, "nothing was stopped"


def test_what_was_stopped_is_said(jobs: FakeJobs, capsys: pytest.CaptureFixture[str]) -> None:
    status, output = run(capsys, "stop", "second")
    assert (status, jobs.stopped) == (0, ["second"])
    assert output == (
        "stopped job second (extract of work /shared/[cohort]/work). What it has committed stays; "
        "the same submit goes on\n"
    )


def test_a_job_that_has_ended_is_not_stopped(
    jobs: FakeJobs, capsys: pytest.CaptureFixture[str]
) -> None:
    status, output = run(capsys, "stop", "first")
    assert (status, jobs.stopped) == (0, [])
    assert "had ended already: failed, exit status 2; nothing was stopped" in output


def test_without_an_address_the_next_step_is_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_API_SERVER_ADDRESS", raising=False)
    assert call(["jobs", "list"]) == 2
    assert "give --address http://HEAD:8265" in capsys.readouterr().out


def test_the_first_step_of_a_job_names_what_is_not_seen(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    lost = {"key": "work", "path": "/gone/w", "seen_as": "/gone", "role": "folder", "here": True}
    Path("paths.json").write_text(json.dumps({"paths": [lost]}))
    Path("config.yaml").write_text("work: /gone/w\n")
    assert job_check.run("paths.json", "config.yaml", ["patch", "--config", "config.yaml"]) == 2
    output = capsys.readouterr().out
    assert "work /gone/w: would be made in /gone" in output
    assert "shared filesystem" in output


def test_the_first_step_of_a_job_puts_copies_in_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    told = {
        "key": "task", "path": "/gone/own.yaml", "seen_as": ".", "role": "travels", "here": True,
        "copy_name": "task-own.yaml",
    }  # fmt: skip
    Path("paths.json").write_text(json.dumps({"paths": [told]}))
    Path("task-own.yaml").write_text("name: own\n")
    monkeypatch.setattr(job_check, "call", lambda words: 0)

    def task_with(results: str) -> str:
        Path("config.yaml").write_text(f"task: /gone/own.yaml\n{results}")
        words = ["splits", "--config", "config.yaml"]
        assert job_check.run("paths.json", "config.yaml", words) == 0
        return str(yaml.safe_load(Path("config.yaml").read_text())["task"])

    assert task_with("") == str(tmp_path / "task-own.yaml")
    kept = Path(task_with(f"results: {tmp_path}/results\n"))
    assert kept.parent == tmp_path / "results", "the job's own folder goes with the job"
    assert kept.read_text() == "name: own\n"


@pytest.mark.parametrize("verb", [["patch"], ["export", "clam"]])
def test_a_job_that_may_begin_runs_its_verb(
    verb: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("paths.json").write_text("{}")
    Path("config.yaml").write_text("work: s3://b/work\nstore: s3://b/store\nto: s3://b/to\n")
    called: list[list[str]] = []

    def call_verb(words: list[str]) -> int:
        called.append(words)
        return 7

    monkeypatch.setattr(job_check, "call", call_verb)
    words = [*verb, "--config", "config.yaml"]
    assert job_check.run("paths.json", "config.yaml", words) == 7
    assert called == [words], "storage that every node reaches is not looked at"

"""What is sent to a cluster, what becomes of lost jobs, and what a cluster that refuses says."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.exceptions import AuthenticationError

from crane_ray.config import Config
from crane_ray.errors import ClusterError, ConfigError
from crane_ray.runtime.jobs import ExtractJob, VerifyJob
from crane_ray.runtime.search_jobs import TuneJob
from crane_ray.runtime.study_jobs import TrainJob
from crane_ray.runtime.submission import SubmissionConfig, submit_job
from tests.unit.runtime.fake_jobs import FakeJobs, details

ADDRESS = "http://head:8265"
NODE_LOST = {"status": "FAILED", "error_type": "JOB_SUPERVISOR_ACTOR_DIED"}
NOT_STARTED = {"status": "FAILED", "error_type": "JOB_SUPERVISOR_ACTOR_START_TIMEOUT"}
BAD_ENVIRONMENT = {"status": "FAILED", "error_type": "RUNTIME_ENV_SETUP_FAILURE"}
FORGOTTEN = {"status": "FORGOTTEN"}
STOPPED = {"status": "STOPPED"}
GOOD = {"status": "SUCCEEDED", "driver_exit_code": 0}


def ended(code: int) -> dict[str, Any]:
    """A job whose command left with a status."""
    error = "JOB_ENTRYPOINT_COMMAND_ERROR"
    return {"status": "FAILED", "driver_exit_code": code, "error_type": error}


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)


def submit(
    monkeypatch: pytest.MonkeyPatch, jobs: FakeJobs, verb: str, job: Config, **how: Any
) -> tuple[int, str]:
    """Exit status and what was said."""
    monkeypatch.setattr("crane_ray.runtime.job_client.JobSubmissionClient", jobs)
    said: list[str] = []
    config = SubmissionConfig(address=ADDRESS, **{"job_id": "mine", **how})
    return submit_job(verb, job, config, said.append), "\n".join(said)


def training(**more: Any) -> TrainJob:
    bags = {"labels": "/shared/labels.csv", "features": "s3://b/features"}
    return TrainJob(task="cardiac-mtl", bags=bags, splits="/shared/splits", **more)


def test_a_cluster_that_asks_for_a_token_is_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(address: str) -> None:
        raise AuthenticationError("Missing authentication token\n\nmany words")

    monkeypatch.setattr("crane_ray.runtime.job_client.JobSubmissionClient", refuse)
    submission = SubmissionConfig(address=ADDRESS)
    with pytest.raises(ClusterError, match=r"head:8265: the cluster asks for a token.*TOKEN"):
        submit_job("verify", VerifyJob(store="/s"), submission, print)


def test_a_job_says_what_it_is_about(monkeypatch: pytest.MonkeyPatch) -> None:
    jobs, job = FakeJobs(GOOD), training()
    status, said = submit(monkeypatch, jobs, "train", job)
    assert status == 0
    assert "job mine: succeeded" in said
    told = jobs.submitted[0]["metadata"]
    assert told["crane_ray_verb"] == "train"
    assert told["crane_ray_config"] == job.fingerprint()
    assert told["crane_ray_labels"] == "/shared/labels.csv"
    assert told["crane_ray_features"] == "s3://b/features"


def test_without_a_name_jobs_are_named_after_their_verb(monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = FakeJobs(GOOD, GOOD)
    for _ in range(2):
        submit(monkeypatch, jobs, "verify", VerifyJob(store="/s"), job_id=None)
    first, second = (job["submission_id"] for job in jobs.submitted)
    assert first.startswith("verify-")
    assert first != second


@pytest.mark.parametrize("lost", [NODE_LOST, FORGOTTEN, ended(-9), ended(137), ended(130)])
def test_a_lost_job_is_submitted_again_and_goes_on(
    lost: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = FakeJobs(lost, lost, GOOD)
    status, said = submit(monkeypatch, jobs, "train", training(overwrite=True), retries=2)
    assert status == 0, said
    assert [job["submission_id"] for job in jobs.submitted] == ["mine", "mine-2", "mine-3"]
    resumed = [job["entrypoint"].endswith("--resume --no-overwrite") for job in jobs.submitted]
    assert resumed == [False, True, True]
    assert len({job["metadata"]["crane_ray_config"] for job in jobs.submitted}) == 1
    assert "submitted again as mine-2 (retry 1 of 2)" in said


def test_what_never_began_is_submitted_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = FakeJobs(NOT_STARTED, GOOD)
    assert submit(monkeypatch, jobs, "train", training(overwrite=True), retries=1)[0] == 0
    first, second = (job["entrypoint"] for job in jobs.submitted)
    assert first == second


def test_verbs_that_go_on_by_themselves_need_no_flag(monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = FakeJobs(NODE_LOST, GOOD)
    submit(monkeypatch, jobs, "extract", ExtractJob(work="s3://b/work"), retries=1)
    assert jobs.submitted[1]["entrypoint"] == "python -m crane_ray extract --config config.yaml"


@pytest.mark.parametrize(
    ("end", "status"), [(ended(1), 1), (ended(2), 2), (ended(127), 127), (BAD_ENVIRONMENT, 1),
                        (STOPPED, 130), (GOOD, 0)],
)  # fmt: skip
def test_what_would_only_be_repeated_is_not(
    end: dict[str, Any], status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = FakeJobs(end)
    assert submit(monkeypatch, jobs, "train", training(), retries=3)[0] == status
    assert len(jobs.submitted) == 1


def test_when_all_retries_are_lost_the_status_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = FakeJobs(NODE_LOST, ended(-9))
    assert submit(monkeypatch, jobs, "train", training(), retries=1)[0] == 137


def test_retries_need_somebody_who_makes_them(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="--retries 2 with --no-follow"):
        submit(monkeypatch, FakeJobs(), "train", training(), retries=2, follow=False)


def test_a_taken_name_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = FakeJobs(GOOD)
    submit(monkeypatch, jobs, "train", training())
    with pytest.raises(ClusterError, match="--job-id mine: a job of that name"):
        submit(monkeypatch, jobs, "train", training())


def test_files_of_task_and_space_go_along(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text("name: own\n")
    job = TuneJob.model_validate(
        training().model_dump() | {"task": str(tmp_path / "own.yaml"), "space": "cardiac-mtl"}
    )
    jobs = FakeJobs(GOOD)
    submit(monkeypatch, jobs, "tune", job)
    assert jobs.files[0]["task-own.yaml"] == "name: own\n"
    assert yaml.safe_load(jobs.files[0]["config.yaml"])["task"] == str(tmp_path / "own.yaml")
    assert jobs.submitted[0]["entrypoint"] == (
        "python -m crane_ray.cli.job_check paths.json config.yaml tune --config config.yaml"
    )


def test_a_stopped_job_has_time_to_record_what_it_did(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Unless the runtime environment says otherwise."""
    jobs, own = FakeJobs(GOOD, GOOD), tmp_path / "env.yaml"
    submit(monkeypatch, jobs, "train", training())
    own.write_text("env_vars: {A: b, RAY_JOB_STOP_WAIT_TIME_S: '5'}\n")
    submit(monkeypatch, jobs, "train", training(), job_id="other", runtime_env=str(own))
    variables = [job["runtime_env"]["env_vars"] for job in jobs.submitted]
    assert variables == [
        {"RAY_JOB_STOP_WAIT_TIME_S": "30"}, {"A": "b", "RAY_JOB_STOP_WAIT_TIME_S": "5"},
    ]  # fmt: skip


def test_a_log_that_is_followed_anew_is_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = FakeJobs({"status": "RUNNING"})
    jobs.logs["mine"] = ["one\n", "two\n"]
    asked = []

    def info(job_id: str) -> Any:
        asked.append(job_id)
        if len(asked) == 1:
            raise ConnectionError("the dashboard starts anew")
        jobs.logs["mine"].append("three\n")
        return details(job_id, "RUNNING" if len(asked) == 2 else "SUCCEEDED")

    monkeypatch.setattr(jobs, "get_job_info", info)
    monkeypatch.setattr(jobs, "tail_job_logs", _tail(jobs))
    _, said = submit(monkeypatch, jobs, "verify", VerifyJob(store="/s"))
    lines = said.splitlines()[1:]
    assert lines[:2] == ["one", "two"]
    assert "does not answer" in lines[2]
    assert lines[3] == "three"


def _tail(jobs: FakeJobs) -> Any:
    async def tail(job_id: str) -> Any:
        for text in jobs.logs[job_id]:
            yield text

    return tail


def test_who_stops_following_is_told_that_the_job_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    jobs = FakeJobs({"status": "RUNNING"})
    monkeypatch.setattr("crane_ray.runtime.submission.follow_job", interrupt)
    status, said = submit(monkeypatch, jobs, "train", training(), retries=1)
    assert (status, jobs.stopped, len(jobs.submitted)) == (130, [], 1)
    assert "the job goes on; nobody submits it again now if it is lost" in said
    assert "crane-ray jobs logs mine --follow --address" in said
    assert "crane-ray jobs stop mine --address" in said

"""A cluster's Jobs API without a cluster: jobs that end as they are told to."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from ray.job_submission import JobDetails, JobStatus, JobType


def details(job_id: str, status: str = "SUCCEEDED", **more: Any) -> JobDetails:
    """A job as the Jobs API tells of it."""
    return JobDetails(
        type=JobType.SUBMISSION,
        submission_id=job_id,
        status=JobStatus(status),
        entrypoint="python -m crane_ray",
        **more,
    )


class FakeJobs:
    """Stands in for ``JobSubmissionClient``; each submitted job ends as the next of ``ends``."""

    def __init__(self, *ends: dict[str, Any]) -> None:
        self.ends = list(ends)
        self.submitted: list[dict[str, Any]] = []
        self.files: list[dict[str, str]] = []
        """What each job's folder held."""
        self.jobs: dict[str, JobDetails] = {}
        self.logs: dict[str, list[str]] = {}
        self.stopped: list[str] = []

    def __call__(self, address: str) -> "FakeJobs":
        return self

    def submit_job(self, **job: Any) -> str:
        job_id = job["submission_id"]
        if job_id in self.jobs:
            raise RuntimeError(f"Job with submission_id {job_id} already exists")
        self.submitted.append(job)
        folder = Path(job["runtime_env"]["working_dir"])
        self.files.append({file.name: file.read_text() for file in folder.iterdir()})
        end = self.ends.pop(0)
        if end.get("status") != "FORGOTTEN":
            self.jobs[job_id] = details(job_id, metadata=job["metadata"], **end)
        return str(job_id)

    def list_jobs(self) -> list[JobDetails]:
        return list(self.jobs.values())

    def get_job_info(self, job_id: str) -> JobDetails:
        if job_id not in self.jobs:
            raise RuntimeError(f"Request failed with status code 404: Job {job_id} does not exist.")
        return self.jobs[job_id]

    def get_job_logs(self, job_id: str) -> str:
        return "".join(self.logs.get(job_id, ()))

    async def tail_job_logs(self, job_id: str) -> AsyncIterator[str]:
        self.get_job_info(job_id)
        for text in self.logs.get(job_id, ()):
            yield text

    def stop_job(self, job_id: str) -> bool:
        self.stopped.append(job_id)
        self.jobs[job_id] = details(job_id, "STOPPED", metadata=self.jobs[job_id].metadata)
        return True

    def _do_request(self, *_: Any) -> Any:
        raise ConnectionError("no nodes are told of")

"""The jobs of a cluster: which there are, their logs, and their end."""

import difflib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ray.job_submission import JobDetails, JobStatus, JobSubmissionClient

from crane_ray.errors import ClusterError
from crane_ray.runtime.following import NOT_STOPPED, follow_job, how_to_go_on
from crane_ray.runtime.job_client import FINAL, STOPPED, answering, connect, exit_status

STOP_WAIT_S = 60.0
"""Ray kills a driver that has not ended some seconds after it was asked to."""
NEED_RESUME = {"train", "tune"}
"""Verbs that do not go on unasked."""
PREFIX, OWN = "crane_ray_", {"verb", "version", "config"}
"""Of our metadata, and what is none of the cohort."""


@dataclass(frozen=True)
class JobRow:
    """A job as a list shows it."""

    job_id: str
    verb: str | None
    """None for jobs that are not ours."""
    status: str
    """pending, running, succeeded, failed or stopped."""
    started: float | None
    """Seconds since the epoch."""
    seconds: float | None
    """How long it ran, until now where it still does."""
    exit_status: int | None
    """None while it runs, and where it had none."""
    config: str | None
    """Fingerprint of the config."""
    cohort: Mapping[str, str]
    """Paths by what they are: work, slides, labels."""

    @property
    def about(self) -> str:
        """Verb and cohort in words."""
        paths = ", ".join(f"{name} {path}" for name, path in self.cohort.items())
        return " of ".join(part for part in (self.verb, paths) if part)


def list_jobs(address: str) -> list[JobRow]:
    """All submitted jobs that the cluster remembers, the latest last.

    Raises:
        ClusterError: no cluster answers there.
    """
    client = connect(address)
    return [_row(job) for job in _jobs(client, address)]


def show_log(address: str, job_id: str, echo: Callable[[str], None], *, follow: bool) -> int:
    """Shows a job's log; followed to its end, the exit status is the job's.

    Raises:
        ClusterError: no cluster answers there, or it knows no such job.
    """
    client = connect(address)
    job = _find(client, address, job_id)
    if follow:
        try:
            ended = follow_job(client, address, job_id, echo)
        except KeyboardInterrupt:  # of this command alone
            echo(f"{NOT_STOPPED}\n{how_to_go_on(job_id, address)}")
            return STOPPED
        echo(f"job {job_id}: {_end(_row(ended))}" if ended else f"job {job_id}: lost")
        return exit_status(ended)
    with answering(address):
        text = client.get_job_logs(job_id).rstrip("\n")
    echo(text or f"job {job_id}: {job.status.value.lower()}, its log is empty so far")
    return 0


def stop_job(address: str, job_id: str, echo: Callable[[str], None]) -> int:
    """Stops a job and says what was stopped; 0 also where it had ended before.

    Raises:
        ClusterError: no cluster answers there, it knows no such job, or the job goes on.
    """
    client = connect(address)
    row = _row(_find(client, address, job_id))
    about = f" ({row.about})" if row.about else ""
    if row.status in {status.value.lower() for status in FINAL}:
        echo(f"job {job_id}{about} had ended already: {_end(row)}; nothing was stopped")
        return 0
    with answering(address):
        client.stop_job(job_id)
        deadline = time.monotonic() + STOP_WAIT_S
        while (job := client.get_job_info(job_id)).status not in FINAL:
            if time.monotonic() > deadline:
                raise ClusterError(
                    f"job {job_id}: asked to stop {STOP_WAIT_S:.0f} s ago and still "
                    f"{job.status.value.lower()}; see crane-ray jobs logs {job_id}"
                )
            time.sleep(0.5)
    if job.status != JobStatus.STOPPED:
        echo(f"job {job_id}{about} ended by itself: {_end(_row(job))}")
        return 0
    how = " with --resume" if row.verb in NEED_RESUME else ""
    what = f". What it has committed stays; the same submit{how} goes on" if row.verb else ""
    echo(f"stopped job {job_id}{about}{what}")
    return 0


def _jobs(client: JobSubmissionClient, address: str) -> list[JobDetails]:
    with answering(address):
        jobs = [job for job in client.list_jobs() if job.submission_id]
    return sorted(jobs, key=lambda job: job.start_time or 0)


def _find(client: JobSubmissionClient, address: str, job_id: str) -> JobDetails:
    jobs = {str(job.submission_id): job for job in _jobs(client, address)}
    if job_id in jobs:
        return jobs[job_id]
    if not jobs:
        raise ClusterError(
            f"job {job_id}: the cluster at {address} has no jobs; a head node that started anew "
            "has forgotten those before"
        )
    near = difflib.get_close_matches(job_id, jobs, n=1, cutoff=0.3)
    hint = f"did you mean {near[0]}? " if near else ""
    raise ClusterError(
        f"job {job_id}: no such job on {address}; {hint}"
        f"crane-ray jobs list --address {address} shows all"
    )


def _row(job: JobDetails) -> JobRow:
    told = {
        key.removeprefix(PREFIX): value
        for key, value in (job.metadata or {}).items()
        if key.startswith(PREFIX)
    }
    ended = job.status in FINAL
    started = job.start_time / 1000 if job.start_time else None
    until = (job.end_time / 1000 if job.end_time else None) if ended else time.time()
    return JobRow(
        job_id=str(job.submission_id),
        verb=told.get("verb"),
        status=job.status.value.lower(),
        started=started,
        seconds=max(until - started, 0) if started and until else None,
        exit_status=_code(job),
        config=told.get("config"),
        cohort={key: value for key, value in told.items() if key not in OWN},
    )


def _code(job: JobDetails) -> int | None:
    if job.status == JobStatus.SUCCEEDED:
        return 0
    return exit_status(job) if job.status in FINAL and job.driver_exit_code else None


def _end(row: JobRow) -> str:
    return row.status + (f", exit status {row.exit_status}" if row.exit_status else "")

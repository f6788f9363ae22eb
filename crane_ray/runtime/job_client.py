"""A cluster's Jobs API, and what is said where it does not answer."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from ray.exceptions import AuthenticationError
from ray.job_submission import JobDetails, JobStatus, JobSubmissionClient

from crane_ray.errors import ClusterError
from crane_ray.runtime.cluster import NO_TOKEN

ANNOUNCING = ("ray", "ray.dashboard.modules.dashboard_sdk", "ray.dashboard.modules.job.sdk")
"""Ray's loggers that tell of each upload and each closed socket."""
FINAL = {JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.STOPPED}
STOPPED = 130
UNKNOWN_JOB = "does not exist"
"""What the Jobs API says of a job that it has never heard of."""


def connect(address: str) -> JobSubmissionClient:
    """The Jobs API behind a dashboard's address.

    Raises:
        ClusterError: it is no such address, nobody answers there, or a token is needed.
    """
    if not address.startswith(("http://", "https://")):
        raise ClusterError(
            f"--address {address}: jobs are known to a cluster's dashboard, "
            f"{_dashboard_of(address)} (in Kubernetes: kubectl port-forward "
            "service/CLUSTER-head-svc 8265)"
        )
    for name in ANNOUNCING:
        logging.getLogger(name).setLevel(logging.ERROR)
    with answering(address):
        return JobSubmissionClient(address)


def _dashboard_of(address: str) -> str:
    """Where the dashboard most likely is of a cluster with such an address of another kind."""
    host = address.rpartition("//")[2].rpartition(":")[0] or address
    return f"http://{'HEAD' if host == 'auto' else host}:8265"


@contextmanager
def answering(address: str) -> Iterator[None]:
    """Turns what the Jobs API raises into an error that names the address.

    Raises:
        ClusterError: instead of the error within.
    """
    try:
        yield
    except AuthenticationError as error:
        raise ClusterError(f"--address {address}: {NO_TOKEN}") from error
    except (OSError, RuntimeError, ValueError) as error:
        if isinstance(error, ClusterError):
            raise
        raise ClusterError(
            f"--address {address}: no Ray dashboard answers there ({first_line(error)}); check "
            "host and port (8265 unless ray start --head was given another --dashboard-port), and "
            "that it listens to other machines (--dashboard-host 0.0.0.0)"
        ) from error


def first_line(error: BaseException) -> str:
    """The first line of an error, or what kind it is."""
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__


def exit_status(job: JobDetails | None) -> int:
    """A job's exit status as a shell has it: its command's, 128 + N after signal N.

    Without one of its own it is 130 for a stopped job, as of a stopped command, and else 1.
    """
    if job is None:
        return 1
    if job.status == JobStatus.SUCCEEDED:
        return 0
    code = int(job.driver_exit_code or (STOPPED if job.status == JobStatus.STOPPED else 1))
    return code if code > 0 else 128 - code

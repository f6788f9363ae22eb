"""The log of a job as it grows, over lost connections and restarts of the dashboard."""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress

import aiohttp
from ray.job_submission import JobDetails, JobSubmissionClient

from crane_ray.errors import ClusterError
from crane_ray.runtime.job_client import FINAL, UNKNOWN_JOB, first_line

SILENCE_S = 300.0
"""A head node that restarts is waited for so long."""


NOT_STOPPED = "no longer following; the job goes on"
"""Said to who ends the command that follows."""


def how_to_go_on(job_id: str, address: str) -> str:
    """The commands that follow and stop a job."""
    return (
        f"follow it with: crane-ray jobs logs {job_id} --follow --address {address}\n"
        f"stop it with:   crane-ray jobs stop {job_id} --address {address}"
    )


def follow_job(
    client: JobSubmissionClient, address: str, job_id: str, echo: Callable[[str], None]
) -> JobDetails | None:
    """Shows a job's log until the job has ended; None where the cluster forgot the job.

    A head node that starts anew knows nothing of the jobs before it.

    Raises:
        ClusterError: the cluster has not answered for `SILENCE_S`.
    """
    log, heard = _Log(echo), time.monotonic()
    warned = False
    while True:
        try:
            with suppress(RuntimeError, OSError, aiohttp.ClientError):
                asyncio.run(log.follow(client, job_id))
            job = client.get_job_info(job_id)
            heard, warned = time.monotonic(), False
            if job.status in FINAL:
                return job
        except (RuntimeError, OSError) as error:
            if UNKNOWN_JOB in str(error):
                return None
            if time.monotonic() - heard > SILENCE_S:
                raise ClusterError(
                    f"--address {address}: the cluster has not answered for {SILENCE_S:.0f} s "
                    f"({first_line(error)}); the job may go on: see crane-ray jobs list "
                    f"--address {address} when it is back"
                ) from error
            if not warned:
                echo(f"{address} does not answer; waiting {SILENCE_S:.0f} s for it")
                warned = True
        time.sleep(1)


class _Log:
    """Echoes what it has not echoed yet: a log that is followed anew begins at its beginning."""

    def __init__(self, echo: Callable[[str], None]) -> None:
        self._echo = echo
        self._seen = 0

    async def follow(self, client: JobSubmissionClient, job_id: str) -> None:
        """Echoes the lines of the log until it is closed."""
        passed = 0
        async for text in client.tail_job_logs(job_id):
            new = text[max(self._seen - passed, 0) :]
            passed += len(text)
            self._seen = max(self._seen, passed)
            if new:
                self._echo(new.rstrip("\n"))

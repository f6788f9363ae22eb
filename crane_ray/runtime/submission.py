"""A job's config through the Ray Jobs API: submit, follow the log, hand back the exit status."""

import asyncio
import logging
import shlex
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from ray.exceptions import AuthenticationError
from ray.job_submission import JobStatus, JobSubmissionClient

from crane_ray.config import Config, read_yaml
from crane_ray.errors import ClusterError, ConfigError
from crane_ray.runtime.cluster import NO_TOKEN
from crane_ray.runtime.jobs import ClusterConfig
from crane_ray.version import __version__

NODE_REPORT_TRIES = 5
"""The dashboard learns of its nodes some seconds after a cluster starts."""
AGENT_WAIT_S, NO_AGENT = 60, "No available agent"
"""A cluster that has just started refuses jobs for some seconds."""
ANNOUNCING = ("ray", "ray.dashboard.modules.dashboard_sdk", "ray.dashboard.modules.job.sdk")
"""Ray's loggers that tell of each upload and each closed socket."""
WORKER_COMMAND = "--python_worker_command="
FINAL = {JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.STOPPED}


class SubmissionConfig(Config):
    """How a job is submitted; what it does is the verb's own config."""

    address: str
    """Dashboard of the cluster, http://HEAD:8265."""
    follow: bool = True
    """Stay, show the job's log, and take over its exit status."""
    job_id: str | None = None
    """Name of the job; Ray makes one up where not given."""
    python: str | None = None
    """Interpreter on the cluster; the one that its workers run where not given."""
    runtime_env: str | None = None
    """YAML file with a Ray runtime environment (env_vars, pip, ...)."""


def submit_job(
    verb: str, job: Config, config: SubmissionConfig, echo: Callable[[str], None]
) -> int:
    """Submits a verb with its resolved config; the exit status is the job's (0 if not followed).

    Raises:
        ClusterError: no cluster answers there, or it refuses the job.
        ConfigError: the runtime environment cannot be used.
    """
    client = _client(config.address)
    with _job_folder(job) as folder:
        runtime_env = _runtime_env(config, folder)
        python = config.python or cluster_python(client)
        entrypoint = f"{shlex.quote(python)} -m crane_ray {verb} --config config.yaml"
        metadata = {
            "crane_ray_verb": verb,
            "crane_ray_version": __version__,
            "crane_ray_config": job.fingerprint(),
        }
        job_id = _submit(
            client,
            config,
            entrypoint=entrypoint,
            submission_id=config.job_id,
            runtime_env=runtime_env,
            metadata=metadata,
        )
    echo(f"submitted {job_id}: {entrypoint}")
    if not config.follow:
        echo(
            f"follow it with: ray job logs --address {config.address} --follow {job_id}\n"
            f"stop it with:   ray job stop --address {config.address} {job_id}"
        )
        return 0
    return _follow(client, config.address, job_id, echo)


def _submit(client: JobSubmissionClient, config: SubmissionConfig, **job: Any) -> str:
    deadline = time.monotonic() + AGENT_WAIT_S
    while True:
        try:
            return str(client.submit_job(**job))
        except RuntimeError as error:
            if NO_AGENT not in str(error):
                raise ClusterError(_refusal(config, error)) from error
            if time.monotonic() > deadline:
                raise ClusterError(
                    f"--address {config.address}: the cluster has had no agent to run jobs for "
                    f"{AGENT_WAIT_S} s; look at dashboard_agent.log on its head node (its port, "
                    "52365, may be taken)"
                ) from error
            time.sleep(1)


def cluster_python(client: JobSubmissionClient) -> str:
    """The interpreter of the cluster's workers, as its head node reports it; else ``python``.

    A job's entry point is a shell line whose PATH need not hold the environment Ray runs in.
    """
    for attempt in range(NODE_REPORT_TRIES):
        time.sleep(attempt and 1)
        try:
            nodes = client._do_request("GET", "/nodes?view=summary").json()["data"]["summary"]
        except (RuntimeError, ConnectionError, ValueError, KeyError, TypeError):
            continue
        commands = [word for node in nodes for word in node.get("cmdline") or ()]
        for word in commands:
            if word.startswith(WORKER_COMMAND):
                return str(word.removeprefix(WORKER_COMMAND).split()[0])
    return "python"


def _client(address: str) -> JobSubmissionClient:
    if not address.startswith(("http://", "https://")):
        raise ClusterError(
            f"--address {address}: jobs are submitted to a cluster's dashboard, http://HEAD:8265 "
            "(in Kubernetes: kubectl port-forward service/CLUSTER-head-svc 8265)"
        )
    try:
        for name in ANNOUNCING:
            logging.getLogger(name).setLevel(logging.ERROR)
        return JobSubmissionClient(address)
    except AuthenticationError as error:
        raise ClusterError(f"--address {address}: {NO_TOKEN}") from error
    except (ConnectionError, RuntimeError, ValueError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ClusterError(
            f"--address {address}: no Ray dashboard answers there ({first}); check host and port"
        ) from error


@contextmanager
def _job_folder(job: Config) -> Iterator[Path]:
    """A folder with the resolved config alone: code and dependencies live on the cluster."""
    tree = job.model_dump(mode="json")
    if "cluster" in tree:
        tree["cluster"] = ClusterConfig().model_dump(mode="json")
    with tempfile.TemporaryDirectory(prefix="crane-job-") as folder:
        text = yaml.safe_dump(tree, sort_keys=False, allow_unicode=True)
        (Path(folder) / "config.yaml").write_text(text, encoding="utf-8")
        yield Path(folder)


def _runtime_env(config: SubmissionConfig, folder: Path) -> dict[str, Any]:
    given = read_yaml(config.runtime_env) if config.runtime_env else {}
    if "working_dir" in given:
        raise ConfigError(
            f"--runtime-env {config.runtime_env}: working_dir is the job's own (its config); put "
            "code into the image or py_modules"
        )
    return {**given, "working_dir": str(folder)}


def _refusal(config: SubmissionConfig, error: RuntimeError) -> str:
    if config.job_id and "already exists" in str(error):
        return (
            f"--job-id {config.job_id}: a job of that name is on the cluster already; choose "
            "another name (a rerun goes on where it stopped)"
        )
    return f"--address {config.address}: the cluster refused the job: {error}"


def _follow(
    client: JobSubmissionClient, address: str, job_id: str, echo: Callable[[str], None]
) -> int:
    try:
        asyncio.run(_echo_logs(client, job_id, echo))
        while (status := client.get_job_status(job_id)) not in FINAL:
            time.sleep(1)
    except KeyboardInterrupt:
        echo(
            f"no longer following; the job goes on. Stop it with: "
            f"ray job stop --address {address} {job_id}"
        )
        raise
    info = client.get_job_info(job_id)
    code = info.driver_exit_code
    echo(f"job {job_id}: {status.value.lower()}" + (f", exit status {code}" if code else ""))
    if status == JobStatus.SUCCEEDED:
        return 0
    if not code and info.message:
        echo(info.message)
    return int(code or 1)


async def _echo_logs(client: JobSubmissionClient, job_id: str, echo: Callable[[str], None]) -> None:
    async for lines in client.tail_job_logs(job_id):
        echo(lines.rstrip("\n"))

"""A job's config through the Ray Jobs API: submit, follow the log, hand back the exit status."""

import secrets
import shlex
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field
from ray.exceptions import AuthenticationError
from ray.job_submission import JobDetails, JobStatus, JobSubmissionClient

from crane_ray.config import Config, read_yaml
from crane_ray.errors import ClusterError, ConfigError
from crane_ray.runtime.following import NOT_STOPPED, follow_job, how_to_go_on
from crane_ray.runtime.job_client import STOPPED, answering, connect, exit_status, first_line
from crane_ray.runtime.job_paths import JobPaths, cohort_of, paths_of
from crane_ray.runtime.jobs import ClusterConfig
from crane_ray.version import __version__

NODE_REPORT_TRIES = 5
"""The dashboard learns of its nodes some seconds after a cluster starts."""
AGENT_WAIT_S, NO_AGENT = 60, "No available agent"
"""A cluster that has just started refuses jobs for some seconds."""
TAKEN = "already exists"
WORKER_COMMAND = "--python_worker_command="
SIGNALLED = 129
"""Exit statuses from here on are of commands that a signal ended: theirs are 0, 1 and 2."""
STOP_GRACE = {"RAY_JOB_STOP_WAIT_TIME_S": "30"}
"""What a stopped job's driver gets to end by itself, as from Slurm and Kubernetes; Ray's own 3 s
would kill one that is still recording what it did. Read by the job's supervisor."""
NEVER_BEGAN = {
    "JOB_SUPERVISOR_ACTOR_START_TIMEOUT", "JOB_SUPERVISOR_ACTOR_START_FAILURE",
    "JOB_SUPERVISOR_ACTOR_UNSCHEDULABLE",
}  # fmt: skip
"""Failures before the job's command ran."""
REPEATS = {"RUNTIME_ENV_SETUP_FAILURE", "JOB_ENTRYPOINT_COMMAND_START_ERROR"}
"""Failures that another try would only repeat."""


class SubmissionConfig(Config):
    """How a job is submitted; what it does is the verb's own config."""

    address: str
    """Dashboard of the cluster, http://HEAD:8265."""
    follow: bool = True
    """Stay, show the job's log, and take over its exit status."""
    job_id: str | None = None
    """Name of the job; made of the verb and the time where not given."""
    python: str | None = None
    """Interpreter on the cluster; the one that its workers run where not given."""
    runtime_env: str | None = None
    """YAML file with a Ray runtime environment (env_vars, pip, ...)."""
    retries: int = Field(0, ge=0)
    """Times that a job is submitted again, as NAME-2, NAME-3, ..., after the cluster lost it."""


@dataclass(frozen=True)
class _Prepared:
    """What each try of a job has in common."""

    verb: str
    job: Config
    entrypoint: str
    runtime_env: dict[str, Any]

    def command(self, *, resume: bool) -> str:
        """The entry point; of a later try with what makes its verb go on."""
        fields = type(self.job).model_fields
        # All other verbs go on by themselves: with --overwrite they do all slides again, since
        # what an earlier try did cannot be told from what was there before.
        if not resume or "resume" not in fields:
            return self.entrypoint
        return f"{self.entrypoint} --resume --no-overwrite"

    def metadata(self) -> dict[str, str]:
        """What crane-ray jobs shows of it."""
        cohort = {f"crane_ray_{name}": path for name, path in cohort_of(self.job).items()}
        return {
            "crane_ray_verb": self.verb,
            "crane_ray_version": __version__,
            "crane_ray_config": self.job.fingerprint(),
            **cohort,
        }


def submit_job(
    verb: str, job: Config, config: SubmissionConfig, echo: Callable[[str], None]
) -> int:
    """Submits a verb with its resolved config; the exit status is the job's (0 if not followed).

    Raises:
        ClusterError: no cluster answers there, or it refuses the job.
        ConfigError: the runtime environment cannot be used, or retries have nobody to make them.
    """
    if config.retries and not config.follow:
        raise ConfigError(
            f"--retries {config.retries} with --no-follow: it is the command that follows the job "
            "which submits it again; leave --no-follow out (in the background: nohup, tmux)"
        )
    client = connect(config.address)
    with _job_folder(job) as (folder, paths):
        runtime_env = _runtime_env(config, folder)
        python = shlex.quote(config.python or cluster_python(client))
        entrypoint = f"{python} -m {_module(paths)} {verb} --config config.yaml"
        prepared = _Prepared(verb, job, entrypoint, runtime_env)
        job_id = config.job_id or new_job_id(verb)
        _submit(client, config, prepared, job_id, echo=echo)
        if config.follow:
            return _see_through(client, config, prepared, job_id, echo)
    echo(how_to_go_on(job_id, config.address))
    return 0


def _module(paths: JobPaths) -> str:
    """What runs the verb: with local paths, only once the job's node is seen to have them."""
    checked = "crane_ray.cli.job_check paths.json config.yaml"
    return checked if paths.paths else "crane_ray"


def _see_through(
    client: JobSubmissionClient,
    config: SubmissionConfig,
    prepared: _Prepared,
    job_id: str,
    echo: Callable[[str], None],
) -> int:
    """Follows a job, and submits it again as often as it may be lost; its last exit status."""
    first, began = job_id, False
    for attempt in range(1, config.retries + 2):
        try:
            details = _follow(client, config.address, job_id, echo)
        except KeyboardInterrupt:  # of this command alone
            no_retry = "; nobody submits it again now if it is lost" if config.retries else ""
            echo(f"{NOT_STOPPED}{no_retry}\n{how_to_go_on(job_id, config.address)}")
            return STOPPED
        lost = why_lost(details)
        if lost is None or attempt > config.retries:
            break
        began = began or details is None or details.error_type not in NEVER_BEGAN
        job_id = f"{first}-{attempt + 1}"
        echo(
            f"{lost}: submitted again as {job_id} (retry {attempt} of {config.retries}), to go on "
            "with what is missing"
        )
        _submit(client, config, prepared, job_id, resume=began, echo=echo)
    return exit_status(details)


def new_job_id(verb: str) -> str:
    """A name that tells jobs apart, such as ``extract-0131-1725-3f9c``."""
    return f"{verb.replace(' ', '-')}-{time.strftime('%m%d-%H%M')}-{secrets.token_hex(2)}"


def why_lost(job: JobDetails | None) -> str | None:
    """Why a job that ended is worth another try: the cluster, not the job, failed; None if not.

    Statuses 1 and 2 are the command's own and would only be repeated, and who stopped a job
    wanted it stopped.
    """
    if job is None:
        return "the cluster forgot the job (its head node started anew)"
    if job.status != JobStatus.FAILED or job.error_type in REPEATS:
        return None
    if job.driver_exit_code is None:
        return "the job's driver was lost with its node"
    code = exit_status(job)
    return f"signal {code - 128} ended the job's driver" if code >= SIGNALLED else None


def _submit(
    client: JobSubmissionClient,
    config: SubmissionConfig,
    prepared: _Prepared,
    job_id: str,
    *,
    resume: bool = False,
    echo: Callable[[str], None],
) -> None:
    deadline, unsure = time.monotonic() + AGENT_WAIT_S, False
    command = prepared.command(resume=resume)
    while True:
        try:
            client.submit_job(
                entrypoint=command,
                submission_id=job_id,
                runtime_env=prepared.runtime_env,
                metadata=prepared.metadata(),
            )
            break
        except AuthenticationError:
            with answering(config.address):
                raise
        except (RuntimeError, OSError) as error:
            if unsure and TAKEN in str(error):
                break  # it went through, and its answer was lost
            unsure = isinstance(error, OSError)
            if NO_AGENT not in str(error) and not unsure:
                raise ClusterError(_refusal(config, job_id, error)) from error
            if time.monotonic() > deadline:
                raise ClusterError(_no_agent(config, error)) from error
            time.sleep(1)
    echo(f"submitted {job_id}: {command}")


def _no_agent(config: SubmissionConfig, error: Exception) -> str:
    if isinstance(error, OSError):
        return (
            f"--address {config.address}: the cluster has not answered for {AGENT_WAIT_S} s "
            f"({first_line(error)})"
        )
    return (
        f"--address {config.address}: the cluster has had no agent to run jobs for "
        f"{AGENT_WAIT_S} s; look at dashboard_agent.log on its head node (its port, "
        "52365, may be taken)"
    )


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


@contextmanager
def _job_folder(job: Config) -> Iterator[tuple[Path, JobPaths]]:
    """A folder with the resolved config, its paths, and the small files that travel with it.

    Code and dependencies live on the cluster.
    """
    tree = job.model_dump(mode="json")
    if "cluster" in tree:
        tree["cluster"] = ClusterConfig().model_dump(mode="json")
    paths = paths_of(job)
    with tempfile.TemporaryDirectory(prefix="crane-job-") as name:
        folder = Path(name)
        text = yaml.safe_dump(tree, sort_keys=False, allow_unicode=True)
        (folder / "config.yaml").write_text(text, encoding="utf-8")
        (folder / "paths.json").write_text(paths.model_dump_json(indent=1), encoding="utf-8")
        for one in paths.paths:
            if one.copy_name is not None:
                shutil.copyfile(one.path, folder / one.copy_name)
        yield folder, paths


def _runtime_env(config: SubmissionConfig, folder: Path) -> dict[str, Any]:
    given = read_yaml(config.runtime_env) if config.runtime_env else {}
    if "working_dir" in given:
        raise ConfigError(
            f"--runtime-env {config.runtime_env}: working_dir is the job's own (its config); put "
            "code into the image or py_modules"
        )
    variables = STOP_GRACE | (given.get("env_vars") or {})
    return {**given, "env_vars": variables, "working_dir": str(folder)}


def _refusal(config: SubmissionConfig, job_id: str, error: Exception) -> str:
    if TAKEN in str(error):
        return (
            f"--job-id {job_id}: a job of that name is on the cluster already; choose "
            "another name (a rerun goes on where it stopped)"
        )
    return f"--address {config.address}: the cluster refused the job: {error}"


def _follow(
    client: JobSubmissionClient, address: str, job_id: str, echo: Callable[[str], None]
) -> JobDetails | None:
    """The job once it has ended; see `follow_job`."""
    job = follow_job(client, address, job_id, echo)
    if job is None:
        echo(f"job {job_id}: lost")
        return None
    code = exit_status(job)
    echo(f"job {job_id}: {job.status.value.lower()}" + (f", exit status {code}" if code else ""))
    if job.status == JobStatus.FAILED and not job.driver_exit_code and job.message:
        echo(job.message)
    return job

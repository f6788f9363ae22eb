"""What is found out about a viewer before anything starts; needs no Ray Serve."""

import socket
from collections.abc import Sequence
from urllib.parse import quote

from crane_ray import storage
from crane_ray.errors import ConfigError
from crane_ray.plugins import require_plugin
from crane_ray.runtime.pools import Node
from crane_ray.runtime.viewing_jobs import ViewJob
from crane_ray.slides.opening import AUTO, READERS_PACKAGE
from crane_ray.slides.workspace import Workspace


def check_workspace(job: ViewJob) -> None:
    """Refuses a folder that is no workspace; one without slides yet is shown.

    Raises:
        ConfigError: there is nothing at the path, or a file; or no such reader.
    """
    kind = storage.kind_of(job.work)
    if kind != "folder":
        what = "a file" if kind else "nothing there"
        raise ConfigError(
            f"--work {job.work}: {what}; give the folder that crane-ray patch --work wrote"
        )
    Workspace(job.work).read_slides()
    if job.reader != AUTO:
        require_plugin(READERS_PACKAGE, job.reader)


def check_port(host: str, port: int) -> None:
    """Refuses a port that is taken, before Ray starts for nothing.

    Raises:
        ConfigError: it is, or the host is not this machine's.
    """
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[
            0
        ]
        with socket.socket(family, kind, protocol) as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trial.bind(place)
    except OSError as error:
        raise ConfigError(
            f"--host {host} --port {port}: cannot be listened on: {error.strerror or error}; give "
            "another --port, or an address of this machine"
        ) from error


def check_replicas(job: ViewJob, nodes: Sequence[Node]) -> None:
    """Refuses more replicas than CPUs: Serve would wait for them for ever.

    Raises:
        ConfigError: there are more.
    """
    num_cpus = int(sum(node.cpus for node in nodes))
    if job.replicas > num_cpus:
        raise ConfigError(
            f"--replicas {job.replicas}: each takes a CPU, and there are {num_cpus}; give fewer, "
            "or more CPUs with --cpus or --address"
        )


def page_url(job: ViewJob, token: str | None) -> str:
    """The address to open: a name by which others reach this machine, where it listens to all."""
    host = socket.gethostname() if job.host in {"0.0.0.0", "::"} else job.host
    if ":" in host:
        host = f"[{host}]"
    return f"http://{host}:{job.port}/" + (f"?token={quote(token, safe='')}" if token else "")

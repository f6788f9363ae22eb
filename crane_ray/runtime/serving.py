"""The viewer behind Ray Serve: starts it, says where it is, stops it."""

import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import ray
from ray import serve
from ray.serve.config import ProxyLocation
from ray.serve.exceptions import RayServeException
from ray.serve.schema import LoggingConfig
from starlette.applications import Starlette

from crane_ray.errors import ClusterError
from crane_ray.runtime.cluster import address_of, connected, no_native_output
from crane_ray.runtime.viewing_checks import (
    check_port,
    check_replicas,
    check_workspace,
    page_url,
)
from crane_ray.runtime.viewing_jobs import ViewJob
from crane_ray.viewer.app import create_app
from crane_ray.viewer.settings import ViewSettings

APP = "crane-ray-view"
CONCURRENT = 64
"""Requests that a replica takes at once; Serve's own 5 would make tiles wait for each other."""
STOPPING_S = 2.0
"""A replica that is told to stop gets this long for the requests that it works on."""


@dataclass(frozen=True)
class Address:
    """Where a viewer answers."""

    url: str
    """With the token, where one is asked for."""
    token: str | None


@contextmanager
def serving(job: ViewJob) -> Iterator[Address]:
    """A viewer that answers inside the block.

    On an embedded Ray everything stops at the end; on a cluster the viewer's app goes, and Serve
    with it unless it was there before.

    Raises:
        ConfigError: there is no such workspace, or the port is taken.
        ClusterError: no cluster answers, Serve does not start, or already listens elsewhere.
    """
    check_workspace(job)
    embedded = is_embedded(job)
    if embedded:
        check_port(job.host, job.port)
    settings = job.settings()
    quiet_serve()
    with connected(job.cluster) as nodes:
        check_replicas(job, nodes)
        started = _start(job)
        try:
            _deploy(job, settings)
            yield Address(page_url(job, settings.token), settings.token)
        finally:
            _stop(everything=started and not embedded)


def is_embedded(job: ViewJob) -> bool:
    """True where Ray starts and stops with the command."""
    return address_of(job.cluster) is None and not ray.is_initialized()


def wait_for_stop() -> None:
    """Waits until the user or the system ends the command (KeyboardInterrupt)."""
    threading.Event().wait()


def quiet_serve() -> None:
    """Serve's own log goes to its files: what a person needs to know is said by the command."""
    os.environ.setdefault("RAY_SERVE_LOG_TO_STDERR", "0")
    logging.getLogger("ray.serve").setLevel(logging.ERROR)


def _start(job: ViewJob) -> bool:
    """Starts Serve's proxy; False where Serve was there before and listens where it should."""
    before = _running()
    if before is not None:
        if (before.host, before.port) != (job.host, job.port):
            raise ClusterError(
                f"Ray Serve already runs on this cluster and listens on {before.host}:"
                f"{before.port}, not on {job.host}:{job.port}; give --host {before.host} --port "
                f"{before.port}, or stop it there (serve shutdown)"
            )
        return False
    try:
        serve.start(
            proxy_location=ProxyLocation.HeadOnly,
            http_options={"host": job.host, "port": job.port},
            logging_config=LoggingConfig(enable_access_log=False, log_level="WARNING"),
        )
    except (RayServeException, RuntimeError, OSError, TimeoutError) as error:
        raise ClusterError(
            f"Ray Serve cannot listen on {job.host}:{job.port}: {error}; give another --port"
        ) from error
    return True


def _running() -> "serve.config.HTTPOptions | None":
    """Where the cluster's Serve listens; None where it does not run."""
    from ray.serve.context import _get_global_client

    with suppress(RayServeException):
        return _get_global_client().http_config
    return None


def _deploy(job: ViewJob, settings: ViewSettings) -> None:
    def build() -> Starlette:
        return create_app(settings)

    deployment = serve.deployment(
        serve.ingress(build)(),
        name="viewer",
        num_replicas=job.replicas,
        max_ongoing_requests=CONCURRENT,
        graceful_shutdown_timeout_s=STOPPING_S,
        graceful_shutdown_wait_loop_s=0.1,
        ray_actor_options={"num_cpus": 1},
        logging_config=LoggingConfig(enable_access_log=False, log_level="WARNING"),
    )
    try:
        serve.run(deployment.bind(), name=APP, route_prefix="/")
    except (RayServeException, RuntimeError, ValueError) as error:
        raise ClusterError(
            f"the viewer does not start on Ray Serve: {error}; ray status shows whether the "
            f"cluster has {job.replicas} free CPUs"
        ) from error


def _stop(*, everything: bool) -> None:
    """Ends the app, and Serve with it where that goes on without Ray being stopped."""
    with no_native_output():  # Ray reports the end of Serve's controller as a failed task
        if everything:
            serve.shutdown()
        else:
            serve.delete(APP)

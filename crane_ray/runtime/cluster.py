"""A connection to a Ray cluster, or an embedded one that lives as long as the command."""

import http.client
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import ray
from ray.data import DataContext
from ray.exceptions import AuthenticationError

from crane_ray.errors import ClusterError
from crane_ray.runtime.each_node import require_alike
from crane_ray.runtime.job_logs import job_logging
from crane_ray.runtime.jobs import ClusterConfig
from crane_ray.runtime.landmarks import Landmark
from crane_ray.runtime.pools import Node

log = logging.getLogger(__name__)

ANSWER_WAIT_S = 15.0
"""A head node that is only just starting gets this long."""
HTTP_WAIT_S = 3.0
SET_TOKEN = (
    "set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN (or RAY_AUTH_TOKEN_PATH) to the cluster's own "
    "(~/.ray/auth_token on its head node)"
)
NO_TOKEN = (
    f"the cluster asks for a token that this machine does not have, or another one; {SET_TOKEN}"
)
"""Clusters that were started with a token refuse everybody without it."""


@contextmanager
def connected(
    config: ClusterConfig, landmarks: Sequence[Landmark] | None = None
) -> Iterator[tuple[Node, ...]]:
    """The nodes of a Ray that jobs can run on, set up for long tasks over few, small rows.

    An address, or RAY_ADDRESS in the environment (as in a submitted job), names a cluster that
    goes on afterwards; without either an embedded Ray starts here and is stopped at the end.

    Args:
        config: which one.
        landmarks: what every node of a cluster has to see, see `landmarks_of`; without it nodes
            are not asked.

    Raises:
        ClusterError: no cluster answers at the address, or a node cannot take part.
    """
    if ray.is_initialized():  # a test or a notebook that holds a Ray of its own
        with _data_context():
            yield _nodes()
        return
    address = address_of(config)
    with _own_termination():
        _start(address, config)
    try:
        if landmarks is not None and address is not None:
            require_alike(landmarks)
        with _data_context():
            yield _nodes()
    finally:
        ray.shutdown()


def address_of(config: ClusterConfig) -> str | None:
    """The cluster that a config or RAY_ADDRESS names; None for an embedded Ray."""
    address = config.address or os.environ.get("RAY_ADDRESS")
    return None if address == "local" else address


@contextmanager
def _own_termination() -> Iterator[None]:
    """Within the block Ray may put its own handlers of SIGTERM in place, which exit at once.

    Afterwards the command's own is there again, and one that Ray's took is handed on to it.
    """
    own = signal.getsignal(signal.SIGTERM)
    if not callable(own) or threading.current_thread() is not threading.main_thread():
        yield
        return
    try:
        yield
    except SystemExit:
        own(signal.SIGTERM, None)
        raise
    finally:
        signal.signal(signal.SIGTERM, own)


def _start(address: str | None, config: ClusterConfig) -> None:
    quiet: dict[str, Any] = {
        "logging_level": logging.ERROR,
        "log_to_driver": False,
        "logging_config": job_logging(config),
    }
    logging.getLogger("ray").setLevel(logging.ERROR)  # before init: it announces its tokens
    # The C++ core warns of every actor whose weights come through the object store, where the
    # driver holds them for as long as actors may restart.
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    # While the driver waits for a result, Ray looks for signals once a second only. Where SIGTERM
    # comes to every process at once, as from Slurm, others may be gone by then and end the driver.
    os.environ.setdefault("RAY_get_check_signal_interval_milliseconds", "50")
    # Cohorts of patients: nothing is reported to anybody unless the user says so.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Zero-GPU tasks on GPU nodes must not lose sight of CUDA_VISIBLE_DEVICES: Ray's future
    # default, chosen here so that it does not announce it.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    if address is not None:
        _check_address(address)
    try:
        if address is None:
            with no_native_output():
                _init_local(config, quiet)
        else:
            with no_native_output():
                ray.init(address=address, **quiet)
    except AuthenticationError as error:
        raise ClusterError(f"Ray cluster at {address or 'local'}: {NO_TOKEN}") from error
    except (OSError, ValueError, RuntimeError) as error:
        what = f"Ray cluster at {address}" if address else "local Ray"
        check = "--address" if address else "space and permissions of the temporary folder (TMPDIR)"
        if address is not None and os.environ.get("RAY_AUTH_MODE") != "token":
            # Ray's core says no more than that it cannot connect, also where a token is missing.
            check += f"; if the cluster was started with a token, {SET_TOKEN}"
        raise ClusterError(f"{what}: cannot be used: {error}; check {check}") from error


def _init_local(config: ClusterConfig, quiet: dict[str, Any]) -> None:
    ray.init(
        address="local",
        num_cpus=config.num_cpus,
        num_gpus=config.num_gpus,
        object_store_memory=config.object_store_mb * 2**20,
        include_dashboard=False,
        **quiet,
    )


@contextmanager
def no_native_output() -> Iterator[None]:
    """Sends what Ray's C++ core writes to stderr nowhere: it announces its own log level."""
    saved = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(nowhere)


def _check_address(address: str) -> None:
    if address.startswith(("http://", "https://")):
        raise ClusterError(
            f"--address {address}: that is a dashboard; submit the job there with "
            f"crane-ray submit VERB ... --address {address}, or give the cluster's own address "
            "(HOST:6379) from a machine of the cluster"
        )
    if "://" in address or address == "auto":
        return
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise ClusterError(
            f"--address {address}: that is no HOST:PORT; give the address of the cluster's head "
            f"node, {host or address}:6379 unless ray start --head was given another --port"
        )
    _require_answer(address, host, int(port))
    if _speaks_http(host, int(port)):
        raise ClusterError(
            f"--address {address}: a web server answers there, such as a cluster's dashboard; give "
            "the port of the cluster itself (6379 unless ray start --head was given another "
            f"--port), or submit the job: crane-ray submit VERB ... --address http://{address}"
        )


def _require_answer(address: str, host: str, port: int) -> None:
    """Refuses a place where nothing listens: Ray would try it for minutes without a word."""
    deadline = time.monotonic() + ANSWER_WAIT_S
    while True:
        try:
            socket.create_connection((host.strip("[]"), port), timeout=ANSWER_WAIT_S).close()
            return
        except OSError as error:
            if time.monotonic() >= deadline:
                raise ClusterError(
                    f"--address {address}: no Ray cluster answers there "
                    f"({error.strerror or error}); check host and port (its head node's, 6379 "
                    "unless ray start --head was given another --port)"
                ) from error
            time.sleep(1)


def _speaks_http(host: str, port: int) -> bool:
    """True for a web server, on whose port Ray would wait for minutes without a word."""
    connection = http.client.HTTPConnection(host.strip("[]"), port, timeout=HTTP_WAIT_S)
    try:
        connection.request("GET", "/api/version")
        connection.getresponse()
    except (OSError, http.client.HTTPException):  # gRPC hangs up, or says nothing
        return False
    finally:
        connection.close()
    return True


def _nodes() -> tuple[Node, ...]:
    alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return tuple(Node(found.get("CPU", 0), found.get("GPU", 0)) for found in alive)


@contextmanager
def _data_context() -> Iterator[None]:
    """Ray Data set up for rows that take minutes and errors that must not be lost.

    A row that kills its worker must neither be tried for ever nor end the run; one that takes
    an hour is no stall; and Ray's bars give way to ours.
    """
    context = DataContext.get_current()
    settings: dict[str, Any] = {
        "enable_progress_bars": False,
        "print_on_execution_start": False,
        "execution_no_progress_timeout_s": -1,
        "max_errored_blocks": -1,
        "max_consecutive_actor_init_deaths": 3,
        "enable_auto_log_stats": False,
    }
    before = {name: getattr(context, name) for name in settings}
    # What Ray Data logs as an error either ends the run, and is raised, or is the trace of a
    # block whose worker died, and whoever sent it knows that it did not come back.
    quiet = {"ray": logging.ERROR, "ray.data": logging.CRITICAL}
    loggers = [logging.getLogger(name) for name in quiet]
    levels = [logger.level for logger in loggers]
    try:
        for name, value in settings.items():
            setattr(context, name, value)
        for logger, level in zip(loggers, quiet.values(), strict=True):
            logger.setLevel(level)
        yield
    finally:
        for name, value in before.items():
            setattr(context, name, value)
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)

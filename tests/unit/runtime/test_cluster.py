"""Addresses at which there is no cluster are refused before Ray tries them for minutes."""

import os
import signal
import socket
import sys
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from crane_ray.errors import ClusterError
from crane_ray.runtime import cluster
from crane_ray.runtime.jobs import ClusterConfig

LOCAL = ClusterConfig(address="local")


@pytest.fixture
def closed_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def test_where_nothing_listens_the_address_is_named(
    closed_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "ANSWER_WAIT_S", 0.1)
    address = f"127.0.0.1:{closed_port}"
    with pytest.raises(ClusterError, match=rf"{address}: no Ray cluster answers there.*refused"):
        cluster._check_address(address)


def test_a_dashboard_is_told_from_a_cluster() -> None:
    with pytest.raises(ClusterError, match="crane-ray submit VERB"):
        cluster._check_address("http://head:8265")


def test_a_dashboards_port_is_told_from_the_clusters() -> None:
    server = HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    address = f"127.0.0.1:{server.server_port}"

    def answer_twice() -> None:
        server.handle_request()
        server.handle_request()

    with server, ThreadPoolExecutor(1) as pool:
        answered = pool.submit(answer_twice)
        with pytest.raises(ClusterError, match=rf"a web server.* --address http://{address}"):
            cluster._check_address(address)
        answered.result()


@pytest.mark.parametrize("address", ["10.0.0.1", "head", "head:", "head:port"])
def test_an_address_without_a_port_is_told_which_is_usual(address: str) -> None:
    with pytest.raises(ClusterError, match=r"that is no HOST:PORT.* (10.0.0.1|head):6379 unless"):
        cluster._check_address(address)


def test_where_something_listens_it_is_left_to_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "HTTP_WAIT_S", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        cluster._check_address(f"127.0.0.1:{listener.getsockname()[1]}")
    cluster._check_address("auto")


def test_a_local_ray_that_cannot_start_is_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: object) -> None:
        raise PermissionError(13, "Permission denied", "/tmp/ray")

    monkeypatch.setattr("ray.init", refuse)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with (
        pytest.raises(ClusterError, match=r"local Ray: .*/tmp/ray.*TMPDIR"),
        cluster.connected(ClusterConfig()),
    ):
        pass


@pytest.mark.parametrize("mode", [None, "token"])
def test_where_ray_cannot_connect_a_missing_token_is_thought_of(
    mode: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**_: object) -> None:
        raise ConnectionError("Failed to connect to GCS")

    monkeypatch.setattr("ray.init", refuse)
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    if mode:
        monkeypatch.setenv("RAY_AUTH_MODE", mode)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        with (
            pytest.raises(ClusterError, match="Failed to connect") as caught,
            cluster.connected(ClusterConfig(address=address)),
        ):
            pass
    assert ("RAY_AUTH_MODE=token" in str(caught.value)) == (mode is None)


@pytest.mark.parametrize("status", [1, signal.SIGTERM])
def test_a_termination_while_ray_starts_is_the_commands_own(
    status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray puts handlers of SIGTERM in place that leave at once, with statuses of their own."""

    def start(*_: Any, **__: Any) -> None:
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(status))
        os.kill(os.getpid(), signal.SIGTERM)

    def own(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("ray.init", start)
    before = signal.signal(signal.SIGTERM, own)
    try:
        with pytest.raises(KeyboardInterrupt), cluster.connected(LOCAL):
            pass
        assert signal.getsignal(signal.SIGTERM) is own
    finally:
        signal.signal(signal.SIGTERM, before)


def test_after_ray_has_started_a_termination_is_the_commands_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def start(*_: Any, **__: Any) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)

    def own(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("ray.init", start)
    monkeypatch.setattr("crane_ray.runtime.cluster._nodes", tuple)
    before = signal.signal(signal.SIGTERM, own)
    try:
        with pytest.raises(KeyboardInterrupt), cluster.connected(LOCAL):
            os.kill(os.getpid(), signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)

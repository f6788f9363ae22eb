"""A cluster as `ray start` makes it, with a dashboard: a head and workers, of one CPU each."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import requests
from ray.job_submission import JobSubmissionClient

from tests.ray.helpers import PLUGINS, ROOT, free_ports, wait_for

START = [
    sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--num-cpus", "1",
    "--object-store-memory", "100000000",
]  # fmt: skip


@contextmanager
def cluster_with_dashboard(num_nodes: int) -> Iterator[str]:
    """The dashboard's address; its nodes' PATH does not lead to the environment Ray runs in.

    Each node has a folder of its own: where several share one, as they cannot on machines of their
    own, each unpacks a job's working directory anew, over that of a driver that is in it.
    """
    port, gcs = free_ports(2)
    address = f"http://127.0.0.1:{port}"
    head = ["--head", "--port", str(gcs), "--dashboard-port", str(port)]
    words = [head, *([["--address", f"127.0.0.1:{gcs}"]] * (num_nodes - 1))]
    with ExitStack() as stack:
        nodes: list[subprocess.Popen[bytes]] = []

        def all_are_there() -> bool:
            for place, node in enumerate(nodes):
                if place and node.poll() is not None:  # a port that it chose was taken meanwhile
                    nodes[place] = stack.enter_context(_node(words[place]))
            return _num_nodes(address) == num_nodes

        for own in words:
            node = stack.enter_context(_node(own))
            nodes.append(node)
            wait_for(lambda: _answers(address) or nodes[0].poll() is not None, "the head")
            assert nodes[0].poll() is None
        wait_for(all_are_there, "all nodes")
        yield address


@contextmanager
def _node(words: list[str]) -> Iterator["subprocess.Popen[bytes]"]:
    path = os.pathsep.join([str(PLUGINS), str(ROOT)])
    # Sockets need short paths.
    with tempfile.TemporaryDirectory(prefix="r", dir="/tmp", ignore_cleanup_errors=True) as folder:
        (agent,) = free_ports(1)
        own = ["--temp-dir", folder, "--dashboard-agent-listen-port", str(agent)]
        node = subprocess.Popen(
            [*START, *own, *words],
            env={**os.environ, "PATH": "/usr/bin:/bin", "PYTHONPATH": path},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            yield node
        finally:
            try:
                _signal(node, signal.SIGINT)
                node.wait(timeout=10)
            except subprocess.TimeoutExpired:
                _signal(node, signal.SIGKILL)
                node.wait(timeout=60)


def _signal(node: "subprocess.Popen[bytes]", number: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(node.pid, number)


def _answers(address: str) -> bool:
    try:
        return requests.get(f"{address}/api/version", timeout=2).status_code in {200, 401, 403}
    except requests.ConnectionError:
        return False


def _num_nodes(address: str) -> int:
    try:
        answer = JobSubmissionClient(address)._do_request("GET", "/nodes?view=summary")
        found = answer.json()["data"]["summary"]
        return sum(node["raylet"]["state"] == "ALIVE" for node in found)
    except (RuntimeError, OSError, KeyError):
        return 0


def submit(folder: Path, address: str, *words: str) -> subprocess.Popen[str]:
    """``crane-ray submit WORDS`` in a folder, knowing of the cluster nothing but its address.

    What the environment says of a token stays: without it nobody may submit.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    kept |= {name: value for name, value in os.environ.items() if name.startswith("RAY_AUTH_")}
    return subprocess.Popen(
        [sys.executable, "-m", "crane_ray", "submit", *words, "--address", address],
        cwd=folder,
        env={**kept, "PYTHONPATH": str(ROOT), "COLUMNS": "200"},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )

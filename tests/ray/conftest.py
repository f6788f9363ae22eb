"""One small Ray a session, isolated from the user's home and from any other cluster."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from crane_ray.runtime.cluster import connected
from crane_ray.runtime.jobs import ClusterConfig
from crane_ray.testing.cohorts import SyntheticCohort, make_cohort
from tests.ray.helpers import PLUGINS, free_ports, wait_for


@pytest.fixture(scope="session", autouse=True)
def isolated_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Ray writes tokens into the home; tests have one of their own."""
    home = tmp_path_factory.mktemp("home")
    before = {name: os.environ.get(name) for name in ("HOME", "PYTHONPATH", "RAY_ADDRESS")}
    os.environ["HOME"] = str(home)
    own = home / "python"
    (own / "my_lab").mkdir(parents=True)
    os.environ["PYTHONPATH"] = f"{PLUGINS}{os.pathsep}{own}"
    sys.path += [str(PLUGINS), str(own)]
    os.environ.pop("RAY_ADDRESS", None)
    yield home
    for name, value in before.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


@pytest.fixture
def lab(isolated_home: Path) -> Path:
    """An empty folder ``my_lab`` that Python finds here and on the workers."""
    folder = isolated_home / "python" / "my_lab"
    shutil.rmtree(folder)
    folder.mkdir()
    return folder


@pytest.fixture(scope="session", autouse=True)
def interrupts() -> None:
    """Commands that tests start can be interrupted, also where a shell runs tests behind."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def local_ray(isolated_home: Path) -> Iterator[None]:
    """An embedded Ray that the tests of a session share."""
    with connected(ClusterConfig(num_cpus=2, object_store_mb=100)):
        yield


@pytest.fixture(scope="session")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> SyntheticCohort:
    """Four small slides."""
    return make_cohort(tmp_path_factory.mktemp("cohort"), num_slides=4, size_px=(1536, 1024))


@pytest.fixture(scope="module")
def dashboard(isolated_home: Path) -> Iterator[str]:
    """The dashboard of a head whose PATH does not lead to the environment Ray runs in."""
    port, gcs, agent = free_ports(3)
    with tempfile.TemporaryDirectory(prefix="r", dir="/tmp") as temporary:
        head = subprocess.Popen(
            [
                sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block",
                "--port", str(gcs), "--dashboard-port", str(port), "--num-cpus", "2",
                "--dashboard-agent-listen-port", str(agent),
                "--object-store-memory", "100000000", "--temp-dir", temporary,
            ],
            env={**os.environ, "PATH": "/usr/bin:/bin", "PYTHONPATH": str(PLUGINS)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip
        address = f"http://127.0.0.1:{port}"
        try:
            wait_for(lambda: _answers(address) or head.poll() is not None, "the head")
            assert head.poll() is None
            yield address
        finally:
            os.killpg(head.pid, signal.SIGINT)
            try:
                head.wait(timeout=10)
            except subprocess.TimeoutExpired:
                os.killpg(head.pid, signal.SIGKILL)
                head.wait(timeout=60)


def _answers(address: str) -> bool:
    try:
        return requests.get(f"{address}/api/version", timeout=2).status_code in {200, 401, 403}
    except requests.ConnectionError:
        return False

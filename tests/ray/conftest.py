"""One small Ray a session, isolated from the user's home and from any other cluster."""

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from crane_ray.runtime.cluster import connected
from crane_ray.runtime.jobs import ClusterConfig
from crane_ray.testing.cohorts import SyntheticCohort, make_cohort
from tests.ray.faults import VARIABLE, Faults
from tests.ray.heads import cluster_with_dashboard
from tests.ray.helpers import PLUGINS


@pytest.fixture(scope="session", autouse=True)
def isolated_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Ray writes tokens into the home; tests have one of their own."""
    home = tmp_path_factory.mktemp("home")
    names = ("HOME", "PYTHONPATH", "RAY_ADDRESS", VARIABLE)
    before = {name: os.environ.get(name) for name in names}
    os.environ["HOME"] = str(home)
    os.environ[VARIABLE] = str(tmp_path_factory.mktemp("faults"))
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


@pytest.fixture(scope="session")
def local_ray(isolated_home: Path) -> Iterator[None]:
    """An embedded Ray that the tests of a session share."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_metrics_report_interval_ms", "1000")  # tests wait for them
        with connected(ClusterConfig(num_cpus=2, object_store_mb=100)):
            yield


@pytest.fixture
def faults(isolated_home: Path) -> Iterator[Faults]:
    """Orders to the plugins that run on the session's Ray, and in commands of their own."""
    faults = Faults(Path(os.environ[VARIABLE]))
    faults.order()
    yield faults
    faults.order()


@pytest.fixture(scope="session")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> SyntheticCohort:
    """Four small slides."""
    return make_cohort(tmp_path_factory.mktemp("cohort"), num_slides=4, size_px=(1536, 1024))


@pytest.fixture(scope="module")
def dashboard(isolated_home: Path) -> Iterator[str]:
    """The dashboard of a cluster of three nodes."""
    with cluster_with_dashboard(3) as address:
        yield address

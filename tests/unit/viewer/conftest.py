from collections.abc import Iterator
from pathlib import Path

import pytest

from crane_ray.viewer.app import create_app
from crane_ray.viewer.settings import ViewSettings
from tests.unit.viewer.asgi import Client
from tests.unit.viewer.small_workspace import make_workspace


@pytest.fixture(scope="session")
def shared_work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace that no test changes."""
    return make_workspace(tmp_path_factory.mktemp("viewer"))


@pytest.fixture(scope="session")
def client(shared_work: Path) -> Iterator[Client]:
    """The app of that workspace, on loopback."""
    hosts = ("127.0.0.1", "localhost", "::1")
    app = create_app(ViewSettings(work=str(shared_work), hosts=hosts))
    yield Client(app)
    app.state.close()


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A workspace of a test's own."""
    return make_workspace(tmp_path)
